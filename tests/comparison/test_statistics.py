"""Statistics of pairs against scipy's own functions, direct formulas, known answers and simulations."""

import math

import numpy as np
import pytest
from scipy import stats

from maclip_pyiqa.comparison.statistics import (
    FEWEST,
    detectable_difference,
    mean_interval,
    paired,
    wilson,
)
from maclip_pyiqa.comparison.verdict import verdict


@pytest.fixture
def scores():
    """40 pairs that differ by 0.01 on average, from images that differ by 0.2."""
    rng = np.random.default_rng(1)
    a = rng.normal(0.5, 0.2, 40)
    return a, a + rng.normal(0.01, 0.01, 40)


def test_statistics_of_hand_made_pairs():
    a = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    b = np.array([1.5, 2.25, 3.75, 5.0, 5.0, 5.875, 9.0])  # differences .5 .25 .75 1 0 -.125 2
    found = paired(a, b)
    assert (found.n, found.mean_a, found.mean_b) == (7, 4.0, pytest.approx(32.375 / 7))
    assert found.difference == pytest.approx(4.375 / 7)
    assert found.wins == 5.5 / 7  # the tie counts half
    # ranks 1 (negative) and 2 to 6: of the 64 signs, 2 have a sum of negative ranks of at most 1, on either side
    assert found.p == pytest.approx(2 * 2 / 64)
    other_way = paired(a, b, lower_better=True)
    assert other_way.wins == 1.5 / 7 and (other_way.difference, other_way.low) == (found.difference, found.low)


def test_interval_of_the_mean_against_an_own_bootstrap(scores):
    """Quantiles of resampled means, at the tails that Hesterberg's formula gives."""
    for values in (scores[1] - scores[0], np.random.default_rng(2).exponential(size=12)):
        n, rng = len(values), np.random.default_rng(3)
        means = rng.choice(values, (60_000, n)).mean(1)
        tail = stats.norm.cdf(-stats.t.ppf(0.975, n - 1) / math.sqrt(1 - 1 / n))
        want = np.quantile(means, [tail, 1 - tail])
        assert mean_interval(values, 60_000) == pytest.approx(want, abs=0.03 * np.ptp(want))
        student = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
        assert np.ptp(mean_interval(values)) == pytest.approx(np.ptp(student), rel=0.12)


@pytest.mark.parametrize('n', [6, 15])
def test_interval_covers_the_mean_in_95_of_100_samples(n):
    """A plain percentile interval misses it in 13 % at n = 6."""
    samples = np.random.default_rng(n).standard_normal((600, n))
    missed = np.mean([not low <= 0 <= high for low, high in (mean_interval(s, 999) for s in samples)])
    assert 0.025 < missed < 0.085


def test_interval_is_reproducible_and_follows_the_seed(scores):
    a, b = scores
    assert paired(a, b) == paired(a, b)
    assert paired(a, b).low != paired(a, b, seed=1).low
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    paired(a, b)
    assert (np.random.get_state()[1] == state).all()


def test_interval_of_many_pairs_is_bounded_in_time():
    values = np.random.default_rng(0).standard_normal(50_000) + 0.02
    low, high = mean_interval(values)
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(50_000), rel=0.1)


@pytest.mark.parametrize(('wins', 'n'), [(0, 3), (3, 3), (8, 10), (40, 100), (0, 1)])
def test_wilson_is_scipys(wins, n):
    assert wilson(wins, n) == pytest.approx(tuple(stats.binomtest(wins, n).proportion_ci(method='wilson')), abs=1e-12)


@pytest.mark.parametrize('n', [6, 20, 80])
def test_detectable_difference_has_80_percent_power(n):
    """Against the noncentral t distribution, which gives the power of the paired t test."""
    values = np.random.default_rng(n).normal(0, 0.1, n)
    noncentrality = detectable_difference(values) / (np.std(values, ddof=1) / math.sqrt(n))
    power = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, noncentrality)
    assert power == pytest.approx(0.8, abs=0.02)
    assert detectable_difference(values + 3) == pytest.approx(detectable_difference(values))


def test_wilcoxon_is_scipys(scores):
    a, b = scores
    assert paired(a, b).p == stats.wilcoxon(b, a).pvalue
    assert paired(a[:6], a[:6] + np.arange(1, 7)).p == 2 / 2**6


@pytest.mark.parametrize('n', range(FEWEST))
def test_few_pairs(n):
    a = np.linspace(0.2, 0.4, n)
    found = paired(a, a + 0.1)
    assert math.isnan(found.low) and math.isnan(found.detectable)
    assert verdict(found, 'A', 'B') == f'too few pairs for a verdict: n = {n}, at least 6 are needed'
    if n:
        assert found.difference == pytest.approx(0.1) and found.wins == 1 and 0 < found.p <= 1
    else:
        assert all(math.isnan(x) for x in (found.difference, found.wins, found.wins_low, found.p))


def test_equal_pairs():
    a = np.linspace(0, 1, 40)
    found = paired(a, a)
    assert (found.difference, found.low, found.high, found.p, found.wins, found.detectable) == (0, 0, 0, 1, 0.5, 0)
    assert verdict(found, 'A', 'B') == 'no difference: all 40 pairs are equal'


def test_rounding_is_no_difference():
    a = np.linspace(0.1, 0.9, 40)
    assert paired(a, a + 4e-7).p == 1 and 'equal' in verdict(paired(a, a + 4e-7), 'A', 'B')
    assert verdict(paired(100 * a, 100 * a + 5e-5 * a), 'A', 'B') == 'no difference: all 40 pairs are equal'
    assert verdict(paired(a, a + 1e-4), 'A', 'B') == 'B above A'


def test_one_constant_difference():
    a = np.linspace(0.1, 0.9, 8)
    found = paired(a, a - 0.25)
    assert found.low == pytest.approx(-0.25) and found.high == pytest.approx(-0.25)
    assert verdict(found, 'A', 'B') == 'B below A'


def test_verdicts(scores):
    a, b = scores
    assert verdict(paired(a, b), 'old', 'new') == 'new above old'
    assert verdict(paired(b, a), 'old', 'new') == 'new below old'
    assert verdict(paired(b, a, lower_better=True), 'old', 'new') == 'new below old (lower is better)'
    mixed = np.where(np.arange(40) % 2, b, 2 * a - b)  # the same differences, with alternating signs
    found = paired(a, mixed)
    assert found.low < 0 < found.high
    assert verdict(found, 'old', 'new').startswith('no difference shown at n = 40; a difference of 0.00')


def test_pairs_show_what_means_do_not(scores):
    a, b = scores
    assert stats.ttest_ind(a, b).pvalue > 0.5 and paired(a, b).low > 0


@pytest.mark.parametrize(
    ('a', 'b'), [([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]]), ([math.nan], [1.0]), ([1.0], [math.inf])]
)
def test_wrong_values(a, b):
    with pytest.raises(ValueError, match=r'expected|leave'):
        paired(np.array(a), np.array(b))
