"""Fitting on features whose ratings were made with known constants, and on ratings that mean nothing."""

import numpy as np
import pyiqa
import pytest
import torch
import torch.nn.functional as F
import yaml
from scipy import stats

from maclip_pyiqa import MACLIP
from maclip_pyiqa.cli import main
from maclip_pyiqa.evaluation.cache import FeatureCache, save_run
from maclip_pyiqa.evaluation.correlations import srcc
from maclip_pyiqa.evaluation.fitting import PAPER, CueTable, curves, fit_constants

TRUE = {'box_lam': -1.0, 'base_cos': 0.0, 'base_norm': 0.6, 'alpha': 4.0}
COUNT, PAIRS, WIDTH = 240, 3, 48


@pytest.fixture(scope='module')
def features():
    """Features with tails of all weights, so that lambda matters, and text features."""
    generator = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(PAIRS, 2, WIDTH, generator=generator), dim=-1)
    images = []
    for _ in range(COUNT):
        tail, tilt = torch.rand(2, generator=generator)
        views = torch.randn(int(torch.randint(1, 5, (), generator=generator)), WIDTH, generator=generator)
        images.append(views.sign() * views.abs() ** (0.4 + 2 * tail) + 3 * tilt * (text[0, 0] - text[0, 1]))
    return images, text, 8.0


@pytest.fixture(scope='module')
def cues(features):
    return CueTable(*features)


@pytest.fixture(scope='module')
def groups():
    return [f'photo {i // 4}' for i in range(COUNT)]


@pytest.mark.parametrize(
    'options', [{}, {'box_lam': -1.97, 'alpha': 3.0}, {'box_lam': 0, 'base_cos': -1.0}, {'box_lam': 1.23}]
)
def test_scores_are_the_metrics(tiny, photos, options):
    images = [photos[0][:, :150, :170], photos[1][:, :64, :64], photos[2][:, :110, :230]]
    for weights in (None, [1.0, 0.0, 2.0, 0.5, 0.5]):
        metric = MACLIP(backbone=tiny, prompt_weights=weights, **options)
        cues = CueTable([f.detach() for f in metric.features(images)], metric.backbone.text, metric.backbone.scale)
        got = cues.scores(**options, prompt_weights=weights)
        np.testing.assert_allclose(got, metric(images)[:, 0], atol=5e-6)


@pytest.mark.slow
def test_known_constants_are_found(cues, groups):
    ratings = cues.scores(**TRUE)
    found = fit_constants(cues, ratings, groups, resamples=200)
    assert srcc(cues.scores(), ratings) < 0.8  # else there is nothing to gain
    assert found.srcc > 0.999 and found.real and found.gain > 0.2
    assert found.interval[0] < found.gain < found.interval[1]
    assert found.options == pytest.approx(TRUE, abs=0.1)
    assert len(found.folds) == 5 and all(options == pytest.approx(TRUE, abs=0.3) for options in found.folds)


@pytest.mark.slow
def test_known_weights_are_found(cues):
    ratings = cues.scores(prompt_weights=[0.8, 0.1, 0.1])
    found = fit_constants(cues, ratings, weights=True, folds=3, resamples=100)
    assert found.real and found.options['prompt_weights'] == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    plain = fit_constants(cues, ratings, folds=3, resamples=100)
    assert 'prompt_weights' not in plain.options and plain.srcc < found.srcc


@pytest.mark.slow
def test_random_ratings_give_no_real_gain(cues, groups):
    """Though on the images that it was fitted to, each fit does gain. Among these ratings are three (4, 6, 8) that the
    plain bootstrap would call real; of 100, it did so for 8 where 2.5 are due."""
    for seed in (2, 4, 6, 8):
        ratings = np.random.default_rng(seed).random(COUNT)
        found = fit_constants(cues, ratings, groups, folds=3, resamples=200)
        assert not found.real and 'keep the unfitted' in found.verdict
        assert srcc(cues.scores(**found.options), ratings) > srcc(cues.scores(), ratings)


@pytest.mark.slow
def test_interval_is_the_bootstraps_widened(cues, groups):
    """Again with a loop: whole groups drawn, both metrics on the same images, the factor for 4 folds."""
    ratings = cues.scores(**TRUE) + np.random.default_rng(2).normal(scale=0.1, size=COUNT)
    found = fit_constants(cues, ratings, groups, folds=4, resamples=500)
    base, held_out = cues.scores(), np.empty(COUNT)
    for k, options in enumerate(found.folds):
        held_out[found.fold == k] = cues.scores(**options)[found.fold == k]
    rng, rows, gains = np.random.default_rng(5), np.arange(COUNT).reshape(-1, 4), []
    for _ in range(500):
        i = rows[rng.integers(len(rows), size=len(rows))].ravel()
        folds = [i[found.fold[i] == k] for k in range(4)]
        gains.append(sum(len(j) * (srcc(held_out[j], ratings[j]) - srcc(base[j], ratings[j])) for j in folds) / COUNT)
    want = found.gain + (1 + 4 / 3) ** 0.5 * (np.quantile(gains, [0.025, 0.975]) - found.gain)
    assert found.interval == pytest.approx(want, abs=0.1 * np.ptp(want))


def test_what_the_metric_does_best_has_no_gain(cues, groups):
    found = fit_constants(cues, cues.scores(), groups, resamples=100)
    assert found.baseline == pytest.approx(1) and not found.real
    assert found.options == pytest.approx(PAPER)


def test_start_is_the_baseline(cues):
    start = {'alpha': 4.0, 'base_norm': 0.0, 'prompt_weights': [0.5, 0.25, 0.25]}
    ratings = cues.scores(**start)
    for weights in (False, True):
        found = fit_constants(cues, ratings, start=start, weights=weights, folds=2, resamples=20)
        assert found.baseline == pytest.approx(1)
        assert found.options['prompt_weights'] == pytest.approx(start['prompt_weights'])
        assert found.options['alpha'] == pytest.approx(4.0) and found.options['base_norm'] == 0.0


def test_groups_stay_together_and_folds_are_even(cues):
    groups = np.repeat(np.arange(20), [31, 20, *[10] * 14, *[13] * 3, 10])
    assert len(groups) == COUNT
    groups = np.random.default_rng(0).permutation(groups).astype(str)
    found = fit_constants(cues, cues.scores(**TRUE), groups, folds=4, resamples=10)
    for group in set(groups):
        assert len(set(found.fold[groups == group])) == 1
    assert sorted(set(found.fold)) == [0, 1, 2, 3]
    assert np.ptp(np.bincount(found.fold)) <= 13


def test_held_out_means_held_out(cues, groups):
    """Both figures again from what each fold was fitted to, by scipy."""
    noise = np.random.default_rng(1).normal(scale=0.05, size=COUNT)
    ratings = cues.scores(**TRUE) + noise
    found = fit_constants(cues, ratings, groups, folds=3, resamples=50)
    for options, value in ((found.folds, found.srcc), ([PAPER] * 3, found.baseline)):
        parts = []
        for k in range(3):
            mine = found.fold == k
            parts.append(mine.sum() * stats.spearmanr(cues.scores(**options[k])[mine], ratings[mine]).statistic)
        assert value == pytest.approx(sum(parts) / COUNT)
    assert found.options != found.folds[0]
    again = fit_constants(cues, ratings, groups, folds=3, resamples=50)
    assert again.options == found.options and again.interval == found.interval
    other = fit_constants(cues, ratings, groups, folds=3, resamples=50, seed=1)
    assert (other.fold != found.fold).any()


@pytest.mark.parametrize(
    ('arguments', 'say'),
    [
        ({'ratings': np.zeros(3)}, r'\(3,\); expected 240 finite numbers'),
        ({'ratings': np.full(COUNT, np.nan)}, '240 finite numbers'),
        ({'ratings': np.ones(COUNT)}, 'not all equal'),
        ({'groups': ['a', 'b']}, '240 names'),
        ({'groups': ['a', 'b'] * 120}, '5 groups'),
        ({'folds': 1}, 'folds=1; expected at least 2'),
        ({'folds': 100}, '300 images'),
    ],
)
def test_wrong_arguments(cues, arguments, say):
    with pytest.raises(ValueError, match=say):
        fit_constants(cues, **{'ratings': np.arange(COUNT)} | arguments)


def test_wrong_features(features, cues):
    images, text, scale = features
    for wrong in ([], [images[0], images[1][0]], [torch.zeros(0, WIDTH)], [torch.zeros(2, WIDTH + 1)]):
        with pytest.raises(ValueError, match=r'\(V, 48\)'):
            CueTable(wrong, text, scale)
    with pytest.raises(ValueError, match='box_lam'):
        cues.scores(box_lam=2.5)
    with pytest.raises(ValueError, match='3 numbers'):
        cues.scores(prompt_weights=[1, 2])


def test_shares(features, cues):
    images, text, scale = features
    uneven = CueTable([torch.cat([f, f[:1]]) for f in images], text, scale, [_shares(f) for f in images])
    np.testing.assert_allclose(uneven.scores(**TRUE), cues.scores(**TRUE), atol=1e-6)  # shares are float32


def _shares(f):
    """The first view's share divided between it and its copy."""
    return torch.cat([torch.tensor([0.25]), torch.ones(len(f) - 1), torch.tensor([0.75])]) / len(f)


def test_yaml_is_what_pyiqa_takes(tiny, photos, tmp_path):
    metric = MACLIP(backbone=tiny, prompts=[('a', 'b'), ('c', 'd')], stride=20)
    images = [photo[:, :70, : 64 + 10 * i] for i, photo in enumerate(photos)]
    cues = CueTable([f.detach() for f in metric.features(images)], metric.backbone.text, metric.backbone.scale)
    found = fit_constants(cues, np.arange(len(images)), weights=True, folds=3, resamples=20)
    found.save(tmp_path / 'fit.yml', metric.config)
    text = (tmp_path / 'fit.yml').read_text()
    assert all(note in text for note in ('not the published metric', found.verdict))
    fitted = pyiqa.create_metric('maclip', **yaml.safe_load(text), device='cpu')
    got = torch.cat([fitted(image[None]) for image in images])[:, 0]
    np.testing.assert_allclose(got, cues.scores(**found.options), atol=1e-5)


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path, features, cues, groups):
    """Returns a function that writes a results folder whose ratings were made with known options."""
    images, text, scale = features

    def results(truth=TRUE, **config):
        cache, rows, ratings = FeatureCache(tmp_path, {}), [], cues.scores(**truth)
        for i, f in enumerate(images):
            cache.put(f'{i:04}', {'features': f.numpy(), 'shares': np.full(len(f), 1 / len(f))})
            rows.append({'name': f'{i}.png', 'key': f'{i:04}', 'rating': ratings[i], 'group': groups[i], 'error': ''})
        config = PAPER | {'backbone': 'RN50', 'cue': 'both', 'prompt_weights': None} | config
        metadata = {'metric': 'maclip', 'dataset': 'csiq', 'protocol': 'paper', 'config': config}
        run = {'metadata': metadata, 'cache_key': {}, 'lower_better': False, 'images': rows}
        save_run(tmp_path, 'csiq', 'maclip', run | {'text': text.tolist(), 'scale': scale})
        return tmp_path

    return results


def test_command(results, capsys):
    folder = results()
    assert main(['fit', str(folder), 'csiq', '--folds', '3', '--resamples', '100']) == 0
    out = capsys.readouterr().out
    assert ': real\n' in out and 'maclip on csiq (paper), n = 240' in out
    options = yaml.safe_load((folder / 'fit' / 'csiq.maclip.yml').read_text())
    assert {name: options.pop(name) for name in TRUE} == pytest.approx(TRUE, abs=0.1)
    assert options == {'backbone': 'RN50', 'cue': 'both', 'prompt_weights': None}
    assert (folder / 'fit' / 'csiq.maclip.png').read_bytes()[:4] == b'\x89PNG'


def test_command_starts_from_the_metric(results, capsys):
    """Constants and weights of the evaluated metric are the baseline, and what is not fitted stays."""
    truth = TRUE | {'prompt_weights': [0.5, 0.25, 0.25]}
    folder = results(truth, **truth)
    options = ['--weights', '--folds', '2', '--resamples', '100', '--seed', '3', '-m', 'maclip']
    assert main(['fit', str(folder), 'csiq', *options, '-o', str(folder / 'out')]) == 0
    assert 'unfitted 1.0000' in capsys.readouterr().out
    fitted = yaml.safe_load((folder / 'out' / 'csiq.maclip.weights.yml').read_text())
    assert fitted['prompt_weights'] == pytest.approx([0.5, 0.25, 0.25]) and fitted['base_norm'] == 0.6


def test_curves(cues):
    ratings = cues.scores(**TRUE)
    along = curves(cues, ratings, TRUE, points=5)
    assert along['box_lam'][0] == [-2, -1, 0, 1, 2] and along['alpha'][0] == [0, 2, 4, 6, 8]
    for values, heights in along.values():
        assert values[int(np.argmax(heights))] in (TRUE['box_lam'], TRUE['alpha'])
        assert max(heights) == pytest.approx(1)


@pytest.mark.parametrize(
    ('config', 'options', 'message'),
    [
        ({'cue': 'sim'}, [], 'one cue alone'),
        ({}, ['--resamples', '1'], 'at least 100'),
        ({}, ['--folds', '1'], 'at least 2'),
        ({}, ['--folds', '200'], '200 folds need'),
        ({}, ['-m', 'other'], "no features of 'csiq' by 'other'"),
    ],
)
def test_wrong_use(results, capsys, config, options, message):
    assert main(['fit', str(results(**config)), 'csiq', *options]) == 2
    assert message in capsys.readouterr().err


def test_command_without_features(tmp_path, capsys):
    assert main(['fit', str(tmp_path), 'csiq']) == 2
    assert 'maclip-pyiqa evaluate' in capsys.readouterr().err
