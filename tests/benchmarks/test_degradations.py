"""Degradations of the training: stronger is further from the photo, and the same each time."""

import numpy as np
from PIL import Image

from maclip_pyiqa.demo import PHOTO


def test_degradations(load_script):
    photo = Image.open(PHOTO).convert('RGB')
    for kind, function in load_script('_degradations').DEGRADATIONS.items():
        error = []
        for strength in (0.0, 0.5, 1.0):
            images = [function(photo, strength, np.random.default_rng(3)) for _ in range(2)]
            assert images[0].size == photo.size and images[0].mode == 'RGB', kind
            assert np.array_equal(images[0], images[1]), kind
            error.append(np.square(np.array(images[0], float) - np.array(photo, float)).mean())
        assert 0 < error[0] < error[1] < error[2], kind
