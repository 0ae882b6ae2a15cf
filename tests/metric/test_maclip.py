"""The metric against a NumPy/scipy reading of the paper, and how it behaves as a module."""

import copy
import inspect
import json
import math
import pickle

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from scipy.special import boxcox1p, expit, softmax

from maclip_pyiqa import MACLIP

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
PROMPTS = [
    'Good image', 'bad image', 'Sharp image', 'blurry image', 'sharp edges', 'blurry edges',
    'High resolution image', 'low resolution image', 'Noise-free image', 'noisy image',
]  # fmt: skip


def bilinear(image, size):
    """NumPy bilinear resize with half-pixel centres, (3, H, W) -> (3, size, size)."""
    out = image
    for axis in (1, 2):
        n = image.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, None)
        low = np.minimum(np.floor(at).astype(int), n - 1)
        high = np.minimum(low + 1, n - 1)
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        out = np.take(out, low, axis) * (1 - part) + np.take(out, high, axis) * part
    return out


def oracle(clip, image, window, stride, lam=0.5, base_cos=1.0, base_norm=0.6, alpha=1.0):
    """Score of one image by section 1 of the paper's method, in float64, on open_clip's own untouched tower."""
    clip = copy.deepcopy(clip).double()
    clip.visual.attnpool.positional_embedding.data = torch.zeros_like(clip.visual.attnpool.positional_embedding[:1])
    image = (image.double().numpy() - MEAN[:, None, None]) / STD[:, None, None]
    _, height, width = image.shape
    views = [
        image[:, t : t + window, l : l + window]
        for t in range(0, height - window + 1, stride)
        for l in range(0, width - window + 1, stride)
    ] + [bilinear(image, window)]
    with torch.no_grad():
        f = torch.cat([clip.encode_image(torch.from_numpy(v)[None]) for v in views]).numpy()
        tokens = open_clip.get_tokenizer('RN50')(PROMPTS)
        t = clip.encode_text(tokens).numpy()
    cos = f @ t.T / np.linalg.norm(f, axis=1)[:, None] / np.linalg.norm(t, axis=1)
    q_sim = softmax((clip.logit_scale.exp().item() * cos).reshape(-1, 5, 2), -1)[..., 0].mean(1)
    a = np.abs(f)
    q_mag = boxcox1p(a / (a.std(1, ddof=1, keepdims=True) + 1e-6), lam).mean(1)
    w = expit(base_cos - base_norm + 2 * alpha * (q_sim - q_mag))
    return (w * q_sim + (1 - w) * q_mag).mean()


def test_score_of_rn50_is_the_papers(rn50_metric, rn50_clip, photos):
    large = F.interpolate(photos[1][None], (480, 640), mode='bilinear')[0]  # 2 x 4 windows, a rest on both sides
    for image in (photos[0], large):
        got = rn50_metric(image[None])
        assert got.shape == (1, 1) and got.dtype == torch.float32
        assert got.item() == pytest.approx(oracle(rn50_clip, image, 224, 128), abs=1e-5)


@pytest.mark.parametrize(
    'constants',
    [{}, {'box_lam': 0}, {'box_lam': 1.0, 'alpha': 3.0}, {'base_cos': 0.2, 'base_norm': -1.0, 'alpha': 0.0}],
)
def test_score_and_constants(tiny, tiny_clip, photos, constants):
    image = photos[2][:, :200, :230]
    names = {'box_lam': 'lam'}
    want = oracle(tiny_clip, image, 64, 37, **{names.get(k, k): v for k, v in constants.items()})
    assert MACLIP(backbone=tiny, **constants)(image[None]).item() == pytest.approx(want, abs=1e-5)
    assert MACLIP(backbone=tiny)(image[None], **constants).item() == pytest.approx(want, abs=1e-5)


def test_standin_weights_tell_images_apart(rn50_metric, tiny_metric, photos):
    """Else nothing that is tested on them means anything."""
    for metric in (rn50_metric, tiny_metric):
        assert metric(torch.stack(photos[:4])).std() > 1e-3


@pytest.mark.parametrize('views', ['windows', 'global', 'full'])
def test_alone_in_a_batch_and_in_a_list(tiny, photos, views):
    batch = torch.stack(photos)[:, :, :150, :210]
    metric = MACLIP(backbone=tiny, views=views)
    scores = metric(batch)
    assert scores.shape == (10, 1)
    assert scores.std() > 1e-4
    alone = torch.cat([metric(image[None]) for image in batch])
    for other in (alone, metric(list(batch)), metric(tuple(batch)), metric(batch.flip(0)).flip(0)):
        torch.testing.assert_close(other, scores, rtol=0, atol=1e-5)
    for chunk in (1, 5, 1000):
        got = MACLIP(backbone=tiny, views=views, chunk=chunk)(batch)
        torch.testing.assert_close(got, scores, rtol=0, atol=1e-5)
    assert torch.equal(metric(batch), scores)


@pytest.mark.parametrize('views', ['windows', 'global', 'full'])
def test_list_of_mixed_sizes(tiny, photos, views):
    metric = MACLIP(backbone=tiny, views=views)
    sizes = [(150, 210), (64, 64), (150, 210), (20, 300), (1, 1), (384, 512)]
    images = [photo[:, :h, :w] for photo, (h, w) in zip(photos, sizes, strict=False)]
    got = metric(images)
    assert got.shape == (6, 1)
    alone = torch.cat([metric(image[None]) for image in images])
    torch.testing.assert_close(got, alone, rtol=0, atol=1e-5)


def test_small_images_are_enlarged_for_windows_only(tiny, tiny_clip, photos):
    """Windows of the enlarged image, global view of the original."""
    metric, small = MACLIP(backbone=tiny), photos[3][:, :30, :94]
    big = F.interpolate(small[None], (64, 201), mode='bicubic')[0]
    windows = [big[:, :, l : l + 64] for l in range(0, 201 - 63, 37)]
    whole = F.interpolate(small[None], (64, 64), mode='bilinear')[0]
    want = torch.stack([*windows, whole])
    with torch.no_grad():
        features = metric.backbone(want)
        torch.testing.assert_close(metric.features(small[None])[0], features, rtol=1e-4, atol=1e-5)
        score = metric.cues(features).q.mean()
        torch.testing.assert_close(metric(small[None])[0, 0], score, rtol=0, atol=1e-5)
        without = metric.cues(features[:-1]).q.mean()
    assert (score - without).abs() > 1e-5  # so a missing view would be seen


def test_an_image_of_one_window_is_encoded_once(tiny_metric, photos, close_gradients):
    """Window and global view are the same pixels: same score and gradient for half the work."""
    x = photos[3][None, :, :64, :64].clone().requires_grad_()
    got = tiny_metric(x)
    assert [f.shape for f in tiny_metric.features(x)] == [(1, 64)]
    twice = tiny_metric.backbone(torch.cat([x, F.interpolate(x, (64, 64), mode='bilinear')]))
    want = tiny_metric.cues(twice).q.mean()
    torch.testing.assert_close(got[0, 0], want, rtol=0, atol=1e-5)
    gradients = [torch.autograd.grad(score, x)[0] for score in (got.sum(), want)]
    close_gradients(*gradients)


def test_max_views(tiny, photos):
    x = photos[0][None]
    full = MACLIP(backbone=tiny)
    some = MACLIP(backbone=tiny, max_views=20)
    assert some.plan(384, 512).views == 21 and full.plan(384, 512).views == 118
    assert torch.equal(some(x), some(x))
    torch.testing.assert_close(some(x), full(x), rtol=0, atol=0.02)
    assert not torch.equal(some(x), full(x))
    assert torch.equal(MACLIP(backbone=tiny, max_views=117)(x), full(x))
    y = x.clone().requires_grad_()
    some(y).sum().backward()
    assert y.grad.isfinite().all() and y.grad.abs().max() > 0


def test_long_thin_images_are_refused(tiny_metric):
    with pytest.raises(ValueError, match=r'image 1: an image of 1x30000 pixels .*100 times'):
        tiny_metric([torch.rand(3, 64, 64), torch.rand(3, 1, 30000)])


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'cue': 'mag', 'views': 'full', 'pos_embedding': True},
        {'prompts': 'clipiqa', 'box_lam': 0.2, 'stride': 20, 'max_views': 3, 'chunk': 5, 'sample_views': 2},
        {'prompts': [('a', 'b'), ('c', 'd')], 'prompt_weights': [1, 3], 'alpha': 2.0, 'views': 'global'},
        {'prompt_weights': [95, 41, 84, 19, 67]},  # rounding moves the last bits of their shares
    ],
)
def test_config_rebuilds_the_metric(tiny, photos, options):
    metric = MACLIP(backbone=tiny, **options)
    config = json.loads(json.dumps(metric.config))
    twin = MACLIP(**config)
    x = photos[0][None, :, :150, :200]
    assert torch.equal(twin(x), metric(x)) and twin.config == metric.config
    assert twin.fingerprint() == metric.fingerprint() == copy.deepcopy(metric).fingerprint()
    assert set(config) == set(inspect.signature(MACLIP).parameters) - {'model_type'}


@pytest.mark.parametrize('size', [(1, 1), (1, 40), (31, 32), (64, 64), (65, 63)])
def test_any_size(tiny, size):
    for views in ('windows', 'global', 'full'):
        score = MACLIP(backbone=tiny, views=views)(torch.rand(2, 3, *size))
        assert score.shape == (2, 1) and score.isfinite().all()


def test_grey_is_three_equal_channels(tiny_metric, photos):
    grey = photos[0].mean(0, keepdim=True)[None]
    assert torch.equal(tiny_metric(grey), tiny_metric(grey.repeat(1, 3, 1, 1)))


def test_global_and_full_views(tiny, tiny_clip, photos):
    image = photos[4][None, :, :160, :100]
    resized = F.interpolate(image, (64, 64), mode='bilinear')
    got = MACLIP(backbone=tiny, views='global')(image)
    torch.testing.assert_close(got, MACLIP(backbone=tiny, views='full')(resized), rtol=0, atol=1e-5)


def test_stride(tiny, photos):
    image = photos[5][None, :, :100, :130]
    dense = MACLIP(backbone=tiny, stride=9)
    assert [f.shape for f in dense.features(image)] == [(5 * 8 + 1, 64)]
    assert [f.shape for f in MACLIP(backbone=tiny).features(image)] == [(1 * 2 + 1, 64)]  # stride 37


def test_own_prompts(tiny, tiny_clip, photos):
    pairs = [('a cat', 'a dog'), ('blue', 'red')]
    metric = MACLIP(backbone=tiny, prompts=pairs, views='global')
    tokens = open_clip.get_tokenizer('RN50')(['a cat', 'a dog', 'blue', 'red'])
    with torch.no_grad():
        want = F.normalize(tiny_clip.encode_text(tokens), dim=-1).unflatten(0, (2, 2))
    torch.testing.assert_close(metric.backbone.text, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize('size', [(64, 64), (96, 128)])
def test_pos_embedding(tiny, tiny_clip, photos, size):
    """At the tower's own size, open_clip's own result; at others the grid is interpolated, the mean's part is not."""
    image = photos[6][None, :, : size[0], : size[1]]
    clip = copy.deepcopy(tiny_clip)
    pool = clip.visual.attnpool
    mean, grid = pool.positional_embedding[:1], pool.positional_embedding[1:]
    grid = grid.T.reshape(1, -1, 2, 2)
    grid = F.interpolate(grid, (size[0] // 32, size[1] // 32), mode='bicubic')[0].flatten(1).T
    pool.positional_embedding = torch.nn.Parameter(torch.cat([mean, grid]))
    normalised = (image - torch.tensor(MEAN).float().view(3, 1, 1)) / torch.tensor(STD).float().view(3, 1, 1)
    with torch.no_grad():
        want = clip.encode_image(normalised)
    got = MACLIP(backbone=tiny, pos_embedding=True, views='full').features(image)[0]
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    without = MACLIP(backbone=tiny, views='full').features(image)[0]
    assert (got - without).abs().max() > 1e-3


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('make', 'error', 'say'),
    [
        (lambda: torch.rand(3, 64, 64), ValueError, r'x\[None\]'),
        (lambda: torch.rand(64, 64), ValueError, r'\(N, 3, H, W\)'),
        (lambda: torch.rand(1, 4, 64, 64), ValueError, 'alpha'),
        (lambda: torch.rand(1, 2, 64, 64), ValueError, r'\(2, 64, 64\)'),
        (lambda: torch.rand(0, 3, 64, 64), ValueError, 'batch is empty'),
        (lambda: [], ValueError, 'batch is empty'),
        (lambda: torch.rand(1, 3, 0, 64), ValueError, r'\(3, 0, 64\)'),
        (lambda: torch.zeros(1, 3, 64, 64, dtype=torch.uint8), TypeError, 'divide by 255'),
        (lambda: torch.zeros(1, 3, 64, 64, dtype=torch.int64), TypeError, 'int64'),
        (lambda: torch.zeros(1, 3, 64, 64, dtype=torch.complex64), TypeError, 'complex64'),
        (lambda: torch.full((1, 3, 64, 64), 200.0), ValueError, 'divide by 255'),
        (lambda: torch.full((1, 3, 64, 64), 1.1), ValueError, r'clamp it to \[0, 1\]'),
        (lambda: torch.full((1, 3, 64, 64), -0.1), ValueError, r'\[-0.1, -0.1\]'),
        (lambda: torch.full((1, 3, 64, 64), math.nan), ValueError, 'not finite'),
        (lambda: torch.full((1, 3, 64, 64), math.inf), ValueError, 'not finite'),
        (lambda: [torch.rand(3, 64, 64), torch.rand(4, 64, 64)], ValueError, 'alpha'),
        (lambda: [torch.rand(3, 64, 64), 'b.png'], TypeError, 'image 1 is a str'),
        (lambda: 'a.png', TypeError, r'str; .*maclip_pyiqa.scoring.read_image'),
        (lambda: torch.rand(1, 64, 80, 3), ValueError, r'channels come first: x.movedim\(-1, -3\)'),
        (lambda: np.zeros((1, 3, 64, 64)), TypeError, 'ndarray'),
        (lambda: torch.rand(1, 3, 64, 64, device='meta'), ValueError, 'is on meta'),
    ],
)
def test_wrong_images(tiny_metric, make, error, say):
    with pytest.raises(error, match=say):
        tiny_metric(make())


@pytest.mark.parametrize(
    ('options', 'error', 'say'),
    [
        ({'views': 'patches'}, ValueError, "'windows', 'global' or 'full'"),
        ({'stride': 0}, ValueError, 'stride=0; expected at least 1'),
        ({'stride': 1.5}, TypeError, 'stride=1.5; expected a whole number'),
        ({'chunk': 0}, ValueError, 'chunk=0; expected at least 1'),
        ({'chunk': True}, TypeError, 'chunk'),
        ({'sample_views': 0}, ValueError, 'sample_views'),
        ({'box_lam': math.nan}, ValueError, 'box_lam=nan; expected a finite number'),
        ({'alpha': 10**400}, ValueError, 'expected a finite number'),
        ({'pos_embedding': 'false'}, TypeError, "pos_embedding='false'; expected True or False"),
        ({'quick_gelu': 1}, TypeError, 'quick_gelu=1; expected True or False'),
        ({'alpha': '1'}, TypeError, "alpha='1'; expected a number"),
        ({'prompts': 'Good image'}, ValueError, 'pairs'),
        ({'prompts': []}, ValueError, 'at least one pair'),
        ({'prompts': [('a', 'b', 'c')]}, ValueError, 'pairs'),
        ({'prompts': ['ab']}, ValueError, 'pairs'),
        ({'prompts': [('a', ' ')]}, ValueError, 'empty'),
        ({'backbone': 50}, TypeError, 'backbone'),
        ({'backbone': 'RN51'}, ValueError, 'RN51'),
        ({'backbone': 'RN50', 'pretrained': 'opnai'}, ValueError, 'openai, yfcc15m, cc12m'),
        ({'backbone': 'RN50', 'pretrained': None}, TypeError, 'path or an open_clip tag'),
        ({'colour': 'red'}, TypeError, 'colour'),
    ],
)
def test_wrong_options(tiny, options, error, say):
    with pytest.raises(error, match=say):
        MACLIP(**{'backbone': tiny} | options)


def test_wrong_constants_of_a_call(tiny_metric):
    with pytest.raises(ValueError, match='alpha'):
        tiny_metric(torch.rand(1, 3, 64, 64), alpha=math.inf)


# --- a well-behaved module --------------------------------------------------------------------------------------------


def test_nothing_to_train_or_to_save(tiny_metric, photos):
    parent = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.Sigmoid(), tiny_metric).train()
    assert not tiny_metric.training and not any(m.training for m in tiny_metric.modules())
    assert set(parent.state_dict()) == {'0.weight', '0.bias'}
    parent.load_state_dict(parent.state_dict(), strict=True)
    parent.requires_grad_(True)
    assert len(list(parent.parameters())) == 2
    x = photos[0][None, :, :64, :64]
    parent(x).sum().backward()
    assert all(b.grad is None and not b.requires_grad for b in tiny_metric.buffers())


def test_building_leaves_random_numbers_alone(tiny):
    torch.manual_seed(7)
    want = torch.rand(3)
    torch.manual_seed(7)
    MACLIP(backbone=tiny)
    assert torch.equal(torch.rand(3), want)


@pytest.mark.parametrize('twin', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(tiny_metric, photos, twin):
    x = photos[0][None, :, :100, :100]
    other = twin(tiny_metric)
    assert torch.equal(other(x), tiny_metric(x))
    assert other.backbone.text.data_ptr() != tiny_metric.backbone.text.data_ptr()
    assert not other.state_dict()


def test_other_dtypes(tiny_metric, photos):
    x = torch.stack(photos[:2])[..., :100, :100]
    want = tiny_metric(x)
    torch.testing.assert_close(tiny_metric(x.double()), want)  # follows the module, not the image
    assert (tiny_metric(x.half()) - want).abs().max() < 1e-2
    double = copy.deepcopy(tiny_metric).to(torch.float64)
    assert double(x).dtype == torch.float64
    torch.testing.assert_close(double(x).float(), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_cues_in_float32(tiny_metric, photos, dtype):
    x = torch.stack(photos[:2])[..., :100, :100]
    with torch.autocast('cpu', dtype):
        got, features = tiny_metric(x), tiny_metric.features(x)
    assert got.dtype == torch.float32
    assert features[0].dtype == dtype  # the tower did run in it
    want = [tiny_metric.cues(f.float()).q.mean() for f in features]  # outside of autocast
    torch.testing.assert_close(got[:, 0], torch.stack(want), rtol=0, atol=1e-5)
    assert 0 < (got - tiny_metric(x)).abs().max() < 0.05


def test_meta_device_move(tiny_metric):
    """All tensors follow .to(): none is left behind."""
    moved = copy.deepcopy(tiny_metric).to('meta')
    assert {b.device.type for b in moved.buffers()} == {'meta'}
    assert not [k for m in moved.modules() for k, v in vars(m).items() if isinstance(v, torch.Tensor)]


@pytest.mark.slow  # test_device.py has a shorter one
def test_compiles_as_one_graph(tiny_metric, photos, close_gradients):
    x = torch.stack(photos[:2])[..., :100, :120]
    want = tiny_metric(x)
    whole = torch.compile(tiny_metric, fullgraph=True, backend='aot_eager')
    with torch.no_grad():
        torch.testing.assert_close(whole(x), want, rtol=0, atol=1e-5)
    y = x.clone().requires_grad_()
    (got,) = torch.autograd.grad(whole(y).sum(), y)
    (wanted,) = torch.autograd.grad(tiny_metric(y).sum(), y)
    close_gradients(got, wanted)
