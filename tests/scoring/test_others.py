"""Metrics of pyiqa beside ours."""

import sys

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


def test_the_random_state_is_kept():
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    load_metrics(['entropy'], 'cpu')
    assert torch.equal(torch.rand(1), want)


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
    for call in (register, lambda: check_metrics(['niqe']), lambda: evaluation.load_metrics(['maclip_demo'])):
        with pytest.raises(ModuleNotFoundError, match='needs pyiqa, which is not installed: pip install pyiqa'):
            call()
