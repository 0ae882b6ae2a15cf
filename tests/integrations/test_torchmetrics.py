"""Mean and spread over a test set: alone, in batches, in two processes."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from maclip_pyiqa import MACLIP

torchmetrics = pytest.importorskip('torchmetrics', reason='extra `torchmetrics` is not installed')
MagnitudeAwareCLIP = pytest.importorskip('maclip_pyiqa.integrations.torchmetrics').MagnitudeAwareCLIP


@pytest.fixture(scope='module')
def scores(tiny, photos):
    return MACLIP(backbone=tiny)([photo[:, :150, :150] for photo in photos]).double().numpy().ravel()


@pytest.fixture
def images(photos):
    return torch.stack(photos)[..., :150, :150]


def test_mean_and_spread(tiny, images, scores):
    metric = MagnitudeAwareCLIP(backbone=tiny, chunk=7)
    metric.update(images[:4])
    metric.update(images[4:5])
    metric.update(list(images[5:]))
    mean, std = metric.compute()
    assert mean.dtype == std.dtype == torch.float64 and mean.shape == std.shape == ()
    assert mean.item() == pytest.approx(scores.mean(), abs=1e-6)
    assert std.item() == pytest.approx(scores.std(ddof=1), rel=1e-4)
    assert scores.std() > 1e-3

    assert torchmetrics.MetricCollection([pickle.loads(pickle.dumps(metric))]).compute()['MagnitudeAwareCLIP'] == (
        mean,
        std,
    )
    batch = metric(images[:3])  # a batch's own values, and added to the rest
    assert batch[0].item() == pytest.approx(scores[:3].mean(), abs=1e-6)
    assert metric.compute()[0].item() == pytest.approx(np.append(scores, scores[:3]).mean(), abs=1e-6)
    metric.reset()
    assert metric.count == 0
    metric.update(images[:1])
    mean, std = metric.compute()
    assert mean.item() == pytest.approx(scores[0], abs=1e-6) and std.isnan()


def test_sums_are_stable(tiny_metric):
    """A spread a million times smaller than the mean, over many images."""
    values = 0.7 + 1e-6 * np.random.default_rng(0).standard_normal((50, 200))

    class Known(MACLIP):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.rows = iter(torch.from_numpy(values))

        def forward(self, x):
            return next(self.rows)[:, None]

    metric = MagnitudeAwareCLIP(Known())
    for _ in values:
        metric.update(None)
    mean, std = metric.compute()
    assert mean.item() == pytest.approx(values.mean(), abs=1e-12)
    assert std.item() == pytest.approx(values.std(ddof=1), rel=1e-2)


def test_a_ready_metric(tiny_metric, images, scores):
    metric = MagnitudeAwareCLIP(tiny_metric)
    assert metric.net is tiny_metric and not list(metric.parameters()) and not metric.state_dict()
    metric.update(images.requires_grad_())
    assert not metric.total.requires_grad
    assert metric.compute()[0].item() == pytest.approx(scores.mean(), abs=1e-6)
    with pytest.raises(TypeError, match='alpha'):
        MagnitudeAwareCLIP(tiny_metric, alpha=2.0)
    with pytest.raises(TypeError, match='not Linear'):
        MagnitudeAwareCLIP(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match='empty batch'):
        metric.update(images[:0])


PROCESS = """
import sys, torch
torch.set_num_threads(1)
from maclip_pyiqa.integrations.torchmetrics import MagnitudeAwareCLIP
rank, rendezvous, tiny, file = int(sys.argv[1]), *sys.argv[2:]
torch.distributed.init_process_group('gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=2)
metric = MagnitudeAwareCLIP(backbone=tiny)
images = torch.load(file)
for image in images[:7] if rank == 0 else images[7:]:
    metric.update(image[None])
print(metric.count.item(), *(v.item() for v in metric.compute()), metric.count.item())
torch.distributed.destroy_process_group()
"""


def test_two_processes(tiny, images, scores, tmp_path):
    torch.save(images.clone(), tmp_path / 'images.pt')
    where = [str(tmp_path / 'rendezvous'), tiny, str(tmp_path / 'images.pt')]
    command = [sys.executable, '-c', PROCESS]
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    both = [
        subprocess.Popen(
            [*command, rank, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for rank in '01'
    ]
    for process, mine in zip(both, (7, 3), strict=True):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        count, mean, std, after = map(float, out.split()[-4:])
        assert count == after == mine  # the states are the process's own again
        assert mean == pytest.approx(scores.mean(), abs=1e-6)
        assert std == pytest.approx(scores.std(ddof=1), rel=1e-4)


def test_the_package_needs_no_extras():
    code = """
import sys
sys.modules.update(dict.fromkeys(['torchmetrics', 'onnx', 'onnxscript', 'onnxruntime']))  # as if not installed
import maclip_pyiqa, maclip_pyiqa.integrations.onnx
try:
    import maclip_pyiqa.integrations.torchmetrics
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'maclip_pyiqa[torchmetrics]' in done.stdout
