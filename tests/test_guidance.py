"""score_gradient and guided_step: right, finite, in all modes and dtypes, and without touching anybody's generator."""

import math
from itertools import pairwise

import numpy as np
import pyiqa
import pytest
import torch

from maclip_pyiqa import MACLIP
from maclip_pyiqa.guidance import guided_step, score_gradient

SIGMAS = [2.0, 1.0, 0.5, 0.25, 0.1, 0.0]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images(photos):
    return torch.stack(photos[:2])[..., 100:196, 100:240]  # 1 x 3 windows of 64


# --- the gradient -----------------------------------------------------------------------------------------------------


def test_gradient_is_autograds(tiny, images):
    metric = MACLIP(backbone=tiny).double()
    x = images.double().requires_grad_()  # with pixels of exactly 0 and 1
    (want,) = torch.autograd.grad(metric(x).sum(), x)
    got = score_gradient(metric, x, normalize=False)
    torch.testing.assert_close(got.grad, want)
    torch.testing.assert_close(got.norm, want.flatten(1).norm(dim=1))
    torch.testing.assert_close(got.score, metric(x).detach())
    unit = score_gradient(metric, x).grad
    torch.testing.assert_close(unit, want / want.square().mean((1, 2, 3), keepdim=True).sqrt())
    assert x.grad is None and not got.score.requires_grad


def test_chain_rule_through_what_makes_the_image(tiny, images):
    """Against one backward pass through both; latents of another shape than the images."""
    metric = MACLIP(backbone=tiny).double()

    def image(latents):  # (N, 3 * 96, 140) -> (N, 3, 96, 140)
        return (latents.unflatten(1, (3, 96)).flip(-1) ** 3).tanh() / 2 + 0.5

    x = (images.double() - 0.5).flatten(1, 2).requires_grad_()
    (want,) = torch.autograd.grad(metric(image(x)).sum(), x)
    got = score_gradient(metric, x, image, normalize=False)
    torch.testing.assert_close(got.grad, want)
    torch.testing.assert_close(got.norm, want.flatten(1).norm(dim=1))
    unit = score_gradient(metric, x, image).grad
    torch.testing.assert_close(unit.square().mean((1, 2)), torch.ones(2, dtype=torch.float64))


def test_each_image_is_normalised_alone(tiny_metric, images, close_gradients):
    both = score_gradient(tiny_metric, images)
    alone = [score_gradient(tiny_metric, image[None]) for image in images]
    close_gradients(both.grad, torch.cat([each.grad for each in alone]))
    torch.testing.assert_close(both.score, torch.cat([each.score for each in alone]))


def test_outside_the_range_there_is_no_gradient(tiny_metric, images):
    x = images.clone()
    x[..., :70] += 2
    got = score_gradient(tiny_metric, x)
    assert got.grad[..., :70].eq(0).all() and got.grad[..., 70:].abs().max() > 0
    torch.testing.assert_close(got.score, tiny_metric(x.clamp(0, 1)))


@pytest.mark.parametrize('value', [0.0, 0.5, 1.0, 3.0])
def test_finite_on_flat_images(tiny_metric, value):
    got = score_gradient(tiny_metric, torch.full((1, 3, 80, 96), value))
    assert got.grad.isfinite().all() and got.norm.isfinite().all()
    assert got.grad.eq(0).all() == (value > 1)


def test_an_image_without_a_finite_gradient_does_not_move(tiny_metric, images, close_gradients):
    x = images.clone()
    x[1, 0, 0, 0] = math.nan
    got = score_gradient(tiny_metric, x)
    assert got.grad[1].eq(0).all() and not got.norm[1].isfinite()
    close_gradients(got.grad[:1], score_gradient(tiny_metric, x[:1]).grad)


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_in_all_grad_modes(tiny_metric, images, mode):
    want = score_gradient(tiny_metric, images, lambda x: x * 0.9 + 0.05).grad
    with mode():
        x = images * 1.0  # made in this mode
        got = score_gradient(tiny_metric, x, lambda x: x * 0.9 + 0.05).grad
        assert got.equal(want) and not got.requires_grad
        assert (x + got).isfinite().all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(tiny, images, dtype):
    """The metric sees float32, also under autocast, and no gradient underflows on its way to the latents."""
    metric, seen = MACLIP(backbone=tiny), []
    metric.backbone.visual.conv1.register_forward_hook(lambda _, args, out: seen.append(out.dtype))
    want = score_gradient(metric, images, lambda x: x * 1e-3 + 0.5).grad
    with torch.autocast('cpu', torch.bfloat16):
        got = score_gradient(metric, images.to(dtype), lambda x: x * 1e-3 + 0.5)
    assert set(seen) == {torch.float32} and got.grad.dtype == torch.float32
    assert got.grad.isfinite().all() and (got.grad != 0).float().mean() > 0.9
    exact = score_gradient(metric, images.to(dtype).float()).grad  # rounding moves the images a little
    got = score_gradient(metric, images.to(dtype)).grad
    torch.testing.assert_close(got, exact)
    assert want.dtype == torch.float32


def test_generator_stands_in_for_the_global_one(tiny, images):
    """Sampled views follow it, are drawn anew in each call, and leave the global generator alone."""
    metric = MACLIP(backbone=tiny, sample_views=1)
    before = torch.get_rng_state()
    generator = seeded(3)
    first, second = (score_gradient(metric, images, generator=generator) for _ in range(2))
    assert torch.get_rng_state().equal(before)
    assert not first.score.equal(second.score)
    again = score_gradient(metric, images, generator=seeded(3))
    assert again.grad.equal(first.grad)


def test_pyiqas_metric(tiny, tiny_metric, images, close_gradients):
    loss = pyiqa.create_metric('maclip', as_loss=True, device='cpu', backbone=tiny)
    got, want = (score_gradient(metric, images).grad for metric in (loss, tiny_metric))
    close_gradients(got, want)
    with pytest.raises(ValueError, match='the metric gives no gradient'):
        score_gradient(pyiqa.create_metric('maclip', device='cpu', backbone=tiny), images)


def test_generator_is_checked(tiny_metric, images):
    with pytest.raises(TypeError, match=r'generator=3; expected a torch.Generator on the CPU'):
        score_gradient(tiny_metric, images, generator=3)


# --- a sampler's step -------------------------------------------------------------------------------------------------


@pytest.fixture
def denoiser(photos):
    """The exact one where clean images are a photo's crop plus Gaussian noise of standard deviation 0.2."""
    mean, var = photos[0][:, 100:196, 100:196] * 2 - 1, 0.2**2
    return lambda x, sigma: (var * x + sigma**2 * mean) / (var + sigma**2)


@pytest.fixture
def start():
    return SIGMAS[0] * torch.randn(2, 3, 96, 96, generator=seeded())


def sample(denoiser, metric, x, **options):
    with torch.no_grad():
        for sigma, sigma_next in pairwise(SIGMAS):
            x = guided_step(denoiser, metric, x, sigma, sigma_next, **options)
    return x


@pytest.mark.parametrize('through', ['x0', 'denoiser'])
def test_guidance_raises_the_score(denoiser, tiny_metric, start, through):
    guided = sample(denoiser, tiny_metric, start, through=through)
    plain = sample(denoiser, tiny_metric, start, weight=0)
    assert guided.shape == start.shape and not guided.requires_grad and guided.isfinite().all()
    score, score_plain = (tiny_metric((x / 2 + 0.5).clamp(0, 1)) for x in (guided, plain))
    assert (score > score_plain + 0.05).all()


def test_without_weight_it_is_the_plain_sampler(denoiser, start):
    def metric(x):
        raise AssertionError('called')

    x = guided_step(denoiser, metric, start, 2.0, 1.5, weight=0.0)
    torch.testing.assert_close(x, start - 0.5 * (start - denoiser(start, 2.0)) / 2.0)


def test_the_gradient_goes_through_the_denoiser(tiny_metric, start):
    """With a denoiser that shuts one half of the image out, that half gets no guidance, unless it stops at x0."""
    mask = torch.ones(96, 96)
    mask[:, 48:] = 0
    calls = []

    def half(x, sigma):
        calls.append(x.requires_grad)
        return x * mask / 4

    def moved(through):
        args = (half, tiny_metric, start, 2.0, 1.0)
        return guided_step(*args, weight=0.1, through=through) - guided_step(*args, weight=0.0)

    through, direct = moved('denoiser'), moved('x0')
    assert calls == [True, False, False, False]  # one call a step
    assert through[..., 48:].abs().max() == 0 and through[..., :48].abs().max() > 0
    assert direct[..., 48:].abs().max() > 0
    rms = through.square().mean((1, 2, 3)).sqrt()  # weight times what the step takes off the noise level
    torch.testing.assert_close(rms, torch.full((2,), 0.1), rtol=1e-4, atol=0)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_step_in_half_precision_and_inference_mode(denoiser, tiny_metric, start, dtype):
    with torch.inference_mode():
        x = start.to(dtype)
        got = guided_step(lambda x, sigma: denoiser(x.float(), sigma).to(dtype), tiny_metric, x, 0.5, 0.25)
        want = guided_step(denoiser, tiny_metric, x.float(), 0.5, 0.25)
    assert got.dtype == dtype
    assert (got - want).abs().mean() < 0.02


def test_step_draws_from_the_generator_alone(denoiser, tiny, start):
    metric = MACLIP(backbone=tiny, sample_views=1, stride=16)
    before = torch.get_rng_state()
    first, again, other = (
        guided_step(denoiser, metric, start, 0.5, 0.25, generator=seeded(seed)) for seed in (0, 0, 1)
    )
    assert first.equal(again) and not first.equal(other) and torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ('options', 'error', 'match'),
    [
        ({'weight': -0.1}, ValueError, 'weight=-0.1'),
        ({'weight': math.nan}, ValueError, 'weight=nan'),
        ({'weight': True}, TypeError, 'weight=True'),
        ({'through': 'vae'}, ValueError, "through='vae'; expected 'x0' or 'denoiser'"),
    ],
)
def test_options_of_a_step_are_checked(denoiser, tiny_metric, start, options, error, match):
    with pytest.raises(error, match=match):
        guided_step(denoiser, tiny_metric, start, 0.5, 0.25, **options)


def test_numbers_of_numpy(tiny_metric, images):
    denoiser = lambda x, sigma: x  # noqa: E731
    x = 2 * images - 1
    for weight in (np.float32(0.125), np.array(0.125)):
        step = guided_step(denoiser, tiny_metric, x, 1.0, 0.5, weight)
        assert step.equal(guided_step(denoiser, tiny_metric, x, 1.0, 0.5, 0.125))
