"""`maclip-pyiqa fit`: the metric's constants fitted to ratings, from cached features."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .._lazy import need
from .common import OK, Parents, usage_errors, whole_number

__all__ = ['add', 'run']

DESCRIPTION = """\
Fits the metric's constants to the ratings of a data set, from the features that `maclip-pyiqa evaluate` cached.

  maclip-pyiqa evaluate -m maclip -d kadid10k --data-root datasets -o results
  maclip-pyiqa fit results kadid10k
  python -c "import yaml, pyiqa; \\
      metric = pyiqa.create_metric('maclip', **yaml.safe_load(open('results/fit/kadid10k.maclip.yml')))"

Written to RESULTS/fit, or -o:

  DATASET.METRIC.yml   options of the fitted metric (.weights.yml with --weights). It is not the published metric: say
                       so where you report it. Its scores order images, and may leave the range of 0 to 1
  DATASET.METRIC.png   SRCC along lambda and along alpha, with the other constants unfitted and fitted

The gain is measured on held-out images: all versions of one photo are in one fold, if the data set says which they are.
Its interval is a paired bootstrap over these groups, widened because the folds share images (Nadeau and Bengio, 2003);
the gain is real if the interval is above zero. The curves are of all images, including those that the constants were
fitted to: they show how much a constant matters, not what fitting is worth.
"""


def add(commands: Any, parents: Parents) -> None:
    """Register the command."""
    help_ = 'fit the constants to ratings, from cached features'
    parser = commands.add_parser('fit', help=help_, description=DESCRIPTION)
    parser.add_argument('results', type=Path, metavar='RESULTS', help='folder of `evaluate -o`')
    parser.add_argument('dataset', metavar='DATASET', help='its name, as given to `evaluate`')
    parser.add_argument('-m', '--metric', metavar='NAME', help='default: the only one with features of DATASET')
    parser.add_argument('-o', '--output', type=Path, metavar='DIR', help='default: RESULTS/fit')
    parser.add_argument('--weights', action='store_true', help='fit weights of the prompt pairs too')
    parser.add_argument('--folds', type=whole_number(2), default=5, metavar='N', help='default: %(default)s')
    bootstrap = 'resamples of the bootstrap (default: %(default)s)'
    parser.add_argument('--resamples', type=whole_number(100), default=1000, metavar='N', help=bootstrap)
    parser.add_argument('--seed', type=whole_number(0), default=0, help='of folds and bootstrap (default: %(default)s)')


def run(args: argparse.Namespace) -> int:
    """Run the command; -> the exit code."""
    need('fit', 'filelock', 'matplotlib', 'pandas', extra='evaluation')
    from ..evaluation.cache import load_features

    settings = {'weights': args.weights, 'folds': args.folds, 'resamples': args.resamples, 'seed': args.seed}
    with usage_errors(OSError, ValueError):
        features = load_features(args.results, args.dataset, args.metric)
        from ..evaluation.fitting import fit_features

        fit, path = fit_features(features, args.output or args.results / 'fit', **settings)
    low, high = fit.interval
    print(features.title)
    print(f'SRCC on held-out images, mean over the folds: unfitted {fit.baseline:.4f}, fitted {fit.srcc:.4f}')
    print(f'gain {fit.gain:+.4f}, 95% interval [{low:+.4f}, {high:+.4f}]: {fit.verdict}')
    for name, value in fit.options.items():
        print(f'{name}: {value}')
    print(path)
    return OK
