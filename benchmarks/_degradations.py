"""Degradations of growing strength, which the demonstration backbone is trained on.

Each takes an RGB image, a strength in [0, 1] and a random generator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from maclip_pyiqa.demo.degradations import between, blur, jpeg, noise


def impulses(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Salt and pepper: 0.5 to 50 % of the pixels black or white."""
    pixels, drawn = np.array(image), rng.random(image.size[::-1], np.float32)
    share = between(0.005, 0.5, strength)
    pixels[drawn < share / 2] = 0
    pixels[drawn > 1 - share / 2] = 255
    return Image.fromarray(pixels)


def downsampling(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Reduced 1.5 to 10 times and enlarged again, bicubic."""
    return smaller(image, between(1.5, 10, strength), Image.Resampling.BICUBIC)


def pixelation(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Blocks of one colour each, 1.5 to 10 pixels wide."""
    return smaller(image, between(1.5, 10, strength), Image.Resampling.NEAREST)


def contrast(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Contrast around the mean, reduced to 0.8 down to 0.08 of what it was."""
    pixels = np.asarray(image, np.float32)
    faded = pixels.mean() + (pixels - pixels.mean()) * between(0.8, 0.08, strength)
    return Image.fromarray(faded.clip(0, 255).round().astype(np.uint8))


def sharpening(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Unsharp mask of a random radius of 1 to 4 pixels: 1 to 10 times the difference from the blurred image added."""
    radius, percent = rng.uniform(1, 4), round(100 * between(1, 10, strength))
    return image.filter(ImageFilter.UnsharpMask(radius, percent, threshold=0))


def smaller(image: Image.Image, factor: float, up: Image.Resampling) -> Image.Image:
    size = max(1, round(image.width / factor)), max(1, round(image.height / factor))
    return image.resize(size, Image.Resampling.BICUBIC).resize(image.size, up)


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
