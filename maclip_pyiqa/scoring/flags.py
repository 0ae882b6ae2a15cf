"""Flags: words for images whose score means little, from the pixels alone. They change no score.

Metrics built on CLIP give noise, black frames and broken generations decent scores, so each row of a table says what
is plainly wrong with its image:

- `flat`: no structure. Fewer than 2 % of the blocks of 32x32 pixels have a standard deviation above 2/255.
- `noise`: neighbouring pixels are uncorrelated. In a quarter of the blocks or more, the standard deviation is above
  8/255 and the correlation of neighbours (mean over horizontal and vertical pairs) below 0.3.
- `enlarged`: the shorter side is below one window of the metric, so the windows see an enlarged image.
- `clipped`: in a third of the pixels or more, all channels are 0, or all are 1 (within 1/255).
- `border`: uniform bars. From one edge inwards, at least 4 % of the rows or columns, and 4 of them, have the colour of
  the edge (within 4/255). Flat images have none.

The thresholds lie between what the photos of scikit-image, scikit-learn and pyiqa's packages measure and what
generated noise, flat, cut off and letterboxed images do; docs/report.md counts false alarms and misses on both. At most
256 blocks, evenly spread, are measured, which bounds the cost for large images.
"""

from __future__ import annotations

import numpy as np

FLAGS = ('flat', 'noise', 'enlarged', 'clipped', 'border')
BLOCK, BLOCKS = 32, 16  # pixels; blocks along a side, at most
SAMPLES = 256  # pixels of a row or column that are compared with the edge
STRUCTURE, FLAT_SHARE = 2 / 255, 0.02
NOISE, CORRELATION, NOISE_SHARE = 8 / 255, 0.3, 0.25
CLIPPED_SHARE = 1 / 3
BORDER, BORDER_SHARE, BORDER_LEAST = 4 / 255, 0.04, 4


def find_flags(pixels: np.ndarray, window: int = 0) -> str:
    """Flags of an image, see the head of this file.

    Args:
        pixels: (H, W, 3), uint8 in [0, 255] or floating point in [0, 1], as `read_pixels` gives them
        window: side of the metric's windows, pixels; 0: `enlarged` is not looked for

    Returns:
        names in the order of FLAGS, joined by a space; '' where there are none

    Example:
        >>> find_flags(np.zeros((300, 400, 3), np.uint8))
        'flat clipped'
    """
    top = 255.0 if pixels.dtype == np.uint8 else 1.0
    channels = np.ascontiguousarray(np.moveaxis(_blocks(pixels), -1, 0))  # (3, B, h, w), ten times faster this way
    grey = channels.sum(0, dtype=np.float32) / np.float32(3 * top)
    spread = grey.std((1, 2))
    flat = bool((spread > STRUCTURE).mean() < FLAT_SHARE)
    found = {
        'flat': flat,
        'noise': bool(((spread > NOISE) & (_neighbours(grey) < CORRELATION)).mean() >= NOISE_SHARE),
        'enlarged': min(pixels.shape[:2]) < window,
        'clipped': _clipped(channels, top) >= CLIPPED_SHARE,
        'border': not flat and _has_border(pixels, top),
    }
    return ' '.join(name for name in FLAGS if found[name])


def _blocks(pixels: np.ndarray) -> np.ndarray:
    """Blocks of pixels, (B, h, w, 3), at most BLOCKS along a side."""
    height, width = (min(BLOCK, side) for side in pixels.shape[:2])
    rows, columns = pixels.shape[0] // height, pixels.shape[1] // width
    grid = pixels[: rows * height, : columns * width].reshape(rows, height, columns, width, 3)
    some = np.ix_(_spread(rows), np.arange(height), _spread(columns))
    return grid[some].swapaxes(1, 2).reshape(-1, height, width, 3)


def _spread(count: int, most: int = BLOCKS) -> np.ndarray:
    """At most `most` of range(count), evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _neighbours(grey: np.ndarray) -> np.ndarray:
    """Correlation of neighbouring pixels of each block, mean of horizontal and vertical pairs, (B,); 1 where there are
    none."""
    centred = grey - grey.mean((1, 2), keepdims=True)
    power = (centred**2).mean((1, 2))
    pairs = [(centred[:, 1:], centred[:, :-1]), (centred[:, :, 1:], centred[:, :, :-1])]
    products = [(a * b).mean((1, 2)) for a, b in pairs if a.size]
    if not products:
        return np.ones(len(grey), np.float32)
    return np.where(power > 0, np.mean(products, 0) / np.maximum(power, 1e-12), 1)


def _clipped(channels: np.ndarray, top: float) -> float:
    """Share of the pixels with all channels at 0 or all at the top."""
    low, high = channels.max(0) <= top / 255, channels.min(0) >= top - top / 255
    return float((low | high).mean())


def _has_border(pixels: np.ndarray, top: float) -> bool:
    for lines in (pixels, pixels[::-1], pixels.swapaxes(0, 1), pixels.swapaxes(0, 1)[::-1]):
        need = max(BORDER_LEAST, int(np.ceil(len(lines) * BORDER_SHARE)))
        if len(lines) < need:
            continue
        bar = lines[:need, _spread(lines.shape[1], SAMPLES)].astype(np.float32)
        if (np.abs(bar - np.median(bar, (0, 1))) <= BORDER * top).all():
            return True
    return False
