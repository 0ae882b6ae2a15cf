"""Fit the metric's constants to ratings, cross-validated, and say whether the gain is real.

Fitted are lambda of the Box-Cox transform, alpha, the base constants and, if asked for, weights of the prompt pairs.
Only the difference of the base constants counts in the fusion's softmax, so base_norm stays and base_cos moves.
A fitted metric is not MA-CLIP as published: say so where you report it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from scipy import interpolate, optimize, special
from torch import Tensor

from ..metric.cues import cosine_cue, fuse, magnitude_cue
from .cache import Features
from .correlations import interval, srcc
from .tables import save_figure

__all__ = ['PAPER', 'CueTable', 'FittedConstants', 'curves', 'fit_constants', 'fit_features']

PAPER = {'box_lam': 0.5, 'base_cos': 1.0, 'base_norm': 0.6, 'alpha': 1.0}
BOUNDS = {'box_lam': (-2.0, 2.0), 'difference': (-4.0, 4.0), 'alpha': (0.0, 8.0)}
NODES = 16  # of lambda: q_mag is a mean of entire functions of it; a polynomial through these nodes is right to 1e-6
AXES = {'box_lam': r'Box-Cox $\lambda$', 'alpha': r'fusion $\alpha$'}  # of `curves`


class CueTable:
    """Cues of all views of a data set, to be fused with any constants.

    Args:
        features: features of each image's views before L2 normalisation, N tensors (V, D)
        text: L2-normalised prompt features, (P, 2, D)
        scale: exp(logit_scale), ()
        shares: share of each view in its image's score, N tensors (V,); None: equal

    Raises:
        ValueError: no images, or shapes that do not fit
    """

    def __init__(
        self, features: Sequence[Tensor], text: Tensor, scale: Tensor | float, shares: Sequence[Tensor] | None = None
    ) -> None:
        if not len(features) or any(f.ndim != 2 or not len(f) or f.shape[1] != text.shape[-1] for f in features):
            shapes = [tuple(f.shape) for f in features][:3]
            raise ValueError(
                f'the features have shapes {shapes}...; expected (V, {text.shape[-1]}) with V > 0 for each of N > 0 '
                'images'
            )
        with torch.no_grad():
            self.attributes = torch.cat([cosine_cue(f, text, scale) for f in features]).double().cpu()  # (views, P)
            nodes = BOUNDS['box_lam'][1] * np.polynomial.chebyshev.chebpts1(NODES)
            rows = [torch.cat([magnitude_cue(f, lam) for f in features]).double().cpu() for lam in nodes.tolist()]
        self._magnitude = interpolate.BarycentricInterpolator(nodes, torch.stack(rows).numpy())
        counts = torch.tensor([len(f) for f in features])
        self._image = torch.arange(len(counts)).repeat_interleave(counts)  # (views,)
        shares = shares or [torch.ones(len(f)) for f in features]
        self._shares = torch.cat([share.double() / share.sum() for share in shares])  # (views,)

    def __len__(self) -> int:
        return int(self._image[-1]) + 1

    def scores(
        self,
        box_lam: float = 0.5,
        base_cos: float = 1.0,
        base_norm: float = 0.6,
        alpha: float = 1.0,
        prompt_weights: Sequence[float] | None = None,
    ) -> np.ndarray:
        """Scores of the images, (N,), float64, as `MACLIP` with these options gives them.

        Raises:
            ValueError: box_lam outside [-2, 2], or the wrong number of weights
        """
        low, high = BOUNDS['box_lam']
        if not low <= box_lam <= high:
            raise ValueError(f'box_lam={box_lam}; expected a number in [{low}, {high}]')
        pairs = self.attributes.shape[1]
        weights = np.ones(pairs) if prompt_weights is None else np.asarray(prompt_weights, float)
        if weights.shape != (pairs,):
            raise ValueError(f'prompt_weights={prompt_weights!r}; expected {pairs} numbers')
        q_sim = self.attributes @ torch.from_numpy(weights / weights.sum())
        q_mag = torch.from_numpy(np.ascontiguousarray(self._magnitude(box_lam)))
        q, _ = fuse(q_sim, q_mag, base_cos, base_norm, alpha)  # (views,)
        return torch.zeros(len(self), dtype=q.dtype).index_add(0, self._image, q * self._shares).numpy()


@dataclass(frozen=True)
class FittedConstants:
    """What was fitted, and what it is worth on images that it was not fitted to.

    Attributes:
        options: options fitted to all images, for `create_metric('maclip', **options)`
        srcc: SRCC of the fitted metric on held-out images, mean over the folds, weighted by their sizes
        baseline: `srcc` of the unfitted metric
        interval: 95% interval of the gain srcc - baseline: paired bootstrap over groups, widened by Nadeau and Bengio's
            factor, as the folds share the images that they are fitted to
        folds: options fitted to the images outside each fold
        fold: fold of each image, (N,)
    """

    options: dict[str, Any]
    srcc: float
    baseline: float
    interval: tuple[float, float]
    folds: list[dict[str, Any]]
    fold: np.ndarray

    @property
    def gain(self) -> float:
        """SRCC on held-out images, fitted minus unfitted."""
        return self.srcc - self.baseline

    @property
    def real(self) -> bool:
        """Whether the gain and its whole interval are above zero."""
        return self.gain > 0 and self.interval[0] > 0

    @property
    def verdict(self) -> str:
        """`real` in words."""
        return 'real' if self.real else 'not shown to be real; keep the unfitted constants'

    def save(self, path: str | os.PathLike, config: dict[str, Any] | None = None) -> None:
        """Write the options, and further ones of `config`, as YAML for `create_metric('maclip', **options)`.

        Raises:
            OSError: the file cannot be written
        """
        low, high = self.interval
        note = (
            f'# fitted, not the published metric; SRCC on held-out images {self.srcc:.4f}, unfitted '
            f'{self.baseline:.4f},\n# gain {self.gain:+.4f} [{low:+.4f}, {high:+.4f}]: {self.verdict}\n'
        )
        options = yaml.safe_dump((config or {}) | self.options, sort_keys=False, allow_unicode=True)
        Path(path).write_text(note + options, 'utf-8')


def fit_features(features: Features, output: Path, **settings: Any) -> tuple[FittedConstants, Path]:
    """Fit the constants to what `evaluate` cached of a data set.

    Args:
        output: folder for DATASET.METRIC.yml (.weights.yml with weights), the options of the fitted metric, and .png,
            SRCC of all images along lambda and along alpha
        **settings: options of `fit_constants`: weights, folds, resamples, seed

    Returns:
        the fit, and the path of the YAML file

    Raises:
        ValueError: a metric of one cue, or as `fit_constants`
        OSError: a file cannot be written
    """
    metadata, config = features.metadata, features.metadata['config']
    if config['cue'] != 'both':
        raise ValueError(f'{metadata["metric"]} uses one cue alone; there is nothing to fuse')
    start = {name: config[name] for name in PAPER}
    if config['prompt_weights'] is not None:
        start['prompt_weights'] = config['prompt_weights']
    cues = CueTable(features.features, features.text, features.scale, features.shares)
    fit = fit_constants(cues, features.ratings, features.groups, start=start, **settings)
    path = output / f'{metadata["dataset"]}.{metadata["metric"]}{".weights" * settings.get("weights", False)}.yml'
    output.mkdir(parents=True, exist_ok=True)
    fit.save(path, config)
    draw_curves(path.with_suffix('.png'), cues, features.ratings, start, fit.options, features.title)
    return fit, path


def fit_constants(
    cues: CueTable,
    ratings: np.ndarray,
    groups: Sequence[str] | None = None,
    *,
    weights: bool = False,
    folds: int = 5,
    resamples: int = 1000,
    seed: int = 0,
    start: dict[str, Any] | None = None,
) -> FittedConstants:
    """Fit the constants to ratings by their rank correlation (SRCC), and measure the gain by cross-validation.

    Args:
        cues: cues of N images
        ratings: ratings of which higher is better, (N,)
        groups: group of each image, such as the photo that it is a version of: a group is in one fold, and the
            bootstrap draws groups; None: each image is its own
        weights: whether weights of the prompt pairs are fitted too
        folds: number of folds of the cross-validation
        resamples: number of resamples of the bootstrap
        seed: seed of folds and bootstrap
        start: constants and prompt_weights of the unfitted metric; those that it lacks are the paper's

    Raises:
        ValueError: ratings or groups that do not fit the images, or too few images or groups for the folds
    """
    ratings = np.asarray(ratings, float)
    if ratings.shape != (len(cues),) or not np.isfinite(ratings).all() or np.ptp(ratings) == 0:
        raise ValueError(f'ratings have the shape {ratings.shape}; expected {len(cues)} finite numbers, not all equal')
    if groups is not None and len(groups) != len(ratings):
        raise ValueError(f'there are {len(groups)} groups; expected {len(ratings)} names, one for each image')
    group = np.unique(np.arange(len(ratings)) if groups is None else groups, return_inverse=True)[1]
    fold = _folds(group, folds, seed)
    start = PAPER | (start or {})

    held_out, options = np.empty(len(ratings)), []
    for k in range(folds):
        test = fold == k
        options.append(_optimum(cues, ratings, ~test, start, weights))
        held_out[test] = cues.scores(**options[-1])[test]
    base = cues.scores(**start)

    members = np.split(np.argsort(group, kind='stable'), np.cumsum(np.bincount(group))[:-1])

    def gain(drawn: np.ndarray) -> float:
        i = np.concatenate([members[g] for g in drawn])
        return _by_fold(held_out[i], ratings[i], fold[i]) - _by_fold(base[i], ratings[i], fold[i])

    # The bootstrap takes each fold's fit as given, yet the fits share images, so the folds' gains rise and fall
    # together: on random ratings its interval is a third too short. Hence the factor of Nadeau and Bengio, "Inference
    # for the Generalization Error", Machine Learning 2003.
    mean = gain(np.arange(len(members)))
    drawn = interval(gain, np.arange(len(members)), resamples=resamples, seed=seed)
    low, high = (mean + math.sqrt(1 + folds / (folds - 1)) * (end - mean) for end in drawn)
    return FittedConstants(
        options=_optimum(cues, ratings, np.ones(len(ratings), bool), start, weights),
        srcc=_by_fold(held_out, ratings, fold),
        baseline=_by_fold(base, ratings, fold),
        interval=(low, high),
        folds=options,
        fold=fold,
    )


def curves(
    cues: CueTable, ratings: np.ndarray, options: dict[str, Any], points: int = 41
) -> dict[str, tuple[list[float], list[float]]]:
    """'box_lam' and 'alpha' -> values, and the SRCC of all images there, the other options unchanged."""
    found = {}
    for name in AXES:
        values = np.linspace(*BOUNDS[name], points).tolist()
        found[name] = values, [srcc(cues.scores(**options | {name: value}), ratings) for value in values]
    return found


def draw_curves(
    path: Path, cues: CueTable, ratings: np.ndarray, unfitted: dict[str, Any], fitted: dict[str, Any], title: str
) -> None:
    """`curves` with the other constants unfitted and fitted, as PNG."""
    figure = Figure((7.2, 3), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for label, options, style in (('unfitted', unfitted, '--'), ('fitted', fitted, '-')):
        height = srcc(cues.scores(**options), ratings)
        for axes, (name, (values, heights)) in zip(panels, curves(cues, ratings, options).items(), strict=True):
            (line,) = axes.plot(values, heights, style, label=f'other constants {label}')
            axes.plot(options[name], height, 'o', color=line.get_color(), label=f'{label} metric', clip_on=False)
            axes.set_xlabel(AXES[name])
            axes.grid(alpha=0.3)
    panels[0].set_ylabel('SRCC, all images')
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc='outside lower center', ncols=4, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    save_figure(path, figure)


def _folds(group: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for each image: groups in random order, the larger first, each to the fold with the fewest images."""
    sizes = np.bincount(group)
    if folds < 2:
        raise ValueError(f'folds={folds}; expected at least 2')
    if len(sizes) < folds or len(group) < 3 * folds:
        raise ValueError(
            f'there are {len(sizes)} groups and {len(group)} images; {folds} folds need at least {folds} groups and '
            f'{3 * folds} images'
        )
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind='stable')]
    total, fold = np.zeros(folds, int), np.empty(len(sizes), int)
    for g in order:
        fold[g] = total.argmin()
        total[fold[g]] += sizes[g]
    return fold[group]


def _optimum(
    cues: CueTable, ratings: np.ndarray, use: np.ndarray, start: dict[str, Any], weights: bool
) -> dict[str, Any]:
    """Options of the greatest SRCC of the images in `use`, (N,) of bool."""

    def options(x: np.ndarray) -> dict[str, Any]:
        lam, difference, alpha, *logits = x.tolist()
        changed: dict[str, Any] = {'box_lam': lam, 'base_cos': start['base_norm'] + difference, 'alpha': alpha}
        if weights:
            changed['prompt_weights'] = special.softmax([0.0, *logits]).tolist()  # only their ratios count
        return start | changed

    def loss(x: np.ndarray) -> float:
        value = srcc(cues.scores(**options(x))[use], ratings[use])
        return 1.0 if math.isnan(value) else -value

    # The loss is a step function with flat stretches: a coarse grid finds the valley, a simplex its bottom.
    pairs = cues.attributes.shape[1] if weights else 1
    w = np.maximum(start.get('prompt_weights') or np.ones(pairs), 1e-3)
    logits = np.log(w[1:pairs] / w[0]).tolist()
    first = np.array([start['box_lam'], start['base_cos'] - start['base_norm'], start['alpha'], *logits])
    grid = product((-1.5, -0.75, 0.0, 0.75, 1.5), (-3.0, -1.5, 0.0, 1.5, 3.0), (0.0, 1.0, 3.0, 6.0))
    low, high = np.array([*BOUNDS.values(), *[(-4.0, 4.0)] * (pairs - 1)]).T
    best = min([first, *(np.array([*point, *logits]) for point in grid)], key=loss).clip(low, high)
    steps = np.array([0.4, *[0.7] * (pairs + 1)])
    steps = np.where(best + steps > high, -steps, steps)
    settings = {'initial_simplex': np.vstack([best, best + np.diag(steps)]), 'adaptive': weights}
    settings |= {'xatol': 1e-3, 'fatol': 1e-5, 'maxfev': 150 * len(best)}
    bounds = optimize.Bounds(low, high)
    last = optimize.minimize(loss, best, method='Nelder-Mead', bounds=bounds, options=settings).x
    return options(min(first, best, last, key=loss))


def _by_fold(scores: np.ndarray, ratings: np.ndarray, fold: np.ndarray) -> float:
    """Mean SRCC of the folds, weighted by their sizes; not over all images at once, as each fold has its constants."""
    sizes = np.bincount(fold)
    values = np.array([srcc(scores[fold == k], ratings[fold == k]) for k in range(len(sizes))])
    defined = np.isfinite(values)
    return float(np.average(values[defined], weights=sizes[defined])) if defined.any() else math.nan
