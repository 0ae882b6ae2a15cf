"""How well metrics agree with people: any of pyiqa's no-reference metrics on IQA data sets, with confidence intervals.

  python benchmarks/accuracy.py -m maclip clipiqa -d csiq koniq10k-1024 --protocol paper --data-root datasets -o results
  python benchmarks/accuracy.py -m maclip clipiqa --protocol paper -d livec csiq tid2013 kadid10k koniq10k-1024 spaq \\
      --data-root datasets -o results               the published table; clipiqa needs OpenAI's RN50 too
  python benchmarks/accuracy.py -m maclip_demo --list scores.csv --images photos -o results      a list of one's own
  torchrun --nproc_per_node=8 benchmarks/accuracy.py ...          on many GPUs; -o on storage that all hosts share
  python benchmarks/ablation.py results                           the paper's ablations, from the same pass

An interrupted or killed run goes on where it was when the same command is given again. Features (of this package's
metrics) and scores (of the others) of each image are kept in the folder -o; a run without new images takes seconds.

Data sets lie under --data-root as pyiqa has them: meta_info/meta_info_CSIQDataset.csv, CSIQ/dst_imgs/..., and so on.
Protocols, in protocols.yml: `paper` is that of the MA-CLIP paper (whole data sets, native size, SPAQ at 448x448,
AGIQA-1k at 224x224), `pyiqa` takes each data set as pyiqa's own configuration has it (official splits where it names
them).

Results: results.csv and results.md, differences.csv (between the metrics, SRCC), scores/ and plots/ of each metric and
data set, run.json (what was run). Higher is better everywhere: labels and metrics whose low values are good are
turned by their declaration. SRCC, KRCC and PLCC are of raw scores; plcc_fit and rmse_fit come after the five-parameter
logistic fit; _low and _high are 95% bootstrap intervals over images.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import io
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from maclip_pyiqa.evaluation.datasets import UsageError, line
from maclip_pyiqa.evaluation.store import Shelf, image_key, lock, pack, runs, save_run, write

if TYPE_CHECKING:  # they take seconds to import
    import numpy as np
    from torch import Tensor, nn

    from maclip_pyiqa.evaluation.correlations import Fit
    from maclip_pyiqa.evaluation.datasets import DataSet

OK, FAILED, USAGE, NO_WEIGHTS, INTERRUPTED = 0, 1, 2, 3, 130  # as of maclip_pyiqa's command line
CODES = """\
exit codes:
  0    all images were scored
  1    some could not be read or scored: see standard error, and the column `error` in scores/
  2    wrong use, or data sets that are not there
  3    no weights
  130  interrupted; the same command goes on
"""
COLUMNS = (
    *(
        'metric',
        'weights',
        'dataset',
        'protocol',
        'n',
        'failed',
        'srcc',
        'srcc_low',
        'srcc_high',
        'krcc',
        'krcc_low',
        'krcc_high',
    ),
    *('plcc', 'plcc_low', 'plcc_high', 'plcc_fit', 'rmse_fit', 'note'),
)
DIFFERENCES = ('dataset', 'metric_a', 'metric_b', 'n', 'srcc_a', 'srcc_b', 'difference', 'low', 'high')
AVERAGES = """\
The averages that the paper prints do not follow from its own rows: its CLIP-IQA row averages 0.6435, not 0.6296, so
that the gain over CLIP-IQA is 7.3%. The averages here are those of the rows."""


# --- metrics -----------------------------------------------------------------------------------------------------


class OurMetric:
    """A metric of this package: features are kept, and scores computed from them.

    Attributes:
        setting: what makes the kept arrays
        meta: all that makes the scores
    """

    def __init__(self, name: str, metric: nn.Module, options: dict) -> None:
        from maclip_pyiqa.evaluation.store import checksum

        self.name, self.net, self.lower_better = name, metric.net, metric.lower_better
        weights = checksum(self.net)
        self.setting = {'backbone': options['backbone'], 'weights': weights}
        self.setting |= {'views': self.net.views, 'stride': self.net.stride}
        self.weights = f'{options["backbone"]} {weights[:12]}'  # for tables
        self.meta = self.setting | {'metric': name, 'pretrained': options['pretrained']}
        shares = self.net.prompt_weights
        self.meta |= {'prompts': self.net.prompts, 'prompt_weights': None if shares is None else shares.tolist()}
        self.meta |= {'cue': self.net.cue, 'constants': self.net.constants}
        self.kept = {'text': self.net.backbone.text.tolist(), 'scale': self.net.backbone.scale.tolist()}

    def make(self, image: Tensor) -> np.ndarray:
        """(3, H, W) -> what is kept of it."""
        features = self.net.features([image])[0].float().cpu()
        if not features.isfinite().all():
            raise ValueError('features are not finite numbers')
        return pack(features, self.all_scores)

    def scores(self, features: Tensor) -> Tensor:
        """Score of one image and its two cues, means over the views: (V, D) -> (3,), q, q_sim, q_mag."""
        import torch

        cues = self.net._cues(features.to(self.net.backbone.text.device), **self.net.constants)[:3]
        return torch.stack(cues).mean(1).cpu()

    def all_scores(self, features: Tensor) -> Tensor:
        """What ablations make of them too: other lambdas, single attributes, the global view, mean |f|."""
        import torch

        features = features.to(self.net.backbone.text.device)
        parts = [features.abs().mean()[None]]
        for box_lam in (0.0, 0.5, 1.0, self.net.constants['box_lam']):
            cues = torch.stack(self.net._cues(features, **self.net.constants | {'box_lam': box_lam})[:3])  # (3, V)
            parts += [cues.mean(1), cues[:, -1]]
        attributes = self.net._cues(features, **self.net.constants)[-1]
        return torch.cat([*parts, attributes.mean(0), attributes[-1]]).cpu()

    def score(self, kept: np.ndarray) -> float:
        import torch

        return float(self.scores(torch.from_numpy(kept).float())[0])


class OtherMetric:
    """Any other no-reference metric of pyiqa: its scores are kept."""

    def __init__(self, name: str, metric: nn.Module, options: dict) -> None:
        import pyiqa

        from maclip_pyiqa.evaluation.store import checksum

        self.name, self.metric, self.lower_better = name, metric, metric.lower_better
        weights = checksum(metric.net)
        self.weights = weights[:12]  # for tables
        self.setting = {'metric': name, 'pyiqa': pyiqa.__version__, 'weights': weights, 'options': repr(options)}
        self.meta, self.kept = dict(self.setting), {}

    def make(self, image: Tensor) -> np.ndarray:
        """(3, H, W) -> its score, ()."""
        import numpy as np
        import torch

        torch.manual_seed(0)  # some metrics look at random crops: the same ones each time, in whichever process
        with contextlib.redirect_stdout(sys.stderr):
            score = float(self.metric(image[None]))
        if not math.isfinite(score):
            raise ValueError('the score is not a finite number')
        return np.array(score)

    def score(self, kept: np.ndarray) -> float:
        return float(kept)


def load_metrics(names: list[str], device, backbone: str | None, pretrained: str | None) -> list:
    """Metrics by pyiqa's names.

    Args:
        backbone, pretrained: of this package's metrics that bring no backbone of their own; None: theirs

    Raises:
        UsageError: no such metric, one that needs a reference, or options that none of them takes
        WeightsError: weights that cannot be had
    """
    import pyiqa
    import torch
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    import maclip_pyiqa
    from maclip_pyiqa import WeightsError

    maclip_pyiqa.register()
    given = {'backbone': backbone, 'pretrained': pretrained}
    given = {key: value for key, value in given.items() if value is not None}
    configs = {}
    for name in names:
        config = DEFAULT_CONFIGS.get(name, {})
        if config.get('metric_mode') != 'NR':
            raise UsageError(f"{name!r} is none of pyiqa's metrics without a reference; see pyiqa.list_models('NR')")
        configs[name] = config['metric_opts']
    takes = [name for name, options in configs.items() if options['type'] == 'MACLIP' and 'backbone' not in options]
    if given and not takes:
        raise UsageError(f'--backbone and --pretrained are for maclip, which is not among {", ".join(names)}')
    metrics = []
    for name, options in configs.items():
        extra = given if name in takes else {}
        try:
            with contextlib.redirect_stdout(sys.stderr), torch.random.fork_rng():
                metric = pyiqa.create_metric(name, device=device, **extra)
        except (WeightsError, KeyboardInterrupt):
            raise
        except Exception as error:  # downloads fail in all kinds of ways
            if name in takes and isinstance(error, ValueError):
                raise UsageError(str(error)) from error
            raise WeightsError(f"pyiqa's metric {name!r} cannot be loaded: {line(error)}") from error
        ours = options['type'] == 'MACLIP'
        chosen = {'backbone': 'RN50', 'pretrained': 'openai'} | options | extra
        if chosen['backbone'] == 'demo' or ':' in chosen['backbone']:
            chosen['pretrained'] = None  # they bring their own weights
        metrics.append(OurMetric(name, metric, chosen) if ours else OtherMetric(name, metric, options))
    return metrics


# --- one pass over a data set ------------------------------------------------------------------------------------


@dataclass
class Files:
    """Reads image files, unless all that is wanted of them is kept: a torch data set."""

    paths: list[str]
    preparation: dict
    shelves: list[Shelf]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[int, str, np.ndarray | None, str]:
        """-> i, the key, pixels (H, W, 3) where something is to be computed, and an error."""
        from maclip_pyiqa.evaluation.datasets import prepared

        key = ''
        try:
            data = Path(self.paths[i]).read_bytes()
            key = image_key(data, self.preparation)
            if all(shelf.get(key) is not None for shelf in self.shelves):
                return i, key, None, ''
            return i, key, prepared(data, self.preparation), ''
        except Exception as error:  # Pillow's readers let all kinds of errors of broken files through
            return i, key, None, line(error)


@dataclass
class Team:
    """The processes of this run."""

    rank: int = 0
    size: int = 1

    def gather(self, mine: dict) -> dict:
        """All processes' entries, in each process."""
        if self.size == 1:
            return mine
        from torch import distributed

        parts = [None] * self.size
        distributed.all_gather_object(parts, mine)
        return {key: value for part in parts for key, value in part.items()}

    def first(self, do):
        """do() in process 0, then in the others, so that they find what it made."""
        done = do() if self.rank == 0 else None
        self.gather({})
        return done if self.rank == 0 else do()


@contextlib.contextmanager
def join_team() -> Iterator[Team]:
    """The processes that torchrun started, or this one alone."""
    size = int(os.environ.get('WORLD_SIZE', 1))
    if size == 1:
        yield Team()
        return
    from torch import distributed

    # gloo on GPUs too: only keys and errors travel; and the slowest process may take its time
    distributed.init_process_group('gloo', timeout=datetime.timedelta(days=7))
    try:
        yield Team(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


@dataclass
class Scored:
    """A metric's scores of a data set; NaN and an error where there is none."""

    metric: str
    weights: str
    lower_better: bool
    scores: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def run_dataset(dataset: DataSet, metrics: list, results: Path, device, team: Team, workers: int) -> list[Scored]:
    """Computes what is not kept yet of a data set, each process its part; -> scores out of what is kept.

    Only process 0 gets scores, and writes what `store.load` reads.
    """
    import torch
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from maclip_pyiqa.scoring.read import to_tensor

    shelves = [Shelf(results, metric.setting) for metric in metrics]
    mine = range(team.rank, len(dataset.paths), team.size)
    files = DataLoader(
        Files(dataset.paths, dataset.preparation, shelves),
        batch_size=None,
        sampler=mine,
        num_workers=min(workers, len(mine)),
        collate_fn=_same,
        worker_init_fn=_ignore_interrupts,
    )
    found = {}  # image -> its key, and its error by metric
    bar = tqdm(
        files, total=len(mine), desc=dataset.name, unit=' images', disable=team.rank > 0 or None, file=sys.stderr
    )
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with exact, torch.inference_mode():
        for i, key, pixels, error in bar:
            errors = {metric.name: error for metric in metrics} if error else {}
            # one image at a time: its rounding then does not depend on its neighbours, nor on the number of processes
            for metric, shelf in zip(metrics, shelves, strict=True) if pixels is not None else ():
                if shelf.get(key) is not None:
                    continue
                try:
                    array = metric.make(to_tensor(pixels).to(device))
                except Exception as broken:  # each metric has limits of its own, such as the smallest image
                    errors[metric.name] = line(broken)
                    continue
                try:
                    shelf.put(key, array)
                except OSError as broken:
                    raise UsageError(f'{results} cannot be written to: {line(broken)}') from broken
            found[i] = key, errors
            for name, error in errors.items():
                tqdm.write(f'accuracy: {dataset.name}: {dataset.names[i]}: {name}: {error}', file=sys.stderr)
    found = team.gather(found)
    if team.rank:
        return []
    return [_collect(dataset, m, s, results, found) for m, s in zip(metrics, shelves, strict=True)]


def _same(item):
    return item  # arrays as they are


def _ignore_interrupts(worker: int) -> None:
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sees it and ends the workers


def _collect(dataset: DataSet, metric, shelf: Shelf, results: Path, found: dict) -> Scored:
    scored, images = Scored(metric.name, metric.weights, metric.lower_better), []
    for i, (name, label) in enumerate(zip(dataset.names, dataset.labels, strict=True)):
        key, errors = found[i]
        kept, error = None, errors.get(metric.name, '')
        if not error and (kept := shelf.get(key)) is None:
            error = 'made, but not found in -o: all hosts must share that folder'
        scored.scores.append(math.nan if error else metric.score(kept))
        scored.errors.append(error)
        group = dataset.groups[i] if dataset.groups else None
        images.append({'name': name, 'key': key, 'label': label, 'group': group, 'error': error})
    meta = metric.meta | {'protocol': dataset.protocol, 'preparation': dataset.preparation, 'dataset': dataset.name}
    run = {'meta': meta, 'setting': metric.setting, 'lower_better': dataset.lower_better, **metric.kept}
    save_run(results, dataset.name, metric.name, run | {'images': images})
    return scored


# --- report ------------------------------------------------------------------------------------------------------


def report(dataset: DataSet, scored: list[Scored], results: Path, resamples: int) -> int:
    """Tables and plots of one data set, beside those that the folder has of others; -> the number of failures."""
    import numpy as np

    from maclip_pyiqa.evaluation.correlations import srcc, srcc_difference, summary

    labels = np.array(dataset.labels) * (-1 if dataset.lower_better else 1)
    rows, pairs, turned = [], [], {}
    for s in scored:
        values = np.array(s.scores) * (-1 if s.lower_better else 1)
        turned[s.metric] = values
        good = np.isfinite(values)
        row, fitted = summary(values[good], labels[good], resamples)
        row |= {'metric': s.metric, 'weights': s.weights, 'dataset': dataset.name, 'protocol': dataset.protocol}
        rows.append(row | {'n': int(good.sum()), 'failed': int((~good).sum())})
        _save_scores(results / 'scores' / f'{dataset.name}.{s.metric}.csv', dataset, s)
        names = [('-' if s.lower_better else '') + s.metric, ('-' if dataset.lower_better else '') + 'label']
        title = f'{s.metric} on {dataset.name} ({dataset.protocol}), n = {good.sum()}, SRCC = {row["srcc"]:.4f}'
        plot(results / 'plots' / f'{dataset.name}.{s.metric}.png', values[good], labels[good], fitted, names, title)
    scores_of = {(s.metric, dataset.name) for s in scored}
    for a, b in combinations(turned, 2):
        good = np.isfinite(turned[a]) & np.isfinite(turned[b])
        x, y, z = turned[a][good], turned[b][good], labels[good]
        difference, low, high = srcc_difference(x, y, z, resamples)
        pair = (dataset.name, a, b, len(z), srcc(x, z), srcc(y, z), difference, low, high)
        pairs.append(dict(zip(DIFFERENCES, pair, strict=True)))
    with lock(results):
        merge(results / 'results.csv', COLUMNS, rows, lambda row: (row['metric'], row['dataset']) in scores_of)
        again = {name for name, _ in scores_of}
        merge(
            results / 'differences.csv',
            DIFFERENCES,
            pairs,
            lambda row: row['dataset'] == dataset.name and not again.isdisjoint((row['metric_a'], row['metric_b'])),
        )
        write(results / 'results.md', lambda file: file.write(markdown(results).encode()))
    return sum(row['failed'] for row in rows)


def _save_scores(path: Path, dataset: DataSet, scored: Scored) -> None:
    rows = []
    groups = dataset.groups or [''] * len(dataset.names)
    for name, score, label, group, error in zip(
        dataset.names, scored.scores, dataset.labels, groups, scored.errors, strict=True
    ):
        rows.append({'image': name, 'score': score, 'label': repr(label), 'group': group, 'error': error})
    save_table(path, ('image', 'score', 'label', 'group', 'error'), rows)


def plot(path: Path, scores, labels, fitted: Fit, names: list[str], title: str) -> None:
    """Scores against labels, with the fitted curve, into a PNG."""
    import numpy as np
    from matplotlib.figure import Figure

    from maclip_pyiqa.evaluation.correlations import logistic

    figure = Figure((6, 4.5), layout='constrained')
    axes = figure.subplots()
    axes.scatter(scores, labels, s=8, alpha=0.5, linewidths=0)
    if fitted.parameters:
        x = np.linspace(scores.min(), scores.max(), 200)
        axes.plot(x, logistic(x, *fitted.parameters), color='C1', label=f'logistic fit, PLCC = {fitted.plcc:.4f}')
        axes.legend()
    else:
        axes.set_xlabel(f'no logistic fit: {fitted.problem}')
    axes.set(xlabel='\n'.join(filter(None, [names[0], axes.get_xlabel()])), ylabel=names[1])
    axes.set_title(title, fontsize='medium')
    write(path, lambda file: figure.savefig(file, format='png', dpi=120))


def save_table(path: Path, columns: tuple[str, ...], rows: list[dict]) -> None:
    """Write a CSV table; numbers with 6 digits, nothing for NaN."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow(columns)
    table.writerows([_text(row.get(column, '')) for column in columns] for row in rows)
    write(path, lambda file: file.write(text.getvalue().encode('utf-8', 'surrogateescape')))


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV table; none where there is no such file."""
    if not path.exists():
        return []
    with open(path, newline='', encoding='utf-8', errors='surrogateescape') as file:
        return list(csv.DictReader(file))


def merge(path: Path, columns: tuple[str, ...], rows: list[dict], stale: Callable[[dict], bool]) -> None:
    """Put rows into a table, in place of those that are stale."""
    old = [row for row in read_table(path) if not stale(row)]
    save_table(path, columns, [*old, *rows])


def _text(value) -> str:
    if isinstance(value, float):
        return '' if math.isnan(value) else f'{value:.6f}'
    return str(value)


def markdown(results: Path) -> str:
    """The tables of a results folder as Markdown, and the published numbers beside ours."""

    def number(row: dict, name: str, bounds: bool = False) -> str:
        if not row[name]:
            return 'none'
        text = f'{float(row[name]):.4f}'
        if bounds and row[f'{name}_low']:
            text += f' ({float(row[f"{name}_low"]):.4f} to {float(row[f"{name}_high"]):.4f})'
        return text

    rows = read_table(results / 'results.csv')
    lines = ['# Results', '', 'Higher is better everywhere. In brackets: 95% bootstrap intervals. Made by accuracy.py;']
    lines += ['run.json tells what was run.', '']
    lines += table_head(
        'data set', 'metric', 'weights', 'protocol', 'n', 'failed', 'SRCC', 'KRCC', 'PLCC, raw', 'PLCC, fitted'
    )
    lines[-2] += ' RMSE, fitted | note |'
    lines[-1] += ' --- | --- |'
    for row in rows:
        cells = [row[c] for c in ('dataset', 'metric', 'weights', 'protocol', 'n', 'failed')]
        cells += [number(row, c, True) for c in ('srcc', 'krcc', 'plcc')]
        cells += [number(row, c) for c in ('plcc_fit', 'rmse_fit')]
        lines.append(table_line(*cells, row['note']))
    if any(row['weights'].startswith('demo ') for row in rows):
        from maclip_pyiqa.demo import NOTE

        lines += ['', f'maclip_demo: {NOTE}.']
    differences = read_table(results / 'differences.csv')
    if differences:
        lines += ['', '## SRCC between metrics, same images', '']
        lines += table_head('data set', 'metric', 'less metric', 'n', 'difference', '95%, paired bootstrap')
        for row in differences:
            low, high = (number(row, c) for c in ('low', 'high'))
            cells = (row[c] for c in ('dataset', 'metric_a', 'metric_b', 'n'))
            lines.append(table_line(*cells, number(row, 'difference'), f'{low} to {high}'))
    if any(row['protocol'] == 'paper' for row in rows):
        lines += ['', *published(rows)]
    return '\n'.join(lines) + '\n'


def published(rows: list[dict]) -> list[str]:
    """Lines with the paper's table, ours beside it where it was run by the paper's protocol."""
    from maclip_pyiqa.evaluation.datasets import HERE, protocols

    names = protocols()['published']
    ours = {
        (names['datasets'].get(row['dataset']), names['metrics'].get(row['metric'])): float(row['srcc'])
        for row in rows
        if row['protocol'] == 'paper'
        and row['srcc']
        and (row['metric'] != 'maclip' or row['weights'].startswith('RN50 '))
    }
    facts = read_table(HERE / 'paper_results.csv')
    lines = ['## Beside the paper, SRCC', '', f'Published: {facts[0]["source"]}, in paper_results.csv. Ours: of the']
    lines += ["metrics `maclip` (backbone RN50) and `clipiqa` by the paper's protocol; run.json names the weights.", '']
    lines += table_head('data set', 'metric', 'ours', 'published', 'difference')
    sums: dict[str, list[tuple[float | None, float]]] = {}
    for fact in facts:
        pair = ours.get((fact['dataset'], fact['metric'])), float(fact['srcc'])
        sums.setdefault(fact['metric'], []).append(pair)
        lines.append(_beside(fact['dataset'], fact['metric'], *pair))
    for metric, pairs in sums.items():
        got = [own for own, _ in pairs]
        mean = None if None in got else sum(got) / len(got)
        lines.append(_beside('average of the rows', metric, mean, sum(p for _, p in pairs) / len(pairs)))
    return [*lines, '', AVERAGES, '']


def _beside(dataset: str, metric: str, own: float | None, theirs: float) -> str:
    if own is None:
        return table_line(dataset, metric, 'not run', f'{theirs:.4f}', '')
    return table_line(dataset, metric, f'{own:.4f}', f'{theirs:.4f}', f'{own - theirs:+.4f}')


def table_head(*cells: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return [table_line(*cells), '|' + ' --- |' * len(cells)]


def table_line(*cells: str) -> str:
    """A line of a Markdown table."""
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def note_run(args: argparse.Namespace, argv: list[str], datasets: list[DataSet], metrics: list, team: Team) -> None:
    """Add to run.json what this run is."""
    from importlib.metadata import version

    packages = ('maclip_pyiqa', 'torch', 'torchvision', 'pyiqa', 'open_clip_torch', 'numpy', 'scipy', 'Pillow')
    entry = {
        'command': argv,
        'started': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
        'processes': team.size,
        'resamples': args.resamples,
        'versions': {'python': platform.python_version()} | {name: version(name) for name in packages},
        'metrics': [metric.meta for metric in metrics],
        'datasets': [],
    }
    for dataset in datasets:
        told = {k: v for k, v in asdict(dataset).items() if k in ('name', 'protocol', 'preparation', 'lower_better')}
        entry['datasets'].append(told | {'images': len(dataset.paths), 'groups': len(set(dataset.groups or []))})
    path = args.output / 'run.json'
    with lock(args.output):
        before = []
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # not there, or cut off by a power cut
            before = json.loads(path.read_text('utf-8'))
        write(path, lambda file: file.write(json.dumps([*before, entry], indent=1).encode()))


# --- command line ------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=CODES, formatter_class=raw)
    add = parser.add_argument
    add('-m', '--metrics', nargs='+', default=['maclip'], metavar='NAME', help="pyiqa's (default: maclip)")
    add('-d', '--datasets', nargs='+', default=[], metavar='NAME', help="pyiqa's, agiqa-1k, agiqa-3k")
    add('--protocol', choices=('pyiqa', 'paper'), default='pyiqa', help='default: %(default)s')
    add('--data-root', type=Path, default=Path('datasets'), metavar='DIR', help='default: %(default)s')
    add('--download', action='store_true', help='let pyiqa fetch data sets that are not there')
    add('-o', '--output', type=Path, default=Path('results'), metavar='DIR', help='default: %(default)s')
    own = parser.add_argument_group('a list of your own')
    own.add_argument('--list', type=Path, metavar='FILE', help='.csv or .json with a file and a label for each image')
    own.add_argument('--images', type=Path, metavar='DIR', help="where the files are (default: the list's folder)")
    own.add_argument('--name', help="of the data set in the results (default: the list's)")
    own.add_argument('--file-column', metavar='COLUMN', help='default: found by usual names, such as img_path')
    own.add_argument('--label-column', metavar='COLUMN', help='default: found by usual names, such as mos')
    own.add_argument('--labels', choices=('mos', 'dmos'), help='mos: high is good (default); dmos: low is good')
    how = parser.add_argument_group('how')
    how.add_argument('--backbone', metavar='NAME', help='of maclip: an open_clip architecture (default: RN50)')
    how.add_argument('--pretrained', metavar='TAG|FILE', help='of maclip: its weights (default: openai)')
    how.add_argument('--device', help='such as cpu or cuda (default: cuda where there is one, one for each process)')
    how.add_argument('--resamples', type=count(0), default=1000, metavar='N', help='bootstrap (default: %(default)s)')
    how.add_argument(
        '--workers',
        type=count(0),
        default=min(4, os.cpu_count() or 1),
        metavar='N',
        help='processes that read images, for each that computes; 0: none but that one (default: %(default)s)',
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; -> the exit code."""
    try:
        args = _parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code
    try:
        with join_team() as team:
            return _main(args, list(sys.argv if argv is None else argv), team)
    except UsageError as error:
        print(f'accuracy: error: {error}', file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print('accuracy: interrupted; the same command goes on', file=sys.stderr)
        return INTERRUPTED
    except RuntimeError as error:
        from maclip_pyiqa import WeightsError

        if not isinstance(error, WeightsError):
            raise
        print(f'accuracy: error: {error}', file=sys.stderr)
        return NO_WEIGHTS


def _main(args: argparse.Namespace, argv: list[str], team: Team) -> int:
    if not args.datasets and not args.list:
        raise UsageError('name data sets with -d, or give a list of images and labels with --list')
    if not args.list and any((args.images, args.name, args.file_column, args.label_column, args.labels)):
        raise UsageError('--images, --name, --file-column, --label-column and --labels go with --list')
    datasets = _datasets(args, team)
    twice = {d.name for d in datasets if [other.name for other in datasets].count(d.name) > 1}
    if twice:
        raise UsageError(f'two data sets are named {twice.pop()!r}; name the list with --name')
    mine = {d.name: d.protocol for d in datasets}
    for row in read_table(args.output / 'results.csv'):
        name, protocol = row['dataset'], row['protocol']
        if mine.get(name, protocol) != protocol:
            raise UsageError(f'{args.output} holds {name!r} by protocol {protocol!r}; take another folder for this one')
    _same_images(args.output, datasets, set(args.metrics))
    device = _device(args.device)
    names = list(dict.fromkeys(args.metrics))
    metrics = team.first(lambda: load_metrics(names, device, args.backbone, args.pretrained))
    if team.rank == 0:
        try:
            note_run(args, argv, datasets, metrics, team)
        except (OSError, ValueError) as error:
            raise UsageError(f'-o {args.output}: {line(error)}') from error
    failed = 0
    for dataset in datasets:
        scored = run_dataset(dataset, metrics, args.output, device, team, args.workers)
        if team.rank == 0:
            failures = report(dataset, scored, args.output, args.resamples)
            failed += failures
            print(f'{dataset.name}: {len(dataset.paths)} images, {failures} failures')
            if failures:
                print(f'accuracy: {dataset.name}: {failures} scores failed and are left out', file=sys.stderr)
    if team.rank == 0:
        print((args.output / 'results.md').read_text('utf-8'))
    return FAILED if team.gather({team.rank: failed} if team.rank == 0 else {})[0] else OK


def _same_images(results: Path, datasets: list[DataSet], again: set[str]) -> None:
    """A table compares metrics on the same images, or there is none."""
    mine = {d.name: list(zip(d.names, d.labels, strict=True)) for d in datasets}
    with contextlib.suppress(FileNotFoundError):
        for name, metric, run in runs(results):
            images = [(image['name'], image['label']) for image in run['images']]
            if metric not in again and mine.get(name, images) != images:
                raise UsageError(
                    f'{results} holds {metric!r} on {name!r} with other images or labels; run all metrics again, or '
                    'take another folder'
                )


def _datasets(args: argparse.Namespace, team: Team) -> list[DataSet]:
    from maclip_pyiqa.evaluation.datasets import by_name, from_list

    names = dict.fromkeys(args.datasets)
    found = [team.first(lambda n=n: by_name(n, args.protocol, args.data_root, args.download)) for n in names]
    if args.list:
        lower_better = None if args.labels is None else args.labels == 'dmos'
        images = args.images or args.list.parent
        if not images.is_dir():
            raise UsageError(f'--images {images}: no such folder')
        found.append(from_list(args.list, images, args.name, args.file_column, args.label_column, lower_better))
    return found


def _device(name: str | None):
    import torch

    gpus = torch.cuda.device_count()
    own = f'cuda:{int(os.environ.get("LOCAL_RANK", 0)) % gpus}' if gpus else 'cpu'
    try:
        device = torch.device(own if name is None or (name == 'cuda' and gpus) else name)
        if device.type == 'cuda':
            torch.cuda.set_device(device)  # some of pyiqa's metrics say just 'cuda'
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f'device {name!r} cannot be used: {line(error)}') from error
    return device


def count(least: int) -> Callable[[str], int]:
    """Type of a command line option: a whole number from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f'a whole number, at least {least}, is wanted, not {text!r}')
        return int(text)

    return parse


if __name__ == '__main__':
    sys.exit(main())
