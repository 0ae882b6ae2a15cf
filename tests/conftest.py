"""Stand-in weights and real photos. Scores of stand-ins mean nothing; they only tell images apart."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / 'benchmarks'))

from maclip_pyiqa import testing as standin
from maclip_pyiqa import MACLIP


settings.register_profile('tests', deadline=None, derandomize=True)  # no timings, and the same examples each time
settings.load_profile('tests')


@pytest.fixture(scope='session')
def photo_files() -> list[Path]:
    """Ten 512x384 photos that come in pyiqa's wheel."""
    site = Path(find_spec('pyiqa').origin).parents[1]
    files = sorted(site.glob('ResultsCalibra/*/*.bmp'))
    assert len(files) == 10
    return files


@pytest.fixture(scope='session')
def photos(photo_files) -> list[torch.Tensor]:
    """The photos, (3, 384, 512) in [0, 1]."""
    arrays = [np.array(Image.open(file).convert('RGB')) for file in photo_files]
    return [torch.from_numpy(array).permute(2, 0, 1).float() / 255 for array in arrays]


@pytest.fixture(scope='session')
def tiny_clip(photos) -> torch.nn.Module:
    return standin.make_clip(standin.TINY, photos)


@pytest.fixture(scope='session')
def tiny(tiny_clip, tmp_path_factory) -> str:
    """Name of a tiny CLIP ResNet: window 64, features of 64."""
    return standin.save_folder(tiny_clip, standin.TINY, tmp_path_factory.mktemp('tiny'))


@pytest.fixture
def tiny_metric(tiny) -> MACLIP:
    return MACLIP(backbone=tiny)


@pytest.fixture(scope='session')
def rn50_clip(photos) -> torch.nn.Module:
    """A whole RN50 in OpenAI's layout, as open_clip builds it."""
    clip = standin.make_clip('RN50', photos[::3])
    clip.load_state_dict(standin.state_dict(clip))  # what half precision keeps
    return clip


@pytest.fixture(scope='session')
def rn50_file(rn50_clip, tmp_path_factory) -> Path:
    """Its weights as OpenAI publishes them: a TorchScript archive, partly in half precision."""
    path = tmp_path_factory.mktemp('rn50') / 'RN50.pt'
    standin.save_torchscript(standin.state_dict(rn50_clip), path)
    return path


@pytest.fixture(scope='session')
def rn50_metric(rn50_file) -> MACLIP:
    return MACLIP(pretrained=rn50_file)
