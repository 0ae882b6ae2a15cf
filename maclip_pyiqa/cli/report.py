"""`maclip-pyiqa report`: a table of scores as one page."""

from __future__ import annotations

import argparse

from ..report import write_report
from ..scoring.source import open_scores
from .common import INCOMPLETE, OK, Parents, UsageError, load_reference, say, usage_errors

MOST = 200_000  # images of a page: about 40 MB

DESCRIPTION = """\
Writes a table of scores as one page to look at, choose from, mail or keep: pictures, histogram, table, scatter, errors.
The page is one file that needs no server and no network. Pictures are made from the files that the table names, where
they still are. Pages that `maclip-pyiqa score PATH... -o FILE.html` writes have quality maps too. Needs Jinja2.

TABLE is a table of `maclip-pyiqa score -o`, a list of `maclip-pyiqa filter -o`, or the folder of a collection, local or
a URL. Further columns that you add to a table are shown too.
"""


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    help_ = 'show a table of scores as a page'
    shared = [parents.page, parents.reference]
    parser = commands.add_parser('report', parents=shared, help=help_, description=DESCRIPTION)
    parser.add_argument('table', metavar='TABLE', help='.csv, .jsonl or .parquet, or the folder of a collection')
    parser.add_argument('-o', '--output', required=True, metavar='FILE', help='the page, .html')


def run(args: argparse.Namespace) -> int:
    """Write the page; -> exit code."""
    if not args.output.lower().endswith('.html'):
        raise UsageError(f'-o {args.output!r} is not the name of a page; expected FILE.html')
    reference = load_reference(args.reference)
    with usage_errors(OSError, ValueError):
        scores = open_scores(args.table)
        if (count := len(scores)) > MOST:
            raise UsageError(
                f'{args.table} holds {count:,} images, and a page at most {MOST:,}; choose some with `maclip-pyiqa '
                f'filter {args.table} -o kept.parquet`'
            )
        if not scores.is_complete:
            say(INCOMPLETE)
        changed = f', of {scores.changed}' * bool(scores.changed)
        source = {'table': f'{args.table}{changed}', 'command': args.command}
        options = {'label': scores.label, 'reference': reference, 'thumbnails': args.thumbnails, 'source': source}
        write_report(scores.rows(), args.output, **options)
    say(f'{args.output}: {count:,} images')
    return OK
