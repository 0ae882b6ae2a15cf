"""What a page shows of an image: a small picture, read from its file, and its windows' values, for a map."""

from __future__ import annotations

import io
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ..metric import Analysis

LONGEST = 192  # side of a picture, pixels
GRID = 12  # rows and columns of windows whose values a page holds, at most

Item = TypeVar('Item')


class Maps(Mapping[str, dict[str, Any]]):
    """Windows' values of images by path, collected while `score_files` runs: give it as its `each`.

    With five attributes they take some 600 bytes an image, at most about 3 kB.

    Example::

        from maclip_pyiqa import MACLIP, score_files
        from maclip_pyiqa.report import Maps, write_report
        from maclip_pyiqa.scoring import find_images, label

        metric, maps = MACLIP(), Maps()
        rows = list(score_files(metric, find_images('photos'), each=maps))
        write_report(rows, 'report.html', label=label(metric), maps=maps)
    """

    def __init__(self) -> None:
        self._packed: dict[str, bytes] = {}  # by real path: a file may be there by several

    def __call__(self, row: Mapping[str, Any], image: Tensor, analysis: Analysis) -> None:
        """Add the values of an image; see `score_files(each=...)`."""
        values = window_values(analysis)
        if values is not None:
            self._packed[os.path.realpath(row['path'])] = zlib.compress(json.dumps(values).encode())

    def __getitem__(self, path: str) -> dict[str, Any]:
        return json.loads(zlib.decompress(self._packed[os.path.realpath(path)]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def choose(order: Sequence[Item], count: int) -> list[Item]:
    """At most `count` images to show, of all, worst first: a third the worst, a third the best, and evenly spread ones
    between."""
    if len(order) <= count:
        return list(order)
    worst = math.ceil(count / 3)
    best = min(worst, count - worst)
    between = order[worst : len(order) - best]
    parts = count - worst - best
    middles = [between[len(between) * (2 * i + 1) // (2 * parts)] for i in range(parts)]
    return [*order[:worst], *middles, *order[len(order) - best :]]


def thumbnail(pixels: np.ndarray, longest: int = LONGEST, quality: int = 80) -> bytes:
    """A JPEG of pixels as `read_pixels` gives them, (H, W, 3): no side longer than `longest`, and no metadata."""
    import numpy as np
    from PIL import Image

    if pixels.dtype != np.uint8:
        pixels = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, 'JPEG', quality=quality)
    return file.getvalue()


def read_picture(path: str, longest: int = LONGEST, quality: int = 80) -> tuple[bytes, tuple[int, int]] | None:
    """The picture of a file, a JPEG, and height and width of the image; None where it cannot be read."""
    from ..scoring.read import read_pixels

    try:
        pixels = read_pixels(path)
        return thumbnail(pixels, longest, quality), pixels.shape[:2]
    except (OSError, ValueError, MemoryError):
        return None


def window_values(analysis: Analysis) -> dict[str, Any] | None:
    """The windows' values of one image, compact, for a map drawn by map.js.

    Windows lie on a grid. Where it has more than 12 rows or columns, neighbours are averaged, which a map of a small
    picture cannot show.

    Returns:
        'size': height and width of the image; 'rows', 'columns': (start, end) of each, pixels of the image; 'values':
        by column of a table ('score', 'q_sim', 'q_mag', 'attribute_NAME') the windows' values row by row, in 1/10000.
        None where the whole image is the only view, or a score is not finite

    Raises:
        ValueError: an analysis of several images
    """
    import numpy as np
    import torch

    plan = analysis.plan
    if len(analysis) != 1:
        raise ValueError(f'expected the analysis of one image; pick one of these {len(analysis)} with analysis[i]')
    if not plan.offsets or not analysis.q_view.isfinite().all():
        return None
    views = {'score': analysis.q_view, 'q_sim': analysis.q_sim, 'q_mag': analysis.q_mag}
    views |= {f'attribute_{name}': analysis.attributes[..., i] for i, name in enumerate(analysis.names)}
    grids = torch.stack([view[0, :-1] for view in views.values()]).double().cpu().numpy()
    grids = grids.reshape(len(views), len(plan.rows), len(plan.columns))
    for axis in (1, 2):
        grids = np.stack([part.mean(axis) for part in _groups(grids, axis)], axis)
    values = (grids.reshape(len(views), -1) * 10_000).round().astype(int).tolist()
    rows, columns = (
        [[round(float(part[0, 0]), 2), round(float(part[-1, 1]), 2)] for part in _groups(np.array(spans), 0)]
        for spans in (plan.rows, plan.columns)
    )
    return {'size': list(plan.size), 'rows': rows, 'columns': columns, 'values': dict(zip(views, values, strict=True))}


def _groups(array: np.ndarray, axis: int) -> list[np.ndarray]:
    """At most GRID groups of neighbours along an axis."""
    import numpy as np

    return np.array_split(array, min(array.shape[axis], GRID), axis)
