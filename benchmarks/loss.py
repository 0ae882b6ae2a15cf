"""MACLIPLoss in the training of a small restoration network: what it gains, and what it costs.

A convolutional network of 8,000 weights learns to remove Gaussian noise from patches of six photos (scikit-image,
scikit-learn): first with L1 alone, then from there with each loss of the table for the same number of steps, on the
same patches with the same noise. The table shows the mean over three held-out photos, as mean and standard deviation
over the seeds. PSNR and SSIM compare with the clean photo. NIQE and BRISQUE judge without it, as the score does, which
is the one that was trained for.

  L1                        the fidelity term
  L1 + MACLIPLoss           + weight * (1 - score)
  ... in the first half     the same, but with L1 alone in the second half of the steps
  L1 + MACLIPLoss, paired   + weight * relu(score of the clean patch - score)
  L1 + LPIPS                + weight * LPIPS (VGG), where its weights are on this machine
  MACLIPLoss alone          without a fidelity term: how a score is gamed
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

Loss = Callable[['Tensor', 'Tensor', float], 'Tensor']  # output, clean, progress in [0, 1] -> ()

PATCH, BATCH = 96, 4  # pixels, patches
COLUMNS = {'PSNR, dB': 2, 'SSIM': 3, 'NIQE': 2, 'BRISQUE': 1, 'score': 3}  # digits of each
MISSING = 'not available'


def photos() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Training and held-out photos, (3, H, W) in [0, 1]. The demonstration backbone knows all but the astronaut."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    from maclip_pyiqa.demo import PHOTO
    from maclip_pyiqa.scoring.read import read_image, to_tensor

    training = {
        'chelsea': data.chelsea(),
        'china': load_sample_image('china.jpg').copy(),
        'hubble': data.hubble_deep_field(),
        'immunohistochemistry': data.immunohistochemistry(),
        'motorcycle': data.stereo_motorcycle()[0],
        'rocket': data.rocket(),
    }
    held_out = {'coffee': data.coffee(), 'flower': load_sample_image('flower.jpg').copy()}
    tensors = [{name: to_tensor(array)[:, :384, :512] for name, array in part.items()} for part in (training, held_out)]
    return tensors[0], {'astronaut': read_image(PHOTO)} | tensors[1]


def network(width: int = 16, depth: int = 5) -> nn.Module:
    """A small denoiser, as DnCNN (arXiv 1608.03981) without batch norms: it predicts the noise."""
    import torch
    from torch import nn

    class Denoiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [3, *[width] * (depth - 1), 3]
            layers: list[nn.Module] = []
            for i in range(depth):
                layers += [nn.Conv2d(widths[i], widths[i + 1], 3, padding=1), nn.ReLU()]
                nn.init.kaiming_normal_(layers[-2].weight)
                nn.init.zeros_(layers[-2].bias)
            layers[-2].weight.data *= 0.1  # starts near the identity
            self.body = nn.Sequential(*layers[:-1])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - self.body(x)

    return Denoiser()


def patches(images: list[Tensor], generator) -> Tensor:
    """Random patches, mirrored and turned at random, (BATCH, 3, PATCH, PATCH)."""
    import torch

    def draw(high: int) -> int:
        return int(torch.randint(high, (), generator=generator))

    found = []
    for _ in range(BATCH):
        image = images[draw(len(images))]
        top, left = draw(image.shape[1] - PATCH + 1), draw(image.shape[2] - PATCH + 1)
        patch = image[:, top : top + PATCH, left : left + PATCH]
        patch = patch.flip(2) if draw(2) else patch
        found.append(patch.rot90(draw(4), (1, 2)))
    return torch.stack(found)


def train(
    net: nn.Module, loss: Loss, images: list[Tensor], noise: float, steps: int, lr: float, seed: int, bar
) -> None:
    """Train a network in place. Patches and noise follow from the seed alone."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        clean = patches(images, generator)
        noisy = clean + noise * torch.randn(clean.shape, generator=generator)
        value = loss(net(noisy), clean, step / steps)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        bar.update()


def judges(metric) -> dict[str, Callable[[Tensor, Tensor], float] | None]:
    """Column -> a function of the restored and the clean image, (1, 3, H, W) in [0, 1]; None: not available here."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    def array(x: Tensor) -> np.ndarray:
        return x[0].permute(1, 2, 0).numpy()

    found: dict[str, Callable[[Tensor, Tensor], float] | None] = {
        'PSNR, dB': lambda x, y: (
            float('inf') if x.equal(y) else peak_signal_noise_ratio(array(y), array(x), data_range=1)
        ),
        'SSIM': lambda x, y: float(structural_similarity(array(y), array(x), data_range=1, channel_axis=2)),
    }
    with tempfile.TemporaryDirectory() as folder:
        for column in ('NIQE', 'BRISQUE'):
            judge = pyiqa_metric(column.lower(), **(basicsr_niqe(Path(folder)) if column == 'NIQE' else {}))
            found[column] = judge and (lambda x, y, judge=judge: float(judge(x)))
    return found | {'score': lambda x, y: float(metric(x))}


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


def losses(options: dict, weight: float) -> dict[str, Loss | None]:
    """The rows of the table; None: not available here."""
    from torch.nn.functional import l1_loss

    from maclip_pyiqa import MACLIPLoss

    plain, paired = MACLIPLoss(weight, **options), MACLIPLoss(weight, paired=True, **options)
    lpips = pyiqa_metric('lpips-vgg', as_loss=True)
    return {
        'L1': lambda x, y, t: l1_loss(x, y),
        'L1 + MACLIPLoss': lambda x, y, t: l1_loss(x, y) + plain(x),
        'L1 + MACLIPLoss in the first half': lambda x, y, t: l1_loss(x, y) + (plain(x) if t < 0.5 else 0),
        'L1 + MACLIPLoss, paired': lambda x, y, t: l1_loss(x, y) + paired(x, y),
        'L1 + LPIPS': lpips and (lambda x, y, t: l1_loss(x, y) + weight * lpips(x.clamp(0, 1), y)),
        'MACLIPLoss alone': lambda x, y, t: plain(x),
    }


def judge(restore: Callable[[Tensor], Tensor], held_out: dict[str, tuple[Tensor, Tensor]], by) -> list[float]:
    """Mean over the held-out photos of each column, of images as they are saved: clamped and in steps of 8 bits."""
    import torch

    rows = []
    with torch.inference_mode():
        for clean, noisy in held_out.values():
            image = (restore(noisy).clamp(0, 1) * 255).round() / 255
            rows.append([function(image, clean) if function else float('nan') for function in by.values()])
    return torch.tensor(rows, dtype=torch.float64).mean(0).tolist()


def line(name: str, runs: list[list[float]]) -> str:
    """A row of the table: mean and, of more than one run, standard deviation."""
    import numpy as np

    cells = []
    for i, digits in enumerate(COLUMNS.values()):
        values = np.array([run[i] for run in runs]) if runs else np.array([np.nan])
        cell = MISSING if np.isnan(values).any() else f'{values.mean():.{digits}f}'
        spread = f' ± {values.std(ddof=1):.{digits}f}' if len(values) > 1 and cell != MISSING else ''
        cells.append(cell + spread)
    return f'| {name} | ' + ' | '.join(cells) + ' |'


def draw(path: Path, pictures: dict[str, Tensor], note: str) -> None:
    """A detail of each image (3, H, W) into one PNG."""
    from matplotlib.figure import Figure

    columns = 4
    rows = -(-len(pictures) // columns)
    figure = Figure((3.2 * columns, 3.5 * rows + 0.4), layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, (name, image) in zip(panels, pictures.items(), strict=False):
        axes.imshow(image[:, 60:188, 180:308].permute(1, 2, 0).numpy(), interpolation='nearest')
        axes.set_title(name, fontsize=9)
    figure.suptitle(note, fontsize=10)
    figure.savefig(path, format='png', dpi=100)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--backbone', default='demo', help="of the metric (default: %(default)s, which is not the published metric's)")
    add('--pretrained', default='openai', help='its weights, an open_clip tag or a file (default: %(default)s)')
    add('--weight', type=float, default=0.02, help='of the term beside L1 (default: %(default)s)')
    add('--noise', type=float, default=0.1, help='standard deviation, for values in [0, 1] (default: %(default)s)')
    add('--first-steps', type=int, default=400, help='with L1 alone, the start of all losses (default: %(default)s)')
    add('--steps', type=int, default=150, help='with each loss (default: %(default)s)')
    add('--seeds', type=int, default=3, help='runs of each loss (default: %(default)s)')
    add('--quick', action='store_true', help='2 steps each and 2 seeds, for a smoke test')
    add('-o', '--output', type=Path, help='also draw a detail of the held-out astronaut, each loss, into this PNG')
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    first_steps, steps, seeds = (2, 2, 2) if args.quick else (args.first_steps, args.steps, args.seeds)
    for name, value in {'--first-steps': first_steps, '--steps': steps, '--seeds': seeds}.items():
        if value < 1:
            parser.error(f'{name} {value}; expected at least 1')
    if not 0 <= args.weight < float('inf'):  # false for NaN too
        parser.error(f'--weight {args.weight:g}; expected a finite number of at least 0')
    if not 0 <= args.noise <= 1:
        parser.error(f'--noise {args.noise:g}; expected from 0 to 1')
    if args.output and not args.output.parent.is_dir():
        parser.error(f'-o {args.output}: expected a file in an existing folder')
    for package, install in {'skimage': 'scikit-image', 'sklearn': 'scikit-learn', 'matplotlib': 'matplotlib'}.items():
        if not find_spec(package):
            parser.error(f'{install} is not installed: pip install {install}')

    import torch
    from tqdm import tqdm

    from maclip_pyiqa import MACLIP, WeightsError
    from maclip_pyiqa.backbone import NOTE

    options = {'backbone': args.backbone, 'pretrained': args.pretrained}
    try:
        metric = MACLIP(**options)
        rows = losses(options, args.weight)
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 3
    except ValueError as error:
        parser.error(str(error))
    by = judges(metric)
    training, clean = photos()
    generator = torch.Generator().manual_seed(1000)
    held_out = {
        name: (photo[None], photo[None] + args.noise * torch.randn(photo[None].shape, generator=generator))
        for name, photo in clean.items()
    }

    note = f'metric: {NOTE if args.backbone == "demo" else f"{args.backbone}, {args.pretrained}"}'
    print(f'{note}\n{first_steps} steps with L1, then {steps} with each loss; {seeds} seeds')
    print(f'weight {args.weight:g}, noise {args.noise:g}; held out: {", ".join(clean)}\n')
    print('| loss | ' + ' | '.join(COLUMNS) + ' |\n|' + ' --- |' * (len(COLUMNS) + 1))
    first, noisy = held_out['astronaut']
    pictures = {'clean': first[0], 'noisy': noisy[0].clamp(0, 1)}
    runs: dict[str, list[list[float]]] = {name: [] for name in rows}
    images = list(training.values())
    usable = {name: loss for name, loss in rows.items() if loss}
    start = time.perf_counter()
    with tqdm(total=seeds * (first_steps + steps * len(usable)), disable=None) as bar:
        for seed in range(seeds):
            torch.manual_seed(seed)
            begun = network()
            train(begun, usable['L1'], images, args.noise, first_steps, 2e-3, 2 * seed, bar)
            for name, loss in usable.items():
                net = deepcopy(begun)
                train(net, loss, images, args.noise, steps, 5e-4, 2 * seed + 1, bar)
                runs[name].append(judge(net, held_out, by))
                with torch.inference_mode():
                    pictures[name] = net(noisy)[0].clamp(0, 1)
    lines = [line('noisy', [judge(lambda x: x, held_out, by)]), *(line(*row) for row in runs.items())]
    same = {name: (clean, clean) for name, (clean, _) in held_out.items()}
    lines.append(line('clean', [judge(lambda x: x, same, by)]))
    print('\n'.join(lines))
    print(f'\n{time.perf_counter() - start:.0f} s')
    if args.output:
        draw(args.output, pictures, note)
        print(f'picture: {args.output}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
