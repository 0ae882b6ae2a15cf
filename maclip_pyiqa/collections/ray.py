"""Scores of collections on Ray: the driver, which hands shards to tasks and writes what they return, each file whole.

Ray starts and places the processes, on this machine or on a cluster, and repeats the tasks of those that die.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from .._files import one_line
from .._lazy import need
from .._lists import as_names, as_paths
from ..scoring.find import MAX_PIXELS
from ..scoring.schema import label
from .folder import Collection, Plan
from .inputs import Shard, find_inputs
from .tasks import Job, as_task, score_shard

if TYPE_CHECKING:
    import pyarrow as pa

    from ..metric import MACLIP

__all__ = ['score_collection']

SAVE_SECONDS = 60.0  # between two writes of the manifest
STORE = 80_000_000  # bytes of Ray's object store, about the least that it takes; rows are small
BATCH = 16


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
    batch: int = BATCH,
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
        metric: metric, which each worker builds again from `metric.config`. It is not used for scoring, so leave it on
            the CPU
        column: column of Parquet files that holds paths, bytes or {bytes, path}; None: found by type and name
        keep: columns of Parquet files, or suffixes of a tar's other members, such as 'json' or '.JSON', that travel
            along, see 'unmatched' of the manifest. One that has the name of a column of the output is renamed to
            input_NAME
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
        FileNotFoundError: no inputs
        ValueError: inputs or options that do not fit; no cluster at the address; or the folder holds scores of other
            weights or options
        OSError: the folder cannot be written
        RuntimeError: processes die while they build the metric
        WeightsError: workers find no weights, or others
        ModuleNotFoundError: an extra is missing

    Example::

        score_collection(['s3://bucket/shards/'], 'scores', MACLIP(), keep=['json'])
    """
    need('score_collection', 'ray', 'pyarrow', 'fsspec', extra='ray')
    if shard_rows < 1 or retries < 0 or batch < 1 or (workers is not None and workers < 1):
        raise ValueError(
            f'shard_rows={shard_rows}, workers={workers}, retries={retries}, batch={batch}; expected at least 1, and '
            'at least 0 for retries'
        )
    names, keep = as_paths(inputs), as_names('keep', keep)
    found = find_inputs(names, listing, output)
    if keep and found.files:
        raise ValueError('image files have no columns to keep; expected Parquet files or tars, or no `keep`')
    folder = Collection(output, label(metric), {'column': column, 'keep': keep, 'shard_rows': shard_rows}, names)
    try:
        plan = Plan(folder, found, metric.attribute_names, column, keep)
        if plan:
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

    task, one_by_one = as_task(score_shard, job), as_task(score_shard, job, gpu=False)
    files = min(shard_rows, max(BATCH, -(-len(plan.files) // (2 * count))))  # so that all workers get some
    shards = plan.shards(files, shard_rows)
    running: dict[Any, tuple[Shard, pa.Schema, bool]] = {}
    # how many images tars and tables hold is not known before they are read, but how many bytes
    done, total = plan.progress()
    unit: Any = {'unit': ' images'} if total == len(plan.files) else {'unit': 'B', 'unit_scale': True}
    disable, saved = None if progress is None else not progress, time.monotonic()
    try:
        with tqdm(total=total, initial=done, disable=disable, file=sys.stderr, smoothing=0.05, **unit) as bar:
            while True:
                while len(running) < count and (following := next(shards, None)) is not None:
                    running[task.remote(job, *following)] = *following, False
                if not running:
                    break
                for reference in ray.wait([*running], timeout=1)[0]:
                    shard, schema, was_alone = running.pop(reference)
                    try:
                        folder.finish(shard.name, *ray.get(reference))
                    except ray.exceptions.RayTaskError as error:
                        if isinstance(error.cause, RuntimeError):  # of the weights, so all shards will fail
                            raise error.cause from None
                        folder.miss(shard.name, shard.source, one_line(error.cause))
                    except ray.exceptions.RayError as error:  # its process died, or its machine
                        if was_alone:
                            folder.miss(shard.name, shard.source, one_line(error))
                        else:
                            running[one_by_one.remote(job, shard, schema, True)] = shard, schema, True
                            continue
                    bar.update(shard.share)
                    bar.set_postfix(images=folder.manifest['rows'], failed=folder.manifest['failed'])
                if time.monotonic() - saved > SAVE_SECONDS:
                    folder.save_manifest()
                    saved = time.monotonic()
    except BaseException:
        with suppress(Exception):  # the first error is the one to report
            folder.save_manifest()
        raise
    finally:
        for reference in running:
            with suppress(Exception):
                ray.cancel(reference, force=True)


def _resources(workers: int | None, gpus: bool | None) -> tuple[int, int, float]:
    """How many tasks run at once, and how many cores and GPUs each has.

    Raises:
        ValueError: there are no such machines; a task would wait for them for ever
    """
    import ray

    nodes = [node['Resources'] for node in ray.nodes() if node['Alive']]
    on_gpu = [node for node in nodes if node.get('GPU')] if gpus is not False else []
    cores, found = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ('CPU', 'GPU'))
    if not cores or (gpus and not found):
        raise ValueError(f'Ray has {cores} cores and {found} GPUs; expected at least one, or gpus=False')
    if not on_gpu:
        return workers or cores, 1, 0.0
    count = workers or found
    share = 1 / math.ceil(count / found)
    threads = min(node.get('CPU', 0) * share / node['GPU'] for node in on_gpu)
    return count, max(1, int(threads)), math.floor(1e4 * share) / 1e4


@contextmanager
def _ray(address: str | None, workers: int | None, retries: int) -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    os.environ.setdefault('RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO', '0')  # or each start tells of a future version
    options: dict[str, Any] = {'address': address or 'local', 'log_to_driver': False, 'logging_level': logging.ERROR}
    if address is None:
        options |= {'object_store_memory': STORE, 'include_dashboard': False}
        options['_system_config'] = {'task_oom_retries': retries}  # or what does not fit is tried for ever
        if workers is not None and workers > (os.cpu_count() or 1):
            options['num_cpus'] = workers
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise ValueError(
            f'no Ray at {address!r}: {one_line(error)}. Expected the address of a running cluster, or "auto" on one of '
            'its machines'
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
