"""`maclip-pyiqa ablate`: ablations from cached features."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .._lazy import need
from .common import OK, Parents, say, usage_errors, whole_number

DESCRIPTION = """\
Ablations of MA-CLIP from the features that `maclip-pyiqa evaluate` cached: no image is read again.

  maclip-pyiqa evaluate -m maclip -d csiq kadid10k --protocol paper --data-root datasets -o results
  maclip-pyiqa ablate results

Written to RESULTS/ablation, or -o:

  ablation.csv, .md   SRCC, KRCC and raw PLCC of each variant: the cues alone, no Box-Cox, means and fixed weights, base
                      constants, lambda, alpha, numbers of prompt pairs, windows and global view. `change` is SRCC minus
                      that of the evaluated metric, in row `as run`
  thirds.csv          SRCC of each cue within the low, middle and high third of quality (the paper's Figure 1)
  groups.csv          if the data set says which images show the same content: Wasserstein distances between the
                      distributions of |f| of these groups, before and after standardisation and Box-Cox
  DATASET.METRIC.sweeps.png, DATASET.METRIC.cues.png
"""


def add(commands: Any, parents: Parents) -> None:
    """Register the command."""
    parser = commands.add_parser('ablate', help='ablations from cached features', description=DESCRIPTION)
    parser.add_argument('results', type=Path, metavar='RESULTS', help='folder of `evaluate -o`')
    parser.add_argument('-d', '--datasets', nargs='+', default=[], metavar='NAME', help='default: all in RESULTS')
    parser.add_argument('-m', '--metric', metavar='NAME', help="default: all of this package's that fuse both cues")
    parser.add_argument('-o', '--output', type=Path, metavar='DIR', help='default: RESULTS/ablation')
    bootstrap = 'resamples of the bootstrap for an interval of `change`: low, high (default: no interval)'
    parser.add_argument('--resamples', type=whole_number(0), default=0, metavar='N', help=bootstrap)


def run(args: argparse.Namespace) -> int:
    """Run the command; -> the exit code."""
    need('ablate', 'filelock', 'matplotlib', 'pandas', extra='evaluation')
    from ..evaluation.cache import read_runs

    with usage_errors(OSError, ValueError):
        read_runs(args.results)  # so that a missing folder is reported before scipy is imported
        from ..evaluation.ablations import ablate

        text = ablate(args.results, args.output, args.datasets, args.metric, args.resamples, warn=say)
    print(text)
    return OK
