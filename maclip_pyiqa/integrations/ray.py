"""Scores of collections on Ray: an actor pool, one file of scores for each shard of the input.

Ray starts and places the actors, on this machine or on a cluster. What to do when one of them dies is decided here,
in the driver, which is also the only process that writes: an actor scores a shard from a row on, for some seconds at a
time, and returns the rows. So an actor that dies loses seconds, and what it leaves behind cannot double a row.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from .._files import one_line
from .._lazy import need
from .._lists import as_names, as_paths
from ..scoring.collections import Collection, output_schema, to_table
from ..scoring.find import MAX_PIXELS
from ..scoring.schema import label
from ..scoring.shards import Inputs, Shard, absolute, cut_files, cut_table, find_inputs, load, read_shard, shard_name
from ..scoring.text import unescape_text

if TYPE_CHECKING:
    import pyarrow as pa

    from ..metric import MACLIP
    from ..scoring.batch import FileRead
    from ..scoring.shards import Image

__all__ = ['score_collection']

SECONDS = 20.0  # of one call of an actor: what its death loses
SAVE_SECONDS = 60.0  # between saves of a shard's first rows: what the death of the driver loses
PAUSE = 10.0  # seconds before what a network did not give is asked for again
STORE = 80_000_000  # bytes of Ray's object store, about the least that it takes; rows are small
BATCH = 16


def score_collection(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    metric: MACLIP,
    *,
    column: str | None = None,
    keep: Sequence[str] = (),
    shard_rows: int = 10_000,
    actors: int | None = None,
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
        output: folder, local or a URL; see `scoring.collections`
        metric: metric, of which each actor builds its own from `metric.config`. It is not used for scoring, so leave it
            on the CPU
        column: column of Parquet files, that holds paths, bytes or {bytes, path}; None: found by type and name
        keep: columns of Parquet files, or suffixes of a tar's other members, such as 'json' or '.JSON', that travel
            along, see 'unmatched' of the manifest. One that has the name of a column of the output is renamed to
            input_NAME
        shard_rows: images in a file of scores, at most; tars are not cut
        actors: None: one for each GPU that Ray has, or for each core
        address: address of a cluster: 'auto' or 'ray://HOST:10001'; None: this machine alone
        retries: number of retries of a call whose actor died, before fewer images are tried at once, down to the
            one that does it
        gpus: None: if there are some
        batch: images that are scored at once, at most
        max_pixels: largest number of pixels of an image, see `read_image`
        listing: a binary stream with a path a line
        progress: a progress bar on standard error; None: if that is a terminal

    Returns:
        the manifest, see `scoring.collections.read_manifest`

    Raises:
        FileNotFoundError: no inputs
        ValueError: inputs or options that do not fit; no cluster at the address; or the folder holds scores of other
            weights or options
        OSError: the folder cannot be written
        RuntimeError: actors cannot be started
        WeightsError: workers find no weights
        ModuleNotFoundError: an extra is missing

    Example::

        score_collection(['s3://bucket/shards/'], 'scores', MACLIP(), keep=['json'])
    """
    need('score_collection', 'ray', 'pyarrow', 'fsspec', extra='ray')
    if shard_rows < 1 or retries < 0 or batch < 1 or (actors is not None and actors < 1):
        raise ValueError(
            f'shard_rows={shard_rows}, actors={actors}, retries={retries}, batch={batch}; expected at least 1, and at '
            'least 0 for retries'
        )
    names, keep = as_paths(inputs), as_names('keep', keep)
    found = find_inputs(names, listing, output)
    if keep and found.files:
        raise ValueError('image files have no columns to keep; expected Parquet files or tars, or no `keep`')
    options = _Options(shard_rows, actors, address, retries, gpus, batch, max_pixels, progress)
    same = {'column': column, 'keep': keep, 'shard_rows': shard_rows}
    folder = Collection(output, label(metric), same, names)
    try:
        plan = _Plan(folder, found, metric, column, tuple(keep))
        if plan:
            with _ray(address, actors):
                _Run(folder, plan, metric, options).run()
        else:
            plan.enter_unmatched()
            folder.save_manifest(complete=folder.is_complete)
        return folder.manifest
    finally:
        folder.close()


# --- what is to be done -----------------------------------------------------------------------------------------------


class _Plan:
    """Shards that are not finished, cut as they are needed, so that the footers of many files are not read at once."""

    def __init__(self, folder: Collection, found: Inputs, metric: MACLIP, column: str | None, keep: tuple[str, ...]):
        self.folder, self.found, self.column, self.keep = folder, found, column, keep
        own = output_schema(metric.attribute_names).names
        self.names = [f'input_{name}' if name in own else name for name in keep]
        self.files = self._new_files()
        folder.manifest['missing'] = {}
        self.tars = {path: size for path, size in found.tars.items() if not self._has(shard_name(path), size)}
        self.tables = self._unfinished_tables()
        self.schema = folder.schema() or output_schema(metric.attribute_names, self._kept())

    def __bool__(self) -> bool:
        return bool(self.files or self.tars or self.tables)

    def shards(self, files: int, rows: int) -> Iterator[Shard]:
        """The shards.

        Args:
            files: files of a shard of image files
            rows: rows of a shard of a Parquet file
        """
        taken = [int(name.removeprefix('files_')) for name in self.folder.shards if name.startswith('files_')]
        yield from cut_files(self.files, files, max(taken, default=-1) + 1)
        for path, size in self.tars.items():
            yield Shard(shard_name(path), 'tar', path, size, size, keep=self.keep)
        for path, size in self.tables.items():
            try:
                shards, _ = cut_table(path, size, rows, self.column, self.keep)
            except (OSError, ValueError) as error:
                self.folder.manifest['missing'][shard_name(path)] = {'source': path, 'error': one_line(error)}
                continue
            yield from (shard for shard in shards if not self._has(shard.name, size))

    def enter_unmatched(self) -> None:
        """Enter into the manifest the suffixes of `keep` that no image of the tars has a member with."""
        names = set(map(shard_name, self.found.tars)) if self.keep else set()
        entries = [entry for name, entry in self.folder.shards.items() if name in names and entry['rows']]
        # entries of earlier versions do not say
        matched = {name for entry in entries for name in entry.get('matched', self.keep)}
        self.folder.manifest['unmatched'] = [name for name in self.keep if entries and name not in matched]

    def _new_files(self) -> list[str]:
        """Image files that no finished shard has."""
        folder = self.folder
        for name in [name for name in folder.partials if name.startswith('files_')]:
            folder.finish_partial(name)
        if not self.found.files:
            return []
        done = {
            absolute(unescape_text(path), entry['cwd'])
            for name, entry in folder.shards.items()
            if entry['kind'] == 'files'
            for path in folder.ids(name)
        }
        return [path for path in self.found.files if absolute(path) not in done]

    def _has(self, name: str, size: int) -> bool:
        """Whether a shard is finished. One that could not be read to its end is tried again."""
        entry = self.folder.shards.get(name)
        if entry is None or entry['lost']:
            return False
        if entry['size'] != size:
            raise ValueError(
                f'{entry["source"]} had {entry["size"]} bytes when it was scored and has {size} now; expected the same '
                f'file. To score it again, remove {shard_name(entry["source"])}*.parquet from {self.folder.path}.'
            )
        return True

    def _unfinished_tables(self) -> dict[str, int]:
        """Parquet files whose rows are not all in finished shards, found without opening them."""
        parts: dict[str, list[dict[str, Any]]] = {}
        for name, entry in self.folder.shards.items():
            if entry['kind'] == 'parquet':
                parts.setdefault(re.sub(r'-\d{10}$', '', name), []).append(entry)

        def is_done(path: str, size: int) -> bool:
            entries = parts.get(shard_name(path), [])
            if not entries or any(entry['lost'] or entry['size'] != size for entry in entries):
                return False
            return sum(entry['rows'] for entry in entries) == entries[0]['of']

        return {path: size for path, size in self.found.tables.items() if not is_done(path, size)}

    def _kept(self) -> pa.Schema:
        """Schema of the columns to keep: that of the first input, to which later ones are converted."""
        import pyarrow as pa

        if not self.tables:
            return pa.schema([(name, pa.string()) for name in self.names])
        errors = []
        for path, size in itertools.islice(self.tables.items(), 10):  # one broken file ends no run
            try:
                fields = cut_table(path, size, sys.maxsize, self.column, self.keep)[1]
            except (OSError, ValueError) as error:
                errors.append(error)
                continue
            return pa.schema([field.with_name(name) for name, field in zip(self.names, fields, strict=True)])
        raise errors[0]


@dataclass
class _Job:
    """A shard on its way."""

    shard: Shard
    tables: list[pa.Table] = field(default_factory=list)
    limit: int | None = None  # images of a call, after deaths
    suspect: int | None = None  # the row up to which one image is known to be deadly
    deaths: int = 0  # of actors, at the row that is next
    errors: int = 0  # of reading, at the row that is next
    condemned: str = ''  # why the next row is given up
    seconds: float = 0.0
    saved: float = field(default_factory=time.monotonic)

    @property
    def rows(self) -> int:
        return sum(map(len, self.tables))

    def about(self, lost: str = '') -> dict[str, Any]:
        entry = {**self.shard.about, 'seconds': round(self.seconds, 1), 'lost': lost}
        return entry | {'cwd': os.getcwd()} if self.shard.kind == 'files' else entry


# --- the driver -------------------------------------------------------------------------------------------------------


class _Run:
    """Hands shards to actors, and writes what they return."""

    def __init__(self, folder: Collection, plan: _Plan, metric: MACLIP, options: _Options) -> None:
        import ray

        self.ray, self.folder, self.plan, self.options = ray, folder, plan, options
        resources = ray.cluster_resources()
        cores, gpus = int(resources.get('CPU', 0)), resources.get('GPU', 0)
        if options.gpus and not gpus:
            raise ValueError('gpus=True, but Ray has none; expected a machine or a cluster with GPUs, or gpus=False')
        on_gpu = gpus > 0 and options.gpus is not False
        self.count = options.actors or max(1, int(gpus) if on_gpu else cores)
        # asking for a GPU where there is none would wait for ever
        share = (
            0.0 if not on_gpu else 1.0 if self.count <= gpus else math.floor(1e4 / math.ceil(self.count / gpus)) / 1e4
        )
        threads = max(1, cores // self.count) if on_gpu else 1
        self.actor: Any = ray.remote(num_cpus=threads, num_gpus=share, max_restarts=0, max_task_retries=0)(_Scorer)
        self.arguments = {
            'config': _portable(metric.config),
            'fingerprint': metric.fingerprint(),
            'device': 'cuda' if on_gpu else 'cpu',
            'threads': threads,
            'batch': options.batch,
            'max_pixels': options.max_pixels,
            'cwd': os.getcwd(),
            'names': plan.names,
            'schema': plan.schema,
        }
        files = min(options.shard_rows, max(BATCH, -(-len(plan.files) // (2 * self.count))))  # all actors get some
        self.shards = map(_Job, plan.shards(files, options.shard_rows))
        self.waiting: deque[_Job] = deque()
        self.idle: list[Any] = []
        self.starting: dict[Any, Any] = {}  # reference -> actor
        self.working: dict[Any, tuple[Any, _Job]] = {}  # reference -> actor, job
        self.failed_starts = 0
        self.active = self.saved = time.monotonic()
        self.warned = False

    def run(self) -> None:
        self.bar = _Bar(self.plan, self.folder, self.options.progress)
        try:
            self._loop()
        except BaseException:
            with suppress(Exception):  # the first error is the one to be told
                for job in [*self.waiting, *(job for _, job in self.working.values())]:
                    self._save(job)
                self._save_manifest()
            raise
        else:
            self._save_manifest(complete=True)
        finally:
            self.bar.close()
            for actor in [*self.idle, *self.starting.values(), *(actor for actor, _ in self.working.values())]:
                with suppress(Exception):
                    self.ray.kill(actor)

    def _loop(self) -> None:
        self._assign()
        while self.working or self.waiting:
            ready, _ = self.ray.wait([*self.starting, *self.working], num_returns=1, timeout=1)
            for reference in ready:
                self._collect(reference)
            self._assign()
            if self.working:
                self.active = time.monotonic()
            elif not self.warned and time.monotonic() - self.active > 60:
                self.warned = True
                warnings.warn(
                    f'Ray has started no actor for a minute; it has {self.ray.available_resources()} left, and each '
                    f'actor needs a core',
                    stacklevel=4,
                )
            if time.monotonic() - self.saved > self._interval:
                self._save_manifest()

    @property
    def _interval(self) -> float:
        return max(SAVE_SECONDS, self.count)  # so that an object store gets about one put a second

    def _assign(self) -> None:
        """Work for actors that have none, and actors for shards that wait."""
        while self.idle:
            job = self.waiting.popleft() if self.waiting else self._next()
            if job is None:
                break
            actor = self.idle.pop()
            start = job.rows
            stop = start + 1 if job.condemned else None if job.limit is None else start + job.limit
            reference = actor.score.remote(job.shard, start, stop, SECONDS, job.condemned)
            self.working[reference] = actor, job
        while not self.idle and len(self.starting) + len(self.working) < self.count:
            if len(self.waiting) <= len(self.starting):
                job = self._next()
                if job is None:
                    break
                self.waiting.append(job)
            actor = self.actor.remote(**self.arguments)
            self.starting[actor.load.remote()] = actor

    def _next(self) -> _Job | None:
        job = next(self.shards, None)
        if job is not None:
            rows = self.folder.partial(job.shard.name)
            if rows is not None and len(rows):
                job.tables.append(rows.cast(self.plan.schema))
                self.bar.begin(len(rows))
        return job

    def _collect(self, reference: Any) -> None:
        """What an actor returned, or its death."""
        actor, job = self.starting.pop(reference, None), None
        if actor is None:
            actor, job = self.working.pop(reference)
        try:
            result = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            with suppress(Exception):
                self.ray.kill(actor)
            if job is None:
                self.failed_starts += 1
                if self.failed_starts > 2 + self.options.retries:
                    raise RuntimeError(f'Ray cannot start actors: {one_line(error)}') from error
            else:
                self._mourn(job)
            return
        self.idle.append(actor)
        if job is None:
            self.failed_starts = 0
            if result:
                from ..backbone import WeightsError

                raise WeightsError(f'an actor cannot build the metric: {result}')
        else:
            self._take(job, result)

    def _mourn(self, job: _Job) -> None:
        """An actor died at a shard: the same again, then fewer images, then without the image that does it."""
        job.deaths += 1
        if job.condemned:  # even reading what the image is called
            self._finish(job, f'behind row {job.rows}: {job.condemned}')
            return
        self.waiting.append(job)
        if job.limit == 1:
            if job.deaths > self.options.retries:
                job.condemned = f'given up: {job.deaths} actors died of it, out of memory or by a crash in a decoder'
        elif job.limit is not None or job.deaths > self.options.retries:
            # by more than half, as trying fewer images costs less than another actor
            job.suspect = None if job.limit is None else job.rows + job.limit
            job.limit, job.deaths = max(1, (job.limit or BATCH * BATCH) // BATCH), 0

    def _take(self, job: _Job, result: _Result) -> None:
        """Rows from an actor."""
        job.seconds += result.seconds
        if len(result.table):
            job.tables.append(result.table)
            job.deaths, job.errors, job.condemned = 0, 0, ''
            self.bar.update(result.table)
            if job.suspect is not None:
                if job.rows >= job.suspect:
                    job.limit = job.suspect = None
            elif job.limit is not None:
                job.limit = job.limit * 2 if job.limit < 1000 else None
        if result.error and not result.is_final:  # a network that fails may work again
            job.errors += 1
            if job.errors <= self.options.retries:
                self.waiting.append(job)
                return
        if result.error or result.is_end:
            self._finish(job, result.error)
            return
        self.waiting.appendleft(job)  # for the same actor, which has it open
        if time.monotonic() - job.saved > self._interval:
            self._save(job)

    def _finish(self, job: _Job, lost: str = '') -> None:
        import pyarrow as pa

        table = pa.concat_tables([self.plan.schema.empty_table(), *job.tables])
        about = job.about(lost)
        if job.shard.kind == 'tar':
            columns = zip(self.plan.keep, self.plan.names, strict=True)
            about['matched'] = [suffix for suffix, name in columns if table[name].null_count < len(table)]
        self.folder.finish(job.shard.name, table, about)
        self.bar.end(job)

    def _save(self, job: _Job) -> None:
        import pyarrow as pa

        if job.rows:
            self.folder.save_partial(job.shard.name, pa.concat_tables(job.tables), job.about())
        job.saved = time.monotonic()

    def _save_manifest(self, complete: bool = False) -> None:
        now = time.monotonic()
        if complete:
            self.plan.enter_unmatched()
        complete = complete and self.folder.is_complete
        self.folder.save_manifest(round(now - self.saved, 1), complete)
        self.saved = now


@dataclass
class _Options:
    shard_rows: int
    actors: int | None
    address: str | None
    retries: int
    gpus: bool | None
    batch: int
    max_pixels: int | None
    progress: bool | None


class _Bar:
    """Images a second and time left. How many images tars and tables hold is estimated by their bytes."""

    def __init__(self, plan: _Plan, folder: Collection, progress: bool | None) -> None:
        from tqdm import tqdm

        entries = [entry for entry in folder.shards.values() if entry['kind'] != 'files']
        self.rows, self.bytes = sum(entry['rows'] for entry in entries), sum(entry['share'] for entry in entries)
        self.files = len(plan.files)
        sources = {**plan.tars, **plan.tables}
        self.left = sum(sources.values()) - sum(entry['share'] for entry in entries if entry['source'] in sources)
        self.done = self.failed = 0  # images of finished shards; rows without a score
        disable = None if progress is None else not progress
        self.bar = tqdm(total=self._total(), unit=' images', disable=disable, file=sys.stderr, smoothing=0.05)

    def begin(self, rows: int) -> None:
        """Rows that an earlier run scored."""
        if not self.bar.disable:
            self.bar.initial += rows  # they do not count for the speed
        self.bar.update(rows)

    def update(self, table: pa.Table) -> None:
        self.failed += table['score'].null_count
        if self.failed:
            self.bar.set_postfix(failed=self.failed, refresh=False)
        self.bar.update(len(table))

    def end(self, job: _Job) -> None:
        """A shard is finished."""
        self.done += job.rows
        if job.shard.kind == 'files':
            self.files -= job.rows
        else:
            self.rows, self.bytes = self.rows + job.rows, self.bytes + job.shard.share
            self.left = max(0, self.left - job.shard.share)
        self.bar.total = self._total()
        self.bar.refresh()

    def _total(self) -> int | None:
        if self.left and not self.bytes:
            return None
        return round(self.done + self.files + (self.left * self.rows / self.bytes if self.left else 0))

    def close(self) -> None:
        self.bar.close()


@contextmanager
def _ray(address: str | None, actors: int | None) -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    os.environ.setdefault('RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO', '0')  # or each start tells of a future version
    options: dict[str, Any] = {'address': address or 'local', 'log_to_driver': False, 'logging_level': logging.ERROR}
    if address is None:
        options |= {'object_store_memory': STORE, 'include_dashboard': False}
        if actors is not None and actors > (os.cpu_count() or 1):
            options['num_cpus'] = actors
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


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options for a process in another folder."""
    prefix = 'local-dir:'
    config = dict(config)
    if config['backbone'].startswith(prefix):
        config['backbone'] = prefix + os.path.abspath(config['backbone'].removeprefix(prefix))
    if os.path.exists(config['pretrained']):
        config['pretrained'] = os.path.abspath(config['pretrained'])
    return config


# --- the actor --------------------------------------------------------------------------------------------------------


class _Result(NamedTuple):
    table: pa.Table
    is_end: bool  # the shard has no more rows
    error: str  # what follows cannot be read
    is_final: bool  # and it is no use to try again
    seconds: float


class _Scorer:
    """An actor: a metric of its own, and the shard that it is at, open at the row where the last call ended."""

    def __init__(
        self,
        config: dict[str, Any],
        fingerprint: str,
        device: str,
        threads: int,
        batch: int,
        cwd: str,
        names: Sequence[str],
        schema: pa.Schema,
        max_pixels: int | None = MAX_PIXELS,
    ) -> None:
        self.config, self.fingerprint, self.device, self.threads = config, fingerprint, device, threads
        self.batch, self.max_pixels, self.names, self.schema = batch, max_pixels, names, schema
        self.at: tuple[str, int, int | None] | None = None
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C and ends its actors
        with suppress(OSError):  # relative paths are the driver's
            os.chdir(cwd)

    def load(self) -> str:
        """Build the metric; -> why it cannot be."""
        import torch

        from ..metric import MACLIP

        torch.set_num_threads(self.threads)
        try:
            self.metric = MACLIP(**self.config).to(self.device)
        except Exception as error:
            return one_line(error)
        if self.metric.fingerprint() != self.fingerprint:
            return 'its weights differ from those of the process that started it'
        return ''

    def score(self, shard: Shard, start: int, stop: int | None, seconds: float, skip: str = '') -> _Result:
        """Rows of a shard.

        Args:
            start, stop: rows; None: to the end
            seconds: return what is there after so many
            skip: not reading the images, but giving them this error
        """
        began = time.monotonic()
        if self.at != (shard.name, start, stop) or skip:
            self._open(shard, start, stop, skip)
        rows, ended = [], True
        for row in self.rows:
            kept = self.kept.popleft()
            rows.append(row | dict(zip(self.names, kept, strict=True)))
            if time.monotonic() - began > seconds:
                ended = False
                break
        self.at = None if ended else (shard.name, start + len(rows), stop)
        error = self.error if ended else None
        if error is not None and shard.is_remote and not isinstance(error, ValueError):
            time.sleep(PAUSE)
        message = '' if error is None else one_line(error)
        try:
            table = to_table(rows, self.schema)
        except Exception as failure:  # columns that are kept, of another type than in the first file
            self.at = None
            return _Result(self.schema.empty_table(), True, one_line(failure), True, time.monotonic() - began)
        is_end = ended and error is None and (stop is None or len(rows) < stop - start)
        return _Result(table, is_end, message, isinstance(error, ValueError), time.monotonic() - began)

    def _open(self, shard: Shard, start: int, stop: int | None, skip: str) -> None:
        from ..scoring.score import score_read

        self.error: Exception | None = None
        self.kept: deque[tuple[Any, ...]] = deque()  # of the images that are read and not yet returned
        images = self._images(shard, start, stop)
        if skip:
            self.rows: Iterator[dict[str, Any]] = ({'path': image.id, 'score': None, 'error': skip} for image in images)
            return
        threads = self.threads if self.device != 'cpu' else 1 if shard.is_remote else 0
        self.rows = score_read(self.metric, _ahead(self._read, images, threads), batch=self.batch)

    def _images(self, shard: Shard, start: int, stop: int | None) -> Iterator[Image]:
        try:
            for image in read_shard(shard, start, stop):
                self.kept.append(image.kept)
                yield image
        except Exception as error:  # the images before it are still to be scored
            self.error = error

    def _read(self, image: Image) -> FileRead:
        from ..scoring.batch import FileRead, read_file

        try:
            if image.error:
                raise ValueError(image.error)
            data = load(image)
        except Exception as error:
            return FileRead(image.id, None, one_line(error))
        path = image.id if isinstance(image.data, bytes) else image.data
        return read_file(path, data, self.metric.backbone.window, self.max_pixels)._replace(path=image.id)


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
        while waiting:
            yield waiting.popleft().result()
