"""The benchmark of pages, on a few rows."""

import shutil

import pytest

pytest.importorskip('selenium')


def test_table(script, capsys):
    if not (shutil.which('chromium') or shutil.which('google-chrome')) or not shutil.which('chromedriver'):
        pytest.skip('pages are measured in Chromium, and it or its driver cannot be found')
    assert script.main(['--rows', '20', '700', '--repeats', '1']) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith('| rows | MB |') and len(lines) == 2
    for line, count in zip(lines, ('20', '700'), strict=True):
        cells = line.strip('| ').split(' | ')
        assert cells[0] == count and all(float(cell) >= 0 for cell in cells[1:]) and float(cells[3]) > 0
