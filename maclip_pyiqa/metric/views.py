"""What CLIP sees of an image: sliding windows, and the whole image once, resized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['MAX_ASPECT', 'ViewPlan', 'whole_views', 'window_count']

MAX_ASPECT = 100  # of an image that has to be enlarged: longer side / shorter side
RESIZED_TOGETHER = 2**20  # pixels of an image up to which it is resized together with others


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
        base: height and width that the windows lie in: `size`, or the size after enlargement
        window: side of the windows, pixels of `base`
        places: top and left of each window, pixels of `base`, row by row
        shares: share of each view in the score, the whole image last; their sum is 1
        whole: height and width at which the whole image is encoded, pixels
        mode: interpolation of the whole image: 'bilinear', without antialiasing and aspect ratio not kept, as the
            authors do it; 'bicubic' where views='full' has to enlarge it
    """

    size: tuple[int, int]
    base: tuple[int, int]
    window: int
    places: tuple[tuple[int, int], ...]
    shares: tuple[float, ...]
    whole: tuple[int, int]
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
            >>> ViewPlan.windows(384, 512, 224, 128).places
            ((0, 0), (0, 128), (0, 256), (128, 0), (128, 128), (128, 256))
            >>> ViewPlan.windows(30, 94, 224, 128).base
            (224, 702)
        """
        whole, base = (window, window), _enlarged(height, width, window)
        if base == (height, width) == whole:
            return cls(whole, whole, window, (), (1.0,), whole)
        rows, columns = (window_count(side, window, stride) for side in base)
        total = rows * columns
        chosen = _grid(rows, columns, total if max_views is None else max_views)
        tops, lefts = (_spread(count, number) for count, number in zip((rows, columns), chosen, strict=True))
        places = tuple((t * stride, l * stride) for t, _ in tops for l, _ in lefts)
        shares = tuple(n * m / (total + 1) for _, n in tops for _, m in lefts)
        return cls((height, width), base, window, places, (*shares, 1 / (total + 1)), whole)

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
        whole = size if min(size) >= min_size else _enlarged(height, width, window)
        return cls(size, size, window, (), (1.0,), whole, 'bicubic')

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.shares)

    @property
    def boxes(self) -> tuple[tuple[float, float, float, float], ...]:
        """What each view sees: (left, top, right, bottom) in pixels of the image as it is given."""
        y, x = (size / base for size, base in zip(self.size, self.base, strict=True))
        w = self.window
        windows = ((l * x, t * y, (l + w) * x, (t + w) * y) for t, l in self.places)
        return (*windows, (0.0, 0.0, float(self.size[1]), float(self.size[0])))

    @property
    def rows(self) -> tuple[tuple[float, float], ...]:
        """Top and bottom of each row of windows, pixels of the image as it is given."""
        y = self.size[0] / self.base[0]
        return tuple((t * y, (t + self.window) * y) for t in sorted({t for t, _ in self.places}))

    @property
    def columns(self) -> tuple[tuple[float, float], ...]:
        """Left and right of each column of windows, pixels of the image as it is given."""
        x = self.size[1] / self.base[1]
        return tuple((l * x, (l + self.window) * x) for l in sorted({l for _, l in self.places}))

    def sample(self, count: int) -> ViewPlan:
        """The same with `count` windows drawn by torch's generator, if there are more, so that the expectation of a
        score is that of all windows."""
        total = len(self.places)
        if count >= total:
            return self
        drawn = torch.randperm(total, device='cpu')[:count].tolist()  # whatever the default device
        shares = tuple(self.shares[i] * total / count for i in drawn)
        return self._replace(places=tuple(self.places[i] for i in drawn), shares=(*shares, self.shares[-1]))

    def cut(self, image: Tensor, first: int = 0, last: int | None = None, whole: Tensor | None = None) -> Tensor:
        """Views `first` to `last` (exclusive) of an image, differentiable any number of times.

        Args:
            image: (C, H, W) of the plan's size
            whole: the last view where it is made already, see `whole_views`

        Returns:
            (last - first, C, h, w), all windows or `whole`
        """
        places = self.places[first:last]
        parts = []
        if places and self.base == self.size:
            parts.append(_windows(image, places, self.window))
        elif places:
            parts.append(torch.stack([_enlarged_window(image, self.base, place, self.window) for place in places]))
        if last is None or last == len(self.shares):
            parts.append(self.resize(image[None]) if whole is None else whole[None])
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def resize(self, images: Tensor) -> Tensor:
        """Whole images as their last view, (N, C, H, W) -> (N, C, h, w)."""
        if self.whole == self.size:
            return images
        return F.interpolate(images, self.whole, mode=self.mode, align_corners=False)


def whole_views(images: Sequence[Tensor], plans: Sequence[ViewPlan]) -> list[Tensor]:
    """The last view of each image, (C, h, w); small images of one size are resized in one operation.

    Args:
        images: (C, H, W) each
        plans: plan of each image
    """
    groups: dict[tuple, list[int]] = {}
    for i, plan in enumerate(plans):
        # large ones alone: to resize them together, they are copied
        alone = i if plan.whole == plan.size or math.prod(plan.size) > RESIZED_TOGETHER else -1
        groups.setdefault((plan.size, plan.whole, alone), []).append(i)
    wholes: list[Tensor] = list(images)
    for members in groups.values():
        together = torch.stack([images[i] for i in members]) if len(members) > 1 else images[members[0]][None]
        for i, view in zip(members, plans[members[0]].resize(together), strict=True):
            wholes[i] = view
    return wholes


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


def _enlarged_window(image: Tensor, base: tuple[int, int], place: tuple[int, int], window: int) -> Tensor:
    """A window of the image enlarged to `base`, (C, window, window), as F.interpolate(image, base, mode='bicubic')
    would give it, without making the rest."""
    for axis, first in ((-2, place[0]), (-1, place[1])):
        low, rows = _bicubic(image.shape[axis], base[axis], first, window)
        weights = torch.tensor(rows, dtype=image.dtype, device=image.device)  # (window, taps)
        image = image.narrow(axis, low, weights.shape[1])
        image = weights @ image if axis == -2 else image @ weights.T
    return image


def _bicubic(size: int, base: int, first: int, count: int) -> tuple[int, list[list[float]]]:
    """Cubic convolution (Keys, 1981; a = -0.75, as torch has it) from `size` to `base` pixels.

    Returns:
        the first input pixel, and for outputs `first` to `first + count` the weights of it and those after it
    """
    taps = []  # of each output: the four input pixels around its centre, those beyond a border moved onto it
    for i in range(first, first + count):
        centre = (i + 0.5) * size / base - 0.5
        left = math.floor(centre)
        near, far = centre - left, 1 + left - centre
        weights = (_outer(1 + near), _inner(near), _inner(far), _outer(1 + far))
        taps.append([(min(max(left + k, 0), size - 1), w) for k, w in zip((-1, 0, 1, 2), weights, strict=True)])
    low, high = taps[0][0][0], taps[-1][-1][0]
    rows = [[0.0] * (high - low + 1) for _ in taps]
    for row, pixels in zip(rows, taps, strict=True):
        for pixel, weight in pixels:
            row[pixel - low] += weight
    return low, rows


def _inner(t: float) -> float:
    return (1.25 * t - 2.25) * t * t + 1


def _outer(t: float) -> float:
    return -0.75 * (((t - 5) * t + 8) * t - 4)


def _windows(image: Tensor, places: Sequence[tuple[int, int]], window: int) -> Tensor:
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return _slices(image, places, window)
    return _Cut.apply(image, places, window)


def _slices(image: Tensor, places: Sequence[tuple[int, int]], window: int) -> Tensor:
    if image.device.type != 'cpu':
        return _gather(image, places, window)
    return torch.stack([image[:, t : t + window, l : l + window] for t, l in places])


def _gather(image: Tensor, places: Sequence[tuple[int, int]], window: int) -> Tensor:
    """The same by one indexing operation, whatever the number of windows: fewer launches on an accelerator, but a few
    milliseconds slower on a CPU."""
    starts = torch.tensor(places, device=image.device)  # (K, 2)
    span = torch.arange(window, device=image.device)
    rows, columns = (starts[:, axis, None] + span for axis in (0, 1))  # (K, window)
    return image[:, rows[:, :, None], columns[:, None, :]].transpose(0, 1)  # (K, C, window, window)


# Slices alone have the same gradient, but their backward makes a zero image for each window: quadratic in the number
# of windows. These two adjoint functions add each window where it came from. (Compiled code takes the plain slices,
# which the compiler fuses.)


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(image, places, window):
        return _slices(image, places, window)

    @staticmethod
    def setup_context(ctx, inputs, output):
        image, ctx.places, ctx.window = inputs
        ctx.size = image.shape

    @staticmethod
    def backward(ctx, grad):
        return _Paste.apply(grad, ctx.places, ctx.size), None, None


class _Paste(torch.autograd.Function):
    @staticmethod
    def forward(views, places, size):
        image, window = views.new_zeros(size), views.shape[-1]
        for (t, l), view in zip(places, views.unbind(0), strict=True):
            image[:, t : t + window, l : l + window] += view
        return image

    @staticmethod
    def setup_context(ctx, inputs, output):
        views, ctx.places, _ = inputs
        ctx.window = views.shape[-1]

    @staticmethod
    def backward(ctx, grad):
        return _Cut.apply(grad, ctx.places, ctx.window), None, None
