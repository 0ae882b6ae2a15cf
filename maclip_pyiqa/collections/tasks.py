"""What a worker does with a shard: a stateless task, which reads its images, scores them and returns the rows.

A process that dies leaves nothing behind, and Ray repeats its task. A shard whose process dies at each try is scored
once more, each image in a task of its own, which finds the one that does it.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .._files import one_line
from ..scoring.formats.parquet import to_table
from ..scoring.schema import Row, empty_row
from .inputs import Image, Shard, read, read_shard

if TYPE_CHECKING:
    import pyarrow as pa

    from ..metric import MACLIP

__all__ = ['Job', 'as_task', 'score_images', 'score_shard']

PAUSE = 10.0  # seconds before what a network did not give is asked for again


class Job(NamedTuple):
    """What the tasks of a run have in common."""

    config: dict[str, Any]  # options of the metric
    fingerprint: str  # that the metric must have
    cwd: str  # folder of relative paths
    batch: int  # largest number of images that are scored at once
    max_pixels: int | None  # of an image
    names: Sequence[str]  # of the columns that travel along
    retries: int  # of a task whose process died, or whose input could not be read
    threads: int = 1  # cores of a task
    gpu: float = 0.0  # share of a GPU; 0: scoring is on the CPU


def score_shard(job: Job, shard: Shard, schema: pa.Schema, alone: bool = False) -> tuple[pa.Table, dict[str, Any]]:
    """A task: the rows of a shard, and where they are from.

    Args:
        job: what the tasks of the run have in common
        shard: shard
        schema: schema of the rows
        alone: whether each image is scored in a task of its own, since the shard's process died

    Raises:
        OSError: the shard cannot be read now
        WeightsError: the metric cannot be built, or its fingerprint differs
    """
    began, about = time.monotonic(), {**shard.about, 'lost': ''}

    def images() -> Iterator[Image]:
        try:
            yield from read_shard(shard)
        except ValueError as error:  # damage, behind which there is nothing; the images before it are scored
            about['lost'] = one_line(error)
        except Exception as error:
            time.sleep(PAUSE if shard.is_remote else 0)
            raise OSError(one_line(error)) from error

    with suppress(OSError):  # relative paths are the driver's
        os.chdir(job.cwd)
    if alone:
        rows = list(_one_by_one(job, images()))
    else:
        rows = score_images(job, images(), job.threads if job.gpu else int(shard.is_remote))
    try:
        table = to_table(rows, schema)
    except Exception as error:  # columns that are kept, of another type than in the first file
        table, about['lost'] = schema.empty_table(), one_line(error)
    if shard.kind == 'tar':
        columns = zip(shard.keep, job.names, strict=True)
        about['matched'] = [suffix for suffix, name in columns if table[name].null_count < len(table)]
    elif shard.kind == 'files':
        about['cwd'] = job.cwd
    return table, about | {'seconds': round(time.monotonic() - began, 1)}


def score_images(job: Job, images: Iterable[Image], ahead: int = 0) -> list[Row]:
    """Rows of images, with the columns that travel along; `ahead` is the number of threads that read."""
    from ..scoring.score import score_read

    with suppress(OSError):
        os.chdir(job.cwd)
    metric, kept = _metric(job), list[tuple[Any, ...]]()

    def remember() -> Iterator[Image]:
        for image in images:
            kept.append(image.kept)
            yield image

    reading = partial(read, window=metric.backbone.window, max_pixels=job.max_pixels)
    rows = score_read(metric, _ahead(reading, remember(), ahead), batch=job.batch)
    return [row | dict(zip(job.names, values, strict=True)) for row, values in zip(rows, kept, strict=False)]


def _one_by_one(job: Job, images: Iterable[Image]) -> Iterator[Row]:
    """Rows of images, each scored in a task of its own; one whose process dies is a row with an error."""
    import ray

    died = f'given up: {job.retries + 1} processes died of it, out of memory or by a crash in a decoder'
    task = as_task(score_images, job)
    try:
        ray.get(task.remote(job, []))
    except _deaths() as error:
        raise RuntimeError(f'processes die while they build the metric: {one_line(error)}') from error
    for image in images:
        try:
            yield from ray.get(task.remote(job, [image]))
        except _deaths():
            yield empty_row(image.path, died) | dict(zip(job.names, image.kept, strict=True))


def as_task(function: Callable[..., Any], job: Job, gpu: bool = True) -> Any:
    """A function as a task, which Ray repeats where its process dies or an input cannot be read."""
    import ray

    options: Any = {'num_cpus': job.threads, 'num_gpus': job.gpu * gpu, 'retry_exceptions': [OSError]}
    return ray.remote(max_retries=job.retries, **options)(function)


def _deaths() -> tuple[type[Exception], ...]:
    """Errors of Ray that tell of the end of a process, or of its machine."""
    from ray import exceptions

    return exceptions.WorkerCrashedError, exceptions.OutOfMemoryError, exceptions.NodeDiedError


_metrics: dict[tuple[str, float], MACLIP] = {}  # that of this process, by fingerprint and share of a GPU


def _metric(job: Job) -> MACLIP:
    """The metric of this process, built once."""
    import torch

    from ..backbone import WeightsError
    from ..metric import MACLIP

    key = job.fingerprint, job.gpu
    if key not in _metrics:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C and ends its tasks
        torch.set_num_threads(job.threads)
        try:
            metric = MACLIP(**job.config).to('cuda' if job.gpu else 'cpu')
        except Exception as error:
            raise WeightsError(f'a worker cannot build the metric: {one_line(error)}') from error
        if metric.fingerprint() != job.fingerprint:
            raise WeightsError('a worker cannot build the metric: its weights differ from those of the driver')
        _metrics.clear()
        _metrics[key] = metric
    return _metrics[key]


def _ahead(function: Callable[[Any], Any], items: Iterable[Any], threads: int) -> Iterator[Any]:
    """`map`, with so many threads ahead of its reader."""
    if not threads:
        yield from map(function, items)
        return
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        yield from (each.result() for each in waiting)
