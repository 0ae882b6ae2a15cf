"""Image towers of every kind against open_clip's own, and the metric names."""

import json

import open_clip
import pyiqa
import pytest
import torch
from pyiqa.default_model_configs import DEFAULT_CONFIGS
from safetensors.torch import save_file

from maclip_pyiqa import MACLIP, WeightsError
from maclip_pyiqa.backbone import loading
from maclip_pyiqa.integrations.pyiqa import VARIANTS
from maclip_pyiqa.metric import maclip

MEAN, STD = (
    (0.5, 0.4, 0.3),
    (0.3, 0.4, 0.5),
)  # unlike any published ones, so they can only come from the model's configuration
CONTEXT = 24
TEXT = {'context_length': CONTEXT, 'vocab_size': 49408, 'width': 96, 'heads': 3, 'layers': 1}
VIT = {'image_size': 64, 'layers': 2, 'width': 64, 'head_width': 32, 'patch_size': 16}
TIMM = {'timm_model_pretrained': False}
KINDS = {
    'resnet': {'vision_cfg': {'image_size': 96, 'layers': [1, 1, 1, 1], 'width': 8, 'head_width': 64}},
    'vit': {'vision_cfg': VIT},
    'vit, mean pooled, own text tower': {
        'custom_text': True,
        'vision_cfg': VIT | {'pool_type': 'avg', 'no_ln_pre': True},
    },
    'coca': {
        'custom_text': True,
        'vision_cfg': VIT | {'attentional_pool': True, 'attn_pooler_heads': 4, 'output_tokens': True},
        'text_cfg': TEXT | {'embed_cls': True, 'output_tokens': True},
        'multimodal_cfg': TEXT | {'attn_pooler_heads': 3},
    },
    'convnext': {
        'vision_cfg': TIMM
        | {'image_size': 64, 'timm_model_name': 'test_convnext', 'timm_pool': '', 'timm_proj': 'linear'}
    },
    'siglip': {
        'custom_text': True,
        'init_logit_bias': -10,
        'vision_cfg': TIMM
        | {'image_size': 160, 'timm_model_name': 'test_vit3', 'timm_pool': 'map', 'timm_proj': 'none'},
        'text_cfg': TEXT | {'no_causal_mask': True, 'proj_bias': True, 'pool_type': 'last'},
    },
}


@pytest.fixture(scope='module', params=KINDS)
def kind(request, tmp_path_factory):
    """Name of a small model, and the same model as open_clip builds it."""
    config = {'embed_dim': 96, 'text_cfg': TEXT} | KINDS[request.param]
    folder = tmp_path_factory.mktemp('kind')
    text = json.dumps({'model_cfg': config, 'preprocess_cfg': {'mean': MEAN, 'std': STD}})
    (folder / 'open_clip_config.json').write_text(text)
    make = open_clip.model.CustomTextCLIP if config.pop('custom_text', False) else open_clip.model.CLIP
    make = open_clip.CoCa if 'multimodal_cfg' in config else make
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = make(**config).eval()
        for name, p in clip.named_parameters():
            if 'pos' in name.rpartition('.')[2]:
                torch.nn.init.normal_(p, std=0.5)  # positional embeddings that matter
            if name.endswith('bn3.weight'):
                torch.nn.init.uniform_(p, 0.3, 0.8)  # initialised to zero, which switches the residual branches off
        norms = [m.train() for m in clip.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        with torch.no_grad():
            for _ in range(20 * bool(norms)):  # running statistics, so that features do not vanish
                clip.visual(torch.rand(4, 3, 96, 96) * 2 - 1)
        clip.eval()
    save_file({k: v.contiguous().clone() for k, v in clip.state_dict().items()}, folder / 'open_clip_model.safetensors')
    return f'local-dir:{folder}', clip


def test_tower_is_open_clips(kind):
    name, clip = kind
    metric = MACLIP(backbone=name, pos_embedding=True, views='global')
    window = metric.backbone.window
    assert window == torch.tensor(clip.visual.image_size).max()
    x = torch.rand(3, 3, window, window, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        want = clip.encode_image(y, normalize=False)
    got = torch.cat(metric.features(x))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    assert want.std(0).mean() > 1e-4  # the tower tells these images apart
    without = torch.cat(MACLIP(backbone=name, views='global').features(x))
    has_one = any('pos' in name for name, _ in clip.visual.named_parameters())
    assert ((without - want).abs().max() > 1e-3) == has_one


def test_prompts_are_open_clips(kind):
    """Tokens of the model's own context; SigLIP's bias of the logits cancels in the softmax of a pair."""
    name, clip = kind
    prompts = [('Good image', 'bad image'), ('word ' * 50, 'other ' * 50)]  # longer than the context
    metric = MACLIP(backbone=name, prompts=prompts, views='global')
    tokens = open_clip.get_tokenizer(name)([text for pair in prompts for text in pair])
    assert tokens.shape[1] == CONTEXT
    with torch.no_grad():
        text = clip.encode_text(tokens, normalize=True)
        f = torch.nn.functional.normalize(metric.features(torch.rand(2, 3, 160, 160))[0], dim=-1)
        logits = clip.logit_scale.exp() * f @ text.T + (clip.logit_bias if clip.logit_bias is not None else 0)
    want = logits.view(2, 2).softmax(-1)[:, 0]
    torch.testing.assert_close(metric.backbone.text.flatten(0, 1), text, rtol=0, atol=1e-5)
    x = torch.nn.functional.normalize(f, dim=-1)
    torch.testing.assert_close(metric.cues(x).attributes[0], want, rtol=0, atol=1e-5)


def test_an_architecture_by_name(monkeypatch, tmp_path, photos):
    """Normalisation and activation come from the tag; for a file, from the architecture's tags."""
    config = {'embed_dim': 96, 'vision_cfg': VIT, 'text_cfg': TEXT}
    tag = {'hf_hub': 'nobody/nothing/', 'mean': MEAN, 'std': STD}
    tags = {'webli': tag, 'quick': tag | {'mean': STD, 'std': MEAN, 'quick_gelu': True}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, 'ViT-tiny', config)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, 'ViT-tiny', tags)
    file = tmp_path / 'weights.pt'
    monkeypatch.setattr('maclip_pyiqa.backbone.loading.find', lambda name, tag: file)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(open_clip.model.CLIP(**config).state_dict(), file)

    def clip(quick_gelu):
        clip = open_clip.model.CLIP(**config, quick_gelu=quick_gelu).eval()
        clip.load_state_dict(torch.load(file))
        clip.visual.positional_embedding.data.zero_()
        return clip

    x = photos[0][None, :, :64, :64]
    for pretrained, mean, std, quick in (('webli', MEAN, STD, False), ('quick', STD, MEAN, True)):
        metric = MACLIP(backbone='ViT-tiny', pretrained=pretrained, views='global')
        y = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        with torch.no_grad():
            want, other = (clip(activation).encode_image(y) for activation in (quick, not quick))
        torch.testing.assert_close(metric.features(x)[0], want, rtol=0, atol=1e-5)
        assert (want - other).abs().max() > 1e-4
    by_file = MACLIP(backbone='ViT-tiny', pretrained=file, quick_gelu=False)
    assert torch.equal(by_file.backbone.mean.flatten(), torch.tensor(MEAN))
    with pytest.warns(UserWarning, match='quick_gelu=False'):  # the tags disagree, and the file does not say
        guessed = MACLIP(backbone='ViT-tiny', pretrained=file)
    assert not torch.equal(guessed.backbone.text, by_file.backbone.text)


def test_a_tokenizer_that_is_not_there(kind, monkeypatch):
    def missing(name):
        raise OSError('cannot reach the hub')

    monkeypatch.setattr(open_clip, 'get_tokenizer', missing)
    loading._cached_tokenizer.cache_clear()
    with pytest.raises(WeightsError, match=r'tokenizer.*cannot reach the hub.*transformers'):
        MACLIP(backbone=kind[0])


def test_shape_batch_gradient_and_device(kind):
    name, _ = kind
    metric = MACLIP(backbone=name, stride=80)
    x = torch.rand(2, 3, 170, 250, generator=torch.Generator().manual_seed(2))
    scores = metric(x)
    assert scores.shape == (2, 1) and scores.dtype == torch.float32
    torch.testing.assert_close(torch.cat([metric(image[None]) for image in x]), scores, rtol=0, atol=1e-5)

    double, y = metric.to(torch.float64), x[:1].double().clamp(1e-3, 1 - 1e-3).requires_grad_()
    step = 1e-6 * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(3))
    (gradient,) = torch.autograd.grad(double(y).sum(), y)
    with torch.no_grad():
        want = double(y + step) - double(y - step)
    assert want.abs() > 1e-12
    torch.testing.assert_close((2 * gradient * step).sum(), want[0, 0], rtol=1e-3, atol=1e-12)

    moved = double.to('meta')
    assert {b.device.type for b in moved.buffers()} == {'meta'} and not list(moved.parameters())


def test_on_each_device(kind, device):
    metric, x = MACLIP(backbone=kind[0]), torch.rand(1, 3, 170, 250)
    want = metric.to(torch.float64)(x)
    got = metric.to(device, torch.float32)(x.to(device))
    assert got.device.type == device
    torch.testing.assert_close(got.cpu(), want.float(), rtol=0, atol=1e-5)


# --- names ------------------------------------------------------------------------------------------------------------


LARGE = ('maclip_rn50x4', 'maclip_rn50x16', 'maclip_vitB16', 'maclip_vitL14')


@pytest.mark.parametrize('name', [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in VARIANTS])
def test_names(monkeypatch, tiny, photos, name):
    """Each builds what its options say, here with the tiny weights instead of its own."""
    seen = []

    def backbone(name, pretrained, *args):
        seen.append((name, pretrained))
        return real(tiny, pretrained, *args)

    real = maclip.Backbone
    monkeypatch.setattr(maclip, 'Backbone', backbone)
    metric = pyiqa.create_metric(name, device='cpu')
    options = VARIANTS[name]
    assert seen == [(options.get('backbone', 'RN50'), 'openai')]
    assert type(metric.net) is MACLIP and metric.metric_mode == 'NR' and not metric.lower_better
    assert name in pyiqa.list_models('NR')

    x = torch.stack(photos[:2])
    got = metric(x)
    assert got.shape == (2, 1)
    twin = MACLIP(**{**options, 'backbone': tiny})
    torch.testing.assert_close(got, twin(x), rtol=0, atol=1e-5)
    same = torch.allclose(got, MACLIP(backbone=tiny)(x), atol=1e-5)
    assert same == ('backbone' in options)  # the others change the score


def test_backbones_have_openais_weights():
    names = [options['backbone'] for options in VARIANTS.values() if options.get('backbone', 'demo') != 'demo']
    assert len(names) == 6
    for name in names:
        assert 'openai' in open_clip.list_pretrained_tags_by_model(name)


def test_the_published_metric_is_pyiqas_own_entry():
    assert DEFAULT_CONFIGS['maclip']['metric_opts'] == {'type': 'MACLIP', 'model_type': 'maclip'}


@pytest.mark.parametrize('cue', ['sim', 'mag'])
def test_a_cue_alone(tiny, photos, cue):
    x = torch.stack(photos[:3])
    both, alone = MACLIP(backbone=tiny).analyze(x), MACLIP(backbone=tiny, cue=cue, alpha=3.0)
    want = {'sim': both.q_sim, 'mag': both.q_mag}[cue]
    torch.testing.assert_close(alone(x)[:, 0], want.mean(1), rtol=0, atol=1e-5)
    analysis = alone.analyze(x)
    assert torch.equal(analysis.w_sim, torch.full_like(analysis.w_sim, float(cue == 'sim')))
    torch.testing.assert_close(analysis.q_view, want, rtol=0, atol=1e-5)
    y = x[:1].clone().requires_grad_()
    alone(y).sum().backward()
    assert y.grad.isfinite().all() and y.grad.abs().max() > 0


def test_an_unknown_cue(tiny):
    with pytest.raises(ValueError, match="'both', 'sim' or 'mag'"):
        MACLIP(backbone=tiny, cue='cosine')
