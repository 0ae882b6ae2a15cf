"""Prompt sets by name, from Python and from YAML."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from maclip_pyiqa import MACLIP
from maclip_pyiqa.metric.cues import cosine_cue
from maclip_pyiqa.metric.prompts import CUES, NAMES, PROMPTS, SETS, TORCHMETRICS, attribute_names, read_prompts


def test_sets():
    assert read_prompts('maclip') == PROMPTS and len(PROMPTS) == 5
    assert read_prompts('clipiqa') == (('Good photo.', 'Bad photo.'),)
    assert read_prompts('noise-free') == (('Noise-free image', 'noisy image'),)
    assert set(SETS) == {'maclip', 'clipiqa', 'good', 'sharp', 'edges', 'resolution', 'noise-free', *TORCHMETRICS}


def test_combinations():
    pairs = (('Bright photo.', 'Dark photo.'), ('High contrast photo.', 'Low contrast photo.'))
    assert read_prompts('brightness,contrast') == read_prompts(' brightness, contrast,brightness') == pairs
    assert read_prompts('maclip,warm') == (*PROMPTS, ('Warm photo.', 'Cold photo.'))
    assert attribute_names(read_prompts('sharp,sharpness,clipiqa')) == ('sharp', 'sharpness', 'quality')
    assert read_prompts(('brightness', 'contrast')) == pairs  # as torchmetrics takes them
    assert read_prompts(['warm', ('a', 'b')]) == (('Warm photo.', 'Cold photo.'), ('a', 'b'))
    for text in ('brightness,gloss', 'brightness,', '', ','):
        with pytest.raises(ValueError, match=r"'(gloss|)' is no set of prompts.*names of sets, separated by commas"):
            read_prompts(text)


def test_pairs_are_those_of_torchmetrics(tiny, photos):
    """And values too: its softmax of features and prompts, for the pairs by its names."""
    theirs = pytest.importorskip('torchmetrics.functional.multimodal.clip_iqa')
    names = tuple(theirs._PROMPTS)
    assert {name: read_prompts(name)[0] for name in names} == theirs._PROMPTS
    metric = MACLIP(backbone=tiny, prompts=','.join(names))
    prompts, _ = theirs._clip_iqa_format_prompts(names)
    assert prompts == [prompt for pair in metric.options.prompts for prompt in pair]
    (f,) = metric.features([photos[0][:, :100, :100]])
    want = theirs._clip_iqa_compute(F.normalize(f, dim=-1), metric.backbone.text.flatten(0, 1), list(names))
    got = cosine_cue(f, metric.backbone.text, scale=100.0)
    torch.testing.assert_close(got, torch.stack([want[name] for name in names], 1), rtol=0, atol=1e-5)
    assert metric.attribute_names == tuple(TORCHMETRICS)


@pytest.mark.parametrize('name', [NAMES[pair] for pair in PROMPTS])
def test_a_set_of_one_attribute_is_that_attribute(tiny, photos, name):
    x = torch.stack(photos[:2])[..., :150, :150]
    whole, one = MACLIP(backbone=tiny).analyze(x), MACLIP(backbone=tiny, prompts=name).analyze(x)
    assert one.names == (name,)
    # the logit scale of 100 multiplies the rounding of the cosines
    torch.testing.assert_close(one.q_sim, whole.attributes[..., whole.names.index(name)], rtol=0, atol=1e-5)


def test_yaml(tiny, tmp_path, photos):
    path = tmp_path / 'prompts.yml'
    path.write_text('- [ein gutes Bild, ein schlechtes Bild]\n- [Sharp image, blurry image]\n')
    pairs = (('ein gutes Bild', 'ein schlechtes Bild'), ('Sharp image', 'blurry image'))
    for source in (path, str(path)):
        metric = MACLIP(backbone=tiny, prompts=source)
        assert metric.options.prompts == pairs
    x = photos[0][None]
    assert torch.equal(metric(x), MACLIP(backbone=tiny, prompts=pairs)(x))
    assert metric.analyze(x).names == ('ein gutes Bild', 'sharp')


@pytest.mark.parametrize(
    ('content', 'say'),
    [
        ('', 'pairs'),
        ('[]', 'at least one pair'),
        ('Good image: bad image', 'pairs'),
        ('- [a, b, c]', 'pairs'),
        ('- [a, 3]', 'two texts'),
        ('- [a, b', 'cannot be read'),
    ],
)
def test_wrong_files(tmp_path, content, say):
    path = tmp_path / 'prompts.yaml'
    path.write_text(content)
    with pytest.raises((TypeError, ValueError), match=say) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)


def test_unknown_names():
    with pytest.raises(ValueError, match=r'clipqia.*maclip, clipiqa, good'):
        read_prompts('clipqia')
    with pytest.raises(ValueError, match=r'cannot be read from /nowhere/prompts\.yml'):
        read_prompts('/nowhere/prompts.yml')


def test_names_that_repeat():
    pairs = [('good', 'bad'), ('good', 'ugly'), PROMPTS[1]]
    assert attribute_names(pairs) == ('good / bad', 'good / ugly', 'sharp')
    assert len(set(attribute_names([('a', 'b'), ('a', 'c'), ('a / b', 'z')]))) == 3
    assert attribute_names([('q', 'x'), ('q_sim', 'y')]) == ('q / x', 'q_sim / y')  # `quality_map('q')` is the score's


texts = st.sampled_from(['a', 'b', 'a / b', 'b / a', 'a / b (2)', 'q', 'w_sim', 'Good image', 'bad image', 'good'])


@given(st.lists(st.tuples(texts | st.text(min_size=1, max_size=3), texts), min_size=1, max_size=8))
def test_names_are_unique_for_any_prompts(pairs):
    names = attribute_names(pairs)
    assert len(set(names)) == len(names) == len(pairs) and not set(names) & set(CUES)


def test_encoded_once(monkeypatch, tiny, photos):
    import open_clip

    calls, real = [], open_clip.model.CLIP.encode_text
    monkeypatch.setattr(open_clip.model.CLIP, 'encode_text', lambda *a, **k: calls.append(1) or real(*a, **k))
    metric = MACLIP(backbone=tiny, prompts='clipiqa')
    for photo in photos[:2]:
        metric(photo[None])
    assert calls == [1]


# --- weights of the pairs ---------------------------------------------------------------------------------------------


def test_prompt_weights(tiny, photos):
    x = torch.stack(photos[:3])
    equal = MACLIP(backbone=tiny, cue='sim')
    got = MACLIP(backbone=tiny, cue='sim', prompt_weights=[3, 0, 1, 0, 0])(x)
    a = equal.analyze(x).attributes
    torch.testing.assert_close(got[:, 0], (0.75 * a[..., 0] + 0.25 * a[..., 2]).mean(1), rtol=0, atol=1e-5)
    same = MACLIP(backbone=tiny, prompt_weights=[2.0] * 5)
    torch.testing.assert_close(same(x), MACLIP(backbone=tiny)(x), rtol=0, atol=1e-5)
    assert not same.state_dict()


@pytest.mark.parametrize(
    ('weights', 'error'),
    [
        ([1, 1], ValueError),
        ([0] * 5, ValueError),
        ([1, 1, 1, 1, -1], ValueError),
        ([math.nan] * 5, ValueError),
        ([math.inf, 1, 1, 1, 1], ValueError),
        ([], ValueError),
        (['1'] * 5, TypeError),
        (1.0, TypeError),
        ('11111', TypeError),
    ],
)
def test_wrong_prompt_weights(tiny, weights, error):
    with pytest.raises(error, match=r'prompt_weights=.*expected (5|finite) numbers, one for each pair of prompts'):
        MACLIP(backbone=tiny, prompt_weights=weights)
