"""Statistics against scipy and against values worked by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from maclip_pyiqa.evaluation import correlations as correlation

SCORES = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
LABELS = np.array([2.0, 1.0, 4.0, 3.0, 10.0])


def drawn(n=60, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.random(n)
    return labels + 0.3 * generator.standard_normal(n), labels


def test_by_hand():
    # rank differences 1, 1, 1, 1, 0: 1 - 6 * 4 / (5 * 24); of 10 pairs 2 are the other way round
    assert correlation.srcc(SCORES, LABELS) == pytest.approx(0.8)
    assert correlation.krcc(SCORES, LABELS) == pytest.approx(0.6)
    # deviations -2 -1 0 1 2 and -2 -3 0 -1 6: 18 / sqrt(10 * 50)
    assert correlation.plcc(SCORES, LABELS) == pytest.approx(18 / math.sqrt(500))


@pytest.mark.parametrize('name', ['spearmanr', 'kendalltau', 'pearsonr'])
def test_against_scipy_with_ties_and_sign(name):
    ours = {'spearmanr': correlation.srcc, 'kendalltau': correlation.krcc, 'pearsonr': correlation.plcc}[name]
    x, y = drawn()
    x = x.round(1)
    want = getattr(stats, name)(x, y).statistic
    assert ours(x, y) == pytest.approx(want) and 0.3 < want < 0.9
    assert ours(-x, y) == pytest.approx(-want)  # the sign is kept


@pytest.mark.parametrize('b', [(3.0, 8.0, 0.4, 0.5, 1.0), (40.0, 0.2, 50.0, 0.1, -5.0), (1.0, 900.0, 0.01, 0.0, 2.0)])
def test_fit_recovers_parameters(b):
    x = b[2] + np.linspace(-6, 6, 200) / b[1]
    y = correlation.logistic(x, *b)
    by_hand = b[0] * (0.5 - 1 / (1 + np.exp(b[1] * (x - b[2])))) + b[3] * x + b[4]
    np.testing.assert_allclose(y, by_hand, rtol=1e-12)
    fit = correlation.fit(x, y)
    assert fit.problem == '' and fit.plcc == pytest.approx(1) and fit.rmse < 1e-6 * b[0]
    np.testing.assert_allclose(correlation.logistic(x, *fit.parameters), y, atol=1e-5 * b[0])
    if b[3]:  # else b2 and b4 trade against each other only through the curve's shape, which is checked above
        np.testing.assert_allclose(fit.parameters, b, rtol=1e-3)


def test_fit_is_least_squares_in_the_labels_unit():
    x, y = drawn(200)
    fit = correlation.fit(x, 50 * y)
    left = 50 * y - correlation.logistic(x, *fit.parameters)
    assert fit.rmse == pytest.approx(math.sqrt((left**2).mean()))
    assert fit.rmse <= math.sqrt(((50 * y - np.poly1d(np.polyfit(x, 50 * y, 1))(x)) ** 2).mean())
    assert fit.plcc >= stats.pearsonr(x, y).statistic
    for k in range(5):  # no step along any parameter makes it better
        for step in (0.99, 1.01):
            moved = [p * step if i == k else p for i, p in enumerate(fit.parameters)]
            assert ((50 * y - correlation.logistic(x, *moved)) ** 2).mean() >= fit.rmse**2


def test_failed_fits_are_told(monkeypatch):
    x, y = drawn()
    assert 'at least 6' in correlation.fit(x[:5], y[:5]).problem
    assert correlation.fit(0 * x, y).problem == 'all scores are equal'
    assert correlation.fit(x, 0 * y).problem == 'all labels are equal'

    def lost(*args, **kwargs):
        raise RuntimeError('Optimal parameters not found')

    with monkeypatch.context() as patch:
        patch.setattr(correlation.optimize, 'curve_fit', lost)
        row, fit = correlation.summary(x, y, 0)
        assert fit.parameters is None and math.isnan(row['plcc_fit']) and math.isnan(row['rmse_fit'])
        assert row['note'] == 'no logistic fit: Optimal parameters not found'
    with monkeypatch.context() as patch:
        patch.setattr(correlation.optimize, 'curve_fit', lambda *a, **k: ((0, 1, 0, -9, 0), None))
        assert 'straight line' in correlation.fit(x, y).problem


@pytest.mark.filterwarnings('error')
def test_constant_scores():
    _, y = drawn()
    row, _ = correlation.summary(np.ones(60), y, 50)
    assert all(math.isnan(row[c]) for c in ('srcc', 'srcc_low', 'krcc', 'plcc_high', 'plcc_fit'))
    assert row['note'].startswith('all scores are equal')


def test_interval():
    x, y = drawn(400)
    low, high = correlation.interval(correlation.srcc, x, y, resamples=400)
    r = correlation.srcc(x, y)
    error = (1 + r**2 / 2) ** 0.5 / math.sqrt(400 - 3)  # Bonett and Wright's standard error, after Fisher's transform
    want = np.tanh(np.arctanh(r) + error * np.array([-1.96, 1.96]))
    np.testing.assert_allclose([low, high], want, atol=0.025)
    assert correlation.interval(correlation.srcc, x, y, resamples=400) == (low, high)  # the same each time
    assert all(math.isnan(v) for v in correlation.interval(correlation.srcc, x, y, resamples=0))


def test_paired_difference_is_narrower_than_unpaired():
    x, y = drawn(300)
    close = x + 0.02 * np.random.default_rng(1).standard_normal(300)
    difference, low, high = correlation.srcc_difference(x, close, y, 200)
    assert difference == pytest.approx(stats.spearmanr(x, y).statistic - stats.spearmanr(close, y).statistic)
    assert low <= difference <= high
    alone = correlation.interval(correlation.srcc, x, y, resamples=200)
    assert high - low < 0.3 * (alone[1] - alone[0])  # resampled together, what both share cancels
    assert correlation.srcc_difference(x, x, y, 50) == (0, 0, 0)


@pytest.mark.parametrize('slope', [2.0, -2.0])
def test_a_perfect_line_is_a_fit(slope):
    x = np.linspace(0, 1, 50)
    found = correlation.fit(x, slope * x + 1)
    assert not found.problem and found.plcc == pytest.approx(1) and found.rmse == pytest.approx(0, abs=1e-5)


def test_a_mirrored_metric_fits_as_well():
    """Saturated scores that fall with the label: from one start the fit ends in a poorer valley."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels = rng.uniform(0, 10, 80)
        scores = -np.tanh((labels - 5) / 1.5) + rng.normal(0, 0.3, 80)
        one, other = correlation.fit(scores, labels), correlation.fit(-scores, labels)
        assert one.rmse == pytest.approx(other.rmse, rel=2e-3)
