"""What each part of MA-CLIP adds, from the features that accuracy.py kept: no image is opened again.

  python benchmarks/accuracy.py -m maclip -d csiq kadid10k --protocol paper --data-root datasets -o results
  python benchmarks/ablation.py results

Writes into RESULTS/ablation, or -o:

  ablation.csv, .md    SRCC, KRCC and PLCC (raw) of each variant: the cues alone, no Box-Cox, means and fixed weights,
                       base constants, lambda, alpha, numbers of prompt pairs, windows and global view. `change` is
                       SRCC less that of the settings the features were kept with, in row `as run`
  thirds.csv           SRCC of each cue within the low, middle and high third of quality (the paper's Figure 1)
  groups.csv           where a data set tells which images show the same content: Wasserstein distances of the
                       distributions of |f| between those groups, before and after standardising and Box-Cox
  DATASET.METRIC.sweeps.png, DATASET.METRIC.cues.png
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from maclip_pyiqa.evaluation.evaluate import OK, USAGE, count, save_table, table_head, table_line
from maclip_pyiqa.evaluation.store import Kept, load, runs, write

if TYPE_CHECKING:  # they take seconds to import
    import numpy as np
    from torch import Tensor

COLUMNS = ('dataset', 'metric', 'study', 'variant', 'n', 'srcc', 'krcc', 'plcc', 'change', 'low', 'high')
THIRDS = ('dataset', 'metric', 'cue', 'third', 'n', 'label_from', 'label_to', 'srcc')
GROUPS = ('dataset', 'metric', 'groups', 'stage', 'distance', 'relative')
BLOCK = 256  # images
QUANTILES = 1000  # that stand for the distribution of a group's values

LAMBDAS = [i / 10 for i in range(11)]
ALPHAS = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
FIXED = [i / 10 for i in range(1, 10)]


def variants(kept: Kept) -> dict[tuple[str, str], np.ndarray]:
    """Scores of the data set's images, (N,), by (study, variant)."""
    import torch

    from maclip_pyiqa.metric.cues import cosine_cue, fuse, magnitude_cue

    run = kept.meta['constants']
    lam, fusion = run['box_lam'], {name: run[name] for name in ('base_cos', 'base_norm', 'alpha')}
    counts = [len(f) for f in kept.features]

    def cue(make: Callable[[Tensor], Tensor]) -> Tensor:
        """Of all views, (sum of V, ...), some images at a time: temporaries are as large as the features."""
        starts = range(0, len(counts), BLOCK)
        return torch.cat([make(torch.cat(kept.features[start : start + BLOCK])) for start in starts])

    def magnitude(lam: float) -> Tensor:
        return cue(lambda f: magnitude_cue(f, lam))

    attributes = cue(lambda f: cosine_cue(f, kept.text, kept.scale))  # (sum of V, P)
    q_sim, q_mag, plain = attributes.mean(-1), magnitude(lam), magnitude(1.0)  # lambda = 1: the standardised |f|

    def means(q: Tensor, part: slice = slice(None)) -> np.ndarray:
        return torch.stack([values[part].mean() for values in q.split(counts)]).numpy()

    def fused(a: Tensor = q_sim, b: Tensor = q_mag, **constants: float) -> Tensor:
        return fuse(a, b, **(fusion | constants))[0]

    found = {
        ('reference', 'as run'): means(fused()),
        ('cues', 'q_sim alone'): means(q_sim),
        ('cues', 'q_mag alone'): means(q_mag),
        ('cues', 'mean |f| alone'): means(cue(lambda f: f.abs().mean(-1))),
        ('cues', 'q_mag alone, no Box-Cox'): means(plain),
        ('fusion', 'no Box-Cox'): means(fused(b=plain)),
        ('fusion', 'mean of the cues'): means((q_sim + q_mag) / 2),
        ('fusion', 'base constants 1.0, 1.0'): means(fused(base_cos=1.0, base_norm=1.0)),
    }
    found |= {('fixed weight', f'{w:g}'): means(w * q_sim + (1 - w) * q_mag) for w in FIXED}
    found |= {('lambda', f'{v:g}'): means(fused(b=magnitude(v))) for v in LAMBDAS}
    found |= {('alpha', f'{v:g}'): means(fused(alpha=v)) for v in ALPHAS}
    pairs = range(1, attributes.shape[1] + 1)
    found |= {('prompt pairs', f'first {k}'): means(fused(attributes[:, :k].mean(-1))) for k in pairs}
    if min(counts) > 1:
        found['views', 'windows only'] = means(fused(), slice(None, -1))
        found['views', 'global only'] = means(fused(), slice(-1, None))
    return found


def table(scores: dict, labels: np.ndarray, resamples: int) -> list[dict]:
    """A row for each of the `variants`."""
    from maclip_pyiqa.evaluation.correlations import krcc, plcc, srcc, srcc_difference

    rows = []
    base = scores['reference', 'as run']
    for (study, variant), values in scores.items():
        row = {'study': study, 'variant': variant, 'n': len(values)}
        row |= {statistic.__name__: statistic(values, labels) for statistic in (srcc, krcc, plcc)}
        change = srcc_difference(values, base, labels, resamples)
        rows.append(row | dict(zip(('change', 'low', 'high'), change, strict=True)))
    return rows


def thirds(scores: dict, labels: np.ndarray) -> list[dict]:
    """Each cue, and the score, of the `variants` against the labels within the low, middle and high third of them."""
    import numpy as np

    from maclip_pyiqa.evaluation.correlations import srcc

    rows, order = [], np.argsort(labels, kind='stable')
    for key in (('cues', 'q_sim alone'), ('cues', 'q_mag alone'), ('reference', 'as run')):
        for name, part in zip(('low', 'middle', 'high'), np.array_split(order, 3), strict=True):
            row = {'cue': key[1].removesuffix(' alone'), 'third': name, 'n': len(part)}
            if len(part):
                row |= {'label_from': labels[part].min(), 'label_to': labels[part].max()}
            rows.append(row | {'srcc': srcc(scores[key][part], labels[part])})
    return rows


def group_distances(kept: Kept) -> list[dict]:
    """Wasserstein distances of the distributions of |f| between content groups, means over all pairs of groups.

    A distance depends on the unit of what is compared, which each stage changes; `relative` is therefore the distance
    in standard deviations of the stage's values. None where the data set has fewer than two groups.
    """
    import numpy as np
    from scipy import special, stats

    from maclip_pyiqa.metric.cues import magnitude_cue

    members: dict[str, list[Tensor]] = {}
    for group, features in zip(kept.groups or [], kept.features, strict=bool(kept.groups)):
        members.setdefault(group, []).append(features)
    if len(members) < 2:
        return []
    lam = kept.meta['constants']['box_lam']
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    quantiles: dict[str, list[np.ndarray]] = {'|f|': [], 'standardised': [], 'Box-Cox': []}
    for parts in members.values():
        a = np.concatenate([part.abs().numpy() for part in parts])  # (views of the group, D)
        z = a / (a.std(1, ddof=1, keepdims=True) + 1e-6)  # as in cues.magnitude_cue, but of each element
        for stage, values in {'|f|': a, 'standardised': z, 'Box-Cox': special.boxcox1p(z, lam)}.items():
            quantiles[stage].append(np.quantile(values, levels))
        want = np.concatenate([magnitude_cue(part, lam).numpy() for part in parts])
        if not np.allclose(special.boxcox1p(z, lam).mean(1), want, atol=1e-4):
            raise AssertionError('cues.magnitude_cue has changed; group_distances must follow')
    rows = []
    for stage, of_groups in quantiles.items():
        pairs = [stats.wasserstein_distance(x, y) for x, y in combinations(of_groups, 2)]
        distance = float(np.mean(pairs))
        row = {'groups': len(of_groups), 'stage': stage, 'distance': distance}
        rows.append(row | {'relative': distance / float(np.std(of_groups))})
    return rows


# --- pictures ----------------------------------------------------------------------------------------------------


def draw_sweeps(path: Path, rows: list[dict], title: str) -> None:
    """SRCC over lambda, alpha, a fixed weight and the number of prompt pairs; dashed: as run."""
    from matplotlib.figure import Figure

    base = next(row['srcc'] for row in rows if row['study'] == 'reference')
    figure = Figure((9, 6), layout='constrained')
    studies = {
        'lambda': 'lambda of Box-Cox',
        'alpha': 'alpha',
        'fixed weight': 'fixed weight of q_sim',
        'prompt pairs': 'prompt pairs',
    }
    for axes, (study, label) in zip(figure.subplots(2, 2).flat, studies.items(), strict=True):
        mine = [row for row in rows if row['study'] == study]
        axes.plot([float(row['variant'].split()[-1]) for row in mine], [row['srcc'] for row in mine], 'o-')
        axes.axhline(base, color='grey', linestyle='--', linewidth=1)
        axes.set(xlabel=label, ylabel='SRCC')
    figure.suptitle(title)
    _save(path, figure)


def draw_cues(
    path: Path, scores: dict, labels: np.ndarray, rows: list[dict], distances: list[dict], title: str
) -> None:
    """Each cue against the labels, thirds of quality in colours, and the distances between groups."""
    import numpy as np
    from matplotlib.figure import Figure

    order = np.argsort(labels, kind='stable')
    figure = Figure((13 if distances else 9, 4), layout='constrained')
    panels = figure.subplots(1, 3 if distances else 2)
    for axes, cue in zip(panels, ('q_sim', 'q_mag'), strict=False):
        for third, part in zip(('low', 'middle', 'high'), np.array_split(order, 3), strict=True):
            value = next(row['srcc'] for row in rows if (row['cue'], row['third']) == (cue, third))
            label = f'{third}: SRCC {value:.3f}' if math.isfinite(value) else third
            axes.scatter(labels[part], scores['cues', f'{cue} alone'][part], s=8, alpha=0.6, label=label)
        axes.set(xlabel='label, higher is better', ylabel=cue)
        axes.legend(title='third of quality', fontsize='small')
    if distances:
        panels[2].bar([row['stage'] for row in distances], [row['relative'] for row in distances])
        panels[2].set_ylabel('Wasserstein distance between\ncontent groups / standard deviation')
    figure.suptitle(title)
    _save(path, figure)


def _save(path: Path, figure) -> None:
    write(path, lambda file: figure.savefig(file, format='png', dpi=120))


def markdown(rows: list[dict], thirds_rows: list[dict], group_rows: list[dict]) -> str:
    """The three tables."""

    def cell(value) -> str:
        if isinstance(value, float):
            return '' if math.isnan(value) else f'{value:.4f}'
        return str(value)

    lines = ['# Ablation', '']
    for title, columns, part in (
        ('Variants', COLUMNS, rows),
        ('Thirds of quality', THIRDS, thirds_rows),
        ('Wasserstein distances between content groups', GROUPS, group_rows),
    ):
        if part:
            lines += [f'## {title}', '', *table_head(*columns)]
            lines += [table_line(*(cell(row.get(column, '')) for column in columns)) for row in part] + ['']
    return '\n'.join(lines)


def _whole(run: dict) -> bool:
    """Whether a run is of features, and of both cues with equal prompts: what the variants are made from."""
    meta = run['meta']
    return 'text' in run and meta['cue'] == 'both' and meta['prompt_weights'] is None


# --- command line ------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Run the command line; -> 0, or 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results', type=Path, metavar='RESULTS', help='folder that accuracy.py -o wrote')
    parser.add_argument('-d', '--datasets', nargs='+', metavar='NAME', help='default: all that are there')
    parser.add_argument('-m', '--metric', metavar='NAME', help='default: all of this package that fuse both cues')
    parser.add_argument('-o', '--output', type=Path, metavar='DIR', help='default: RESULTS/ablation')
    parser.add_argument(
        '--resamples', type=count(0), default=0, metavar='N', help='bootstrap `change`: low, high (default: none)'
    )
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return stop.code
    from tqdm import tqdm

    rows: dict[tuple[str, ...], list[dict]] = {COLUMNS: [], THIRDS: [], GROUPS: []}
    output = args.output or args.results / 'ablation'
    try:
        kept_runs = [(d, m) for d, m, run in runs(args.results) if _whole(run) and args.metric in (None, m)]
        wanted = [(d, m) for d, m in kept_runs if d in (args.datasets or [d])]
        lost = set(args.datasets or []) - {d for d, _ in wanted}
        if lost or not wanted:
            have = ', '.join(f'{d} ({m})' for d, m in kept_runs) or 'none'
            missing = ' and '.join(sorted(lost)) or 'any metric'
            raise FileNotFoundError(f'{args.results} holds nothing to ablate of {missing}, but of: {have}')
        for dataset, metric in tqdm(wanted, disable=None, file=sys.stderr):
            kept = load(args.results, dataset, metric)
            if not kept.names:
                print(f'ablation: {dataset}: no image has features; left out', file=sys.stderr)
                continue
            scores, labels = variants(kept), kept.labels
            mine = table(scores, labels, args.resamples), thirds(scores, labels), group_distances(kept)
            for all_rows, part in zip(rows.values(), mine, strict=True):
                all_rows += [{'dataset': dataset, 'metric': metric} | row for row in part]
            title = f'{metric} on {dataset} ({kept.meta["protocol"]}), n = {len(kept.names)}'
            draw_sweeps(output / f'{dataset}.{metric}.sweeps.png', mine[0], title)
            draw_cues(output / f'{dataset}.{metric}.cues.png', scores, labels, *mine[1:], title)
        for name, (columns, part) in zip(('ablation', 'thirds', 'groups'), rows.items(), strict=True):
            save_table(output / f'{name}.csv', columns, part)
        text = markdown(*rows.values())
        write(output / 'ablation.md', lambda file: file.write(text.encode()))
    except (OSError, ValueError) as error:
        print(f'ablation: error: {error}', file=sys.stderr)
        return USAGE
    print(text)
    return OK


if __name__ == '__main__':
    sys.exit(main())
