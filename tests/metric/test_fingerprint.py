"""The identity of a score: equal wherever scores are equal, different wherever they may differ, and pinned."""

import copy
import hashlib
import json
import pickle
from dataclasses import make_dataclass
from pathlib import Path

import pytest
import torch

from maclip_pyiqa import MACLIP, WeightsError
from maclip_pyiqa._values import number
from maclip_pyiqa.backbone import identity, tower
from maclip_pyiqa.demo import PHOTO
from maclip_pyiqa.evaluation.known_answers import images
from maclip_pyiqa.metric import PROMPTS, cues
from maclip_pyiqa.metric.options import Options, option
from maclip_pyiqa.scoring.read import read_pixels, to_tensor
from maclip_pyiqa.testing import TINY, make_clip, save_folder, save_torchscript, state_dict, synthetic_images

PINNED = json.loads(Path(__file__).with_name('pinned.json').read_text('utf-8'))


# --- pinned --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def pixels():
    return {**images(), 'astronaut': read_pixels(PHOTO)}


@pytest.fixture(scope='module', params=PINNED['metrics'], ids=lambda pinned: str(pinned['options']))
def pinned(request):
    return MACLIP(backbone='demo', **request.param['options']), request.param


def test_fingerprints_are_what_they_were(pinned):
    metric, want = pinned
    assert metric.fingerprint() == want['fingerprint']


@pytest.mark.parametrize('name', PINNED['sha256'])
def test_scores_are_what_they_were(pinned, pixels, name):
    metric, want = pinned
    if hashlib.sha256(pixels[name].tobytes()).hexdigest() != PINNED['sha256'][name]:
        pytest.skip(f"this machine's Pillow or numpy makes other pixels of {name}")
    with torch.no_grad():
        got = metric.analyze([to_tensor(pixels[name])])[0].summary()
    values = want['images'][name]
    assert {cue: got[cue] for cue in values} == pytest.approx(values, abs=1e-5)


def test_defaults_are_what_they_were():
    """Another default is another definition of the score: without options, fingerprints would stay as they are."""
    defaults = json.loads(json.dumps(MACLIP.__init__.__kwdefaults__))
    assert {name: defaults[name] for name in PINNED['defaults']} == PINNED['defaults']


def test_a_new_option_changes_no_fingerprint(monkeypatch):
    """Of metrics that leave it at its default."""
    more = make_dataclass('More', [('gamma', float, option(1.0, number, 'an exponent'))], bases=(Options,))
    monkeypatch.setattr('maclip_pyiqa.metric.maclip.Options', more)
    for want in PINNED['metrics']:
        metric = MACLIP(backbone='demo', **want['options'])
        assert metric.config['gamma'] == 1.0 and metric.fingerprint() == want['fingerprint']
    # and nobody has to think of it for the others to be told apart, nor for their features
    features = metric.features_fingerprint()
    metric.options.gamma = 2.2
    assert metric.fingerprint() != want['fingerprint'] and metric.features_fingerprint() != features


def test_a_new_definition_changes_all(tiny_metric, monkeypatch):
    before = tiny_metric.fingerprint(), tiny_metric.features_fingerprint()
    monkeypatch.setattr('maclip_pyiqa.metric.maclip.DEFINITION', cues.DEFINITION + 1)
    assert tiny_metric.fingerprint() != before[0] and tiny_metric.features_fingerprint() != before[1]


# --- equal ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def half_clip(tiny_clip):
    """The tiny CLIP with values that half precision holds."""
    clip = copy.deepcopy(tiny_clip)
    clip.load_state_dict(state_dict(clip, half=True))
    return clip


@pytest.fixture(scope='module')
def configured(tmp_path_factory):
    """TINY as an architecture of open_clip that a name finds, as the published ones are."""
    import open_clip

    folder = tmp_path_factory.mktemp('configs')
    (folder / 'maclip-tiny.json').write_text(json.dumps({k: v for k, v in TINY.items() if k != 'quick_gelu'}))
    open_clip.add_model_config(folder)
    return 'maclip-tiny'


def test_equal_for_all_kinds_of_files(half_clip, configured, tmp_path):
    from safetensors.torch import save_file

    half, full = (state_dict(half_clip, half=half) for half in (True, False))
    torch.save(half, tmp_path / 'half.pt')
    torch.save({'state_dict': {f'module.{k}': v for k, v in full.items()}}, tmp_path / 'checkpoint.pt')
    save_torchscript(half, tmp_path / 'script.pt')
    save_file({k: v.contiguous() for k, v in half.items()}, tmp_path / 'half.safetensors')
    save_file({k: v.contiguous() for k, v in full.items()}, tmp_path / 'full.safetensors')
    files = [file for file in tmp_path.iterdir() if file.is_file()]
    prints = {MACLIP(backbone=configured, pretrained=f, quick_gelu=True).fingerprint() for f in files}
    folder = save_folder(half_clip, TINY, tmp_path / 'folder')
    prints.add(MACLIP(backbone=folder).fingerprint())
    spelled_out = copy.deepcopy(TINY) | {'custom_text': True}
    spelled_out['vision_cfg'] |= {'timm_drop': 0.1, 'mlp_ratio': 3.0, 'patch_size': None, 'output_tokens': True}
    prints.add(MACLIP(backbone=save_folder(half_clip, spelled_out, tmp_path / 'spelled_out')).fingerprint())
    assert len(files) == 5 and len(prints) == 1


def test_equal_whatever_becomes_of_the_tower(tiny, monkeypatch, photos):
    """Copied, cast, used, or not simplified at all."""
    metric = MACLIP(backbone=tiny)
    want = metric.fingerprint()
    assert pickle.loads(pickle.dumps(metric)).fingerprint() == copy.deepcopy(metric).fingerprint() == want
    x = photos[0][None, :, :70, :90]
    score = metric(x)
    assert metric.double().fingerprint() == want
    weighed = MACLIP(backbone=tiny, prompt_weights=[1, 2, 3, 4, 6])
    assert weighed.fingerprint() == weighed.half().fingerprint() != want
    monkeypatch.setattr(tower, '_fold', lambda visual: None)
    plain = MACLIP(backbone=tiny)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in plain.modules())
    torch.testing.assert_close(plain(x), score, rtol=0, atol=1e-5)
    assert plain.fingerprint() == want


@pytest.mark.parametrize(
    ('options', 'same'),
    [
        ({'chunk': 3, 'sample_views': 2, 'model_type': 'x'}, {}),
        ({'stride': 37}, {}),  # what it is for a window of 64
        ({'alpha': 1, 'box_lam': 0.5}, {}),
        ({'alpha': 2}, {'alpha': 2.0}),
        ({'prompt_weights': [2, 2, 2, 2, 2]}, {}),
        ({'prompt_weights': [0.1 + 0.2, 0.3, 0.3, 0.3, 0.3]}, {}),
        ({'box_lam': -0.0}, {'box_lam': 0}),
        ({'prompt_weights': [0.1, 0.2, 0.3, 0.4, 0.5]}, {'prompt_weights': [1, 2, 3, 4, 5]}),
        ({'prompts': 'sharp'}, {'prompts': [('sharp  Image', 'BLURRY image')]}),  # the same tokens
        ({'views': 'global', 'stride': 8, 'max_views': 2}, {'views': 'global'}),  # there are no windows
        ({'cue': 'mag', 'alpha': 3.0, 'base_cos': 2.0}, {'cue': 'mag'}),  # there is no fusion
    ],
)
def test_equal_where_scores_are(tiny, photos, options, same):
    a, b = MACLIP(backbone=tiny, **options), MACLIP(backbone=tiny, **same)
    x = photos[1][None, :, :150, :200]
    torch.testing.assert_close(a(x), b(x), rtol=0, atol=1e-5)
    assert a.fingerprint() == b.fingerprint() and a.features_fingerprint() == b.features_fingerprint()


# --- different -----------------------------------------------------------------------------------------------------

AFTER_FEATURES = [
    {'cue': 'sim'},
    {'cue': 'mag'},
    {'alpha': 2.0},
    {'box_lam': 0.4},
    {'base_cos': 1.1},
    {'base_norm': 0.7},
    {'prompts': 'clipiqa'},
    {'prompts': 'sharp'},
    {'prompts': [(negative, positive) for positive, negative in PROMPTS]},
    {'prompts': PROMPTS[::-1]},
    {'prompt_weights': [1, 2, 1, 1, 1]},
    {'prompt_weights': [1, 2.001, 1, 1, 1]},
]
FEATURES = [
    {'views': 'global'},
    {'views': 'full'},
    {'stride': 20},
    {'max_views': 3},
    {'pos_embedding': True},
    {'quick_gelu': False},
]


@pytest.mark.slow
def test_different_for_each_option(tiny):
    """And features are shared where they are the same."""
    metrics = [MACLIP(backbone=tiny, **options) for options in ({}, *AFTER_FEATURES, *FEATURES)]
    prints = [metric.fingerprint() for metric in metrics]
    assert len(set(prints)) == len(prints) and all(len(p) == 64 and int(p, 16) for p in prints)
    features = [metric.features_fingerprint() for metric in metrics]
    shared, own = features[: len(AFTER_FEATURES) + 1], features[len(AFTER_FEATURES) + 1 :]
    assert len(set(shared)) == 1 and len({*shared, *own}) == 1 + len(own)


def digests(clip, tokens=((1, 5, 2), (1, 7, 2))):
    facts = identity.architecture_facts(TINY, True)
    image = identity.image_digest(clip, facts['vision'], 64, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    return image, identity.text_digest(clip, facts['text'], torch.tensor(tokens))


@pytest.mark.slow
def test_different_for_each_weight(tiny_clip):
    """One value of each tensor moved by one unit in its last place: the digest of its tower differs, the other's does
    not. Counters are of no account, nor are the embeddings of tokens that the prompts do not have."""
    clip = copy.deepcopy(tiny_clip)
    image, text = digests(clip)
    for name, tensor in clip.state_dict().items():
        if not tensor.is_floating_point():
            tensor += 1
            assert digests(clip) == (image, text), name
            continue
        value = tensor.view(-1)[7 * tensor.shape[-1] if name == 'token_embedding.weight' else -1 :][:1]
        before = value.clone()
        value.copy_(torch.nextafter(before, before + 1))
        got = digests(clip)
        assert (got[0] != image, got[1] != text) == (name.startswith('visual.'), not name.startswith('visual.')), name
        value.copy_(before)
    clip.token_embedding.weight.data[6] += 1
    assert digests(clip) == (image, text) != digests(clip, ((1, 5, 2), (1, 6, 2)))


def test_different_for_swapped_weights(tiny_clip):
    clip = copy.deepcopy(tiny_clip)
    one, other = (clip.visual.layer1[0].bn1.weight.data, clip.visual.layer1[0].bn2.weight.data)
    one.copy_(1), other.copy_(2)
    before = digests(clip)[0]
    one.copy_(2), other.copy_(1)
    assert digests(clip)[0] != before


def test_different_for_other_names_and_shapes():
    """The same numbers."""
    named = [{'a': torch.ones(2, 3)}, {'b': torch.ones(2, 3)}, {'a': torch.ones(3, 2)}, {'a': torch.ones(6)}]
    assert len({identity.digest({}, tensors) for tensors in named}) == 4


@pytest.mark.parametrize(
    'change',
    [
        {'preprocess_cfg': {'mean': [0.5, 0.45, 0.4]}},
        {'preprocess_cfg': {'std': [0.27, 0.26, 0.26]}},
        {'preprocess_cfg': {'mean': [0, 0, 0], 'std': 1}},
        {'quick_gelu': False},
        {'text_cfg': {'heads': 2}},
        {'text_cfg': {'no_causal_mask': True}},
        {'text_cfg': {'pool_type': 'last'}},
        {'text_cfg': {'norm_kwargs': {'eps': 1e-3}}},
        {'vision_cfg': {'head_width': 32}},
    ],
)
def test_different_for_what_tensors_do_not_tell(tiny, tiny_clip, tmp_path, change):
    config = copy.deepcopy(TINY)
    for key, value in change.items():
        config[key] = config[key] | value if key.endswith('t_cfg') or key == 'vision_cfg' else value
    preprocess = config.pop('preprocess_cfg', {})
    name = save_folder(tiny_clip, config, tmp_path)
    path = tmp_path / 'open_clip_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'preprocess_cfg': preprocess}))
    assert MACLIP(backbone=name).fingerprint() != MACLIP(backbone=tiny).fingerprint()


def test_numbers_of_the_normalisation(tiny_clip, photos, tmp_path):
    """Whole numbers, and one for all channels, as open_clip reads them; anything else is told."""
    name, x = save_folder(tiny_clip, TINY, tmp_path), photos[0][None, :, :64, :64]
    path, made = tmp_path / 'open_clip_config.json', []
    for mean, std in (([0, 0, 0], 1), (0.0, [1.0, 1.0, 1.0]), ([1, 1, 1], [2, 2, 2])):
        path.write_text(json.dumps({'model_cfg': TINY, 'preprocess_cfg': {'mean': mean, 'std': std}}))
        made.append(MACLIP(backbone=name))
    assert made[0].fingerprint() == made[1].fingerprint() != made[2].fingerprint()
    assert torch.equal(made[0](x), made[1](x)) and not torch.equal(made[0](x), made[2](x))
    path.write_text(json.dumps({'model_cfg': TINY, 'preprocess_cfg': {'mean': [0.5, 0.5]}}))
    with pytest.raises(WeightsError, match=r'the mean of the normalisation is .*expected three numbers'):
        MACLIP(backbone=name)


def test_different_activations_and_norms_of_a_vit(tmp_path):
    vit = TINY | {'vision_cfg': {'image_size': 32, 'layers': 1, 'width': 64, 'head_width': 32, 'patch_size': 16}}
    clip, prints = make_clip(vit, synthetic_images(1)), []
    for count, more in enumerate(({}, {'act_kwargs': {'approximate': 'tanh'}}, {'norm_kwargs': {'eps': 1e-3}})):
        config = vit | {'quick_gelu': False, 'vision_cfg': vit['vision_cfg'] | more}
        prints.append(MACLIP(backbone=save_folder(clip, config, tmp_path / str(count))).fingerprint())
    assert len(set(prints)) == 3


def test_different_for_another_input_size(tiny_clip):
    facts = identity.architecture_facts(TINY, True)['vision']
    sizes = [identity.image_digest(tiny_clip, facts, size, (0.5,) * 3, (0.2,) * 3) for size in (64, 96)]
    assert sizes[0] != sizes[1]
