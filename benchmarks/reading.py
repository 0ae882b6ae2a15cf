"""Scores of images without content: flat, black, white, noise and tiny ones, with both cues and the attributes.

Run it with the weights that you score with: the figures depend on the weights as much as on the metric.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photos', nargs='*', type=Path, help='images to compare with')
    parser.add_argument('--backbone', default='RN50', help='default: %(default)s')
    parser.add_argument('--pretrained', default='openai', help='open_clip tag or file (default: %(default)s)')
    args = parser.parse_args(argv)

    import torch
    from tqdm import tqdm

    from maclip_pyiqa import MACLIP, WeightsError
    from maclip_pyiqa.backbone import NOTE
    from maclip_pyiqa.scoring.read import read_image
    from maclip_pyiqa.testing import images_without_content

    try:
        metric = MACLIP(backbone=args.backbone, pretrained=args.pretrained)
        images = images_without_content() | {path.name: read_image(path) for path in args.photos}
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 3
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f'weights: {NOTE if args.backbone == "demo" else f"{args.backbone}, {args.pretrained}"}\n')
    header = ['image', *(column.removeprefix('attribute_') for column in metric.summary_columns)]
    print('| ' + ' | '.join(header) + ' |\n|' + ' --- |' * len(header))
    for name, image in tqdm(images.items(), file=sys.stderr, disable=None):
        with torch.inference_mode():
            row = metric.analyze(image[None]).summary()
        print(f'| {name} | ' + ' | '.join(f'{value:.3f}' for value in row.values()) + ' |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
