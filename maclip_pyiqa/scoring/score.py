"""Scores of many files, row by row."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._files import one_line
from .._lists import as_paths
from .._values import integer
from ..metric import MACLIP, Analysis
from .batch import FileRead, groups, read_files
from .find import MAX_PIXELS
from .read import to_tensor
from .schema import columns, empty_row, in_order


def score_files(
    metric: MACLIP,
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    batch: int = 16,
    workers: int = 0,
    max_pixels: int | None = MAX_PIXELS,
    others: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    each: Callable[[dict[str, Any], Tensor, Analysis], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Score image files; rows in the order of the paths, as they come.

    A file that cannot be read or scored gives a row with an error, and so does an image that is too large for the
    memory or of a shape that the metric refuses; the other images of its batch keep their scores.

    Args:
        metric: metric on the device to compute on
        paths: paths of image files; `find_images` finds them in folders
        batch: largest number of images that are scored at once
        workers: processes that read files ahead, once reading turns out to take long; 0: read in this process. On macOS
            and Windows, scripts that use them need `if __name__ == '__main__':`
        max_pixels: largest number of pixels of an image, height x width, 200 million by default; a larger one is an
            error in its row; None: any
        others: other metrics, each a function of an image (1, 3, H, W) in [0, 1] that returns one number; by the names
            of their columns
        each: called as each(row, image, analysis) with each scored row before it is returned, for figures or reports:
            the image is (3, H, W) on the metric's device. An OSError that it raises is added to the row's `error`

    Returns:
        iterator of rows with 'path'; 'score', 'q_sim', 'q_mag', 'w_sim' and 'attribute_NAME' as in
        `Analysis.summary()`, and the others' columns; 'width' and 'height', pixels, and 'flags', words for why the
        score means little ('flat', 'noise', 'enlarged', 'clipped', 'border'; separated by spaces), all None where the
        file cannot be read; 'error', empty where nothing failed. Where the score failed, it is None and the other
        scores are missing; a number that failed alone or is not finite is None

    Raises:
        ValueError: another metric has the name of a column; `batch` or `workers` out of range

    Example::

        from maclip_pyiqa import MACLIP, score_files
        from maclip_pyiqa.scoring import find_images

        for row in score_files(MACLIP(), find_images('photos')):
            print(row['path'], row['score'], row['error'])
    """
    # checked now rather than when the first row is asked for
    batch, workers = integer('batch', batch), integer('workers', workers, 0)
    max_pixels = None if max_pixels is None else integer('max_pixels', max_pixels)
    others = dict(others or {})
    columns(metric.attribute_names, others)
    files = read_files(as_paths(paths), workers, metric.backbone.window, max_pixels)
    return score_read(metric, files, batch=batch, others=others, each=each)


def score_read(
    metric: MACLIP,
    files: Iterable[FileRead],
    *,
    batch: int = 16,
    others: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    each: Callable[[dict[str, Any], Tensor, Analysis], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """`score_files` of files that are read already, or as they are read: see `read_file`.

    Example::

        window = metric.backbone.window  # for the flags
        for row in score_read(metric, (read_file(name, data, window) for name, data in images)):
            print(row['path'], row['score'], row['error'])
    """
    for group in groups(files, batch):
        yield from _score_group(metric, group, others or {}, each)  # whose tensors end with it, before others are read


def _score_group(metric: MACLIP, group: list[FileRead], others, each) -> Iterator[dict[str, Any]]:
    device = metric.backbone.mean.device
    images: list[Tensor] = []
    try:
        with torch.inference_mode():
            images += (to_tensor(file.pixels).to(device) for file in group if file.pixels is not None)
            scored = zip(images, analyze_each(metric, images), strict=True)
    except (MemoryError, RuntimeError) as error:  # not even the images fit into memory
        images.clear()
        if len(group) > 1:
            for file in group:
                yield from _score_group(metric, [file], others, each)
            return
        scored = zip([torch.empty(0)], [error], strict=True)
    for file in group:
        row = empty_row(file.path, file.error)
        if file.pixels is not None:
            height, width, _ = file.pixels.shape
            row |= {'width': width, 'height': height, 'flags': file.flags}
            image, analysis = next(scored)
            with torch.inference_mode():  # not across the yield: the caller's code is not to run in it
                _fill(row, image, analysis, others, each)
        yield in_order(row)


def analyze_each(metric: MACLIP, images: Sequence[Tensor]) -> list[Analysis | Exception]:
    """The analysis of each image, or the error that it raises; where the batch fails, of each image alone.

    Args:
        metric: metric on the images' device
        images: images, (3, H, W) each
    """
    try:
        return list(metric.analyze(list(images))) if images else []
    except (RuntimeError, ValueError) as error:  # out of memory, or a shape that is refused
        return [error] if len(images) == 1 else [analyze_each(metric, [image])[0] for image in images]


def _fill(row: dict[str, Any], image: Tensor, analysis: Analysis | Exception, others, each) -> None:
    """Complete the row of an image that was read."""
    if isinstance(analysis, Exception):
        row['error'] = one_line(analysis).removeprefix('image 0: ')  # the only one of its batch
        return
    row |= analysis.summary()
    errors = []
    for name, other in others.items():
        try:
            row[name] = float(other(image[None]))
        except Exception as error:  # each metric has limits of its own, such as the smallest image
            row[name] = None
            errors.append(f'{name}: {one_line(error)}')
    for name, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            row[name] = None
            errors.append(f'{name} is not a finite number')
    row['error'] = '; '.join(errors)
    if each is not None:
        try:
            each(row, image, analysis)
        except OSError as error:
            row['error'] = '; '.join([*errors, one_line(error)])
