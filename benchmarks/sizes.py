"""Scores of one photo at several sizes: as it is at each size, and after all sizes are brought to the smallest one.

The photo is made smaller with Lanczos resampling, as image viewers do it. The score is the mean over all views; the
columns `windows` and `whole` are the means over the windows and of the whole image, which is always resized to one
window.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

SIDES = (512, 384, 256, 128)  # pixels


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photo', nargs='?', type=Path, help='an image file (default: the one in this package)')
    parser.add_argument(
        '--sides', nargs='+', type=int, default=SIDES, metavar='PIXELS', help='longer sides (default: 512 384 256 128)'
    )
    parser.add_argument('--backbone', default='RN50', help='default: %(default)s')
    parser.add_argument('--pretrained', default='openai', help='open_clip tag or file (default: %(default)s)')
    args = parser.parse_args(argv)

    import numpy as np
    import torch
    from PIL import Image

    from maclip_pyiqa import MACLIP, Analysis, WeightsError
    from maclip_pyiqa.backbone import NOTE
    from maclip_pyiqa.demo import PHOTO
    from maclip_pyiqa.scoring.read import read_pixels, to_tensor

    try:
        metric = MACLIP(backbone=args.backbone, pretrained=args.pretrained)
        pixels = read_pixels(args.photo or PHOTO)
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 3
    except (OSError, ValueError) as error:
        parser.error(str(error))
    photo = Image.fromarray(pixels if pixels.dtype == np.uint8 else (pixels * 255).round().astype(np.uint8))
    sides = sorted(set(args.sides), reverse=True)
    if not 0 < sides[-1] <= sides[0] <= max(photo.size):
        parser.error(
            f'--sides {" ".join(map(str, args.sides))}: expected 1 to {max(photo.size)} pixels, the longer side of the '
            'photo; leave out the others'
        )

    def resized(image: Image.Image, longer: int) -> Image.Image:
        size = [max(1, round(side * longer / max(photo.size))) for side in photo.size]
        return image.resize(size, Image.Resampling.LANCZOS)  # the same pixels where it has that size

    def analyze(image: Image.Image) -> Analysis:
        with torch.inference_mode():
            return metric.analyze(to_tensor(np.array(image))[None])

    print(f'weights: {NOTE if args.backbone == "demo" else f"{args.backbone}, {args.pretrained}"}')
    print(f'{(args.photo or PHOTO).name}, {photo.width}x{photo.height}; windows of {metric.backbone.window} pixels\n')
    smallest = resized(photo, sides[-1])
    header = ['size', 'views', 'score', 'windows', 'whole', f'score at {smallest.width}x{smallest.height}']
    print('| ' + ' | '.join(header) + ' |\n|' + ' --- |' * len(header))
    for side in sides:
        image = resized(photo, side)
        analysis = analyze(image)
        windows, whole = analysis.q_view[0, :-1], analysis.q_view[0, -1]
        values = [
            analysis.q.item(),
            windows.mean().item() if len(windows) else float(whole),
            float(whole),
            analyze(resized(image, sides[-1])).q.item(),
        ]
        row = [f'{image.width}x{image.height}', str(analysis.plan.views), *(f'{value:.3f}' for value in values)]
        print('| ' + ' | '.join(row) + ' |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
