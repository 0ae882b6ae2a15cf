"""MACLIPGuidance on tiny random pipelines, built from configurations without a download."""

import copy
import inspect
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import maclip_pyiqa._lazy as lazy
from maclip_pyiqa import MACLIP

diffusers = pytest.importorskip('diffusers', reason='extra `diffusers` is not installed')
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback, SDCFGCutoffCallback  # noqa: E402

from maclip_pyiqa.integrations.diffusers import MACLIPGuidance  # noqa: E402

STEPS = 6
NOISE = {'beta_schedule': 'scaled_linear', 'beta_start': 0.00085, 'beta_end': 0.012, 'steps_offset': 1}
MORE = {
    'DDIMScheduler': {'clip_sample': False, 'set_alpha_to_one': False},
    'DDPMScheduler': {'clip_sample': False},
    'PNDMScheduler': {'skip_prk_steps': True},
}


def scheduler(name, **options):
    cls = getattr(diffusers, name)
    if name == 'FlowMatchEulerDiscreteScheduler':
        return cls(shift=3.0, **options)
    return cls.from_config(NOISE | MORE.get(name, {}) | options)


def vae(channels=4, **options):
    torch.manual_seed(0)
    kinds = {'down_block_types': ['DownEncoderBlock2D'] * 4, 'up_block_types': ['UpDecoderBlock2D'] * 4}
    return diffusers.AutoencoderKL(
        block_out_channels=[8] * 4, latent_channels=channels, norm_num_groups=2, sample_size=64, **kinds, **options
    ).eval()


def unet(**options):
    torch.manual_seed(1)
    return diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=2, cross_attention_dim=8,
        attention_head_dim=4, down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'),
        up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'), **options,
    ).eval()  # fmt: skip


def parts(family, in_channels=None):
    """Components of a family's pipelines but the scheduler."""
    if family == 'sd':
        return {'vae': vae(), 'unet': unet(in_channels=in_channels or 4)}
    if family == 'xl':
        added = {'addition_embed_type': 'text_time', 'addition_time_embed_dim': 4}
        return {
            'vae': vae(scaling_factor=0.13025, latents_mean=[0.1, 0, 0, 0], latents_std=[1.1, 1, 1, 1]),
            'unet': unet(in_channels=in_channels or 4, projection_class_embeddings_input_dim=32, **added),
        }
    torch.manual_seed(2)
    size = {'num_layers': 1, 'attention_head_dim': 8, 'num_attention_heads': 2, 'joint_attention_dim': 8}
    size |= {'pooled_projection_dim': 8, 'patch_size': 1}
    plain = {'use_quant_conv': False, 'use_post_quant_conv': False}
    if family == 'sd3':
        net = diffusers.SD3Transformer2DModel(
            sample_size=8, in_channels=16, out_channels=16, caption_projection_dim=16, **size
        )
        return {'vae': vae(16, shift_factor=0.0609, scaling_factor=1.5305, **plain), 'transformer': net.eval()}
    net = diffusers.FluxTransformer2DModel(
        in_channels=in_channels or 16, out_channels=16, num_single_layers=1, axes_dims_rope=(2, 2, 4),
        guidance_embeds=True, **size,
    )  # fmt: skip
    return {'vae': vae(shift_factor=0.1159, scaling_factor=0.3611, **plain), 'transformer': net.eval()}


NAMES = {'sd': 'StableDiffusion', 'xl': 'StableDiffusionXL', 'sd3': 'StableDiffusion3', 'flux': 'Flux'}
SCHEDULER = {'sd': 'DDIMScheduler', 'xl': 'EulerDiscreteScheduler'}


def pipeline(family='sd', task='', with_scheduler=None, in_channels=None):
    cls = getattr(diffusers, f'{NAMES[family]}{task}Pipeline')
    made = parts(family, in_channels)
    made['scheduler'] = with_scheduler or scheduler(SCHEDULER.get(family, 'FlowMatchEulerDiscreteScheduler'))
    needed = inspect.signature(cls.__init__).parameters.values()
    made |= {p.name: None for p in needed if p.default is p.empty and p.name not in ('self', *made)}
    if family == 'sd':
        made['requires_safety_checker'] = False
    if family == 'xl':
        made['add_watermarker'] = False
    pipe = cls(**made)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def generate(pipe, guidance=None, n=1, dtype=torch.float32, **options):
    """Images (N, 3, 64, 64) of a pipeline's call with embeddings of n prompts."""
    known = inspect.signature(type(pipe).__call__).parameters
    draw = generator(5)
    embeds = torch.stack([torch.randn(4, 8, generator=draw) for _ in range(n)]).to(dtype)
    pooled = torch.stack([torch.randn(8, generator=draw) for _ in range(n)]).to(dtype)
    given = {'prompt_embeds': embeds, 'pooled_prompt_embeds': pooled, 'height': 64, 'width': 64}
    if 'Flux' not in type(pipe).__name__:
        given |= {'negative_prompt_embeds': 0 * embeds, 'negative_pooled_prompt_embeds': 0 * pooled}
        given |= {'guidance_scale': 2.0}
    given |= {'num_inference_steps': STEPS, 'generator': generator(), 'output_type': 'pt'}
    if 'image' in known:
        ramp = torch.linspace(0, 1, 64).expand(n, 3, 64, 64)
        mask = (torch.arange(64) < 56).float().expand(n, 1, 64, 64)
        given |= {'image': ramp.to(dtype), 'mask_image': mask.to(dtype), 'strength': 0.9}
    given = {name: value for name, value in given.items() if name in known} | options
    return pipe(callback_on_step_end=guidance, **given).images


@pytest.fixture(scope='module')
def metric(tiny):
    return MACLIP(backbone=tiny)


# --- it predicts what the pipeline predicts ---------------------------------------------------------------------------


def clean(scheduler, out, t, sample):
    """The clean latents that a scheduler takes a step towards, by its own code or by its definition."""
    name = type(scheduler).__name__
    if name == 'FlowMatchEulerDiscreteScheduler':
        return sample - t / 1000 * out
    if name == 'DPMSolverMultistepScheduler':
        return scheduler.convert_model_output(out, sample=sample)
    if name == 'DEISMultistepScheduler':
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[scheduler.step_index])
        return (sample - sigma * scheduler.convert_model_output(out, sample=sample)) / alpha
    if name == 'PNDMScheduler':
        alpha = scheduler.alphas_cumprod[t]
        return (sample - (1 - alpha) ** 0.5 * out) / alpha**0.5
    result = scheduler.step(out, t, sample)
    return result.denoised if name == 'LCMScheduler' else result.pred_original_sample


def predictions(pipe, monkeypatch, through='x0', **options):
    """Images that the guidance scores, and those that the pipeline predicts in the step after, both (M, N, 3, H, W)."""
    seen, want = [], []

    def metric(x):
        seen.append(x.detach())
        return x.mean((1, 2, 3))[:, None]

    cls, step = type(pipe.scheduler), type(pipe.scheduler).step

    def record(self, out, t, sample, **kwargs):
        want.append((copy.deepcopy(self), out, t, sample))
        return step(self, out, t, sample, **kwargs)

    monkeypatch.setattr(cls, 'step', record)
    guidance = MACLIPGuidance(metric, weight=0, through=through)
    generate(pipe, guidance, **options)
    monkeypatch.setattr(cls, 'step', step)
    images = []
    with torch.no_grad():
        for s, out, t, sample in want:
            if getattr(s, 'step_index', 0) is None:
                s._init_step_index(t)
            z = clean(s, out, t, sample)
            if 'Flux' in type(pipe).__name__:
                z = pipe._unpack_latents(z, 64, 64, pipe.vae_scale_factor)
            z = z / pipe.vae.config.scaling_factor
            if pipe.vae.config.latents_mean is not None:
                mean, std = (
                    torch.tensor(v).view(1, -1, 1, 1)
                    for v in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)
                )
                z = z * std + mean
            z = z + (pipe.vae.config.shift_factor or 0)
            images.append((pipe.vae.decode(z).sample / 2 + 0.5).clamp(0, 1))
    assert len(guidance.history) == len(want) - 2  # all steps but the first two
    return torch.stack(seen), torch.stack(images[2:])


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('DDIMScheduler', {}),
        ('DDIMScheduler', {'prediction_type': 'v_prediction', 'rescale_betas_zero_snr': True}),
        ('DDIMScheduler', {'prediction_type': 'sample'}),
        ('DDPMScheduler', {}),
        ('PNDMScheduler', {}),
        ('LCMScheduler', {}),
        ('EulerDiscreteScheduler', {}),
        ('EulerDiscreteScheduler', {'prediction_type': 'v_prediction', 'use_karras_sigmas': True}),
        ('EulerAncestralDiscreteScheduler', {}),
        ('LMSDiscreteScheduler', {}),
        ('DPMSolverMultistepScheduler', {}),
        ('DPMSolverMultistepScheduler', {'prediction_type': 'v_prediction', 'use_karras_sigmas': True}),
        ('DPMSolverMultistepScheduler', {'prediction_type': 'flow_prediction', 'use_flow_sigmas': True}),
        ('DEISMultistepScheduler', {}),
    ],
)
def test_schedulers_are_understood(monkeypatch, name, options):
    """With classifier-free guidance, and a batch of two."""
    pipe = pipeline(with_scheduler=scheduler(name, **options))
    seen, want = predictions(pipe, monkeypatch, n=2, guidance_scale=4.0)
    torch.testing.assert_close(seen, want, atol=2e-5, rtol=0)


@pytest.mark.parametrize('through', ['x0', 'denoiser'])
@pytest.mark.parametrize(
    ('family', 'task', 'channels'),
    [
        ('sd', 'Img2Img', None),
        ('sd', 'Inpaint', None),
        ('sd', 'Inpaint', 9),
        ('xl', '', None),
        ('xl', 'Img2Img', None),
        ('xl', 'Inpaint', None),
        ('sd3', '', None),
        ('sd3', 'Img2Img', None),
        ('sd3', 'Inpaint', None),
        ('flux', '', None),
        ('flux', 'Img2Img', None),
        ('flux', 'Inpaint', None),
    ],
)
def test_pipelines_are_understood(monkeypatch, family, task, channels, through):
    pipe = pipeline(family, task, in_channels=channels)
    seen, want = predictions(pipe, monkeypatch, through)
    torch.testing.assert_close(seen, want, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ('family', 'options'),
    [
        ('sd', {'guidance_scale': 1.0}),
        ('sd', {'guidance_rescale': 0.7}),
        ('xl', {'denoising_end': 0.8, 'output_type': 'latent'}),
        ('sd3', {'guidance_scale': 1.0}),
        ('flux', {'height': 48, 'width': 96}),
    ],
)
def test_options_of_a_call_are_understood(monkeypatch, family, options):
    pipe = pipeline(family)
    if family == 'flux':
        monkeypatch.setattr(pipe, '_unpack_latents', lambda z, *_: type(pipe)._unpack_latents(z, 48, 96, 8))
    seen, want = predictions(pipe, monkeypatch, **options)
    torch.testing.assert_close(seen, want, atol=2e-5, rtol=0)
    if family == 'flux':
        assert seen.shape[-2:] == (48, 96)


# --- it raises the score ----------------------------------------------------------------------------------------------


KINDS = [
    ('sd', '', {}),
    ('sd', '', {'prediction_type': 'v_prediction'}),
    ('sd', 'Img2Img', {}),
    ('sd', 'Inpaint', {}),
    ('xl', '', {}),
    ('xl', '', {'prediction_type': 'v_prediction'}),
    ('xl', 'Img2Img', {}),
    ('xl', 'Inpaint', {}),
    ('sd3', '', None),
    ('sd3', 'Img2Img', None),
    ('sd3', 'Inpaint', None),
    ('flux', '', None),
    ('flux', 'Img2Img', None),
    ('flux', 'Inpaint', None),
]


FAST = ('sd  x0', 'sd  denoiser', 'sd Inpaint x0', 'xl Img2Img x0', 'sd3  x0', 'flux Inpaint x0')  # one of each sort


@pytest.mark.parametrize(
    ('family', 'task', 'options', 'through'),
    [
        pytest.param(*kind, through, marks=[] if f'{kind[0]} {kind[1]} {through}' in FAST else [pytest.mark.slow])
        for kind in KINDS
        for through in ('x0', 'denoiser')
    ],
)
def test_score_rises(metric, family, task, options, through):
    """For the same seed, both images of a batch; in inpainting their mean, and the part that is kept stays."""
    pipe = pipeline(family, task, None if options is None else scheduler(SCHEDULER[family], **options))
    last = pipe.unet.conv_out if family in ('sd', 'xl') else pipe.transformer.proj_out
    for parameter in last.parameters():  # random networks with large outputs scramble what the moves gain
        parameter.data *= 0.3
    more = {'n': 2, 'num_inference_steps': 20}  # so do few, large steps
    guidance = MACLIPGuidance(metric, 0.1, through=through)
    plain, guided = (generate(pipe, callback, **more) for callback in (None, guidance))
    assert guided.shape == plain.shape == (2, 3, 64, 64) and guided.isfinite().all()
    gain = metric(guided) - metric(plain)
    assert (gain.mean() if task == 'Inpaint' else gain.min()) > 0.05
    if task == 'Inpaint':
        latents = [generate(pipe, callback, n=2, output_type='latent') for callback in (None, guidance)]
        if family == 'flux':
            latents = [pipe._unpack_latents(z, 64, 64, pipe.vae_scale_factor) for z in latents]
        moved = (latents[1] - latents[0]).abs().amax((0, 1, 2))
        assert moved[7:].eq(0).all() and moved[:7].min() > 0


def test_gradient_through_the_denoiser(metric):
    """Against the difference of the scores of two predictions nearby, in float64."""
    pipe = pipeline()
    pipe.vae.double(), pipe.unet.double()
    net = copy.deepcopy(metric).double()

    class Twice(MACLIPGuidance):
        def _move(self, pipeline, call, latents, step_index):
            self.weight = 1e-6
            moved = super()._move(pipeline, call, latents, step_index)
            super()._move(pipeline, call, moved, step_index)
            self.moves.append((moved - latents).norm().item())
            return latents

    guidance = Twice(net, through='denoiser')
    guidance.moves = []
    generate(pipe, guidance, dtype=torch.float64, guidance_scale=3.0)
    assert len(guidance.moves) == STEPS - 2
    pairs = zip(guidance.history[::2], guidance.history[1::2], guidance.moves, strict=True)
    for before, after, length in pairs:
        assert after.score[0] - before.score[0] == pytest.approx(length * before.gradient_norm[0], rel=1e-2)


@pytest.mark.slow
def test_length_of_the_moves(metric):
    """Of Euler's latents, clean + sigma * noise: weight times what the next step takes off sigma, root mean square."""
    pipe = pipeline(with_scheduler=scheduler('EulerDiscreteScheduler'))
    lengths = []

    class Measured(MACLIPGuidance):
        def _move(self, pipeline, call, latents, step_index):
            moved = super()._move(pipeline, call, latents, step_index)
            lengths.append((moved - latents).square().mean((1, 2, 3)).sqrt())
            return moved

    guidance = Measured(metric, 0.2)
    generate(pipe, guidance, n=2)
    sigmas = pipe.scheduler.sigmas[2:]
    torch.testing.assert_close(torch.stack(lengths), (0.2 * -sigmas.diff())[:, None].expand(-1, 2), rtol=1e-3, atol=0)


def test_batches(metric):
    """Two prompts at once, two images for a prompt: as each alone."""
    pipe = pipeline()
    whole = generate(pipe, MACLIPGuidance(metric), n=2, generator=[generator(0), generator(1)])
    both = MACLIPGuidance(metric)
    again = generate(pipe, both, num_images_per_prompt=2, generator=[generator(0), generator(2)])
    alone = MACLIPGuidance(metric)
    first, second = (generate(pipe, alone, generator=generator(seed)) for seed in (0, 2))
    torch.testing.assert_close(whole[:1], first, atol=2e-3, rtol=0)
    torch.testing.assert_close(again, torch.cat([first, second]), atol=2e-3, rtol=0)
    assert [len(step.score) for step in both.history] == [2] * (STEPS - 2)
    assert [step.score[1] for step in both.history] == pytest.approx(
        [step.score[0] for step in alone.history], abs=1e-3
    )


@pytest.mark.filterwarnings('ignore:`upcast_vae` is deprecated:FutureWarning')  # what XL's own pipeline calls
@pytest.mark.parametrize(('family', 'dtype'), [('sd', torch.bfloat16), ('flux', torch.bfloat16), ('xl', torch.float16)])
def test_half_precision(metric, family, dtype):
    """XL's VAE is decoded in float32, as its pipeline does it, since it overflows in float16."""
    pipe = pipeline(family).to(dtype)
    weights, decoded = copy.deepcopy(pipe.vae.state_dict()), []
    pipe.vae.decoder.register_forward_hook(lambda _, args, out: decoded.append(out.dtype))
    plain = generate(pipe, dtype=dtype)
    guidance = MACLIPGuidance(metric, 0.1)
    guided = generate(pipe, guidance, dtype=dtype)
    assert metric(guided) > metric(plain) + 0.02
    assert set(decoded) == {torch.float32 if family == 'xl' else dtype}
    assert all(value.equal(weights[name]) for name, value in pipe.vae.state_dict().items())
    assert all(math.isfinite(norm) and norm > 0 for step in guidance.history for norm in step.gradient_norm)


# --- it leaves alone what is not its own ------------------------------------------------------------------------------


@pytest.mark.parametrize('family', NAMES)
def test_weight_zero_changes_nothing(metric, family):
    pipe = pipeline(family, with_scheduler=scheduler('EulerAncestralDiscreteScheduler') if family == 'sd' else None)
    given, plain_given = generator(3), generator(3)
    before = torch.get_rng_state()
    plain = generate(pipe, generator=plain_given)
    guidance = MACLIPGuidance(metric, 0, through='denoiser')
    guided = generate(pipe, guidance, generator=given)
    assert guided.equal(plain) and len(guidance.history) == STEPS - 2
    assert given.get_state().equal(plain_given.get_state()) and torch.get_rng_state().equal(before)


def test_generators_are_left_alone(tiny):
    """A metric that samples views, an ancestral sampler: the noise is that of the unguided run."""
    net = MACLIP(backbone=tiny, sample_views=1, stride=16)
    pipe = pipeline(with_scheduler=scheduler('EulerAncestralDiscreteScheduler'))
    states = []
    for guidance in (
        None,
        MACLIPGuidance(net, 0.1),
        MACLIPGuidance(net, 0.1, generator=generator(1)),
    ):
        given = generator(3)
        torch.manual_seed(4)
        generate(pipe, guidance, generator=given, width=128)
        states.append((given.get_state(), torch.get_rng_state()))
    for state in states[1:]:
        assert all(a.equal(b) for a, b in zip(state, states[0], strict=True))


def test_the_same_call_gives_the_same_image(tiny):
    net = MACLIP(backbone=tiny, sample_views=1, stride=16)
    pipe = pipeline()
    guidance = MACLIPGuidance(net)
    first, again = (generate(pipe, guidance, width=128) for _ in range(2))
    other = generate(pipe, MACLIPGuidance(net, generator=generator(7)), width=128)
    assert first.equal(again) and not first.equal(other)


class Stop(PipelineCallback):
    tensor_inputs = ['latents']  # noqa: RUF012

    def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
        if step_index == 3:
            pipeline._interrupt = True
        return callback_kwargs


@pytest.mark.parametrize('way', ['end', 'error', 'interrupt', 'refused'])
def test_nothing_stays_behind(metric, way):
    """However a call ends: no hook on the denoiser, weights that want gradients as before."""
    pipe = pipeline()
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError('out of memory')

    guidance = MACLIPGuidance(metric, through='denoiser')
    if way == 'error':
        handle = pipe.vae.decoder.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match='out of memory') as caught:
            generate(pipe, guidance)
        handle.remove()
        del caught  # a traceback keeps what the frames of the call hold
    elif way == 'refused':
        with pytest.raises(ValueError, match='gives no gradient') as caught:
            generate(pipe, MACLIPGuidance(lambda x: x.detach().mean((1, 2, 3))))
        del caught
    else:
        generate(pipe, MultiPipelineCallbacks([guidance, Stop()]) if way == 'interrupt' else guidance)
    assert not pipe.unet._forward_pre_hooks
    for net in (pipe.unet, pipe.vae):
        assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    plain = generate(pipe)
    assert generate(pipe, MACLIPGuidance(metric, 0)).equal(plain)


def test_in_inference_mode(metric):
    pipe = pipeline('xl')
    want = generate(pipe, MACLIPGuidance(metric, through='denoiser'))
    with torch.inference_mode():
        got = generate(pipe, MACLIPGuidance(metric, through='denoiser'))
    torch.testing.assert_close(got, want)


# --- which steps, memory, other callbacks -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'steps'),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({'every': 3}, [3, 6]),
        ({'start_step_ratio': 0.5}, [5, 6, 7, 8]),
        ({'cutoff_step_ratio': 0.5}, [1, 2, 3, 4]),
        ({'start_step_ratio': 0.3, 'cutoff_step_ratio': 0.8, 'every': 2}, [3, 5, 7]),
    ],
)
def test_guided_steps(metric, options, steps):
    pipe = pipeline()
    guidance = MACLIPGuidance(metric, **options)
    generate(pipe, guidance, num_inference_steps=10)
    assert [step.step for step in guidance.history] == steps
    assert [step.timestep for step in guidance.history] == [float(pipe.scheduler.timesteps[i]) for i in steps]


@pytest.mark.slow
def test_slicing_tiling_and_checkpointing(metric):
    """Slices and recomputed activations give the same image; tiles another one, whose score rises too."""
    pipe = pipeline()
    want = generate(pipe, MACLIPGuidance(metric, through='denoiser'), n=2)
    passes = []
    pipe.vae.decoder.mid_block.register_forward_pre_hook(lambda *_: passes.append(1))
    pipe.vae.enable_slicing()
    torch.testing.assert_close(generate(pipe, MACLIPGuidance(metric, through='denoiser'), n=2), want, atol=5e-3, rtol=0)
    assert len(passes) == 2 * (STEPS - 2) + 2
    pipe.vae.disable_slicing()
    pipe.vae.enable_gradient_checkpointing()
    pipe.unet.enable_gradient_checkpointing()
    passes.clear()
    torch.testing.assert_close(generate(pipe, MACLIPGuidance(metric, through='denoiser'), n=2), want, atol=5e-3, rtol=0)
    assert len(passes) == 2 * (STEPS - 2) + 1  # forth, and again on the way back
    pipe.vae.enable_tiling()
    pipe.vae.tile_sample_min_size, pipe.vae.tile_latent_min_size = 32, 4
    plain = generate(pipe)
    assert metric(generate(pipe, MACLIPGuidance(metric))) > metric(plain) + 0.05


def test_beside_another_callback(metric):
    """That ends classifier-free guidance halfway; whichever comes first."""
    pipe = pipeline()
    for order in (1, -1):
        guidance = MACLIPGuidance(metric, 0.1)
        callbacks = [guidance, SDCFGCutoffCallback(cutoff_step_ratio=0.5)][::order]
        guided = generate(pipe, MultiPipelineCallbacks(callbacks))
        plain = generate(pipe, SDCFGCutoffCallback(cutoff_step_ratio=0.5))
        assert len(guidance.history) == STEPS - 2
        assert metric(guided) > metric(plain) + 0.05


@pytest.mark.slow
def test_cached_activations(metric):
    """diffusers' caches want to know whose activations they hold."""
    pipe = pipeline('flux')
    if not hasattr(pipe.transformer, 'enable_cache'):
        pytest.skip('this version of diffusers has no caches')
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.05))
    plain = generate(pipe)
    assert generate(pipe, MACLIPGuidance(metric, 0)).equal(plain)
    assert metric(generate(pipe, MACLIPGuidance(metric, 0.1))) > metric(plain) + 0.05


@pytest.mark.slow  # compiles
def test_compiled_denoiser(metric):
    pipe = pipeline()
    want = generate(pipe, MACLIPGuidance(metric, through='denoiser'))
    pipe.unet = torch.compile(pipe.unet, backend='aot_eager')
    torch.testing.assert_close(generate(pipe, MACLIPGuidance(metric, through='denoiser')), want, atol=1e-3, rtol=0)


# --- the record, and what it refuses ----------------------------------------------------------------------------------


def test_history_and_its_figure(metric, tmp_path):
    pipe = pipeline()
    guidance = MACLIPGuidance(metric, 0.2)
    with pytest.raises(ValueError, match='no guided steps'):
        guidance.plot(tmp_path / 'empty.png')
    generate(pipe, guidance, n=2)
    control = MACLIPGuidance(metric, 0)
    generate(pipe, control, n=2)
    assert guidance.history[0].score == control.history[0].score  # before the first move
    assert all(a > b for a, b in zip(guidance.history[-1].score, control.history[-1].score, strict=True))
    guidance.plot(tmp_path / 'guidance.png')
    picture = np.asarray(Image.open(tmp_path / 'guidance.png').convert('L'))
    left, right = np.split(picture, 2, axis=1)
    assert picture.shape == (390, 1080) and left.std() > 10 and right.std() > 10


@pytest.mark.parametrize(
    ('name', 'options', 'match'),
    [
        ('UniPCMultistepScheduler', {}, 'UniPCMultistepScheduler is not supported.*pipe.scheduler = '),
        ('HeunDiscreteScheduler', {}, 'HeunDiscreteScheduler is not supported'),
        ('DPMSolverSinglestepScheduler', {}, 'DPMSolverSinglestepScheduler is not supported'),
        ('PNDMScheduler', {'skip_prk_steps': False}, 'skip_prk_steps'),
        ('DPMSolverMultistepScheduler', {'use_flow_sigmas': True}, "prediction_type='epsilon', use_flow_sigmas=True"),
    ],
)
def test_schedulers_that_are_refused(metric, name, options, match):
    with pytest.raises(ValueError, match=match):
        generate(pipeline(with_scheduler=scheduler(name, **options)), MACLIPGuidance(metric))


def test_pipelines_that_are_refused(metric):
    pipe = pipeline('sd', 'InstructPix2Pix', in_channels=8)  # three calls of the denoiser in one
    image = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match='the denoiser was called with'):
        generate(pipe, MACLIPGuidance(metric), image=image)
    timesteps = torch.arange(4)
    fake = SimpleNamespace(scheduler=SimpleNamespace(timesteps=timesteps, config={}), num_timesteps=4, vae=vae())
    fake.scheduler = scheduler('DDIMScheduler')
    fake.transformer = torch.nn.Identity()
    first = fake.scheduler.timesteps[0]
    with pytest.raises(ValueError, match='SimpleNamespace is not supported; expected a pipeline with one of UNet2D'):
        MACLIPGuidance(metric)(fake, 0, first, {'latents': torch.zeros(1, 4, 8, 8)})
    fake.vae = None
    with pytest.raises(ValueError, match='SimpleNamespace has no VAE'):
        MACLIPGuidance(metric)(fake, 0, first, {'latents': torch.zeros(1, 4, 8, 8)})
    with pytest.raises(RuntimeError, match='did not keep what its callback returned'):
        MACLIPGuidance(metric)(pipe, 1, first, {'latents': torch.zeros(1, 4, 8, 8)})


@pytest.mark.parametrize(
    ('options', 'error', 'match'),
    [
        ({'weight': -1}, ValueError, 'weight=-1'),
        ({'weight': '1'}, TypeError, "weight='1'"),
        ({'every': 0}, ValueError, 'every=0'),
        ({'every': 1.0}, TypeError, 'every=1.0'),
        ({'cutoff_step_ratio': 2.0}, ValueError, 'cutoff_step_ratio'),
        ({'start_step_ratio': 1}, ValueError, 'start_step_ratio=1; expected a float'),
        ({'start_step_ratio': 0.5, 'cutoff_step_ratio': 0.5}, ValueError, 'to below cutoff_step_ratio, 0.5'),
        ({'through': 'vae'}, ValueError, "through='vae'"),
        ({'generator': 0}, TypeError, 'generator=0'),
    ],
)
def test_options_are_checked(metric, options, error, match):
    with pytest.raises(error, match=match):
        MACLIPGuidance(metric, **options)


def test_without_diffusers_it_names_the_extra(monkeypatch):
    import importlib
    import sys

    monkeypatch.setattr(lazy, 'find_spec', lambda name: None)
    monkeypatch.delitem(sys.modules, 'maclip_pyiqa.integrations.diffusers')
    with pytest.raises(
        ModuleNotFoundError, match=r"diffusers, which is not installed: pip install 'maclip_pyiqa\[diff"
    ):
        importlib.import_module('maclip_pyiqa.integrations.diffusers')
