"""pyiqa's own `maclip` and this package's, on the same weights and images, in one run on the CPU.

pyiqa's class needs CUDA: it is given the CPU here wherever it asks for CUDA, and is otherwise as it is installed. By
default the weights are random stand-ins in OpenAI's format, so times, memory and differences mean something, and scores
do not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from maclip_pyiqa import MACLIP
from maclip_pyiqa.evaluation.measure import peak_memory
from maclip_pyiqa.testing import make_clip, save_torchscript, state_dict, synthetic_images

CPU = torch.device('cpu')


class NoCUDA(TorchFunctionMode):
    """'cuda' means the CPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.cuda:
            return args[0]
        return func(*('cpu' if arg == 'cuda' else arg for arg in args), **(kwargs or {}))


def builtin(weights: Path) -> Callable[[Tensor], Tensor]:
    """pyiqa's own class on the CPU: (1, 3, H, W) -> ()."""
    from pyiqa.archs import maclip_arch

    load = maclip_arch.load
    maclip_arch.load = lambda name, device: load(name, 'cpu')
    try:
        net = maclip_arch.MACLIP(backbone=str(weights)).eval()
    finally:
        maclip_arch.load = load

    def score(x: Tensor) -> Tensor:
        with NoCUDA():
            return net(x)

    return score


def outcome(call: Callable[[], object]) -> str:
    """What a call returns, or the error that it raises, in one line."""
    try:
        return str(call())
    except Exception as error:
        return f'{type(error).__name__}: {" ".join(str(error).split())[:60]}'


def rounds(calls: dict[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Seconds of calls that take turns, after one of each that is not timed."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeat + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if i:
                times[name].append(time.perf_counter() - start)
    return times


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--weights', type=Path, help="RN50.pt, OpenAI's file (default: random stand-in weights)")
    parser.add_argument('--repeat', type=int, default=5, help='timed rounds (default: %(default)s)')
    parser.add_argument('--images', type=int, default=8, help='default: %(default)s')
    parser.add_argument('--size', nargs=2, type=int, default=(384, 512), metavar=('H', 'W'), help='default: 384 512')
    parser.add_argument(
        '--large', nargs=2, type=int, default=(1536, 2048), metavar=('H', 'W'), help='for memory (default: 1536 2048)'
    )
    args = parser.parse_args(argv)
    if args.repeat < 1 or args.images < 2 or min(*args.size, *args.large) < 224:
        parser.error('expected at least one round, two images, and 224 pixels a side')

    photos = synthetic_images(args.images)
    with tempfile.TemporaryDirectory() as folder:
        weights = args.weights
        if weights is None:
            weights = Path(folder) / 'stand-in.pt'
            save_torchscript(state_dict(make_clip('RN50', photos[:2])), weights)
        ours, own = MACLIP(pretrained=weights), builtin(weights)
        from pyiqa.archs.maclip_arch import MACLIP as Own

        without_cuda = outcome(lambda: type(Own(backbone=str(weights))).__name__)
    print(f'weights: {args.weights or "random stand-ins: scores say nothing about quality"}\n')

    x = F.interpolate(torch.stack(photos), tuple(args.size), mode='bicubic').clamp(0, 1)
    small, large = x[:1, :, :160, :200], F.interpolate(x[:1], tuple(args.large), mode='bicubic').clamp(0, 1)
    with torch.inference_mode():
        alone = torch.stack([own(image[None]) for image in x])
        batch = ours(x)[:, 0]
        mixed = outcome(lambda: f'{own(x[:2]):.4f} for both')
        rows = [
            ('on this machine, unchanged', without_cuda, type(ours).__name__),
            (f'largest difference of {len(x)} scores', '', f'{(alone - batch).abs().max():.1g}'),
            (
                f'a batch of two, alone {alone[0]:.4f} and {alone[1]:.4f}',
                mixed,
                ' and '.join(f'{q:.4f}' for q in batch[:2].tolist()),
            ),
            ('an image of 160x200', outcome(lambda: own(small)), f'a score, shape {tuple(ours(small).shape)}'),
        ]
        one = rounds({'own': lambda: own(x[:1]), 'ours': lambda: ours(x[:1])}, args.repeat)
        all_ = rounds({'own': lambda: [own(image[None]) for image in x], 'ours': lambda: ours(x)}, args.repeat)
        memory = [peak_memory(lambda call=call: call(large), CPU) for call in (own, ours)]
    height, width = args.size
    for what, times in ((f'time, 1 image of {width}x{height}', one), (f'time, {len(x)} of them', all_)):
        ratio = statistics.median(a / b for a, b in zip(times['own'], times['ours'], strict=True))
        own_s, ours_s = (statistics.median(times[name]) for name in ('own', 'ours'))
        rows.append((what, f'{own_s:.2f} s', f'{ours_s:.2f} s, x{ratio:.1f}'))
    rows.append((f'memory, {args.large[1]}x{args.large[0]}', *(f'{mib:.0f} MiB' for mib in memory)))
    print("| | pyiqa's own | this package |\n| --- | --- | --- |")
    for row in rows:
        print(f'| {" | ".join(row)} |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
