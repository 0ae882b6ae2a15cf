"""The score as a reward for preference tuning of image generators.

The interface `(images, prompts, metadata) -> (rewards, info)` is that of flow_grpo's reward functions:
`flow_grpo/rewards.py` of https://github.com/yifan123/flow_grpo, commit 94e23ee5405ab7241fc1f75d30cac8147e2b1f53.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._values import integer
from ..metric import MACLIP
from ..metric.checks import as_images, check_range
from ..scoring.read import read_pixels
from ..scoring.score import analyze_each

__all__ = ['MACLIPReward']

# Both cues are at least 0 and the fusion lies between them, so no image scores lower; with a head one may.
LOWEST = 0.0


class MACLIPReward:
    """A reward function: MA-CLIP's scores of generated images, without gradient.

    An image that cannot be scored (wrong shape, not finite, outside [0, 1], too long and thin) gets 0, or the
    lowest score of its batch if that is lower, and a warning, so that one of them does not end a run. Where most images
    of a batch have a wrong type, shape or range, the caller's format is wrong, and that is an error.

    Args:
        metric: metric on the device to compute on
        batch: largest number of images on that device at once

    Raises:
        TypeError, ValueError: a wrong argument

    Example::

        import torch
        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.integrations.rewards import MACLIPReward

        reward = MACLIPReward(MACLIP())        # MACLIP().to('cuda') on a GPU
        rewards, info = reward(torch.rand(4, 3, 256, 256))  # (4,), float32
    """

    def __init__(self, metric: MACLIP, batch: int = 16) -> None:
        if not isinstance(metric, MACLIP):
            raise TypeError(f'metric is a {type(metric).__name__}; expected a MACLIP')
        self.metric = metric
        self.batch = integer('batch', batch)

    def __call__(
        self,
        images: Tensor | np.ndarray | Sequence[Image.Image | Tensor | np.ndarray],
        prompts: Any = None,
        metadata: Any = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Score images.

        Args:
            images: a tensor (N, 3, H, W), an array (N, H, W, 3), or a sequence of N PIL images, tensors (3, H, W) or
                arrays (H, W, 3) of any sizes; RGB, floating point in [0, 1] or uint8; PIL images of all modes are
                read as `read_image` reads files
            prompts, metadata: arguments of flow_grpo's interface, ignored

        Returns:
            rewards, (N,), float32, and a dict with 'scored', (N,), which is False for images that could not be scored

        Raises:
            TypeError, ValueError: `images` as a whole, or more than half of them, have a wrong type, shape or range; or
                none of several can be scored
        """
        if isinstance(images, (Tensor, np.ndarray)) and images.ndim != 4:
            raise ValueError(
                f'the images have the shape {tuple(images.shape)}; expected a tensor (N, 3, H, W) or an array '
                '(N, H, W, 3)'
            )
        if not isinstance(images, (Tensor, np.ndarray, list, tuple)):
            raise TypeError(
                f'the images are a {type(images).__name__}; expected a tensor, an array or a list of images'
            )
        ready: dict[int, Tensor] = {}
        errors: dict[int, Exception] = {}
        for i, image in enumerate(images):
            try:
                ready[i] = _as_tensor(image)
            except (OSError, TypeError, ValueError) as error:
                errors[i] = _numbered(error, i)
        malformed = [error for error in errors.values() if not isinstance(error, OSError)]
        if 2 * len(malformed) > len(images):
            raise type(malformed[0])(f'{len(malformed)} of {len(images)} images cannot be scored; {malformed[0]}')

        rewards = np.full(len(images), np.nan, np.float32)
        device, indices = self.metric.backbone.mean.device, list(ready)
        for first in range(0, len(indices), self.batch):
            batch = indices[first : first + self.batch]
            with torch.inference_mode():
                results = analyze_each(self.metric, [_scaled(ready[i].to(device)) for i in batch])
            for i, result in zip(batch, results, strict=True):
                if isinstance(result, RuntimeError):  # of the device, not of the image
                    raise result
                if isinstance(result, Exception):
                    errors[i] = _numbered(result, i)
                else:
                    rewards[i] = result.q.item()
        if len(errors) == len(images) > 1 and not any('not finite' in str(error) for error in errors.values()):
            raise ValueError(f'none of {len(images)} images can be scored; {errors[0]}')
        lowest = float(np.nanmin(np.append(rewards, np.float32(LOWEST))))
        for i in sorted(errors):
            warnings.warn(f'image {i} gets the reward {lowest:g}: {errors[i]}', stacklevel=2)
            rewards[i] = lowest
        return rewards, {'scored': np.array([i not in errors for i in range(len(images))], bool)}


def _as_tensor(image: Any) -> Tensor:
    """-> (C, H, W), uint8, or floating point whose finite values are in [0, 1]."""
    if isinstance(image, Image.Image):
        image = read_pixels(image, None)
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
            channels_first = image.ndim == 3 and image.shape[0] in (1, 3)
            hint = '; channels come last in arrays: x.transpose(1, 2, 0), or pass a tensor' if channels_first else ''
            raise ValueError(f'an array of the shape {image.shape}; expected (H, W, 3){hint}')
        if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
            raise TypeError(f'an array of {image.dtype}; expected uint8, or floating point in [0, 1]')
        # torch takes no negative strides, as of a mirrored view, no other byte order, and no memory that is read-only
        native = np.array(image, image.dtype.newbyteorder('='), order='C')
        image = torch.from_numpy(native).movedim(-1, 0)
    if not isinstance(image, Tensor):
        raise TypeError(
            f'image 0 is a {type(image).__name__}; expected a PIL image, a tensor (3, H, W) or an array (H, W, 3)'
        )
    image = image.detach()
    as_images([_scaled(image)], image.device)
    if image.is_floating_point():
        finite = image[image.isfinite()]  # other values are a fault of one image, not of the format
        if len(finite):
            check_range(0, *(float(value) for value in finite.aminmax()))
    return image


def _scaled(image: Tensor) -> Tensor:
    """uint8 -> floating point in [0, 1]."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _numbered(error: Exception, index: int) -> Exception:
    """The error of an image alone, which calls it 'image 0' if anything, as that of an image of a batch."""
    kind = next(kind for kind in (OSError, TypeError, ValueError) if isinstance(error, kind))
    text, named = str(error), f'image {index}'
    return kind(text.replace('image 0', named, 1) if text.startswith('image 0') else f'{named}: {text}')
