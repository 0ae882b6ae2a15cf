"""The table of images without content."""

import pytest
import torch

import reading
from maclip_pyiqa import MACLIP


def test_table(tiny, photo_files, photos, capsys):
    assert reading.main([str(photo_files[0]), '--backbone', tiny]) == 0
    rows = [
        line.split(' | ')
        for line in capsys.readouterr().out.splitlines()
        if line.startswith('| ') and '---' not in line
    ]
    assert len(rows) == 1 + len(reading.images()) + 1
    got = {row[0].removeprefix('| '): row[1] for row in rows[1:]}
    metric = MACLIP(backbone=tiny)
    for name, image in (reading.images() | {photo_files[0].name: photos[0]}).items():
        assert image.isfinite().all() and 0 <= image.min() <= image.max() <= 1
        assert float(got[name]) == pytest.approx(metric([image]).item(), abs=6e-4)
    assert torch.equal(reading.images()['noise, uniform'], reading.images()['noise, uniform'])


def test_says_what_it_is_of(capsys):
    assert reading.main(['--backbone', 'demo']) == 0
    assert capsys.readouterr().out.startswith('weights: demonstration backbone: not CLIP, and not the published metric')


def test_wrong_use(tiny, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        reading.main([str(tmp_path / 'none.png'), '--backbone', tiny])
    assert reading.main(['--pretrained', str(tmp_path / 'none.pt')]) == 3
    assert 'no such file' in capsys.readouterr().err
