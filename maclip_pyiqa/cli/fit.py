"""`maclip-pyiqa fit`: the metric fitted to ratings, from cached features."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from .._lazy import need
from .common import OK, Parents, usage_errors, whole_number

DESCRIPTION = """\
Fits the metric to the ratings of a data set, from the features that `maclip-pyiqa evaluate` cached, and says whether
the gain on held-out images is real and how many ratings are enough.

  maclip-pyiqa evaluate --list ratings.csv --images photos -o results
  maclip-pyiqa fit results ratings --licence 'our own ratings, CC BY 4.0'
  maclip-pyiqa score photos --head results/fit/ratings.maclip.head.safetensors

A fitted metric is not MA-CLIP as published: say so where you report it. See docs/evaluation.md.
"""


def add(commands: Any, parents: Parents) -> None:
    """Register the command."""
    help_ = 'fit the metric to ratings, from cached features'
    parser = commands.add_parser('fit', help=help_, description=DESCRIPTION)
    option = parser.add_argument
    option('results', type=Path, metavar='RESULTS', help='folder of `evaluate -o`')
    option('dataset', metavar='DATASET', help='its name, as given to `evaluate`; of a list that of its file')
    option('-m', '--metric', metavar='NAME', help='default: the only one with features of DATASET')
    option('-o', '--output', type=Path, metavar='DIR', help='default: RESULTS/fit')
    option('--what', choices=('head', 'constants'), default='head', help='what is fitted (default: %(default)s)')
    option('--licence', default='', metavar='TEXT', help='licence of the ratings, to be noted in the file')
    option('--folds', type=whole_number(2), default=5, metavar='N', help='default: %(default)s')
    bootstrap = 'resamples of the bootstrap (default: %(default)s)'
    option('--resamples', type=whole_number(100), default=1000, metavar='N', help=bootstrap)
    option('--seed', type=whole_number(0), default=0, help='of folds, draws and bootstrap (default: %(default)s)')


def run(args: argparse.Namespace) -> int:
    """Run the command; -> the exit code."""
    need('fit', 'filelock', 'matplotlib', 'pandas', 'sklearn', extra='evaluation')
    from ..evaluation.cache import load_features

    settings = {'folds': args.folds, 'resamples': args.resamples, 'seed': args.seed}
    with usage_errors(OSError, ValueError):
        features = load_features(args.results, args.dataset, args.metric)
        from ..evaluation.fitting import fit_features

        fit, path = fit_features(features, args.output or args.results / 'fit', args.what, args.licence, **settings)
    by = 'by photo' if features.groups else 'by image, as the data set does not say of each which photo it shows'
    verdict = 'real' if fit.real else 'not shown to be real; keep the published metric'
    interval = 'too few photos for an interval, or one of them in more than half of the images'
    if not math.isnan(fit.interval[0]):
        interval = '95% interval [{:+.4f}, {:+.4f}]'.format(*fit.interval)
    print(f'{features.title}; {args.folds} folds {by}\n\nratings  SRCC on held-out images')
    for row in fit.curve:
        print(f'{row["ratings"]:7}  {row["srcc"]:.4f}')
    print(f'unfitted {fit.baseline:.4f}\n')
    print(f'gain {fit.srcc - fit.baseline:+.4f}, {interval}: {verdict}')
    print(f'{path}: not MA-CLIP as published; say so where you report it')
    return OK
