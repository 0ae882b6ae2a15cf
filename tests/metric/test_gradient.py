"""Gradients: right, the same however they are computed, finite, and in bounded memory."""

import os

import pyiqa
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from maclip_pyiqa import MACLIP


def gradient(metric, x, **kwargs):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(metric(x).sum(), x, **kwargs)[0]


@pytest.fixture
def batch(photos):
    return torch.stack(photos[:3])[..., 40:180, 60:250]  # 4 x 3 windows of 64 each


@pytest.mark.parametrize('views', ['windows', 'global', 'full'])
@pytest.mark.parametrize('size', [(140, 190), (40, 90)])
def test_directional_derivative(tiny, photos, views, size):
    """Against central differences in float64. Directions are smooth and steps tiny, so that few ReLUs switch."""
    metric = MACLIP(backbone=tiny, views=views, chunk=4).double()
    x = torch.stack(photos[:2])[..., : size[0], : size[1]].double() * 0.9 + 0.05
    g = gradient(metric, x)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        d = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        step = 1e-9
        with torch.no_grad():
            numeric = (metric(x + step * d) - metric(x - step * d)).sum() / (2 * step)
        assert (g * d).sum().item() == pytest.approx(numeric.item(), rel=1e-3, abs=1e-4)


def test_gradient_reaches_the_whole_image_and_no_weight(tiny_metric, batch):
    g = gradient(tiny_metric, batch).abs().amax((0, 1))  # (140, 190); windows end at 138 and 175
    assert (g[:138, :175] > 0).float().mean() > 0.98
    assert (g[:, 175:] > 0).float().mean() > 0.5  # through the global view alone
    assert not any(b.requires_grad for b in tiny_metric.buffers())


def test_same_gradient_for_every_chunk(tiny, batch, close_gradients):
    want = gradient(MACLIP(backbone=tiny, chunk=1000).double(), batch.double())
    for chunk in (1, 7, 16):
        got = gradient(MACLIP(backbone=tiny, chunk=chunk).double(), batch.double())
        close_gradients(got, want, within=1e-9)


def test_gradient_does_not_depend_on_the_rest_of_the_batch(tiny, batch, close_gradients):
    metric = MACLIP(backbone=tiny).double()
    whole = gradient(metric, batch.double())
    alone = torch.cat([gradient(metric, image[None].double()) for image in batch])
    close_gradients(whole, alone, within=1e-9)
    images = [image.double().requires_grad_() for image in batch]
    listed = torch.autograd.grad(metric(images).sum(), images)
    close_gradients(torch.stack(listed), whole, within=1e-9)


def count_passes(metric):
    """How often the tower runs, by its first convolution."""
    passes = []
    metric.backbone.visual.conv1.register_forward_hook(lambda *_: passes.append(1))
    return passes


def test_activations_are_computed_again_only_where_there_are_many_views(tiny, batch):
    few, many = MACLIP(backbone=tiny, chunk=39), MACLIP(backbone=tiny, chunk=13)  # 3 images of 13 views
    passes = [count_passes(few), count_passes(many)]
    gradient(few, batch)
    gradient(many, batch)
    assert [len(p) for p in passes] == [1, 6]
    with torch.no_grad():
        many(batch)
    assert len(passes[1]) == 9


@pytest.mark.parametrize('chunk', [1000, 9])
def test_double_backward(tiny, batch, chunk):
    metric = MACLIP(backbone=tiny, chunk=chunk).double()
    x = batch[:1].double().requires_grad_()
    (g,) = torch.autograd.grad(metric(x).sum(), x, create_graph=True)
    d = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (hvp,) = torch.autograd.grad((g * d).sum(), x)
    step = 1e-8
    numeric = (gradient(metric, x.detach() + step * d) - gradient(metric, x.detach() - step * d)) / (2 * step)
    assert hvp.abs().max() > 0
    assert (hvp * d).sum().item() == pytest.approx((numeric * d).sum().item(), rel=1e-2)


def flat(value):
    return lambda: torch.full((1, 3, 100, 120), value)


IMAGES = {
    'black': flat(0.0),
    'grey': flat(0.5),
    'white': flat(1.0),
    'saturated': lambda: torch.rand(1, 3, 100, 120).round(),
    'noise': lambda: torch.rand(1, 3, 100, 120),
    '1x1': lambda: torch.rand(1, 3, 1, 1),
    '1x9': lambda: torch.rand(1, 3, 1, 9),
}


@pytest.mark.parametrize('kind', IMAGES)
@pytest.mark.parametrize('dtype', [None, torch.bfloat16, torch.float16])
def test_finite_everywhere(tiny_metric, kind, dtype):
    x = IMAGES[kind]()
    with torch.autocast('cpu', dtype, enabled=dtype is not None):
        score = tiny_metric(x)
        g = gradient(tiny_metric, x)
    assert score.isfinite().all() and g.isfinite().all()


@pytest.mark.parametrize('kind', IMAGES)
def test_finite_everywhere_on_rn50(rn50_metric, kind):
    dtypes = (None, torch.bfloat16, torch.float16) if kind == 'black' else (None,)  # half precision is slow on CPUs
    for dtype in dtypes:
        with torch.autocast('cpu', dtype, enabled=dtype is not None):
            g = gradient(rn50_metric, IMAGES[kind]())
        assert g.isfinite().all() and g.abs().max() > 0


# --- as pyiqa's loss --------------------------------------------------------------------------------------------------


def test_as_loss(tiny, batch):
    plain = pyiqa.create_metric('maclip', backbone=tiny)(batch)
    x = batch.clone().requires_grad_()
    for reduction, want in {'mean': plain.mean(), 'sum': plain.sum(), 'none': plain}.items():
        loss = pyiqa.create_metric('maclip', as_loss=True, loss_reduction=reduction, backbone=tiny)
        got = loss(x)
        torch.testing.assert_close(got.detach(), want, rtol=0, atol=1e-5)
        assert got.requires_grad
    weight = torch.tensor([[1.0], [0.0], [3.0]])
    loss = pyiqa.create_metric('maclip', as_loss=True, loss_weight=weight, backbone=tiny)
    torch.testing.assert_close(loss(x).detach(), (plain * weight).sum() / weight.sum(), rtol=0, atol=1e-5)
    (g,) = torch.autograd.grad(loss(x), x)
    assert g[1].eq(0).all() and g[0].abs().max() > 0


def test_a_step_against_the_loss_raises_the_score(tiny, batch):
    loss = pyiqa.create_metric('maclip', as_loss=True, backbone=tiny)
    x = batch[:1].clone().requires_grad_()
    before = loss(x)
    (1 - before).backward()
    with torch.no_grad():
        after = loss(x - 1e-3 * x.grad / x.grad.norm())
    assert after > before


# --- sampled views ----------------------------------------------------------------------------------------------------


def test_sampled_views_are_unbiased(tiny, photos):
    """Over all draws the mean is the full score: with k = 1 there are as many draws as windows."""
    metric = MACLIP(backbone=tiny, sample_views=1).double()
    x = photos[0][None, :, :110, :150].double()  # 2 x 3 windows
    with torch.no_grad():
        full = metric(x).item()
    y = x.clone().requires_grad_()
    torch.manual_seed(0)
    draws = {round(metric(y).item(), 12) for _ in range(60)}
    assert len(draws) == 6
    assert sum(draws) / 6 == pytest.approx(full, abs=1e-9)


def test_sampled_gradient_is_unbiased(tiny, photos, close_gradients):
    metric = MACLIP(backbone=tiny, sample_views=2).double()
    x = photos[0][None, :, :64, :140].double()  # 1 x 3 windows: three pairs
    want = gradient(MACLIP(backbone=tiny).double(), x)
    torch.manual_seed(0)
    got = {}
    for _ in range(40):
        g = gradient(metric, x)
        got[round(g.abs().sum().item(), 9)] = g
    assert len(got) == 3
    close_gradients(sum(got.values()) / 3, want, within=1e-9)


def test_sampling_follows_the_seed_and_stays_out_of_inference(tiny, photos):
    metric, full = MACLIP(backbone=tiny, sample_views=2), MACLIP(backbone=tiny)
    x = photos[0][None]
    y = x.clone().requires_grad_()

    def draws(seed):
        torch.manual_seed(seed)
        return [metric(y).item() for _ in range(4)]

    assert draws(1) == draws(1) != draws(2)
    assert len(set(draws(1))) > 1
    assert torch.equal(metric(x), full(x))  # no gradient wanted
    with torch.no_grad():
        assert torch.equal(metric(y), full(x))
    assert torch.equal(MACLIP(backbone=tiny, sample_views=10**6)(y).detach(), full(x))


# --- a generator in two processes -------------------------------------------------------------------------------------


def train(rank, world, store, tiny, images, out):
    """A few steps of a small generator with the metric as its loss; each process has its part of the batch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    loss = pyiqa.create_metric('maclip', as_loss=True, backbone=tiny, device='cpu').double().train()
    generator = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid()).double()
    if world > 1:
        torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=world)
        generator = nn.parallel.DistributedDataParallel(generator)
    optimiser = torch.optim.SGD(generator.parameters(), 0.5)
    for _ in range(3):
        optimiser.zero_grad()
        (1 - loss(generator(images[rank::world]))).backward()
        optimiser.step()
    if rank == 0:
        state = {k.removeprefix('module.'): v for k, v in generator.state_dict().items()}
        torch.save(state, out)
    if world > 1:
        os._exit(0)  # torch 2.6 can hang in destroy_process_group


@pytest.mark.slow
def test_distributed_data_parallel(tiny, photos, tmp_path):
    images = torch.stack(photos[:4])[..., :80, :110].double()
    train(0, 1, None, tiny, images, tmp_path / 'one.pt')
    mp.spawn(train, (2, tmp_path / 'store', tiny, images, tmp_path / 'two.pt'), nprocs=2)
    one, two = torch.load(tmp_path / 'one.pt'), torch.load(tmp_path / 'two.pt')
    torch.manual_seed(0)
    start = nn.Conv2d(3, 3, 3, padding=1).double()
    assert (one['0.weight'] - start.weight).abs().max() > 1e-3  # it did train
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-6, atol=1e-9)
