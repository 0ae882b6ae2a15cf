"""What CLIP sees of an image: sliding windows, and the whole image once, resized."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ASPECT = 100  # longer side / shorter side of an image that has to be enlarged: at most 60 MB for a window of 224


def window_count(side: int, window: int, stride: int) -> int:
    """How many windows fit along a side, pixels. What is left over at its end is in no window.

    Example:
        >>> window_count(512, 224, 128)
        3
    """
    return (side - window) // stride + 1


class ViewPlan(NamedTuple):
    """The views of an image of one size: where they lie, and how much each counts in the score.

    The views are the windows row by row from the top left, then the whole image. An image whose shorter side is below
    one window is enlarged for its windows (bicubic, aspect ratio kept) until that side is one window long. An image of
    exactly one window has one view: its window and the whole image are the same pixels.

    Attributes:
        size: height and width of the image as it is given, pixels
        enlarged_size: height and width that the windows lie in: `size`, or those after enlargement
        window: side of the windows, pixels
        offsets: top and left of each window in the image of `enlarged_size`, pixels, row by row
        shares: share of each view in the score, the global view last; their sum is 1
        global_size: height and width at which the global view is encoded, pixels
        mode: interpolation of the global view: 'bilinear', without antialiasing and aspect ratio not kept, as the
            authors do it; 'bicubic' where views='full' has to enlarge it

    Example::

        from maclip_pyiqa import MACLIP

        plan = MACLIP().plan(384, 512)         # height and width, pixels
        plan.views                             # 7: 2 x 3 windows, and the whole image
        plan.boxes                             # (left, top, right, bottom) of each view, pixels
    """

    size: tuple[int, int]
    enlarged_size: tuple[int, int]
    window: int
    offsets: tuple[tuple[int, int], ...]
    shares: tuple[float, ...]
    global_size: tuple[int, int]
    mode: str = 'bilinear'

    @classmethod
    def windows(cls, height: int, width: int, window: int, stride: int, max_views: int | None = None) -> ViewPlan:
        """Windows, and the whole image resized to one window.

        Args:
            height, width: height and width of the image, pixels
            window, stride: side and stride of the windows, pixels
            max_views: largest number of windows: a grid of rows and columns spread evenly over all windows, each of
                which counts for the windows that are nearest to it

        Raises:
            ValueError: an image that has to be enlarged and is longer than 100 times its shorter side

        Example:
            >>> ViewPlan.windows(384, 512, 224, 128).offsets
            ((0, 0), (0, 128), (0, 256), (128, 0), (128, 128), (128, 256))
            >>> ViewPlan.windows(30, 94, 224, 128).enlarged_size
            (224, 702)
        """
        size, enlarged, square = (height, width), _enlarged(height, width, window), (window, window)
        if size == square:
            return cls(size, size, window, (), (1.0,), size)
        rows, columns = (window_count(side, window, stride) for side in enlarged)
        total = rows * columns
        chosen = _grid(rows, columns, total if max_views is None else max_views)
        tops, lefts = (_spread(count, number) for count, number in zip((rows, columns), chosen, strict=True))
        offsets = tuple((t * stride, l * stride) for t, _ in tops for l, _ in lefts)
        shares = tuple(n * m / (total + 1) for _, n in tops for _, m in lefts)
        return cls(size, enlarged, window, offsets, (*shares, 1 / (total + 1)), square)

    @classmethod
    def resized(cls, height: int, width: int, window: int) -> ViewPlan:
        """The whole image only, resized to one window."""
        return cls((height, width), (height, width), window, (), (1.0,), (window, window))

    @classmethod
    def full(cls, height: int, width: int, window: int, min_size: int) -> ViewPlan:
        """The whole image only, at its own size; where a side is below `min_size`, enlarged as for windows.

        Raises:
            ValueError: as `windows`
        """
        size = (height, width)
        global_size = size if min(size) >= min_size else _enlarged(height, width, window)
        return cls(size, size, window, (), (1.0,), global_size, 'bicubic')

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.shares)

    @property
    def boxes(self) -> tuple[tuple[float, float, float, float], ...]:
        """What each view sees, (left, top, right, bottom) in pixels of the image as it is given."""
        y, x = (side / enlarged for side, enlarged in zip(self.size, self.enlarged_size, strict=True))
        w = self.window
        windows = ((l * x, t * y, (l + w) * x, (t + w) * y) for t, l in self.offsets)
        return (*windows, (0.0, 0.0, float(self.size[1]), float(self.size[0])))

    @property
    def rows(self) -> tuple[tuple[float, float], ...]:
        """Top and bottom of each row of windows, pixels of the image as it is given."""
        y = self.size[0] / self.enlarged_size[0]
        return tuple((t * y, (t + self.window) * y) for t in sorted({t for t, _ in self.offsets}))

    @property
    def columns(self) -> tuple[tuple[float, float], ...]:
        """Left and right of each column of windows, pixels of the image as it is given."""
        x = self.size[1] / self.enlarged_size[1]
        return tuple((l * x, (l + self.window) * x) for l in sorted({l for _, l in self.offsets}))

    def sample(self, count: int) -> ViewPlan:
        """The same with `count` windows drawn by torch's generator, if there are more, so that the expectation of a
        score is that of all windows."""
        total = len(self.offsets)
        if count >= total:
            return self
        drawn = torch.randperm(total, device='cpu')[:count].tolist()  # whatever the default device
        shares = tuple(self.shares[i] * total / count for i in drawn)
        return self._replace(offsets=tuple(self.offsets[i] for i in drawn), shares=(*shares, self.shares[-1]))

    def cut(self, image: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Views `first` to `last` (exclusive) of an image, differentiable any number of times.

        Args:
            image: image of the plan's size, (C, H, W)
            first, last: numbers of the first view and of the one after the last; None: all

        Returns:
            (last - first, C, h, w)
        """
        offsets, parts = self.offsets[first:last], []
        if offsets:
            # enlarged as a whole for each call: it is small, since its aspect ratio is bounded
            source = self._resize(image, self.enlarged_size, 'bicubic')
            parts.append(_windows(source, offsets, self.window))
        if last is None or last == len(self.shares):
            parts.append(self._resize(image, self.global_size, self.mode)[None])
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _resize(self, image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
        return image if size == self.size else F.interpolate(image[None], size, mode=mode, align_corners=False)[0]


def _enlarged(height: int, width: int, window: int) -> tuple[int, int]:
    short, long = min(height, width), max(height, width)
    if short >= window:
        return height, width
    if long > MAX_ASPECT * short:
        raise ValueError(
            f'an image of {height}x{width} pixels (height x width) is too long and thin: below {window} pixels on the '
            f'shorter side, the longer side may be at most {MAX_ASPECT} times as long; crop it, or score it with '
            "views='global'"
        )
    return round(height * window / short), round(width * window / short)


def _grid(rows: int, columns: int, most: int) -> tuple[int, int]:
    """Rows and columns of the largest grid of at most `most` windows; of equal ones the one most like the image."""
    if rows * columns <= most:
        return rows, columns
    grids = [(r, min(columns, most // r)) for r in range(1, min(rows, most) + 1)]
    return max(grids, key=lambda grid: (min(grid[0] / rows, grid[1] / columns), grid[0] * grid[1]))


def _spread(count: int, number: int) -> list[tuple[int, int]]:
    """`number` of range(count), spread evenly, each with how many of range(count) it is the nearest to."""
    edges = [count * i // number for i in range(number + 1)]
    return [((first + last - 1) // 2, last - first) for first, last in pairwise(edges)]


def _windows(image: Tensor, offsets: Sequence[tuple[int, int]], window: int) -> Tensor:
    """Windows of an image, (K, C, window, window)."""
    if image.device.type == 'cpu' and not (torch.is_grad_enabled() and image.requires_grad):
        return torch.stack([image[:, t : t + window, l : l + window] for t, l in offsets])
    # One indexing operation: on an accelerator, slices are a launch each, and in a backward pass each slice makes an
    # image of zeros, which takes as long as encoding does from 12 megapixels on. Slower on a CPU otherwise.
    starts = torch.tensor(offsets, device=image.device)  # (K, 2)
    span = torch.arange(window, device=image.device)
    rows, columns = (starts[:, axis, None] + span for axis in (0, 1))  # (K, window)
    return image[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)
