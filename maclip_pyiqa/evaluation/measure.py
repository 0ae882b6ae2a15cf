"""What scoring an image takes: seconds, and memory at its peak."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SLACK = 1.0  # MiB by which the peak may exceed what is held right after it was reset


class Meter:
    """Measures the calls of one metric.

    Each image is timed. Memory is measured for images with more pixels than all before, so that in the end the largest
    image is among them, and in a call of its own: what it needs beforehand, an empty heap, slows small metrics down by
    a quarter. Before the first image there is one call more, in which libraries and caches are set up.
    """

    def __init__(self) -> None:
        self.largest = 0  # pixels

    def __call__(self, compute: Callable[[Tensor], Any], image: Tensor) -> tuple[Any, dict[str, np.ndarray]]:
        """compute(image), and what it took.

        Args:
            compute: function of an image
            image: image, (C, H, W), on the device where it is scored

        Returns:
            the result, and `costs`, an array to cache, which `costs_of` reads
        """
        costs: dict[str, Any] = {'device': _name(image.device)}
        if (pixels := image[0].numel()) > self.largest:
            if not self.largest:
                compute(image)
            memory = peak_memory(lambda: compute(image), image.device)
            costs |= {} if math.isnan(memory) else {'memory_mib': memory}
            self.largest = pixels
        _wait(image.device)
        start = time.perf_counter()
        result = compute(image)
        _wait(image.device)
        costs['seconds'] = time.perf_counter() - start
        return result, {'costs': np.array(json.dumps(costs))}


def costs_of(arrays: Mapping[str, np.ndarray] | None) -> dict[str, Any]:
    """What a `Meter` measured, from the cached arrays of an image: `seconds`, `device`, and for some images
    `memory_mib`; empty if it measured nothing."""
    return json.loads(arrays['costs'].item()) if arrays and 'costs' in arrays else {}


def peak_memory(call: Callable[[], Any], device: torch.device) -> float:
    """The most memory that a call held at once beyond what was held before it, MiB.

    On CUDA devices, of the memory that torch allocates there; for the CPU on Linux, of the resident memory of this
    process. NaN where that cannot be measured, without a call then.
    """
    gc.collect()
    if device.type == 'cuda':
        _wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        call()
        _wait(device)
        return (torch.cuda.max_memory_allocated(device) - allocated) / 2**20
    if device.type != 'cpu':
        return math.nan
    try:
        # else the call reuses what earlier ones left in the heap, and seems to take less
        ctypes.CDLL(None).malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5')  # resets the peak; some containers refuse it, or ignore it
        held = _status('VmHWM')
        if held - _status('VmRSS') > SLACK:
            return math.nan
    except (AttributeError, LookupError, OSError, TypeError, ValueError):  # not Linux, or not glibc
        return math.nan
    call()
    return _status('VmHWM') - held


def _status(key: str) -> float:
    """A field of /proc/self/status, MiB."""
    return int(Path('/proc/self/status').read_text().split(f'{key}:')[1].split()[0]) / 1024


def _wait(device: torch.device) -> None:
    """Until the device has done what it was asked to do."""
    if device.type != 'cpu':
        torch.accelerator.synchronize(device)


def _name(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'cpu, threads: {torch.get_num_threads()}' if device.type == 'cpu' else device.type
