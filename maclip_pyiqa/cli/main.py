"""The parser, the choice of a command, and the exit codes."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from importlib import import_module
from typing import Any

from .._lazy import NotInstalledError
from .._version import __version__
from .common import CODES, FAILED, INTERRUPTED, NO_WEIGHTS, USAGE, LogToSay, UsageError, parent_parsers, say

# Modules of this package, in the order of --help. Each has add(commands, parents), which adds its parser, and
# run(args) -> exit code. They import torch and the like within functions only.
COMMANDS = (
    *('demo', 'score', 'score_collection', 'filter', 'report', 'compare', 'map', 'evaluate', 'ablate', 'fit'),
    'weights',
)

DESCRIPTION = """\
MA-CLIP: image quality without a reference image and without training. Higher is better; about 0 to about 1.

  maclip-pyiqa demo                               scores of a degraded photo in one picture, without a download
  maclip-pyiqa score photos/ -o scores.csv        scores of all images in a folder and its subfolders
  maclip-pyiqa score photos/ -o report.html       one page to look at: pictures, histogram, maps, choices
  maclip-pyiqa score-collection shards/ -o out/   scores of Parquet files, tars, URLs, on all cores or a cluster
  maclip-pyiqa compare before/ after/             which of two versions of the same images is better
  maclip-pyiqa filter scores.csv --top 20%        the best of them as a list, with a histogram
  maclip-pyiqa map photo.jpg -o map.png           where an image is good and where it is not
  maclip-pyiqa evaluate -d csiq -o results        agreement with human ratings on IQA data sets
  maclip-pyiqa weights --fetch                    CLIP's weights: list them, download them
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; `maclip-pyiqa --help` describes it.

    Args:
        argv: arguments without the program's name; None: the process's own

    Returns:
        the exit code: 0 all scored, 1 some files failed, 2 wrong use, 3 no weights, 130 interrupted
    """
    # Idle OpenMP threads of torch spin by default, and keep cores from those that work: on a busy machine scoring took
    # 2.5 times the CPU time (benchmarks/files.py). Unless the user has chosen how they wait, they sleep.
    if not {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME'} & os.environ.keys() and 'torch' not in sys.modules:
        os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'  # read once, when torch is imported
    for stream in (sys.stdout, sys.stderr):  # file names that are not UTF-8 are written as the bytes they are
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(encoding='utf-8', errors='surrogateescape')
    try:
        args = _parser().parse_args(argv)
        args.command = shlex.join(['maclip-pyiqa', *(sys.argv[1:] if argv is None else argv)])
    except SystemExit as stop:
        return int(stop.code or 0)
    logger, handler = logging.getLogger('maclip_pyiqa'), LogToSay(logging.WARNING)
    logger.addHandler(handler)
    try:
        return args.run(args)
    except (NotInstalledError, UsageError) as error:
        say(f'error: {error}')
        return USAGE
    except KeyboardInterrupt:
        say('interrupted')
        return INTERRUPTED
    except BrokenPipeError:  # the reader of standard output has closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except RuntimeError as error:
        from ..backbone import WeightsError

        if not isinstance(error, WeightsError):
            raise
        say(f'error: {error}')
        return NO_WEIGHTS
    finally:
        logger.removeHandler(handler)


class _Parser(argparse.ArgumentParser):
    """A parser, and parsers of commands, whose help has description and epilog as they stand."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{'formatter_class': argparse.RawDescriptionHelpFormatter} | kwargs)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser('maclip-pyiqa', description=DESCRIPTION, epilog=CODES)
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True)
    parents = parent_parsers()
    for name in COMMANDS:
        command = import_module(f'.{name}', __package__)
        command.add(commands, parents)
        commands.choices[name.replace('_', '-')].set_defaults(run=command.run)
    return parser
