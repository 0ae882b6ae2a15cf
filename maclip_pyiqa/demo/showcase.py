"""What `maclip-pyiqa demo` does: degrade a photo, score each step, draw scores, maps, cues and attributes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from ..backbone import NOTE
from ..metric import MACLIP, Analysis
from ..report.figures import TITLES, save
from ..scoring.formats.csv import write_csv
from ..scoring.read import to_tensor
from .degradations import blur, half_blur, jpeg, noise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = {'blur': blur, 'noise': noise, 'JPEG': jpeg, 'half blur': half_blur}
STRENGTHS = (0.1, 0.5, 1.0)
LONGEST = 640  # pixels of the longer side of the photo: degradations are in pixels, so equally strong on any photo


def steps(photo: Image.Image) -> dict[str, list[Image.Image]]:
    """Kind of degradation -> the photo, at most 640 pixels long, and three versions, each more degraded."""
    photo = photo.copy()
    photo.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return {
        kind: [photo, *(degrade(photo, strength, np.random.default_rng(0)) for strength in STRENGTHS)]
        for kind, degrade in SHOWN.items()
    }


def table(analyses: dict[str, list[Analysis]]) -> list[dict[str, str | int | float]]:
    """A row for each image: 'degradation', 'step', and the columns of `Analysis.summary()`."""
    return [
        {'degradation': kind, 'step': step, **analysis.summary()}
        for kind, row in analyses.items()
        for step, analysis in enumerate(row)
    ]


def draw(images: dict[str, list[Image.Image]], analyses: dict[str, list[Analysis]]) -> Figure:
    """One band for each degradation: images with their scores, maps, and curves of cues and attributes.

    Args:
        images: images from `steps`
        analyses: analyses of each of them, by the demonstration backbone

    Returns:
        a matplotlib Figure, which says on itself that the backbone is the demonstration one
    """
    from matplotlib.figure import Figure

    kinds, count = list(images), len(next(iter(images.values())))
    maps = {kind: [a.quality_map()[0, 0].numpy() for a in row] for kind, row in analyses.items()}
    low = min(m.min() for row in maps.values() for m in row)
    high = max(m.max() for row in maps.values() for m in row)
    photo = images[kinds[0]][0]
    tall = min(max(1.75 * photo.height / photo.width, 1.1), 2.6)  # inches of one picture
    figure = Figure((1.75 * count + 4.6, len(images) * (2 * tall + 0.55) + 0.5), dpi=100, layout='constrained')
    figure.suptitle(f'MA-CLIP with the {NOTE}', fontsize=10)
    grid = figure.add_gridspec(2 * len(images), count + 1, width_ratios=[1.75] * count + [4.0])
    names = analyses[kinds[0]][0].names
    curves = {
        'score and cues': {name: TITLES.get(name, name) for name in ('score', 'q_sim', 'q_mag')},
        'attributes': {f'attribute_{name}': name for name in names},
    }
    pictures = []
    for band, kind in enumerate(kinds):
        rows = [analysis.summary() for analysis in analyses[kind]]
        for step, image in enumerate(images[kind]):
            top, bottom = (figure.add_subplot(grid[2 * band + i, step]) for i in (0, 1))
            top.imshow(image)
            top.set_title(f'{"original" if step == 0 else f"{kind} {step}"}: {rows[step]["score"]:.3f}', fontsize=9)
            shown = bottom.imshow(maps[kind][step], cmap='viridis', vmin=low, vmax=high)
            pictures.append(bottom)
            top.set_axis_off()
            bottom.set_axis_off()
        highest = max(row[name] for row in rows for name in ('score', 'q_mag'))  # the two that can exceed 1
        for place, (title, labels) in enumerate(curves.items()):
            axes = figure.add_subplot(grid[2 * band + place, count])
            for (name, label), line in zip(labels.items(), ('-', '--', ':', '-.', '-'), strict=False):
                style = {'color': 'black', 'linewidth': 2} if name == 'score' else {'linestyle': line}
                axes.plot(range(count), [row[name] for row in rows], marker='.', label=label, **style)
            axes.set_title(f'{title}, {kind}', fontsize=9)
            axes.set_xticks(range(count), ['original', *map(str, range(1, count))] if place else [''] * count)
            axes.set_ylim(0, max(1.0, 1.05 * highest))
            axes.tick_params(labelsize=8)
            axes.legend(fontsize=7, loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
    bar = figure.colorbar(shown, ax=pictures, location='bottom', fraction=0.02, pad=0.01, aspect=60)
    bar.set_label('quality maps on one scale: scores of the windows', fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def run(photo: Image.Image, folder: Path) -> list[dict[str, str | int | float]]:
    """Degrade and score a photo; write demo.png and demo.csv.

    Args:
        photo: RGB
        folder: folder for the two files; created if it does not exist

    Returns:
        the rows of demo.csv, see `table`

    Raises:
        OSError: the folder cannot be written to
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = steps(photo)
    metric = MACLIP(backbone='demo')
    with torch.inference_mode():
        analyses = {kind: metric.analyze([to_tensor(np.array(i)) for i in row]) for kind, row in images.items()}
    rows = table(analyses)
    write_csv(folder / 'demo.csv', rows)
    save(draw(images, analyses), folder / 'demo.png')
    return rows
