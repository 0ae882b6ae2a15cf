"""The gradient of a score, for loops that move an image towards a higher one: samplers, restoration. Plain torch.

References: DPS (Chung et al., ICLR 2023, https://arxiv.org/abs/2209.14687) for the gradient through the denoiser,
universal guidance (Bansal et al., 2023, https://arxiv.org/abs/2302.07121) for the one at the predicted clean image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ._values import number

__all__ = ['ScoreGradient', 'guided_step', 'score_gradient']

Metric = Callable[[Tensor], Tensor]


class ScoreGradient(NamedTuple):
    """What `score_gradient` returns.

    Attributes:
        grad: gradient of x's shape, float32 (float64 for x in float64); zero for an image whose gradient is not finite
        score: result of the metric, without gradient; (N, 1) of a `MACLIP`
        norm: Euclidean norm of each image's gradient before normalisation, (N,)

    Example::

        import torch
        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.guidance import score_gradient

        grad, score, norm = score_gradient(MACLIP(), torch.rand(2, 3, 256, 256))
    """

    grad: Tensor
    score: Tensor
    norm: Tensor


def score_gradient(
    metric: Metric,
    x: Tensor,
    image: Callable[[Tensor], Tensor] | None = None,
    *,
    normalize: bool = True,
    generator: torch.Generator | None = None,
) -> ScoreGradient:
    r"""Gradient of each image's score with respect to what the image is made from.

    $$g = \nabla_x\, \mathrm{metric}(\mathrm{clamp}(\mathrm{image}(x), 0, 1))$$

    It also works inside `torch.no_grad` and `torch.inference_mode`. The metric sees float32, whatever x is and also
    under autocast, and the gradient goes on through `image` at a scale that half precision holds.

    Args:
        metric: a `MACLIP`, or any function of images (N, 3, H, W) in [0, 1] that is differentiable and scores each
            image on its own; of pyiqa's metrics those made with as_loss=True
        x: tensor (N, ...), such as images (N, 3, H, W) or latents, of any floating dtype
        image: function of x that returns RGB images (N, 3, H, W), nominally in [0, 1]; None: x itself
        normalize: whether to scale each image's gradient to a root mean square of 1; a zero gradient stays zero
        generator: random generator on the CPU for the metric's `sample_views`, in place of torch's global one, which is
            left alone; None: the global one

    Returns:
        the gradient, of x's shape, with the score and the gradient's norm

    Raises:
        TypeError, ValueError: an option out of range, or a metric that gives no gradient

    Example::

        import torch
        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.guidance import score_gradient

        metric, image = MACLIP(), torch.rand(1, 3, 256, 256)
        for _ in range(3):                     # towards a higher score
            image = (image + 0.01 * score_gradient(metric, image).grad).clamp(0, 1)
    """
    check_options(generator)
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone() if x.is_inference() else x.detach()
        x.requires_grad_()
        made = x if image is None else image(x)
        # The chain rule in two parts. The metric's is in float32, and is handed on with a root mean square of 1: the
        # gradient of a pixel is about 1e-6, which is zero in half precision. Its memory is free before the second.
        unclamped = made.detach().to(torch.promote_types(made.dtype, torch.float32))
        pixels = unclamped.clamp(0, 1).requires_grad_()
        with _draws_from(generator), torch.autocast(x.device.type, enabled=False):
            score = metric(pixels)
        if not score.requires_grad:
            raise ValueError(
                'the metric gives no gradient; expected a differentiable one, such as MACLIP or '
                "pyiqa.create_metric('maclip', as_loss=True)"
            )
        (grad,) = torch.autograd.grad(score.sum(), pixels)
        grad = torch.where(unclamped == pixels, grad, 0)  # of the clamping; at 0 and 1 torch's own differs by version
        scale = _rms(grad)
        grad = _times(grad, 1 / scale)
        if image is not None:
            (grad,) = torch.autograd.grad(made, x, grad.to(made.dtype))
            grad = grad.to(unclamped.dtype)
    rms = _rms(grad)
    norm = scale * rms * math.sqrt(grad[0].numel())
    grad = _times(grad, 1 / rms if normalize else scale)
    grad[~norm.isfinite()] = 0
    return ScoreGradient(grad, score.detach(), norm)


def guided_step(
    denoiser: Callable[[Tensor, float], Tensor],
    metric: Metric,
    x: Tensor,
    sigma: float,
    sigma_next: float,
    weight: float = 0.1,
    through: Literal['x0', 'denoiser'] = 'x0',
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""An Euler (DDIM) step of a diffusion sampler towards a higher score, for images in [-1, 1] as in EDM.

    $$x' = x_0 + \frac{\sigma'}{\sigma} (x - x_0) + \mathrm{weight}\,(\sigma - \sigma')\, \hat g$$

    with x0 = denoiser(x, sigma), the predicted clean image, and $\hat g$ the gradient of its score, scaled to a root
    mean square of 1. So weight is the length of the guidance in proportion to the noise that the step removes.

    Args:
        denoiser: function (x, sigma) that returns the predicted clean image, of x's shape
        metric: differentiable metric, see `score_gradient`
        x: noisy images, (N, 3, H, W)
        sigma, sigma_next: noise level before and after the step
        weight: strength of the guidance, at least 0; 0 is the plain step
        through: gradient with respect to x0 ('x0'), or with respect to x, through the denoiser ('denoiser', as in
            DPS), which takes more time and memory
        generator: random generator, see `score_gradient`

    Returns:
        (N, 3, H, W), of x's dtype, without gradient

    Raises:
        TypeError, ValueError: as `score_gradient`, or a weight or `through` out of range

    Example::

        import torch
        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.guidance import guided_step

        def denoiser(x, sigma):                # a toy: it knows that clean images are grey
            return x / (1 + 4 * sigma**2)

        metric, x = MACLIP(), 2.0 * torch.randn(1, 3, 256, 256)
        for sigma, sigma_next in [(2.0, 1.0), (1.0, 0.5), (0.5, 0.0)]:
            x = guided_step(denoiser, metric, x, sigma, sigma_next, weight=0.1)  # (1, 3, 256, 256)
    """
    check_options(generator, weight, through)
    predictions: list[Tensor] = []

    def image(x: Tensor) -> Tensor:
        predictions.append(denoiser(x, sigma))
        return predictions[0] / 2 + 0.5

    grad: Tensor | float = 0.0
    if weight and through == 'denoiser':
        grad = score_gradient(metric, x, image, generator=generator).grad
    else:
        with torch.no_grad():
            image(x)
        if weight:
            grad = score_gradient(metric, predictions[0], lambda x0: x0 / 2 + 0.5, generator=generator).grad
    with torch.no_grad():
        x0 = predictions[0].detach()
        step = x0 + sigma_next / sigma * (x - x0)
        return (step + weight * (sigma - sigma_next) * grad).to(x.dtype)


def check_options(generator: torch.Generator | None, weight: float = 0.0, through: str = 'x0') -> None:
    """Check options that the functions here and those built on them share; TypeError or ValueError if out of range."""
    if generator is not None and (not isinstance(generator, torch.Generator) or generator.device.type != 'cpu'):
        raise TypeError(f'generator={generator!r}; expected a torch.Generator on the CPU')
    if number('weight', weight) < 0:
        raise ValueError(f'weight={weight!r}; expected a finite number of at least 0')
    if through not in ('x0', 'denoiser'):
        raise ValueError(f"through={through!r}; expected 'x0' or 'denoiser'")


def _rms(grad: Tensor) -> Tensor:
    """Root mean square of each image, (N,), never zero, so that it can be divided by."""
    return grad.flatten(1).square().mean(1).sqrt().clamp(min=1e-12)


def _times(grad: Tensor, factor: Tensor) -> Tensor:
    """Each image times its factor, (N,)."""
    return grad * factor.view(-1, *[1] * (grad.ndim - 1))


@contextmanager
def _draws_from(generator: torch.Generator | None) -> Iterator[None]:
    """Let a generator stand in for torch's global one, on the CPU."""
    if generator is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        try:
            yield
        finally:
            generator.set_state(torch.get_rng_state())
