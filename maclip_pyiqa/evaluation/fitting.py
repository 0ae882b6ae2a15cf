"""Fit the metric to ratings, cross-validated: what is the gain, is it real, and how many ratings are enough?

Two models, one mechanism: `RidgeHead` fits a `Head`, `Constants` those of the cues and of their fusion. A fitted metric
is not MA-CLIP as published: say so where you report it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from scipy import interpolate, optimize, sparse
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict
from torch import Tensor

from ..metric.cues import box_cox, cosine_cue, fuse, magnitude_cue, standardise
from ..metric.head import Head
from ..scoring.schema import now, versions
from .cache import Features
from .correlations import interval, srcc
from .tables import save_table

__all__ = ['Fit', 'fit_features']

SIZES = [first * 10**power for power in range(1, 7) for first in (1, 2, 5)]  # of the learning curve, ratings
PENALTIES = np.logspace(-1, 5, 7)  # of the ridge regression
# of lambda, of the difference of the base constants, and of alpha: the least, the greatest, a first step, and a grid
LOW, HIGH, STEP = np.array([-2.0, -4.0, 0.0]), np.array([2.0, 4.0, 8.0]), np.array([0.4, 0.7, 0.7])
GRID = ((-1.5, -0.75, 0.0, 0.75, 1.5), (-3.0, -1.5, 0.0, 1.5, 3.0), (0.0, 1.0, 3.0, 6.0))
FEWEST = 6  # groups of an interval
NODES = 16  # of lambda: q_mag is a mean of entire functions of it; a polynomial through these nodes is right to 1e-6


class _Data:
    """Features and ratings of N images that `evaluate` cached, and the group of each, (N,)."""

    def __init__(self, features: Features) -> None:
        self.about, self.config = features.metadata, features.metadata['config']
        if self.config['cue'] != 'both' or self.config['head']:
            raise ValueError(f'{self.about["metric"]} has one cue or a head; expected a metric that fuses both cues')
        self.features, self.shares, self.ratings = features.features, features.shares, np.asarray(features.ratings)
        if len(self.ratings) < 2 or np.ptp(self.ratings) == 0:
            raise ValueError(
                f'{len(self.ratings)} images have features and ratings; expected several, of different ratings'
            )
        # copies of a file are one group too, and join those that they are in
        group, key = (np.unique(x, return_inverse=True)[1] for x in (features.groups or features.keys, features.keys))
        nodes = max(group) + 1, max(group) + max(key) + 2
        graph = sparse.coo_array((np.ones(len(key)), (group, nodes[0] + key)), (nodes[1], nodes[1]))
        self.group = np.unique(sparse.csgraph.connected_components(graph)[1][group], return_inverse=True)[1]
        weights = torch.tensor(self.config['prompt_weights'] or [1 / len(features.text)] * len(features.text))
        self.q_sim = [cosine_cue(f, features.text, features.scale) @ weights for f in self.features]  # N of (V,)


class RidgeHead(_Data):
    """Ridge regression of ratings on normalised features and cues. A head is linear, so an image's score is that of the
    means over its views. Parameters: the regression."""

    suffix = '.safetensors'

    def __init__(self, features: Features) -> None:
        super().__init__(features)
        fusion, means = [self.config[name] for name in ('base_cos', 'base_norm', 'alpha')], []
        for f, q_sim, shares in zip(self.features, self.q_sim, self.shares, strict=True):
            q_mag = magnitude_cue(f, self.config['box_lam'])
            cues = torch.stack([q_sim, q_mag, fuse(q_sim, q_mag, *fusion)[0]], 1)
            means.append(shares @ torch.cat([F.normalize(f, dim=-1), cues], 1))
        columns = torch.stack(means).double().numpy()
        x, self.base = columns[:, :-1], columns[:, -1]  # (N, D + 2); scores of the unfitted metric, (N,)
        # cues and, together, the dimensions of the feature: those that vary little would be mostly noise
        std = np.append(np.full(x.shape[1] - 2, np.sqrt(x[:, :-2].var(0).mean())), x[:, -2:].std(0))
        self.scale = np.where(std > 1e-9, std, 1.0)
        self.x, self.worst, self.best = x / self.scale, self.ratings.min(), self.ratings.max()

    def fit(self, images: np.ndarray) -> Ridge:
        """Regression on the images of these indices, (n,), with the penalty of the least error in folds of them."""
        x, group = self.x[images], self.group[images]
        y = (self.ratings[images] - self.worst) / (self.best - self.worst)
        groups = len(np.unique(group))
        folds, group = GroupKFold(min(3, groups if groups > 1 else len(y))), group if groups > 1 else np.arange(len(y))
        each = np.repeat(y[:, None], len(PENALTIES), 1)  # all penalties at once
        tried = cross_val_predict(Ridge(alpha=PENALTIES, solver='cholesky'), x, each, groups=group, cv=folds)
        return Ridge(alpha=PENALTIES[((tried - each) ** 2).sum(0).argmin()], solver='cholesky').fit(x, y)

    def scores(self, parameters: Any, images: np.ndarray) -> np.ndarray:
        """Scores of the images of these indices, (n,)."""
        return parameters.predict(self.x[images])

    def save(self, parameters: Any, path: Path, about: dict[str, Any]) -> None:
        """Write a `Head`."""
        about = {name: self.about[name] for name in ('config', 'image_digest', 'text_digest')} | about
        sign = -1 if self.about['lower_better'] else 1
        about['ratings'] = [sign * self.worst, sign * self.best]  # as they were given
        weights, bias = torch.tensor(parameters.coef_ / self.scale), torch.tensor(parameters.intercept_)
        Head(weights[:-2], weights[-2:], bias, about).save(path)


class Constants(_Data):
    """Lambda of the Box-Cox transform, alpha, and the difference of the base constants (only that counts in the
    softmax), by the greatest SRCC. Parameters: options of `MACLIP`."""

    suffix = '.yml'

    def __init__(self, features: Features) -> None:
        super().__init__(features)
        if not LOW[0] <= self.config['box_lam'] <= HIGH[0]:
            raise ValueError(
                f'box_lam={self.config["box_lam"]}; expected one in [{LOW[0]:g}, {HIGH[0]:g}] to start from'
            )
        nodes = (HIGH[0] * np.polynomial.chebyshev.chebpts1(NODES)).tolist()
        self._basis = interpolate.BarycentricInterpolator(nodes, np.eye(NODES))
        rows = [torch.stack([box_cox(z, lam).mean(-1) for lam in nodes]) for z in map(standardise, self.features)]
        self._q_mag, self._q_sim = torch.cat(rows, 1).double(), torch.cat(self.q_sim).double()
        self._share, counts = torch.cat(self.shares).double(), [len(q) for q in self.q_sim]
        self._views = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])  # of each image
        self.base = self.scores(self.config, np.arange(len(rows)))

    def scores(self, parameters: Any, images: np.ndarray) -> np.ndarray:
        """Scores of the images of these indices, (n,)."""
        return self._score(parameters, *self._part(images))

    def _part(self, images: np.ndarray) -> tuple[Any, ...]:
        views = np.concatenate([self._views[i] for i in images])
        image = np.repeat(np.arange(len(images)), [len(self._views[i]) for i in images])
        return self._q_sim[views], self._q_mag[:, views], self._share[views], image

    def _score(self, parameters: Any, q_sim: Tensor, q_mag: Tensor, share: Tensor, image: np.ndarray) -> np.ndarray:
        q_mag = torch.from_numpy(self._basis(parameters['box_lam'])) @ q_mag
        q, _ = fuse(q_sim, q_mag, *(parameters[name] for name in ('base_cos', 'base_norm', 'alpha')))
        return np.bincount(image, q * share)

    def fit(self, images: np.ndarray) -> dict[str, Any]:
        """Parameters fitted to the images of these indices, (n,)."""
        part, ratings = self._part(images), self.ratings[images]
        lam, cos, norm, alpha = (self.config[name] for name in ('box_lam', 'base_cos', 'base_norm', 'alpha'))

        def options(x: np.ndarray) -> dict[str, Any]:
            return self.config | {'box_lam': float(x[0]), 'base_cos': norm + float(x[1]), 'alpha': float(x[2])}

        def loss(x: np.ndarray) -> float:
            value = srcc(self._score(options(x), *part), ratings)
            return 1.0 if math.isnan(value) else -value

        # The loss has steps and flat stretches: a coarse grid finds the valley, a simplex its bottom.
        first = np.array([lam, cos - norm, alpha])
        best = np.clip(min([first, *map(np.array, product(*GRID))], key=loss), LOW, HIGH)
        simplex = np.vstack([best, best + np.diag(np.where(best + STEP > HIGH, -STEP, STEP))])
        how = {'initial_simplex': simplex, 'xatol': 1e-3, 'fatol': 1e-5, 'maxfev': 450}
        bounds = optimize.Bounds(LOW, HIGH)
        last = optimize.minimize(loss, best, method='Nelder-Mead', bounds=bounds, options=how).x
        return options(min(first, best, last, key=loss))

    def save(self, parameters: Any, path: Path, about: dict[str, Any]) -> None:
        """Write the options, for `create_metric('maclip', **options)`."""
        lines = [
            f'# {name}: {" ".join(str(value).split())}\n'
            for name, value in ({'fitted': 'not the published metric'} | about).items()
        ]
        path.write_text(''.join(lines) + yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True), 'utf-8')


MODELS: dict[str, type[RidgeHead] | type[Constants]] = {'head': RidgeHead, 'constants': Constants}


@dataclass(frozen=True)
class Fit:
    """What was fitted, and what it is worth on images that it was not fitted to.

    Attributes:
        parameters: parameters fitted to all images
        srcc: SRCC of the fitted metric on held-out images, mean over the folds, weighted by their sizes
        baseline: `srcc` of the unfitted metric
        interval: 95% interval of the gain srcc - baseline: paired bootstrap over groups, widened by Nadeau and Bengio's
            factor, as the folds share the images that they are fitted to; NaN of fewer than 6 groups, or where one has
            more than half of the images: these say too little of others
        curve: learning curve, rows of `ratings`, number of images fitted to, and `srcc` on held-out images, mean of 4
            draws of up to 100 ratings; the last row is of all images outside a fold, in the mean
        folds: parameters fitted to the images outside each fold
        fold: fold of each image, (N,)

    Example::

        from pathlib import Path

        from maclip_pyiqa.evaluation.cache import load_features
        from maclip_pyiqa.evaluation.fitting import fit_features

        features = load_features(Path('results'), 'ratings')
        fit, path = fit_features(features, Path('results/fit'))
        print(fit.srcc - fit.baseline, fit.interval, fit.real)
    """

    parameters: Any
    srcc: float
    baseline: float
    interval: tuple[float, float]
    curve: list[dict[str, float]]
    folds: list[Any]
    fold: np.ndarray

    @property
    def real(self) -> bool:
        """Whether the gain and its whole interval are above zero."""
        return self.srcc > self.baseline and self.interval[0] > 0


def cross_validate(model: RidgeHead | Constants, folds: int = 5, resamples: int = 1000, seed: int = 0) -> Fit:
    """Fit a model to all ratings, and measure the gain by cross-validation, all images of a group in one fold.

    Args:
        model: model of a data set
        folds: number of folds
        resamples: number of resamples of the bootstrap
        seed: seed of folds, draws and bootstrap

    Raises:
        ValueError: too few images or groups for the folds
    """
    ratings, count, groups = model.ratings, len(model.ratings), len(np.unique(model.group))
    if folds < 2 or groups < folds or count < 3 * folds:
        raise ValueError(
            f'folds={folds} of {count} images in {groups} groups; expected at least 2 folds, as many groups, and 3 '
            'images for each fold. Choose another number of folds, or groups by another column'
        )
    rng, fold = np.random.default_rng(seed), np.empty(count, int)
    shuffled = rng.permutation(groups)[model.group]  # equally large groups are dealt to the folds in their order
    for k, (_, test) in enumerate(GroupKFold(folds).split(ratings, groups=shuffled)):
        fold[test] = k

    def held_out(size: int | None = None) -> tuple[np.ndarray, list[Any]]:
        """Scores of all images, (N,), each by what was fitted to `size` images of the other folds; None: all."""
        scores, fitted = np.empty(count), []
        for k in range(folds):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            fitted.append(model.fit(train if size is None else rng.choice(train, size, replace=False)))
            scores[test] = model.scores(fitted[-1], test)
        return scores, fitted

    def of_folds(scores: np.ndarray, images: np.ndarray | slice = slice(None)) -> float:
        """Mean SRCC of the folds by their sizes; not of all images at once, as each fold has parameters of its own."""
        q, r, f = scores[images], ratings[images], fold[images]
        values = np.array([srcc(q[f == k], r[f == k]) for k in range(folds)])
        sizes, defined = np.bincount(f, minlength=folds), np.isfinite(values)
        return float(np.average(values[defined], weights=sizes[defined])) if defined.any() else math.nan

    def gain(drawn: np.ndarray) -> float:
        images = np.concatenate([members[g] for g in drawn])
        return of_folds(scores, images) - of_folds(model.base, images)

    scores, fitted = held_out()
    members = np.split(np.argsort(model.group, kind='stable'), np.cumsum(np.bincount(model.group))[:-1])
    # The bootstrap takes each fold's fit as given, yet the fits share images, so the folds' gains rise and fall
    # together: on random ratings its interval is a third too short. Hence the factor of Nadeau and Bengio, "Inference
    # for the Generalization Error", Machine Learning 2003.
    mean, sizes = gain(np.arange(groups)), np.bincount(model.group)
    enough = groups >= FEWEST and max(sizes) <= count / 2
    ends = interval(gain, np.arange(groups), resamples=resamples if enough else 0, seed=seed)
    low, high = (mean + math.sqrt(1 + folds / (folds - 1)) * (end - mean) for end in ends)
    curve, most = [], count - int(np.bincount(fold).max())
    for size in (size for size in SIZES if size < most):
        draws = [of_folds(held_out(size)[0]) for _ in range(4 if size <= 100 else 1)]
        curve.append({'ratings': size, 'srcc': float(np.mean(draws))})
    curve.append({'ratings': round(count * (1 - 1 / folds)), 'srcc': of_folds(scores)})
    parameters = model.fit(np.arange(count))
    return Fit(parameters, of_folds(scores), of_folds(model.base), (low, high), curve, fitted, fold)


def fit_features(
    features: Features, output: Path, what: str = 'head', licence: str = '', **settings: Any
) -> tuple[Fit, Path]:
    """Fit a metric to what `evaluate` cached of a data set.

    Args:
        features: features of the data set
        output: folder for DATASET.METRIC.head.safetensors, a `Head`, or DATASET.METRIC.constants.yml, options of
            `MACLIP`; and for the learning curve, .csv
        what: 'head' or 'constants'
        licence: licence of the ratings, noted in the file
        **settings: number of folds, `folds=5`, of resamples of the interval, `resamples=1000`, and `seed=0`

    Returns:
        the fit, and the path of the head or constants

    Raises:
        KeyError: another `what`
        ValueError: a metric of one cue or with a head, equal ratings, or too few images or groups for the folds
        OSError: a file cannot be written

    Example::

        from pathlib import Path

        from maclip_pyiqa.evaluation.cache import load_features
        from maclip_pyiqa.evaluation.fitting import fit_features

        features = load_features(Path('results'), 'ratings')
        fit, path = fit_features(features, Path('results/fit'))
        print(fit.srcc, path)                  # for MACLIP(head=path)
    """
    model = MODELS[what](features)
    fit = cross_validate(model, **settings)
    about: dict[str, Any] = {'fitted_on': {name: model.about[name] for name in ('dataset', 'protocol')}}
    about['fitted_on'] |= {'images': len(features.names), 'groups': len(np.unique(model.group))}
    ends = None if math.isnan(fit.interval[0]) else list(fit.interval)
    about['held_out'] = {'srcc': fit.srcc, 'unfitted': fit.baseline, 'interval of the gain': ends}
    about |= {'licence': licence or 'not given', 'versions': versions(), 'date': now()}
    path = output / f'{model.about["dataset"]}.{model.about["metric"]}.{what}{model.suffix}'
    output.mkdir(parents=True, exist_ok=True)
    model.save(fit.parameters, path, about)
    save_table(path.with_suffix('.csv'), ('ratings', 'srcc'), fit.curve)
    return fit, path
