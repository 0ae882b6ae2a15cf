"""MA-CLIP as a guidance signal: degrade a photo, then restore it by gradient ascent on the score.

    loss(x) = 1 - metric(x) + fidelity * mean((A x - observed)^2)

A is the blur where the photo was blurred, since that operator is known and differentiable; for noise and JPEG it is
the identity. The estimate starts at the observed image. Adam moves its pixels, which are clamped to [0, 1].

There are two runs: one with the fidelity term, which ties the estimate to the observed image, and one without. The
second shows that a no-reference metric alone is not enough: it rewards whatever raises the score, also where the
picture gets worse.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DEGRADATIONS = {  # name: default strength, largest strength, what the strength is
    'noise': (0.1, 1.0, 'standard deviation of the Gaussian noise, for values in [0, 1]'),
    'blur': (2.0, 50.0, 'standard deviation of the Gaussian, in pixels'),
    'jpeg': (90.0, 99.0, '100 - quality'),
}
STAND_IN = 'RANDOM STAND-IN WEIGHTS: the scores say nothing about quality'


@dataclass
class Run:
    """One restoration: the estimate (1, 3, H, W), and score and PSNR (dB) before the first step and after each."""

    image: Tensor
    scores: list[float]
    psnrs: list[float]


def load(path: Path, size: int) -> Tensor:
    """A photo, (1, 3, H, W) in [0, 1], made smaller so that its shorter side is at most `size` pixels."""
    import numpy as np
    from PIL import Image

    from maclip_pyiqa.scoring.read import read_image, to_tensor

    image = Image.fromarray(_bytes(read_image(path)[None]))
    scale = size / min(image.size)
    if scale < 1:
        image = image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)
    return to_tensor(np.array(image))[None]


def degrade(photo: Tensor, degradation: str, strength: float, seed: int = 0) -> Tensor:
    """A photo (1, 3, H, W) degraded, clamped to [0, 1] and rounded to 8 bits, as in a file."""
    import numpy as np
    import torch
    from PIL import Image

    if degradation == 'noise':
        noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(seed))
        observed = photo + strength * noise
    elif degradation == 'blur':
        observed = blur(photo, strength)
    else:
        file = io.BytesIO()
        Image.fromarray(_bytes(photo)).save(file, 'JPEG', quality=round(100 - strength))
        observed = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 255
    return (observed.clamp(0, 1) * 255).round() / 255


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (1, 3, H, W), reflected at the borders; differentiable.

    The kernel reaches 4 standard deviations, or as far as one side of the image can be reflected.
    """
    from torchvision.transforms.v2.functional import gaussian_blur

    if sigma == 0:
        return x
    rows, columns = (2 * min(math.ceil(4 * sigma), side - 1) + 1 for side in x.shape[-2:])
    x = gaussian_blur(x, [columns, 1], sigma)  # one axis after the other: torchvision's kernel is not separated
    return gaussian_blur(x, [1, rows], sigma)


def psnr(x: Tensor, y: Tensor) -> float:
    """Peak signal-to-noise ratio of images in [0, 1], dB."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return float(peak_signal_noise_ratio(x, y, data_range=1.0))


def restore(
    metric: Callable[[Tensor], Tensor],
    observed: Tensor,
    original: Tensor,
    operator: Callable[[Tensor], Tensor],
    fidelity: float,
    steps: int,
    lr: float,
    label: str = '',
) -> Run:
    """Gradient ascent on the metric, starting at the observed image.

    Args:
        metric: a pyiqa metric made with as_loss=True
        observed, original: (1, 3, H, W) in [0, 1]; the original is used for the PSNR only
        operator: the differentiable degradation, as far as it is known
        fidelity: weight of the mean squared difference between operator(x) and `observed`
        lr: Adam's learning rate, for pixels in [0, 1]
    """
    import torch
    from tqdm import trange

    x = observed.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=lr)
    scores, psnrs = [], [psnr(observed, original)]
    with trange(steps, desc=label) as bar:
        for _ in bar:
            score = metric(x)
            loss = 1 - score + fidelity * (operator(x) - observed).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                x.clamp_(0, 1)
            scores.append(float(score.detach()))
            psnrs.append(psnr(x.detach(), original))
            bar.set_postfix_str(f'score {scores[-1]:.3f}, {psnrs[-1]:.1f} dB')
    # without gradients the metric scores all views, also where --sample-views gave the steps some of them
    scores[0] = float(metric(observed))
    scores.append(float(metric(x.detach())))
    return Run(x.detach(), scores, psnrs)


def report(run: Run) -> str:
    """The result of a run in two lines."""
    score, score_after, db, db_after = run.scores[0], run.scores[-1], run.psnrs[0], run.psnrs[-1]
    up, closer = score_after > score, db_after > db
    return (
        f'  score {score:.4f} -> {score_after:.4f}, PSNR to the original {db:.2f} -> {db_after:.2f} dB\n'
        f'  The score {"rose" if up else "did not rise"}, {"and" if up == closer else "but"} '
        f'PSNR {"rose" if closer else "did not rise"}: the picture is {"closer to" if closer else "no closer to"} '
        f'the original than the one it started from.'
    )


def draw(path: Path, title: str, warning: str, original: Tensor, observed: Tensor, score: float, runs: dict[str, Run]):
    """Draw the images, a detail of each, and the curves of the runs into one PNG. `score` is the original's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    first = next(iter(runs.values()))
    pictures = [
        ('original', original, f'score {score:.3f}'),
        ('degraded', observed, f'score {first.scores[0]:.3f}, {first.psnrs[0]:.2f} dB'),
        *((name, run.image, f'score {run.scores[-1]:.3f}, {run.psnrs[-1]:.2f} dB') for name, run in runs.items()),
    ]
    height, width = original.shape[-2:]
    shape = height / width
    detail = max(1, min(height, width) // 4)
    top, left = (height - detail) // 2, (width - detail) // 2

    fig = Figure(figsize=(16, 4 * shape + 8.5), layout='constrained')
    FigureCanvasAgg(fig)
    fig.get_layout_engine().set(h_pad=0.08)
    fig.suptitle(title, fontsize=15)
    images, curves = fig.subfigures(2, 1, height_ratios=(4 * shape + 4.8, 3.2))
    axes = images.subplots(2, 4, height_ratios=(shape, 1))
    for (whole, part), (name, image, caption) in zip(axes.T, pictures, strict=True):
        pixels = _bytes(image)
        whole.imshow(pixels)
        whole.set_title(f'{name}\n{caption}')
        whole.add_patch(Rectangle((left - 0.5, top - 0.5), detail, detail, fill=False, edgecolor='yellow'))
        part.imshow(pixels[top : top + detail, left : left + detail], interpolation='nearest')
        whole.set_axis_off()
        part.set_axis_off()
    for panel, key, label in zip(
        curves.subplots(1, 2), ('scores', 'psnrs'), ('score', 'PSNR to the original, dB'), strict=True
    ):
        for name, run in runs.items():
            panel.plot(getattr(run, key), label=name)
        panel.set(xlabel='step', ylabel=label)
        panel.grid(alpha=0.3)
        panel.legend()
    if warning:
        curves.suptitle(warning, color='white', fontsize=15, weight='bold', bbox={'fc': 'firebrick', 'lw': 0, 'pad': 3})
    fig.savefig(path, format='png', dpi=100)


def _bytes(image: Tensor):
    """(1, 3, H, W) in [0, 1] -> array (H, W, 3) of uint8."""
    return (image[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()


def _number(kind: type, low: float, high: float = math.inf):
    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (low <= value <= high and value < math.inf):  # false for NaN
            what = 'a whole number' if kind is int else 'a number'
            bound = f'from {low:g} to {high:g}' if high < math.inf else f'of at least {low:g}'
            raise argparse.ArgumentTypeError(f'invalid value {text!r}; expected {what} {bound}')
        return value

    return parse


def _parser() -> argparse.ArgumentParser:
    strengths = '; '.join(f'{name}: {what}, default {default:g}' for name, (default, _, what) in DEGRADATIONS.items())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('photo', type=Path, nargs='?', help='an image file (default: the photo in maclip_pyiqa)')
    add('--degradation', choices=DEGRADATIONS, default='blur', help='of the photo (default: %(default)s)')
    add('--strength', type=_number(float, 0), help=f'of the degradation; {strengths}')
    add(
        '--fidelity', type=_number(float, 0), default=10000.0, help='weight of the fidelity term (default: %(default)g)'
    )
    add('--steps', type=_number(int, 1), default=60, help='gradient steps of each run (default: %(default)s)')
    add(
        '--lr',
        type=_number(float, 1e-6),
        default=0.005,
        help="Adam's learning rate, for pixels in [0, 1] (default: %(default)s)",
    )
    add(
        '--size',
        type=_number(int, 16),
        default=384,
        help='shrink the photo to this shorter side, in pixels (default: %(default)s)',
    )
    add(
        '--backbone',
        help="of the metric; 'demo' is the one in the package (default: RN50; with --stand-in, a tiny one)",
    )
    add('--pretrained', help='its weights, an open_clip tag or a file (default: openai)')
    add('--device', help='such as cuda or cpu (default: cuda if available)')
    add('--chunk', type=_number(int, 1), default=16, help='most views encoded at once (default: %(default)s)')
    add('--sample-views', type=_number(int, 1), help='random windows per step (default: all windows)')
    add(
        '--seed',
        type=_number(int, 0, 2**63 - 1),
        default=0,
        help='of the noise and of --sample-views (default: %(default)s)',
    )
    add('--stand-in', action='store_true', help='random weights, for a smoke test; the scores say nothing')
    add('-o', '--output', type=Path, default=Path('guidance.png'), help='PNG to write (default: %(default)s)')
    return parser


def _stand_in(backbone: str | None, folder: Path) -> str:
    """Write random weights of an architecture (None: a tiny one) as a folder; -> the name that loads it."""
    import open_clip

    from maclip_pyiqa.testing import TINY, make_clip, save_folder, synthetic_images

    clip = make_clip(backbone or TINY, synthetic_images())
    return save_folder(clip, open_clip.get_model_config(backbone) if backbone else TINY, folder)


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    default, largest, what = DEGRADATIONS[args.degradation]
    strength = default if args.strength is None else args.strength
    if strength > largest:
        parser.error(f'--strength {strength:g}; expected at most {largest:g} for {args.degradation} ({what})')
    if args.stand_in and args.pretrained:
        parser.error('--stand-in makes its own weights; leave out --pretrained')
    if not args.output.parent.is_dir() or args.output.is_dir():
        parser.error(f'-o {args.output}: expected a file in an existing folder')
    for package in ('matplotlib', 'torchmetrics'):
        if not find_spec(package):
            parser.error(f'{package} is not installed: pip install {package}')

    import pyiqa
    import torch

    from maclip_pyiqa import WeightsError
    from maclip_pyiqa.backbone import NOTE
    from maclip_pyiqa.demo import PHOTO

    path = args.photo or PHOTO
    try:
        original = load(path, args.size)
    except (OSError, ValueError) as error:
        parser.error(f'{path}: {error}')
    try:
        torch.empty(1, device=args.device)
    except (AssertionError, RuntimeError) as error:
        parser.error(f'--device {args.device}: {str(error).splitlines()[0]}')
    options = {'chunk': args.chunk, 'sample_views': args.sample_views, 'device': args.device}
    try:
        with tempfile.TemporaryDirectory() as folder:
            if args.stand_in:
                print(f'*** {STAND_IN} ***')
                options['backbone'] = _stand_in(args.backbone, Path(folder, 'clip'))
            else:
                options |= {'backbone': args.backbone or 'RN50', 'pretrained': args.pretrained or 'openai'}
            metric = pyiqa.create_metric('maclip', as_loss=True, **options)
    except WeightsError as error:
        print(f'{error}\nTo try this study without a download: --backbone demo', file=sys.stderr)
        return 3
    except ValueError as error:
        parser.error(str(error))

    observed = degrade(original, args.degradation, strength, args.seed)
    original, observed = original.to(metric.device), observed.to(metric.device)
    operator = (lambda x: blur(x, strength)) if args.degradation == 'blur' else (lambda x: x)
    height, width = original.shape[-2:]
    title = f'{path.name}, {width}x{height}; {args.degradation} of strength {strength:g} ({what}); {args.steps} steps'
    print(title)
    runs = {}
    for label, weight in (
        (f'with fidelity term (weight {args.fidelity:g})', args.fidelity),
        ('without fidelity term', 0.0),
    ):
        torch.manual_seed(args.seed)
        runs[label] = restore(metric, observed, original, operator, weight, args.steps, args.lr, label)
    for label, run in runs.items():
        print(f'{label}\n{report(run)}')
    warning = STAND_IN if args.stand_in else NOTE if args.backbone == 'demo' else ''
    draw(args.output, title, warning, original, observed, float(metric(original)), runs)
    print(f'picture: {args.output}')
    if warning:
        print(f'*** {warning} ***')
    return 0


if __name__ == '__main__':
    sys.exit(main())
