"""Fitting to ratings that were made with a known head and known constants, and to ratings that mean nothing."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyiqa
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from safetensors import safe_open
from scipy import stats

from maclip_pyiqa import MACLIP
from maclip_pyiqa.cli import main
from maclip_pyiqa.evaluation import fitting
from maclip_pyiqa.evaluation.cache import Features, load_features
from maclip_pyiqa.evaluation.correlations import srcc
from maclip_pyiqa.evaluation.fitting import Constants, RidgeHead, cross_validate, fit_features
from maclip_pyiqa.metric.head import Head
from maclip_pyiqa.scoring import read_image

PAPER = {'box_lam': 0.5, 'base_cos': 1.0, 'base_norm': 0.6, 'alpha': 1.0}
TRUE = {'box_lam': -1.0, 'base_cos': 0.0, 'base_norm': 0.6, 'alpha': 4.0}
COUNT, PAIRS, WIDTH = 240, 3, 48
ALL = np.arange(COUNT)


@pytest.fixture(scope='module')
def features():
    """Makes features of ratings: tails of all weights, so that lambda matters, and four images a photo."""
    generator = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(PAIRS, 2, WIDTH, generator=generator), dim=-1)
    images = []
    for _ in range(COUNT):
        tail, tilt = torch.rand(2, generator=generator)
        views = torch.randn(int(torch.randint(1, 5, (), generator=generator)), WIDTH, generator=generator)
        images.append(views.sign() * views.abs() ** (0.4 + 2 * tail) + 3 * tilt * (text[0, 0] - text[0, 1]))
    shares = [torch.full((len(f),), 1 / len(f)) for f in images]
    names, photos = [f'{i}.png' for i in ALL], [f'photo {i // 4}' for i in ALL]
    about = {'metric': 'maclip', 'dataset': 'csiq', 'protocol': 'paper', 'lower_better': False}
    about |= {'image_digest': 'a', 'text_digest': 'b'}

    def features(ratings, groups=photos, images=images, **config):
        config = PAPER | {'backbone': 'RN50', 'cue': 'both', 'prompt_weights': None, 'head': None} | config
        metadata = about | {'config': config}
        return Features(images, shares, text, torch.tensor(8.0), np.array(ratings), groups, names, names, metadata)

    return features


@pytest.fixture(autouse=True)
def no_curve(request, monkeypatch):
    """No learning curves, which take most of the time, but where they are tested."""
    if request.node.name not in ('test_a_known_head_is_found', 'test_commands'):
        monkeypatch.setattr(fitting, 'SIZES', [])


@pytest.fixture(scope='module')
def true_ratings(features):
    return Constants(features(ALL)).scores(PAPER | TRUE, ALL)


def features_of(metric, images, ratings=None):
    """What `evaluate` caches."""
    about = {'metric': 'own', 'dataset': 'list', 'protocol': 'list', 'lower_better': False, 'config': metric.config}
    about |= {name: getattr(metric.backbone, name) for name in ('image_digest', 'text_digest')}
    shares = [torch.tensor(metric.plan(*image.shape[1:]).shares) for image in images]
    names = [str(i) for i in range(len(images))]
    ratings = np.arange(len(images)) if ratings is None else ratings
    f, backbone = metric.features(images), metric.backbone
    return Features(f, shares, backbone.text, backbone.scale, ratings, None, names, names, about)


# --- the models -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'options', [{}, {'box_lam': -1.97, 'alpha': 3.0}, {'box_lam': 0, 'base_cos': -1.0}, {'box_lam': 1.23}]
)
@pytest.mark.parametrize('weights', [None, [1.0, 0.0, 2.0, 0.5, 0.5]])
def test_unfitted_scores_are_the_metrics(tiny, photos, options, weights):
    images = [photos[0][:, :150, :170], photos[1][:, :64, :64], photos[2][:, :110, :230]]
    metric = MACLIP(backbone=tiny, prompt_weights=weights, max_views=3, **options)
    cached = features_of(metric, images)
    for model in (RidgeHead(cached), Constants(cached)):
        np.testing.assert_allclose(model.base, metric(images)[:, 0], atol=5e-6)


def test_a_known_head_is_found(features):
    """Ratings that are linear in features and cues, and the worst and best of them as scores of 0 and 1."""
    model = RidgeHead(features(ALL))
    truth = np.random.default_rng(0).normal(size=WIDTH + 2)
    ratings = 3 + 2 * (model.x * model.scale) @ truth
    fit = cross_validate(RidgeHead(features(ratings)), resamples=100)
    assert fit.srcc > 0.99 and fit.real and fit.baseline < 0.5
    assert [row['ratings'] for row in fit.curve] == [10, 20, 50, 100, 192]
    values = [row['srcc'] for row in fit.curve]
    assert values[0] < values[2] < values[-1] == fit.srcc
    scale = np.ptp(ratings) / 2
    np.testing.assert_allclose(fit.parameters.coef_ / model.scale * scale, truth, atol=0.1 * np.abs(truth).max())
    scores = model.scores(fit.parameters, ALL)
    np.testing.assert_allclose(scores, (ratings - ratings.min()) / np.ptp(ratings), atol=0.05)


def test_a_leak_is_caught(features):
    """Each photo has a direction of its own and a rating that nothing foretells. Folds by photo find nothing; folds by
    image, which put versions of one photo on both sides, seem to find a lot."""
    rng = np.random.default_rng(1)
    photo = np.repeat(np.arange(COUNT // 4), 4)
    directions = torch.from_numpy(rng.normal(size=(COUNT // 4, WIDTH))).float()
    noise = torch.from_numpy(rng.normal(scale=0.2, size=(COUNT, WIDTH))).float()
    images = [f[:1] * 0 + d for f, d in zip(features(ALL).features, directions[photo] + noise, strict=True)]
    ratings = rng.normal(size=COUNT // 4)[photo] + rng.normal(scale=0.1, size=COUNT)
    data = replace(features(ratings, images=images), shares=[torch.ones(1)] * COUNT)
    by_photo = cross_validate(RidgeHead(data), resamples=100)
    by_image = cross_validate(RidgeHead(replace(data, groups=None)), resamples=100)
    assert abs(by_photo.srcc) < 0.3 and not by_photo.real
    assert by_image.srcc > by_photo.srcc + 0.5
    # entries of one file are together, whatever the data set says of them
    for groups in (None, [str(n) for n in ALL]):
        by_file = cross_validate(RidgeHead(replace(data, groups=groups, keys=[str(n) for n in photo])), resamples=100)
        assert abs(by_file.srcc) < 0.3 and all(len(set(each)) == 1 for each in by_file.fold.reshape(-1, 4))


@pytest.mark.slow
def test_known_constants_are_found(features, true_ratings):
    fit = cross_validate(Constants(features(true_ratings)), resamples=200)
    assert fit.baseline < 0.8  # else there is nothing to gain
    assert fit.srcc > 0.999 and fit.real and fit.interval[0] < fit.srcc - fit.baseline < fit.interval[1]
    assert {name: fit.parameters[name] for name in TRUE} == pytest.approx(TRUE, abs=0.1)
    assert all({name: each[name] for name in TRUE} == pytest.approx(TRUE, abs=0.3) for each in fit.folds)


@pytest.mark.slow
@pytest.mark.parametrize(('model', 'seeds'), [(RidgeHead, range(6)), (Constants, (2, 4, 6, 8))])
def test_random_ratings_give_no_real_gain(features, model, seeds):
    """Though on the images that it was fitted to, each fit does gain. For the constants, three of these (4, 6, 8) would
    be real by the plain bootstrap; of 100, it did so for 8 where 2.5 are due. Widened, heads have 1 of 100."""
    for seed in seeds:
        ratings = np.random.default_rng(seed).random(COUNT)
        data = model(features(ratings))
        fit = cross_validate(data, folds=3, resamples=200)
        assert not fit.real
        assert srcc(data.scores(fit.parameters, ALL), ratings) > srcc(data.base, ratings)


@pytest.mark.parametrize('start', [{}, {'alpha': 4.0, 'base_norm': 0.0, 'prompt_weights': [0.5, 0.25, 0.25]}])
def test_the_metric_keeps_the_constants_of_what_it_does_best(features, start):
    ratings = Constants(features(ALL, **start)).base
    fit = Constants(features(ratings, **start)).fit(ALL)
    assert {name: fit[name] for name in PAPER} == pytest.approx(PAPER | {n: start[n] for n in PAPER if n in start})
    assert fit['prompt_weights'] == start.get('prompt_weights')


# --- the cross-validation ---------------------------------------------------------------------------------------------


def test_groups_stay_together_and_folds_are_even(features):
    groups = np.repeat(np.arange(20), [31, 20, *[10] * 14, *[13] * 3, 10])
    groups = np.random.default_rng(0).permutation(groups).astype(str)
    fit = cross_validate(RidgeHead(features(ALL, list(groups))), folds=4, resamples=10)
    for group in set(groups):
        assert len(set(fit.fold[groups == group])) == 1
    assert sorted(set(fit.fold)) == [0, 1, 2, 3] and np.ptp(np.bincount(fit.fold)) <= 13


def test_folds_do_not_follow_the_order_of_the_list(features):
    """Lists go through five levels of a degradation in turn; dealt out in order, each fold would be a level."""
    fit = cross_validate(RidgeHead(features(ALL, None)), resamples=10)
    assert all(len(set(fit.fold[level::5])) == 5 for level in range(5))


@pytest.mark.parametrize('model', [RidgeHead, pytest.param(Constants, marks=pytest.mark.slow)])
def test_held_out_means_held_out(features, true_ratings, model):
    """Both figures again from what each fold was fitted to, by scipy; the interval with a loop: whole photos drawn,
    both metrics on the same images, widened by the factor for 4 folds."""
    noise = np.random.default_rng(1).normal(scale=0.1, size=COUNT)
    data = model(features(true_ratings + noise))
    fit = cross_validate(data, folds=4, resamples=500)
    scores = np.empty(COUNT)
    for k, parameters in enumerate(fit.folds):
        scores[fit.fold == k] = data.scores(parameters, ALL)[fit.fold == k]

    def mean(q, images):
        parts = [images[fit.fold[images] == k] for k in range(4)]
        return sum(len(i) * stats.spearmanr(q[i], data.ratings[i]).statistic for i in parts) / len(images)

    assert (fit.srcc, fit.baseline) == pytest.approx((mean(scores, ALL), mean(data.base, ALL)))
    rng, rows, gains = np.random.default_rng(5), ALL.reshape(-1, 4), []
    for _ in range(500):
        images = rows[rng.integers(len(rows), size=len(rows))].ravel()
        gains.append(mean(scores, images) - mean(data.base, images))
    gain = fit.srcc - fit.baseline
    want = gain + (1 + 4 / 3) ** 0.5 * (np.quantile(gains, [0.025, 0.975]) - gain)
    assert fit.interval == pytest.approx(want, abs=0.1 * np.ptp(want))
    other = cross_validate(data, folds=4, resamples=10, seed=1)
    assert (other.fold != fit.fold).any()


@pytest.mark.parametrize(
    ('ratings', 'groups', 'folds', 'say'),
    [
        (np.ones(COUNT), None, 5, 'of different ratings'),
        (ALL, ['a', 'b'] * 120, 5, 'folds=5 of 240 images in 2 groups'),
        (ALL, None, 1, 'at least 2 folds'),
        (ALL, None, 100, '3 images for each fold'),
    ],
)
def test_wrong_arguments(features, ratings, groups, folds, say):
    with pytest.raises(ValueError, match=say):
        cross_validate(RidgeHead(features(ratings, groups)), folds=folds)


@pytest.mark.parametrize(
    'sizes', [[48] * 5, [150, *[6] * 15]], ids=['five photos', 'one photo in more than half of the images']
)
def test_too_few_photos_for_an_interval(features, sizes, tmp_path):
    """Random ratings would be called a real gain far too often."""
    groups = [str(g) for g in np.repeat(np.arange(len(sizes)), sizes)]
    ratings = np.random.default_rng(0).random(COUNT)
    fit = cross_validate(RidgeHead(features(ratings, groups)), folds=4, resamples=100)
    assert np.isnan(fit.interval).all() and not fit.real and np.isfinite(fit.srcc)
    _, path = fit_features(features(ratings, groups), tmp_path, folds=4, resamples=10)
    assert Head.load(path).about['held_out']['interval of the gain'] is None  # JSON has no NaN


def test_constants_start_within_their_bounds(features):
    with pytest.raises(ValueError, match=r'box_lam=5; expected one in \[-2, 2\]'):
        Constants(features(ALL, box_lam=5))


@pytest.mark.parametrize('config', [{'cue': 'sim'}, {'head': 'a.safetensors'}])
def test_what_is_fitted_fuses_both_cues(features, config):
    with pytest.raises(ValueError, match='expected a metric that fuses both cues'):
        RidgeHead(features(ALL, **config))


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('lower_better', [False, True])
def test_a_head_scores_as_it_was_fitted(tiny, photos, tmp_path, lower_better):
    metric = MACLIP(backbone=tiny, prompts=[('a', 'b'), ('c', 'd')], stride=20)
    images = [photo[:, :70, 4 * n : 64 + 15 * n] for n, photo in enumerate(photos + photos)]
    data = features_of(metric, images, np.random.default_rng(0).uniform(1, 5, len(images)).round(1))
    if lower_better:  # as load_features gives DMOS
        data = replace(data, ratings=-data.ratings, metadata=data.metadata | {'lower_better': True})
    fit, path = fit_features(data, tmp_path / 'fit', licence='CC0', folds=3, resamples=20)
    assert path.name == 'list.own.head.safetensors' and path.stat().st_size < 6000
    fitted = pyiqa.create_metric('maclip', **metric.config | {'head': str(path)}, device='cpu')
    got = torch.cat([fitted(image[None]) for image in images])[:, 0].numpy()
    np.testing.assert_allclose(got, RidgeHead(data).scores(fit.parameters, np.arange(len(images))), atol=1e-5)
    about = fitted.net.head.about
    worst, best = (data.ratings.min(), data.ratings.max())
    assert about['ratings'] == ([-worst, -best] if lower_better else [worst, best])
    assert about['licence'] == 'CC0' and about['fitted_on']['images'] == about['fitted_on']['groups'] == len(images)
    assert about['held_out'] == {
        'srcc': fit.srcc, 'unfitted': fit.baseline, 'interval of the gain': list(fit.interval)
    }  # fmt: skip
    with safe_open(path, 'pt') as file:
        assert sum(file.get_tensor(name).numel() for name in file.keys()) == 64 + 3  # noqa: SIM118


def test_constants_are_what_pyiqa_takes(tiny, photos, tmp_path):
    metric = MACLIP(backbone=tiny, stride=20, prompt_weights=[1, 2, 3, 4, 5])
    images = [photo[:, :70, : 64 + 10 * n] for n, photo in enumerate(photos)]
    data = features_of(metric, images)
    fit, path = fit_features(data, tmp_path, 'constants', 'of two\nlines: {', folds=3, resamples=20)
    text = path.read_text()
    assert (
        path.name == 'list.own.constants.yml'
        and 'not the published metric' in text
        and 'licence: of two lines: {\n' in text
    )
    fitted = pyiqa.create_metric('maclip', **yaml.safe_load(text), device='cpu')
    got = torch.cat([fitted(image[None]) for image in images])[:, 0]
    np.testing.assert_allclose(got, Constants(data).scores(fit.parameters, np.arange(len(images))), atol=1e-5)


# --- from a CSV of ratings to a fitted metric -------------------------------------------------------------------------


@pytest.mark.slow
def test_commands(tmp_path, photo_files, capsys, monkeypatch):
    """Ratings in columns of any names, of which one names no file and one is there twice."""
    monkeypatch.chdir(tmp_path)
    Path('photos').mkdir()
    rows = []
    for n in range(30):
        with Image.open(photo_files[n % 10]) as photo:
            photo.crop((n, 0, 110 + n, 100)).reduce(1 + n // 10).resize((110, 100)).save(f'photos/{n}.png')
        rows.append({'Bild': f'{n}.png', 'Note': n // 10 + n % 10 / 20, 'Motiv': n % 10, 'rater': 'x'})
    rows += [rows[3], {'Bild': 'gone.png', 'Note': 2, 'Motiv': 3, 'rater': 'y'}]
    with open('Noten.csv', 'w', newline='') as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    columns = ['--file-column', 'Bild', '--rating-column', 'Note', '--group-column', 'Motiv', '--ratings', 'dmos']
    how = ['--resamples', '0', '--device', 'cpu', '--workers', '0']
    assert main(['evaluate', '-m', 'maclip_demo', '--list', 'Noten.csv', '--images', 'photos', *columns, *how]) == 1
    data = load_features(Path('results'), 'Noten')
    assert len(data.names) == 31 and data.groups == [str(row['Motiv']) for row in rows[:31]]
    capsys.readouterr()

    assert main(['fit', 'results', 'Noten', '--folds', '3', '--resamples', '100', '--licence', 'ours']) == 0
    out = capsys.readouterr().out
    assert 'maclip_demo on Noten (list), n = 31; 3 folds by photo' in out and 'not MA-CLIP as published' in out
    head = 'results/fit/Noten.maclip_demo.head.safetensors'
    curve = [
        [float(cell) for cell in line.split(',')] for line in Path(head).with_suffix('.csv').read_text().split()[1:]
    ]
    assert [int(n) for n, _ in curve] == [10, 21] and all(f'{n:7.0f}  {value:.4f}' in out for n, value in curve)

    assert main(['score', 'photos/3.png', '--backbone', 'demo', '--head', head]) == 0
    shown = capsys.readouterr()
    assert 'metric with a head fitted to ratings: not MA-CLIP as published' in shown.err
    metric = pyiqa.create_metric('maclip_demo', head=head)
    score = metric(read_image('photos/3.png')[None]).item()
    assert float(shown.out.split('\t')[1]) == pytest.approx(score, abs=1e-6)
    worst, best = metric.net.head.about['ratings']
    assert (worst, best) == (max(row['Note'] for row in rows), min(row['Note'] for row in rows))
    assert metric.net.head.about['licence'] == 'ours'

    # beside the unfitted metric in the same tables, under a name of its own
    assert (
        main(
            [
                'evaluate',
                '-m',
                'maclip_demo',
                '--head',
                head,
                '--list',
                'Noten.csv',
                '--images',
                'photos',
                *columns,
                *how,
            ]
        )
        == 1
    )
    names = [row['metric'] for row in csv.DictReader(Path('results/results.csv').read_text().splitlines())]
    assert names == ['maclip_demo', 'maclip_demo+Noten.maclip_demo.head']
    page = Path('results/results.md').read_text()
    assert 'metric with a head fitted to ratings: not MA-CLIP as published' in page
    assert main(['fit', 'results', 'Noten', '--folds', '3', '--resamples', '100']) == 0  # of the one without a head
