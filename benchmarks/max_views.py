"""What `max_views` costs in accuracy and saves in time: scores of some windows against those of all windows.

Each photo is scored as it is and degraded in parts (blur, noise, JPEG), with k windows and with all; printed are the
differences, the rank correlation with the full score, and the time. Photos: those given, or by default large ones out
of the packages scikit-image and scikit-learn, which suit the small window of --backbone demo.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

COUNTS = (4, 9, 16, 36)


def default_photos() -> dict:
    """Name -> photo, RGB array; shorter side 1152 pixels, or 12 windows of the demonstration backbone."""
    import numpy as np
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    from maclip_pyiqa.demo import PHOTO

    arrays = {
        'astronaut': np.asarray(Image.open(PHOTO).convert('RGB')),
        'hubble': data.hubble_deep_field(),
        'coffee': data.coffee(),
        'motorcycle': data.stereo_motorcycle()[0],
        'china': load_sample_image('china.jpg'),
        'flower': load_sample_image('flower.jpg'),
    }
    found = {}
    for name, array in arrays.items():
        image = Image.fromarray(array)
        scale = 1152 / min(image.size)
        found[name] = image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)
    return found


def versions(photo, seed: int) -> list:
    """A photo and nine versions of it, each degraded within one random rectangle, so that quality varies over it."""
    import numpy as np

    from maclip_pyiqa.demo.showcase import SHOWN

    rng, found = np.random.default_rng(seed), [photo]
    for kind in ('blur', 'noise', 'JPEG'):
        for strength in (0.3, 0.6, 1.0):
            left, right = sorted(int(v) for v in rng.integers(0, photo.width, 2))
            top, bottom = sorted(int(v) for v in rng.integers(0, photo.height, 2))
            box = (left, top, max(right, left + 64), max(bottom, top + 64))
            mixed = photo.copy()
            mixed.paste(SHOWN[kind](photo.crop(box), strength, rng), box[:2])
            found.append(mixed)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photos', nargs='*', type=Path, help='image files, best of many megapixels')
    parser.add_argument('--backbone', default='RN50', help='default: %(default)s')
    parser.add_argument('--pretrained', default='openai', help='open_clip tag or file (default: %(default)s)')
    parser.add_argument('--limit', type=int, help='use the first LIMIT photos only')
    args = parser.parse_args(argv)

    import numpy as np
    import torch
    from PIL import Image
    from scipy import stats
    from tqdm import tqdm

    from maclip_pyiqa import MACLIP, WeightsError
    from maclip_pyiqa.backbone import NOTE
    from maclip_pyiqa.scoring.read import read_image, to_tensor

    try:
        metrics = {
            count: MACLIP(backbone=args.backbone, pretrained=args.pretrained, max_views=count)
            for count in (*COUNTS, None)
        }
        photos = {path.name: read_image(path) for path in args.photos}
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 3
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if photos:
        arrays = {name: (photo * 255).round().byte().permute(1, 2, 0).numpy() for name, photo in photos.items()}
        clean = {name: Image.fromarray(array) for name, array in arrays.items()}
    else:
        clean = default_photos()
    clean = dict(list(clean.items())[: args.limit])

    scores: dict = {count: [] for count in metrics}
    times: dict = {count: [] for count in metrics}
    windows: dict = {count: [] for count in metrics}
    for seed, photo in enumerate(tqdm(clean.values(), file=sys.stderr, disable=None)):
        for image in versions(photo, seed):
            x = to_tensor(np.array(image))[None]
            for count, metric in metrics.items():
                start = time.perf_counter()
                with torch.inference_mode():
                    scores[count].append(float(metric(x)))
                times[count].append(time.perf_counter() - start)
                windows[count].append(metric.plan(*x.shape[2:]).views - 1)
    full = np.array(scores[None])
    print(f'weights: {NOTE if args.backbone == "demo" else f"{args.backbone}, {args.pretrained}"}')
    sizes = ', '.join(f'{photo.width}x{photo.height}' for photo in clean.values())
    print(f'{len(full)} images of {sizes}; full scores {full.min():.3f} to {full.max():.3f}\n')
    print(
        '| max_views | windows | mean difference | largest | SRCC with the full score | seconds an image | speed-up |'
    )
    print('|' + ' --- |' * 7)
    for count in metrics:
        off = np.abs(np.array(scores[count]) - full)
        srcc = stats.spearmanr(scores[count], full).statistic if len(full) > 1 else float('nan')
        seconds = statistics.median(times[count])
        row = [
            'all' if count is None else str(count),
            f'{min(windows[count])} to {max(windows[count])}',
            f'{off.mean():.4f}',
            f'{off.max():.4f}',
            f'{srcc:.4f}',
            f'{seconds:.3f}',
            f'{statistics.median(times[None]) / seconds:.1f}',
        ]
        print('| ' + ' | '.join(row) + ' |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
