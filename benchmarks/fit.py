"""What fitting gains where the truth is known: ratings made from degradations, and the commands of docs/evaluation.md.

Square crops of photos are degraded in eight ways, twice each at random strengths. A made-up rater starts at 5, takes
off up to 4 with the strength, by a factor of the degradation that the metric does not know (blur costs most, contrast
least), and adds a taste for the crop and an error of 0.3. `evaluate` and `fit` then do their work, with all versions of
all crops of a photo in one fold.

--seconds N measures `fit` on N images of random features of RN50's size instead.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from pathlib import Path
from runpy import run_path

FACTORS = {
    'blur': 1.0, 'noise': 0.6, 'impulses': 0.9, 'JPEG': 0.8, 'downsampling': 1.0, 'pixelation': 0.7, 'contrast': 0.25,
    'sharpening': 0.4,
}  # fmt: skip


def make_ratings(folder: Path, count: int, side: int = 160) -> int:
    """Write images, and ratings.csv with their ratings and photos; -> number of images."""
    import numpy as np

    degradations = run_path(str(Path(__file__).with_name('_degradations.py')))['DEGRADATIONS']
    compare = run_path(str(Path(__file__).with_name('compare.py')))
    rng, rows = np.random.default_rng(0), []
    for place, crop in compare['crops'](compare['default_photos'](), side, count).items():
        taste = rng.normal(scale=0.15)
        versions = {'original': (crop, 0.0)}
        for name, degrade in degradations.items():
            for take, strength in enumerate(rng.random(2).tolist()):
                loss = 4 * FACTORS[name] * (0.2 + 0.8 * strength)
                versions[f'{name}{take}'] = degrade(crop, strength, rng), loss
        for name, (image, loss) in versions.items():
            file = f'{place}_{name}.png'
            image.save(folder / file)
            rows.append((file, f'{5 - loss + taste + rng.normal(scale=0.3):.2f}', place.rsplit('-', 2)[0]))
    with open(folder / 'ratings.csv', 'w', newline='') as file:
        csv.writer(file).writerows([('filename', 'rating', 'photo'), *rows])
    return len(rows)


def seconds(count: int, views: int = 12, width: int = 1024) -> dict[str, float]:
    """Seconds that each model takes for so many images, ten of each scene: features as RN50's, ratings linear in
    them."""
    import numpy as np
    import torch

    from maclip_pyiqa.evaluation.cache import Features
    from maclip_pyiqa.evaluation.fitting import MODELS, cross_validate

    generator = torch.Generator().manual_seed(0)
    scene = torch.randn(count // 10, 1, width, generator=generator).repeat_interleave(10, 0)
    features = list(scene + torch.randn(len(scene), views, width, generator=generator))
    text = torch.nn.functional.normalize(torch.randn(5, 2, width, generator=generator), dim=-1)
    truth = torch.randn(width, generator=generator)
    ratings = np.array([float((f @ truth).mean()) for f in features])
    names = [str(i) for i in range(len(features))]
    config = {'cue': 'both', 'head': None, 'prompt_weights': None}
    config |= {'box_lam': 0.5, 'base_cos': 1.0, 'base_norm': 0.6, 'alpha': 1.0}
    data = Features(
        features=features,
        shares=[torch.full((views,), 1 / views)] * len(features),
        text=text,
        scale=torch.tensor(100.0),
        ratings=ratings,
        groups=[name[:-1] for name in names],
        names=names,
        keys=names,
        metadata={'metric': 'random', 'dataset': 'random', 'config': config},
    )
    found = {}
    for what, model in MODELS.items():
        start = time.perf_counter()
        cross_validate(model(data))
        found[what] = time.perf_counter() - start
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--crops', type=int, default=100, metavar='N', help='at most (default: %(default)s)')
    parser.add_argument('--metric', default='maclip_demo', help="pyiqa's name (default: %(default)s, not CLIP)")
    parser.add_argument('-o', '--output', type=Path, metavar='DIR', help='keep images, ratings and results')
    parser.add_argument('--seconds', type=int, metavar='N', help='instead: seconds for N images, at least 200')
    args = parser.parse_args(argv)
    if args.crops < 5 or (args.seconds is not None and args.seconds < 200):
        parser.error('expected at least 5 crops and 200 images')
    if args.seconds is not None:
        for what, taken in seconds(args.seconds).items():
            print(f'{what}: {taken:.0f} s')
        return 0

    from maclip_pyiqa.cli import main as command

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make_ratings(folder, args.crops)
        results, columns = str(folder / 'results'), ['--rating-column', 'rating', '--group-column', 'photo']
        how = ['-m', args.metric, '--list', str(folder / 'ratings.csv'), *columns, '-o', results, '--resamples', '0']
        if code := command(['evaluate', *how]):
            return code
        for what in ('head', 'constants'):
            print(f'\n--- {what} ---')
            if code := command(['fit', results, 'ratings', '-m', args.metric, '--what', what]):
                return code
    return 0


if __name__ == '__main__':
    sys.exit(main())
