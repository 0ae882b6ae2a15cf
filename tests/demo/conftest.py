"""Photos that the demonstration backbone never saw, and its analyses of images."""

import numpy as np
import pytest
import torch
from PIL import Image

from maclip_pyiqa import MACLIP
from maclip_pyiqa.scoring.read import to_tensor


@pytest.fixture(scope='session')
def metric():
    return MACLIP(backbone='demo')


@pytest.fixture(scope='session')
def clean(photo_files):
    """Five photos that the training never saw."""
    files = [file for file in photo_files if file.parent.name == 'ref_dir']
    assert len(files) == 5
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
