"""The score as a reward for preference tuning of image generators, as flow_grpo takes it.

flow_grpo's reward functions are called as `(images, prompts, metadata) -> (scores, info)`, from threads, and are made
by functions of a device that its `multi_score` knows by name: `flow_grpo/rewards.py` of
https://github.com/yifan123/flow_grpo, commit 94e23ee5405ab7241fc1f75d30cac8147e2b1f53.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..metric import MACLIP
from ..metric.checks import as_images, check_range, flag, whole
from ..scoring.read import read_pixels, to_tensor

__all__ = ['LOWEST', 'MACLIPReward', 'maclip_score', 'paired_deltas']

# Both cues are at least 0 and the fusion lies between them, so no image scores lower.
LOWEST = 0.0


class MACLIPReward:
    """A reward function: MA-CLIP's scores of generated images, without gradient.

    An image that cannot be scored (wrong shape, not finite, outside [0, 1], too long and thin) gets `LOWEST` and a
    warning, so that one of them does not end a run. Where most images of a batch have a wrong type, shape or range, the
    caller's format is wrong, and that is an error.

    Args:
        metric: a ready `MACLIP`; None: one is built of `options`
        deltas: subtract the mean score of the images of the same prompt, see `paired_deltas`
        batch: the most images on the metric's device at once
        device: device of the metric; None: where it is
        **options: of `MACLIP`, such as backbone or chunk

    Raises:
        TypeError, ValueError: a wrong argument, or a ready metric together with options

    Example::

        reward = MACLIPReward(device='cuda')
        scores, info = reward(images, prompts)
    """

    def __init__(
        self,
        metric: MACLIP | None = None,
        *,
        deltas: bool = False,
        batch: int = 16,
        device: str | torch.device | None = None,
        **options: Any,
    ) -> None:
        if metric is not None and not isinstance(metric, MACLIP):
            raise TypeError(f'metric is a {type(metric).__name__}; expected a MACLIP')
        if metric is not None and options:
            raise TypeError(f'a ready metric together with its options {", ".join(options)}; pass one of both')
        try:
            self.batch = whole('batch', batch)
        except TypeError as error:
            raise ValueError(f'{error} of at least 1') from None
        self.deltas = flag('deltas', deltas)
        self.metric = MACLIP(**options) if metric is None else metric
        if device is not None:
            self.metric.to(device)

    def __call__(
        self,
        images: Tensor | np.ndarray | Sequence[Image.Image | Tensor | np.ndarray],
        prompts: Sequence[Hashable] | None = None,
        metadata: Any = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Score images.

        Args:
            images: a tensor (N, 3, H, W), an array (N, H, W, 3), or a sequence of N PIL images, tensors (3, H, W) or
                arrays (H, W, 3) of any sizes; RGB, floating point in [0, 1] or uint8; PIL images of all modes are
                read as `read_image` reads files
            prompts: N, one for each image; used where deltas=True
            metadata: ignored

        Returns:
            rewards, (N,), float32
            {'score': the scores, 'scored': False for images that could not be scored}, (N,) each

        Raises:
            TypeError, ValueError: `images` as a whole, or more than half of them, have a wrong type, shape or range, or
                the prompts are not N
        """
        items = _split(images)
        prompts = _prompts(prompts)
        if prompts is not None and len(prompts) != len(items):
            raise ValueError(f'{len(items)} images and {len(prompts)} prompts; expected one prompt for each image')
        if self.deltas and prompts is None:
            raise ValueError('deltas=True without prompts; pass the prompt of each image')
        wrong = _wrong(items)
        if 2 * len(wrong) > len(items):
            error = next(iter(wrong.values()))
            raise type(error)(f'{len(wrong)} of {len(items)} images cannot be scored; {error}')
        scores = np.full(len(items), np.nan, np.float32)
        good = [i for i in range(len(items)) if i not in wrong]
        with torch.inference_mode():
            for first in range(0, len(good), self.batch):
                part = good[first : first + self.batch]
                scores[part] = self._score([items[i] for i in part], part, wrong)
        if len(wrong) == len(items) > 1 and not any('not finite' in str(error) for error in wrong.values()):
            raise ValueError(f'none of {len(items)} images can be scored; {wrong[0]}')
        for i, error in sorted(wrong.items()):
            warnings.warn(f'image {i} gets the reward {LOWEST:g}: {error}', stacklevel=2)
        scored = ~np.isnan(scores)
        scores[~scored] = LOWEST
        rewards = paired_deltas(scores, prompts) if self.deltas and prompts is not None else scores
        return rewards, {'score': scores.copy(), 'scored': scored}

    def _score(self, items: list[Any], numbers: list[int], wrong: dict[int, Exception]) -> list[float]:
        """Scores of a batch, NaN for images that cannot be scored, whose errors go to `wrong` by their numbers."""
        device = self.metric.backbone.mean.device
        try:
            return self.metric([_tensor(item).to(device) for item in items]).squeeze(1).tolist()
        except (OSError, ValueError) as error:
            if len(items) > 1:
                return [self._score([item], [number], wrong)[0] for item, number in zip(items, numbers, strict=True)]
            wrong[numbers[0]] = _of_image(error, numbers[0])
            return [float('nan')]


def maclip_score(device: str | torch.device | None = None, **options: Any) -> MACLIPReward:
    """A `MACLIPReward` on a device, as the table in flow_grpo's `multi_score` calls for its functions.

    Args:
        device: device of the metric; None: the CPU
        **options: of `MACLIPReward`
    """
    return MACLIPReward(device=device, **options)


def paired_deltas(scores: Sequence[float] | np.ndarray, prompts: Sequence[Hashable]) -> np.ndarray:
    """Scores less the mean score of the images of the same prompt.

    MA-CLIP orders versions of one scene better than scenes, so that of a batch with several prompts the differences
    within each prompt say more than the scores. An image alone with its prompt gets 0.

    Args:
        scores: N
        prompts: N hashable values

    Returns:
        (N,), float32, of mean 0 for each prompt

    Raises:
        ValueError: as many scores as prompts were expected

    Example:
        >>> paired_deltas([0.5, 0.25, 0.75], ['a cat', 'a dog', 'a cat']).tolist()
        [-0.125, 0.0, 0.125]
    """
    values = np.asarray(scores, np.float64)
    if values.shape != (len(prompts),):
        raise ValueError(f'scores of the shape {values.shape} and {len(prompts)} prompts; expected one score for each')
    numbers: dict[Hashable, int] = {}
    group = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts], np.intp)
    if not len(group):
        return values.astype(np.float32)
    mean = np.bincount(group, values) / np.bincount(group)
    return (values - mean[group]).astype(np.float32)


def _split(images: Any) -> list[Any]:
    """-> N images, unchecked."""
    if isinstance(images, (Tensor, np.ndarray)):
        if images.ndim != 4:
            raise ValueError(
                f'the images have the shape {tuple(images.shape)}; expected a tensor (N, 3, H, W) or an array '
                '(N, H, W, 3)'
            )
        return list(images)
    if isinstance(images, (list, tuple)):
        return list(images)
    raise TypeError(f'the images are a {type(images).__name__}; expected a tensor, an array or a list of images')


def _prompts(prompts: Any) -> list[Hashable] | None:
    """-> a list of values that can be compared; None: none."""
    if prompts is None:
        return None
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Iterable):
        raise TypeError(f'prompts={prompts!r}; expected a list of one prompt for each image')
    found = prompts.tolist() if isinstance(prompts, (Tensor, np.ndarray)) else list(prompts)
    if not all(isinstance(prompt, Hashable) for prompt in found):
        raise TypeError('prompts are lists or other values that cannot be compared; expected text or numbers')
    return found


def _wrong(items: list[Any]) -> dict[int, Exception]:
    """Errors of the images whose type, shape or range is wrong, by their numbers."""
    errors: dict[int, Exception] = {}
    for i, item in enumerate(items):
        try:
            image = _checked(item)
            if image is not None and image.is_floating_point():
                image = image.detach()
                if not image.aminmax()[1].isfinite():  # a fault of one image
                    image = image[image.isfinite()]
                if image.numel():
                    check_range(0, *(float(value) for value in image.aminmax()))
        except (TypeError, ValueError) as error:
            errors[i] = _of_image(error, i)
    return errors


def _checked(item: Any) -> Tensor | None:
    """An image whose type and shape are right as a tensor; None: one whose range is right by its type."""
    if isinstance(item, Image.Image):
        return None
    if isinstance(item, np.ndarray):
        if item.ndim != 3 or item.shape[2] not in (1, 3) or 0 in item.shape:
            first = item.ndim == 3 and item.shape[0] in (1, 3)
            hint = '; channels come last in arrays: x.transpose(1, 2, 0), or pass a tensor' if first else ''
            raise ValueError(f'an array of the shape {item.shape}; expected (H, W, 3){hint}')
        if item.dtype != np.uint8 and not np.issubdtype(item.dtype, np.floating):
            raise TypeError(f'an array of {item.dtype}; expected uint8, or floating point in [0, 1]')
        return None if item.dtype == np.uint8 else torch.from_numpy(_native(item))
    if isinstance(item, Tensor):
        as_images([item.float() if item.dtype == torch.uint8 else item], item.device)
        return item
    raise TypeError(f'is a {type(item).__name__}; expected a PIL image, a tensor (3, H, W) or an array (H, W, 3)')


def _native(image: np.ndarray) -> np.ndarray:
    # torch takes no negative strides, as of a mirrored view, no other byte order, and no memory that is read-only
    return np.array(image, image.dtype.newbyteorder('='), order='C')


def _of_image(error: Exception, number: int) -> Exception:
    """The error of a batch of one as that of an image of this number."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    text = re.sub(r'^image \d+:? ', '', str(error))
    return kind(f'image {number} {text}' if text.startswith(('has ', 'is ')) else f'image {number}: {text}')


def _tensor(image: Any) -> Tensor:
    """-> (C, H, W), floating point, of an image whose form is right."""
    if isinstance(image, Image.Image):
        image = read_pixels(image, None)
    if isinstance(image, np.ndarray):
        return to_tensor(_native(image))
    return image.float() / 255 if image.dtype == torch.uint8 else image
