"""Photos that the demonstration backbone never saw, and its analyses of images."""

from pathlib import Path

import numpy as np
import pyiqa
import pytest
import torch
from PIL import Image

from maclip_pyiqa import MACLIP
from maclip_pyiqa.demo import PHOTO
from maclip_pyiqa.scoring.read import to_tensor


@pytest.fixture(scope='session')
def metric():
    return MACLIP(backbone='demo')


@pytest.fixture(scope='session', params=['astronaut', pytest.param("pyiqa's", marks=pytest.mark.slow)])
def clean(request):
    """Photos of 512x384 that the demonstration backbone was not trained on: the package's own, or five from pyiqa's
    wheel, which not every version of pyiqa has."""
    files = [PHOTO]
    if request.param != 'astronaut':
        files = sorted(Path(pyiqa.__file__).parents[1].glob('ResultsCalibra/ref_dir/*.bmp'))
        if not files:
            pytest.skip('the installed pyiqa has no photos in its wheel (version 0.1.16 has)')
    return [Image.open(file).convert('RGB') for file in files]


@pytest.fixture(scope='session')
def analyze(metric):
    """PIL images -> a list of their analyses."""

    def analyze(images):
        with torch.inference_mode():
            return metric.analyze([to_tensor(np.array(image)) for image in images])

    return analyze


@pytest.fixture(scope='session')
def scores(analyze):
    """PIL images -> scores, (N,)."""
    return lambda images: torch.stack([a.q.squeeze() for a in analyze(images)])
