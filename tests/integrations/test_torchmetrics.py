"""Scores of a test set: reduced, in batches, in two processes, and logged by Lightning."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from maclip_pyiqa import MACLIP

torchmetrics = pytest.importorskip('torchmetrics', reason='extra `torchmetrics` is not installed')
MACLIPScore = pytest.importorskip('maclip_pyiqa.integrations.torchmetrics').MACLIPScore


@pytest.fixture(scope='module')
def scores(tiny, photos):
    return MACLIP(backbone=tiny)([photo[:, :150, :150] for photo in photos]).double().numpy().ravel()


@pytest.fixture
def images(photos):
    return torch.stack(photos)[..., :150, :150]


@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none', None])
def test_reductions(tiny, images, scores, reduction):
    def want(scores):
        return {'mean': np.mean, 'sum': np.sum}.get(reduction, np.asarray)(scores)

    metric = MACLIPScore(backbone=tiny, chunk=7, reduction=reduction)
    metric.update(images[:4])
    metric.update(images[4:5])
    metric.update(list(images[5:]))
    got = metric.compute()
    assert isinstance(got, torch.Tensor) and got.shape == want(scores).shape and scores.std() > 1e-3
    np.testing.assert_allclose(got, want(scores), rtol=1e-6)

    copy = pickle.loads(pickle.dumps(metric))
    torch.testing.assert_close(torchmetrics.MetricCollection([copy]).compute()['MACLIPScore'], got, rtol=0, atol=0)
    np.testing.assert_allclose(metric(images[:3]), want(scores[:3]), rtol=1e-6)  # the batch's own value, and added
    np.testing.assert_allclose(metric.compute(), want([*scores, *scores[:3]]), rtol=1e-6)
    metric.reset()
    metric.update(images[:1])
    np.testing.assert_allclose(metric.compute(), want(scores[:1]), rtol=1e-6)


def test_no_precision_is_lost_over_many_images():
    """Also on devices without float64: nothing but the scores' own dtype is used."""
    values = np.float32(0.7) + 1e-3 * np.random.default_rng(0).standard_normal((500, 200), dtype=np.float32)

    class Known(MACLIP):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.rows = iter(torch.from_numpy(values))

        def fingerprint(self):
            return 'known'

        def forward(self, x):
            return next(self.rows)[:, None]

    metric = MACLIPScore(Known())
    for _ in values:
        metric.update(None)
    assert metric.compute().dtype == torch.float32
    assert metric.compute().item() == pytest.approx(values.mean(dtype=np.float64), abs=1e-7)


def test_a_ready_metric(tiny_metric, images, scores):
    metric = MACLIPScore(tiny_metric)
    assert metric.net is tiny_metric and not list(metric.parameters()) and not metric.state_dict()
    metric.update(images.requires_grad_())
    assert not metric.compute().requires_grad
    assert metric.compute().item() == pytest.approx(scores.mean(), abs=1e-5)
    with pytest.raises(TypeError, match='alpha'):
        MACLIPScore(tiny_metric, alpha=2.0)
    with pytest.raises(TypeError, match='is a Linear'):
        MACLIPScore(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="reduction='max'"):
        MACLIPScore(tiny_metric, 'max')
    with pytest.raises(ValueError, match='batch is empty'):
        metric.update(images[:0])


def test_in_a_collection(tiny_metric, images, scores):
    """Beside a metric that takes other arguments: each is given those that it names."""
    psnr = torchmetrics.image.PeakSignalNoiseRatio(data_range=1.0)
    both = {'maclip': MACLIPScore(tiny_metric), 'each': MACLIPScore(tiny_metric, 'none')}
    collection = torchmetrics.MetricCollection({**both, 'psnr': psnr.clone()})
    for batch in images.split(4):
        collection.update(images=batch, preds=batch, target=batch / 2)
    got = collection.compute()
    np.testing.assert_allclose(got['maclip'], scores.mean(), rtol=1e-6)
    np.testing.assert_allclose(got['each'], scores, rtol=1e-6)
    psnr.update(images, images / 2)
    torch.testing.assert_close(got['psnr'], psnr.compute())
    assert sorted(collection.compute_groups.values()) == [['each', 'maclip'], ['psnr']]  # no image is scored twice


def test_metrics_of_a_collection_keep_their_own_scores(tiny, photos):
    """Also where the first images have one view, and so the same score with all kinds of views."""
    nets = {views: MACLIP(backbone=tiny, views=views) for views in ('windows', 'global')}
    collection = torchmetrics.MetricCollection({name: MACLIPScore(net) for name, net in nets.items()})
    batches = [photos[0][None, :, :64, :64], photos[1][None, :, :150, :150]]
    for batch in batches:
        collection.update(images=batch)
    got = collection.compute()
    for name, net in nets.items():
        np.testing.assert_allclose(got[name], torch.cat([net(batch) for batch in batches]).mean(), rtol=1e-6)
    assert abs(got['windows'] - got['global']) > 1e-4


@pytest.mark.filterwarnings('ignore')  # Lightning's, about workers and GPUs
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_lightning_logs_it(tiny, images, scores, tmp_path, reduction):
    lightning = pytest.importorskip('lightning', reason='Lightning is not installed')

    class Darken(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.maclip = MACLIPScore(backbone=tiny, reduction=reduction)

        def test_step(self, batch):
            self.maclip.update(batch)
            self.log('maclip', self.maclip)

    trainer = lightning.Trainer(
        accelerator='cpu', devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(images, batch_size=4)  # 4, 4 and 2: a mean of batch means would differ
    (logged,) = trainer.test(Darken(), loader, verbose=False)
    assert logged == {'maclip': pytest.approx(getattr(scores, reduction)(), rel=1e-6)}


PROCESS = """
import os, sys, torch
torch.set_num_threads(1)
from maclip_pyiqa import MACLIP
from maclip_pyiqa.integrations.torchmetrics import MACLIPScore
rank, rendezvous, tiny, file = int(sys.argv[1]), *sys.argv[2:]
torch.distributed.init_process_group('gloo', init_method=f'file://{rendezvous}', rank=rank, world_size=2)
net, images = MACLIP(backbone=tiny), torch.load(file)
mean, every, sum_of_first = MACLIPScore(net), MACLIPScore(net, 'none'), MACLIPScore(net, 'sum')
for image in images[:7] if rank == 0 else images[7:]:
    mean.update(image[None])
    every.update(image[None])
if rank == 0:
    sum_of_first.update(images[:2])
print(mean.compute().item(), sum_of_first.compute().item(), *every.compute().tolist(), len(every.scores), flush=True)
os._exit(0)  # torch 2.6 can hang in destroy_process_group
"""


@pytest.mark.slow
def test_two_processes(tiny, images, scores, tmp_path):
    """With 7 images in one process and 3 in the other; and with none in the other."""
    torch.save(images.clone(), tmp_path / 'images.pt')
    where = [str(tmp_path / 'rendezvous'), tiny, str(tmp_path / 'images.pt')]
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    both = [
        subprocess.Popen(
            [sys.executable, '-c', PROCESS, rank, *where],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for rank in '01'
    ]  # fmt: skip
    for process, own in zip(both, (7, 3), strict=True):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        mean, sum_of_first, *every, after = map(float, out.split()[-13:])
        assert mean == pytest.approx(scores.mean(), rel=1e-6)
        assert sum_of_first == pytest.approx(scores[:2].sum(), rel=1e-6)
        assert every == pytest.approx(scores, rel=1e-6)
        assert after == own  # the state is the process's own again


@pytest.mark.slow
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
