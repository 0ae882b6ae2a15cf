"""The metric on each device of this machine (the fixture `device`) against a CPU in float64."""

import copy
import pickle

import pytest
import torch

from maclip_pyiqa import MACLIP, score_files
from maclip_pyiqa.integrations.onnx import export

SIZES = [(150, 210), (64, 64), (150, 210), (20, 90)]


@pytest.fixture
def images(photos):
    return [photo[:, :h, :w] for photo, (h, w) in zip(photos, SIZES, strict=False)]


@pytest.fixture
def metric(tiny, device):
    return MACLIP(backbone=tiny).to(device)


@pytest.fixture
def exact(tiny):
    """On a CPU, in float64."""
    return MACLIP(backbone=tiny).to(torch.float64)


def to(images, device, dtype=torch.float32):
    return [image.to(device, dtype) for image in images]


def gradients(metric, images):
    images = [image.requires_grad_() for image in images]
    return torch.autograd.grad(metric(images).sum(), images)


def test_scores_alone_in_a_list_and_in_chunks(metric, exact, images, tiny, device):
    want = exact(to(images, 'cpu', torch.float64)).float()
    x = to(images, device)
    got = metric(x)
    assert got.device.type == device and got.shape == (4, 1)
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=1e-5)
    for other in (torch.cat([metric(i[None]) for i in x]), MACLIP(backbone=tiny, chunk=3).to(device)(x)):
        torch.testing.assert_close(other, got, rtol=0, atol=1e-5)
    batch = torch.stack(x[::2])
    torch.testing.assert_close(metric(batch), got[::2], rtol=0, atol=1e-5)


def test_demonstration_scores(device, photos):
    want = MACLIP(backbone='demo')(photos[:2])
    got = MACLIP(backbone='demo').to(device)([photo.to(device) for photo in photos[:2]])
    torch.testing.assert_close(got.cpu(), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize('options', [{}, {'chunk': 3}, {'views': 'full'}])
def test_gradients(tiny, images, device, options):
    got = gradients(MACLIP(backbone=tiny, **options).to(device), to(images, device))
    want = gradients(MACLIP(backbone=tiny, **options).to(torch.float64), to(images, 'cpu', torch.float64))
    for g, w in zip(got, want, strict=True):
        assert g.device.type == device and w.abs().max() > 0
        assert (g.cpu().double() - w).norm() < 1e-3 * w.norm()


def test_double_backward(metric, exact, images, device):
    def norm_gradient(metric, x):
        (g,) = torch.autograd.grad(metric(x).sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), x)[0]

    x = images[1][None]
    got = norm_gradient(metric, x.to(device).requires_grad_())
    want = norm_gradient(exact, x.double().requires_grad_())
    assert (got.cpu().double() - want).norm() < 1e-2 * want.norm()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(metric, images, device, dtype):
    x = to(images, device)
    with torch.autocast(device, dtype):
        got = metric(x)
    assert got.dtype == torch.float32
    assert 0 < (got - metric(x)).abs().max() < 0.05


@pytest.mark.parametrize('twin', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.cpu()])
def test_copies_and_moves(metric, images, device, twin):
    x = to(images, device)
    want = metric(x)
    other = twin(metric)
    assert {b.device.type for b in other.buffers()} in ({device}, {'cpu'})
    torch.testing.assert_close(other.to(device)(x), want, rtol=0, atol=1e-5)


def test_compiles_as_one_graph(metric, images, device):
    x = torch.stack(to(images, device)[::2])
    whole = torch.compile(metric, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        torch.testing.assert_close(whole(x), metric(x), rtol=0, atol=1e-5)


def test_values_are_checked(metric, images, device):
    x = to(images, device)
    x[2] = x[2] * 255
    with pytest.raises(ValueError, match=r'image 2 has values in \[.*divide by 255'):
        metric(x)


def test_files(metric, images, photo_files, device):
    rows = list(score_files(metric, photo_files[:2]))
    assert [row['error'] for row in rows] == ['', ''] and all(row['score'] for row in rows)


def test_sampled_views_are_unbiased_on_the_device(tiny, images, device):
    metric = MACLIP(backbone=tiny, sample_views=2).to(device)
    x = images[0][None].to(device).requires_grad_()
    torch.manual_seed(0)
    scores = torch.stack([metric(x).detach() for _ in range(60)])
    assert scores.std() > 0
    error = scores.std() / 60**0.5
    assert abs(scores.mean() - metric(x.detach())) < 4 * error


def test_export(metric, images, device, tmp_path):
    pytest.importorskip('onnxscript')  # of the extra `export`, whose torch is new enough
    export(metric, tmp_path / 'metric.pt2')
    x = torch.stack(to(images, device)[::2])
    program = torch.export.load(tmp_path / 'metric.pt2').module()
    torch.testing.assert_close(program(x), metric(x), rtol=0, atol=1e-5)
