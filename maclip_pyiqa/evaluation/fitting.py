"""Fit the metric's constants to labels, cross-validated, and say whether the gain is real.

What is fitted: lambda of the Box-Cox transform, alpha, the base constants and, if wanted, weights of the prompt pairs.
Of the two base constants only their difference counts in the fusion's softmax, so base_norm stays and base_cos moves.
A fitted metric is no longer MA-CLIP as published: say so where you report it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from scipy import interpolate, optimize, stats
from torch import Tensor

from ..metric.cues import cosine_cue, fuse, magnitude_cue

__all__ = ['Cues', 'Fit', 'fit', 'srcc']

PAPER = {'box_lam': 0.5, 'base_cos': 1.0, 'base_norm': 0.6, 'alpha': 1.0}
BOUNDS = {'box_lam': (-2.0, 2.0), 'difference': (-4.0, 4.0), 'alpha': (0.0, 8.0)}
NODES = 16  # of lambda: q_mag is a mean of entire functions of it, which a polynomial through these meets to 1e-6


class Cues:
    """Cues of all views of a data set, ready to be fused with any constants.

    Args:
        features: of each image's views, before normalisation, N tensors (V, D); `MACLIP.features` gives them
        text: L2-normalised prompt features, (P, 2, D); `MACLIP.backbone.text`
        scale: exp(logit_scale), (); `MACLIP.backbone.scale`

    Raises:
        ValueError: no images, or shapes that do not fit
    """

    def __init__(self, features: Sequence[Tensor], text: Tensor, scale: Tensor | float) -> None:
        if not len(features) or any(f.ndim != 2 or not len(f) or f.shape[1] != text.shape[-1] for f in features):
            raise ValueError(f'features are a tensor (V, {text.shape[-1]}) for each image, V and their number not zero')
        with torch.no_grad():
            self.attributes = torch.cat([cosine_cue(f, text, scale) for f in features]).double().cpu()  # (views, P)
            low, high = BOUNDS['box_lam']
            nodes = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
            rows = [
                torch.cat([magnitude_cue(f, lam) for f in features]).double().cpu().numpy() for lam in nodes.tolist()
            ]
        self._magnitude = interpolate.BarycentricInterpolator(nodes, np.stack(rows))
        counts = torch.tensor([len(f) for f in features])
        self._counts, self._image = counts, torch.arange(len(counts)).repeat_interleave(counts)

    def __len__(self) -> int:
        return len(self._counts)

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
            ValueError: box_lam is outside [-2, 2], or the wrong number of weights
        """
        low, high = BOUNDS['box_lam']
        if not low <= box_lam <= high:
            raise ValueError(f'box_lam is in [{low}, {high}] here, not {box_lam}')
        pairs = self.attributes.shape[1]
        weights = np.ones(pairs) if prompt_weights is None else np.asarray(prompt_weights, float)
        if weights.shape != (pairs,):
            raise ValueError(f'prompt_weights are {pairs} numbers, not {prompt_weights!r}')
        q_sim = self.attributes @ torch.from_numpy(weights / weights.sum())
        q_mag = torch.from_numpy(np.ascontiguousarray(self._magnitude(box_lam)))
        q, _ = fuse(q_sim, q_mag, base_cos, base_norm, alpha)  # (views,)
        return (torch.zeros(len(self), dtype=q.dtype).index_add(0, self._image, q) / self._counts).numpy()


@dataclass(frozen=True)
class Fit:
    """What was fitted, and what it is worth on images that it was not fitted to.

    Attributes:
        options: fitted to all images; `create_metric('maclip', **options)` takes them
        srcc: of the fitted metric on held-out images, mean over the folds, weighted by their sizes
        baseline: the same of the unfitted metric
        interval: 95 % of the gain srcc - baseline: paired bootstrap over groups, widened by Nadeau and Bengio's factor,
            as the folds were fitted to images that they share
        folds: options that each fold's other images gave
        fold: of each image, (N,)
    """

    options: dict[str, float | list[float]]
    srcc: float
    baseline: float
    interval: tuple[float, float]
    folds: list[dict[str, float | list[float]]]
    fold: np.ndarray

    @property
    def gain(self) -> float:
        """SRCC on held-out images, fitted less unfitted."""
        return self.srcc - self.baseline

    @property
    def real(self) -> bool:
        """Whether the whole interval of the gain is above zero."""
        return self.gain > 0 and self.interval[0] > 0

    @property
    def verdict(self) -> str:
        """The same in words."""
        return 'real' if self.real else 'not shown to be real; keep the unfitted constants'

    def save(self, path: str | os.PathLike, **others) -> None:
        """Write the options as YAML for `create_metric('maclip', **yaml.safe_load(file))`.

        Args:
            path: of the file
            **others: options that the features were made with, such as backbone, views or prompts

        Raises:
            OSError: it cannot be written
        """
        import yaml

        low, high = self.interval
        note = (
            f'# fitted, not the published metric; SRCC on held-out images {self.srcc:.4f}, unfitted '
            f'{self.baseline:.4f},\n# gain {self.gain:+.4f} [{low:+.4f}, {high:+.4f}]: {self.verdict}\n'
        )
        with open(path, 'w', encoding='utf-8') as file:
            file.write(note + yaml.safe_dump(others | self.options, sort_keys=False, allow_unicode=True))


def fit(
    cues: Cues,
    labels: np.ndarray,
    groups: Sequence[str] | None = None,
    *,
    weights: bool = False,
    folds: int = 5,
    resamples: int = 1000,
    seed: int = 0,
    start: dict[str, float | list[float]] | None = None,
) -> Fit:
    """Fit the constants to labels by their rank correlation (SRCC), and measure the gain by cross-validation.

    Args:
        cues: of N images
        labels: higher is better, (N,)
        groups: of each image, such as the photo that it is a version of: all of a group are in one fold, and the
            bootstrap draws groups; None: each image is its own
        weights: fit weights of the prompt pairs too
        folds: of the cross-validation
        resamples: of the bootstrap
        seed: of folds and bootstrap
        start: the unfitted metric's constants, and prompt_weights, where they are not the paper's

    Returns:
        a `Fit`

    Raises:
        ValueError: labels or groups that do not fit the images, or too few images or groups for the folds
    """
    labels = np.asarray(labels, float)
    if labels.shape != (len(cues),) or not np.isfinite(labels).all() or np.ptp(labels) == 0:
        raise ValueError(f'labels are {len(cues)} finite numbers, not all equal; given is an array {labels.shape}')
    if groups is not None and len(groups) != len(labels):
        raise ValueError(f'groups are {len(labels)} names, one for each image; {len(groups)} were given')
    group = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    fold = _folds(group, folds, seed)

    start = PAPER | (start or {})
    base, held_out, options = cues.scores(**start), np.empty(len(labels)), []
    for k in range(folds):
        mine = fold == k
        options.append(_optimum(cues, labels, ~mine, start, weights))
        held_out[mine] = cues.scores(**options[-1])[mine]
    return Fit(
        options=_optimum(cues, labels, np.ones(len(labels), bool), start, weights),
        srcc=_by_fold(held_out, labels, fold),
        baseline=_by_fold(base, labels, fold),
        interval=_interval(held_out, base, labels, fold, group, resamples, seed),
        folds=options,
        fold=fold,
    )


def srcc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where either is constant."""
    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(labels) == 0:
        return float('nan')
    return float(stats.spearmanr(scores, labels).statistic)


def _folds(group: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for each image: groups in random order, the larger first, each to the fold that has fewest images."""
    sizes = np.bincount(group)
    if folds < 2:
        raise ValueError(f'folds are at least 2, not {folds}')
    if len(sizes) < folds or len(group) < 3 * folds:
        raise ValueError(
            f'{folds} folds need at least {folds} groups and {3 * folds} images; given are {len(sizes)} groups and '
            f'{len(group)} images'
        )
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind='stable')]
    total, fold = np.zeros(folds, int), np.empty(len(sizes), int)
    for g in order:
        fold[g] = total.argmin()
        total[fold[g]] += sizes[g]
    return fold[group]


def _optimum(cues: Cues, labels: np.ndarray, use: np.ndarray, start: dict, weights: bool) -> dict:
    """Options of the greatest SRCC of the images in `use`."""
    pairs = cues.attributes.shape[1] if weights else 1

    def options(x: np.ndarray) -> dict:
        lam, difference, alpha, *logits = (float(v) for v in x)
        found = start | {'box_lam': lam, 'base_cos': start['base_norm'] + difference, 'alpha': alpha}
        if weights:
            w = np.exp([0.0, *logits])  # the first pair's logit is fixed: only the weights' ratios count
            found['prompt_weights'] = (w / w.sum()).tolist()
        return found

    def loss(x: np.ndarray) -> float:
        value = srcc(cues.scores(**options(x))[use], labels[use])
        return 1.0 if np.isnan(value) else -value

    # The loss is a step function with flat stretches: a coarse grid finds the valley, a simplex its bottom.
    w = np.maximum(start.get('prompt_weights') or np.ones(pairs), 1e-3)
    rest = np.log(w[1:pairs] / w[0]).tolist()
    first = np.array([start['box_lam'], start['base_cos'] - start['base_norm'], start['alpha'], *rest])
    grid = product((-1.5, -0.75, 0.0, 0.75, 1.5), (-3.0, -1.5, 0.0, 1.5, 3.0), (0.0, 1.0, 3.0, 6.0))
    best = min([first, *(np.array([*point, *rest]) for point in grid)], key=loss)
    bounds = [*BOUNDS.values(), *[(-4.0, 4.0)] * (pairs - 1)]
    low, high = np.array(bounds).T
    best = best.clip(low, high)
    steps = np.array([0.4, 0.7, 0.7, *[0.7] * (pairs - 1)])
    steps = np.where(best + steps > high, -steps, steps)
    simplex = np.vstack([best, best + np.diag(steps)])
    settings = {'initial_simplex': simplex, 'xatol': 1e-3, 'fatol': 1e-5, 'adaptive': weights}
    settings['maxfev'] = 150 * len(best)
    found = optimize.minimize(loss, best, method='Nelder-Mead', bounds=bounds, options=settings).x
    return options(min(first, best, found, key=loss))


def _by_fold(scores: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> float:
    # not over all images at once: scores of different folds come from different constants
    values = [(srcc(scores[fold == k], labels[fold == k]), (fold == k).sum()) for k in np.unique(fold)]
    values = [(value, size) for value, size in values if not np.isnan(value)]
    total = sum(size for _, size in values)
    return float(sum(value * size for value, size in values) / total) if values else float('nan')


def _interval(held_out, base, labels, fold, group, resamples: int, seed: int) -> tuple[float, float]:
    """95 % of the gain. The bootstrap takes each fold's fit as given, yet the fits share images, so that the folds'
    gains go up and down together: on labels that mean nothing its interval is a third too short. Hence the factor of
    Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 2003."""
    members = np.split(np.argsort(group, kind='stable'), np.cumsum(np.bincount(group))[:-1])

    def gain(drawn: np.ndarray) -> float:
        i = np.concatenate([members[g] for g in drawn])
        return _by_fold(held_out[i], labels[i], fold[i]) - _by_fold(base[i], labels[i], fold[i])

    all_groups = np.arange(len(members))
    drawn = stats.bootstrap(
        (all_groups,), gain, n_resamples=resamples, vectorized=False, method='percentile', rng=seed
    ).confidence_interval
    mean, folds = gain(all_groups), fold.max() + 1
    factor = np.sqrt(1 + folds / (folds - 1))
    return float(mean + factor * (drawn.low - mean)), float(mean + factor * (drawn.high - mean))
