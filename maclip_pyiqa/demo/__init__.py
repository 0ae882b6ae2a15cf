"""A photo degraded step by step, scored by the bundled demonstration backbone, in one picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter

from ..backbone.loading import DEMO
from ..scoring.read import to_tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..metric.analysis import Analysis

__all__ = ['DEGRADATIONS', 'NOTE', 'PHOTO', 'run']

NOTE = 'demonstration backbone: not CLIP, and not the published metric'
PHOTO = DEMO / 'astronaut.jpg'
STRENGTHS = (0.1, 0.5, 1.0)
LONGEST = 640  # side of what is degraded, pixels: so that the degradations are as strong on any photo


def blur(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Gaussian, of a standard deviation of 0.5 to 4 pixels."""
    return image.filter(ImageFilter.GaussianBlur(_between(0.5, 4, strength)))


def noise(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Gaussian, of a standard deviation of 0.02 to 0.25 of the range, each channel by itself."""
    pixels = np.asarray(image, np.float32)
    noise = rng.standard_normal(pixels.shape, np.float32) * (255 * _between(0.02, 0.25, strength))
    return Image.fromarray((pixels + noise).clip(0, 255).round().astype(np.uint8))


def impulses(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Black and white pixels (salt and pepper), 0.5 to 20 % of all."""
    pixels, drawn = np.array(image), rng.random(image.size[::-1], np.float32)
    share = _between(0.005, 0.2, strength)
    pixels[drawn < share / 2] = 0
    pixels[drawn > 1 - share / 2] = 255
    return Image.fromarray(pixels)


def jpeg(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """JPEG of a quality of 60 down to 5."""
    return reopened(image, 'JPEG', quality=round(_between(60, 5, strength)))


def downsampling(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Made 1.5 to 6 times smaller and enlarged again, bicubic."""
    return _smaller(image, _between(1.5, 6, strength), Image.Resampling.BICUBIC)


def pixelation(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Blocks of one colour, 1.5 to 6 pixels wide."""
    return _smaller(image, _between(1.5, 6, strength), Image.Resampling.NEAREST)


def contrast(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Contrast about the mean, 0.8 down to 0.15 of what it was."""
    pixels = np.asarray(image, np.float32)
    faded = pixels.mean() + (pixels - pixels.mean()) * _between(0.8, 0.15, strength)
    return Image.fromarray(faded.clip(0, 255).round().astype(np.uint8))


# what the demonstration backbone was trained on; each takes an RGB image, a strength in [0, 1] and a generator
DEGRADATIONS: dict[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {
    'blur': blur,
    'noise': noise,
    'impulses': impulses,
    'JPEG': jpeg,
    'downsampling': downsampling,
    'pixelation': pixelation,
    'contrast': contrast,
}


def half_blur(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """`blur` of the right half only."""
    half = (image.width // 2, 0, *image.size)
    mixed = image.copy()
    mixed.paste(blur(image, strength, rng).crop(half), half[:2])
    return mixed


SHOWN = {'blur': blur, 'noise': noise, 'JPEG': jpeg, 'half blur': half_blur}


def steps(photo: Image.Image) -> dict[str, list[Image.Image]]:
    """Kind of degradation -> the photo, at most 640 pixels long, and three degraded versions, each worse."""
    photo = photo.copy()
    photo.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return {
        kind: [photo, *(degrade(photo, strength, np.random.default_rng(0)) for strength in STRENGTHS)]
        for kind, degrade in SHOWN.items()
    }


def table(analyses: dict[str, list[Analysis]]) -> tuple[list[str], list[list]]:
    """Columns and rows: score, cues, their weight and attributes, means over the views."""
    first = next(iter(analyses.values()))[0]
    columns = ['degradation', 'step', 'score', 'q_sim', 'q_mag', 'w_sim', *first.names]
    rows = []
    for kind, row in analyses.items():
        for step, a in enumerate(row):
            values = [a.q, a.q_sim.mean(), a.q_mag.mean(), a.w_sim.mean(), *a.attributes.mean((0, 1))]
            rows.append([kind, step, *map(float, values)])
    return columns, rows


def draw(images: dict[str, list[Image.Image]], analyses: dict[str, list[Analysis]]) -> Figure:
    """One band for each degradation: images with their scores, maps, and curves of cues and attributes.

    Args:
        images: of `steps`
        analyses: of each of them, by the demonstration backbone

    Returns:
        a matplotlib Figure; it says on itself what the scores are of
    """
    from matplotlib.figure import Figure

    from ..report.figures import LABELS

    count = len(next(iter(images.values())))
    maps = {kind: [a.quality_map()[0, 0].numpy() for a in row] for kind, row in analyses.items()}
    low = min(m.min() for row in maps.values() for m in row)
    high = max(m.max() for row in maps.values() for m in row)
    photo = next(iter(images.values()))[0]
    tall = min(max(1.75 * photo.height / photo.width, 1.1), 2.6)  # inches of one picture
    figure = Figure((1.75 * count + 4.6, len(images) * (2 * tall + 0.55) + 0.5), dpi=100, layout='constrained')
    figure.suptitle(f'MA-CLIP with the {NOTE}', fontsize=10)
    grid = figure.add_gridspec(2 * len(images), count + 1, width_ratios=[1.75] * count + [4.0])
    columns, rows = table(analyses)
    pictures = []
    for band, (kind, row) in enumerate(images.items()):
        mine = np.array([values[2:] for values in rows if values[0] == kind])  # (steps, score, cues, w_sim, attributes)
        for step, image in enumerate(row):
            top, bottom = (figure.add_subplot(grid[2 * band + i, step]) for i in (0, 1))
            top.imshow(image)
            top.set_title(f'{"as it is" if step == 0 else f"{kind} {step}"}: {mine[step, 0]:.3f}', fontsize=9)
            shown = bottom.imshow(maps[kind][step], cmap='viridis', vmin=low, vmax=high)
            pictures.append(bottom)
            top.set_axis_off()
            bottom.set_axis_off()
        for place, names, title in ((0, columns[2:5], 'score and cues'), (1, columns[6:], 'attributes')):
            axes = figure.add_subplot(grid[2 * band + place, count])
            for name, line in zip(names, ('-', '--', ':', '-.', '-'), strict=False):
                style = {'color': 'black', 'linewidth': 2} if name == 'score' else {'linestyle': line}
                label = LABELS.get(name, name)
                axes.plot(range(count), mine[:, columns.index(name) - 2], marker='.', label=label, **style)
            axes.set_title(f'{title}, {kind}', fontsize=9)
            axes.set_xticks(range(count), ['as it is', *map(str, range(1, count))] if place else [''] * count)
            axes.set_ylim(0, max(1.0, 1.05 * mine[:, 0].max(), 1.05 * mine[:, 2].max()))
            axes.tick_params(labelsize=8)
            axes.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
    bar = figure.colorbar(shown, ax=pictures, location='bottom', fraction=0.02, pad=0.01, aspect=60)
    bar.set_label('quality maps, one scale: score of the windows', fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def run(photo: Image.Image, folder: Path) -> tuple[list[str], list[list]]:
    """Degrade, score and draw, into demo.png and demo.csv.

    Args:
        photo: RGB
        folder: made if it is not there

    Returns:
        columns and rows of demo.csv: means over the views of the score, its cues and attributes

    Raises:
        OSError: the folder cannot be written
    """
    import csv

    import torch

    from ..metric.maclip import MACLIP

    folder.mkdir(parents=True, exist_ok=True)
    images = steps(photo)
    metric = MACLIP(backbone='demo')
    with torch.inference_mode():
        analyses = {kind: metric.analyze([to_tensor(np.array(i)) for i in row]) for kind, row in images.items()}
    columns, rows = table(analyses)
    with open(folder / 'demo.csv', 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(columns)
        writer.writerows([kind, step, *(f'{v:.6f}' for v in values)] for kind, step, *values in rows)
    draw(images, analyses).savefig(folder / 'demo.png')
    return columns, rows


def reopened(image: Image.Image, kind: str, **options: int) -> Image.Image:
    """The image as a lossy file holds it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file).convert('RGB')


def _between(low: float, high: float, strength: float) -> float:
    return low * (high / low) ** strength  # in equal ratios, as steps look equal


def _smaller(image: Image.Image, factor: float, upwards: Image.Resampling) -> Image.Image:
    size = tuple(max(1, round(side / factor)) for side in image.size)
    return image.resize(size, Image.Resampling.BICUBIC).resize(image.size, upwards)
