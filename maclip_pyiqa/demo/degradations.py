"""Degradations of growing strength, as the demonstration shows them.

Each takes an RGB image, a strength in [0, 1] and a random generator.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter


def blur(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Gaussian blur with a standard deviation of 0.5 to 10 pixels."""
    return image.filter(ImageFilter.GaussianBlur(between(0.5, 10, strength)))


def noise(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Gaussian noise, independent in each channel, with a standard deviation of 0.02 to 0.5 of the range."""
    pixels = np.asarray(image, np.float32)
    noise = rng.standard_normal(pixels.shape, np.float32) * (255 * between(0.02, 0.5, strength))
    return Image.fromarray((pixels + noise).clip(0, 255).round().astype(np.uint8))


def jpeg(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """JPEG with a quality of 60 down to 1."""
    return reopened(image, 'JPEG', quality=round(between(60, 1, strength)))


def half_blur(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """`blur` of the right half only."""
    half = (image.width // 2, 0, *image.size)
    mixed = image.copy()
    mixed.paste(blur(image, strength, rng).crop(half), half[:2])
    return mixed


def reopened(image: Image.Image, kind: str, **options: int) -> Image.Image:
    """The image after saving it to a lossy format and reading it back."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file).convert('RGB')


def between(low: float, high: float, strength: float) -> float:
    """A value from `low` at strength 0 to `high` at 1, in equal ratios, so that equal steps look equal."""
    return low * (high / low) ** strength
