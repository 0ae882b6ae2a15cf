"""The table of one photo at several sizes."""

import pytest

from maclip_pyiqa import MACLIP


def rows(out):
    return [line.strip('| ').split(' | ') for line in out.splitlines() if line.startswith('| ') and '---' not in line]


def test_table(script, tiny, photo_files, photos, capsys):
    assert script.main([str(photo_files[0]), '--backbone', tiny, '--sides', '128', '512', '256']) == 0
    header, *table = rows(capsys.readouterr().out)
    assert header == ['size', 'views', 'score', 'windows', 'whole', 'score at 128x96']
    assert [row[0] for row in table] == ['512x384', '256x192', '128x96']
    metric = MACLIP(backbone=tiny)
    analysis = metric.analyze(photos[0][None])
    want = [analysis.plan.views, analysis.q, analysis.q_view[:, :-1].mean(), analysis.q_view[0, -1]]
    assert [float(value) for value in table[0][1:5]] == pytest.approx([float(value) for value in want], abs=6e-4)
    assert table[2][2] == table[2][5]  # has that size already
    assert abs(float(table[1][5]) - float(table[2][5])) < abs(float(table[1][2]) - float(table[2][2]))


def test_says_what_it_is_of(script, capsys):
    assert script.main(['--backbone', 'demo', '--sides', '96']) == 0
    out = capsys.readouterr().out
    assert out.startswith('weights: demonstration backbone: not CLIP, and not the published metric\n')
    assert 'astronaut.jpg, 512x384' in out
    ((size, *_, score, windows, whole, again),) = rows(out)[1:]
    assert size == '96x72' and score == again and windows != whole


def test_wrong_use(script, tiny, tmp_path, capsys):
    for wrong in ([str(tmp_path / 'none.png')], ['--sides', '600'], ['--sides', '0', '128']):
        with pytest.raises(SystemExit, match='2'):
            script.main([*wrong, '--backbone', tiny])
    assert 'expected 1 to 512 pixels' in capsys.readouterr().err
    assert script.main(['--pretrained', str(tmp_path / 'none.pt')]) == 3
    assert 'no such file' in capsys.readouterr().err
