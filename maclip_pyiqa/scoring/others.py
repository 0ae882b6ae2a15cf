"""Metrics of pyiqa that need no reference, to score files with beside this one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .._files import one_line
from .._lazy import need
from .._lists import as_names

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def check_metrics(names: Iterable[str]) -> None:
    """Check the names of other metrics without loading any.

    Raises:
        ValueError: not a metric of pyiqa that works without a reference
        ModuleNotFoundError: pyiqa is not installed
    """
    names = as_names('names', names)
    need(', '.join(names), 'pyiqa')
    from ..backbone.guest import GUEST, same_random

    with GUEST, same_random():  # importing pyiqa changes some of what they guard
        from pyiqa.default_model_configs import DEFAULT_CONFIGS
    for name in names:
        if DEFAULT_CONFIGS.get(name, {}).get('metric_mode') != 'NR':
            raise ValueError(
                f'{name!r} is not a metric of pyiqa that works without a reference; expected a name such as '
                'clipiqa or niqe, one of those that `pyiqa -ls` lists'
            )


def load_metric(name: str, device: torch.device | str, **options: Any) -> Any:
    """A metric of pyiqa, as `pyiqa.create_metric` makes it. What it prints, such as downloads, goes to standard error.

    Random generators, environment variables and warnings filters are left as they were.

    Args:
        name: name of the metric
        device: device of the metric
        options: options of the metric

    Raises:
        ValueError: options that the metric refuses
        WeightsError: the metric cannot be loaded, or its weights cannot be downloaded
    """
    from ..backbone import WeightsError
    from ..backbone.guest import GUEST, same_random

    with GUEST, same_random(), contextlib.redirect_stdout(sys.stderr):
        import pyiqa

        try:
            return pyiqa.create_metric(name, device=device, **options)
        except Exception as error:  # downloads fail in many ways
            if isinstance(error, WeightsError) or (options and isinstance(error, ValueError)):
                raise
            raise WeightsError(f"pyiqa's metric {name!r} cannot be loaded: {one_line(error)}") from error


def load_metrics(names: Iterable[str], device: torch.device | str) -> dict[str, Callable[[Tensor], Tensor]]:
    """Metrics of pyiqa by their names, for `score_files(others=...)`.

    Args:
        names: names of no-reference metrics, such as 'clipiqa' or 'niqe'
        device: device of the metrics

    Returns:
        the metrics by name, functions of images (N, 3, H, W) in [0, 1]

    Raises:
        ValueError: not a metric of pyiqa that works without a reference
        WeightsError: a metric cannot be loaded, or its weights cannot be downloaded
        ModuleNotFoundError: pyiqa is not installed

    Example::

        from maclip_pyiqa import MACLIP, score_files
        from maclip_pyiqa.scoring import load_metrics

        others = load_metrics(['piqe'], 'cpu')
        for row in score_files(MACLIP(), ['photo.jpg'], others=others):
            print(row['score'], row['piqe'])
    """
    names = list(dict.fromkeys(as_names('names', names)))
    check_metrics(names)
    return {name: load_metric(name, device) for name in names}


def lower_better(names: Iterable[str]) -> set[str]:
    """Of these names, those of pyiqa's metrics where lower is better; none where pyiqa is not installed."""
    names = set(as_names('names', names))
    if not names or find_spec('pyiqa') is None:
        return set()
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    return {name for name in names if DEFAULT_CONFIGS.get(name, {}).get('lower_better', False)}
