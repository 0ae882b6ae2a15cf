"""Metrics of pyiqa beside ours."""

import contextlib
import logging
import os
import random
import sys
import warnings

import numpy as np
import pytest
import torch

from maclip_pyiqa import WeightsError, register
from maclip_pyiqa.evaluation import metrics as evaluation
from maclip_pyiqa.scoring.others import check_metrics, load_metrics


def test_they_are_pyiqas(photos):
    import pyiqa

    loaded = load_metrics(['entropy', 'piqe', 'entropy'], 'cpu')
    assert list(loaded) == ['entropy', 'piqe']
    x = photos[0][None, :, :100, :100]
    for name, metric in loaded.items():
        assert float(metric(x)) == float(pyiqa.create_metric(name, device='cpu')(x))


@pytest.mark.parametrize('error', [None, OSError('no network')])
def test_nothing_else_changes(monkeypatch, error):
    """Random numbers, environment and warnings filters, whatever pyiqa does to them."""
    import pyiqa

    def create_metric(name, device):
        monkeypatch.setitem(sys.modules, 'of_pyiqa', None)  # as it imports what it needs
        os.environ['OF_PYIQA'] = '1'
        warnings.simplefilter('ignore')
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        if error:
            raise error

    def drawn():
        return random.random(), np.random.rand(), torch.rand(1).item()

    monkeypatch.setattr(pyiqa, 'create_metric', create_metric)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    want = drawn()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    before = dict(os.environ), list(warnings.filters), list(logging.getLogger().handlers)
    with pytest.raises(WeightsError, match='no network') if error else contextlib.nullcontext():
        load_metrics(['entropy'], 'cpu')
    assert drawn() == want
    assert (dict(os.environ), list(warnings.filters), list(logging.getLogger().handlers)) == before


def test_registering_changes_nothing_else():
    import pyiqa  # noqa: F401

    before = dict(os.environ), list(warnings.filters), list(logging.getLogger().handlers), random.getstate()
    register()
    assert (dict(os.environ), list(warnings.filters), list(logging.getLogger().handlers), random.getstate()) == before


@pytest.mark.parametrize('name', ['nix', 'psnr'])
def test_what_needs_a_reference_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' is not a metric of pyiqa that works without a reference"):
        check_metrics(['niqe', name])


def test_a_metric_that_cannot_be_loaded(monkeypatch):
    import pyiqa

    def create_metric(name, device):
        raise OSError('no network')

    monkeypatch.setattr(pyiqa, 'create_metric', create_metric)
    with pytest.raises(WeightsError, match="'niqe' cannot be loaded: no network"):
        load_metrics(['niqe'], 'cpu')


def test_without_pyiqa(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyiqa', None)
    for call in (register, lambda: check_metrics(['niqe']), lambda: evaluation.load_adapters(['maclip_demo'])):
        with pytest.raises(ModuleNotFoundError, match='needs pyiqa, which is not installed: pip install pyiqa'):
            call()
