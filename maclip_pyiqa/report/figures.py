"""Figures of an analysis. They need matplotlib, the extra `plot`."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any

from .._lazy import need
from ..scoring.find import SOFTWARE
from ..scoring.schema import column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from ..metric import Analysis

WIDTH = 7.2  # inches: both columns of a two-column page
TITLES = {'q': 'quality'} | {name: column(name).title for name in ('q_sim', 'q_mag', 'w_sim')}
BLUE, ORANGE, GREY = '#0072b2', '#d55e00', '#666666'  # distinct for the colour-blind too


def save(figure: Figure, file: str | os.PathLike[str] | IO[bytes], **options: Any) -> None:
    """`Figure.savefig` to a path, whose suffix is the format, or to a binary file. A PNG file says who drew it, so that
    `find_images` knows it from a photo."""
    kind = options.get('format') or (os.path.splitext(file)[1][1:] if isinstance(file, (str, os.PathLike)) else '')
    if kind.lower() in ('', 'png'):
        options['metadata'] = {'Software': SOFTWARE}
    figure.savefig(file, **options)


def plot_analysis(image: Tensor, analysis: Analysis, of: str = 'q', note: str = '') -> Figure:
    """One figure: the image, the map over it, the attributes, and the two cues with their weight.

    Bars are means over the views; the labels give the cues' weights. The figure is independent of pyplot; save it with
    `figure.savefig(...)`.

    Args:
        image: analysed image, (3, H, W) or (1, H, W), or the same with a batch axis of 1; values in [0, 1]
        analysis: analysis of this one image
        of: quantity that the map shows, see `Analysis.quality_map`
        note: line below the figure, such as which weights the scores are from

    Returns:
        a matplotlib Figure, 7.2 inches wide; its height follows the image's aspect ratio

    Raises:
        ModuleNotFoundError: matplotlib is not installed
        ValueError: an analysis of several images, an image of another size than the analysed one, or an unknown `of`

    Example::

        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.report import plot_analysis
        from maclip_pyiqa.scoring import read_image

        photo = read_image('photo.jpg')        # (3, H, W)
        figure = plot_analysis(photo, MACLIP().analyze(photo[None]))
        figure.savefig('quality.png', dpi=200)
    """
    need('a figure', 'matplotlib', extra='plot')
    from matplotlib.figure import Figure

    analysis, image = analysis.detach().to('cpu'), image.detach().cpu().float()
    image = image[0] if image.ndim == 4 and len(image) == 1 else image
    height, width = analysis.size
    if len(analysis) != 1:
        raise ValueError(f'the analysis is of {len(analysis)} images; a figure shows one: pick it with analysis[i]')
    if image.ndim != 3 or len(image) not in (1, 3) or image.shape[1:] != analysis.size:
        raise ValueError(
            f'the image has the shape {tuple(image.shape)}; expected that of the analysed one, (3, {height}, {width})'
        )
    values = analysis.quality_map(of)[0, 0].numpy()

    # image and map side by side, or stacked where the image is wide; the bars below
    stacked = width > 2.2 * height
    across = WIDTH - 1.1 if stacked else (WIDTH - 1.3) / 2
    tall = min(max(across * height / width, 0.35), 4.5)  # inches of one picture
    rows = max(len(analysis.names), 4)
    bars = 0.55 + 0.21 * rows
    pictures = 2 * (tall + 0.3) if stacked else tall + 0.3
    figure = Figure(figsize=(WIDTH, pictures + bars), dpi=150, layout='constrained')
    top, bottom = figure.subfigures(2, 1, height_ratios=[pictures, bars], squeeze=False)[:, 0]
    first, second = top.subplots(*((2, 1) if stacked else (1, 2)))

    shown = image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
    extent = (0, width, height, 0)
    smooth = 'nearest' if max(height, width) < 100 else 'antialiased'
    first.imshow(shown, extent=extent, interpolation=smooth)
    first.set_title(f'image, {width} \u00d7 {height}', fontsize=9)
    second.imshow(shown.mean(2), extent=extent, cmap='gray', vmin=0, vmax=1, interpolation=smooth)
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-3:  # a constant map: centre the colour scale on it, with readable numbers on the bar
        low, high = (low + high) / 2 - 0.05, (low + high) / 2 + 0.05
    colours = second.imshow(values, extent=extent, cmap='viridis', vmin=low, vmax=high, alpha=0.65)
    second.set_title(f'{TITLES.get(of, of)} map', fontsize=9)
    for axes in (first, second):
        axes.set_axis_off()
    drawn = pictures - 0.3  # inches: the height of the colour bar, which is 0.15 wide
    bar = top.colorbar(colours, ax=[first, second], fraction=0.05, pad=0.02, aspect=drawn / 0.15)
    bar.solids.set_alpha(1)
    bar.ax.tick_params(labelsize=8)
    bar.ax.locator_params(nbins=5 if drawn > 1.2 else 3)

    left, right = bottom.subplots(1, 2)
    means = analysis.summary()
    _bars(left, rows, list(analysis.names), [means[f'attribute_{name}'] for name in analysis.names], BLUE)
    left.set_xlim(0, 1)
    left.set_xlabel('probability of the positive prompt', fontsize=8)
    weight = means['w_sim']
    names = ['score', f'cosine cue (weight {weight:.2f})', f'magnitude cue (weight {1 - weight:.2f})']
    cues = [means[name] for name in ('score', 'q_sim', 'q_mag')]
    _bars(right, rows, names, cues, [GREY, BLUE, ORANGE])
    right.set_xlim(0, max(1.0, 1.15 * max(cues)))
    right.set_xlabel('mean over the views', fontsize=8)
    if note:
        bottom.supxlabel(note, fontsize=7, color=GREY)
    return figure


def plot_guidance(steps: Sequence[int], scores: Sequence[Sequence[float]], norms: Sequence[Sequence[float]]) -> Figure:
    """Score and gradient norm of each guided image, step by step.

    Args:
        steps: numbers of the S guided steps
        scores: score of each of N images at each step, S x N
        norms: norm of the gradient of each image at each step, S x N

    Returns:
        a matplotlib Figure, independent of pyplot

    Raises:
        ModuleNotFoundError: matplotlib is not installed
        ValueError: no steps
    """
    need('a figure', 'matplotlib', extra='plot')
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not steps:
        raise ValueError('no guided steps; expected at least one')
    figure = Figure(figsize=(WIDTH, 2.6), dpi=150, layout='constrained')
    panels = figure.subplots(1, 2)
    values = {'score of the predicted image': scores, 'gradient norm': norms}
    for axes, (title, series) in zip(panels, values.items(), strict=True):
        axes.plot(steps, series, marker='.', linewidth=1)
        axes.set_xlabel('step', fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(which='both', labelsize=8)
        axes.spines[['top', 'right']].set_visible(False)
    panels[1].set_yscale('log')
    return figure


def _bars(axes: Axes, rows: int, names: list[str], values: list[float], colours: str | list[str]) -> None:
    names = [(name if len(name) <= 32 else name[:31] + '…').replace('$', r'\$') for name in names]
    handle = axes.barh(range(len(names)), values, color=colours, height=0.65 * len(names) / rows)
    axes.bar_label(handle, fmt='%.3f', fontsize=7, padding=2)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis='x', labelsize=8)
    axes.spines[['top', 'right']].set_visible(False)
