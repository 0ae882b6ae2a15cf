"""The ablation study: out of the store it says what a fresh run with other settings says."""

import csv
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import special, stats

from maclip_pyiqa.evaluation import ablations as ablation
from maclip_pyiqa.evaluation import store
from maclip_pyiqa import MACLIP
from maclip_pyiqa.metric.maclip import PROMPTS

CONSTANTS = {'box_lam': 0.5, 'base_cos': 1.0, 'base_norm': 0.6, 'alpha': 1.0}


@pytest.fixture(scope='module')
def images(photos):
    return [photo[:, 40 * k : 40 * k + 80 + 8 * k, : 120 - 4 * k] for k, photo in enumerate(photos[:7])]


@pytest.fixture(scope='module')
def kept(images, tiny) -> store.Kept:
    net = MACLIP(backbone=tiny)
    with torch.no_grad():
        features = net.features(images)
    labels = np.array([3.0, 1.0, 7.0, 2.0, 6.0, 5.0, 4.0])
    names = [f'{i}.png' for i in range(7)]
    meta = {'constants': CONSTANTS, 'protocol': 'list', 'cue': 'both', 'prompt_weights': None}
    return store.Kept(features, net.backbone.text, net.backbone.scale, labels, list('aabbbcc'), names, meta)


@pytest.fixture(scope='module')
def scores(kept):
    return ablation.variants(kept)


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


def test_magnitudes_by_hand(scores, kept):
    for i, f in enumerate(kept.features):
        a = np.abs(f.numpy().astype(float))
        assert scores['cues', 'mean |f| alone'][i] == pytest.approx(a.mean(), abs=1e-6)
        z = a / (a.std(1, ddof=1, keepdims=True) + 1e-6)
        assert scores['cues', 'q_mag alone, no Box-Cox'][i] == pytest.approx(z.mean(), abs=1e-5)


def test_constants_are_those_of_the_run(kept, images, tiny):
    options = {'alpha': 2.0, 'box_lam': 0.2, 'base_cos': 0.8, 'base_norm': 0.5}
    mine = store.Kept(**(vars(kept) | {'meta': {'constants': options}}))
    with torch.no_grad():
        for variant, changed in {('reference', 'as run'): {}, ('alpha', '3'): {'alpha': 3.0}}.items():
            fresh = MACLIP(backbone=tiny, **(options | changed))(images)[:, 0]
            np.testing.assert_allclose(ablation.variants(mine)[variant], fresh, atol=2e-6)


def test_table(scores, kept):
    rows = ablation.table(scores, kept.labels, 20)
    assert {row['study'] for row in rows} == {
        *('reference', 'cues', 'fusion', 'fixed weight', 'lambda', 'alpha', 'prompt pairs', 'views')
    }
    want = {key: stats.spearmanr(values, kept.labels).statistic for key, values in scores.items()}
    for row in rows:
        key = row['study'], row['variant']
        assert row['srcc'] == pytest.approx(want[key]) and row['n'] == 7
        assert row['change'] == pytest.approx(want[key] - want['reference', 'as run'])


def test_thirds(scores, kept):
    rows = ablation.thirds(scores, kept.labels)
    assert [row['n'] for row in rows[:3]] == [3, 2, 2]
    low = rows[0]
    assert (low['cue'], low['third'], low['label_from'], low['label_to']) == ('q_sim', 'low', 1, 3)
    part = [1, 3, 0]  # labels 1, 2, 3
    assert low['srcc'] == pytest.approx(stats.spearmanr(scores['cues', 'q_sim alone'][part], [1, 2, 3]).statistic)
    assert [row['cue'] for row in rows[::3]] == ['q_sim', 'q_mag', 'as run']


def test_group_distances(kept):
    """Against scipy on all values, and on two groups that differ by a factor only."""
    rows = {row['stage']: row for row in ablation.group_distances(kept)}
    stages: dict[str, dict] = {'|f|': {}, 'standardised': {}, 'Box-Cox': {}}
    for group, f in zip(kept.groups, kept.features, strict=True):
        a = np.abs(f.numpy())
        z = a / a.std(1, ddof=1, keepdims=True)
        for stage, values in {'|f|': a, 'standardised': z, 'Box-Cox': special.boxcox1p(z, 0.5)}.items():
            stages[stage].setdefault(group, []).append(values.ravel())
    for stage, groups in stages.items():
        a, b, c = (np.concatenate(parts) for parts in groups.values())
        want = np.mean([stats.wasserstein_distance(x, y) for x, y in ((a, b), (a, c), (b, c))])
        assert rows[stage]['distance'] == pytest.approx(want, rel=0.02)
        assert rows[stage]['relative'] == pytest.approx(want / np.std(np.concatenate([a, b, c])), rel=0.1)
        assert rows[stage]['groups'] == 3

    f = kept.features[0]
    scaled = store.Kept(**(vars(kept) | {'features': [f, 3 * f], 'groups': ['a', 'b']}))
    rows = {row['stage']: row['distance'] for row in ablation.group_distances(scaled)}
    assert rows['|f|'] == pytest.approx(2 * float(f.abs().mean()), rel=0.01) and rows['Box-Cox'] < 1e-4
    assert ablation.group_distances(store.Kept(**(vars(kept) | {'groups': None}))) == []
    assert ablation.group_distances(store.Kept(**(vars(kept) | {'groups': ['a'] * 7}))) == []


def save(results, kept, dataset='mine', groups=True):
    shelf, images = store.Shelf(results, {}), []
    for i, f in enumerate(kept.features):
        shelf.put(f'{i:04}', f.numpy())
        group = kept.groups[i] if groups else None
        images.append({'name': kept.names[i], 'key': f'{i:04}', 'label': kept.labels[i], 'group': group, 'error': ''})
    run = {'meta': kept.meta, 'setting': {}, 'lower_better': False, 'images': images}
    store.save_run(results, dataset, 'maclip', run | {'text': kept.text.tolist(), 'scale': kept.scale.tolist()})


def test_command(tmp_path, kept, scores, capsys):
    save(tmp_path, kept)
    save(tmp_path, kept, 'ungrouped', groups=False)
    one_cue = store.Kept(**(vars(kept) | {'meta': kept.meta | {'cue': 'sim'}}))
    save(tmp_path, one_cue, 'one-cue')  # has no fusion to study
    assert ablation.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    output = tmp_path / 'ablation'
    assert shown.strip() == (output / 'ablation.md').read_text().strip()
    with open(output / 'ablation.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(scores)
    for row in rows:
        want = stats.kendalltau(scores[row['study'], row['variant']], kept.labels).statistic
        assert float(row['krcc']) == pytest.approx(want, abs=1e-6) and row['low'] == ''
        assert (
            f'| {row["study"]} | {row["variant"].replace("|", chr(92) + "|")} | 7 | {float(row["srcc"]):.4f} |' in shown
        )
    with open(output / 'groups.csv', newline='') as file:
        assert {row['dataset'] for row in csv.DictReader(file)} == {'mine'}
    for dataset in ('mine', 'ungrouped'):
        for name in ('cues', 'sweeps'):
            with Image.open(output / f'{dataset}.maclip.{name}.png') as image:
                assert np.ptp(np.array(image)) > 0

    assert ablation.main([str(tmp_path), '-d', 'mine', '--resamples', '20', '-o', str(tmp_path / 'other')]) == 0
    with open(tmp_path / 'other' / 'ablation.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(scores) and all(math.isfinite(float(row['low'])) for row in rows)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['nowhere'], 'nowhere holds no results'),
        (['{here}', '-d', 'csiq'], 'holds nothing to ablate of csiq, but of: mine (maclip)'),
        (['{here}', '-m', 'other'], 'holds nothing to ablate of any metric, but of: none'),
        (['{here}', '--resamples', 'x'], 'a whole number'),
    ],
)
def test_wrong_use(tmp_path, kept, capsys, options, message):
    save(tmp_path, kept)
    assert ablation.main([option.format(here=tmp_path) for option in options]) == 2
    assert message in capsys.readouterr().err
