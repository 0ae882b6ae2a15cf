"""The report on the demonstration backbone: its statistics by hand, its degradations, one run of it."""

import csv

import numpy as np
import pytest
import torch

import demo_report
from maclip_pyiqa import MACLIP


@pytest.fixture(scope='module')
def clean():
    return demo_report.photos()


def test_photos_are_the_nine(clean):
    assert len(clean) == 9
    assert all(max(photo.size) <= 512 and min(photo.size) >= 256 for photo in clean.values())


@pytest.mark.parametrize('kind', demo_report.KINDS)
def test_degradations_grow(clean, kind):
    photo, function = clean['I04'], demo_report.KINDS[kind][1]
    error = []
    for strength in (0.0, 0.5, 1.0):
        image = function(photo, strength, np.random.default_rng(1))
        assert image.size == photo.size and image.mode == 'RGB'
        error.append(np.square(np.array(image, float) - np.array(photo, float)).mean())
    assert 0 < error[0] < error[1] < error[2]


def test_filters_keep_the_mean():
    flat = demo_report.Image.new('RGB', (64, 48), (90, 120, 200))
    for kind in (demo_report.motion_blur, demo_report.defocus, demo_report.box_blur, demo_report.median_filter):
        for strength in (0.0, 0.3, 1.0):
            image = np.array(kind(flat, strength, np.random.default_rng(0)))
            assert np.abs(image - np.array(flat, float)).max() <= 1
    point = np.zeros((65, 65, 3), np.uint8)
    point[32, 32] = 255
    disc = np.array(demo_report.defocus(demo_report.Image.fromarray(point), 1.0, None))[..., 0] > 0
    ys, xs = disc.nonzero()
    assert np.hypot(ys - 32, xs - 32).max() == pytest.approx(7, abs=0.5) and disc.sum() == pytest.approx(
        np.pi * 49, rel=0.1
    )


def test_summary_by_hand():
    values = np.zeros((2, 3, 3))
    values[0, :, 0], values[1, :, 0] = (
        (0.9, 0.5, 0.1),
        (0.2, 0.4, 0.3),
    )  # right order; SRCC of (1, 2, 3), (1, 3, 2) is 0.5
    values[..., 1] = 0.5  # constant: says nothing
    values[..., 2] = -values[..., 0]
    row = demo_report.summary(values)
    assert row['q'] == pytest.approx((1 - 0.5) / 2) and row['q_sim'] == 0 and row['q_mag'] == pytest.approx(-0.25)
    assert row['clean above strongest'] == 0.5
    assert row['clean'] == pytest.approx(0.55) and row['strongest'] == pytest.approx(0.2)


def test_halves_are_seen(clean):
    few = {name: clean[name] for name in ('I03', 'I08')}
    found = demo_report.halves(MACLIP(backbone='demo'), few)
    assert len(found) == 3 and all(value > 0.9 for value in found.values())


def test_report(tmp_path, monkeypatch, capsys, clean, tiny):
    kinds = {kind: demo_report.KINDS[kind] for kind in ('blur', 'defocus', 'desaturation')}
    monkeypatch.setattr(demo_report, 'KINDS', kinds)
    monkeypatch.setattr(demo_report, 'photos', lambda: {name: clean[name] for name in ('I03', 'I08')})
    folder = tiny.removeprefix('local-dir:')
    assert demo_report.main([folder, folder, '-o', str(tmp_path / 'out')]) == 0
    assert demo_report.main(['-o', str(tmp_path / 'out')]) == 0
    out = capsys.readouterr().out
    assert 'Spread' not in out.split('## demo, 2 photos')[1] and '| mean, unseen | unseen |' in out
    with open(tmp_path / 'out' / 'report.csv', newline='') as file:
        rows = {row['kind']: row for row in csv.DictReader(file)}
    assert set(rows) == set(kinds) and rows['blur']['group'] == 'seen'
    metric = MACLIP(backbone='demo')
    with torch.inference_mode():
        want = np.mean([float(metric(demo_report.tensor(clean[name])[None])) for name in ('I03', 'I08')])
    assert float(rows['blur']['clean']) == pytest.approx(want, abs=1e-5)
    assert float(rows['blur']['q']) > 0.9
    assert (tmp_path / 'out' / 'report.png').read_bytes()[:4] == b'\x89PNG'
    assert (tmp_path / 'out' / 'report.md').read_text() in out


def test_no_such_folder(tmp_path, capsys):
    assert demo_report.main([str(tmp_path / 'none'), '-o', str(tmp_path)]) == 3
    assert 'none' in capsys.readouterr().err
