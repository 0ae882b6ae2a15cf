"""What images without any content get: flat, black, white, noise and tiny ones, with both cues and the attributes.

Run it with the weights you score with: the figures belong to the weights as much as to the metric.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def images(seed: int = 0) -> dict:
    """Name -> image (3, H, W) in [0, 1]."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(3, 384, 512, generator=generator)
    ramp = torch.linspace(0, 1, 512).expand(3, 384, 512)
    checks = ((torch.arange(384)[:, None] // 8 + torch.arange(512) // 8) % 2).float().expand(3, -1, -1)
    return {
        'black': torch.zeros(3, 384, 512),
        'grey': torch.full((3, 384, 512), 0.5),
        'white': torch.ones(3, 384, 512),
        'ramp': ramp,
        'checkerboard, 8 pixels': checks,
        'noise, standard deviation 0.1': (0.5 + 0.1 * noise).clamp(0, 1),
        'noise, uniform': torch.rand(3, 384, 512, generator=generator),
        'noise, black and white': torch.rand(1, 384, 512, generator=generator).round().expand(3, -1, -1),
        'grey, 1x1': torch.full((3, 1, 1), 0.5),
        'noise, uniform, 8x8': torch.rand(3, 8, 8, generator=generator),
        'noise, uniform, 32x32': torch.rand(3, 32, 32, generator=generator),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photos', nargs='*', type=Path, help='images to compare with')
    parser.add_argument('--backbone', default='RN50', help='default: %(default)s')
    parser.add_argument('--pretrained', default='openai', help='open_clip tag or file (default: %(default)s)')
    args = parser.parse_args(argv)

    import torch
    from tqdm import tqdm

    from maclip_pyiqa import MACLIP, WeightsError
    from maclip_pyiqa.demo import NOTE
    from maclip_pyiqa.scoring.read import read_image

    try:
        metric = MACLIP(backbone=args.backbone, pretrained=args.pretrained)
        shown = images() | {path.name: read_image(path) for path in args.photos}
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 3
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f'weights: {NOTE if args.backbone == "demo" else f"{args.backbone}, {args.pretrained}"}\n')
    header = None
    for name, image in tqdm(shown.items(), file=sys.stderr, disable=None):
        with torch.inference_mode():
            analysis = metric.analyze(image[None])
        if header is None:
            header = ['image', 'score', 'q_sim', 'q_mag', 'w_sim', *analysis.names]
            print('| ' + ' | '.join(header) + ' |\n|' + ' --- |' * len(header))
        values = [analysis.q, *(getattr(analysis, cue).mean() for cue in header[2:5])]
        row = [float(v) for v in values] + analysis.attributes.mean((0, 1)).tolist()
        print(f'| {name} | ' + ' | '.join(f'{v:.3f}' for v in row) + ' |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
