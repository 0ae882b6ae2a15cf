"""`maclip-pyiqa score`: a reader of arguments and a writer of tables around `score_files`."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from .._files import one_line
from .._lazy import need
from ..metric.prompts import attribute_names
from ..report.page import ReportTable
from ..report.pictures import Maps
from ..scoring.find import check_file, find_images, same_file
from ..scoring.formats import CSVTable, JSONLTable, Table, open_table
from ..scoring.formats.plain import PlainTable
from ..scoring.schema import Label, column, columns, empty_row, label
from ..scoring.source import is_among
from ..scoring.text import escape_path
from .common import (
    CODES,
    FAILED,
    OK,
    Parents,
    UsageError,
    load_metrics,
    load_reference,
    save_figure,
    say,
    usage_errors,
    writing,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ..metric import Analysis

STREAMS = {None: PlainTable, 'csv': CSVTable, 'jsonl': JSONLTable}  # by --format

DESCRIPTION = """\
Scores images. Standard output gets lines `path<TAB>score` in the order of the input; there a tab, line break or
backslash in a path is written as \\t, \\n, \\r or \\\\. Progress and errors go to standard error.

PATH is a file, a folder (searched with its subfolders, linked ones too; hidden files, files that are not images by
their suffix, and figures of --maps are skipped; files without a suffix are detected from their content), a pattern such
as 'photos/**/*.jpg', or - for paths on standard input, one a line, or separated by NUL as `find -print0` writes them.
One file is one row, however many paths lead to it. Images in formats that are not read are counted on standard error;
the extra `formats` reads .heic, .heif and .jxl.

-o FILE writes a table instead: .csv (.excel.csv with the byte order mark that Excel needs), .jsonl (an object a line)
or .parquet (needs the extra `parquet`), with the columns path, score, width, height, flags, error, with --details the
cues and attributes, and one for each of --metrics. `flags` are words for images whose score means little: flat, noise,
enlarged, clipped, border. FILE.meta.json, or the metadata of the Parquet file, says which metric the scores are from.
CSV keeps text as it is: import it as text, since a path such as '=1+1.png' would run as a formula in a spreadsheet.

--reference REF adds percentiles: the share of the images in REF, a table or a collection scored earlier with the same
options, that score lower. With --resume the percentiles of all rows are of that REF.

-o FILE.html writes all of it as one page to look at and choose from, with pictures and quality maps (needs the extra
`report`). `maclip-pyiqa report` makes one from a table.
"""


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        'score',
        parents=[parents.metric, parents.files, parents.page, parents.reference],
        help='score images',
        description=DESCRIPTION,
        epilog=CODES,
    )
    option = parser.add_argument
    option('paths', nargs='+', metavar='PATH', help='file, folder, pattern, or - for a list on input')
    null = 'the paths on standard input are separated by NUL, not by line breaks'
    option('-0', '--null', action='store_true', help=null)
    parser._has_negative_number_optionals.clear()  # -0 is no number, and --workers -1 is one
    output = (
        'write a table to FILE.csv, FILE.jsonl or FILE.parquet, a page to FILE.html, or - for standard output '
        '(default); repeatable'
    )
    option('-o', '--output', action='append', metavar='FILE', help=output)
    option('--format', choices=('csv', 'jsonl'), help='format of standard output (default: plain lines)')
    option('--details', action='store_true', help='cues, weight and attributes too (means over the views)')
    option('--maps', metavar='DIR', help='draw a map of each image, DIR/NAME.png (needs matplotlib)')
    option('--sort', action='store_true', help='best first')
    resume = (
        'continue an earlier run with the same -o FILE, as after an interruption: paths that have a score in any of '
        'these files are skipped, and in the end each file has all rows, your own columns among them, in their order'
    )
    option('--resume', action='store_true', help=resume)


def run(args: argparse.Namespace) -> int:
    """Score, write tables, draw maps; -> exit code."""
    # all checks that need no torch come first
    maps = Maps() if any(map(_is_page, args.output or [])) else None
    with usage_errors(FileNotFoundError, ValueError):
        attributes, ranked = attribute_names(args.prompts), args.reference is not None
        names = columns(attributes, args.metrics, args.details, ranked)
        paths = find_images(args.paths, getattr(sys.stdin, 'buffer', None), null=args.null, warn=say)
        tables = _tables(args, names, maps)
    if ranked and (among := [table.path for table in tables if table.path and is_among(table.path, args.reference)]):
        raise UsageError(f'{among[0]} would be among the scores of --reference; write to another place')
    if args.maps is not None:
        need('--maps', 'matplotlib', extra='plot')
    reference = load_reference(args.reference)
    if any(isinstance(table, PlainTable) for table in tables) and (args.details or args.metrics or ranked):
        say('columns: ' + ', '.join(name for name in names if column(name).role not in ('image', 'error')))
    if not args.resume and not any(map(os.path.isfile, paths)):
        return _write(args, tables, None, paths, {}, map(_unreadable, paths), len(paths))

    metric, others = load_metrics(args)  # fails before any table is touched
    source = label(metric)
    if reference is not None:
        with usage_errors(ValueError):
            source = reference.check(source)
    done = _finished(tables, paths, source) if args.resume else {}
    todo = [path for path in paths if same_file(path) not in done]
    folders = [os.path.dirname(os.path.abspath(path)) for path in paths]
    root = '' if args.maps is None else os.path.commonpath(folders)

    def each(row: dict[str, Any], image: Tensor, analysis: Analysis) -> None:
        if maps is not None:
            maps(row, image, analysis)
        if args.maps is not None:  # in the same subfolders as the images are in
            name = os.path.relpath(os.path.abspath(row['path']), root) + '.png'
            try:
                save_figure(image, analysis, os.path.join(args.maps, name), 'q', metric.config)
            except OSError as error:
                raise OSError(f'map: {one_line(error)}') from error

    from ..scoring.score import score_files

    options = {'batch': args.batch, 'workers': args.workers, 'max_pixels': args.max_pixels}
    rows = score_files(metric, todo, others=others, each=each, **options)
    if reference is not None:  # of rows of an earlier run too: their percentiles may be of another reference
        rows = reference.add_to(rows)
        done = dict(zip(done, reference.add_to(done.values()), strict=True))
    return _write(args, tables, source, paths, done, rows, len(todo))


def _is_page(path: str) -> bool:
    return path.lower().endswith('.html')


def _tables(args: argparse.Namespace, names: tuple[str, ...], maps: Maps | None) -> list[Table]:
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
    for path in sorted(outputs, key=_is_page):  # pages are completed after the tables
        if path == '-':
            tables.append(STREAMS[args.format](sys.stdout, names))
        elif _is_page(path):
            source = {'command': args.command}
            tables.append(ReportTable(path, names, maps=maps, thumbnails=args.thumbnails, source=source))
        else:
            tables.append(open_table(path, names))
    return tables


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
    """As `writing`; clears the progress bar for lines on standard output."""
    from tqdm import tqdm

    bar = contextlib.nullcontext() if table.path else tqdm.external_write_mode(sys.stdout, nolock=True)
    with writing(table.path or 'standard output'), bar:
        yield
