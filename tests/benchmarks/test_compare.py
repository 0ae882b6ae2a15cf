"""The study of paired comparisons, on a few crops."""

import numpy as np
import pytest


def test_table(script, photo_files, capsys, tmp_path):
    args = [*map(str, photo_files[:2]), '--crops', '8', '--draws', '4', '--qualities', '70', '3', '-o', str(tmp_path)]
    assert script.main(args) == 0
    out = capsys.readouterr().out
    rows = [line.strip('| ').split(' | ') for line in out.splitlines() if line.startswith('| ')]
    assert [row[0] for row in rows] == ['n', '---', '5', '6'] and rows[2][1] == 'no verdict'
    assert rows[3][1] == '100 %'
    assert 'quality70 above quality3' in out and 'itself: no difference: all 8 pairs are equal' in out
    assert 'not the published metric' in out
    assert {path.name for path in tmp_path.iterdir()} == {'quality3', 'quality70', 'compare.html', 'compare.csv'}
    assert len(list((tmp_path / 'quality3').iterdir())) == 8


def test_shares(script):
    rng = np.random.default_rng(0)
    low = rng.normal(0.5, 0.2, 60)
    by_pairs, by_means, false = script.shares(low, low + rng.normal(0.02, 0.01, 60), 20, 40, 0)
    assert by_pairs == 1 and by_means < 0.2 and false < 0.2


def test_misses(script, capsys):
    assert script.main(['--intervals', '60']) == 0
    rows = [line.strip('| ').split(' | ') for line in capsys.readouterr().out.splitlines()][2:]
    assert [row[1] for row in rows] == ['6', '10', '20', '40'] * 3
    plain, expanded = ([float(row[i].removesuffix(' %')) for row in rows] for i in (2, 3))
    assert sum(plain) > 1.3 * sum(expanded) and max(expanded) < 20


def test_crops_are_spread_over_the_photos(script):
    photos = script.default_photos()
    found = script.crops(photos, 96, 14)
    assert len(photos) >= 7 and len(found) == 14 and {crop.size for crop in found.values()} == {(96, 96)}
    first = list(found)[: len(photos)]
    assert len({name.split('-')[0] for name in first}) == len(first)


def test_wrong_use(script, tmp_path):
    for args in (['--qualities', '40', '40'], [str(tmp_path / 'none.png')]):
        with pytest.raises(SystemExit, match='2'):
            script.main(args)
    assert script.main(['--backbone', 'RN50', '--pretrained', str(tmp_path / 'none.pt')]) == 3
