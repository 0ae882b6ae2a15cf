"""Flags: found in images made for each, and in none of the photos."""

import numpy as np
import pytest
from PIL import Image

from maclip_pyiqa.scoring.flags import FLAGS, find_flags

SIZE = (384, 512)


@pytest.fixture
def photo(photo_files):
    return np.array(Image.open(photo_files[2]))  # coffee, which has fine texture


def noise(sigma, base=128, size=SIZE):
    values = base + sigma * np.random.default_rng(0).normal(size=(*size, 3))
    return values.round().clip(0, 255).astype(np.uint8)


def test_photos_have_none(photo_files):
    assert [find_flags(np.array(Image.open(file)), 224) for file in photo_files] == [''] * 10


@pytest.mark.parametrize('level', [0, 60, 128, 255])
def test_flat(level):
    for image in (np.full((*SIZE, 3), level, np.uint8), noise(1, level)):
        assert find_flags(image) == ('flat clipped' if level in (0, 255) else 'flat')


@pytest.mark.parametrize('sigma', [15, 40, 80])
def test_noise(sigma, photo):
    assert find_flags(noise(sigma)) == 'noise'
    half = photo.copy()
    half[192:] = noise(sigma)[192:]
    assert find_flags(half) == 'noise'
    assert find_flags(noise(40, photo)) == 'noise' and find_flags(noise(10, photo)) == ''


def test_clipped(photo):
    for end in (0, 255):
        some = photo.copy()
        some[100:250] = end
        assert find_flags(some) == 'clipped'
        some = photo.copy()
        some[100:200] = end
        assert find_flags(some) == ''
    red = photo.copy()
    red[..., 0], red[..., 1] = 255, 0
    assert find_flags(red) == ''  # all channels must be at one end


@pytest.mark.parametrize('turns', range(4))
def test_border(photo, turns):
    """Black bars, and the grey rest of a file that was cut off; each edge, also beside JPEG's ripples."""
    for rows, colour in ((20, 0), (20, (200, 30, 90)), (190, 128)):
        barred = photo.copy()
        barred[-rows:] = colour
        assert find_flags(np.rot90(barred, turns)) == 'border'
        noisy = np.clip(barred + np.random.default_rng(0).integers(-3, 4, barred.shape), 0, 255).astype(np.uint8)
        assert find_flags(np.rot90(noisy, turns)) == 'border'
    thin = photo.copy()
    thin[-10:] = 0
    assert find_flags(np.rot90(thin, turns)) == ''


def test_enlarged(photo):
    assert find_flags(photo[:223], 224) == 'enlarged' and find_flags(photo[:, :223], 224) == 'enlarged'
    assert find_flags(photo[:224], 224) == '' and find_flags(photo[:100]) == ''


def test_numbers_of_both_kinds_give_the_same(photo):
    for image in (photo, noise(40), np.zeros((*SIZE, 3), np.uint8), photo[:40, :40]):
        assert find_flags(image, 224) == find_flags(image.astype(np.float32) / 255, 224)


@pytest.mark.parametrize('size', [(1, 1), (1, 7), (5, 1), (2, 2), (33, 31), (3000, 1)])
def test_small_images(size):
    for image in (np.zeros((*size, 3), np.uint8), noise(60, size=size)):
        assert set(find_flags(image, 64).split()) <= set(FLAGS)
    assert 'flat' in find_flags(np.zeros((*size, 3), np.uint8))


def test_large_images_are_measured_in_parts(photo):
    large = np.tile(photo, (8, 6, 1))
    assert find_flags(large) == ''
    large[:1600] = 0
    assert find_flags(large) == 'clipped border'
