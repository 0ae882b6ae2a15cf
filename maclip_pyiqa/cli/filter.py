"""`maclip-pyiqa filter`: what is kept of many scored images, as a list, counts and a histogram."""

from __future__ import annotations

import argparse
import re

from .._lazy import need
from .common import FAILED, INCOMPLETE, OK, Parents, UsageError, load_reference, say, split_names, usage_errors

DESCRIPTION = """\
Keeps the images that pass all conditions and writes their rows, in their order, to FILE; prints counts and a histogram.
Without -o it only prints, so that a threshold can be chosen first. Images without a score are never kept.

--reference REF writes the column percentile: the share of the images in REF that score lower. REF is a table or a
collection with scores of the same metric, such as last year's.

SCORES is a table that `maclip-pyiqa score -o` wrote, or a folder that `maclip-pyiqa score-collection` wrote, which is
streamed rather than loaded. Columns that you add are kept. FILE is .parquet, .csv, .jsonl, or .txt: the paths
alone, one a line. FILE.excel.csv has the byte order mark that Excel needs. Which metric the scores are from and what
they were filtered by goes to the Parquet file's metadata, or to FILE.meta.json.
"""

CODES = """\
exit codes:
  0    some images are kept
  1    none is
  2    wrong use, no scores found, or a missing extra
"""


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    help_ = 'keep the best of many scored images'
    parser = commands.add_parser(
        'filter', parents=[parents.reference], help=help_, description=DESCRIPTION, epilog=CODES
    )
    option = parser.add_argument
    option('scores', metavar='SCORES', help='a table, or a folder of tables, or the URL of one')
    option('-o', '--output', metavar='FILE', help='.parquet, .csv, .jsonl or .txt (default: only count)')
    option('--min-score', type=float, metavar='X', help='the least score to keep')
    option('--max-score', type=float, metavar='X', help='the highest score to keep')
    percentile = 'the least percentile to keep, 0 to 100: of --reference, or else of the column percentile'
    option('--min-percentile', type=float, metavar='P', help=percentile)
    option('--top', type=_top, metavar='N|P%', help='only the N best, or the best P percent, of what passes the rest')
    flags = 'no images with these flags, such as flat,noise'
    option('--without-flags', type=split_names, default=[], metavar='A,B|all', help=flags)


def run(args: argparse.Namespace) -> int:
    """Write what is kept and print counts; -> exit code."""
    need('filter', 'pyarrow', extra='parquet')
    from ..scoring.filter import filter_scores
    from ..scoring.flags import FLAGS

    words = list(FLAGS) if args.without_flags == ['all'] else args.without_flags
    unknown = [word for word in words if word not in FLAGS]
    if unknown:
        raise UsageError(f'--without-flags: unknown flag {unknown[0]!r}; expected some of {", ".join(FLAGS)}, or all')
    reference = load_reference(args.reference)
    with usage_errors(OSError, ValueError):
        kept = filter_scores(
            args.scores, args.output, min_score=args.min_score, max_score=args.max_score, top=args.top,
            without_flags=words, reference=reference, min_percentile=args.min_percentile,
        )  # fmt: skip
    if not kept.is_complete:
        say(INCOMPLETE)
    print(kept)
    return OK if kept.kept else FAILED


def _top(text: str) -> int | float:
    number = re.fullmatch(r'(\d+(?:\.\d+)?)(%?)', text)
    if number and number[2] and 0 < float(number[1]) <= 100:
        return float(number[1]) / 100
    if number and number[1].isdecimal() and not number[2] and int(number[1]) > 0:
        return int(number[1])
    raise argparse.ArgumentTypeError(f'{text!r} is neither a number of images nor a percentage such as 20%')
