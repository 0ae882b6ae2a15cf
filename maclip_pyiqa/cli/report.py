"""`maclip-pyiqa report`: a table of scores as one page."""

from __future__ import annotations

import argparse
import os
from datetime import datetime, timezone

from .._lazy import need
from ..scoring.tables import read_label, read_table
from .common import OK, Parents, UsageError, add_thumbnails, say, usage_errors

__all__ = ['add', 'run']

DESCRIPTION = """\
Writes a table of scores as one page to look at, choose from, mail or keep: pictures, histogram, table, scatter, errors.
The page is one file that needs no server and no network. Pictures are made from the files that the table names, where
they still are. Pages that `maclip-pyiqa score PATH... -o FILE.html` writes have quality maps too. Needs Jinja2.
"""


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    report = commands.add_parser(
        'report',
        help='show a table of scores as a page',
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument('table', metavar='TABLE', help='.csv, .jsonl or .parquet, written by `maclip-pyiqa score -o`')
    report.add_argument('-o', '--output', required=True, metavar='FILE', help='the page, .html')
    add_thumbnails(report)
    report.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page; -> exit code."""
    need('report', 'jinja2', extra='report')
    if not args.output.lower().endswith('.html'):
        raise UsageError(f'-o {args.output!r} is not the name of a page; expected FILE.html')
    if args.table.lower().endswith('.parquet'):
        need('Parquet', 'pyarrow', extra='parquet')
    with usage_errors(OSError, ValueError):
        rows, label = read_table(args.table), read_label(args.table)
        changed = datetime.fromtimestamp(os.path.getmtime(args.table), timezone.utc)
        from ..report import write_report

        source = {'table': f'{args.table}, of {changed:%Y-%m-%d %H:%M} UTC', 'command': args.command}
        write_report(rows, args.output, label=label, thumbnails=args.thumbnails, source=source)
    say(f'{args.output}: {len(rows):,} images')
    return OK
