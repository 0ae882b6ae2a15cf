"""Tables and plots of a results folder, and the published numbers beside ours.

results.csv       agreement of each metric with each data set's ratings; config and fingerprint say what the metric was
differences.csv   SRCC between metrics, paired over images
results.md        both, and the published numbers
scores/, plots/   scores of each image, as the metric gives them, and a scatter plot with the logistic fit
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .._files import replacing
from ..backbone import note
from ..report.figures import save
from .cache import lock, write_text
from .correlations import LogisticFit, agreement, logistic, srcc, srcc_difference
from .datasets import DATA, DataSet
from .metrics import Scores

STATISTICS = ('srcc', 'krcc', 'plcc')  # of raw scores, each with its interval
COLUMNS = (
    *('metric', 'dataset', 'protocol', 'n', 'failed'),
    *(name + end for name in STATISTICS for end in ('', '_low', '_high')),
    *('plcc_fit', 'rmse_fit', 'note', 'seconds', 'memory_mib', 'device', 'fingerprint', 'config'),
)
DIFFERENCES = ('dataset', 'metric_a', 'metric_b', 'n', 'srcc_a', 'srcc_b', 'difference', 'low', 'high')
SCORES = ('image', 'score', 'rating', 'group', 'error')
TEXT = ('metric', 'dataset', 'protocol', 'note', 'device', 'fingerprint', 'config', 'metric_a', 'metric_b', 'source')
RENAMED = {'musiq-koniq': 'musiq', 'tres-koniq': 'tres'}  # names in pyiqa's table -> of its metrics
COSTS = {'seconds': '.3g', 'memory_mib': '.0f'}  # as results.md has them
HEAD = """\
# Results

Higher is better everywhere: DMOS ratings, and scores of metrics where lower is better, are negated. SRCC, KRCC and raw
PLCC are of raw scores, fitted PLCC and RMSE after a five-parameter logistic fit; in brackets 95% bootstrap intervals.

Seconds: median time to score an image, alone, once it is read and on the device. MiB: memory that the largest image
took at the peak, beyond what was held before, such as weights. Empty: not measured, as for scores from a file.
"""
HEADINGS = (
    *('data set', 'metric', 'fingerprint', 'protocol', 'n', 'failed'),
    *('SRCC', 'KRCC', 'PLCC, raw', 'PLCC, fitted', 'RMSE, fitted', 'note', 'seconds', 'MiB', 'device'),
)
BESIDE = ('data set', 'metric', 'ours', 'published', 'difference')
AVERAGES = """\
The averages that the paper prints do not follow from its own rows: its CLIP-IQA row averages 0.6435, not 0.6296, so
the gain over CLIP-IQA is 7.3%. The averages here are those of the rows."""


def write_tables(dataset: DataSet, scores: Sequence[Scores], results: Path, resamples: int = 1000) -> None:
    """Write the tables and plots of the scores of `score_dataset` into a results folder, beside those of others."""
    ratings = dataset.signed_ratings
    rows, differences, signed = [], [], {}
    for s in scores:
        name = s.metric.name
        signed[name] = values = np.array(s.scores) * (-1 if s.metric.lower_better else 1)
        scored = np.isfinite(values)
        row, fit = agreement(values[scored], ratings[scored], resamples)
        row |= {'metric': name, 'dataset': dataset.name, 'protocol': dataset.protocol}
        row |= {'n': int(scored.sum()), 'failed': int((~scored).sum())}
        row |= _costs(s.costs)
        row |= {'fingerprint': s.metric.fingerprint, 'config': json.dumps(s.metric.config)}
        rows.append(row)
        groups = dataset.groups or [''] * len(dataset.names)
        cells = (dataset.names, s.scores, map(repr, dataset.ratings), groups, s.errors)  # ratings with all digits
        images = (dict(zip(SCORES, image, strict=True)) for image in zip(*cells, strict=True))
        save_table(results / 'scores' / f'{dataset.name}.{name}.csv', SCORES, images)
        axes = ('-' * s.metric.lower_better + name, '-' * dataset.lower_better + 'rating')
        title = f'{name} on {dataset.name} ({dataset.protocol}), n = {row["n"]}, SRCC = {row["srcc"]:.4f}'
        _plot(results / 'plots' / f'{dataset.name}.{name}.png', values[scored], ratings[scored], fit, axes, title)
    for a, b in combinations(signed, 2):
        scored = np.isfinite(signed[a]) & np.isfinite(signed[b])
        x, y, z = signed[a][scored], signed[b][scored], ratings[scored]
        pair = (dataset.name, a, b, len(z), srcc(x, z), srcc(y, z), *srcc_difference(x, y, z, resamples))
        differences.append(dict(zip(DIFFERENCES, pair, strict=True)))
    with lock(results):
        for file, columns, names, new in (
            ('results.csv', COLUMNS, ['metric'], rows),
            ('differences.csv', DIFFERENCES, ['metric_a', 'metric_b'], differences),
        ):
            old = read_table(results / file, columns)
            stale = (old.dataset == dataset.name) & old[names].isin([*signed]).any(axis=1)
            save_table(results / file, columns, [*old[~stale].to_dict('records'), *new])
        write_text(results / 'results.md', _markdown(results))


def _costs(images: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Cells of what scoring the images took; no numbers where they were measured on several devices."""
    devices = {image['device'] for image in images if image}
    row: dict[str, Any] = {'device': ' and '.join(sorted(devices)), 'seconds': math.nan, 'memory_mib': math.nan}
    if len(devices) == 1:
        memory = [image['memory_mib'] for image in images if 'memory_mib' in image]
        row['seconds'] = float(np.median([image['seconds'] for image in images if image]))
        row['memory_mib'] = max(memory, default=math.nan)
    return row


def _plot(
    path: Path, scores: np.ndarray, ratings: np.ndarray, fit: LogisticFit, names: tuple[str, str], title: str
) -> None:
    figure = Figure((6, 4.5), layout='constrained')
    axes = figure.subplots()
    axes.scatter(scores, ratings, s=8, alpha=0.5, linewidths=0)
    if fit.parameters:
        x = np.linspace(scores.min(), scores.max(), 200)
        axes.plot(x, logistic(x, *fit.parameters), color='C1', label=f'logistic fit, PLCC = {fit.plcc:.4f}')
        axes.legend()
    note = f'\nno logistic fit: {fit.problem}' if fit.problem else ''
    axes.set(xlabel=names[0] + note, ylabel=names[1])
    axes.set_title(title, fontsize='medium')
    save_figure(path, figure)


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        save(figure, part, format='png', dpi=150)


def save_table(path: Path, columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a CSV table: numbers with 6 digits, NaN and missing values empty.

    Not by pandas, whose strings, kept by pyarrow, cannot hold file names that are not UTF-8.
    """
    columns, text = list(columns), io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow(columns)
    table.writerows([_text(row.get(column, ''), 6) for column in columns] for row in rows)
    write_text(path, text.getvalue())


def _text(value: Any, digits: int) -> str:
    if isinstance(value, float):
        return '' if math.isnan(value) else f'{value:.{digits}f}'
    return str(value)


def read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Rows of results.csv or differences.csv, empty if there is no such file."""
    if not path.exists():
        return pd.DataFrame(columns=list(columns))
    types = dict.fromkeys(TEXT, str)
    numbers = {column: [''] for column in columns if column not in TEXT}
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=numbers)  # a data set may be called NA


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """Lines of a Markdown table: numbers with 4 digits, NaN empty."""
    cells = [list(columns), *([_text(value, 4) for value in row] for row in rows)]
    head, *body = ('| ' + ' | '.join(cell.replace('|', '\\|') for cell in line) + ' |' for line in cells)
    return [head, '|' + ' --- |' * len(cells[0]), *body, '']


def _markdown(results: Path) -> str:
    """The tables of a results folder as Markdown, and the published numbers beside ours."""
    rows = read_table(results / 'results.csv', COLUMNS)
    cells = []
    for row in rows.to_dict('records'):
        names = (row['dataset'], row['metric'], row['fingerprint'][:12], row['protocol'], row['n'], row['failed'])
        intervals = (_interval(row[name], row[f'{name}_low'], row[f'{name}_high']) for name in STATISTICS)
        costs = ('' if math.isnan(row[name]) else f'{row[name]:{digits}}' for name, digits in COSTS.items())
        cells.append((*names, *intervals, row['plcc_fit'], row['rmse_fit'], row['note'], *costs, row['device']))
    lines = [*HEAD.splitlines(), '', *markdown_table(HEADINGS, cells), '## Metrics', '']
    metrics = rows.drop_duplicates(['metric', 'fingerprint'])
    for name, fingerprint, config in zip(metrics.metric, metrics.fingerprint, metrics.config, strict=True):
        lines.append(f'- {name}, fingerprint {fingerprint}: `{config}`')
        if text := note(json.loads(config)):
            lines[-1] += f' ({text})'
    lines.append('')
    differences = read_table(results / 'differences.csv', DIFFERENCES)
    if len(differences):
        lines += ['## SRCC between metrics, same images', '']
        pairs = (
            (row.dataset, row.metric_a, row.metric_b, row.n, _interval(row.difference, row.low, row.high))
            for row in differences.itertuples()
        )
        lines += markdown_table(('data set', 'metric', 'less metric', 'n', 'difference (95%, paired bootstrap)'), pairs)
    return '\n'.join([*lines, *published(rows)])


def _interval(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return 'none'
    return f'{value:.4f}' if math.isnan(low) else f'{value:.4f} ({low:.4f} to {high:.4f})'


def published(rows: pd.DataFrame) -> list[str]:
    """Lines of Markdown with the published numbers beside those of results.csv by the same protocol: the paper's whole
    table, if anything was run by the paper's protocol, and those of pyiqa's own table that were run.

    Numbers of `maclip` count as its own with OpenAI's RN50 only, by its tag or from a file. Scores of a `FileAdapter`
    are set beside nothing.
    """
    facts = pd.concat([pd.read_csv(DATA / f'{name}_results.csv') for name in ('paper', 'pyiqa')])
    facts['metric'] = facts.metric.replace(RENAMED)
    counts = [_is_published(*row) for row in zip(rows.metric, rows.config, strict=True)]
    facts = facts.merge(rows[np.array(counts, bool)], 'left', ['metric', 'dataset', 'protocol'], suffixes=('', '_ours'))
    lines = []
    if (rows.protocol == 'paper').any():
        paper = facts[facts.protocol == 'paper']
        about = f'SRCC, published in {paper.source.iloc[0]}, and ours by `--protocol paper`.'
        lines += ['## Beside the paper', '', about, '']
        means = paper.groupby('metric', sort=False)[['srcc_ours', 'srcc']].agg(lambda column: column.mean(skipna=False))
        cells = [_beside(row.dataset, row.metric, row.srcc_ours, row.srcc) for row in paper.itertuples()]
        cells += [_beside('average of the rows', row.Index, row.srcc_ours, row.srcc) for row in means.itertuples()]
        lines += [*markdown_table(BESIDE, cells), AVERAGES, '']
    run = facts[(facts.protocol == 'pyiqa') & facts.n.notna()]
    if len(run):
        about = f'Published in {run.source.iloc[0]}, and ours by `--protocol pyiqa`, of raw scores.'
        lines += ['## Beside pyiqa', '', about, '']
        cells = [
            _beside(f'{row["dataset"]}, {name.upper()}', row['metric'], row[f'{name}_ours'], row[name])
            for row in run.to_dict('records')
            for name in STATISTICS
            if not math.isnan(row[name])
        ]
        lines += markdown_table(BESIDE, cells)
    return lines


def _is_published(metric: str, config: str) -> bool:
    options = json.loads(config)
    if metric != 'maclip':
        return 'file' not in options
    weights = str(options.get('pretrained'))
    return options.get('backbone') == 'RN50' and (weights == 'openai' or Path(weights).suffix != '')


def _beside(dataset: str, metric: str, ours: float, theirs: float) -> tuple[str, str, str, float, str]:
    if math.isnan(ours):
        return dataset, metric, 'not run', theirs, ''
    return dataset, metric, f'{ours:.4f}', theirs, f'{ours - theirs:+.4f}'
