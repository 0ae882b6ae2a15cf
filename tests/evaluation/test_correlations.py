"""Statistics against scipy and against values worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from maclip_pyiqa.evaluation import correlations

SCORES = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
RATINGS = np.array([2.0, 1.0, 4.0, 3.0, 10.0])


def drawn(n=60, seed=0):
    generator = np.random.default_rng(seed)
    ratings = generator.random(n)
    return ratings + 0.3 * generator.standard_normal(n), ratings


def test_by_hand():
    # rank differences 1, 1, 1, 1, 0: 1 - 6 * 4 / (5 * 24); of 10 pairs 2 are the other way round
    assert correlations.srcc(SCORES, RATINGS) == pytest.approx(0.8)
    assert correlations.krcc(SCORES, RATINGS) == pytest.approx(0.6)
    # deviations -2 -1 0 1 2 and -2 -3 0 -1 6: 18 / sqrt(10 * 50)
    assert correlations.plcc(SCORES, RATINGS) == pytest.approx(18 / math.sqrt(500))


@pytest.mark.parametrize('name', ['spearmanr', 'kendalltau', 'pearsonr'])
def test_against_scipy_with_ties_and_sign(name):
    ours = {'spearmanr': correlations.srcc, 'kendalltau': correlations.krcc, 'pearsonr': correlations.plcc}[name]
    x, y = drawn()
    x = x.round(1)
    expected = getattr(stats, name)(x, y).statistic
    assert ours(x, y) == pytest.approx(expected) and 0.3 < expected < 0.9
    assert ours(-x, y) == pytest.approx(-expected)  # the sign is kept


@pytest.mark.parametrize('b', [(3.0, 8.0, 0.4, 0.5, 1.0), (40.0, 0.2, 50.0, 0.1, -5.0), (1.0, 900.0, 0.01, 0.0, 2.0)])
def test_fit_recovers_parameters(b):
    x = b[2] + np.linspace(-6, 6, 200) / b[1]
    y = correlations.logistic(x, *b)
    by_hand = b[0] * (0.5 - 1 / (1 + np.exp(b[1] * (x - b[2])))) + b[3] * x + b[4]
    np.testing.assert_allclose(y, by_hand, rtol=1e-12)
    fit = correlations.fit_logistic(x, y)
    assert fit.problem == '' and fit.plcc == pytest.approx(1) and fit.rmse < 1e-6 * b[0]
    np.testing.assert_allclose(correlations.logistic(x, *fit.parameters), y, atol=1e-5 * b[0])
    assert fit.parameters[1] > 0
    if b[3]:  # else b2 and b4 trade against each other only through the curve's shape, which is checked above
        np.testing.assert_allclose(fit.parameters, b, rtol=1e-3)


@pytest.mark.parametrize('sign', [1, -1])
def test_the_mirrored_solution_is_normalised(monkeypatch, sign):
    """(b1, b2) and (-b1, -b2) are one curve; which of them curve_fit finds depends on scipy's version."""
    x, y = drawn(200)
    plain = correlations.optimize.curve_fit

    def mirrored(*args, **kwargs):
        (b1, b2, *rest), covariance = plain(*args, **kwargs)
        flip = sign * np.sign(b2)
        return (flip * b1, flip * b2, *rest), covariance

    expected = correlations.fit_logistic(x, y)
    monkeypatch.setattr(correlations.optimize, 'curve_fit', mirrored)
    fit = correlations.fit_logistic(x, y)
    assert fit.parameters == expected.parameters and fit.parameters[1] > 0


def test_fit_is_least_squares_in_the_ratings_unit():
    x, y = drawn(200)
    fit = correlations.fit_logistic(x, 50 * y)
    left = 50 * y - correlations.logistic(x, *fit.parameters)
    assert fit.rmse == pytest.approx(math.sqrt((left**2).mean()))
    assert fit.rmse <= math.sqrt(((50 * y - np.poly1d(np.polyfit(x, 50 * y, 1))(x)) ** 2).mean())
    assert fit.plcc >= stats.pearsonr(x, y).statistic
    for k in range(5):  # no step along any parameter makes it better
        for step in (0.99, 1.01):
            moved = [p * step if i == k else p for i, p in enumerate(fit.parameters)]
            assert ((50 * y - correlations.logistic(x, *moved)) ** 2).mean() >= fit.rmse**2


def test_failed_fits_say_why(monkeypatch):
    x, y = drawn()
    assert 'at least 6' in correlations.fit_logistic(x[:5], y[:5]).problem
    assert correlations.fit_logistic(0 * x, y).problem == 'all scores are equal'
    assert correlations.fit_logistic(x, 0 * y).problem == 'all ratings are equal'

    def lost(*args, **kwargs):
        raise RuntimeError('Optimal parameters not found')

    with monkeypatch.context() as patch:
        patch.setattr(correlations.optimize, 'curve_fit', lost)
        row, fit = correlations.agreement(x, y, 0)
        assert fit.parameters is None and math.isnan(row['plcc_fit']) and math.isnan(row['rmse_fit'])
        assert row['note'] == 'no logistic fit: Optimal parameters not found'
    with monkeypatch.context() as patch:
        patch.setattr(correlations.optimize, 'curve_fit', lambda *a, **k: ((0, 1, 0, -9, 0), None))
        assert 'straight line' in correlations.fit_logistic(x, y).problem


@pytest.mark.filterwarnings('error')
def test_constant_scores():
    _, y = drawn()
    row, _ = correlations.agreement(np.ones(60), y, 50)
    assert all(math.isnan(row[c]) for c in ('srcc', 'srcc_low', 'krcc', 'plcc_high', 'plcc_fit'))
    assert row['note'].startswith('all scores are equal')


def test_interval():
    x, y = drawn(400)
    low, high = correlations.interval(correlations.srcc, x, y, resamples=400)
    r = correlations.srcc(x, y)
    error = (1 + r**2 / 2) ** 0.5 / math.sqrt(400 - 3)  # Bonett and Wright's standard error, after Fisher's transform
    expected = np.tanh(np.arctanh(r) + error * np.array([-1.96, 1.96]))
    np.testing.assert_allclose([low, high], expected, atol=0.025)
    assert correlations.interval(correlations.srcc, x, y, resamples=400) == (low, high)  # the same each time
    assert all(math.isnan(v) for v in correlations.interval(correlations.srcc, x, y, resamples=0))


def test_paired_difference_is_narrower_than_unpaired():
    x, y = drawn(300)
    close = x + 0.02 * np.random.default_rng(1).standard_normal(300)
    difference, low, high = correlations.srcc_difference(x, close, y, 200)
    assert difference == pytest.approx(stats.spearmanr(x, y).statistic - stats.spearmanr(close, y).statistic)
    assert low <= difference <= high
    alone = correlations.interval(correlations.srcc, x, y, resamples=200)
    assert high - low < 0.3 * (alone[1] - alone[0])  # resampled together, what both share cancels
    assert correlations.srcc_difference(x, x, y, 50) == (0, 0, 0)


@given(
    b1=st.floats(-20, 20),
    b2=st.floats(0.01, 100),
    b3=st.floats(-6, 6),
    b4=st.floats(-5, 5),
    ends=st.tuples(st.floats(-4, -0.1), st.floats(0.1, 4)),
)
def test_reversal_against_a_dense_grid(b1, b2, b3, b4, ends):
    values = correlations.logistic(np.linspace(*ends, 100_001), b1, b2, b3, b4, 1.0)
    assume(np.ptp(values) > 1e-3)
    steps = np.diff(values)
    expected = min(steps[steps > 0].sum(), -steps[steps < 0].sum()) / np.ptp(values)
    got = correlations.reversal((b1, b2, b3, b4, 1.0), *ends)
    assert got == pytest.approx(expected, abs=1e-3)
    assert correlations.reversal((-b1, b2, b3, -b4, 1.0), *ends) == pytest.approx(got)  # whichever way it runs


@pytest.mark.slow
def test_fits_that_are_not_monotone_are_noted():
    """Noise and 145 images; a fit of them falls, rises and falls, or the like."""
    generator = np.random.default_rng(0)
    noted = 0
    for _ in range(3):
        ratings = generator.random(145)
        scores = ratings + 2 * generator.standard_normal(145)
        row, fit = correlations.agreement(scores, ratings)
        values = correlations.logistic(np.linspace(scores.min(), scores.max(), 100_001), *fit.parameters)
        steps = np.diff(values)
        back = min(steps[steps > 0].sum(), -steps[steps < 0].sum()) / np.ptp(values)
        text = f'the logistic fit is not monotone: it turns back by {back:.1%} of its range'
        assert row['note'] == (text if back > 0.001 else '')
        noted += back > 0.1
    assert noted


@pytest.mark.parametrize('sign', [1, -1])
def test_monotone_fits_are_not_noted(sign):
    """Also not for the rounding of parameters: b4 is zero here, and the ends are flat."""
    x = np.linspace(-1, 1, 200)
    row, fit = correlations.agreement(x, sign * correlations.logistic(x, 2.0, 15.0, 0.1, 0.0, 3.0))
    assert row['note'] == '' and fit.plcc == pytest.approx(1)


@pytest.mark.parametrize('slope', [2.0, -2.0])
def test_a_perfect_line_is_a_fit(slope):
    x = np.linspace(0, 1, 50)
    found = correlations.fit_logistic(x, slope * x + 1)
    assert not found.problem and found.plcc == pytest.approx(1) and found.rmse == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
def test_a_mirrored_metric_fits_as_well():
    """Saturated scores that fall with the rating: from a single start the fit ends in a poorer minimum."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        ratings = rng.uniform(0, 10, 80)
        scores = -np.tanh((ratings - 5) / 1.5) + rng.normal(0, 0.3, 80)
        one, other = correlations.fit_logistic(scores, ratings), correlations.fit_logistic(-scores, ratings)
        assert one.rmse == pytest.approx(other.rmse, rel=2e-3)
