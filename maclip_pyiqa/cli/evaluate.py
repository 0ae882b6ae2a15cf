"""`maclip-pyiqa evaluate`: agreement between metrics and human ratings."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._lazy import need
from .common import (
    CODES,
    FAILED,
    INTERRUPTED,
    OK,
    WORKERS,
    Parents,
    UsageError,
    load_device,
    metric_options,
    say,
    split_names,
    usage_errors,
    whole_number,
)

if TYPE_CHECKING:  # seconds to import
    from ..evaluation.datasets import DataSet
    from ..evaluation.evaluate import Processes

DESCRIPTION = """\
Agreement between metrics and human ratings: any of pyiqa's no-reference metrics on IQA data sets, with confidence
intervals.

  maclip-pyiqa evaluate -m maclip clipiqa -d csiq koniq10k-1024 --protocol paper --data-root datasets -o results
  maclip-pyiqa evaluate -m maclip_demo --list ratings.csv --images photos -o results    a list of your own
  maclip-pyiqa evaluate -m standard --list ratings.csv --images photos -o results       beside eight others
  maclip-pyiqa evaluate -m standard --scores MDFS=mdfs.csv --lower-better MDFS ...      and metrics that pyiqa lacks
  torchrun --nproc_per_node=8 -m maclip_pyiqa evaluate ...     on many GPUs; -o on storage that all hosts share
  maclip-pyiqa ablate results                                  the paper's ablations, from the cached features

`standard` stands for maclip, clipiqa, clipiqa+, qualiclip, arniqa, liqe, topiq_nr, niqe and brisque.

A metric that pyiqa lacks takes part by a table of its scores (.csv, .jsonl, .parquet) with a column of files (path,
filename, ...) and one of scores, called like the metric or `score`. Files are compared with the names of the images in
their folder. `-m` without a name evaluates such tables alone.

Results are cached in -o; rerun the same command to resume after an interruption.

Data sets lie under --data-root in pyiqa's layout: meta_info/meta_info_CSIQDataset.csv, CSIQ/dst_imgs/..., and so on.
Protocol `paper` is that of the MA-CLIP paper (whole data sets, native size, SPAQ at 448x448, AGIQA-1k at 224x224),
`pyiqa` is pyiqa's configuration of each data set (official splits where it names them).

Written to -o: results.csv and results.md (with the published numbers, and the time and memory that scoring an image
takes), differences.csv (SRCC between metrics), scores/ and plots/ of each metric and data set, run.json (versions,
options, fingerprints of the metrics). DMOS ratings are negated, as declared per data set, and so are scores of metrics
where lower is better.
"""


def add(commands: Any, parents: Parents) -> None:
    """Register the command."""
    help_ = 'agreement between metrics and human ratings on IQA data sets'
    parser = commands.add_parser(
        'evaluate', parents=[parents.options], help=help_, description=DESCRIPTION, epilog=CODES
    )
    option = parser.add_argument
    names = "pyiqa's names, or standard (default: maclip, also beside --scores)"
    option('-m', '--metrics', nargs='*', default=['maclip'], metavar='NAME', help=names)
    file = 'scores of another metric, from a table; may be repeated'
    option('--scores', type=_scores, action='append', default=[], metavar='NAME=FILE', help=file)
    lower = 'metrics of --scores where lower is better'
    option('--lower-better', type=split_names, default=[], metavar='A,B', help=lower)
    option('-d', '--datasets', nargs='+', default=[], metavar='NAME', help="pyiqa's names, agiqa-1k or agiqa-3k")
    option('--protocol', choices=('pyiqa', 'paper'), default='pyiqa', help='default: %(default)s')
    option('--data-root', type=Path, default=Path('datasets'), metavar='DIR', help='default: %(default)s')
    option('--download', action='store_true', help='let pyiqa download missing data sets')
    option('-o', '--output', type=Path, default=Path('results'), metavar='DIR', help='default: %(default)s')
    own = parser.add_argument_group('a list of your own')
    own.add_argument('--list', type=Path, metavar='FILE', help='.csv or .json with a file and a rating for each image')
    own.add_argument('--images', type=Path, metavar='DIR', help="folder of the files (default: the list's)")
    own.add_argument('--name', help="name of the data set in the results (default: the list's)")
    own.add_argument('--file-column', metavar='COLUMN', help='default: a usual name, such as img_path')
    own.add_argument('--rating-column', metavar='COLUMN', help='default: a usual name, such as mos')
    group = 'equal for all versions of one photo (default: a usual name, such as ref_name)'
    own.add_argument('--group-column', metavar='COLUMN', help=group)
    own.add_argument(
        '--ratings', choices=('mos', 'dmos'), help='mos: higher is better (default); dmos: lower is better'
    )
    how = parser.add_argument_group('computation')
    how.add_argument('--device', help='such as cpu or cuda (default: a GPU if there is one, one for each process)')
    bootstrap = 'resamples of the bootstrap (default: %(default)s)'
    how.add_argument('--resamples', type=whole_number(0), default=1000, metavar='N', help=bootstrap)
    workers = 'processes that read images, for each that computes; 0: that process itself (default: %(default)s)'
    how.add_argument('--workers', type=whole_number(0), default=WORKERS, metavar='N', help=workers)


def run(args: argparse.Namespace) -> int:
    """Run the command; -> the exit code."""
    if not args.datasets and not args.list:
        raise UsageError('no data set; name some with -d, or pass a list of images and ratings with --list')
    of_list = ('images', 'name', 'file_column', 'rating_column', 'group_column', 'ratings')
    if not args.list and any(getattr(args, name) for name in of_list):
        raise UsageError(f'--{", --".join(of_list).replace("_", "-")} need --list')
    files = [name for name, _ in args.scores]
    if not args.metrics and not files:
        raise UsageError('no metric; name some with -m, or pass scores with --scores')
    if again := [name for name, count in Counter(files).items() if count > 1]:
        raise UsageError(f'--scores has {", ".join(again)} more than once; expected one table for each metric')
    if unknown := [name for name in args.lower_better if name not in files]:
        raise UsageError(
            f'--lower-better {",".join(unknown)}: not a metric of --scores; it has {", ".join(files) or "none"}'
        )
    need('evaluate', 'filelock', 'matplotlib', 'pandas', 'pyiqa', extra='evaluation')
    from ..evaluation.evaluate import Processes

    try:
        with Processes.join() as processes:
            return _run(args, processes)
    except KeyboardInterrupt:
        say('interrupted; rerun the same command to resume')
        return INTERRUPTED


def _run(args: argparse.Namespace, processes: Processes) -> int:
    from ..evaluation.evaluate import STANDARD, check_results, check_scores, evaluate

    for option, names in (('-m', args.metrics), ('-d', args.datasets)):
        again = [name for name, count in Counter(names).items() if count > 1]
        if again and processes.rank == 0:
            say(f'{option} has {", ".join(again)} more than once; expected each name once. It is evaluated once')
    names = [each for name in args.metrics for each in (STANDARD if name == 'standard' else [name])]
    if both := [name for name, _ in args.scores if name in names]:
        raise UsageError(f'--scores {both[0]}: -m has this metric too; expected another name, or leave it out of -m')
    with usage_errors(OSError, ValueError):
        datasets = _datasets(args, processes)
        from ..evaluation.metrics import FileAdapter, load_adapters, with_head

        headed = [with_head(name, metric_options(args).get('head')) for name in names]
        check_results(args.output, datasets, [*names, *headed, *(name for name, _ in args.scores)])
        files = [FileAdapter(name, path, name in args.lower_better) for name, path in args.scores]
        check_scores(datasets, files)
        device = load_device(args.device)
        metrics = [*processes.one_first(lambda: load_adapters(names, device, **metric_options(args))), *files]
    options = {name: str(value) for name, value in vars(args).items() if name != 'run' and value is not None}
    settings = {'device': device, 'resamples': args.resamples, 'workers': args.workers, 'processes': processes}
    command = {'command': sys.argv, 'options': options}
    failed = 0
    with usage_errors(OSError):
        for dataset, failures in evaluate(datasets, metrics, args.output, **settings, run=command, warn=say):
            failed += failures
            if processes.rank == 0:
                print(f'{dataset.name}: {len(dataset.paths)} images, {failures} failures')
                if failures:
                    say(f'{dataset.name}: {failures} scores failed and are not in the tables')
    if processes.rank == 0:
        print((args.output / 'results.md').read_text('utf-8'))
    return FAILED if failed else OK


def _scores(text: str) -> tuple[str, str]:
    name, _, file = text.partition('=')
    if not name or not file:
        raise argparse.ArgumentTypeError(f'{text!r} is not NAME=FILE; expected such as MDFS=mdfs.csv')
    return name, file


def _datasets(args: argparse.Namespace, processes: Processes) -> list[DataSet]:
    from ..evaluation.datasets import load_dataset, read_list

    datasets = []
    if args.list:
        lower_better = None if args.ratings is None else args.ratings == 'dmos'
        images = args.images or args.list.parent
        if not images.is_dir():
            raise UsageError(f'--images {images}: no such folder')
        columns = (args.file_column, args.rating_column)
        datasets.append(read_list(args.list, images, args.name, *columns, lower_better, args.group_column))
    for name in dict.fromkeys(args.datasets):
        load = partial(load_dataset, name, args.protocol, args.data_root, args.download)
        datasets.append(processes.one_first(load))
    names = [dataset.name for dataset in datasets]
    if len(set(names)) < len(names):
        raise UsageError(f'--list has the name of another data set, {names[0]!r}; choose another with --name')
    return datasets
