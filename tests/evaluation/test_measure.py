"""Seconds and memory of calls, against calls that take and hold known amounts."""

import gc
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from maclip_pyiqa.evaluation.measure import Meter, costs_of, peak_memory

CPU = torch.device('cpu')
linux = pytest.mark.skipif(math.isnan(peak_memory(lambda: None, CPU)), reason='the peak cannot be reset here')


def holds(mib: int, piece: int = 2**17):
    """A function that holds so much memory, in pieces of so many numbers."""
    return lambda *_: [np.ones(piece) for _ in range(mib * 2**17 // piece)] and None


@pytest.mark.slow
@linux
def test_peak_memory():
    """Each call alone, whatever earlier ones used: large blocks, and small ones that stay in the heap."""
    holds(300, 1024)()
    for mib, piece in ((200, 200 * 2**17), (200, 2**17), (200, 1024), (50, 1024), (50, 1024), (0, 1)):
        assert peak_memory(holds(mib, piece), CPU) == pytest.approx(mib, abs=5 + mib * 0.04), (mib, piece)


@linux
def test_what_is_held_before_does_not_count():
    weights = np.ones(100 * 2**17)
    assert peak_memory(lambda: weights.sum(), CPU) < 5


def test_memory_that_cannot_be_measured(monkeypatch):
    """The peak cannot be reset, or only seems to be."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_text', lambda *_: (_ for _ in ()).throw(PermissionError))
        assert math.isnan(peak_memory(lambda: 1 / 0, CPU))
    holds(100)()  # the peak is above what is held now
    gc.collect()
    monkeypatch.setattr(Path, 'write_text', lambda *_: 1)
    assert math.isnan(peak_memory(lambda: 1 / 0, CPU))
    assert math.isnan(peak_memory(lambda: 1 / 0, torch.device('mps')))


def test_meter(monkeypatch):
    """Every image is timed; memory is measured for each image that is larger than all before, in a call of its own."""
    calls, memory, clock = [], [], [100.0]

    def compute(image):
        calls.append(image.shape[1])
        clock[0] += 0.5 if len(calls) > 1 else 9.0  # the first call sets things up
        return image.shape[1]

    def peak(call, device):
        call()
        clock[0] += 3.0
        memory.append(calls[-1])
        return 7.0 if len(memory) < 3 else math.nan

    monkeypatch.setattr(time, 'perf_counter', lambda: clock[0])
    monkeypatch.setattr('maclip_pyiqa.evaluation.measure.peak_memory', peak)
    meter, costs = Meter(), []
    for size in (4, 4, 3, 6, 8):
        result, arrays = meter(compute, torch.zeros(3, size, 5))
        assert result == size
        costs.append(costs_of(arrays | {'score': np.array(1.0)}))
    assert memory == [4, 6, 8] and calls == [4, 4, 4, 4, 3, 6, 6, 8, 8]
    cost = {'seconds': 0.5, 'device': f'cpu, threads: {torch.get_num_threads()}'}
    largest = cost | {'memory_mib': 7.0}
    assert costs == [largest, cost, cost, largest, cost]
    assert costs_of({'score': np.array(1.0)}) == costs_of(None) == {}


def test_errors_of_the_metric_stay_its_errors():
    with pytest.raises(ZeroDivisionError):
        Meter()(lambda image: 1 / 0, torch.zeros(3, 2, 2))
