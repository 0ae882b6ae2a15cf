"""Small pictures of images, and their windows' values, made while scoring: what a page shows of an image."""

from __future__ import annotations

import heapq
import io
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..metric import Analysis

__all__ = ['LONGEST', 'Picture', 'Pictures', 'choose', 'read_picture', 'thumbnail', 'window_values']

LONGEST = 192  # side of a picture, pixels
GRID = 12  # rows and columns of windows whose values a page holds, at most


@dataclass(frozen=True)
class Picture:
    """A small JPEG, and the windows' values, None where they are unknown."""

    jpeg: bytes
    windows: dict[str, Any] | None = None


class Pictures(Mapping[str, Picture]):
    """Pictures by path, made while `score_files` runs: give it as its `each`.

    Of many images it keeps those that a page may show, see `choose`: the worst and the best so far, and `count` more,
    drawn by a hash of their paths. Memory is bounded by about 2 * count pictures, of some 10 kB each.

    Args:
        count: number of pictures on the page

    Example::

        pictures = Pictures()
        rows = list(score_files(metric, paths, each=pictures))
        write_report(rows, 'report.html', label=label(metric), pictures=pictures)
    """

    def __init__(self, count: int = 500) -> None:
        self.count = count
        self._pictures: dict[str, Picture] = {}
        self._users: dict[str, int] = {}  # how many of the heaps hold a path
        # (priority, path), the least at the top: the worst, the best, and some
        self._heaps: tuple[list, ...] = ([], [], [])
        self._sizes = (math.ceil(count / 3), math.ceil(count / 3), count)

    def __call__(self, row: Mapping[str, Any], image: Tensor, analysis: Analysis) -> None:
        """Keep an image's picture if a page may show it; see `score_files(each=...)`."""
        path, score = row['path'], row['score']
        if score is None or path in self._pictures:
            return
        priorities = (-score, score, -zlib.crc32(os.fsencode(path)))
        for heap, size, priority in zip(self._heaps, self._sizes, priorities, strict=True):
            if size and (len(heap) < size or (priority, path) > heap[0]):
                heapq.heappush(heap, (priority, path))
                self._users[path] = self._users.get(path, 0) + 1
                if len(heap) > size:
                    self._drop(heapq.heappop(heap)[1])
        if path in self._users:
            self._pictures[path] = Picture(thumbnail(image), window_values(analysis))

    def _drop(self, path: str) -> None:
        self._users[path] -= 1
        if not self._users[path]:
            del self._users[path]
            self._pictures.pop(path, None)

    def __getitem__(self, path: str) -> Picture:
        return self._pictures[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pictures)

    def __len__(self) -> int:
        return len(self._pictures)


def choose(order: Sequence[str], count: int, made: Mapping[str, Any]) -> list[str]:
    """Paths of the images to show: a third the worst, a third the best, and evenly spread ones between.

    Args:
        order: paths, worst first
        count: number of pictures, at most
        made: pictures that exist; of neighbours between, one of these is preferred
    """
    if len(order) <= count:
        return list(order)
    ends = math.ceil(count / 3)
    between = range(ends, len(order) - ends) if count >= 2 * ends else range(0)
    chosen = [*range(min(ends, count)), *range(len(order) - min(ends, count - min(ends, count)), len(order))]
    parts = count - len(chosen)
    for i in range(parts):
        part = between[len(between) * i // parts : len(between) * (i + 1) // parts]
        middle = part[len(part) // 2]
        near = sorted(part, key=lambda place: abs(place - middle))
        chosen.append(next((place for place in near if order[place] in made), middle))
    return [order[place] for place in sorted(chosen)]


def thumbnail(image: Tensor | np.ndarray, longest: int = LONGEST, quality: int = 80) -> bytes:
    """A JPEG of an image, without any metadata.

    Args:
        image: (3, H, W) tensor in [0, 1], or (H, W, 3) array as `read_pixels` gives it
        longest: side of the JPEG, pixels, at most
        quality: quality of the JPEG
    """
    import numpy as np
    from PIL import Image

    if not isinstance(image, np.ndarray):
        from torch.nn.functional import avg_pool2d

        kernel = [min(max(max(image.shape[1:]) // (2 * longest), 1), side) for side in image.shape[1:]]
        # on its device, which leaves little to copy
        image = avg_pool2d(image.float(), kernel).permute(1, 2, 0).cpu().numpy()
    if image.dtype != np.uint8:
        image = (image.clip(0, 1) * 255).round().astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, 'JPEG', quality=quality)
    return file.getvalue()


def read_picture(path: str) -> Picture | None:
    """The picture of a file, without windows' values; None where it cannot be read."""
    from ..scoring.read import read_pixels

    try:
        return Picture(thumbnail(read_pixels(path)))
    except (OSError, ValueError):
        return None


def window_values(analysis: Analysis) -> dict[str, Any] | None:
    """The windows' values of one image, compact, for a map drawn by map.js.

    Windows lie on a grid. Where it has more than 12 rows or columns, neighbours are averaged, which a map of a small
    picture cannot show.

    Returns:
        'size': height and width of the image; 'rows', 'columns': (start, end) of each, pixels of the image; 'values':
        by column of a table ('score', 'q_sim', 'q_mag', 'attribute_NAME') the windows' values row by row, in 1/10000.
        None where the whole image is the only view
    """
    import numpy as np

    plan = analysis.plan
    if len(analysis) != 1:
        raise ValueError(f'expected the analysis of one image; pick one of these {len(analysis)} with analysis[i]')
    if not plan.places:
        return None
    rows, columns = (np.array_split(np.array(spans), min(len(spans), GRID)) for spans in (plan.rows, plan.columns))
    views = {'score': analysis.q_view, 'q_sim': analysis.q_sim, 'q_mag': analysis.q_mag}
    views |= {f'attribute_{name}': analysis.attributes[..., i] for i, name in enumerate(analysis.names)}
    values = {}
    for name, view in views.items():
        grid = view[0, :-1].double().cpu().numpy().reshape(len(plan.rows), len(plan.columns))
        for axis, parts in ((0, rows), (1, columns)):
            starts = np.cumsum([0, *map(len, parts[:-1])])
            shape = (-1, 1) if axis == 0 else (1, -1)
            grid = np.add.reduceat(grid, starts, axis) / np.reshape([len(part) for part in parts], shape)
        values[name] = (grid.ravel() * 10_000).round().astype(int).tolist()
    spans = [
        [[round(float(part[0, 0]), 2), round(float(part[-1, 1]), 2)] for part in parts] for parts in (rows, columns)
    ]
    return {'size': list(plan.size), 'rows': spans[0], 'columns': spans[1], 'values': values}
