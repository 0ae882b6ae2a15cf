"""Metrics of pyiqa that need no reference, to score files with beside this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .._files import one_line
from .._lazy import need
from .._lists import as_names

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ['check_metrics', 'load_metrics', 'lower_better']


def check_metrics(names: Iterable[str]) -> None:
    """Check the names of other metrics without loading any.

    Raises:
        ValueError: not a metric of pyiqa that works without a reference
        ModuleNotFoundError: pyiqa is not installed
    """
    names = as_names('names', names)
    need(', '.join(names), 'pyiqa')
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    for name in names:
        if DEFAULT_CONFIGS.get(name, {}).get('metric_mode') != 'NR':
            raise ValueError(
                f'{name!r} is not a metric of pyiqa that works without a reference; expected a name such as '
                'clipiqa or niqe, one of those that `pyiqa -ls` lists'
            )


def load_metrics(names: Iterable[str], device: torch.device | str) -> dict[str, Callable[[Tensor], Tensor]]:
    """Metrics of pyiqa by their names, for `score_files(others=...)`.

    pyiqa prints what it downloads. Random generators, environment variables and warnings filters are left as they were.

    Raises:
        ValueError: not a metric of pyiqa that works without a reference
        WeightsError: a metric cannot be loaded, or its weights cannot be downloaded
        ModuleNotFoundError: pyiqa is not installed
    """
    from ..backbone import WeightsError
    from ..backbone.guest import GUEST, same_random

    names, metrics = list(dict.fromkeys(as_names('names', names))), {}
    with GUEST, same_random():
        check_metrics(names)
        import pyiqa

        for name in names:
            try:
                metrics[name] = pyiqa.create_metric(name, device=device)
            except Exception as error:  # downloads fail in many ways
                raise WeightsError(f"pyiqa's metric {name!r} cannot be loaded: {one_line(error)}") from error
    return metrics


def lower_better(names: Iterable[str]) -> set[str]:
    """Of these names, those of pyiqa's metrics where lower is better; none where pyiqa is not installed."""
    names = set(as_names('names', names))
    if not names or find_spec('pyiqa') is None:
        return set()
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    return {name for name in names if DEFAULT_CONFIGS.get(name, {}).get('lower_better', False)}
