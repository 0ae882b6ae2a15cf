"""Degradations: stronger is further from the photo, and the same each time."""

import numpy as np
import pytest

from maclip_pyiqa.demo.degradations import blur, half_blur
from maclip_pyiqa.demo.showcase import SHOWN


@pytest.mark.parametrize('kind', SHOWN)
def test_degradations(clean, kind):
    error = []
    for strength in (0.0, 0.5, 1.0):
        images = [SHOWN[kind](clean[0], strength, np.random.default_rng(3)) for _ in range(2)]
        assert images[0].size == clean[0].size and images[0].mode == 'RGB'
        assert np.array_equal(images[0], images[1])
        error.append(np.square(np.array(images[0], float) - np.array(clean[0], float)).mean())
    assert 0 < error[0] < error[1] < error[2]


def test_half_blur_leaves_the_left(clean):
    half = np.array(half_blur(clean[0], 1.0, np.random.default_rng(0)))
    assert np.array_equal(half[:, :256], np.array(clean[0])[:, :256])
    assert np.array_equal(half[:, 256:], np.array(blur(clean[0], 1.0, np.random.default_rng(0)))[:, 256:])
