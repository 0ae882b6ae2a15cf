"""The demonstration backbone: scores that fall with quality, from a few megabytes without a download."""

from pathlib import Path
from runpy import run_path

import numpy as np
import pyiqa
import pytest
import torch
from PIL import Image, ImageFilter

from maclip_pyiqa import MACLIP, WeightsError
from maclip_pyiqa.backbone.loading import DEMO

DEGRADATIONS = run_path(str(Path(__file__).parents[2] / 'benchmarks' / '_degradations.py'))['DEGRADATIONS']


@pytest.mark.parametrize('kind', DEGRADATIONS)
def test_degraded_scores_below_clean(clean, scores, kind):
    rows = []
    for photo in clean:
        steps = [DEGRADATIONS[kind](photo, s, np.random.default_rng(0)) for s in (0.5, 1.0)]
        rows.append(scores([photo, *steps]))
    first, middle, last = torch.stack(rows).unbind(1)
    assert (
        (first > last + 0.02).all() and (middle.mean() - last.mean() > 0.01) and (first.mean() > middle.mean() + 0.01)
    )


@pytest.mark.parametrize('kind', DEGRADATIONS)
def test_stronger_never_scores_higher(clean, scores, kind):
    """To the end of the range; the mean over the photos, and each of them but for a little."""
    steps = [[DEGRADATIONS[kind](photo, s / 5, np.random.default_rng(0)) for photo in clean] for s in range(6)]
    values = torch.stack([scores(images) for images in [clean, *steps]])  # (steps, photos)
    assert (values.mean(1).diff() < 0.02).all()
    assert (values - values.cummin(0).values).max() < 0.05


@pytest.mark.parametrize('radius', [3, 6])
def test_a_degradation_not_trained_on(clean, scores, radius):
    blurred = [photo.filter(ImageFilter.BoxBlur(radius)) for photo in clean]
    assert (scores(clean) > scores(blurred) + 0.05).all()


@pytest.mark.parametrize('half', ['left', 'right', 'upper', 'lower'])
def test_map_sees_the_blurred_half(clean, analyze, half):
    mask = torch.zeros(384, 512, dtype=torch.bool)
    where = {'left': np.s_[:, :256], 'right': np.s_[:, 256:], 'upper': np.s_[:192], 'lower': np.s_[192:]}[half]
    mask[where] = True
    for photo in clean:
        pixels = np.array(photo)
        pixels[where] = np.array(photo.filter(ImageFilter.GaussianBlur(4)))[where]
        (a,) = analyze([Image.fromarray(pixels)])
        map_ = a.quality_map()[0, 0]
        assert map_[mask].mean() < map_[~mask].mean() - 0.02
        before = analyze([photo])[0].quality_map()[0, 0]
        assert (before - map_)[mask].mean() > 0.05 > abs((before - map_)[~mask].mean())


def test_attributes_react_to_their_own_degradation(clean, analyze):
    def fall(kind, strength):
        degraded = [DEGRADATIONS[kind](photo, strength, np.random.default_rng(0)) for photo in clean]
        means = [torch.stack([a.attributes.mean((0, 1)) for a in analyze(i)]).mean(0) for i in (clean, degraded)]
        return dict(zip(analyze(clean[:1])[0].names, (means[0] - means[1]).tolist(), strict=True))

    blur, noise = fall('blur', 0.7), fall('noise', 0.7)
    assert blur['sharp'] > blur['noise-free'] + 0.1 and blur['edges'] > blur['noise-free'] + 0.1
    assert noise['noise-free'] > noise['sharp'] + 0.1
    assert blur['sharp'] > noise['sharp'] + 0.1 and noise['noise-free'] > blur['noise-free'] + 0.1


def test_by_name_and_only_by_name(metric, photos, monkeypatch, tmp_path):
    named = pyiqa.create_metric('maclip_demo', device='cpu')
    assert torch.equal(named(photos[0][None]), metric(photos[0][None]))
    for variable in ('HF_HOME', 'TORCH_HOME', 'XDG_CACHE_HOME'):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(WeightsError):
        MACLIP()


def test_assets_are_small_and_described():
    files = [file for file in DEMO.rglob('*') if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8e6
    text = (DEMO / 'README.md').read_text('utf-8')
    for word in ('not the published metric', 'licence', 'train_demo.py', 'demo_report.py'):
        assert word.lower() in text.lower()
