"""Accuracy of the demonstration backbone on photos that it was not trained on.

  python benchmarks/demo_report.py -o report                      the backbone in the package
  python benchmarks/demo_report.py seed0 seed1 seed2 -o report    folders written by train_demo.py, and their spread

Clean photos (nine in pyiqa's wheel, the one in this package, one each in those of scikit-image and scikit-learn) are
degraded in eight steps up to the end of each range: by the degradations that the training used (seen), by others
(unseen), and by those that the backbone is known to overlook (limits). Reported for the score Q and both cues over the
clean photo and its steps: Spearman's correlation with the strength, negated so that 1 is right, mean over the photos;
the same over all photos at once (pooled); how often the clean photo scores above its strongest step; the share of
photos whose score never rises by more than 0.02 from a step to a later one (monotone); and the largest rise, mean over
the photos and of any photo. Then maps of half-blurred photos, and images without content. Writes report.csv, report.md
and report.png.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageFilter
from scipy import signal, stats

from maclip_pyiqa import MACLIP, WeightsError
from maclip_pyiqa.demo import PHOTO
from maclip_pyiqa.demo.degradations import reopened
from maclip_pyiqa.scoring.read import to_tensor
from maclip_pyiqa.testing import images_without_content

DEGRADATIONS = run_path(str(Path(__file__).with_name('_degradations.py')))['DEGRADATIONS']
STRENGTHS = tuple(step / 7 for step in range(8))
TOLERANCE = 0.02  # a rise that is no turning back
CUES = ('q', 'q_sim', 'q_mag')
GROUPS = ('seen', 'unseen', 'limits')


def _filtered(kernel: np.ndarray, image: Image.Image) -> Image.Image:
    rim = kernel.shape[0] // 2
    pixels = np.pad(np.asarray(image, np.float32), ((rim, rim), (rim, rim), (0, 0)), 'edge')
    kernel = (kernel / kernel.sum())[..., None]
    return _image(signal.fftconvolve(pixels, kernel, mode='valid', axes=(0, 1)))


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def _sharpened(image: Image.Image, radius: int, amount: float) -> Image.Image:
    pixels, blurred = (np.asarray(i, np.float32) for i in (image, image.filter(ImageFilter.BoxBlur(radius))))
    return _image(pixels + amount * (pixels - blurred))


def motion_blur(image, strength, rng):
    """Along a line of 3 to 61 pixels, in a random direction."""
    length, angle = 3 * (61 / 3) ** strength, rng.uniform(0, np.pi)
    y, x = np.mgrid[-31:32, -31:32]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return _filtered((np.abs(along) <= length / 2) * np.clip(1 - np.abs(across), 0, None), image)


def defocus(image, strength, rng):
    """Disc of radius 1 to 20 pixels, its rim antialiased."""
    y, x = np.mgrid[-21:22, -21:22]
    return _filtered(np.clip(20**strength + 0.5 - np.hypot(x, y), 0, 1), image)


def box_blur(image, strength, rng):
    """Radius 1 to 17 pixels."""
    return image.filter(ImageFilter.BoxBlur(17**strength))


def median_filter(image, strength, rng):
    """3 to 17 pixels wide."""
    return image.filter(ImageFilter.MedianFilter(2 * round(1 + 7 * strength) + 1))


def webp(image, strength, rng):
    """Quality 50 down to 0."""
    return reopened(image, 'WEBP', quality=round(50 * (1 - strength)))


def jpeg2000(image, strength, rng):
    """Compression ratio 24 to 1000."""
    return reopened(image, 'JPEG2000', quality_mode='rates', quality_layers=[24 * (1000 / 24) ** strength])


def poisson_noise(image, strength, rng):
    """Shot noise: 100 photons down to 1 at white."""
    photons = 100 * (1 / 100) ** strength
    return _image(rng.poisson(np.asarray(image, np.float32) / 255 * photons) * (255 / photons))


def speckle(image, strength, rng):
    """Multiplicative Gaussian noise, standard deviation 0.1 to 1.5."""
    pixels = np.asarray(image, np.float32)
    return _image(pixels * (1 + 0.1 * 15**strength * rng.standard_normal(pixels.shape)))


def darkening(image, strength, rng):
    """Brightness 0.7 down to 0.05 of what it was."""
    return _image(np.asarray(image, np.float32) * (0.7 * (0.05 / 0.7) ** strength))


def fine_halos(image, strength, rng):
    """1 to 10 times the difference from the mean of 3x3 pixels added."""
    return _sharpened(image, 1, 10**strength)


def wide_halos(image, strength, rng):
    """0.5 to 5 times the difference from the mean of 21x21 pixels added."""
    return _sharpened(image, 10, 0.5 * 10**strength)


def posterisation(image, strength, rng):
    """16 down to 2 levels in each channel."""
    steps = round(16 * (2 / 16) ** strength) - 1
    return _image(np.round(np.asarray(image, np.float32) / 255 * steps) * (255 / steps))


def desaturation(image, strength, rng):
    """Saturation 0.8 down to 0 of what it was."""
    pixels = np.asarray(image, np.float32)
    grey = pixels.mean(2, keepdims=True)
    return _image(grey + (pixels - grey) * (0.8 - 0.8 * strength))


def colour_cast(image, strength, rng):
    """Red up and blue down by 5 to 40 % of the range."""
    return _image(np.asarray(image, np.float32) + np.array([1, 0, -1]) * 255 * (0.05 + 0.35 * strength))


def moved_blocks(image, strength, rng):
    """4 to 64 blocks of 32x32 pixels replaced by their surroundings, 4 to 16 pixels away."""
    pixels = np.array(image)
    source, (height, width, _) = pixels.copy(), pixels.shape
    for _ in range(round(4 * 16**strength)):
        y, x = int(rng.integers(0, height - 48)), int(rng.integers(0, width - 48))
        dy, dx = rng.integers(4, 17, 2)
        pixels[y : y + 32, x : x + 32] = source[y + dy : y + dy + 32, x + dx : x + dx + 32]
    return Image.fromarray(pixels)


KINDS: dict[str, tuple[str, Callable]] = {
    **{name: ('seen', function) for name, function in DEGRADATIONS.items()},
    'motion blur': ('unseen', motion_blur),
    'defocus': ('unseen', defocus),
    'box blur': ('unseen', box_blur),
    'median filter': ('unseen', median_filter),
    'WebP': ('unseen', webp),
    'JPEG 2000': ('unseen', jpeg2000),
    'Poisson noise': ('unseen', poisson_noise),
    'speckle': ('unseen', speckle),
    'darkening': ('unseen', darkening),
    'fine halos': ('unseen', fine_halos),
    'wide halos': ('unseen', wide_halos),
    'posterisation': ('limits', posterisation),
    'desaturation': ('limits', desaturation),
    'colour cast': ('limits', colour_cast),
    'moved blocks': ('limits', moved_blocks),
}


def photos() -> dict[str, Image.Image]:
    """Clean photos that train_demo.py leaves out, made smaller to at most 512 pixels wide and high.

    The bundled one, one each of scikit-image and scikit-learn, and the nine in pyiqa's wheel, if it is installed and
    has them (version 0.1.16 has).
    """
    from skimage import data
    from sklearn.datasets import load_sample_image

    found = {
        PHOTO.stem: Image.open(PHOTO).convert('RGB'),
        'coffee': Image.fromarray(data.coffee()),
        'flower': Image.fromarray(load_sample_image('flower.jpg')),
    }
    spec = find_spec('pyiqa')
    if spec is not None:
        site = Path(spec.origin).parents[1]
        for file in sorted([*site.glob('ResultsCalibra/ref_dir/*.bmp'), *site.glob('tests/test_efficiency_img_dir/*')]):
            found[file.stem] = Image.open(file).convert('RGB')
    for photo in found.values():
        photo.thumbnail((512, 512), Image.Resampling.LANCZOS)
    return found


def tensor(image: Image.Image) -> torch.Tensor:
    return to_tensor(np.array(image))


@torch.inference_mode()
def cues(metric: MACLIP, images: list[Image.Image]) -> np.ndarray:
    """Q, q_sim and q_mag of each image, (N, 3)."""
    rows = (analysis.summary() for analysis in metric.analyze([tensor(image) for image in images]))
    return np.array([[row['score'], row['q_sim'], row['q_mag']] for row in rows])


def degraded(metric: MACLIP, clean: dict[str, Image.Image], bar) -> dict[str, np.ndarray]:
    """Kind -> cues (photos, 1 + strengths, 3), the clean photo first."""
    first = np.stack([cues(metric, [photo])[0] for photo in clean.values()])
    found = {}
    for k, (kind, (_, function)) in enumerate(KINDS.items()):
        rows = []
        for i, photo in enumerate(clean.values()):
            # one seed for all strengths of a photo, so that motion has one direction and noise one pattern
            steps = [function(photo, strength, np.random.default_rng((k, i))) for strength in STRENGTHS]
            rows.append(np.concatenate([first[i : i + 1], cues(metric, steps)]))
            bar.update()
        found[kind] = np.stack(rows)
    return found


def summary(values: np.ndarray) -> dict[str, float]:
    """A row of the report from one kind's cues (photos, 1 + strengths, 3)."""
    order = np.arange(values.shape[1])

    def srcc(scores, strengths) -> float:
        return -stats.spearmanr(strengths, scores).statistic if np.ptp(scores) else 0.0

    row = {cue: float(np.mean([srcc(photo[:, c], order) for photo in values])) for c, cue in enumerate(CUES)}
    row['pooled'] = srcc(values[..., 0].ravel(), np.tile(order, len(values)))
    row['clean above strongest'] = float((values[:, 0, 0] > values[:, -1, 0]).mean())
    rises = (values[..., 0] - np.minimum.accumulate(values[..., 0], axis=1)).max(1)  # of each photo
    row['monotone'] = float((rises <= TOLERANCE).mean())
    row['rise'], row['largest rise'] = float(rises.mean()), float(rises.max())
    row['clean'], row['strongest'] = float(values[:, 0, 0].mean()), float(values[:, -1, 0].mean())
    return row


@torch.inference_mode()
def halves(metric: MACLIP, clean: dict[str, Image.Image]) -> dict[str, float]:
    """Each photo blurred in its left, right, upper and lower half: how often windows and map show where."""
    window, below, lower, fell = metric.backbone.window, [], [], []
    for photo in clean.values():
        width, height = photo.size
        blurred = photo.filter(ImageFilter.GaussianBlur(4))
        before = metric.analyze(tensor(photo)[None])
        for half in ((0, 0, width // 2, height), (width // 2, 0, width, height), (0, 0, width, height // 2),
                     (0, height // 2, width, height)):  # fmt: skip
            mixed = photo.copy()
            mixed.paste(blurred.crop(half), half[:2])
            analysis = metric.analyze(tensor(mixed)[None])
            boxes, scores = analysis.boxes[:-1], analysis.q_view[0, :-1]
            left, top, right, bottom = half
            shared = (boxes[:, 2].clamp(max=right) - boxes[:, 0].clamp(min=left)).clamp(min=0)
            shared = shared * (boxes[:, 3].clamp(max=bottom) - boxes[:, 1].clamp(min=top)).clamp(min=0)
            within, outside = shared > 0.999 * window**2, shared < 1
            pairs = scores[within][:, None] < scores[outside][None]
            below.append(float(pairs.float().mean()))
            fell.append(float((scores < before.q_view[0, :-1])[within].float().mean()))
            inside = torch.zeros(height, width, dtype=torch.bool)
            inside[top:bottom, left:right] = True
            map_ = analysis.quality_map()[0, 0]
            lower.append(bool(map_[inside].mean() < map_[~inside].mean()))
    return {
        'pairs of a blurred and a sharp window in the right order': float(np.mean(below)),
        'windows below what they were before the blur': float(np.mean(fell)),
        'maps lower over the blurred half': float(np.mean(lower)),
    }


@torch.inference_mode()
def seconds(metric: MACLIP, repeat: int = 9) -> float:
    """Median time of one 512x384 image."""
    x = torch.rand(1, 3, 384, 512, generator=torch.Generator().manual_seed(0))
    metric(x)
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        metric(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def plot(path: Path, found: dict[str, np.ndarray], title: str) -> None:
    """A panel for each kind of degradation: Q and both cues against the step, mean over the photos."""
    from matplotlib.figure import Figure

    columns = 5
    rows = -(-len(found) // columns)
    figure = Figure((2.2 * columns, 1.9 * rows + 0.5), layout='constrained')
    panels = figure.subplots(rows, columns, sharex=True, sharey=True).ravel()
    for axes, (kind, values) in zip(panels, found.items(), strict=False):
        for c, (cue, colour) in enumerate(zip(CUES, ('black', '#0072b2', '#d55e00'), strict=True)):
            mean, spread = values[..., c].mean(0), values[..., c].std(0)
            axes.plot(range(len(mean)), mean, color=colour, label=cue)
            axes.fill_between(range(len(mean)), mean - spread, mean + spread, color=colour, alpha=0.12, linewidth=0)
        axes.set_title(f'{kind} ({KINDS[kind][0]})', fontsize=9)
        axes.set_xticks(range(len(mean)), ['clean', *map(str, range(1, len(mean)))], fontsize=7)
        axes.tick_params(axis='y', labelsize=8)
    for axes in panels[len(found) :]:
        axes.set_axis_off()
    panels[0].legend(fontsize=7)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)


def table(columns: list[str], rows: list[list]) -> str:
    lines = ['| ' + ' | '.join(columns) + ' |', '|' + ' --- |' * len(columns)]
    lines += ['| ' + ' | '.join(v if isinstance(v, str) else f'{v:.3f}' for v in row) + ' |' for row in rows]
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folders', nargs='*', help='written by train_demo.py (default: the backbone in the package)')
    parser.add_argument('-o', '--output', type=Path, default=Path('demo_report'), help='default: %(default)s')
    args = parser.parse_args(argv)

    from tqdm import tqdm

    backbones = [f'local-dir:{folder}' for folder in args.folders] or ['demo']
    try:
        clean, runs = photos(), {}
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(str(error))
    bar = tqdm(total=len(backbones) * len(KINDS) * len(clean), file=sys.stderr, disable=None)
    for backbone in backbones:
        try:
            metric = MACLIP(backbone=backbone)
        except WeightsError as error:
            print(error, file=sys.stderr)
            return 3
        name = backbone.removeprefix('local-dir:')
        runs[name] = metric, degraded(metric, clean, bar)
    bar.close()

    columns = ['q', 'q_sim', 'q_mag', 'pooled', 'clean above strongest', 'monotone', 'rise', 'largest rise']
    shown = [*columns, 'clean', 'strongest']
    parts, records = [], []
    for name, (metric, found) in runs.items():
        rows = {kind: summary(values) for kind, values in found.items()}
        records += [{'backbone': name, 'kind': kind, 'group': KINDS[kind][0]} | row for kind, row in rows.items()]
        body = [[kind, KINDS[kind][0], *(row[c] for c in shown)] for kind, row in rows.items()]
        for group in GROUPS:
            members = pd.DataFrame([row for kind, row in rows.items() if KINDS[kind][0] == group])
            body.append([f'mean, {group}', group, *members[shown].mean()])
        parts.append(f'## {name}, {len(clean)} photos\n\n' + table(['', 'group', *shown], body))
        parts.append('\n'.join(f'- {what}: {100 * value:.1f} %' for what, value in halves(metric, clean).items()))
        with torch.inference_mode():
            parts.append(
                table(['image', 'Q'], [[n, float(metric(i[None]))] for n, i in images_without_content().items()])
            )
        parts.append(f'One image of 512x384: {seconds(metric):.3f} s on {torch.get_num_threads()} threads.')
    if len(runs) > 1:
        spread = []
        for group in GROUPS:
            for c in columns:
                means = [
                    np.mean([r[c] for r in records if r['backbone'] == name and r['group'] == group]) for name in runs
                ]
                spread.append([group, c, float(min(means)), float(statistics.median(means)), float(max(means))])
        parts.append(f'## Spread of {len(runs)} runs\n\n' + table(['group', '', 'least', 'median', 'greatest'], spread))
    text = '\n\n'.join(parts) + '\n'
    print(text)
    (args.output / 'report.md').write_text(text, encoding='utf-8')
    pd.DataFrame(records).to_csv(args.output / 'report.csv', index=False)
    name, (_, found) = next(iter(runs.items()))
    plot(
        args.output / 'report.png', found, f'demonstration backbone ({name}): mean and spread over {len(clean)} photos'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
