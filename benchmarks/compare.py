"""What paired differences show that two means do not: photos at two JPEG qualities, compared with growing numbers.

Square crops of photos are written as JPEG files of two qualities, into two folders, and compared as `maclip-pyiqa
compare` does it. Then, for each n, random subsets of n pairs are drawn: in how many does the paired interval show the
right direction, and in how many does Welch's t test, which knows of no pairs? For the last
column, a coin says in each pair which one is called the first, so that each verdict of a difference is false.

Photos: those given, or those in the packages scikit-image, scikit-learn and pyiqa. Crops of one photo resemble each
other, so n crops are worth fewer than n photos.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

COUNTS = (5, 6, 10, 20, 40, 100)


def default_photos() -> dict:
    """Name -> photo: those in the packages scikit-image, scikit-learn and pyiqa."""
    from importlib.util import find_spec

    import numpy as np
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    from maclip_pyiqa.demo import PHOTO

    arrays = {
        'astronaut': np.asarray(Image.open(PHOTO).convert('RGB')),
        'chelsea': data.chelsea(),
        'coffee': data.coffee(),
        'motorcycle': data.stereo_motorcycle()[0],
        'rocket': data.rocket(),
        'china': load_sample_image('china.jpg'),
        'flower': load_sample_image('flower.jpg'),
    }
    found = {name: Image.fromarray(array) for name, array in arrays.items()}
    spec = find_spec('pyiqa')
    if spec is not None and spec.submodule_search_locations:
        site = Path(next(iter(spec.submodule_search_locations))).parent  # its wheel has photos beside the package
        for path in sorted(site.glob('ResultsCalibra/**/*.bmp')):
            found[path.stem] = Image.open(path).convert('RGB')
    return found


def crops(photos: dict, side: int, count: int) -> dict:
    """Name -> square crop: of each photo in turn the next tile, spread over the photo."""
    import numpy as np

    tiles = {}
    for name, photo in photos.items():
        found = []
        for top in range(0, photo.height - side + 1, side):
            for left in range(0, photo.width - side + 1, side):
                crop = photo.crop((left, top, left + side, top + side))
                if np.asarray(crop.convert('L')).std() > 10:  # not a piece of sky, which no quality spoils
                    found.append((f'{name}-{left}-{top}', crop))
        order = np.random.default_rng(0).permutation(len(found))
        tiles[name] = [found[i] for i in order]
    chosen: dict = {}
    for turn in range(max(map(len, tiles.values()), default=0)):
        chosen |= dict(found[turn] for found in tiles.values() if turn < len(found))
    return dict(list(chosen.items())[:count])


def shares(low, high, n: int, draws: int, seed: int) -> tuple[float, float, float]:
    """Of random subsets of n pairs, the shares that show: the right direction by pairs; by Welch's test; a false one.

    Args:
        low, high: scores of the same crops at the lower and the higher quality, (N,)
        n: pairs in a subset
        draws: number of subsets
        seed: of the subsets
    """
    import numpy as np
    from scipy import stats

    from maclip_pyiqa.comparison.statistics import paired

    rng = np.random.default_rng(seed)
    by_pairs = by_means = false = 0
    for _ in range(draws):
        places = rng.choice(len(low), n, replace=False)
        by_pairs += paired(low[places], high[places], resamples=1999).low > 0
        welch = stats.ttest_ind(high[places], low[places], equal_var=False)
        by_means += welch.pvalue < 0.05 and welch.statistic > 0
        # no difference: in each pair a coin says which of the two is called the first
        coin = rng.random(n) < 0.5
        found = paired(
            np.where(coin, low[places], high[places]), np.where(coin, high[places], low[places]), resamples=1999
        )
        false += found.low > 0 or found.high < 0
    return by_pairs / draws, by_means / draws, false / draws


def misses(samples: int) -> list[list[str]]:
    """How often 95 % bootstrap intervals of a mean miss it: rows of a table, over distributions and sample sizes.

    Args:
        samples: drawn for each cell
    """
    import numpy as np
    from scipy import stats

    from maclip_pyiqa.comparison.statistics import mean_interval

    def plain(values):
        found = stats.bootstrap((values,), np.mean, n_resamples=1999, method='percentile', random_state=rng)
        return found.confidence_interval

    draws = {
        'normal': lambda rng, size: rng.standard_normal(size),
        'Laplace, heavier tails': lambda rng, size: rng.laplace(size=size),
        'exponential, skewed': lambda rng, size: rng.exponential(size=size) - 1,
    }
    rows = []
    for name, draw in draws.items():
        for n in (6, 10, 20, 40):
            rng = np.random.default_rng(n)
            values = draw(rng, (samples, n))
            cells = []
            for interval in (plain, lambda sample: mean_interval(sample, 1999)):
                found = [interval(sample) for sample in values]
                cells.append(f'{100 * np.mean([not low <= 0 <= high for low, high in found]):.0f} %')
            rows.append([name, str(n), *cells])
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photos', nargs='*', type=Path, help='image files')
    parser.add_argument('--backbone', default='demo', help='default: %(default)s, whose scores are not MA-CLIP')
    parser.add_argument('--pretrained', default='openai', help='open_clip tag or file (default: %(default)s)')
    parser.add_argument('--qualities', nargs=2, type=int, default=(30, 40), metavar='Q', help='default: 30 40')
    parser.add_argument('--side', type=int, default=96, help='of the crops, pixels (default: %(default)s)')
    parser.add_argument('--crops', type=int, default=400, metavar='N', help='at most (default: %(default)s)')
    parser.add_argument('--draws', type=int, default=200, metavar='N', help='subsets a row (default: %(default)s)')
    parser.add_argument('-o', '--output', type=Path, metavar='DIR', help='keep the folders, and a page of them')
    parser.add_argument(
        '--intervals', type=int, metavar='N', help='instead: how often intervals miss the mean, in N samples a cell'
    )
    args = parser.parse_args(argv)
    if args.intervals is not None:
        print('| differences | n | missed by plain percentiles | missed by expanded percentiles |')
        print('|' + ' --- |' * 4)
        for row in misses(args.intervals):
            print('| ' + ' | '.join(row) + ' |')
        return 0
    worse, better = sorted(args.qualities)
    if worse == better or worse < 1 or better > 95:
        parser.error('--qualities: expected two different ones from 1 to 95')

    import numpy as np
    from PIL import Image

    from maclip_pyiqa import MACLIP, WeightsError, compare
    from maclip_pyiqa.backbone import NOTE
    from maclip_pyiqa.comparison.statistics import FEWEST

    try:
        metric = MACLIP(backbone=args.backbone, pretrained=args.pretrained)
        photos = {path.stem: Image.open(path).convert('RGB') for path in args.photos} or default_photos()
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 3
    except (OSError, ValueError) as error:
        parser.error(str(error))
    found = crops(photos, args.side, args.crops)
    if len(found) < COUNTS[0]:
        parser.error(f'{len(found)} crops of {args.side} pixels; expected at least {COUNTS[0]}')

    with tempfile.TemporaryDirectory() as temporary:
        root = args.output or Path(temporary)
        folders = [root / f'quality{quality}' for quality in (worse, better)]
        for folder, quality in zip(folders, (worse, better), strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            for name, crop in found.items():
                crop.save(folder / f'{name}.jpg', quality=quality)
        result = compare(*folders, metric=metric)
        if args.output:
            result.to_html(root / 'compare.html', source={'command': ' '.join(['python', *sys.argv])})
            result.to_csv(root / 'compare.csv')
        itself = compare(folders[0], folders[0], metric=metric)

    print(f'weights: {NOTE if args.backbone == "demo" else f"{args.backbone}, {args.pretrained}"}')
    print(f'{len(found)} crops of {len(photos)} photos, {args.side}x{args.side}; JPEG qualities {worse} and {better}\n')
    print(result)
    print(f'\n{folders[0].name} and itself: {itself.results[0].verdict}\n')
    scores = np.array([[row['score'] for row in rows] for rows in result.images.values()])
    low, high = scores.T
    change = high - low
    print(
        f'standard deviation of the scores {scores.std(0, ddof=1).mean():.3f}, of the differences '
        f'{change.std(ddof=1):.3f}\n'
    )
    print('| n | shown by pairs | shown by the two means | false verdicts |')
    print('|' + ' --- |' * 4)
    for n in COUNTS:
        if n <= len(low):
            cells = [f'{100 * share:.0f} %' for share in shares(low, high, n, args.draws, seed=n)]
            if n < FEWEST:
                cells[::2] = ['no verdict'] * 2
            print(f'| {n} | {" | ".join(cells)} |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
