"""Scores of collections on Ray: a driver hands shards to tasks and writes what they return, each file whole.

Ray repeats the task of a process that dies. A shard whose process dies at each try is scored once more, each image in a
task of its own, which finds the one that does it.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import torch

from .._files import is_url, one_line
from .._lazy import need
from .._lists import as_names, as_paths
from .._values import integer
from ..backbone import WeightsError
from ..metric import MACLIP
from ..scoring.batch import map_ahead
from ..scoring.find import MAX_PIXELS
from ..scoring.formats.parquet import to_table
from ..scoring.schema import Row, empty_row, label
from ..scoring.score import score_read
from .folder import BuildError, Collection, Plan
from .inputs import Image, Shard, find_inputs, read, read_shard

if TYPE_CHECKING:
    import pyarrow as pa


class Job(NamedTuple):
    """What the tasks of a run have in common."""

    config: dict[str, Any]  # options of the metric
    fingerprint: str  # fingerprint that the metric must have
    cwd: str  # folder of relative paths
    batch: int  # largest number of images that are scored at once
    max_pixels: int | None  # largest number of pixels of an image
    names: Sequence[str]  # names of the columns to keep
    retries: int  # number of retries of a task whose process died, or whose input could not be read
    threads: int = 1  # number of cores of a task
    gpu: float = 0.0  # share of a GPU; 0: scoring is on the CPU


def score_collection(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    metric: MACLIP,
    *,
    column: str | None = None,
    keep: Sequence[str] = (),
    shard_rows: int = 2000,
    workers: int | None = None,
    address: str | None = None,
    retries: int = 2,
    gpus: bool | None = None,
    batch: int = 16,
    max_pixels: int | None = MAX_PIXELS,
    listing: IO[bytes] | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Score a collection into a folder of Parquet files; a rerun does what is missing.

    Ray that is running in this process is used as it is; otherwise it is started for this call, or connected to.

    Args:
        inputs: image files, Parquet files, WebDataset tars, folders and patterns of them, local or URLs of fsspec;
            '-': the paths in `listing`
        output: folder, local or a URL
        metric: metric, on the CPU; each worker builds its own from `metric.config`
        column: column of Parquet files that holds paths, bytes or {bytes, path}; None: found by type and name
        keep: columns of Parquet files, or suffixes of a tar's other members, such as 'json' or '.JSON', to copy; one
            with the name of a column of the output is renamed to input_NAME
        shard_rows: largest number of images in a file of scores; tars are not cut
        workers: number of shards that are scored at once; None: one for each GPU that Ray has, or for each core
        address: address of a cluster: 'auto' or 'ray://HOST:10001'; None: this machine alone
        retries: number of retries of a shard whose process died, and then of each of its images
        gpus: whether to score on GPUs; None: if there are some
        batch: largest number of images that are scored at once
        max_pixels: largest number of pixels of an image, see `read_image`
        listing: a binary stream with a path a line
        progress: whether to show a progress bar on standard error; None: if that is a terminal

    Returns:
        the manifest, see `read_manifest`

    Raises:
        ValueError: inputs or options that do not fit; no cluster at the address; or the folder holds scores of other
            weights or options
        OSError: there are no inputs, or the folder cannot be written
        RuntimeError: processes die while they build the metric
        WeightsError: workers find no weights, or others
        ModuleNotFoundError: an extra is missing

    Example::

        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.collections import score_collection

        manifest = score_collection(['photos'], 'scores', MACLIP())  # or ['s3://bucket/shards/'], keep=['json']
        print(manifest['rows'], manifest['failed'], manifest['complete'])
    """
    need('score_collection', 'ray', 'pyarrow', 'filelock', 'fsspec', extra='ray')
    for name, value in (('shard_rows', shard_rows), ('workers', 1 if workers is None else workers), ('batch', batch)):
        integer(name, value)
    integer('retries', retries, 0)
    names, keep = as_paths(inputs), as_names('keep', keep)
    found = find_inputs(names, listing, output)
    if keep and found.files:
        raise ValueError('image files have no columns to keep; expected Parquet files or tars, or no `keep`')
    folder = Collection(output, label(metric), {'column': column, 'keep': keep, 'shard_rows': shard_rows}, names)
    try:
        plan = Plan(folder, found, metric.attribute_names, column, keep)
        if plan.files or plan.tables or plan.tars:
            with _ray(address, workers, retries):
                count, threads, gpu = _resources(workers, gpus)
                identity = metric.config, metric.fingerprint()
                job = Job(*identity, os.getcwd(), batch, max_pixels, plan.names, retries, threads, gpu)
                _run(folder, plan, job, count, shard_rows, progress)
        folder.manifest['unmatched'] = plan.unmatched()
        folder.save_manifest(ended=True)
        return folder.manifest
    finally:
        folder.close()


def _run(folder: Collection, plan: Plan, job: Job, count: int, shard_rows: int, progress: bool | None) -> None:
    """Hand shards to `count` tasks at once, and write what they return."""
    import ray
    from tqdm import tqdm

    task, one_by_one = _task(score_shard, job), _task(score_shard, job, gpu=False)
    running: dict[Any, tuple[Shard, pa.Schema, bool]] = {}
    files = min(shard_rows, max(job.batch, -(-len(plan.files) // (2 * count))))  # so that all workers get some
    shards, total = plan.shards(files, shard_rows), plan.left()
    # how many images tars and tables hold is not known before they are read, but how many bytes
    unit: Any = {'unit': ' images'} if total == len(plan.files) else {'unit': 'B', 'unit_scale': True}
    unit['disable'] = None if progress is None else not progress
    try:
        with tqdm(total=total, file=sys.stderr, smoothing=0.05, **unit) as bar:
            while True:
                for shard, schema in itertools.islice(shards, count - len(running)):
                    running[task.remote(job, shard, schema)] = shard, schema, False
                if not running:
                    break
                for reference in ray.wait([*running], timeout=1)[0]:
                    shard, schema, alone = running.pop(reference)
                    try:
                        folder.finish(shard.name, *ray.get(reference))
                    except ray.exceptions.RayTaskError as error:
                        if isinstance(error.cause, (BuildError, WeightsError)):  # so all shards will fail
                            raise error.cause from None
                        folder.miss(shard.name, shard.source, one_line(error.cause))
                    except ray.exceptions.RayError as error:  # its process died, or its machine
                        if not alone:
                            running[one_by_one.remote(job, shard, schema, True)] = shard, schema, True
                            continue
                        folder.miss(shard.name, shard.source, one_line(error))
                    bar.update(shard.share)
                    bar.set_postfix(images=folder.manifest['rows'], failed=folder.manifest['failed'])
    finally:
        for reference in running:
            with suppress(Exception):
                ray.cancel(reference, force=True)
        with suppress(Exception):  # an earlier error is the one to report
            folder.save_manifest()


def _resources(workers: int | None, gpus: bool | None) -> tuple[int, int, float]:
    """How many tasks run at once, and how many cores and GPUs each has; ValueError if it would wait for ever."""
    import ray

    nodes = [node['Resources'] for node in ray.nodes() if node['Alive']]
    cores, found = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ('CPU', 'GPU'))
    if not cores or (gpus and not found):
        raise ValueError(f'Ray has {cores} cores and {found} GPUs; expected at least one, or gpus=False')
    if not found or gpus is False:
        return workers or cores, 1, 0.0
    count = workers or found
    of_gpu = math.ceil(count / found)  # tasks of a GPU
    threads = min(node.get('CPU', 0) / node['GPU'] for node in nodes if node.get('GPU')) / of_gpu
    return count, max(1, int(threads)), math.floor(1e4 / of_gpu) / 1e4


def _ray(address: str | None, workers: int | None, retries: int) -> AbstractContextManager:
    """Ray, until its end: that which runs in this process, at an address, or one that is started."""
    import ray

    if ray.is_initialized():
        return nullcontext()
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    os.environ.setdefault('RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO', '0')  # or each start tells of a future version
    options: dict[str, Any] = {'address': address or 'local', 'log_to_driver': False, 'logging_level': logging.ERROR}
    if address is None:
        options |= {'include_dashboard': False, 'object_store_memory': 80_000_000}  # the least; rows are small
        options['_system_config'] = {'task_oom_retries': retries}  # or what does not fit is tried for ever
        if workers is not None and workers > (os.cpu_count() or 1):
            options['num_cpus'] = workers
    try:
        return ray.init(**options)
    except ConnectionError as error:
        expected = 'the address of a running cluster, or "auto" on one of its machines'
        raise ValueError(f'no Ray at {address!r}: {one_line(error)}. Expected {expected}') from error


# --- tasks ------------------------------------------------------------------------------------------------------------


def _task(function: Callable[..., Any], job: Job, gpu: bool = True) -> Any:
    """A function as a task, which Ray repeats where its process dies or an input cannot be read."""
    import ray

    options: Any = {'num_cpus': job.threads, 'num_gpus': job.gpu * gpu, 'retry_exceptions': [OSError]}
    return ray.remote(max_retries=job.retries, **options)(function)


def score_shard(job: Job, shard: Shard, schema: pa.Schema, alone: bool = False) -> tuple[pa.Table, dict[str, Any]]:
    """A task: the rows of a shard, and where they are from; `alone`: each image is scored in a task of its own."""
    began, about = time.monotonic(), {**shard.about, 'lost': ''}

    def images() -> Iterator[Image]:
        try:
            yield from read_shard(shard)
        except ValueError as error:  # damage, behind which there is nothing; the images before it are scored
            about['lost'] = one_line(error)
        except Exception as error:
            time.sleep(10 if is_url(shard.source) else 0)  # before Ray tries again
            raise OSError(one_line(error)) from error

    with suppress(OSError):  # relative paths are the driver's
        os.chdir(job.cwd)
    rows = list((_one_by_one if alone else score_images)(job, images()))
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


def score_images(job: Job, images: Iterable[Image]) -> list[Row]:
    """A task: the rows of images, with the columns to keep."""
    with suppress(OSError):
        os.chdir(job.cwd)
    metric = _metric(job)
    reading = partial(read, window=metric.backbone.window, max_pixels=job.max_pixels)
    images, again = itertools.tee(images)
    rows = score_read(metric, map_ahead(reading, images, job.threads), batch=job.batch)
    return [row | dict(zip(job.names, image.kept, strict=True)) for row, image in zip(rows, again, strict=True)]


def _one_by_one(job: Job, images: Iterable[Image]) -> Iterable[Row]:
    """Rows of images, each scored in a task of its own; one whose process dies is a row with an error."""
    import ray

    deaths = ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError, ray.exceptions.WorkerCrashedError
    died = f'given up: {job.retries + 1} processes died of it, out of memory or by a crash in a decoder'
    task = _task(score_images, job)
    try:
        ray.get(task.remote(job, []))
    except deaths as error:
        raise BuildError(f'processes die while they build the metric: {one_line(error)}') from error
    for image in images:
        try:
            yield from ray.get(task.remote(job, [image]))
        except deaths:
            yield empty_row(image.path, died) | dict(zip(job.names, image.kept, strict=True))


_metrics: dict[tuple[str, float], MACLIP] = {}  # that of this process, by fingerprint and share of a GPU


def _metric(job: Job) -> MACLIP:
    """The metric of this process, built once."""
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
