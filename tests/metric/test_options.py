"""The options of a metric: each once, checked, and the same wherever they are given."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

from maclip_pyiqa import MACLIP, MACLIPLoss
from maclip_pyiqa._values import flag, integer, number
from maclip_pyiqa.metric.options import DEFAULTS, ENTRIES, Options, parse, table

PAGE = Path(__file__).parents[2] / 'docs/metric.md'


@pytest.fixture
def photo(photos):
    return photos[0][:, :96, :128]


def test_the_signature_has_each_option_with_its_default():
    signature = {name: p.default for name, p in inspect.signature(MACLIP).parameters.items()}
    assert signature.pop('model_type') == 'maclip'  # ignored
    assert signature == DEFAULTS and list(signature) == list(ENTRIES)


def test_help_says_what_each_is():
    text = ' '.join((MACLIP.__doc__ or '').split())
    for name, entry in ENTRIES.items():
        assert f' {name}: {entry.metadata["help"]} ' in text


def test_the_page_has_the_table():
    assert table() in PAGE.read_text('utf-8'), 'python -m maclip_pyiqa.metric.options prints the table'


def test_defaults_pass_their_checks():
    assert vars(Options()) == DEFAULTS


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('views=full', 'full'),
        ('stride=64', 64),
        ('max_views=none', None),
        ('pos_embedding=True', True),
        ('alpha=1e-3', 0.001),
        ('alpha=2', 2.0),
        ('quick_gelu=False', False),
        ('prompt_weights=1,2,0.5', [1.0, 2.0, 0.5]),
        ('prompt_weights=[1, 2]', [1.0, 2.0]),
        ('pretrained=a=b.pt', 'a=b.pt'),
        ('pretrained=123', '123'),
        ('prompts=clipiqa', (('Good photo.', 'Bad photo.'),)),
        ('prompts=new,quality', (('New photo.', 'Old photo.'), ('Good photo.', 'Bad photo.'))),
        ('head=a,b.safetensors', 'a,b.safetensors'),
    ],
)
def test_values_as_text(text, value):
    name, got = parse(text)
    assert name == text.partition('=')[0] and got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ('text', 'error', 'say'),
    [
        ('colour=red', ValueError, "'colour=red'; expected NAME=VALUE, NAME being one of backbone"),
        ('alpha', ValueError, "'alpha'; expected NAME=VALUE"),
        ('alpha=', TypeError, "alpha=''; expected a number"),
        ('alpha=nan', TypeError, "alpha='nan'; expected a number"),
        ('alpha=NaN', ValueError, 'alpha=nan; expected a finite number'),
        ('stride=1.5', TypeError, 'stride=1.5; expected a whole number'),
        ('stride=0', ValueError, 'stride=0; expected at least 1'),
        ('pos_embedding=1', TypeError, 'pos_embedding=1; expected True or False'),
        ('cue=all', ValueError, "cue='all'; expected 'both', 'sim' or 'mag'"),
        ('prompt_weights=1,x', TypeError, "prompt_weights='1,x'; expected finite numbers"),
        ('prompts=nonsense', ValueError, 'names of sets'),
    ],
)
def test_wrong_values_as_text(text, error, say):
    with pytest.raises(error) as got:
        parse(text)
    assert say in str(got.value)


def test_numbers_of_numpy_as_options(tiny, photo):
    options = {
        'max_views': np.int64(3),
        'stride': np.int32(40),
        'chunk': np.uint8(4),
        'sample_views': np.array(2),
        'pos_embedding': np.bool_(False),
        'box_lam': np.float32(0.25),
        'base_norm': np.float64(0.5),
        'alpha': np.int16(2),
        'prompt_weights': np.array([1, 2, 3, 4, 5.0]),
    }
    plain = {name: value.tolist() if name != 'sample_views' else 2 for name, value in options.items()}
    ours, theirs = MACLIP(backbone=tiny, **options), MACLIP(backbone=tiny, **plain)
    assert ours.config == theirs.config and ours.fingerprint() == theirs.fingerprint()
    assert {type(value) for value in ours.config.values()} <= {int, float, str, bool, list, type(None)}
    assert ours(photo[None]).item() == theirs(photo[None]).item()
    assert ours(photo[None], box_lam=np.float32(0.5)).item() == theirs(photo[None], box_lam=0.5).item()
    assert MACLIPLoss(backbone=tiny, loss_weight=np.float32(0.5), paired=np.bool_(True)).paired is True
    for weights in (np.ones(5), torch.ones(5), (np.float32(1),) * 5):
        assert MACLIP(backbone=tiny, prompt_weights=weights).config['prompt_weights'] is None


@pytest.mark.parametrize(
    ('check', 'value', 'error'),
    [
        *[(integer, value, TypeError) for value in (True, np.bool_(True), 1.0, np.float64(2), '3', None, np.ones(2))],
        (integer, np.int64(0), ValueError),
        *[(number, value, TypeError) for value in (True, np.bool_(True), '1', b'1', None, [1], np.ones(2))],
        (number, torch.tensor(1.0, requires_grad=True), TypeError),
        *[(number, np.array(value), TypeError) for value in ('0.5', True, 1 + 0j)],
        (integer, torch.tensor(True), TypeError),
        *[(number, value, ValueError) for value in (np.float32('nan'), np.inf)],
        *[(flag, value, TypeError) for value in (1, 0, 'yes', None, np.int64(1))],
    ],
)
def test_what_is_no_number(check, value, error):
    with pytest.raises(error, match='name='):
        check('name', value)


@pytest.mark.parametrize(
    ('weights', 'error'),
    [
        ('12345', TypeError),
        ({1: 2}, TypeError),
        (3, TypeError),
        (np.array(['1'] * 5), TypeError),
        (np.ones((5, 1)), TypeError),
        (np.ones(4), ValueError),
        ([1, 1, 1, 1, -1], ValueError),
        (np.zeros(5), ValueError),
        ([1, 1, 1, 1, np.nan], ValueError),
    ],
)
def test_what_is_no_weights(weights, error):
    with pytest.raises(error, match=r'^prompt_weights=.*; expected (5|finite) numbers, one for each pair of prompts'):
        Options(prompt_weights=weights)
