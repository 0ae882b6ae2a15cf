"""Ablations of MA-CLIP from cached features: no image is read again.

Variants score the images again, from their features; `compare_variants` ranks them by correlation with the ratings,
`thirds` does so within thirds of quality, and `group_distances` compares the distributions of |f| between contents.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from ..metric.cues import box_cox, cosine_cue, fuse, magnitude_cue, standardise
from .cache import Features, load_features, read_runs, write_text
from .correlations import krcc, plcc, srcc, srcc_difference
from .tables import markdown_table, save_figure, save_table

__all__ = ['ablate']

logger = logging.getLogger(__name__)
TABLES = {  # file -> title, and columns after the data set and the metric
    'ablation': ('Variants', ('study', 'variant', 'n', 'srcc', 'krcc', 'plcc', 'change', 'low', 'high')),
    'thirds': ('Thirds of quality', ('cue', 'third', 'n', 'rating_from', 'rating_to', 'srcc')),
    'groups': ('Wasserstein distances between content groups', ('groups', 'stage', 'distance', 'relative')),
}
BLOCK = 256  # images
QUANTILES = 1000  # that stand for the distribution of a group's values

LAMBDAS = [i / 10 for i in range(11)]
ALPHAS = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
FIXED = [i / 10 for i in range(1, 10)]

Variants = dict[tuple[str, str], np.ndarray]


def ablate(
    results: Path,
    output: Path | None = None,
    datasets: Collection[str] = (),
    metric: str | None = None,
    resamples: int = 0,
    warn: Callable[[str], object] = logger.warning,
) -> str:
    """Write the ablations of what `evaluate` cached.

    Args:
        results: folder of the results
        output: folder to write to; None: results/ablation
        datasets: names of data sets; empty: all in the folder
        metric: name of a metric; None: all of this package's that fuse both cues with equal prompt weights
        resamples: number of resamples of the bootstrap intervals of `change`; 0 disables them
        warn: function that is given a message for each data set without features

    Returns:
        the tables as Markdown

    Raises:
        FileNotFoundError: the folder lacks such features; the message lists what there is

    Example::

        from pathlib import Path

        from maclip_pyiqa.evaluation.ablations import ablate

        print(ablate(Path('results')))         # of `maclip-pyiqa evaluate -o results`
    """
    output = output or results / 'ablation'
    cached = []
    for dataset, name, run in read_runs(results):
        config = run['metadata']['config']
        fuses = 'text' in run and config['cue'] == 'both' and not config['prompt_weights'] and not config.get('head')
        if fuses and metric in (None, name):
            cached.append((dataset, name))
    chosen = [(d, m) for d, m in cached if not datasets or d in datasets]
    missing = set(datasets) - {d for d, _ in chosen}
    if missing or not chosen:
        listed = ', '.join(f'{d} ({m})' for d, m in cached) or 'none'
        what = ' and '.join(sorted(missing)) or 'any metric'
        raise FileNotFoundError(f'{results} has no features to ablate of {what}; it has those of: {listed}')
    tables: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    for dataset, name in tqdm(chosen, disable=None):
        features = load_features(results, dataset, name)
        if not features.names:
            warn(f'{dataset}: no image has features; skipped')
            continue
        scores, ratings = variants(features), features.ratings
        rows = {
            'ablation': compare_variants(scores, ratings, resamples),
            'thirds': thirds(scores, ratings),
            'groups': group_distances(features),
        }
        for table in tables:
            tables[table] += [{'dataset': dataset, 'metric': name} | row for row in rows[table]]
        draw_sweeps(output / f'{dataset}.{name}.sweeps.png', rows['ablation'], features.title)
        draw_cues(output / f'{dataset}.{name}.cues.png', scores, ratings, rows['groups'], features.title)
    lines = ['# Ablations', '']
    for table, (title, more) in TABLES.items():
        columns = ('dataset', 'metric', *more)
        save_table(output / f'{table}.csv', columns, tables[table])
        if tables[table]:
            cells = ([row.get(column, '') for column in columns] for row in tables[table])
            lines += [f'## {title}', '', *markdown_table(columns, cells)]
    text = '\n'.join(lines)
    write_text(output / 'ablation.md', text)
    return text


def variants(features: Features) -> Variants:
    """Scores of the images, (N,), by (study, variant)."""
    config, counts = features.metadata['config'], [len(f) for f in features.features]
    lam, fusion = config['box_lam'], {name: config[name] for name in ('base_cos', 'base_norm', 'alpha')}

    def per_view(function: Callable[[Tensor], Tensor]) -> Tensor:
        """(V, D) -> (V, ...) of all views, some images at a time: temporaries are as large as the features."""
        starts = range(0, len(counts), BLOCK)
        return torch.cat([function(torch.cat(features.features[start : start + BLOCK])) for start in starts])

    def magnitude(lam: float) -> Tensor:
        return per_view(lambda f: magnitude_cue(f, lam))

    def of_images(q: Tensor, part: slice = slice(None)) -> np.ndarray:
        """(sum of V,) -> (N,): means by the views' shares; an image with one view has the same in each part."""
        pairs = zip(q.split(counts), features.shares, strict=True)
        parts = ((v, s) if len(v) == 1 else (v[part], s[part]) for v, s in pairs)
        return torch.stack([v @ s / s.sum() for v, s in parts]).numpy()

    attributes = per_view(lambda f: cosine_cue(f, features.text, features.scale))  # (sum of V, P)
    q_sim, q_mag, plain = attributes.mean(-1), magnitude(lam), magnitude(1.0)  # lambda = 1: the mean of z

    def fused(a: Tensor = q_sim, b: Tensor = q_mag, **constants: float) -> Tensor:
        return fuse(a, b, **(fusion | constants))[0]

    scores = {
        ('reference', 'as run'): of_images(fused()),
        ('cues', 'q_sim alone'): of_images(q_sim),
        ('cues', 'q_mag alone'): of_images(q_mag),
        ('cues', 'mean |f| alone'): of_images(per_view(lambda f: f.abs().mean(-1))),
        ('cues', 'q_mag alone, no Box-Cox'): of_images(plain),
        ('fusion', 'no Box-Cox'): of_images(fused(b=plain)),
        ('fusion', 'mean of the cues'): of_images((q_sim + q_mag) / 2),
        ('fusion', 'base constants 1.0, 1.0'): of_images(fused(base_cos=1.0, base_norm=1.0)),
    }
    scores |= {('fixed weight', f'{w:g}'): of_images(w * q_sim + (1 - w) * q_mag) for w in FIXED}
    scores |= {('lambda', f'{v:g}'): of_images(fused(b=magnitude(v))) for v in LAMBDAS}
    scores |= {('alpha', f'{v:g}'): of_images(fused(alpha=v)) for v in ALPHAS}
    pairs = range(1, attributes.shape[1] + 1)
    scores |= {('prompt pairs', f'first {k}'): of_images(fused(attributes[:, :k].mean(-1))) for k in pairs}
    if max(counts) > 1:
        scores['views', 'windows only'] = of_images(fused(), slice(None, -1))
        scores['views', 'global only'] = of_images(fused(), slice(-1, None))
    return scores


def compare_variants(scores: Variants, ratings: np.ndarray, resamples: int = 0) -> list[dict[str, Any]]:
    """A row for each of the `variants`."""
    rows, base = [], scores['reference', 'as run']
    for key, values in scores.items():
        statistics = (statistic(values, ratings) for statistic in (srcc, krcc, plcc))
        change = srcc_difference(values, base, ratings, resamples)
        row = (*key, len(values), *statistics, *change)
        rows.append(dict(zip(TABLES['ablation'][1], row, strict=True)))
    return rows


def thirds(scores: Variants, ratings: np.ndarray) -> list[dict[str, Any]]:
    """SRCC of each cue and of the score within the low, middle and high third of the ratings."""
    rows = []
    for key in (('cues', 'q_sim alone'), ('cues', 'q_mag alone'), ('reference', 'as run')):
        for name, part in _thirds(ratings):
            row = {'cue': key[1].removesuffix(' alone'), 'third': name, 'n': len(part)}
            if len(part):
                row |= {'rating_from': ratings[part].min(), 'rating_to': ratings[part].max()}
            rows.append(row | {'srcc': srcc(scores[key][part], ratings[part])})
    return rows


def _thirds(ratings: np.ndarray) -> Iterable[tuple[str, np.ndarray]]:
    """The name of each third of quality, and the indices of its images."""
    return zip(('low', 'middle', 'high'), np.array_split(np.argsort(ratings, kind='stable'), 3), strict=True)


def group_distances(features: Features) -> list[dict[str, Any]]:
    """Wasserstein distances between the distributions of |f| of content groups, means over all pairs of groups.

    A distance has the unit of the values, which each stage changes; `relative` is in standard deviations of the stage's
    values. Empty if the data set has fewer than two groups.
    """
    members: dict[str, list[Tensor]] = {}
    for group, f in zip(features.groups or [], features.features, strict=bool(features.groups)):
        members.setdefault(group, []).append(f)
    if len(members) < 2:
        return []
    lam, levels = features.metadata['config']['box_lam'], (np.arange(QUANTILES) + 0.5) / QUANTILES
    quantiles: dict[str, list[np.ndarray]] = {'|f|': [], 'standardised': [], 'Box-Cox': []}
    for parts in members.values():
        f = torch.cat(parts)  # (views of the group, D)
        z = standardise(f)
        for stage, values in zip(quantiles, (f.abs(), z, box_cox(z, lam)), strict=True):
            quantiles[stage].append(np.quantile(values.numpy(), levels))
    rows = []
    for stage, of_groups in quantiles.items():
        pairs = [stats.wasserstein_distance(x, y) for x, y in combinations(of_groups, 2)]
        distance, std = float(np.mean(pairs)), float(np.std(of_groups))
        rows.append({'groups': len(of_groups), 'stage': stage, 'distance': distance, 'relative': distance / std})
    return rows


def draw_sweeps(path: Path, rows: list[dict[str, Any]], title: str) -> None:
    """SRCC over lambda, alpha, a fixed weight and the number of prompt pairs; dashed: as run."""
    base = next(row['srcc'] for row in rows if row['study'] == 'reference')
    figure = Figure((9, 6), layout='constrained')
    labels = {'lambda': 'lambda of Box-Cox', 'fixed weight': 'fixed weight of q_sim'}
    for axes, study in zip(figure.subplots(2, 2).flat, (*labels, 'alpha', 'prompt pairs'), strict=True):
        swept = [row for row in rows if row['study'] == study]
        axes.plot([float(row['variant'].split()[-1]) for row in swept], [row['srcc'] for row in swept], 'o-')
        axes.axhline(base, color='grey', linestyle='--', linewidth=1)
        axes.set(xlabel=labels.get(study, study), ylabel='SRCC')
    figure.suptitle(title)
    save_figure(path, figure)


def draw_cues(path: Path, scores: Variants, ratings: np.ndarray, distances: list[dict[str, Any]], title: str) -> None:
    """Each cue against the ratings, thirds of quality in colours, and the distances between groups."""
    figure = Figure((13 if distances else 9, 4), layout='constrained')
    panels = figure.subplots(1, 3 if distances else 2)
    for axes, cue in zip(panels, ('q_sim', 'q_mag'), strict=False):
        values = scores['cues', f'{cue} alone']
        for third, part in _thirds(ratings):
            value = srcc(values[part], ratings[part])
            label = f'{third}: SRCC {value:.3f}' if math.isfinite(value) else third
            axes.scatter(ratings[part], values[part], s=8, alpha=0.6, label=label)
        axes.set(xlabel='rating, higher is better', ylabel=cue)
        axes.legend(title='third of quality', fontsize='small')
    if distances:
        panels[2].bar([row['stage'] for row in distances], [row['relative'] for row in distances])
        panels[2].set_ylabel('Wasserstein distance between\ncontent groups / standard deviation')
    figure.suptitle(title)
    save_figure(path, figure)
