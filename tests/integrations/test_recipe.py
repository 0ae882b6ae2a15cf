"""The recipe for diffusion samplers in docs/loss-and-guidance.md, run as it is printed there."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / 'docs' / 'loss-and-guidance.md'
SIGMAS = [2.0, 1.0, 0.5, 0.25, 0.1, 0.0]


@pytest.fixture(scope='module')
def guided_step():
    section = PAGE.read_text('utf-8').partition('## Guidance in a diffusion sampler\n')[2]
    block = re.search(r'```python\n(.*?)```', section, re.DOTALL)
    assert block, f'{PAGE.name} has no such recipe'
    namespace = {}
    exec(block.group(1), namespace)
    return namespace['guided_step']


@pytest.fixture
def denoiser(photos):
    """The exact one where clean images are a photo's crop plus Gaussian noise of standard deviation 0.2."""
    mean, var = photos[0][:, 100:196, 100:196] * 2 - 1, 0.2**2
    return lambda x, sigma: (var * x + sigma**2 * mean) / (var + sigma**2)


@pytest.fixture
def start():
    return SIGMAS[0] * torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def sample(step, x):
    with torch.no_grad():
        for sigma, sigma_next in pairwise(SIGMAS):
            x = step(x, sigma, sigma_next)
    return x


@pytest.mark.parametrize('through_denoiser', [True, False])
def test_guidance_raises_the_score(guided_step, denoiser, tiny_metric, start, through_denoiser):
    def guided(x, sigma, sigma_next):
        return guided_step(denoiser, tiny_metric, x, sigma, sigma_next, through_denoiser=through_denoiser)

    def euler(x, sigma, sigma_next):
        return x + (sigma_next - sigma) * (x - denoiser(x, sigma)) / sigma

    guided, plain = sample(guided, start), sample(euler, start)
    assert guided.shape == start.shape and not guided.requires_grad and guided.isfinite().all()
    score, score_plain = (tiny_metric((x / 2 + 0.5).clamp(0, 1)) for x in (guided, plain))
    assert (score > score_plain + 0.05).all()


def test_without_weight_it_is_the_plain_sampler(guided_step, denoiser, tiny_metric, start):
    x = guided_step(denoiser, tiny_metric, start, 2.0, 1.5, weight=0.0)
    torch.testing.assert_close(x, start - 0.5 * (start - denoiser(start, 2.0)) / 2.0)


def test_the_gradient_goes_through_the_denoiser(guided_step, tiny_metric, start):
    """With a denoiser that shuts one half of the image out, that half gets no guidance, unless it stops at x0."""
    mask = torch.ones(96, 96)
    mask[:, 48:] = 0

    def half(x, sigma):
        return x * mask / 4

    def moved(through_denoiser):
        args = (half, tiny_metric, start, 2.0, 1.0)
        plain = guided_step(*args, weight=0.0, through_denoiser=through_denoiser)
        return guided_step(*args, weight=0.1, through_denoiser=through_denoiser) - plain

    through, direct = moved(True), moved(False)
    assert through[..., 48:].abs().max() == 0 and through[..., :48].abs().max() > 0
    assert direct[..., 48:].abs().max() > 0
    rms = through.square().mean((1, 2, 3)).sqrt()  # weight times what the step takes off the noise level
    torch.testing.assert_close(rms, torch.full((2,), 0.1), rtol=1e-4, atol=0)


def test_it_takes_the_pyiqa_metric_too(guided_step, denoiser, tiny, tiny_metric, start):
    import pyiqa

    metric = pyiqa.create_metric('maclip', as_loss=True, device='cpu', backbone=tiny)
    got, want = (guided_step(denoiser, m, start, 0.5, 0.25) for m in (metric, tiny_metric))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
