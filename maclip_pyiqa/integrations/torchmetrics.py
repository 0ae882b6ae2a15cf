"""Mean score of a whole test set, as a torchmetrics metric (extra `torchmetrics`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..metric.maclip import MACLIP

try:
    from torchmetrics import Metric
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("pip install 'maclip_pyiqa[torchmetrics]'", name=error.name) from error

__all__ = ['MagnitudeAwareCLIP']


class MagnitudeAwareCLIP(Metric):
    """MA-CLIP's mean and spread over all images seen, in all processes.

    The states are sums in float64, which torchmetrics adds up over the processes; hence a device that knows float64
    (CPU, CUDA; not MPS).

    Args:
        metric: a ready `MACLIP`; None: one is built of `options`
        sync_options: of `torchmetrics.Metric`, such as {'dist_sync_on_step': True}
        **options: of `MACLIP`, such as backbone or prompts

    Raises:
        TypeError: `metric` is no MACLIP, or comes together with options

    Example::

        metric = MagnitudeAwareCLIP(backbone='RN50')
        for images in loader:
            metric.update(images)
        mean, std = metric.compute()
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, metric: MACLIP | None = None, *, sync_options: dict | None = None, **options) -> None:
        super().__init__(**(sync_options or {}))
        if metric is not None and not isinstance(metric, MACLIP):
            raise TypeError(f'metric is a MACLIP, not {type(metric).__name__}')
        if metric is not None and options:
            raise TypeError(f'a ready metric has its options; {", ".join(options)} came too')
        self.net = MACLIP(**options) if metric is None else metric
        for name in ('count', 'total', 'squares'):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx='sum')

    def update(self, images: Tensor | Sequence[Tensor]) -> None:
        """Add images.

        Args:
            images: RGB in [0, 1], (N, 3, H, W), or a sequence of N images (C, H, W) of any sizes

        Raises:
            TypeError, ValueError: as `MACLIP.forward`
        """
        with torch.no_grad():
            # about 0 to 1, so that in float64 a difference of sums of squares loses nothing that float32 scores had
            scores = self.net(images).double()
        self.count += len(scores)
        self.total += scores.sum()
        self.squares += scores.square().sum()

    def compute(self) -> tuple[Tensor, Tensor]:
        """-> mean and standard deviation (unbiased) of the scores, both (), float64; NaN of too few images."""
        mean = self.total / self.count
        variance = (self.squares - self.total * mean) / (self.count - 1)
        return mean, variance.clamp_min(0).sqrt()
