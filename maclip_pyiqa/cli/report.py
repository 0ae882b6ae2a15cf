"""`maclip-pyiqa report`: a table of scores as one page."""

from __future__ import annotations

import argparse
import json
import os
from datetime import datetime, timezone

from .._lazy import need
from ..scoring.formats import read_label, read_table
from ..scoring.schema import Label, Row
from ..scoring.text import unescape_text
from .common import OK, Parents, UsageError, add_thumbnails, say, usage_errors

__all__ = ['add', 'run']

MOST = 200_000  # images of a collection that a page is made of: about 40 MB

DESCRIPTION = """\
Writes a table of scores as one page to look at, choose from, mail or keep: pictures, histogram, table, scatter, errors.
The page is one file that needs no server and no network. Pictures are made from the files that the table names, where
they still are. Pages that `maclip-pyiqa score PATH... -o FILE.html` writes have quality maps too. Needs Jinja2.

TABLE is a table of `maclip-pyiqa score -o`, a list of `maclip-pyiqa filter -o`, or the folder of a collection that
`maclip-pyiqa score --engine ray` wrote. Further columns that you add to a table are shown too.
"""


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    report = commands.add_parser(
        'report',
        help='show a table of scores as a page',
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument('table', metavar='TABLE', help='.csv, .jsonl or .parquet, or the folder of a collection')
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
        rows, label, changed = _read(args.table)
        from ..report import write_report

        source = {'table': f'{args.table}, of {changed}', 'command': args.command}
        write_report(rows, args.output, label=label, thumbnails=args.thumbnails, source=source)
    say(f'{args.output}: {len(rows):,} images')
    return OK


def _read(table: str) -> tuple[list[Row], Label | None, str]:
    """Rows, their label, and when they were written."""
    if '://' not in table and not os.path.isdir(table):
        rows, label = read_table(table), read_label(table)
        changed = f'{datetime.fromtimestamp(os.path.getmtime(table), timezone.utc):%Y-%m-%d %H:%M} UTC'
    else:
        from ..scoring.collections import LABEL, open_collection, read_manifest

        data = open_collection(table)
        if (count := data.count_rows()) > MOST:
            raise ValueError(
                f'{table} holds {count:,} images, and a page at most {MOST:,}; choose some with `maclip-pyiqa filter '
                f'{table} -o kept.parquet`'
            )
        rows = [row | {'id': unescape_text(row['id'])} for row in data.to_table().to_pylist()]
        label, changed = json.loads(data.schema.metadata[LABEL]), read_manifest(table)['updated']
    if rows and 'path' not in rows[0] and 'id' in rows[0]:
        rows = [{'path': row.pop('id'), **row} for row in rows]
    return rows, label, changed
