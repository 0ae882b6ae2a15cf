"""Fits the metric's constants to the labels of a data set, from the features that accuracy.py kept of it.

  python benchmarks/accuracy.py -m maclip -d kadid10k --data-root datasets -o results
  python benchmarks/fit.py results kadid10k
  python -c "import yaml, pyiqa; \\
      metric = pyiqa.create_metric('maclip', **yaml.safe_load(open('results/fit/kadid10k.maclip.yml')))"

Writes into RESULTS/fit, or -o:

  DATASET.METRIC.yml   options of the fitted metric (.weights.yml with --weights). It is not the published one: say so
                       where you report it; its scores order images, and may leave 0 to 1
  DATASET.METRIC.png   SRCC along lambda and along alpha, the other constants as they were and as they were fitted

The gain is that on held-out images: all versions of one photo are in one fold where the data set tells which they are.
Its interval is a paired bootstrap over those groups, widened because the folds share the images that they are fitted
to (Nadeau and Bengio, 2003); the gain is real where the interval is above zero. The curves are of all images, those
that the constants were fitted to among them: they show how much a constant matters, not what fitting is worth.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from maclip_pyiqa.evaluation.store import load, write

if TYPE_CHECKING:  # they take seconds to import
    import numpy as np

    from maclip_pyiqa.evaluation.fitting import Cues

OK, USAGE = 0, 2
CURVES = {'box_lam': (r'Box-Cox $\lambda$', -2.0, 2.0), 'alpha': (r'fusion $\alpha$', 0.0, 8.0)}


def curves(cues: Cues, labels: np.ndarray, options: dict, points: int = 41) -> dict[str, tuple[list, list]]:
    """SRCC along lambda and along alpha, the other options as they are.

    Returns:
        'box_lam' and 'alpha' -> values and SRCC of all images
    """
    import numpy as np

    from maclip_pyiqa.evaluation.fitting import srcc

    found = {}
    for name, (_, low, high) in CURVES.items():
        values = np.linspace(low, high, points).tolist()
        found[name] = values, [srcc(cues.scores(**options | {name: value}), labels) for value in values]
    return found


def draw(path: Path, cues: Cues, labels: np.ndarray, unfitted: dict, fitted: dict, title: str) -> None:
    """Both curves, as they were and as they were fitted."""
    from matplotlib.figure import Figure

    from maclip_pyiqa.evaluation.fitting import srcc

    figure = Figure((7.2, 3), layout='constrained')
    axes = figure.subplots(1, 2, sharey=True)
    for label, options, line in (('unfitted', unfitted, '--'), ('fitted', fitted, '-')):
        here = srcc(cues.scores(**options), labels)
        for axis, (name, (values, heights)) in zip(axes, curves(cues, labels, options).items(), strict=True):
            (drawn,) = axis.plot(values, heights, line, label=f'other constants {label}')
            axis.plot(options[name], here, 'o', color=drawn.get_color(), label=f'{label} metric', clip_on=False)
            axis.set_xlabel(CURVES[name][0])
            axis.margins(x=0)
            axis.grid(alpha=0.3)
    axes[0].set_ylabel('SRCC, all images')
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=4, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    write(path, lambda file: figure.savefig(file, format='png', dpi=300))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; -> 0, or 2 for wrong use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results', type=Path, metavar='RESULTS', help='folder that accuracy.py -o wrote')
    parser.add_argument('dataset', metavar='DATASET', help='as accuracy.py was given it')
    parser.add_argument('-m', '--metric', metavar='NAME', help='default: the only one with features of DATASET')
    parser.add_argument('-o', '--output', type=Path, metavar='DIR', help='default: RESULTS/fit')
    parser.add_argument('--weights', action='store_true', help='fit weights of the prompt pairs too')
    parser.add_argument('--folds', type=int, default=5, metavar='N', help='default: %(default)s')
    parser.add_argument('--resamples', type=int, default=1000, metavar='N', help='bootstrap (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of folds and bootstrap (default: %(default)s)')
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return stop.code

    from maclip_pyiqa.evaluation.fitting import Cues, fit

    try:
        kept = load(args.results, args.dataset, args.metric)
        meta = kept.meta
        if meta.get('cue', 'both') != 'both':
            raise ValueError(f'{meta["metric"]} is one cue alone; there is nothing to fuse')
        start = dict(meta['constants'])
        if meta.get('prompt_weights'):
            start['prompt_weights'] = meta['prompt_weights']
        if args.resamples < 100:
            raise ValueError(f'--resamples {args.resamples}: an interval needs at least 100')
        cues = Cues(kept.features, kept.text, kept.scale)
        found = fit(
            cues,
            kept.labels,
            kept.groups,
            weights=args.weights,
            folds=args.folds,
            resamples=args.resamples,
            seed=args.seed,
            start=start,
        )
        name = f'{args.dataset}.{meta["metric"]}{".weights" * args.weights}.yml'
        output = (args.output or args.results / 'fit') / name
        output.parent.mkdir(parents=True, exist_ok=True)
        names = ('backbone', 'pretrained', 'prompts', 'views', 'stride')
        found.save(output, **{name: meta[name] for name in names if meta.get(name) is not None})
        protocol = f' ({meta["protocol"]} protocol)' if meta['protocol'] in ('paper', 'pyiqa') else ''
        title = f'{meta["metric"]} on {args.dataset}{protocol}, n = {len(kept.labels)}'
        draw(output.with_suffix('.png'), cues, kept.labels, start, found.options, title)
    except (OSError, ValueError) as error:
        print(f'fit: error: {error}', file=sys.stderr)
        return USAGE
    low, high = found.interval
    print(title)
    print(f'SRCC on held-out images, mean over the folds: unfitted {found.baseline:.4f}, fitted {found.srcc:.4f}')
    print(f'gain {found.gain:+.4f}, 95 % interval [{low:+.4f}, {high:+.4f}]: {found.verdict}')
    for name, value in found.options.items():
        print(f'{name}: {value}')
    print(output)
    return OK


if __name__ == '__main__':
    sys.exit(main())
