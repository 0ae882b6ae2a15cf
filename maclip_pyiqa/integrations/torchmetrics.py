"""The score of a whole test set, as a torchmetrics metric (extra `torchmetrics`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .._lazy import need
from ..metric import MACLIP

need(__name__, 'torchmetrics', extra='torchmetrics')

from torchmetrics import Metric  # noqa: E402
from torchmetrics.utilities.data import dim_zero_cat  # noqa: E402

__all__ = ['MACLIPScore']


class MACLIPScore(Metric):
    """MA-CLIP's scores of all images seen, in all processes, reduced to one tensor.

    Every score is kept, so memory grows by 4 bytes an image.

    Args:
        metric: `MACLIP` to score with; None: one is built from `options`
        reduction: reduction of the scores: 'mean', 'sum', or 'none' (or None) for the scores themselves
        sync_options: options of `torchmetrics.Metric`, such as {'dist_sync_on_step': True}
        **options: options of `MACLIP`, such as backbone or prompts

    Raises:
        TypeError: `metric` is not a MACLIP, or options are given beside it
        ValueError: an unknown reduction
        WeightsError: as `MACLIP`
        ModuleNotFoundError: torchmetrics is not installed

    Example::

        import torch
        from maclip_pyiqa.integrations.torchmetrics import MACLIPScore

        metric = MACLIPScore()
        for images in [torch.rand(2, 3, 256, 256), torch.rand(1, 3, 256, 384)]:
            metric.update(images)
        metric.compute()                       # the mean score, ()

    In a `MetricCollection`, pass the images by name: `collection.update(images=images, preds=images, target=clean)`.

    In Lightning, make it an attribute of the module, and in `validation_step`::

        self.maclip.update(images)
        self.log('maclip', self.maclip)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(
        self,
        metric: MACLIP | None = None,
        reduction: Literal['mean', 'sum', 'none'] | None = 'mean',
        *,
        sync_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**(sync_options or {}))
        if metric is not None and not isinstance(metric, MACLIP):
            raise TypeError(f'metric is a {type(metric).__name__}; expected a MACLIP')
        if metric is not None and options:
            raise TypeError(f'options {", ".join(options)} beside a metric, which has its own; pass one or the other')
        if reduction not in ('mean', 'sum', 'none', None):
            raise ValueError(f"reduction={reduction!r}; expected 'mean', 'sum', 'none' or None")
        self.net = MACLIP(**options) if metric is None else metric
        self.reduction = reduction
        # a MetricCollection keeps one state for metrics whose states have equal names, and values after the first
        # batch: metrics of other options give the same scores to an image of one window, but not to the next one
        self._state = f'scores_{self.net.fingerprint()}'
        self.add_state(self._state, [], dist_reduce_fx='cat')

    @property
    def scores(self) -> list[Tensor]:
        """Scores of each batch, (N,) each; one tensor once torchmetrics has gathered them."""
        return getattr(self, self._state)

    def update(self, images: Tensor | Sequence[Tensor]) -> None:
        """Add images.

        Args:
            images: RGB images in [0, 1], (N, 3, H, W), or a sequence of N images (C, H, W) of any sizes

        Raises:
            TypeError, ValueError: as `MACLIP.forward`
        """
        with torch.no_grad():
            self.scores.append(self.net(images)[:, 0])

    def compute(self) -> Tensor:
        """Mean or sum of the scores, (), or the scores, (N,).

        Raises:
            ValueError: no images were added
        """
        scores = dim_zero_cat(self.scores)
        if self.reduction == 'mean':
            return scores.mean()
        return scores.sum() if self.reduction == 'sum' else scores
