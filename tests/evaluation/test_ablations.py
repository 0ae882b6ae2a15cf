"""Ablations: from cached features they give what a fresh run with other settings gives."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import special, stats

from maclip_pyiqa import MACLIP
from maclip_pyiqa.cli import main
from maclip_pyiqa.evaluation.ablations import ablate, compare_variants, group_distances, thirds, variants
from maclip_pyiqa.evaluation.cache import FeatureCache, Features, save_run
from maclip_pyiqa.metric.prompts import PROMPTS


@pytest.fixture(scope='module')
def images(photos):
    return [photo[:, 40 * k : 40 * k + 80 + 8 * k, : 120 - 4 * k] for k, photo in enumerate(photos[:7])]


def features_of(net, images) -> Features:
    with torch.no_grad():
        features = net.features(images)
    shares = [torch.tensor(net.plan(*image.shape[-2:]).shares) for image in images]
    ratings = np.array([3.0, 1.0, 7.0, 2.0, 6.0, 5.0, 4.0])
    names = [f'{i}.png' for i in range(7)]
    metadata = {'metric': 'maclip', 'dataset': 'mine', 'protocol': 'list', 'config': net.config}
    return Features(
        features, shares, net.backbone.text, net.backbone.scale, ratings, list('aabbbcc'), names, names, metadata
    )


@pytest.fixture(scope='module')
def features(images, tiny) -> Features:
    return features_of(MACLIP(backbone=tiny), images)


@pytest.fixture(scope='module')
def scores(features):
    return variants(features)


@pytest.mark.parametrize(
    ('variant', 'options'),
    [
        (('reference', 'as run'), {}),
        (('fusion', 'base constants 1.0, 1.0'), {'base_norm': 1.0}),
        (('fusion', 'no Box-Cox'), {'box_lam': 1.0}),
        (('lambda', '0'), {'box_lam': 0.0}),
        (('lambda', '0.7'), {'box_lam': 0.7}),
        (('alpha', '0.25'), {'alpha': 0.25}),
        (('prompt pairs', 'first 2'), {'prompts': PROMPTS[:2]}),
        (('views', 'global only'), {'views': 'global'}),
    ],
)
def test_equals_a_fresh_run(scores, images, tiny, variant, options):
    with torch.no_grad():
        fresh = MACLIP(backbone=tiny, **options)(images)[:, 0]
    np.testing.assert_allclose(scores[variant], fresh, atol=2e-6)


def test_cues_are_the_analysis(scores, images, tiny_metric):
    with torch.no_grad():
        analyses = tiny_metric.analyze(images)
    for i, analysis in enumerate(analyses):
        q_sim, q_mag = (float(v.mean()) for v in (analysis.q_sim, analysis.q_mag))
        assert scores['cues', 'q_sim alone'][i] == pytest.approx(q_sim, abs=1e-6)
        assert scores['cues', 'q_mag alone'][i] == pytest.approx(q_mag, abs=1e-6)
        assert scores['fusion', 'mean of the cues'][i] == pytest.approx((q_sim + q_mag) / 2, abs=1e-6)
        assert scores['fixed weight', '0.3'][i] == pytest.approx(0.3 * q_sim + 0.7 * q_mag, abs=1e-6)
        assert scores['views', 'windows only'][i] == pytest.approx(float(analysis.q_view[0, :-1].mean()), abs=1e-6)


def test_magnitudes_by_hand(scores, features):
    for i, f in enumerate(features.features):
        a = np.abs(f.numpy().astype(float))
        assert scores['cues', 'mean |f| alone'][i] == pytest.approx(a.mean(), abs=1e-6)
        z = a / (a.std(1, ddof=1, keepdims=True) + 1e-6)
        assert scores['cues', 'q_mag alone, no Box-Cox'][i] == pytest.approx(z.mean(), abs=1e-5)


def test_constants_are_those_of_the_run(images, tiny):
    options = {'alpha': 2.0, 'box_lam': 0.2, 'base_cos': 0.8, 'base_norm': 0.5}
    scores = variants(features_of(MACLIP(backbone=tiny, **options), images))
    with torch.no_grad():
        for variant, changed in {('reference', 'as run'): {}, ('alpha', '3'): {'alpha': 3.0}}.items():
            fresh = MACLIP(backbone=tiny, **(options | changed))(images)[:, 0]
            np.testing.assert_allclose(scores[variant], fresh, atol=2e-6)


def test_shares_are_those_of_the_run(images, tiny):
    net = MACLIP(backbone=tiny, stride=10, max_views=4)
    features = features_of(net, images)
    assert any(share[0] != share[1] for share in features.shares)  # else the test shows nothing
    scores = variants(features)
    with torch.no_grad():
        np.testing.assert_allclose(scores['reference', 'as run'], net(images)[:, 0], atol=2e-6)
        views = [analysis.q_view[0, :-1] for analysis in net.analyze(images)]
    expected = [q @ s[:-1] / s[:-1].sum() for q, s in zip(views, features.shares, strict=True)]
    np.testing.assert_allclose(scores['views', 'windows only'], expected, atol=2e-6)


def test_images_with_one_view(images, tiny, photos):
    """An image of one window has one view: it is its windows and its whole."""
    small = [*images[:6], photos[7][:, :64, :64]]
    scores = variants(features_of(MACLIP(backbone=tiny), small))
    values = {name: scores['views', name][6] for name in ('windows only', 'global only')}
    assert values['windows only'] == values['global only'] == scores['reference', 'as run'][6]
    assert ('views', 'global only') not in variants(features_of(MACLIP(backbone=tiny, views='global'), small))


def test_compare_variants(scores, features):
    rows = compare_variants(scores, features.ratings, 20)
    assert {row['study'] for row in rows} == {
        *('reference', 'cues', 'fusion', 'fixed weight', 'lambda', 'alpha', 'prompt pairs', 'views')
    }
    expected = {key: stats.spearmanr(values, features.ratings).statistic for key, values in scores.items()}
    for row in rows:
        key = row['study'], row['variant']
        assert row['srcc'] == pytest.approx(expected[key]) and row['n'] == 7
        assert row['change'] == pytest.approx(expected[key] - expected['reference', 'as run'])


def test_thirds(scores, features):
    rows = thirds(scores, features.ratings)
    assert [row['n'] for row in rows[:3]] == [3, 2, 2]
    low = rows[0]
    assert (low['cue'], low['third'], low['rating_from'], low['rating_to']) == ('q_sim', 'low', 1, 3)
    part = [1, 3, 0]  # ratings 1, 2, 3
    assert low['srcc'] == pytest.approx(stats.spearmanr(scores['cues', 'q_sim alone'][part], [1, 2, 3]).statistic)
    assert [row['cue'] for row in rows[::3]] == ['q_sim', 'q_mag', 'as run']


def test_group_distances(features):
    """Against scipy on all values, and on two groups that differ by a factor only."""
    rows = {row['stage']: row for row in group_distances(features)}
    stages: dict[str, dict] = {'|f|': {}, 'standardised': {}, 'Box-Cox': {}}
    for group, f in zip(features.groups, features.features, strict=True):
        a = np.abs(f.numpy())
        z = a / a.std(1, ddof=1, keepdims=True)
        for stage, values in {'|f|': a, 'standardised': z, 'Box-Cox': special.boxcox1p(z, 0.5)}.items():
            stages[stage].setdefault(group, []).append(values.ravel())
    for stage, groups in stages.items():
        a, b, c = (np.concatenate(parts) for parts in groups.values())
        expected = np.mean([stats.wasserstein_distance(x, y) for x, y in ((a, b), (a, c), (b, c))])
        assert rows[stage]['distance'] == pytest.approx(expected, rel=0.02)
        assert rows[stage]['relative'] == pytest.approx(expected / np.std(np.concatenate([a, b, c])), rel=0.1)
        assert rows[stage]['groups'] == 3

    f = features.features[0]
    rows = {
        row['stage']: row['distance'] for row in group_distances(replace(features, features=[f, 3 * f], groups='ab'))
    }
    assert rows['|f|'] == pytest.approx(2 * float(f.abs().mean()), rel=0.01) and rows['Box-Cox'] < 1e-4
    assert group_distances(replace(features, groups=None)) == []
    assert group_distances(replace(features, groups=['a'] * 7)) == []


def save(results, features, dataset='mine', groups=True, **config):
    cache, images = FeatureCache(results, {}), []
    for i, (f, shares) in enumerate(zip(features.features, features.shares, strict=True)):
        cache.put(f'{i:04}', {'features': f.numpy(), 'shares': shares.numpy()})
        group = features.groups[i] if groups else None
        rating, name = features.ratings[i], features.names[i]
        images.append({'name': name, 'key': f'{i:04}', 'rating': rating, 'group': group, 'error': ''})
    metadata = features.metadata | {'dataset': dataset, 'config': features.metadata['config'] | config}
    run = {'metadata': metadata, 'cache_key': {}, 'lower_better': False, 'images': images}
    run |= {'text': features.text.tolist(), 'scale': features.scale.tolist(), 'image_digest': '', 'text_digest': ''}
    save_run(results, dataset, 'maclip', run)


@pytest.mark.slow
def test_command(tmp_path, features, scores, capsys):
    save(tmp_path, features)
    save(tmp_path, features, 'ungrouped', groups=False)
    save(tmp_path, features, 'one-cue', cue='sim')  # has no fusion to study
    save(tmp_path, features, 'fitted', head='a.safetensors')  # nor has this
    assert main(['ablate', str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    output = tmp_path / 'ablation'
    assert shown.strip() == (output / 'ablation.md').read_text().strip()
    with open(output / 'ablation.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(scores)
    for row in rows:
        expected = stats.kendalltau(scores[row['study'], row['variant']], features.ratings).statistic
        assert float(row['krcc']) == pytest.approx(expected, abs=1e-6) and row['low'] == ''
        variant = row['variant'].replace('|', chr(92) + '|')
        assert f'| {row["study"]} | {variant} | 7 | {float(row["srcc"]):.4f} |' in shown
    with open(output / 'groups.csv', newline='') as file:
        assert {row['dataset'] for row in csv.DictReader(file)} == {'mine'}
    for dataset in ('mine', 'ungrouped'):
        for name in ('cues', 'sweeps'):
            with Image.open(output / f'{dataset}.maclip.{name}.png') as image:
                assert np.ptp(np.array(image)) > 0

    assert main(['ablate', str(tmp_path), '-d', 'mine', '--resamples', '20', '-o', str(tmp_path / 'other')]) == 0
    with open(tmp_path / 'other' / 'ablation.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(scores) and all(math.isfinite(float(row['low'])) for row in rows)


def test_data_sets_without_features_are_skipped(tmp_path, features):
    save(tmp_path, replace(features, features=[], shares=[]), 'empty')
    save(tmp_path, features)
    warnings = []
    text = ablate(tmp_path, warn=warnings.append)
    assert warnings == ['empty: no image has features; skipped'] and '| mine |' in text and '| empty |' not in text


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['nowhere'], 'nowhere holds no results'),
        (['{here}', '-d', 'csiq'], 'has no features to ablate of csiq; it has those of: mine (maclip)'),
        (['{here}', '-m', 'other'], 'has no features to ablate of any metric; it has those of: none'),
        (['{here}', '--resamples', 'x'], 'a whole number'),
    ],
)
def test_wrong_use(tmp_path, features, capsys, options, message):
    save(tmp_path, features)
    assert main(['ablate', *(option.format(here=tmp_path) for option in options)]) == 2
    assert message in capsys.readouterr().err
