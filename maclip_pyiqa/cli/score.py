"""`maclip-pyiqa score`: a reader of arguments and a writer of tables around `score_files`."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .._lazy import need
from ..metric.prompts import attribute_names
from ..scoring.find import check_file, find_images
from ..scoring.tables import (
    LAST,
    CSVTable,
    JSONLTable,
    PlainTable,
    Table,
    columns,
    escape_path,
    finished,
    label,
    one_line,
    open_table,
)
from .common import (
    CODES,
    FAILED,
    OK,
    Parents,
    UsageError,
    load_device,
    load_metric,
    save_figure,
    say,
    whole_number,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..metric import MACLIP, Analysis

__all__ = ['add', 'run']

COLLECTIONS = ('address', 'actors', 'shard_rows', 'retries', 'column', 'keep')  # options of --engine ray
STREAMS = {None: PlainTable, 'csv': CSVTable, 'jsonl': JSONLTable}  # by --format

DESCRIPTION = """\
Scores images. Standard output gets lines `path<TAB>score` in the order of the input; there a tab, line break or
backslash in a path is written as \\t, \\n, \\r or \\\\. Progress and errors go to standard error.

PATH is a file, a folder (searched with its subfolders; hidden files and files that are not images by their suffix are
skipped; files without a suffix are detected from their content), a pattern such as 'photos/**/*.jpg', or - for paths on
standard input, one a line.

-o FILE writes a table instead: .csv, .jsonl (an object a line) or .parquet (needs the extra `parquet`). All have the
columns path, score, width, height, flags, error, with --details the cues and attributes, and one for each of --metrics.
`flags` are words for images whose score means little: flat, noise, enlarged, clipped, border. Plain lines have the path
and the scores only. A label in FILE.meta.json, or in the metadata of the Parquet file, says which metric the scores are
from.

--engine ray scores collections: INPUT may also be Parquet files (a column of paths, of bytes, or of Hugging Face's
{bytes, path}) and WebDataset shards (.tar), local or URLs such as s3://bucket/shards/, and -o is a folder, which gets a
Parquet file for each shard of the input. The same command again does what is missing. It needs the extra `ray`.

CSV keeps text as it is: a path such as '=1+1.png' would run as a formula in a spreadsheet, so import it as text. A path
that is not valid UTF-8 is written escaped, after the character U+FFFD; maclip_pyiqa.scoring.read_table reverses that.
"""


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    score = commands.add_parser(
        'score',
        parents=[parents.metric],
        help='score images',
        description=DESCRIPTION,
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument('paths', nargs='+', metavar='PATH', help='file, folder, pattern, or - for a list on input')
    score.add_argument(
        '-o',
        '--output',
        action='append',
        metavar='FILE',
        help='write a table to FILE.csv, FILE.jsonl or FILE.parquet, or - for standard output (default); repeatable',
    )
    score.add_argument('--format', choices=('csv', 'jsonl'), help='of standard output (default: plain lines)')
    score.add_argument('--details', action='store_true', help='cues, weight and attributes too (means over the views)')
    score.add_argument('--maps', metavar='DIR', help='draw a map of each image, DIR/NAME.png (needs matplotlib)')
    score.add_argument(
        '--metrics', default='', metavar='A,B', help="pyiqa's no-reference metrics beside ours, such as clipiqa,niqe"
    )
    score.add_argument('--sort', action='store_true', help='best first')
    score.add_argument(
        '--resume',
        action='store_true',
        help='continue an earlier run with the same -o FILE: paths that have a score in any of these files are '
        'skipped, and in the end each file has all rows',
    )
    score.add_argument(
        '--batch', type=whole_number(1), default=16, metavar='N', help='at most N images at once (default: 16)'
    )
    score.add_argument(
        '--workers',
        type=whole_number(0),
        default=min(4, os.cpu_count() or 1),
        metavar='N',
        help='processes that read images, once reading the rest would take seconds; 0: read in the main process '
        '(default: %(default)s)',
    )
    ray = score.add_argument_group('collections, with --engine ray')
    ray.add_argument('--engine', choices=('ray',), help='score on Ray, on this machine or on a cluster')
    ray.add_argument(
        '--address', metavar='URL', help="of a cluster, ray://HOST:10001 or 'auto' (default: this machine)"
    )
    ray.add_argument(
        '--actors', type=whole_number(1), metavar='N', help='processes that score (default: one a GPU, or one a core)'
    )
    ray.add_argument(
        '--shard-rows', type=whole_number(1), metavar='N', help='images in a file of scores, at most (default: 10000)'
    )
    ray.add_argument(
        '--retries',
        type=whole_number(0),
        metavar='N',
        help='tries after a process that scores has died, before fewer images are tried at once, down to the one that '
        'does it (default: 2)',
    )
    ray.add_argument(
        '--column', metavar='NAME', help='of Parquet files, that holds the images (default: found by type)'
    )
    ray.add_argument(
        '--keep',
        metavar='A,B',
        help="columns of Parquet files, or suffixes of a tar's other members such as json, to copy to the output",
    )
    score.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score, write tables, draw maps; -> exit code."""
    given = [name for name in COLLECTIONS if getattr(args, name) is not None]
    if args.engine == 'ray':
        return _run_collection(args, given)
    if given:
        raise UsageError(f'--{given[0].replace("_", "-")} is of --engine ray; expected that option too')
    # all checks that need no torch come first
    others = list(dict.fromkeys(name.strip() for name in args.metrics.split(',') if name.strip()))
    try:
        names = columns(attribute_names(args.prompts), others, args.details)
        paths = find_images(args.paths, getattr(sys.stdin, 'buffer', None))
        tables = _tables(args, names)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error
    if args.maps is not None:
        need('--maps', 'matplotlib', extra='plot')
    if any(isinstance(table, PlainTable) for table in tables) and (args.details or others):
        say('columns: ' + ', '.join(name for name in names if name not in LAST))

    source, done = None, {}  # label of the tables; path -> row that an earlier run finished
    if args.resume or any(map(os.path.isfile, paths)):
        metric, loaded = _load(args, others)  # fails before any table is touched
        source = label(metric)
        if args.resume:
            done = _finished(tables, names, source)
        todo = [path for path in paths if path not in done]

        from ..scoring.score import score_files

        each = None if args.maps is None else _drawer(args, paths)
        rows = score_files(metric, todo, batch=args.batch, workers=args.workers, others=loaded, each=each)
    else:
        todo, rows = paths, map(_unreadable, paths)
    return _write(args, tables, source, paths, done, rows, len(todo))


def _run_collection(args: argparse.Namespace, given: list[str]) -> int:
    """Score on Ray; -> exit code."""
    need('--engine ray', 'ray', 'pyarrow', 'fsspec', extra='ray')
    other = [name for name in ('format', 'maps', 'metrics', 'sort', 'resume') if getattr(args, name)]
    if other:
        raise UsageError(
            f'--{other[0]} does not work with --engine ray, which writes all columns and continues earlier runs'
        )
    output = args.output[0] if args.output and len(args.output) == 1 else ''
    if not (output.endswith(('/', os.sep)) or os.path.isdir(output) or '://' in output):
        raise UsageError(f'-o {output or "is missing"}; --engine ray expected one folder, such as -o scores/')
    gpus = None if args.device is None else args.device.startswith('cuda')
    if args.device not in (None, 'cpu', 'cuda'):
        raise UsageError(f'--device {args.device} does not work with --engine ray; expected cpu or cuda')

    from ..backbone import WeightsError
    from ..integrations.ray import score_collection

    options = {name: getattr(args, name) for name in given}
    if 'keep' in options:
        options['keep'] = [name.strip() for name in options['keep'].split(',') if name.strip()]
    metric = load_metric(args, load_device('cpu'))
    listing = getattr(sys.stdin, 'buffer', None)
    try:
        found = score_collection(args.paths, output, metric, gpus=gpus, batch=args.batch, listing=listing, **options)
    except (OSError, ValueError) as error:
        reason = f'{output}: {one_line(error)}' if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(reason) from error
    except RuntimeError as error:
        if isinstance(error, WeightsError):
            raise
        raise UsageError(str(error)) from error
    lost = {entry['source']: entry['lost'] for entry in found['shards'].values() if entry['lost']}
    lost |= {entry['source']: entry['error'] for entry in found['missing'].values()}
    for source, reason in lost.items():
        say(f'{escape_path(source)}: {reason}')
    say(f'{output}: {found["rows"]} images, {found["failed"]} of them without a score (see the column `error`)')
    return FAILED if found['failed'] or lost else OK


def _tables(args: argparse.Namespace, names: tuple[str, ...]) -> list[Table]:
    """Tables of -o, not yet begun; ValueError or ModuleNotFoundError for those that cannot be."""
    outputs = args.output or ['-']
    files = [path for path in outputs if path != '-']
    if args.resume and not files:
        raise ValueError('--resume needs -o FILE, the table to continue')
    if args.format and len(files) == len(outputs):
        raise ValueError('--format is that of standard output; the suffix of a file is its format. Add -o - for both')
    if len(files) < len(outputs) - 1 or len({os.path.realpath(path) for path in files}) < len(files):
        raise ValueError(f'two tables cannot be written to one place: -o {" -o ".join(outputs)}')
    return [STREAMS[args.format](sys.stdout, names) if path == '-' else open_table(path, names) for path in outputs]


def _finished(tables: list[Table], names: tuple[str, ...], source: dict[str, Any]) -> dict[str, dict]:
    done: dict[str, dict] = {}
    for table in tables:
        if not table.is_stream:
            try:
                done = {row['path']: row for row in finished(table.path, names, source)} | done
            except (OSError, ValueError) as error:
                message = f'{table.path} cannot be resumed: {one_line(error)}' if isinstance(error, OSError) else error
                raise UsageError(str(message)) from error
    return done


def _unreadable(path: str) -> dict[str, Any]:
    """The row of a path that is not a regular file, without importing what scoring needs."""
    try:
        check_file(path)
        error = 'appeared only after the start; run again'
    except (OSError, ValueError) as caught:
        error = one_line(caught)
    return {'path': path, 'score': None, **dict.fromkeys(LAST), 'error': error}


def _write(
    args: argparse.Namespace,
    tables: list[Table],
    source: dict[str, Any] | None,
    paths: list[str],
    done: dict[str, dict],
    todo: Iterable[dict[str, Any]],
    total: int,
) -> int:
    """Write rows as they come, with a progress bar; what is finished stays written whatever happens."""
    from tqdm import tqdm

    rows, failed = list(done.values()), 0
    live = [table for table in tables if not (args.sort and table.is_stream)]
    for table in live:
        with _writing(table):
            table.fill(rows, source)
    try:
        for row in tqdm(todo, total=total, unit=' images', disable=None, file=sys.stderr):
            if args.sort or args.resume:
                rows.append(row)
            for table in live:
                with _writing(table):
                    table.write(row)
            if row['error']:
                failed += 1
                say(f'{escape_path(row["path"])}: {row["error"]}')
    finally:
        place = {path: position for position, path in enumerate(paths)}
        rows.sort(key=lambda row: place.get(row['path'], -1))
        if args.sort:
            rows.sort(key=lambda row: -math.inf if row['score'] is None else row['score'], reverse=True)
        for table in tables:
            with _writing(table):
                if args.sort or (args.resume and not table.is_stream):
                    table.fill(rows, source)
                table.close()
    if failed:
        say(f'{failed} of {total} images failed')
    return FAILED if failed else OK


@contextlib.contextmanager
def _writing(table: Table) -> Iterator[None]:
    """Clears the progress bar for lines on standard output; UsageError where a table cannot be written."""
    from tqdm import tqdm

    try:
        with contextlib.nullcontext() if table.path else tqdm.external_write_mode(sys.stdout, nolock=True):
            yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f'{table.path or "standard output"} cannot be written: {one_line(error)}') from error


def _load(args: argparse.Namespace, names: list[str]) -> tuple[MACLIP, dict[str, Callable[[Tensor], Tensor]]]:
    """The metric, and other metrics by their names."""
    device = load_device(args.device)
    if not names:
        return load_metric(args, device), {}
    from ..scoring.others import check_metrics, load_metrics

    try:
        check_metrics(names)
    except ValueError as error:
        raise UsageError(str(error)) from error
    metric = load_metric(args, device)
    with contextlib.redirect_stdout(sys.stderr):  # pyiqa prints what it downloads
        return metric, {name: _quiet(other) for name, other in load_metrics(names, device).items()}


def _quiet(metric: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        with contextlib.redirect_stdout(sys.stderr):  # some metrics print, but standard output is for scores
            return metric(x)

    return call


def _drawer(args: argparse.Namespace, paths: list[str]) -> Callable[[dict[str, Any], Tensor, Analysis], None]:
    """Draws each image's map to --maps, into the same subfolders as the images are in."""
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])

    def draw(row: dict[str, Any], image: Tensor, analysis: Analysis) -> None:
        name = os.path.relpath(os.path.abspath(row['path']), root) + '.png'
        try:
            save_figure(image, analysis, os.path.join(args.maps, name), 'q', args.backbone)
        except OSError as error:
            raise OSError(f'map: {one_line(error)}') from error

    return draw
