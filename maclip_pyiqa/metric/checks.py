"""Checks of options and images. Their errors say what is wrong, what is expected, and what to do."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    'OVERSHOOT',
    'RangeCheck',
    'as_images',
    'check_range',
    'flag',
    'number',
    'numbers',
    'rounded',
    'shares',
    'wants_grad',
    'whole',
]

# How far values may leave [0, 1]: without gradient by rounding, with gradient by a step of an optimiser. Images in
# [-1, 1] or [0, 255], or normalised ones, leave it by more.
ROUNDING, OVERSHOOT = 1e-4, 0.5


# --- options ----------------------------------------------------------------------------------------------------------


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`, of Python or NumPy, as an int.

    Raises:
        TypeError, ValueError: something else
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        raise TypeError(f'{name}={value!r}; expected a whole number') from None
    if count < least:
        raise ValueError(f'{name}={value}; expected at least {least}')
    return count


def number(name: str, value: Any) -> float:
    """A finite number, of Python or NumPy, as a float.

    Raises:
        TypeError, ValueError: something else
    """
    try:
        if isinstance(value, (bool, np.bool_, str, bytes, Tensor)):
            raise TypeError
        result = float(value)
    except TypeError:
        raise TypeError(f'{name}={value!r}; expected a number') from None
    except OverflowError:
        result = math.inf
    if not -1e300 < result < 1e300:  # false for NaN too
        raise ValueError(f'{name}={value!r}; expected a finite number')
    return result + 0.0  # no -0.0


def flag(name: str, value: Any) -> bool:
    """True or False, of Python or NumPy, as a bool.

    Raises:
        TypeError: something else
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f'{name}={value!r}; expected True or False')
    return bool(value)


def numbers(given: dict[str, Any]) -> dict[str, float]:
    """Finite numbers by their names.

    Raises:
        as `number`
    """
    return {name: number(name, value) for name, value in given.items()}


def shares(weights: Iterable[float] | None, pairs: int) -> list[float] | None:
    """Weights of the prompts, scaled to a sum of 1; None: equal.

    Raises:
        TypeError: not numbers
        ValueError: not as many as there are pairs, negative, not finite, or all zero
    """
    if weights is None:
        return None
    wrong = (
        f'prompt_weights={weights!r}; expected {pairs} numbers, one for each pair of prompts, none negative, not all '
        'zero'
    )
    try:
        if isinstance(weights, (str, bytes, dict, set)):
            raise TypeError
        found = [number('', weight) for weight in (weights.tolist() if isinstance(weights, Tensor) else weights)]
    except (TypeError, ValueError) as error:
        raise type(error)(wrong) from None
    total = sum(found)
    if len(found) != pairs or not (min(found) >= 0 and 0 < total < math.inf):
        raise ValueError(wrong)
    if not math.isclose(total, 1, abs_tol=1e-9):  # those of a `config` stay as they are
        found = [weight / total for weight in found]
    return None if len({rounded(weight) for weight in found}) == 1 else found


def rounded(weight: float) -> float:
    """To six digits: the last bits of a weight depend on what it was divided by."""
    return float(f'{weight:.6g}')


# --- images -----------------------------------------------------------------------------------------------------------


def wants_grad(images: Iterable[Tensor]) -> bool:
    """Whether a gradient is required of any of the images."""
    return torch.is_grad_enabled() and any(image.requires_grad for image in images)


def as_images(x: Any, device: torch.device) -> list[Tensor]:
    """A batch or a sequence as images (C, H, W), C being 1 or 3, whose form is checked, but not their values.

    Args:
        x: what the metric was given
        device: device that the images must be on

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
    """Check that images are finite and in [0, 1], those with gradient that finite ones are within OVERSHOOT of it.

    Looking at values waits for the device once. Where a gradient is required on an accelerator, only the first call
    looks, which is where a wrong range shows, so that training never waits.
    """

    def __init__(self) -> None:
        self.looked = False

    def __call__(self, images: Sequence[Tensor], margin: float = ROUNDING) -> None:
        """Check images.

        Args:
            images: (C, H, W) each
            margin: how far images without gradient may leave [0, 1]; from OVERSHOOT on they need not be finite either

        Raises:
            ValueError: values that are not finite, or too far outside
        """
        if torch.compiler.is_compiling():
            return
        margins: dict[int, float] = {}
        for i, image in enumerate(images):
            grad = wants_grad([image])
            if not (grad and self.looked and image.device.type != 'cpu'):
                margins[i] = OVERSHOOT if grad else margin
        self.looked = self.looked or wants_grad(images)
        if not margins:
            return
        values = torch.stack([torch.stack(images[i].detach().aminmax()).float() for i in margins]).tolist()
        for (i, margin), (low, high) in zip(margins.items(), values, strict=True):
            # what is not finite goes through where a network is trained: steps whose gradient overflowed are skipped
            if margin < OVERSHOOT or math.isfinite(low + high):
                check_range(i, low, high, margin)


def check_range(image: int, low: float, high: float, margin: float = ROUNDING) -> None:
    """Check the least and the largest value of an image.

    Args:
        image: number of the image, for the message
        low, high: the two values
        margin: how far they may leave [0, 1]

    Raises:
        ValueError: they leave it, or are NaN
    """
    if not -margin <= low <= high <= 1 + margin:
        hint = _range_hint(low, high)
        raise ValueError(f'image {image} has values in [{low:.4g}, {high:.4g}]; expected [0, 1]; {hint}')


def _range_hint(low: float, high: float) -> str:
    """What to do about a range, by what it looks like."""
    most = max(-low, high)
    if not math.isfinite(low + high):
        return 'it holds values that are not finite'
    if max(-low, high - 1) <= 0.2:
        return 'clamp it to [0, 1]'
    if low < -0.2 and most <= 1.5:
        return 'it looks like [-1, 1]: use (x + 1) / 2' + ', or clamp it to [0, 1] if it is not' * (low > -0.5)
    if low < -0.2 and most <= 5:
        return 'it looks normalised by a mean and a standard deviation: undo that, x * std + mean'
    if most > 5 and low > -0.2 * high:
        return 'it looks like [0, 255]: divide by 255' if high <= 300 else 'divide by its largest value, such as 65535'
    return 'scale or clamp it to [0, 1]'
