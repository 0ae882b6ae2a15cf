"""Agreement of scores with ratings: rank and linear correlation, the logistic fit, bootstrap intervals.

Higher is better in scores and ratings: the caller negates the others, as declared. The sign of a correlation is kept.

References: VQEG's five-parameter logistic function, in the form of Sheikh, Sabir and Bovik, "A Statistical Evaluation
of Recent Full Reference Image Quality Assessment Algorithms", IEEE TIP 2006.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy import optimize, special, stats

__all__ = ['krcc', 'plcc', 'srcc']

LEVEL = 0.95
REVERSED = 0.001  # reversal of a fit from which it is noted; less does not show in four digits of PLCC


def srcc(scores: np.ndarray, ratings: np.ndarray) -> float:
    """Spearman's rank correlation (SRCC).

    Args:
        scores, ratings: numbers of N images, (N,), finite; higher is better in both

    Returns:
        a number in [-1, 1]; NaN if either is constant, or of fewer than 2 images

    Raises:
        ValueError: arrays of different lengths

    Example:
        >>> import numpy as np
        >>> from maclip_pyiqa.evaluation.correlations import srcc
        >>> round(srcc(np.array([0.2, 0.5, 0.9]), np.array([1.0, 4.5, 5.0])), 6)
        1.0
    """
    return _defined(stats.spearmanr, scores, ratings)


def krcc(scores: np.ndarray, ratings: np.ndarray) -> float:
    """Kendall's rank correlation, tau-b (KRCC).

    Args:
        scores, ratings: numbers of N images, (N,), see `srcc()`

    Returns:
        a number in [-1, 1]; NaN as for `srcc`

    Raises:
        ValueError: arrays of different lengths

    Example:
        >>> import numpy as np
        >>> from maclip_pyiqa.evaluation.correlations import krcc
        >>> round(krcc(np.array([0.2, 0.5, 0.9]), np.array([1.0, 5.0, 4.5])), 6)
        0.333333
    """
    return _defined(stats.kendalltau, scores, ratings)


def plcc(scores: np.ndarray, ratings: np.ndarray) -> float:
    """Pearson's linear correlation (PLCC), without a fit.

    Args:
        scores, ratings: numbers of N images, (N,), see `srcc()`

    Returns:
        a number in [-1, 1]; NaN as for `srcc`

    Raises:
        ValueError: arrays of different lengths

    Example:
        >>> import numpy as np
        >>> from maclip_pyiqa.evaluation.correlations import plcc
        >>> round(plcc(np.array([0.2, 0.5, 0.8]), np.array([1.0, 2.5, 4.0])), 6)
        1.0
    """
    return _defined(stats.pearsonr, scores, ratings)


def _defined(statistic: Callable, scores: np.ndarray, ratings: np.ndarray) -> float:
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(ratings) == 0:
        return math.nan
    return float(statistic(scores, ratings).statistic)


def logistic(x: np.ndarray, b1: float, b2: float, b3: float, b4: float, b5: float) -> np.ndarray:
    r"""$b_1\,(1/2 - 1/(1 + e^{b_2 (x - b_3)})) + b_4 x + b_5$

    Example:
        >>> logistic(np.array([3.0]), 1, 2, 3, 4, 5)
        array([17.])
    """
    return b1 * (special.expit(b2 * (x - b3)) - 0.5) + b4 * x + b5  # 1 - 1/(1 + e^u) = expit(u), without overflow


def reversal(parameters: Sequence[float], low: float, high: float) -> float:
    r"""How far `logistic` runs against its main direction between two scores.

    With $s = 1/(1 + e^{-b_2 (x - b_3)})$ its slope is $b_1 b_2\,s(1 - s) + b_4$, where
    $s(1 - s) = 1 / (4 \cosh^2(b_2 (x - b_3) / 2))$. It is zero at most twice, at the same distance from $b_3$.

    Args:
        parameters: parameters b1 to b5 of `logistic`
        low, high: lowest and highest score

    Returns:
        all rises or all falls, whichever are smaller in sum, as a share of the range of values; 0: monotone

    Example:
        >>> reversal((3, 2, 0, 0, 0), -4, 4)
        0.0
        >>> round(reversal((3, 2, 0, -0.2, 0), -4, 4), 2)  # falls, rises and falls again
        0.34
    """
    b1, b2, b3, b4, _ = parameters
    steepest = b1 * b2 / 4  # slope of the sigmoid at b3
    if b4 * steepest >= 0 or abs(b4) >= abs(steepest):
        return 0.0
    distance = 2 * math.acosh(math.sqrt(-steepest / b4)) / abs(b2)
    values = logistic(np.clip([low, b3 - distance, b3 + distance, high], low, high), *parameters)
    steps = np.diff(values)
    return float(min(steps.clip(min=0).sum(), -steps.clip(max=0).sum()) / np.ptp(values))


@dataclass(frozen=True)
class LogisticFit:
    """The logistic fit of ratings to scores.

    Attributes:
        parameters: parameters b1 to b5 of `logistic`, with b2 not negative; None if the fit failed
        plcc, rmse: PLCC and RMSE of the fitted scores with the ratings, rmse in the ratings' unit; NaN if it failed
        problem: reason why it failed; empty if it did not
    """

    parameters: tuple[float, ...] | None = None
    plcc: float = math.nan
    rmse: float = math.nan
    problem: str = ''


def fit_logistic(scores: np.ndarray, ratings: np.ndarray) -> LogisticFit:
    """Least-squares fit of the five-parameter logistic function to scores and ratings, (N,).

    It fails for too few images, constant values, no convergence, or a result worse than the straight line, which the
    function contains.
    """
    scores, ratings = np.asarray(scores, float), np.asarray(ratings, float)
    if len(scores) < 6:
        return LogisticFit(problem=f'{len(scores)} images; 5 parameters need at least 6')
    if np.ptp(scores) == 0 or np.ptp(ratings) == 0:
        return LogisticFit(problem=f'all {"scores" if np.ptp(scores) == 0 else "ratings"} are equal')
    mean, std, tall = scores.mean(), scores.std(), np.ptp(ratings)
    u = (scores - mean) / std  # the same starts then suit scores of any scale
    fits, problem = [], ''
    # without bounds a nearly cubic relation sends b1 to infinity and b2 to zero
    bounds = np.array([20 * tall, 200.0, 10.0, np.inf, np.inf])
    for height, slope in product((tall, -tall), (1.0, 4.0)):  # each start leads to a local minimum of its own
        start = (height, slope, 0.0, 0.0, ratings.mean())
        try:
            with warnings.catch_warnings():  # about the covariance, which is not used
                warnings.simplefilter('ignore', optimize.OptimizeWarning)
                (b1, b2, b3, b4, b5), _ = optimize.curve_fit(
                    logistic, u, ratings, start, bounds=(-bounds, bounds), x_scale='jac', max_nfev=2_000
                )
        except RuntimeError as error:
            problem = ' '.join(str(error).split())
            continue
        sign = -1 if b2 < 0 else 1  # (b1, b2) and (-b1, -b2) are the same curve
        parameters = (sign * b1, sign * b2 / std, mean + std * b3, b4 / std, b5 - b4 * mean / std)
        fitted = logistic(scores, *parameters)
        if np.isfinite(fitted).all():
            fits.append((float(np.sqrt(np.mean((fitted - ratings) ** 2))), parameters, fitted))
    if not fits:
        return LogisticFit(problem=problem or 'the parameters diverged')
    rmse, parameters, fitted = min(fits, key=lambda fit: fit[0])
    straight = ratings.std() * math.sqrt(max(0.0, 1 - plcc(scores, ratings) ** 2))  # RMSE of the straight line
    if rmse > 1.001 * straight + 1e-6 * tall:
        return LogisticFit(problem='it ended worse than a straight line')
    return LogisticFit(tuple(float(b) for b in parameters), plcc(fitted, ratings), rmse)


def interval(
    statistic: Callable[..., float], *samples: np.ndarray, resamples: int, seed: int = 0
) -> tuple[float, float]:
    """95% bootstrap interval of a statistic of paired samples, by percentiles over resampled images.

    Args:
        statistic: function of arrays (N,), one for each sample
        samples: values of the images, arrays (N,)
        resamples: number of resamples; the interval is NaN for 0, and where the statistic itself is
        seed: seed of the resamples
    """
    if resamples == 0 or math.isnan(statistic(*samples)):
        return math.nan, math.nan
    how: dict[str, Any] = {'paired': True, 'vectorized': False, 'method': 'percentile'}
    how['batch'] = max(1, 2_000_000 // len(samples[0]))
    how['random_state'] = np.random.default_rng(seed)  # scipy has no `rng` before 1.15
    drawn = stats.bootstrap(samples, statistic, n_resamples=resamples, **how).bootstrap_distribution
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])  # a constant resample has no correlation
    return float(low), float(high)


def srcc_difference(a: np.ndarray, b: np.ndarray, ratings: np.ndarray, resamples: int) -> tuple[float, float, float]:
    """SRCC of scores a minus that of scores b, (N,), with its paired bootstrap `interval`: (difference, low, high)."""

    def difference(a: np.ndarray, b: np.ndarray, y: np.ndarray) -> float:
        return srcc(a, y) - srcc(b, y)

    return difference(a, b, ratings), *interval(difference, a, b, ratings, resamples=resamples)


def agreement(scores: np.ndarray, ratings: np.ndarray, resamples: int = 0) -> tuple[dict[str, Any], LogisticFit]:
    """All statistics of scores and ratings, (N,), by the names of the columns of results.csv, and the logistic fit."""
    row: dict[str, Any] = {}
    for name, statistic in {'srcc': srcc, 'krcc': krcc, 'plcc': plcc}.items():
        row[name] = statistic(scores, ratings)
        row[f'{name}_low'], row[f'{name}_high'] = interval(statistic, scores, ratings, resamples=resamples)
    fit = fit_logistic(scores, ratings)
    constant = [name for name, v in {'scores': scores, 'ratings': ratings}.items() if len(v) and np.ptp(v) == 0]
    notes = [f'all {name} are equal' for name in constant] + [f'no logistic fit: {fit.problem}'] * bool(fit.problem)
    if fit.parameters and (share := reversal(fit.parameters, np.min(scores), np.max(scores))) >= REVERSED:
        notes.append(f'the logistic fit is not monotone: it turns back by {share:.1%} of its range')
    return row | {'plcc_fit': fit.plcc, 'rmse_fit': fit.rmse, 'note': '; '.join(notes)}, fit
