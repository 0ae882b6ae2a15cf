"""The score as a training loss, in the form that pyiqa, BasicSR and their like build from a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ._values import flag, number
from .metric import MACLIP
from .metric.checks import RangeCheck, as_images, wants_grad

Images: TypeAlias = Tensor | Sequence[Tensor]


class MACLIPLoss(nn.Module):
    """A loss that falls as the MA-CLIP score rises.

    Of each image::

        paired=False:  loss_weight * (1 - metric(x))
        paired=True:   loss_weight * relu(metric(target) - metric(x))

    Use it beside a fidelity term such as L1: alone, it is lowered by patterns that nobody would call better. The
    paired form stops where the target's score is reached, since what lies above it is not in the target.

    x is clamped to [0, 1] first, as an image is when it is saved, so that values outside get no gradient from this
    loss. More than 1 % of the values outside by more than 0.5 are an error: a network whose output is in [-1, 1] needs
    (x + 1) / 2. The module has no parameters and an empty state dict, and follows `.to()`.

    Args:
        loss_weight: factor of the loss
        reduction: reduction over the images: 'mean', 'sum' or 'none'
        paired: True for a comparison with the target's score
        **options: options of `MACLIP`, such as backbone or sample_views; sampled views are the same of image and target

    Raises:
        ValueError, TypeError: an option out of range, unknown or malformed
        WeightsError: as `MACLIP`

    Example::

        import torch
        from maclip_pyiqa import MACLIPLoss

        loss = MACLIPLoss(loss_weight=0.05, paired=True)
        output = torch.rand(2, 3, 256, 256, requires_grad=True)  # what a network gives
        target = torch.rand(2, 3, 256, 256)
        total = torch.nn.functional.l1_loss(output, target) + loss(output, target)  # ()
        total.backward()
    """

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'mean', paired: bool = False, **options: Any) -> None:
        super().__init__()
        loss_weight = number('loss_weight', loss_weight)
        if loss_weight < 0:
            raise ValueError(f'loss_weight={loss_weight:g}; expected a finite number of at least 0')
        if reduction not in ('mean', 'sum', 'none'):
            raise ValueError(f"reduction={reduction!r}; expected 'mean', 'sum' or 'none'")
        self.loss_weight = loss_weight
        self.reduction = reduction
        self.paired = flag('paired', paired)
        self.metric = MACLIP(**options)
        self._check_range = RangeCheck()

    def forward(self, x: Images, target: Images | None = None, **_: Any) -> Tensor:
        """The loss of images.

        Args:
            x: RGB images, nominally in [0, 1], (N, 3, H, W); or a sequence of N images (C, H, W) of any sizes
            target: images of the sizes of x; needed, and used without gradient, where paired=True, ignored otherwise
            **_: other arguments of training frameworks, such as `weight`, ignored

        Returns:
            (), or (N, 1) where reduction='none'

        Raises:
            TypeError, ValueError: as `MACLIP.forward` (x may leave [0, 1] as with a gradient), or a missing target, or
                one of other sizes than x
        """
        self._check_range(as_images(x, self.metric.backbone.mean.device), lenient=True)
        x = x.clamp(0, 1) if isinstance(x, Tensor) else [image.clamp(0, 1) for image in x]
        ceiling = self._score_of(target, x) if self.paired else 1
        loss = ceiling - self.metric(x)
        if self.paired:
            loss = torch.relu(loss)
        if self.reduction != 'none':
            loss = loss.mean() if self.reduction == 'mean' else loss.sum()
        return self.loss_weight * loss

    def extra_repr(self) -> str:
        return f'loss_weight={self.loss_weight:g}, reduction={self.reduction!r}, paired={self.paired}'

    def _score_of(self, target: Images | None, x: Images) -> Tensor:
        """The target's score, (N, 1), without gradient."""
        if target is None:
            raise ValueError('paired=True without a target; pass the reference images, or use paired=False')
        sizes, expected = ([tuple(getattr(image, 'shape', ())) for image in images] for images in (target, x))
        if sizes != expected:
            raise ValueError(f'the target has the shapes {sizes}, x has {expected}; expected the same')
        if self.metric.options.sample_views is None or not wants_grad(x):
            with torch.no_grad():
                return self.metric(target)
        # The metric samples views only where gradients flow. Drawn from the same state of the generator, they are
        # those that x is about to get, so that the difference is that of the images and not of the views.
        state = torch.get_rng_state()
        score = self.metric([image.detach().requires_grad_() for image in target]).detach()
        torch.set_rng_state(state)
        return score
