"""Pictures of an analysis, for papers and for looking. Needs matplotlib, the extra `plot`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..metric.analysis import Analysis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ['plot_analysis']

WIDTH = 7.2  # inches: both columns of a page
LABELS = {'q': 'quality', 'q_sim': 'cosine cue', 'q_mag': 'magnitude cue', 'w_sim': 'weight of the cosine cue'}
BLUE, ORANGE, GREY = '#0072b2', '#d55e00', '#666666'  # told apart by the colour-blind too


def plot_analysis(image: Tensor, analysis: Analysis, of: str = 'q', note: str = '') -> Figure:
    """One figure: the image, the map over it, the attributes, and the two cues with their weight.

    Bars are means over the views; the cues weigh as given in the legend. The figure is no pyplot state; save it with
    `figure.savefig(...)`.

    Args:
        image: what was analysed, (3, H, W) or (1, H, W), or the same with a batch axis of 1; values in [0, 1]
        analysis: of this one image
        of: what the map shows, see `Analysis.quality_map`
        note: a line below, such as what weights these scores are of

    Returns:
        a matplotlib Figure, 7.2 inches wide, as high as the image's aspect ratio wants it

    Raises:
        ImportError: matplotlib is not installed
        ValueError: several images, an image of another size than the analysed one, or an unknown `of`

    Example::

        figure = plot_analysis(x[0], metric.analyze(x)[0])
        figure.savefig('quality.png', dpi=200)
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'maclip_pyiqa[plot]'") from error

    analysis, image = analysis.detach().to('cpu'), image.detach().cpu().float()
    image = image[0] if image.ndim == 4 and len(image) == 1 else image
    height, width = analysis.size
    if len(analysis) != 1:
        raise ValueError(f'a figure is of one image; pick one of these {len(analysis)} with analysis[i]')
    if image.ndim != 3 or len(image) not in (1, 3) or image.shape[1:] != analysis.size:
        raise ValueError(f'the analysed image is (3, {height}, {width}); the image given is {tuple(image.shape)}')
    values = analysis.quality_map(of)[0, 0].numpy()

    # side by side, or above each other where the image is wide; the bars below in both
    stacked = width > 2.2 * height
    across = WIDTH - 1.1 if stacked else (WIDTH - 1.3) / 2
    tall = min(max(across * height / width, 0.35), 4.5)  # inches of one picture
    rows = max(len(analysis.names), 4)
    bars = 0.55 + 0.21 * rows
    pictures = 2 * (tall + 0.3) if stacked else tall + 0.3
    figure = Figure(figsize=(WIDTH, pictures + bars), dpi=150, layout='constrained')
    top, bottom = figure.subfigures(2, 1, height_ratios=[pictures, bars])
    first, second = top.subplots(*((2, 1) if stacked else (1, 2)))

    shown = image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
    extent = (0, width, height, 0)
    small = 'nearest' if max(height, width) < 100 else 'auto'
    first.imshow(shown, extent=extent, interpolation=small)
    first.set_title(f'image, {width} \u00d7 {height}', fontsize=9)
    second.imshow(shown.mean(2), extent=extent, cmap='gray', vmin=0, vmax=1, interpolation=small)
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-3:  # a constant map: the middle of the colours, and a bar with readable numbers
        low, high = (low + high) / 2 - 0.05, (low + high) / 2 + 0.05
    colours = second.imshow(values, extent=extent, cmap='viridis', vmin=low, vmax=high, alpha=0.65)
    second.set_title(f'{LABELS.get(of, of)} map', fontsize=9)
    for axes in (first, second):
        axes.set_axis_off()
    drawn = pictures - 0.3  # inches, the height of the bar; it is 0.15 wide
    bar = top.colorbar(colours, ax=[first, second], fraction=0.05, pad=0.02, aspect=drawn / 0.15)
    bar.solids.set_alpha(1)
    bar.ax.tick_params(labelsize=8)
    bar.ax.locator_params(nbins=5 if drawn > 1.2 else 3)

    left, right = bottom.subplots(1, 2)
    _bars(left, rows, list(analysis.names), analysis.attributes[0].mean(0).tolist(), [BLUE] * len(analysis.names))
    left.set_xlim(0, 1)
    left.set_xlabel('probability of the positive prompt', fontsize=8)
    weight = float(analysis.w_sim.mean())
    names = ['score', f'cosine cue (weight {weight:.2f})', f'magnitude cue (weight {1 - weight:.2f})']
    cues = [float(analysis.q), float(analysis.q_sim.mean()), float(analysis.q_mag.mean())]
    _bars(right, rows, names, cues, [GREY, BLUE, ORANGE])
    right.set_xlim(0, max(1.0, 1.15 * max(cues)))
    right.set_xlabel('mean over the views', fontsize=8)
    if note:
        bottom.supxlabel(note, fontsize=7, color=GREY)
    return figure


def _bars(axes, rows: int, names: list[str], values: list[float], colours: list[str]) -> None:
    names = [(name if len(name) <= 32 else name[:31] + '…').replace('$', r'\$') for name in names]
    handle = axes.barh(range(len(names)), values, color=colours, height=0.65 * len(names) / rows)
    axes.bar_label(handle, fmt='%.3f', fontsize=7, padding=2)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis='x', labelsize=8)
    axes.spines[['top', 'right']].set_visible(False)
