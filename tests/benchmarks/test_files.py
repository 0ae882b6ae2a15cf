"""Where the time of scoring files goes: the table, and one case for real."""

import pytest


def rows(text):
    return [line.strip('| ').split(' | ') for line in text.splitlines() if line.startswith('| ') and '---' not in line]


def test_table(script, capsys, monkeypatch):
    asked = []

    def run_case(folder, backbone, views, workers, at_once, setting):
        asked.append((workers, at_once, setting))
        return [len(asked), 2 * len(asked)]

    monkeypatch.setattr(script, 'run_case', run_case)
    assert script.main(['--images', '3', '--repeat', '2', '--workers', '3']) == 0
    table = rows(capsys.readouterr().out)
    assert len(table) == 1 + 9 and len(asked) == 18
    assert table[1] == ['reading: in this process', '5.5, 1.0', '11.0, 2.0']
    assert table[2][0] == 'reading: workers at once' and asked[1][:2] == (3, True)
    assert asked[2][:2] == (3, False) and asked[3][2] == {'GOMP_SPINCOUNT': '300000'}


def test_a_case(script, tmp_path, tiny):
    script.make_photos(tmp_path, 5, 80)
    with script.neighbours(1):
        seconds, cpu = script.run_case(tmp_path, tiny, 2, 1, True, {'OMP_NUM_THREADS': '1'})
    assert seconds > 0 and cpu > 0


def test_an_image_that_cannot_be_scored_stops_it(script, tmp_path, tiny):
    (tmp_path / 'a.jpg').write_bytes(b'')
    with pytest.raises(script.subprocess.CalledProcessError):
        script.run_case(tmp_path, tiny, None, 0, False, {})
