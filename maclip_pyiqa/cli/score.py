"""`maclip-pyiqa score`: a reader of arguments and a writer of tables around `score_files`."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .._files import one_line
from .._lazy import need
from ..metric.prompts import attribute_names
from ..report.page import ReportTable
from ..report.pictures import Maps
from ..scoring.find import check_file, find_images, same_file
from ..scoring.formats import CSVTable, JSONLTable, PlainTable, Table, open_table
from ..scoring.schema import Label, column, columns, empty_row, label
from ..scoring.text import escape_path
from .common import (
    CODES,
    FAILED,
    OK,
    Parents,
    UsageError,
    add_thumbnails,
    load_metrics,
    save_figure,
    say,
    split_names,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..metric import Analysis

__all__ = ['add', 'run']

Each = Callable[[dict[str, Any], 'Tensor', 'Analysis'], None]
STREAMS = {None: PlainTable, 'csv': CSVTable, 'jsonl': JSONLTable}  # by --format

DESCRIPTION = """\
Scores images. Standard output gets lines `path<TAB>score` in the order of the input; there a tab, line break or
backslash in a path is written as \\t, \\n, \\r or \\\\. Progress and errors go to standard error.

PATH is a file, a folder (searched with its subfolders, linked ones too; hidden files, files that are not images by
their suffix, and figures of --maps are skipped; files without a suffix are detected from their content), a pattern such
as 'photos/**/*.jpg', or - for paths on standard input, one a line, or separated by NUL as `find -print0` writes them.
One file is one row, however many paths lead to it. Images in formats that are not read are counted on standard error;
the extra `formats` reads .heic, .heif and .jxl.

-o FILE writes a table instead: .csv, .jsonl (an object a line) or .parquet (needs the extra `parquet`). All have the
columns path, score, width, height, flags, error, with --details the cues and attributes, and one for each of --metrics.
`flags` are words for images whose score means little: flat, noise, enlarged, clipped, border. Plain lines have the path
and the scores only. A label in FILE.meta.json, or in the metadata of the Parquet file, says which metric the scores are
from.

FILE.excel.csv is written with the byte order mark by which Excel recognises UTF-8.

-o FILE.html writes all of it as one page to look at and choose from, with pictures and quality maps (needs the extra
`report`). `maclip-pyiqa report` makes one from a table.

`maclip-pyiqa score-collection` scores Parquet files, WebDataset shards (.tar) and URLs, on many cores or machines.

CSV keeps text as it is: a path such as '=1+1.png' would run as a formula in a spreadsheet, so import it as text. A path
that is not valid UTF-8 is written escaped, after the character U+FFFD; maclip_pyiqa.open_scores reverses that.
"""


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    score = commands.add_parser(
        'score',
        parents=[parents.metric, parents.files],
        help='score images',
        description=DESCRIPTION,
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument('paths', nargs='+', metavar='PATH', help='file, folder, pattern, or - for a list on input')
    score.add_argument(
        '-0', '--null', action='store_true', help='the paths on standard input are separated by NUL, not by line breaks'
    )
    score.add_argument(
        '-o',
        '--output',
        action='append',
        metavar='FILE',
        help='write a table to FILE.csv, FILE.jsonl or FILE.parquet, a page to FILE.html, or - for standard output '
        '(default); repeatable',
    )
    score.add_argument('--format', choices=('csv', 'jsonl'), help='of standard output (default: plain lines)')
    score.add_argument('--details', action='store_true', help='cues, weight and attributes too (means over the views)')
    score.add_argument('--maps', metavar='DIR', help='draw a map of each image, DIR/NAME.png (needs matplotlib)')
    score.add_argument('--sort', action='store_true', help='best first')
    score._has_negative_number_optionals.clear()  # -0 is no number, and --workers -1 is one
    add_thumbnails(score)
    score.add_argument(
        '--resume',
        action='store_true',
        help='continue an earlier run with the same -o FILE: paths that have a score in any of these files are '
        'skipped, and in the end each file has all rows, your own columns among them, in their order',
    )
    score.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score, write tables, draw maps; -> exit code."""
    # all checks that need no torch come first
    others = split_names(args.metrics)
    try:
        names = columns(attribute_names(args.prompts), others, args.details)
        paths = find_images(args.paths, getattr(sys.stdin, 'buffer', None), null=args.null, warn=say)
        maps = Maps()
        tables = _tables(args, names, maps)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from error
    if args.maps is not None:
        need('--maps', 'matplotlib', extra='plot')
    if any(isinstance(table, PlainTable) for table in tables) and (args.details or others):
        say('columns: ' + ', '.join(name for name in names if column(name).role not in ('image', 'error')))

    source, done = None, {}  # label of the tables; rows that an earlier run finished, see `same_file`
    if args.resume or any(map(os.path.isfile, paths)):
        metric, loaded = load_metrics(args, others)  # fails before any table is touched
        source = label(metric)
        if args.resume:
            done = _finished(tables, paths, source)
        todo = [path for path in paths if same_file(path) not in done]

        from ..scoring.score import score_files

        each: list[Each] = [] if args.maps is None else [_drawer(args, paths)]
        if any(isinstance(table, ReportTable) for table in tables):
            each.append(maps)

        def all_each(row: dict[str, Any], image: Tensor, analysis: Analysis) -> None:
            for call in each:
                call(row, image, analysis)

        rows = score_files(
            metric,
            todo,
            batch=args.batch,
            workers=args.workers,
            max_pixels=args.max_pixels,
            others=loaded,
            each=all_each if each else None,
        )
    else:
        todo, rows = paths, map(_unreadable, paths)
    return _write(args, tables, source, paths, done, rows, len(todo))


def _tables(args: argparse.Namespace, names: tuple[str, ...], maps: Maps) -> list[Table]:
    """Tables of -o, not yet begun; ValueError or ModuleNotFoundError for those that cannot be."""
    outputs = args.output or ['-']
    files = [path for path in outputs if path != '-']
    if args.resume and all(map(_is_page, files)):
        raise ValueError('--resume needs -o FILE, the table to continue')
    if args.format and len(files) == len(outputs):
        raise ValueError('--format is that of standard output; the suffix of a file is its format. Add -o - for both')
    if len(files) < len(outputs) - 1 or len({os.path.realpath(path) for path in files}) < len(files):
        raise ValueError(f'two tables cannot be written to one place: -o {" -o ".join(outputs)}')
    tables: list[Table] = []
    for path in outputs:
        if path == '-':
            tables.append(STREAMS[args.format](sys.stdout, names))
        elif _is_page(path):
            source = {'command': args.command}
            tables.append(ReportTable(path, names, maps=maps, thumbnails=args.thumbnails, source=source))
        else:
            tables.append(open_table(path, names))
    return sorted(tables, key=lambda table: isinstance(table, ReportTable))  # completed after the tables


def _is_page(path: str) -> bool:
    return path.lower().endswith('.html')


def _finished(tables: list[Table], paths: list[str], source: Label) -> dict[str, dict]:
    """Rows of all tables that are not to be scored again, by `same_file`; of one in several tables each cell from the
    first that has it."""
    done: dict[str, dict] = {}
    again = set(map(same_file, paths))
    for table in tables:
        if table.is_stream or isinstance(table, ReportTable):
            continue
        try:
            rows = table.resume(source, again)
        except (OSError, ValueError) as error:
            message = f'{table.path} cannot be resumed: {one_line(error)}' if isinstance(error, OSError) else error
            raise UsageError(str(message)) from error
        if more := len(rows) - len({same_file(row['path']) for row in rows}):
            say(f'{table.path}: {more} rows of files that have a row already; the first of each file is kept')
        for row in rows:
            before = done.get(same_file(row['path']), {})
            done[same_file(row['path'])] = row | {name: cell for name, cell in before.items() if cell not in (None, '')}
        if own := [name for name in table.own if name]:  # an index of pandas has no name
            say(f'{table.path}: columns of its own, empty in new rows: {", ".join(own)}')
    return done


def _unreadable(path: str) -> dict[str, Any]:
    """The row of a path that is not a regular file, without importing what scoring needs."""
    try:
        check_file(path)
        error = 'appeared only after the start; run again'
    except (OSError, ValueError) as caught:
        error = one_line(caught)
    return empty_row(path, error)


def _write(
    args: argparse.Namespace,
    tables: list[Table],
    source: Label | None,
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
        place = {same_file(path): position for position, path in enumerate(paths)}
        rows.sort(key=lambda row: place.get(same_file(row['path']), -1))
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


def _drawer(args: argparse.Namespace, paths: list[str]) -> Each:
    """Draws each image's map to --maps, into the same subfolders as the images are in."""
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])

    def draw(row: dict[str, Any], image: Tensor, analysis: Analysis) -> None:
        name = os.path.relpath(os.path.abspath(row['path']), root) + '.png'
        try:
            save_figure(image, analysis, os.path.join(args.maps, name), 'q', args.backbone)
        except OSError as error:
            raise OSError(f'map: {one_line(error)}') from error

    return draw
