"""`maclip-pyiqa score-collection`: arguments and messages around `collections.score_collection`."""

from __future__ import annotations

import argparse
import os
import sys

from .._files import one_line
from .._lazy import need
from ..scoring.text import escape_path
from .common import CODES, FAILED, OK, Parents, UsageError, load_device, load_metric, say, split_names, whole_number

DESCRIPTION = """\
Scores more images than one process can, on Ray: on all cores or GPUs of this machine, or on a cluster. It needs the
extra `ray`.

INPUT is an image file, a Parquet file (with a column of paths, of bytes, or of Hugging Face's {bytes, path}), a
WebDataset shard (.tar), a folder or a pattern of one kind of them, or - for paths on standard input, one a line. All
are local or URLs such as s3://bucket/shards/.

OUT is a folder, local or a URL, which gets a Parquet file for each shard of the input: cues and attributes, means over
the views, as with `score --details`. The same command again does what is missing. `maclip-pyiqa filter` and `report`
read the folder.
"""


def add(commands: argparse._SubParsersAction, parents: Parents) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        'score-collection',
        parents=[parents.metric],
        help='score Parquet files, tars, URLs, or very many images, on Ray',
        description=DESCRIPTION,
        epilog=CODES,
    )
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='file, folder, pattern, URL, or - for a list')
    parser.add_argument('-o', '--output', required=True, metavar='OUT', help='folder of the scores')
    parser.add_argument(
        '--address', metavar='URL', help="address of a cluster, ray://HOST:10001 or 'auto' (default: this machine)"
    )
    parser.add_argument('--column', metavar='NAME', help='column of the images in Parquet files (default: by type)')
    parser.add_argument(
        '--keep',
        type=split_names,
        default=[],
        metavar='A,B',
        help="columns of Parquet files, or suffixes of a tar's other members such as json, to copy to the output",
    )
    parser.add_argument(
        '--shard-rows',
        type=whole_number(1),
        default=2000,
        metavar='N',
        help='at most N images in a file of scores; tars are not cut (default: %(default)s)',
    )
    parser.add_argument(
        '--workers',
        type=whole_number(1),
        metavar='N',
        help='score N shards at once (default: one for each GPU, or for each core)',
    )
    parser.add_argument(
        '--retries',
        type=whole_number(0),
        default=2,
        metavar='N',
        help='try a shard again N times after its process has died, then each of its images alone, and those whose '
        'process dies again N times (default: %(default)s)',
    )
    parser.add_argument(
        '--batch', type=whole_number(1), default=16, metavar='N', help='at most N images at once (default: 16)'
    )


def run(args: argparse.Namespace) -> int:
    """Score a collection; -> exit code."""
    need('score-collection', 'ray', 'pyarrow', 'filelock', 'fsspec', extra='ray')
    output = args.output
    if os.path.isfile(output) or output.endswith(('.csv', '.jsonl', '.parquet', '.html')):
        raise UsageError(f'-o {output} is a file; expected a folder, such as -o scores/')
    if args.device not in (None, 'cpu', 'cuda'):
        raise UsageError(f'--device {args.device} does not work with score-collection; expected cpu or cuda')

    from ..backbone import WeightsError
    from ..collections import score_collection

    metric = load_metric(args, load_device('cpu'))
    try:
        found = score_collection(
            args.inputs,
            output,
            metric,
            gpus=None if args.device is None else args.device == 'cuda',
            listing=getattr(sys.stdin, 'buffer', None),
            **{
                name: getattr(args, name)
                for name in ('address', 'column', 'keep', 'shard_rows', 'workers', 'retries', 'batch', 'max_pixels')
            },
        )
    except (OSError, ValueError) as error:
        reason = f'{output}: {one_line(error)}' if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(reason) from error
    except RuntimeError as error:
        if isinstance(error, WeightsError):
            raise
        raise UsageError(str(error)) from error
    lost = {entry['source']: entry['lost'] for entry in found['shards'].values() if entry['lost']}
    lost |= {entry['source'] or name: entry['error'] for name, entry in found['missing'].items()}
    for source, reason in lost.items():
        say(f'{escape_path(source)}: {reason}')
    for suffix in found['unmatched']:
        say(f'--keep {suffix}: no image in a tar has a member with this suffix, so its column is empty for tars')
    say(f'{output}: {found["rows"]} images, {found["failed"]} of them without a score (see the column `error`)')
    return FAILED if found['failed'] or lost else OK
