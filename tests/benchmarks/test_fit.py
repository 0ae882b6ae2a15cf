"""The study of fitting: made-up ratings go through the commands."""

import csv

import pytest

from maclip_pyiqa.evaluation import fitting


def test_table(script, capsys, tmp_path):
    assert script.main(['--crops', '6', '-o', str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count('maclip_demo on ratings (list), n = 102; 5 folds by photo') == 2
    assert out.count('gain ') == 2 and '     50  0.' in out
    rows = list(csv.DictReader((tmp_path / 'ratings.csv').read_text().splitlines()))
    assert len({row['photo'] for row in rows}) == 6 and len(list(tmp_path.glob('*.png'))) == 102
    mean = {kind: sum(float(row['rating']) for row in rows if kind in row['filename']) for kind in ('blur', 'contrast')}
    assert mean['contrast'] > mean['blur'] + 10
    assert (tmp_path / 'results/fit/ratings.maclip_demo.head.safetensors').exists()


def test_seconds(script, monkeypatch):
    monkeypatch.setattr(fitting, 'SIZES', [])  # no learning curve
    assert script.seconds(200, views=1, width=16).keys() == {'head', 'constants'}
    for wrong in (['--seconds', '100'], ['--crops', '3']):
        with pytest.raises(SystemExit, match='2'):
            script.main(wrong)
