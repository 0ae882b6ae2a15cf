"""The score as a reward for preference tuning of image generators, as flow_grpo takes it.

flow_grpo's reward functions are called as `(images, prompts, metadata) -> (scores, info)`, from threads, and are made
by functions of a device that its `multi_score` knows by name: `flow_grpo/rewards.py` of
https://github.com/yifan123/flow_grpo, commit 94e23ee5405ab7241fc1f75d30cac8147e2b1f53.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..metric import MACLIP
from ..scoring.read import to_tensor

__all__ = ['LOWEST', 'MACLIPReward', 'maclip_score', 'paired_deltas']

# Both cues are at least 0 and the fusion lies between them, so no image scores lower.
LOWEST = 0.0


class MACLIPReward:
    """A reward function: MA-CLIP's scores of generated images, without gradient.

    An image that cannot be scored (wrong shape, not finite, outside [0, 1], too long and thin) gets `LOWEST` and a
    warning, so that one of them does not end a run.

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
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise ValueError(f'batch={batch!r}; expected a whole number of at least 1')
        self.metric = MACLIP(**options) if metric is None else metric
        if device is not None:
            self.metric.to(device)
        self.deltas = deltas
        self.batch = batch

    def __call__(
        self,
        images: Tensor | np.ndarray | Sequence[Image.Image | Tensor | np.ndarray],
        prompts: Sequence[Hashable] | None = None,
        metadata: Any = None,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Score images.

        Args:
            images: a tensor (N, 3, H, W), an array (N, H, W, 3), or a sequence of N PIL images, tensors (3, H, W) or
                arrays (H, W, 3) of any sizes; RGB, floating point in [0, 1] or uint8
            prompts: N, one for each image; used where deltas=True
            metadata: ignored

        Returns:
            rewards, (N,), float32
            {'score': the scores, 'scored': False for images that could not be scored}, (N,) each

        Raises:
            TypeError, ValueError: `images` as a whole has a wrong type or shape, or the prompts are not N
        """
        items = _split(images)
        if prompts is not None and len(prompts) != len(items):
            raise ValueError(f'{len(items)} images and {len(prompts)} prompts; expected one prompt for each image')
        if self.deltas and prompts is None:
            raise ValueError('deltas=True without prompts; pass the prompt of each image')
        scores = np.full(len(items), np.nan, np.float32)
        with torch.inference_mode():
            for first in range(0, len(items), self.batch):
                scores[first : first + self.batch] = self._score(items[first : first + self.batch], first)
        scored = ~np.isnan(scores)
        scores[~scored] = LOWEST
        rewards = paired_deltas(scores, prompts) if self.deltas and prompts is not None else scores
        return rewards, {'score': scores.copy(), 'scored': scored}

    def _score(self, items: list[Any], first: int) -> list[float]:
        """Scores of a batch, NaN for images that cannot be scored. `first` is the number of its first image."""
        device = self.metric.backbone.mean.device
        try:
            return self.metric([_tensor(item).to(device) for item in items]).squeeze(1).tolist()
        except (TypeError, ValueError) as error:
            if len(items) > 1:
                return [self._score([item], first + i)[0] for i, item in enumerate(items)]
            reason = str(error).replace('image 0', f'image {first}', 1)
            warnings.warn(f'image {first} gets the reward {LOWEST:g}: {reason}', stacklevel=3)
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


def _tensor(image: Any) -> Tensor:
    """-> (C, H, W), floating point; other channels than RGB are left for the metric to refuse."""
    if isinstance(image, Image.Image):
        image = np.array(image.convert('RGB'))
    if isinstance(image, np.ndarray):
        if image.ndim != 3:
            raise ValueError(f'the array has the shape {image.shape}; expected (H, W, 3)')
        image = to_tensor(np.ascontiguousarray(image))  # torch takes no negative strides, as of a mirrored view
    if not isinstance(image, Tensor):
        raise TypeError(f'a {type(image).__name__}; expected a PIL image, a tensor (3, H, W) or an array (H, W, 3)')
    return image.float() / 255 if image.dtype == torch.uint8 else image
