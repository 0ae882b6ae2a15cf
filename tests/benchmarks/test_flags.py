"""The count of false alarms and misses of flags."""

import numpy as np
import pytest
from PIL import Image


def test_tables(script, photo_files, tmp_path, capsys):
    Image.new('RGB', (300, 300)).save(tmp_path / 'black.png')
    assert script.main([*map(str, photo_files[:2]), str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith('3 photos\n') and '| `flat` | 1 | black.png |' in out and '| `noise` | 0 | none |' in out
    assert (
        '| noise of standard deviation 40 | `noise` | 6 of 6 |' in out and 'half is black | `clipped` | 2 of 2 |' in out
    )
    with pytest.raises(SystemExit, match='2'):
        script.main([str(tmp_path / '*.nix')])


def test_photos_of_packages(script):
    assert any('skimage' in folder for folder in script.packaged())


def test_broken_images_are_what_they_are_called(script):
    photo = np.random.default_rng(0).integers(0, 255, (100, 80, 3), np.uint8)
    assert (script.below(photo, 0.1, 9)[-10:] == 9).all() and (script.below(photo, 0.1, 9)[:-10] == photo[:-10]).all()
