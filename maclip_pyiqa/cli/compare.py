"""`maclip-pyiqa compare`: is B better than A?"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .._files import check_writable
from .._lazy import need
from ..scoring.text import escape_path
from .common import (
    CODES,
    FAILED,
    OK,
    Parents,
    UsageError,
    load_metrics,
    say,
    split_names,
    usage_errors,
    whole_number,
    writing,
)

LISTED = 10  # images of each kind on standard error; the page and --pairs have all
SUFFIXES = ('.csv', '.html')

DESCRIPTION = """\
Compares two or more versions of the same images: is B better than A, by how much, and how sure is that?

  maclip-pyiqa compare before/ after/                            a table and a verdict on standard output
  maclip-pyiqa compare before/ after/ -o compare.html            a page: pairs side by side, maps, statistics
  maclip-pyiqa compare before.csv after.csv --by id -o both.csv  tables made by `score -o`, paired by a column

Images of folders are paired by their path below the folder, those of tables (and of folders of tables, also by URL) by
a column, or by their path below the folder that gives the most pairs. The suffix does not count (x/1.png and x/1.jpg
are a pair), unless one version has several images that differ in it alone. Tables may be from Windows. Images without a
partner are listed and not scored; images that fail are listed and left out.

For the score, both cues, each attribute and each of --metrics: the means, the mean difference (second minus first) with
its 95 % bootstrap interval over pairs, the share of pairs in which the second is better (ties count half) with its 95 %
interval, and p of Wilcoxon's signed-rank test. The verdict is `B above A` where the mean difference's interval is above
zero. Otherwise it names the true difference that would have been shown with 80 % power. Fewer than 6 pairs get no
verdict. Each interval holds for itself: of 20 quantities that do not differ, one is expected to seem to.
"""


def add(commands: Any, parents: Parents) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        'compare',
        parents=[parents.metric, parents.files],
        help='which of several versions of the same images is better',
        description=DESCRIPTION,
        epilog=CODES,
    )
    option = parser.add_argument
    option('versions', nargs='+', metavar='VERSION', help='folder, or table made by `score -o`; two or more')
    output = 'FILE.csv: the statistics; FILE.html: a page; repeatable'
    option('-o', '--output', action='append', default=[], metavar='FILE', help=output)
    option('--pairs', metavar='FILE.csv', help='the values of each pair of images, and further text of tables')
    option('--by', metavar='COLUMN', help='column of the tables that pairs images (default: their paths)')
    lower = "columns of tables where lower is better (known already: pyiqa's metrics)"
    option('--lower-better', type=split_names, default=[], metavar='A,B', help=lower)
    resamples = 'resamples of the bootstrap (default: %(default)s)'
    option('--resamples', type=whole_number(1), default=9999, metavar='N', help=resamples)
    option('--seed', type=whole_number(0), default=0, metavar='N', help='seed of the bootstrap (default: %(default)s)')
    pictures = (
        'on the page, show the images of N pairs: the largest differences of either sign, and evenly spread ones '
        'between (default: %(default)s)'
    )
    option('--pictures', type=whole_number(0), default=60, metavar='N', help=pictures)


def run(args: argparse.Namespace) -> int:
    """Compare, print, write; -> exit code."""
    # all checks that need no torch come first
    outputs = [*args.output, *([] if args.pairs is None else [args.pairs])]
    for path in outputs:
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in (SUFFIXES if path in args.output else SUFFIXES[:1]):
            raise UsageError(f'{path!r} has no suffix of a result; expected {" or ".join(SUFFIXES)} (--pairs: .csv)')
    if len({os.path.realpath(path) for path in outputs}) < len(outputs):
        raise UsageError(f'two results cannot be written to one file: {", ".join(outputs)}')
    if any(path.lower().endswith('.html') for path in args.output):
        need('a page', 'jinja2', extra='report')
    from ..comparison.pairing import check_labels, pair, read_versions

    with usage_errors(OSError, ValueError):
        versions = read_versions(args.versions, args.by)
        images = pair(versions)
        check_labels(versions)
    folders = not all(version.scored for version in versions)
    if args.metrics and not folders:
        raise UsageError('--metrics scores folders; tables are compared in all the columns that they have')
    for path in outputs:
        with writing(path):
            check_writable(path)
    from ..comparison.verdict import compare_versions

    metric, loaded = load_metrics(args) if folders else (None, None)
    with usage_errors(ValueError):
        result = compare_versions(
            versions,
            images,
            metric,
            lower_better=args.lower_better,
            resamples=args.resamples,
            seed=args.seed,
            options={'others': loaded, 'batch': args.batch, 'workers': args.workers, 'max_pixels': args.max_pixels},
        )
    for note in result.notes:
        say(escape_path(note))
    _list(f'not in all of {", ".join(result.names)}', [f'{k} (in {", ".join(v)})' for k, v in result.unpaired.items()])
    _list('failed and left out', [f'{name}: {row["path"]}: {row["error"]}' for name, row in result.failed])
    print(result)
    for path in outputs:
        with writing(path):
            if path not in args.output:
                result.pairs_to_csv(path)
            elif path.lower().endswith('.html'):
                result.to_html(path, args.pictures, {'command': args.command})
            else:
                result.to_csv(path)
    return FAILED if result.failed else OK


def _list(what: str, lines: list[str]) -> None:
    """Images of one kind on standard error."""
    if lines:
        say(f'{what}: {len(lines)} images')
        for line in lines[:LISTED]:
            print(f'  {escape_path(line)}', file=sys.stderr)
        if len(lines) > LISTED:
            print(f'  ... and {len(lines) - LISTED} more', file=sys.stderr)
