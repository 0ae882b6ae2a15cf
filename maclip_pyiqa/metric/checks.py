"""Checks of images. Their errors say what is wrong, what is expected, and what to do."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

# How far values may leave [0, 1]: without gradient by rounding, with gradient by a step of an optimiser; and the share
# of values that may be farther out. Images in [-1, 1] or [0, 255], or normalised ones, leave it by more.
ROUNDING, OVERSHOOT, OUTLIERS = 1e-4, 0.5, 0.01


def wants_grad(images: Iterable[Tensor]) -> bool:
    """Whether a gradient is required of any of the images."""
    return torch.is_grad_enabled() and any(image.requires_grad for image in images)


def as_images(x: Any, device: torch.device) -> list[Tensor]:
    """A batch or a sequence as images (C, H, W), C being 1 or 3, on `device`. Their form is checked, not their values.

    Raises:
        TypeError, ValueError: as `MACLIP.forward`
    """
    if isinstance(x, Tensor):
        if x.ndim != 4:
            hint = '; add the batch axis with x[None]' if x.ndim == 3 else ''
            raise ValueError(f'the images have the shape {tuple(x.shape)}; expected (N, 3, H, W) or (N, 1, H, W){hint}')
        images = list(x.unbind(0))
    elif isinstance(x, (list, tuple)):
        images = list(x)
    else:
        hint = '; maclip_pyiqa.scoring.read_image reads a file' if isinstance(x, (str, os.PathLike)) else ''
        raise TypeError(
            f'the images are a {type(x).__name__}; expected a tensor (N, 3, H, W) or a list of tensors (C, H, W){hint}'
        )
    if not images:
        raise ValueError('the batch is empty; expected at least one image')
    for i, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise TypeError(f'image {i} is a {type(image).__name__}; expected a tensor (C, H, W)')
        if not image.is_floating_point():
            hint = '; divide by 255 (x.float() / 255)' if image.dtype == torch.uint8 else ''
            raise TypeError(f'image {i} is {image.dtype}; expected floating point in [0, 1]{hint}')
        if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
            hint = '; drop the alpha channel or composite it' if image.ndim == 3 and image.shape[0] == 4 else ''
            if image.ndim == 3 and image.shape[0] > 4 and image.shape[2] in (1, 3, 4):
                hint = '; channels come first: x.movedim(-1, -3)'
            raise ValueError(f'image {i} has the shape {tuple(image.shape)}; expected (3, H, W) or (1, H, W){hint}')
        if image.device != device:
            raise ValueError(f'image {i} is on {image.device}, the metric on {device}; move one with .to()')
    return images


class RangeCheck:
    """Check that images are finite and in [0, 1]. Those with gradient may leave it: by OVERSHOOT, by more in a few
    pixels, and to NaN and infinity, since steps whose gradient overflowed are skipped.

    Looking at values waits for the device. Where a gradient is required on an accelerator, only calls 1, 2, 4, 8, ...
    look, so that training does not wait. Under torch.compile none does.
    """

    def __init__(self) -> None:
        self.calls = 0  # that require a gradient

    def __call__(self, images: Sequence[Tensor], lenient: bool = False) -> None:
        """Check images, (C, H, W) each; `lenient`: those without gradient may leave the range likewise.

        Raises:
            ValueError: values that are not finite, or too far outside
        """
        if torch.compiler.is_compiling() or any(image.is_meta or hasattr(image, 'fake_mode') for image in images):
            return
        grads = [wants_grad([image]) for image in images]
        self.calls += any(grads)
        looks = self.calls & (self.calls - 1) == 0
        checked = [i for i, image in enumerate(images) if looks or not grads[i] or image.device.type == 'cpu']
        if not checked:
            return
        try:
            ranges = torch.stack([torch.stack(images[i].detach().aminmax()).float() for i in checked]).tolist()
        except RuntimeError:  # of old versions of torch, inside torch.func.grad
            return
        for i, (low, high) in zip(checked, ranges, strict=True):
            if not (grads[i] or lenient):
                check_range(i, low, high)
            elif math.isfinite(low + high) and not -OVERSHOOT <= low <= high <= 1 + OVERSHOOT:
                image = images[i].detach()
                if ((image < -OVERSHOOT) | (image > 1 + OVERSHOOT)).float().mean() > OUTLIERS:
                    check_range(i, low, high)


def check_range(image: int, low: float, high: float) -> None:
    """Check that the least and the largest value of image number `image` are in [0, 1], but for rounding.

    Raises:
        ValueError: they leave it, or are NaN; the message says what to do about such a range
    """
    if -ROUNDING <= low <= high <= 1 + ROUNDING:
        return
    most = max(-low, high)
    if not math.isfinite(low + high):
        hint = 'it holds values that are not finite'
    elif max(-low, high - 1) <= 0.2:
        hint = 'clamp it to [0, 1]'
    elif low < -0.2 and most <= 1.5:
        hint = 'it looks like [-1, 1]: use (x + 1) / 2' + ', or clamp it to [0, 1] if it is not' * (low > -0.5)
    elif low < -0.2 and most <= 5:
        hint = 'it looks normalised by a mean and a standard deviation: undo that, x * std + mean'
    elif 20 < most <= 300 and low > -0.2 * high:
        hint = 'it looks like [0, 255]: divide by 255'
    elif most > 20 and low > -0.2 * high:
        hint = 'divide by the largest value of its format, such as 65535 for 16 bits'
    else:
        hint = 'scale or clamp it to [0, 1]'
    raise ValueError(f'image {image} has values in [{low:.6g}, {high:.6g}]; expected [0, 1]; {hint}')
