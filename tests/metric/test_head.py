"""A head in place of the fusion: its scores by NumPy, wherever the metric goes, and what is refused."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from maclip_pyiqa import MACLIP, MACLIPLoss
from maclip_pyiqa.backbone import note
from maclip_pyiqa.metric.head import KEY
from maclip_pyiqa.testing import TINY, make_clip, save_folder


@pytest.fixture
def metric(tiny, tiny_head):
    return MACLIP(backbone=tiny, head=tiny_head)


@pytest.fixture
def x(photos):
    return torch.stack(photos[:3])[..., :140, :170]


def by_numpy(metric, plain, x):
    """Scores by the equation, from features and cues of the metric without a head, in float64."""
    scores = []
    with safe_open(metric.config['head'], 'np') as file:
        weight, (a, b), bias = (file.get_tensor(name).astype(float) for name in ('weight', 'cues', 'bias'))
    for image in x:
        (f,) = (f.numpy().astype(float) for f in plain.features([image]))
        analysis = plain.analyze([image])[0]
        views = f / np.linalg.norm(f, axis=1, keepdims=True) @ weight + bias
        views += a * analysis.q_sim[0].numpy() + b * analysis.q_mag[0].numpy()
        scores.append(views @ np.array(plain.plan(*image.shape[1:]).shares))
    return np.array(scores)


@pytest.mark.parametrize('options', [{}, {'max_views': 3}, {'views': 'global'}, {'views': 'full'}, {'chunk': 1}])
def test_scores_are_those_of_the_equation(tiny, tiny_head, x, options):
    metric, plain = MACLIP(backbone=tiny, head=tiny_head, **options), MACLIP(backbone=tiny, **options)
    got = metric(x)
    np.testing.assert_allclose(got[:, 0], by_numpy(metric, plain, x), atol=1e-5)
    assert got.std() > 1e-3 and (got - plain(x)).abs().max() > 1e-2
    torch.testing.assert_close(metric([*x]), got, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat([metric(image[None]) for image in x]), got, rtol=0, atol=1e-5)


def test_maps_and_cues(metric, tiny, x):
    analysis, plain = metric.analyze(x), MACLIP(backbone=tiny).analyze(x)
    assert torch.equal(analysis.q, metric(x))
    torch.testing.assert_close(analysis.q_view.mean(1, keepdim=True), analysis.q)
    for cue in ('q_sim', 'q_mag', 'w_sim', 'attributes'):
        assert torch.equal(getattr(analysis, cue), getattr(plain, cue))
    coverage = analysis.coverage()
    mean = (coverage * analysis.quality_map()).mean((-2, -1)) / coverage.mean()  # as docs/metric.md says
    torch.testing.assert_close(mean[:, 0], analysis.q_view[:, :-1].mean(1), rtol=0, atol=1e-5)


def test_gradient(metric, x, close_gradients):
    """Along a direction, against differences in float64."""
    metric, image = metric.double(), x[:1, :, :80, :90].double().requires_grad_()
    (gradient,) = torch.autograd.grad(metric(image).sum(), image)
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-9
    with torch.no_grad():
        difference = (metric(image + direction) - metric(image - direction)) / 2
    close_gradients((gradient * direction).sum(), difference.squeeze(), 1e-3)


def test_copies_and_dtypes(metric, tiny, tiny_head, x):
    want = metric(x)
    with torch.inference_mode():
        made = MACLIP(backbone=tiny, head=str(tiny_head))
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), MACLIP(**metric.config), made):
        assert torch.equal(twin(x), want) and twin.fingerprint() == metric.fingerprint()
    torch.testing.assert_close(copy.deepcopy(metric).double()(x.double()).float(), want, rtol=0, atol=1e-5)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert metric(x).dtype == torch.float32
    assert not metric.state_dict() and not list(metric.parameters()) and not metric.head.training
    image = x.clone().requires_grad_()
    loss = MACLIPLoss(backbone=tiny, head=tiny_head)(image)
    assert loss.item() == pytest.approx(1 - want.mean().item(), abs=1e-5)
    loss.backward()
    assert image.grad.abs().max() > 0


def test_fingerprint(metric, tiny, tiny_head, tmp_path, save_head):
    plain = MACLIP(backbone=tiny)
    moved = tmp_path / 'moved.safetensors'
    moved.write_bytes(tiny_head.read_bytes())
    assert MACLIP(backbone=tiny, head=moved).fingerprint() == metric.fingerprint() != plain.fingerprint()
    other = MACLIP(backbone=tiny, head=save_head(plain, tmp_path / 'other.safetensors', seed=1))
    assert other.fingerprint() not in (metric.fingerprint(), plain.fingerprint())
    numbers = {'weight': torch.ones(64, dtype=torch.int64), 'cues': torch.ones(2), 'bias': torch.tensor(0.0)}
    found = set()
    for factor in (1, 2):  # of whole numbers too
        save_file(numbers | {'weight': factor * numbers['weight']}, moved, {KEY: json.dumps(metric.head.about)})
        found.add(MACLIP(backbone=tiny, head=moved).fingerprint())
    assert len(found) == 2
    assert other.features_fingerprint() == metric.features_fingerprint() == plain.features_fingerprint()
    plain.load_head(tiny_head)
    assert plain.fingerprint() == metric.fingerprint() and plain.config == metric.config
    assert 'not MA-CLIP as published' in note(metric.config) and not note(other.config | {'head': None})


def test_about(metric, tiny, tmp_path, save_head):
    assert metric.head.about['fitted_on'] == {'dataset': 'random numbers'}
    assert "{'dataset': 'random numbers'}, not the published metric" in repr(metric)
    assert metric.head.ratings(torch.tensor([0.0, 0.5, 1.0])).tolist() == [1, 3, 5]
    dmos = MACLIP(backbone=tiny, head=save_head(metric, tmp_path / 'a.safetensors', ratings=(80, 0)))
    assert dmos.head.ratings(torch.tensor([0.0, 0.25, 1.0])).tolist() == [80, 60, 0]


@pytest.mark.parametrize(
    ('options', 'say'),
    [
        ({'box_lam': 0.25}, 'it has box_lam=0.5, this metric 0.25'),
        ({'pos_embedding': True}, 'it has pos_embedding=False, this metric True'),
        ({'prompts': 'sharp'}, 'it has prompts=.*, this metric .*Sharp'),
        ({'prompt_weights': [1, 2, 1, 1, 1]}, 'it has prompt_weights=None'),
        ({'cue': 'sim'}, 'a head is computed from both cues'),
    ],
)
def test_another_metric_is_refused(tiny, tiny_head, options, say):
    with pytest.raises(ValueError, match=say):
        MACLIP(backbone=tiny, head=tiny_head, **options)


def test_prompt_weights_are_the_same_to_six_digits(tiny, tmp_path, save_head):
    weights = [1, 2, 3, 4, 5]
    path = save_head(MACLIP(backbone=tiny, prompt_weights=weights), tmp_path / 'a.safetensors')
    assert MACLIP(backbone=tiny, prompt_weights=[w / 3 for w in weights], head=path).head


def test_another_backbone_is_refused(tiny_head, metric, photos, tmp_path, x):
    other = save_folder(make_clip(TINY, photos[5:8]), TINY, tmp_path / 'other')
    with pytest.raises(
        ValueError, match=r'it has backbone=.*, this metric .* Expected the options that it was fitted with'
    ):
        MACLIP(backbone=other, head=tiny_head)
    with pytest.raises(ValueError, match='alpha: of no effect with a head'):
        metric(x, alpha=2.0)


def test_files_that_are_no_heads(tiny, tiny_head, metric, tmp_path):
    empty, damaged, plain = (tmp_path / f'{name}.safetensors' for name in ('empty', 'damaged', 'plain'))
    empty.touch()
    damaged.write_bytes(tiny_head.read_bytes()[:-9])
    save_file({'weight': torch.ones(3)}, plain)
    for path, say in (
        (empty, 'cannot be read'),
        (damaged, 'cannot be read'),
        (plain, 'holds no head'),
        (tmp_path / 'no', 'cannot'),
    ):
        with pytest.raises(ValueError, match=rf'{say}.*expected a file that `maclip-pyiqa fit` wrote'):
            MACLIP(pretrained='no-such-tag', head=path)  # before weights are looked for
    tensors, about = (
        {'weight': torch.ones(64), 'cues': torch.ones(2), 'bias': torch.tensor(0.0)},
        dict(metric.head.about),
    )
    for name, tensor, change, say in (
        ('cues', torch.ones(3), {}, 'holds no head'),
        ('weight', torch.ones(64, 1), {}, 'holds no head'),
        ('weight', torch.full((64,), torch.nan), {}, 'not finite'),
        ('bias', torch.tensor(0.0), {'ratings': ...}, 'holds no head'),
        ('bias', torch.tensor(0.0), '[' * 10_000, 'cannot be read'),
        ('bias', torch.tensor(0.0), '[1, 2]', 'holds no head'),
        ('bias', torch.tensor(0.0), json.dumps(about | {'config': 3}), 'holds no head'),
        ('weight', torch.ones(32), {}, 'backbone has other weights'),
    ):
        text = change if isinstance(change, str) else json.dumps({k: v for k, v in about.items() if k not in change})
        save_file(tensors | {name: tensor}, plain, {KEY: text})
        with pytest.raises(ValueError, match=say):
            MACLIP(backbone=tiny, head=plain)
    with pytest.raises(TypeError, match='head=3; expected a path'):
        MACLIP(backbone=tiny, head=3)
