"""MA-CLIP as a guidance signal: degrade photos, then restore them by gradient ascent on the score.

    loss(x) = 1 - metric(x) + fidelity * mean((A x - observed)^2)

A is the blur where the photo was blurred, since that operator is known and differentiable; for noise and JPEG it is
the identity. The estimate starts at the observed image. Adam moves its pixels, which are clamped to [0, 1].

The table shows how the score is gamed, and what helps. NIQE, BRISQUE and PIQE judge without the original, as the score
does, which is the one that was climbed; for these three lower is better.

  score alone           a no-reference metric rewards whatever raises it, also where the picture gets worse
  with fidelity term    ties the estimate to the observed image
  paired                stops where the original's score is reached
  early cutoff          the score in the first part of the steps only
  all of them           fidelity term, paired and early cutoff
  fidelity term alone   the control: what is gained without the score
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
COLUMNS = {'score': 3, 'PSNR, dB': 2, 'NIQE': 2, 'BRISQUE': 1, 'PIQE': 1}  # digits of each
MISSING = 'not available'
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
    steps: int,
    lr: float,
    *,
    weight: float = 1.0,
    fidelity: float = 0.0,
    target: float = math.inf,
    cutoff: float = 1.0,
    seed: int = 0,
    label: str = '',
) -> Run:
    """Gradient ascent on the metric, starting at the observed image.

    Args:
        metric: differentiable, see `maclip_pyiqa.guidance.score_gradient`
        observed, original: (1, 3, H, W) in [0, 1]; the original is used for the PSNR only
        operator: the differentiable degradation, as far as it is known
        steps: number of gradient steps
        lr: Adam's learning rate, for pixels in [0, 1]
        weight: weight of the score; 0 leaves the fidelity term alone
        fidelity: weight of the mean squared difference between operator(x) and `observed`
        target: score from which on the score no longer counts
        cutoff: first part of the steps, in which alone the score counts
        seed: seed of the metric's sampled views
        label: title of the progress bar
    """
    import torch
    from tqdm import trange

    from maclip_pyiqa.guidance import score_gradient

    x = observed.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=lr)
    draws = torch.Generator().manual_seed(seed)
    scores, psnrs = [], [psnr(observed, original)]
    with trange(steps, desc=label, disable=None) as bar:
        for step in bar:
            found = score_gradient(metric, x, normalize=False, generator=draws)
            scores.append(float(found.score))
            counts = weight > 0 and step < cutoff * steps and scores[-1] < target
            optimizer.zero_grad()
            if fidelity:
                (fidelity * (operator(x) - observed).square().mean()).backward()
            if counts:
                x.grad = -weight * found.grad + (0 if x.grad is None else x.grad)
            if x.grad is not None:  # else nothing moves, not by Adam's momentum either
                optimizer.step()
            with torch.no_grad():
                x.clamp_(0, 1)
            psnrs.append(psnr(x.detach(), original))
            bar.set_postfix_str(f'score {scores[-1]:.3f}, {psnrs[-1]:.1f} dB')
    # without gradients the metric scores all views, also where --sample-views gave the steps some of them
    scores[0] = float(metric(observed))
    scores.append(float(metric(x.detach())))
    return Run(x.detach(), scores, psnrs)


def ways(fidelity: float, target: float, cutoff: float) -> dict[str, dict]:
    """Row of the table -> options of `restore`. `target` is the original's score."""
    found: dict[str, dict] = {
        'score alone': {},
        'with fidelity term': {'fidelity': fidelity},
        'paired': {'target': target},
        'early cutoff': {'cutoff': cutoff},
    }
    together = {name: value for options in found.values() for name, value in options.items()}
    return found | {'all of them': together, 'fidelity term alone': {'fidelity': fidelity, 'weight': 0.0}}


def judges(metric: Callable[[Tensor], Tensor]) -> dict[str, Callable[[Tensor, Tensor], float] | None]:
    """Column -> a function of an image and the original, (1, 3, H, W) in [0, 1]; None: not available here."""
    found: dict[str, Callable[[Tensor, Tensor], float] | None] = {
        'score': lambda x, y: float(metric(x)),
        'PSNR, dB': psnr,
    }
    with tempfile.TemporaryDirectory() as folder:
        for column in ('NIQE', 'BRISQUE', 'PIQE'):
            judge = pyiqa_metric(column.lower(), **(basicsr_niqe(Path(folder)) if column == 'NIQE' else {}))
            least = 96 if column == 'NIQE' else 1  # pixels of NIQE's blocks
            found[column] = judge and (
                lambda x, y, judge=judge, least=least: float(judge(x.cpu())) if min(x.shape[-2:]) >= least else math.nan
            )
    return found


def pyiqa_metric(name: str, **options):
    """A metric of pyiqa on the CPU; None where its weights are neither on this machine nor can be downloaded."""
    import pyiqa

    try:
        return pyiqa.create_metric(name, device='cpu', **options)
    except Exception as error:  # of the network, the hub's client or the file: what it is, is pyiqa's affair
        print(f'{name}: {MISSING} ({type(error).__name__})', file=sys.stderr)
        return None


def basicsr_niqe(folder: Path) -> dict[str, str]:
    """Options of pyiqa's NIQE that take the parameters in BasicSR's wheel, where that is installed."""
    import numpy as np
    from scipy.io import savemat

    spec = find_spec('basicsr')
    if spec is None:
        return {}
    given = np.load(Path(spec.submodule_search_locations[0], 'metrics', 'niqe_pris_params.npz'))
    path = folder / 'niqe.mat'
    savemat(path, {'mu_prisparam': given['mu_pris_param'], 'cov_prisparam': given['cov_pris_param']})
    return {'pretrained_model_path': str(path)}


def judge(image: Tensor, original: Tensor, by: dict[str, Callable[[Tensor, Tensor], float] | None]) -> list[float]:
    """Each column of an image, in steps of 8 bits as it is saved; NaN: not available."""
    import torch

    image = (image * 255).round() / 255
    with torch.inference_mode():
        return [function(image, original) if function else math.nan for function in by.values()]


def line(name: str, rows: list[list[float]]) -> str:
    """A row of the table: mean over the photos."""
    means = [sum(values) / len(values) for values in zip(*rows, strict=True)]
    cells = [
        MISSING if math.isnan(mean) else f'{mean:.{digits}f}'
        for mean, digits in zip(means, COLUMNS.values(), strict=True)
    ]
    return f'| {name} | ' + ' | '.join(cells) + ' |'


def draw(path: Path, title: str, warning: str, original: Tensor, observed: Tensor, score: float, runs: dict[str, Run]):
    """Draw the original, a detail of each image, and the curves of the runs into one PNG. `score` is the original's."""
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
    detail = max(1, min(height, width) // 3)
    top, left = (height - detail) // 2, (width - detail) // 2

    fig = Figure(figsize=(16, 11.5), layout='constrained')
    FigureCanvasAgg(fig)
    fig.get_layout_engine().set(h_pad=0.08)
    fig.suptitle(title, fontsize=15)
    images, curves = fig.subfigures(2, 1, height_ratios=(7.8, 3.2))
    whole, *parts = images.subplots(2, 5).ravel()
    whole.imshow(_bytes(original))
    whole.set_title('original, whole')
    whole.add_patch(Rectangle((left - 0.5, top - 0.5), detail, detail, fill=False, edgecolor='yellow'))
    whole.set_axis_off()
    for part in parts:
        part.set_axis_off()
    for part, (name, image, caption) in zip(parts, pictures, strict=False):
        part.imshow(_bytes(image)[top : top + detail, left : left + detail], interpolation='nearest')
        part.set_title(f'{name}\n{caption}')
    panels = curves.subplots(1, 2)
    for panel, key, label in zip(panels, ('scores', 'psnrs'), ('score', 'PSNR to the original, dB'), strict=True):
        for name, run in runs.items():
            panel.plot(getattr(run, key), label=name)
        panel.set(xlabel='step', ylabel=label)
        panel.grid(alpha=0.3)
    panels[1].legend(fontsize=9, loc='upper left', bbox_to_anchor=(1.01, 1))
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
    add('photos', type=Path, nargs='*', help='image files (default: the photo in maclip_pyiqa)')
    add('--degradation', choices=DEGRADATIONS, default='blur', help='degradation of the photo (default: %(default)s)')
    add('--strength', type=_number(float, 0), help=f'strength of the degradation; {strengths}')
    add(
        '--fidelity', type=_number(float, 0), default=10000.0, help='weight of the fidelity term (default: %(default)g)'
    )
    add(
        '--cutoff',
        type=_number(float, 0, 1),
        default=0.2,
        help='first part of the steps, for the early cutoff (default: %(default)s)',
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
        help="backbone of the metric; 'demo' is the one in the package (default: RN50; with --stand-in, a tiny one)",
    )
    add('--pretrained', help='its weights, an open_clip tag or a file (default: openai)')
    add('--device', help='such as cuda or cpu (default: cuda if available)')
    add('--chunk', type=_number(int, 1), default=16, help='most views encoded at once (default: %(default)s)')
    add('--sample-views', type=_number(int, 1), help='random windows per step (default: all windows)')
    add(
        '--seed',
        type=_number(int, 0, 2**63 - 1),
        default=0,
        help='seed of the noise and of --sample-views (default: %(default)s)',
    )
    add('--stand-in', action='store_true', help='random weights, for a smoke test; the scores say nothing')
    add(
        '-o',
        '--output',
        type=Path,
        default=Path('guidance.png'),
        help='PNG of the first photo to write (default: %(default)s)',
    )
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

    paths = args.photos or [PHOTO]
    originals = []
    for path in paths:
        try:
            originals.append(load(path, args.size))
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

    operator = (lambda x: blur(x, strength)) if args.degradation == 'blur' else (lambda x: x)
    of = f'{args.degradation} of strength {strength:g} ({what}); {args.steps} steps'
    for path, original in zip(paths, originals, strict=True):
        print(f'{path.name}, {original.shape[-1]}x{original.shape[-2]}')
    print(of)
    warning = STAND_IN if args.stand_in else NOTE if args.backbone == 'demo' else ''
    by = judges(metric)
    rows: dict[str, list[list[float]]] = {}
    for i, original in enumerate(originals):
        observed = degrade(original, args.degradation, strength, args.seed).to(metric.device)
        original = original.to(metric.device)
        score = float(metric(original))
        runs = {
            name: restore(metric, observed, original, operator, args.steps, args.lr, seed=args.seed, label=name, **more)
            for name, more in ways(args.fidelity, score, args.cutoff).items()
        }
        images = {'degraded': observed, **{name: run.image for name, run in runs.items()}, 'original': original}
        for name, image in images.items():
            rows.setdefault(name, []).append(judge(image, original, by))
        if i == 0:
            title = f'{paths[0].name}, {original.shape[-1]}x{original.shape[-2]}; {of}'
            draw(args.output, title, warning, original, observed, score, runs)
    print(f'\n| guidance | {" | ".join(COLUMNS)} |\n|{" --- |" * (len(COLUMNS) + 1)}')
    print('\n'.join(line(*row) for row in rows.items()))
    print(f'\npicture: {args.output}')
    if warning:
        print(f'*** {warning} ***')
    return 0


if __name__ == '__main__':
    sys.exit(main())
