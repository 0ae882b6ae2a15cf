"""Guidance of diffusers' pipelines towards a higher score, as a callback (extra `diffusers`).

References: DPS (Chung et al., ICLR 2023, https://arxiv.org/abs/2209.14687), universal guidance (Bansal et al., 2023,
https://arxiv.org/abs/2302.07121).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .._lazy import need
from .._values import integer, number
from ..guidance import Metric, check_options, score_gradient
from ..report.figures import plot_guidance, save

need(__name__, 'diffusers', extra='diffusers')

from diffusers.callbacks import PipelineCallback  # noqa: E402

__all__ = ['GuidedStep', 'MACLIPGuidance']

# Noisy latents are alpha * clean + sigma * noise. What a scheduler's numbers say about alpha and sigma:
SCHEDULERS = {
    'DDIMScheduler': 'alphas_cumprod',
    'DDPMScheduler': 'alphas_cumprod',
    'LCMScheduler': 'alphas_cumprod',
    'PNDMScheduler': 'alphas_cumprod',
    'EulerDiscreteScheduler': 'exploding',  # alpha = 1; the denoiser's input is divided by sqrt(1 + sigma^2)
    'EulerAncestralDiscreteScheduler': 'exploding',
    'LMSDiscreteScheduler': 'exploding',
    'DEISMultistepScheduler': 'preserving',  # alpha^2 + sigma^2 = 1, `sigmas` is sigma / alpha
    'DPMSolverMultistepScheduler': 'preserving',
    'FlowMatchEulerDiscreteScheduler': 'flow',  # alpha = 1 - sigma
}
DENOISERS = ('UNet2DConditionModel', 'SD3Transformer2DModel', 'FluxTransformer2DModel')


class GuidedStep(NamedTuple):
    """One entry of `MACLIPGuidance.history`.

    Attributes:
        step: index of the step after which the latents were moved
        timestep: timestep of that step, as the scheduler counts
        score: score of each predicted clean image, before the move
        gradient_norm: Euclidean norm of each image's gradient

    Example::

        from diffusers import StableDiffusionPipeline
        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.integrations.diffusers import MACLIPGuidance

        pipe = StableDiffusionPipeline.from_pretrained('stable-diffusion-v1-5/stable-diffusion-v1-5')
        guidance = MACLIPGuidance(MACLIP())
        pipe('a lighthouse', callback_on_step_end=guidance)
        scores = [step.score[0] for step in guidance.history]  # of the predicted clean image, step by step
    """

    step: int
    timestep: float
    score: list[float]
    gradient_norm: list[float]


class MACLIPGuidance(PipelineCallback):
    r"""A callback that moves a pipeline's latents towards a higher score between its steps, without training.

        pipe(prompt, callback_on_step_end=MACLIPGuidance(metric, weight=0.1))

    After a step the denoiser predicts the clean image, and the latents x = alpha * clean + sigma * noise move along
    the gradient of its score, scaled to a root mean square of 1, by

    $$\mathrm{weight} \cdot (\sigma - \alpha\,\sigma' / \alpha')$$

    where alpha', sigma' are those after the next step: weight is the length of the guidance in proportion to the
    noise that this step removes. Latents are moved before the third and later steps: a callback is first called after
    the first step, and sees in the second how the pipeline calls its denoiser. After the last step nothing moves.

    It knows Stable Diffusion 1, 2 and XL (UNet), Stable Diffusion 3 and Flux (transformer), also as image-to-image
    and inpainting pipelines, with epsilon, v, sample and flow-matching prediction, and refuses what it does not know.
    One instance guides one call of a pipeline at a time.

    Args:
        metric: metric on the pipeline's device: a `MACLIP`, or another differentiable metric, see `score_gradient`
        weight: strength of the guidance, at least 0; 0 records the history and leaves the image as it is, bit for bit
        every: number of steps from one guided step to the next
        start_step_ratio, cutoff_step_ratio: part of the steps to guide, each a float in [0, 1]
        through: 'x0' takes the gradient with respect to the predicted clean latents: one more call of the denoiser
            without gradient, and one pass forth and back through the VAE's decoder. 'denoiser' takes it with respect
            to the noisy latents (DPS): one pass forth and back through the denoiser too, whose activations need
            several times the memory of its plain call, unless the pipeline has gradient checkpointing enabled
        generator: random generator on the CPU for the metric's `sample_views`; None: one with the seed 0. Other
            generators, torch's global one included, are left alone

    Attributes:
        history: a `GuidedStep` for each guided step of the last call

    Raises:
        TypeError, ValueError: an option out of range; in a pipeline's call, a pipeline or scheduler that is not known
        ModuleNotFoundError: diffusers is not installed

    Example::

        from diffusers import StableDiffusionPipeline
        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.integrations.diffusers import MACLIPGuidance

        pipe = StableDiffusionPipeline.from_pretrained('stable-diffusion-v1-5/stable-diffusion-v1-5')
        guidance = MACLIPGuidance(MACLIP(), weight=0.1, cutoff_step_ratio=0.8)
        image = pipe('a lighthouse', callback_on_step_end=guidance).images[0]
        guidance.plot('guidance.png')
    """

    tensor_inputs = ['latents']  # noqa: RUF012 (as diffusers has it)

    def __init__(
        self,
        metric: Metric,
        weight: float = 0.1,
        *,
        every: int = 1,
        start_step_ratio: float = 0.0,
        cutoff_step_ratio: float = 1.0,
        through: Literal['x0', 'denoiser'] = 'x0',
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(cutoff_step_ratio=cutoff_step_ratio)
        check_options(generator, weight, through)
        if not 0 <= number('start_step_ratio', start_step_ratio) < cutoff_step_ratio:
            raise ValueError(
                f'start_step_ratio={start_step_ratio!r}; expected a float from 0 to below cutoff_step_ratio, '
                f'{cutoff_step_ratio}'
            )
        self.metric, self.weight, self.through, self.generator = metric, weight, through, generator
        self.every = integer('every', every)
        self.start_step_ratio, self.cutoff_step_ratio = start_step_ratio, cutoff_step_ratio
        self.history: list[GuidedStep] = []
        self._draws = generator  # of one call of a pipeline
        self._first_step = 0  # index among the scheduler's timesteps: image-to-image starts late
        self._denoiser: Callable[[], _Denoiser | None] = lambda: None

    def plot(self, path: str | os.PathLike) -> None:
        """Write a figure of the history: score and gradient norm of each image, step by step.

        Args:
            path: path of an image file; its suffix says the format

        Raises:
            ModuleNotFoundError: matplotlib is not installed (extra `plot`)
            ValueError: the history is empty
        """
        steps, _, scores, norms = zip(*self.history, strict=True) if self.history else ((),) * 4
        save(plot_guidance(steps, scores, norms), path)

    def callback_fn(
        self, pipeline: Any, step_index: int, timestep: Tensor, callback_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """What a pipeline calls after each step."""
        denoiser = self._begin(pipeline, timestep) if step_index == 0 else self._denoiser()
        if denoiser is None:
            raise RuntimeError(
                f'{type(pipeline).__name__} did not keep what its callback returned, or did not call it after its '
                'first step; expected a pipeline of diffusers'
            )
        # A pipeline keeps what its callback returned until the next one does, or until it ends, in whichever way. That
        # long this object lives, and with it the hook on the denoiser.
        callback_kwargs['maclip_guidance'] = denoiser
        steps = pipeline.num_timesteps
        first, last = (int(steps * ratio) for ratio in (self.start_step_ratio, self.cutoff_step_ratio))
        guided = first <= step_index < last and (step_index - first) % self.every == 0
        if guided and 0 < step_index < steps - 1:
            moved = self._move(pipeline, denoiser, callback_kwargs['latents'], step_index)
            if self.weight:
                callback_kwargs['latents'] = moved
        denoiser.called = False
        return callback_kwargs

    def _begin(self, pipeline: Any, timestep: Tensor) -> _Denoiser:
        """At the first step: check pipeline and scheduler, and start to record the denoiser's calls."""
        timesteps = pipeline.scheduler.timesteps
        _noise_kind(pipeline.scheduler)
        if getattr(getattr(pipeline, 'vae', None), 'config', {}).get('scaling_factor') is None:
            raise ValueError(f'{type(pipeline).__name__} has no VAE with a scaling factor; expected latent diffusion')
        denoiser = _Denoiser(pipeline)
        self._denoiser = weakref.ref(denoiser)
        self._first_step = int((timesteps == timestep.to(timesteps.device)).nonzero()[0])
        self._draws = self.generator or torch.Generator().manual_seed(0)
        self.history = []
        return denoiser

    def _move(self, pipeline: Any, denoiser: _Denoiser, latents: Tensor, step_index: int) -> Tensor:
        """Latents moved towards a higher score; adds an entry to the history."""
        if not denoiser.called:
            raise RuntimeError(f'{type(pipeline).__name__} did not call its denoiser in step {step_index}')
        scheduler, vae = pipeline.scheduler, pipeline.vae
        step = self._first_step + step_index + 1
        level, level_after = _noise_level(scheduler, step), _noise_level(scheduler, step + 1)

        def predict(x: Tensor) -> Tensor:
            return denoiser.predict_clean(x, scheduler.timesteps[step], level)

        def image(x: Tensor) -> Tensor:
            return _decode(vae, denoiser.unpack(x if self.through == 'x0' else predict(x)))

        with torch.inference_mode(False), _upcast(vae), _frozen(vae), _frozen(denoiser.module):
            with torch.no_grad():
                start = predict(latents) if self.through == 'x0' else latents
            grad, score, norm = score_gradient(self.metric, start, image, generator=self._draws)
        timestep = float(scheduler.timesteps[step - 1])
        self.history.append(GuidedStep(step_index, timestep, score.flatten().tolist(), norm.tolist()))
        length = self.weight * (level.sigma - level.alpha * level_after.sigma / level_after.alpha) / level.scale
        return (latents + length * grad).to(latents.dtype)


class _NoiseLevel(NamedTuple):
    """What the denoiser gets is scale * latents = alpha * clean + sigma * noise."""

    alpha: float
    sigma: float
    scale: float = 1.0


def _noise_kind(scheduler: Any) -> str:
    """-> a value of SCHEDULERS; ValueError for a scheduler that is not supported."""
    name = next((c.__name__ for c in type(scheduler).__mro__ if c.__name__ in SCHEDULERS), None)
    config, remedy = scheduler.config, 'pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)'
    if name is None:
        raise ValueError(
            f'{type(scheduler).__name__} is not supported: it may undo what is changed between its steps; expected one '
            f'of {", ".join(SCHEDULERS)}, such as {remedy}'
        )
    if name == 'PNDMScheduler' and not config.skip_prk_steps:
        raise ValueError('PNDMScheduler undoes what is changed between its steps without skip_prk_steps=True; set it')
    kind = 'flow' if config.get('use_flow_sigmas') else SCHEDULERS[name]
    supported = ('flow_prediction',) if kind == 'flow' else ('epsilon', 'v_prediction', 'sample')
    if _prediction_type(scheduler) not in supported or config.get('invert_sigmas'):
        raise ValueError(
            f'{type(scheduler).__name__} with prediction_type={_prediction_type(scheduler)!r}, use_flow_sigmas='
            f'{config.get("use_flow_sigmas", False)}, invert_sigmas={config.get("invert_sigmas", False)} is not '
            f'supported; expected prediction_type one of {", ".join(supported)} and no inverted sigmas'
        )
    return kind


def _prediction_type(scheduler: Any) -> str:
    return scheduler.config.get('prediction_type', 'flow_prediction')


def _noise_level(scheduler: Any, step: int) -> _NoiseLevel:
    """Noise level of the latents before a step, by its index among the scheduler's timesteps."""
    kind = _noise_kind(scheduler)
    if kind == 'alphas_cumprod':
        if step == len(scheduler.timesteps):
            return _NoiseLevel(1.0, 0.0)
        alpha = float(scheduler.alphas_cumprod[int(scheduler.timesteps[step])])
        return _NoiseLevel(alpha**0.5, (1 - alpha) ** 0.5)
    sigma = float(scheduler.sigmas[step])
    if kind == 'flow':
        return _NoiseLevel(1 - sigma, sigma)
    alpha = (1 + sigma**2) ** -0.5
    return _NoiseLevel(alpha, sigma * alpha, alpha if kind == 'exploding' else 1.0)


class _Denoiser:
    """A pipeline's denoiser, and its first call since `called` was set to False: recorded by a hook, which is removed
    when this object is deleted."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline, self.module, self.called = pipeline, _find_denoiser(pipeline), False
        this = weakref.proxy(self)
        hook = self.module.register_forward_pre_hook(lambda _, *call: this._record(*call), with_kwargs=True)
        weakref.finalize(self, hook.remove)

    def _record(self, args: tuple, kwargs: dict[str, Any]) -> None:
        if self.called:
            return
        self.called = True
        self.options = {name: value for name, value in kwargs.items() if name != 'return_dict'}
        names = [name for name in ('sample', 'hidden_states', 'timestep') if name in kwargs]
        # x: (N, C, H, W), packed (N, L, C); 2N with classifier-free guidance
        self.x, self.timestep = (*args, *(self.options.pop(name) for name in names))
        self.packed = 'img_ids' in kwargs
        guided = getattr(self.pipeline, 'do_classifier_free_guidance', False)
        self.guidance_scale = self.pipeline.guidance_scale if guided else None
        self.guidance_rescale = getattr(self.pipeline, 'guidance_rescale', 0.0)

    def predict_clean(self, latents: Tensor, timestep: Tensor, level: _NoiseLevel) -> Tensor:
        """The clean latents that the denoiser predicts when called in the same way, of the latents' shape, float32."""
        channels = 2 if self.packed else 1
        copies, extra = len(self.x) // len(latents), self.x.shape[channels] - latents.shape[channels]
        noisy = latents.to(torch.promote_types(latents.dtype, torch.float32)) * level.scale
        x = noisy.to(self.x.dtype).repeat(copies, *[1] * (noisy.ndim - 1))
        if extra > 0:  # an inpainting model's mask and masked image
            x = torch.cat([x, _outside_inference(self.x).narrow(channels, latents.shape[channels], extra)], channels)
        if x.shape != self.x.shape or copies > 2 or (copies == 2) != (self.guidance_scale is not None):
            raise ValueError(
                f'the denoiser was called with {tuple(self.x.shape)} for latents {tuple(latents.shape)}; this kind of '
                'pipeline is not supported'
            )
        timestep = timestep.to(self.timestep.device, self.timestep.dtype).expand(self.timestep.shape)
        if self.packed:
            timestep = timestep / 1000  # as Flux's pipelines do
        # its own name, so that a cache of activations (of diffusers' CacheMixin) does not mix this call with the rest
        with getattr(self.module, 'cache_context', nullcontext)('maclip_guidance'):
            out = self.module(x, timestep=timestep, **_outside_inference(self.options), return_dict=False)[0]
        if self.guidance_scale is not None:
            unconditional, conditional = out.chunk(2)
            out = unconditional + self.guidance_scale * (conditional - unconditional)
            if self.guidance_rescale:
                from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

                out = rescale_noise_cfg(out, conditional, self.guidance_rescale)
        out = out.to(noisy.dtype)
        prediction_type = _prediction_type(self.pipeline.scheduler)
        if prediction_type == 'epsilon':
            return (noisy - level.sigma * out) / level.alpha
        if prediction_type == 'v_prediction':
            return level.alpha * noisy - level.sigma * out
        return out if prediction_type == 'sample' else noisy - level.sigma * out

    def unpack(self, latents: Tensor) -> Tensor:
        """(N, C, H, W) of latents. Flux packs squares of 2x2: (N, H/2 * W/2, 4 * C)."""
        if not self.packed:
            return latents
        width = int((self.options['img_ids'][..., 1] == 0).sum())  # squares in the first row
        squares = latents.unflatten(1, (-1, width)).unflatten(-1, (-1, 2, 2))  # (N, H/2, W/2, C, 2, 2)
        return squares.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _find_denoiser(pipeline: Any) -> nn.Module:
    for name in ('unet', 'transformer'):
        module = getattr(pipeline, name, None)
        inner = getattr(module, '_orig_mod', module)  # within what torch.compile returned
        if module is not None and any(c.__name__ in DENOISERS for c in type(inner).__mro__):
            return module
    raise ValueError(
        f'{type(pipeline).__name__} is not supported; expected a pipeline with one of {", ".join(DENOISERS)}'
    )


def _decode(vae: Any, latents: Tensor) -> Tensor:
    """-> images, nominally in [0, 1], in the VAE's dtype."""
    config = vae.config
    latents = latents / config.scaling_factor
    mean, std = config.get('latents_mean'), config.get('latents_std')
    if mean is not None and std is not None:
        latents = latents * latents.new_tensor(std).view(-1, 1, 1) + latents.new_tensor(mean).view(-1, 1, 1)
    latents = latents + (config.get('shift_factor') or 0.0)
    return vae.decode(latents.to(vae.dtype), return_dict=False)[0] / 2 + 0.5


@contextmanager
def _upcast(vae: Any) -> Iterator[None]:
    """Some VAEs, as SDXL's, overflow in float16. Their pipelines decode in float32 too."""
    needed = vae.dtype == torch.float16 and vae.config.get('force_upcast', False)
    if needed:
        nn.Module.to(vae, torch.float32)  # without the warning that diffusers' own has for this
    try:
        yield
    finally:
        if needed:
            nn.Module.to(vae, torch.float16)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradient for weights, which spares the activations that it would need."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def _outside_inference(value: Any) -> Any:
    """A value in which tensors made in inference mode, which autograd refuses, are copied."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {key: _outside_inference(item) for key, item in value.items()}
    return type(value)(_outside_inference(item) for item in value) if isinstance(value, (list, tuple)) else value
