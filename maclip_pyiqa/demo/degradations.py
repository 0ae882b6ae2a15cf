"""Degradations of growing strength, which the demonstration backbone is trained on and shown on."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

__all__ = ['DEGRADATIONS', 'half_blur', 'reopened']


def blur(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Gaussian blur with a standard deviation of 0.5 to 10 pixels."""
    return image.filter(ImageFilter.GaussianBlur(_between(0.5, 10, strength)))


def noise(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Gaussian noise, independent in each channel, with a standard deviation of 0.02 to 0.5 of the range."""
    pixels = np.asarray(image, np.float32)
    noise = rng.standard_normal(pixels.shape, np.float32) * (255 * _between(0.02, 0.5, strength))
    return Image.fromarray((pixels + noise).clip(0, 255).round().astype(np.uint8))


def impulses(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Salt and pepper: 0.5 to 50 % of the pixels black or white."""
    pixels, drawn = np.array(image), rng.random(image.size[::-1], np.float32)
    share = _between(0.005, 0.5, strength)
    pixels[drawn < share / 2] = 0
    pixels[drawn > 1 - share / 2] = 255
    return Image.fromarray(pixels)


def jpeg(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """JPEG with a quality of 60 down to 1."""
    return reopened(image, 'JPEG', quality=round(_between(60, 1, strength)))


def downsampling(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Reduced 1.5 to 10 times and enlarged again, bicubic."""
    return _smaller(image, _between(1.5, 10, strength), Image.Resampling.BICUBIC)


def pixelation(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Blocks of one colour each, 1.5 to 10 pixels wide."""
    return _smaller(image, _between(1.5, 10, strength), Image.Resampling.NEAREST)


def contrast(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Contrast around the mean, reduced to 0.8 down to 0.08 of what it was."""
    pixels = np.asarray(image, np.float32)
    faded = pixels.mean() + (pixels - pixels.mean()) * _between(0.8, 0.08, strength)
    return Image.fromarray(faded.clip(0, 255).round().astype(np.uint8))


def sharpening(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Unsharp mask of a random radius of 1 to 4 pixels: 1 to 10 times the difference from the blurred image added."""
    radius, percent = rng.uniform(1, 4), round(100 * _between(1, 10, strength))
    return image.filter(ImageFilter.UnsharpMask(radius, percent, threshold=0))


# what the demonstration backbone is trained on; each takes an RGB image, a strength in [0, 1] and a generator
DEGRADATIONS: dict[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {
    'blur': blur,
    'noise': noise,
    'impulses': impulses,
    'JPEG': jpeg,
    'downsampling': downsampling,
    'pixelation': pixelation,
    'contrast': contrast,
    'sharpening': sharpening,
}


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


def _between(low: float, high: float, strength: float) -> float:
    return low * (high / low) ** strength  # in equal ratios: the steps look equal


def _smaller(image: Image.Image, factor: float, up: Image.Resampling) -> Image.Image:
    size = max(1, round(image.width / factor)), max(1, round(image.height / factor))
    return image.resize(size, Image.Resampling.BICUBIC).resize(image.size, up)
