"""The report on the demonstration backbone: its statistics by hand, its degradations, one run of it."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

from maclip_pyiqa import MACLIP
from maclip_pyiqa.demo import PHOTO


@pytest.fixture(scope='module')
def clean():
    """A photo that the training did not see, both ways round."""
    photo = Image.open(PHOTO).convert('RGB')
    return {'photo': photo, 'mirrored': ImageOps.mirror(photo)}


def test_photos_were_not_trained_on(script, load_script, monkeypatch):
    """Three without pyiqa's wheel, which not every version of pyiqa fills with nine more."""
    trained = {name for package in load_script('train_demo').PHOTOS.values() for name in package}
    photos = script.photos()
    assert len(photos) in (3, 12) and not trained & set(photos)
    assert all(max(photo.size) <= 512 and min(photo.size) >= 256 for photo in photos.values())
    monkeypatch.setattr(script, 'find_spec', lambda name: None)
    assert set(script.photos()) == {'astronaut', 'coffee', 'flower'}


def test_degradations_grow(script, clean):
    photo = clean['photo']
    for kind, (_, function) in script.KINDS.items():
        error = []
        for strength in (0.0, 0.5, 1.0):
            image = function(photo, strength, np.random.default_rng(1))
            assert image.size == photo.size and image.mode == 'RGB', kind
            error.append(np.square(np.array(image, float) - np.array(photo, float)).mean())
        assert 0 < error[0] < error[1] < error[2], kind


def test_filters_keep_the_mean(script):
    flat = Image.new('RGB', (64, 48), (90, 120, 200))
    for kind in (script.motion_blur, script.defocus, script.box_blur, script.median_filter):
        for strength in (0.0, 0.3, 1.0):
            image = np.array(kind(flat, strength, np.random.default_rng(0)))
            assert np.abs(image - np.array(flat, float)).max() <= 1
    point = np.zeros((65, 65, 3), np.uint8)
    point[31:34, 31:34] = 255  # one pixel, spread over so many, would round to nothing
    disc = np.array(script.defocus(Image.fromarray(point), 1.0, None))[..., 0] > 0
    ys, xs = disc.nonzero()
    assert np.hypot(ys - 32, xs - 32).max() == pytest.approx(21, abs=1.0)
    assert disc.sum() == pytest.approx(np.pi * 21**2, rel=0.1)


def test_summary_by_hand(script):
    values = np.zeros((2, 3, 3))
    values[0, :, 0], values[1, :, 0] = (
        (0.9, 0.5, 0.1),
        (0.2, 0.4, 0.3),
    )  # right order; SRCC of (1, 2, 3), (1, 3, 2) is 0.5
    values[..., 1] = 0.5  # constant: says nothing
    values[..., 2] = -values[..., 0]
    row = script.summary(values)
    assert row['q'] == pytest.approx((1 - 0.5) / 2) and row['q_sim'] == 0 and row['q_mag'] == pytest.approx(-0.25)
    assert row['clean above strongest'] == 0.5
    assert row['monotone'] == 0.5 and row['rise'] == pytest.approx(0.1) and row['largest rise'] == pytest.approx(0.2)
    assert row['clean'] == pytest.approx(0.55) and row['strongest'] == pytest.approx(0.2)


def test_halves_are_seen(script, clean):
    found = script.halves(MACLIP(backbone='demo'), clean)
    assert len(found) == 3 and all(value > 0.9 for value in found.values())


@pytest.mark.slow
def test_report(script, tmp_path, monkeypatch, capsys, clean, tiny):
    kinds = {kind: script.KINDS[kind] for kind in ('blur', 'defocus', 'desaturation')}
    monkeypatch.setattr(script, 'KINDS', kinds)
    monkeypatch.setattr(script, 'photos', lambda: clean)
    folder = tiny.removeprefix('local-dir:')
    assert script.main([folder, folder, '-o', str(tmp_path / 'out')]) == 0
    assert script.main(['-o', str(tmp_path / 'out')]) == 0
    out = capsys.readouterr().out
    assert 'Spread' not in out.split('## demo, 2 photos')[1] and '| mean, unseen | unseen |' in out
    rows = pd.read_csv(tmp_path / 'out' / 'report.csv').set_index('kind')
    assert set(rows.index) == set(kinds) and rows['group']['blur'] == 'seen'
    metric = MACLIP(backbone='demo')
    with torch.inference_mode():
        want = np.mean([float(metric(script.tensor(clean[name])[None])) for name in clean])
    assert rows['clean']['blur'] == pytest.approx(want, abs=1e-5)
    assert rows['q']['blur'] > 0.9
    assert (tmp_path / 'out' / 'report.png').read_bytes()[:4] == b'\x89PNG'
    assert (tmp_path / 'out' / 'report.md').read_text() in out


def test_no_such_folder(script, tmp_path, capsys):
    assert script.main([str(tmp_path / 'none'), '-o', str(tmp_path)]) == 3
    assert 'none' in capsys.readouterr().err
