"""A guest in its caller's process: what a metric is built with changes nothing else, and nothing else changes it.

What the whole process shares (environment, warnings filters, default dtype, modules of open_clip) may be changed by
several threads that build at once: the first one in changes it, the last one out puts it back.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import torch


class Shared:
    """A context that several threads are in at once: entered by the first one, left by the last one.

    Args:
        make: function that makes the context
    """

    def __init__(self, make: Callable[[], AbstractContextManager]) -> None:
        self._make, self._lock, self._inside, self._exit = make, threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._exit.enter_context(self._make())
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._exit.close()


@contextmanager
def _process() -> Iterator[None]:
    environ: dict[str, str] = dict(os.environ)
    filters: Any = warnings.filters
    before, modules = list(filters), set(sys.modules)
    try:
        yield
    finally:
        if not modules.issuperset(sys.modules):  # otherwise what changed is of other threads
            for name in [name for name, value in os.environ.items() if environ.get(name) != value]:
                del os.environ[name]
            os.environ.update({name: value for name, value in environ.items() if name not in os.environ})
            filters[:] = before  # in place, not by catch_warnings: other threads may have entered or left one since


@contextmanager
def ignoring(message: str) -> Iterator[None]:
    """Ignores warnings. Not by catch_warnings, which puts back what other threads have changed."""
    warnings.filterwarnings('ignore', message)
    added: Any = warnings.filters[0]
    try:
        yield
    finally:
        with suppress(ValueError):
            warnings.filters.remove(added)  # type: ignore[attr-defined]


@contextmanager
def plain_torch() -> Iterator[None]:
    """Tensors are made as by default: float32, on the CPU, without autocast and inference mode; and no gradients."""
    no_autocast = torch.autocast('cpu', enabled=False)
    with FLOAT32, torch.device('cpu'), no_autocast, torch.inference_mode(False), torch.no_grad():
        yield


def default_device() -> torch.device:
    """Device on which torch makes tensors here; get_default_device of torch 2.6 fails where it was set to None."""
    return torch.empty(0).device


@contextmanager
def _float32() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    if dtype == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def quiet_open_clip() -> Iterator[None]:
    """Drops what open_clip logs in this thread."""
    thread = threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return threading.get_ident() != thread

    with OPEN_CLIP_LOGGER:
        LOGGER.addFilter(of_others)
        try:
            yield
        finally:
            LOGGER.removeFilter(of_others)


@contextmanager
def _own_logger() -> Iterator[None]:
    """open_clip's modules log by functions of `logging`, which give the root logger a handler where it has none. Here
    they log on a logger of their own, below the root logger."""
    modules: list[Any] = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith('open_clip.') and vars(module).get('logging') is logging
    ]
    for module in modules:
        module.logging = LOGGER
    try:
        yield
    finally:
        for module in modules:
            module.logging = logging


@contextmanager
def same_random() -> Iterator[None]:
    """The states of the random generators of Python, NumPy and torch are afterwards what they were before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


LOGGER = logging.getLogger('open_clip')
# Environment variables and warnings filters are afterwards what they were before, if something was imported: importing
# open_clip, transformers or pyiqa changes some of both.
GUEST = Shared(_process)
FLOAT32, OPEN_CLIP_LOGGER = Shared(_float32), Shared(_own_logger)
