"""Speed, memory and agreement of implementations of MA-CLIP: same weights, same images, one run.

  straightforward   MA-CLIP as the authors run it: one image at a time, all its views at once, the prompts encoded at
                    each call, open_clip's model unchanged
  maclip_pyiqa      this package
  compiled          this package with its backbone compiled by torch; inference only. Compile time is reported apart
  clipiqa           pyiqa's CLIP-IQA: another metric on the same CLIP, which sees the whole image once
  maclip_builtin    pyiqa's own MA-CLIP, which is in half precision and needs CUDA

The implementations take turns, call by call, so that other load on the machine affects all of them alike. Memory and
scores come from an untimed first call. Times are of whole calls, from the image in memory (for the folder: from the
files on disk) to the score. Columns of the table:

  median_s, min_s, max_s    time of one call
  speedup                   times faster than straightforward: the median over the rounds of the ratio in each round
  memory_mib                peak memory of one call beyond what was held before it: resident memory of this process
                            (Linux), or memory that torch allocated (CUDA)
  max_diff                  largest difference of a score from straightforward's
  gflop, gflop_per_s        what torch's FlopCounterMode counts for one call, and that divided by the median time
  matmul_percent            gflop_per_s in percent of a plain matmul in the same precision, 2048x2048 on a CPU and
                            8192x8192 on a GPU, the best of this run
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import logging
import math
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from maclip_pyiqa import MACLIP, WeightsError, score_files
from maclip_pyiqa.backbone.weights import read
from maclip_pyiqa.metric import PROMPTS
from maclip_pyiqa.testing import make_clip, save_torchscript, state_dict, synthetic_images

REFERENCE, PACKAGE, COMPILED, CLIPIQA, BUILTIN = NAMES = (
    *('straightforward', 'maclip_pyiqa', 'compiled', 'clipiqa', 'maclip_builtin'),
)
COLUMNS = (
    *('work', 'size', 'batch', 'implementation', 'weights', 'backbone', 'device', 'precision', 'threads', 'repeats'),
    *('median_s', 'min_s', 'max_s', 'speedup', 'memory_mib', 'max_diff', 'gflop', 'gflop_per_s', 'matmul_percent'),
    *('matmul_gflop_per_s', 'compile_s', 'note'),
)
STAND_IN = 'RANDOM STAND-IN WEIGHTS: times and differences are meaningful, scores are not'


class Work(NamedTuple):
    """What is timed: 'forward' or 'gradient' of a batch of images of one size, a 'folder', or 'construction'."""

    kind: str
    size: tuple[int, int] | None = None
    batch: int = 1


def works(quick: bool = False) -> dict[str, Work]:
    """All work items by name."""
    small, medium, large, photo = (384, 512), (768, 1024), (1536, 2048), (3000, 4000)
    if quick:
        small, medium, large, photo = (224, 352), (352, 480), (480, 608), (608, 736)
    many, most = (2, 3) if quick else (8, 64)
    return {
        'window': Work('forward', (224, 224), many),  # where the window is the whole image
        'small': Work('forward', small),
        'small-batch': Work('forward', small, many),
        'medium': Work('forward', medium),
        'medium-batch': Work('forward', medium, many),
        'large': Work('forward', large),
        'large-batch': Work('forward', large, many),
        'photo': Work('forward', photo),
        'photo-batch': Work('forward', photo, many),
        'small-64': Work('forward', small, most),
        'medium-64': Work('forward', medium, most),
        'folder': Work('folder', None, 6 if quick else 64),
        'gradient-window': Work('gradient', (224, 224), many),
        'gradient': Work('gradient', small),
        'gradient-medium': Work('gradient', medium),
        'gradient-large': Work('gradient', large),
        'gradient-batch': Work('gradient', small, many),
        'gradient-medium-batch': Work('gradient', medium, many),
        'gradient-64': Work('gradient', small, most),
        'construction': Work('construction'),
    }


# only with --full or --only
FULL = (
    *('medium-batch', 'large-batch', 'photo', 'photo-batch', 'small-64', 'medium-64'),
    *('gradient-medium', 'gradient-large', 'gradient-batch', 'gradient-medium-batch', 'gradient-64'),
)


# --- implementations ---------------------------------------------------------------------------------------------


class Straightforward(nn.Module):
    """MA-CLIP step by step, as in the paper and its code, on an open_clip model.

    The model is unchanged but for the image tower's positional embedding, which MA-CLIP leaves out: it is set to zero.
    """

    def __init__(self, clip: nn.Module, tokens: Tensor) -> None:
        super().__init__()
        holder = getattr(clip.visual, 'attnpool', clip.visual)
        if not isinstance(getattr(holder, 'positional_embedding', None), nn.Parameter):
            raise ValueError("this image tower is not one of OpenAI's; expected a ResNet or a ViT, such as RN50")
        holder.positional_embedding = nn.Parameter(torch.zeros_like(holder.positional_embedding[:1]))
        self.clip = clip.eval().requires_grad_(False)
        size = clip.visual.image_size
        self.window = size[0] if isinstance(size, tuple) else size
        self.unfold = nn.Unfold(self.window, stride=round(self.window * 128 / 224))
        self.register_buffer('tokens', tokens)
        self.register_buffer('mean', torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1))
        self.register_buffer('std', torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N,)"""
        return torch.stack([self._score((image - self.mean) / self.std) for image in x])

    def _score(self, image: Tensor) -> Tensor:
        base, short = image[None], min(image.shape[-2:])
        if short < self.window:  # the authors' code cannot score these; enlarged as this package does
            size = [round(side * self.window / short) for side in image.shape[-2:]]
            base = F.interpolate(base, size, mode='bicubic', align_corners=False)
        windows = self.unfold(base).view(3, self.window, self.window, -1).permute(3, 0, 1, 2)
        whole = F.interpolate(image[None], (self.window, self.window), mode='bilinear', align_corners=False)
        f = self.clip.encode_image(torch.cat([windows, whole]))  # (V, D)
        t = self.clip.encode_text(self.tokens)
        logits = self.clip.logit_scale.exp() * F.normalize(f, dim=-1) @ F.normalize(t, dim=-1).T
        cos = logits.unflatten(1, (-1, 2)).softmax(-1)[..., 0].mean(1)  # (V,)
        a = f.abs()
        z = a / (a.std(1, keepdim=True) + 1e-6)
        norm = (((z + 1) ** 0.5 - 1) / 0.5).mean(1)
        d = cos - norm
        w = torch.stack([1.0 + d, 0.6 - d], -1).softmax(-1)
        return (w[:, 0] * cos + w[:, 1] * norm).mean()


class OneByOne(nn.Module):
    """A model that takes one image at a time, called with a batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.model(image[None]).flatten()[0] for image in x])


@dataclass
class Implementation:
    """An implementation: a model, (N, 3, H, W) -> N scores, and how it scores files, N paths -> N scores."""

    model: nn.Module
    files: Callable[[list[str]], Tensor]


def load_straightforward(backbone: str, state_file: Path, device: torch.device) -> Straightforward:
    tokens = open_clip.get_tokenizer(backbone)([prompt for pair in PROMPTS for prompt in pair])
    return Straightforward(_open_clip(backbone, state_file), tokens).to(device)


def implementations(
    backbone: str, state_file: Path, script_file: Path, device: torch.device
) -> tuple[dict[str, Implementation], dict[str, str]]:
    """The implementations that run here, except the compiled one, and the reasons why others do not.

    Args:
        state_file, script_file: the same weights as a state dict and as OpenAI's TorchScript archive
    """
    plain = load_straightforward(backbone, state_file, device)
    package = _package(backbone, state_file).to(device)
    found = {
        REFERENCE: Implementation(plain, lambda paths: torch.cat([plain(_image(p).to(device)[None]) for p in paths])),
        PACKAGE: Implementation(package, partial(through_score_files, package)),
    }
    missing = {}
    for name in (CLIPIQA, BUILTIN):
        if name == BUILTIN and device.type != 'cuda':
            missing[name] = 'needs CUDA'
            continue
        try:
            import pyiqa

            with contextlib.redirect_stdout(sys.stderr):
                metric = pyiqa.create_metric(name, backbone=str(script_file), device=device)
        except Exception as error:  # a failed import, or a backbone that pyiqa does not know
            missing[name] = _line(error)
            continue
        net = metric.net if name == CLIPIQA else OneByOne(metric.net)
        files = lambda paths, metric=metric: torch.cat([metric(path).flatten() for path in paths])  # noqa: E731
        found[name] = Implementation(net, files)
    return found, missing


def compiled(package: MACLIP) -> Implementation:
    """A copy of the package's metric whose backbone torch compiles at the first calls."""
    torch.compiler.reset()
    metric = copy.deepcopy(package)
    metric.backbone.compile(options={'freezing': True})  # weights as constants of the program
    return Implementation(metric, partial(through_score_files, metric))


def _open_clip(backbone: str, state_file: Path) -> nn.Module:
    return open_clip.create_model(backbone, pretrained=str(state_file), force_quick_gelu=True)


def _package(backbone: str, state_file: Path) -> MACLIP:
    return MACLIP(backbone=backbone, pretrained=state_file, quick_gelu=True)


def _image(path: str) -> Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert('RGB'))).permute(2, 0, 1).float() / 255


def through_score_files(metric: MACLIP, paths: list[str]) -> Tensor:
    """As the package's command scores files."""
    rows = list(score_files(metric, paths, batch=16, workers=min(4, os.cpu_count() or 1)))
    errors = [f'{row["path"]}: {row["error"]}' for row in rows if row['error']]
    if errors:
        raise RuntimeError(errors[0])
    return torch.tensor([row['score'] for row in rows])


def _line(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())[:200]


# --- images ------------------------------------------------------------------------------------------------------


def make_batch(size: tuple[int, int], count: int) -> Tensor:
    """(count, 3, H, W) in [0, 1], all different."""
    images = torch.stack(synthetic_images(count))
    return F.interpolate(images, size, mode='bicubic', align_corners=False).clamp(0, 1)


def make_folder(folder: Path, count: int, seed: int = 0) -> dict[str, tuple[int, int]]:
    """Write JPEG files with sides of 200 to 700 pixels; -> paths with height and width."""
    rng, made = random.Random(seed), {}
    for i, image in enumerate(synthetic_images(count, seed)):
        size = rng.randint(200, 700), rng.randint(200, 700)
        pixels = F.interpolate(image[None], size, mode='bicubic')[0].clamp(0, 1)
        path = str(folder / f'{i:03}.jpg')
        Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy()).save(path, quality=90)
        made[path] = size
    return made


# --- measuring ---------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """Of one implementation in one work item: seconds of each round, MiB, scores; or a note why there are none."""

    times: list[float] = field(default_factory=list)
    memory: float | None = None
    scores: Tensor | None = None
    compile_s: float | None = None
    note: str = ''


def timed(call: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    """Seconds that a call took, and what it returned."""
    cuda = device.type == 'cuda'
    if cuda:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = call()
    if cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def with_memory(call: Callable[[], Tensor], device: torch.device) -> tuple[float | None, Tensor]:
    """Peak memory of a call beyond what was held before it, MiB (None where that is unknown), and what it returned."""
    gc.collect()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20, result
    try:
        import ctypes

        ctypes.CDLL(None).malloc_trim(
            0
        )  # otherwise memory that an earlier call left in the heap is reused and not counted
        Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM
        before = _status('VmRSS')
    except (OSError, AttributeError, TypeError):
        return None, call()
    result = call()
    return _status('VmHWM') - before, result


def _status(key: str) -> float:
    """A field of /proc/self/status, MiB."""
    text = Path('/proc/self/status').read_text()
    return int(text.split(f'{key}:')[1].split()[0]) / 1024


def measure(
    calls: dict[str, Callable[[], Tensor]], repeat: int, device: torch.device, label: str = ''
) -> dict[str, Result]:
    """Make each call once for its memory and scores, then `repeat` times in turn.

    Where other packages' code or the compiler fails, the result is a note with the error, and the others go on.
    """
    results = {name: Result() for name in calls}
    with tqdm(total=len(calls) * (repeat + 1), desc=label, leave=False) as bar:
        for name, call in calls.items():
            bar.set_postfix_str(name)
            result = results[name]
            try:
                if name == COMPILED:
                    result.compile_s = timed(call, device)[0]
                result.memory, scores = with_memory(call, device)
                result.scores = scores.detach().flatten().double().cpu()
            except Exception as error:
                if name in (REFERENCE, PACKAGE):
                    raise
                result.note = f'failed: {_line(error)}'
            bar.update()
        working = [name for name in calls if not results[name].note]
        for i in range(repeat):
            for name in working[i % len(working) :] + working[: i % len(working)]:  # each comes first in turn
                bar.set_postfix_str(name)
                results[name].times.append(timed(calls[name], device)[0])
                bar.update()
    return results


def score(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def score_folder(files: Callable[[list[str]], Tensor], paths: list[str]) -> Tensor:
    with torch.no_grad():
        return files(paths)


def score_and_gradient(model: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    scores = model(x)
    torch.autograd.grad(scores.sum(), x)
    return scores


@contextlib.contextmanager
def in_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in 'fp32' (TF32 off), 'tf32' (convolutions and matrix products, CUDA only) or 'bf16' (autocast)."""
    tf32 = precision == 'tf32'
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('high' if tf32 else 'highest')
    try:
        with (
            torch.backends.cudnn.flags(allow_tf32=tf32, benchmark=device.type == 'cuda'),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == 'bf16'),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def count_gflop(
    model: nn.Module, shapes: Sequence[tuple[int, ...]], device: torch.device, backward: bool = False
) -> float:
    """GFLOP for batches of these shapes, counted on torch's fake tensors: nothing is computed.

    The input requires a gradient, because fused inference kernels are not counted.
    """
    total = 0
    with FakeTensorMode(allow_non_fake_inputs=True):
        for shape, times in Counter(shapes).items():
            x = torch.empty(shape, device=device, requires_grad=True)
            with FlopCounterMode(display=False) as counter:
                scores = model(x)
                if backward:
                    scores.sum().backward()
            total += times * counter.get_total_flops()
    return total / 1e9


def matmul_gflop_per_s(device: torch.device, repeat: int = 5) -> float:
    """Best speed of a matmul, in the precision of `in_precision`."""
    n = 8192 if device.type == 'cuda' else 2048
    dtype = torch.bfloat16 if torch.is_autocast_enabled(device.type) else torch.float32
    a, b = torch.rand(2, n, n, device=device).to(dtype)
    a @ b
    return 2 * n**3 / 1e9 / min(timed(lambda: a @ b, device)[0] for _ in range(repeat))


# --- the study ---------------------------------------------------------------------------------------------------


@dataclass
class Study:
    """What all work items have in common."""

    backbone: str
    device: torch.device
    repeat: int
    folder: Path
    state_file: Path
    found: dict[str, Implementation]
    compile: bool
    memory_limit: float  # MiB
    per_view: dict[bool, float] = field(default_factory=dict)  # MiB, without and with gradient

    def run(self, name: str, work: Work) -> tuple[str, dict[str, Result], dict[str, float]]:
        """-> the images' size as text, results, GFLOP of a call."""
        if work.kind == 'construction':
            return self._construction(name)
        backward, notes = work.kind == 'gradient', {}
        running = dict(self.found)
        if self.compile and not backward:
            running[COMPILED] = compiled(self.found[PACKAGE].model)
        if work.kind == 'folder':
            images = make_folder(self.folder, work.batch)
            shapes = [(1, 3, *size) for size in images.values()]
            calls = {key: partial(score_folder, c.files, list(images)) for key, c in running.items()}
        else:
            x = make_batch(work.size, work.batch).to(self.device)
            shapes = [tuple(x.shape)]
            run = score_and_gradient if backward else score
            calls = {key: partial(run, c.model, x) for key, c in running.items()}
        for key in (REFERENCE, CLIPIQA):
            need = max(self._views(key, shape) for shape in shapes) * self._memory_per_view(backward)
            if key in calls and need > self.memory_limit:
                del calls[key]
                notes[key] = f'skipped: needs about {need / 1024:.1f} GiB, limit {self.memory_limit / 1024:.1f} GiB'
        results = measure(calls, self.repeat, self.device, name)
        gflop = {}
        for key in calls:
            if results[key].times:
                counted = self.found[PACKAGE if key == COMPILED else key].model
                # other packages' code may not work on fake tensors
                with contextlib.suppress(*[Exception] * (key in (CLIPIQA, BUILTIN))):
                    gflop[key] = count_gflop(counted, shapes, self.device, backward)
        size = 'mixed' if work.size is None else '{}x{}'.format(*work.size)
        return size, results | {key: Result(note=note) for key, note in notes.items()}, gflop

    def _construction(self, name: str):
        nothing = torch.empty(0)
        calls = {
            REFERENCE: lambda: (_open_clip(self.backbone, self.state_file), nothing)[1],
            PACKAGE: lambda: (_package(self.backbone, self.state_file), nothing)[1],
        }
        results = measure(calls, self.repeat, torch.device('cpu'), name)
        results[REFERENCE].note = 'open_clip.create_model'
        results[PACKAGE].note = 'MACLIP(), prompts encoded'
        return '', results, {}

    def _views(self, name: str, shape: tuple[int, ...]) -> float:
        """How many views an implementation holds in memory at once; CLIP-IQA holds the whole batch, the area of so
        many views."""
        model, (count, _, height, width) = self.found[REFERENCE].model, shape
        if name == CLIPIQA:
            return count * height * width / model.window**2
        rows, columns = (max(0, side - model.window) // model.unfold.stride + 1 for side in (height, width))
        return rows * columns + 1

    def _memory_per_view(self, backward: bool) -> float:
        if backward not in self.per_view:
            model = self.found[REFERENCE].model
            side = model.window + model.unfold.stride  # 5 views
            x = make_batch((side, side), 1).to(self.device)
            run = score_and_gradient if backward else score
            run(model, x)
            self.per_view[backward] = (with_memory(lambda: run(model, x), self.device)[0] or 0) / 5
        return self.per_view[backward]


def to_rows(results: dict[str, Result], gflop: dict[str, float], **common) -> list[dict]:
    """Rows of the table, each with the columns `common`."""
    rows, plain = [], results.get(REFERENCE, Result())
    for name in filter(results.get, NAMES):
        result = results[name]
        row = {'implementation': name, **common, 'memory_mib': result.memory, 'note': result.note}
        row['compile_s'], row['gflop'] = result.compile_s, gflop.get(name)
        if result.times:
            row['repeats'] = len(result.times)
            row |= {f'{f.__name__}_s': f(result.times) for f in (statistics.median, min, max)}
            if plain.times:
                row['speedup'] = statistics.median(a / b for a, b in zip(plain.times, result.times, strict=True))
            if name != CLIPIQA and plain.scores is not None and plain.scores.numel():
                row['max_diff'] = float((result.scores - plain.scores).abs().max())
            if name in gflop:
                row['gflop_per_s'] = gflop[name] / row['median_s']
        rows.append(row)
    return rows


def save_csv(path: Path, rows: list[dict]) -> None:
    table = pd.DataFrame(rows, columns=COLUMNS).astype(
        {'repeats': 'Int64'}
    )  # whole numbers also where some are missing
    table.to_csv(path, index=False, float_format='%.6g')


def describe(row: dict) -> str:
    """A row as text, for the terminal and the picture."""
    if row.get('median_s') is None:
        return row['note']
    parts = [f'{row["median_s"]:.3g} s ({row["min_s"]:.3g}..{row["max_s"]:.3g})']
    formats = {
        'speedup': 'x{:.2f}',
        'memory_mib': '{:.0f} MiB',
        'max_diff': 'diff {:.1e}',
        'gflop': '{:.4g} GFLOP',
        'gflop_per_s': '{:.0f} GFLOP/s',
        'matmul_percent': '{:.0f} % of matmul',
        'compile_s': 'compiled in {:.0f} s',
    }
    parts += [form.format(row[key]) for key, form in formats.items() if row.get(key) is not None]
    return ', '.join(parts + [row['note']] * bool(row['note']))


def draw(path: Path, rows: list[dict], title: str, warning: str) -> None:
    """Median times as bars, minimum to maximum as whiskers; one panel for each work item."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row['work'] for row in rows))
    groups = [[row for row in rows if row['work'] == name] for name in names]
    fig = Figure(figsize=(13, 1.6 + 0.34 * len(rows) + 0.75 * len(names)), layout='constrained')
    FigureCanvasAgg(fig)
    axes = fig.subplots(len(groups), 1, squeeze=False, height_ratios=[len(group) + 0.5 for group in groups])[:, 0]
    for axis, group in zip(axes, groups, strict=True):
        longest = max(row.get('max_s') or 0 for row in group)
        for y, row in enumerate(group):
            reach = 0
            if row.get('median_s') is not None:
                mid, low, reach = row['median_s'], row['min_s'], row['max_s']
                axis.barh(y, mid, xerr=[[mid - low], [reach - mid]], color=f'C{NAMES.index(row["implementation"])}')
            axis.text(reach + 0.01 * longest, y, describe(row), va='center', fontsize=8)
        axis.set(
            yticks=range(len(group)), yticklabels=[row['implementation'] for row in group], xlim=(0, 2.4 * longest)
        )
        axis.invert_yaxis()
        size, batch = group[0]['size'], group[0]['batch']
        axis.set_title(f'{group[0]["work"]}: {batch} x {size}' if size else group[0]['work'], loc='left', fontsize=10)
    axes[-1].set_xlabel('seconds per call: median, fastest and slowest')
    fig.suptitle(title, fontsize=10)
    if warning:
        fig.supxlabel(warning, color='white', backgroundcolor='firebrick', weight='bold')
    fig.savefig(path, format='png', dpi=110)


# --- command line ------------------------------------------------------------------------------------------------


def _machine(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError, IndexError):
        return Path('/proc/cpuinfo').read_text().split('model name\t: ')[1].split('\n')[0]
    return platform.processor() or platform.machine()


def _free_memory(device: torch.device) -> float:
    """MiB; infinite where it is unknown."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0] / 2**20
    try:
        return int(Path('/proc/meminfo').read_text().split('MemAvailable:')[1].split()[0]) / 1024
    except (OSError, IndexError):
        return math.inf


def _number(kind: type):
    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < math.inf:
            what = 'a whole number' if kind is int else 'a number'
            raise argparse.ArgumentTypeError(f'invalid value {text!r}; expected {what} above 0')
        return value

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    names = ', '.join(f'{n} ({w.batch} of {"x".join(map(str, w.size))})' for n, w in works().items() if w.size)
    add('--backbone', default='RN50', help="an open_clip architecture with OpenAI's image towers (default: RN50)")
    add('--pretrained', type=Path, metavar='FILE', help='its weights, in any format (default: random stand-in weights)')
    add('--device', help='such as cpu or cuda (default: cuda if available)')
    add(
        '--precision',
        choices=('fp32', 'tf32', 'bf16'),
        default='fp32',
        help="of all but pyiqa's own MA-CLIP: float32 (default), TF32 (CUDA only), or bfloat16 by autocast",
    )
    add('--threads', type=_number(int), metavar='N', help="CPU threads (default: torch's choice)")
    add('--repeat', type=_number(int), metavar='N', help='rounds (default: 5; with --quick: 2)')
    add('--only', nargs='+', choices=works(), metavar='WORK', help=f'{names}, folder, construction')
    add('--full', action='store_true', help=f'also {", ".join(FULL)}')
    add('--quick', action='store_true', help='small images and two rounds: a smoke test')
    add('--no-compile', action='store_true', help='skip the compiled implementation, which takes minutes to compile')
    add(
        '--memory-limit',
        type=_number(float),
        metavar='GIB',
        help='skip straightforward or clipiqa where they would need more (default: 80 %% of the free memory)',
    )
    add(
        '-o',
        '--output',
        type=Path,
        default=Path('speed'),
        metavar='DIR',
        help='folder for speed.csv and speed.png (default: speed)',
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    if args.device:
        try:
            device = torch.device(args.device)
            torch.empty(1, device=device)
        except (AssertionError, RuntimeError) as error:
            parser.error(f'--device {args.device}: {str(error).splitlines()[0]}')
    if args.precision == 'tf32' and device.type != 'cuda':
        parser.error(f'--precision tf32 needs CUDA; {device.type} computes in fp32 or bf16')
    if open_clip.get_model_config(args.backbone) is None:
        parser.error(f'unknown --backbone {args.backbone!r}; expected one of open_clip.list_models(), such as RN50')
    if not find_spec('matplotlib'):
        parser.error("the picture needs matplotlib: pip install 'maclip_pyiqa[plot]'")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f'-o {args.output}: cannot be used as a folder ({error.strerror})')
    if args.threads:
        torch.set_num_threads(args.threads)
    items = works(args.quick)
    chosen = args.only or [name for name in items if args.full or name not in FULL]
    limit = args.memory_limit * 1024 if args.memory_limit else 0.8 * _free_memory(device)
    logging.getLogger().setLevel(logging.ERROR)  # open_clip logs each model that it loads

    warning = '' if args.pretrained else STAND_IN
    weights = args.pretrained.name if args.pretrained else 'stand-in'
    if warning:
        print(f'*** {warning} ***')
    with tempfile.TemporaryDirectory() as temporary, in_precision(args.precision, device):
        folder = Path(temporary)
        try:
            if args.pretrained:
                state = read(args.pretrained)
            else:
                state = state_dict(make_clip(args.backbone, synthetic_images()))
            torch.save(state, folder / 'state.pt')
            save_torchscript(state, folder / 'script.pt')
            found, missing = implementations(args.backbone, folder / 'state.pt', folder / 'script.pt', device)
        except (WeightsError, ValueError, RuntimeError) as error:
            print(f'{args.backbone} with weights {weights}: {error}', file=sys.stderr)
            return 3
        title = (
            f'{args.backbone} ({weights}) on {_machine(device)}, {torch.get_num_threads()} CPU threads, '
            f'torch {torch.__version__}, {args.precision}'
        )
        print(title)
        for name, why in missing.items():
            print(f'{name} skipped: {why}')
        study = Study(
            args.backbone,
            device,
            args.repeat or (2 if args.quick else 5),
            folder,
            folder / 'state.pt',
            found,
            not args.no_compile,
            limit,
        )
        common = {'weights': weights, 'backbone': args.backbone, 'device': device.type, 'precision': args.precision}
        common['threads'] = torch.get_num_threads()
        rows, peaks = [], [matmul_gflop_per_s(device)]
        for name in chosen:
            size, results, gflop = study.run(name, items[name])
            fresh = to_rows(results, gflop, work=name, size=size, batch=items[name].batch, **common)
            rows += fresh
            peaks.append(matmul_gflop_per_s(device))
            for row in rows:
                row['matmul_gflop_per_s'] = max(peaks)
                if row.get('gflop_per_s'):
                    row['matmul_percent'] = 100 * row['gflop_per_s'] / max(peaks)
            print(f'{name}: {items[name].batch} x {size}' if size else name)
            for row in fresh:
                print(f'  {row["implementation"]:16} {describe(row)}')
            save_csv(args.output / 'speed.csv', rows)  # after each item, so that an interrupted run keeps its results
    matmul = f'matmul at best {max(peaks):.0f} GFLOP/s (at worst {min(peaks):.0f})'
    print(matmul)
    draw(args.output / 'speed.png', rows, f'{title}\n{matmul}', warning)
    print(f'table and picture: {args.output / "speed.csv"}, {args.output / "speed.png"}')
    if warning:
        print(f'*** {warning} ***')
    return 0


if __name__ == '__main__':
    sys.exit(main())
