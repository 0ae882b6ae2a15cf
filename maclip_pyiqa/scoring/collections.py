"""Scores of a collection: a folder of Parquet files, one for each shard of the input, and how it is written and read.

    OUT/NAME.parquet            the rows of a shard, all of them; the file appears whole or not at all
    OUT/_manifest.json          what the scores are computed with; shards, rows, failures, times
    OUT/_partial/NAME.parquet   the first rows of a shard that is not finished

Columns: `id`; `score`, `q_sim`, `q_mag`, `w_sim` and `attribute_NAME` of each attribute, float32; `width` and `height`,
pixels; `flags`, words joined by spaces; `error`, empty where nothing failed; and the input's columns that were to be
kept. Text that is not valid UTF-8 is escaped as in tables.py.

The schema's metadata holds JSON under two keys: `maclip_pyiqa`, the label (see `tables.label`) with `date` and
`versions`; `maclip_pyiqa.shard`, where the rows are from and how many there are.

Folders are local or any that fsspec knows, such as s3://bucket/scores. Nothing here knows Ray.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._files import replacing
from .._lazy import need
from ..metric.prompts import summary_columns
from .schema import Label, label_difference
from .text import escape_text

if TYPE_CHECKING:
    import fsspec
    import pyarrow as pa
    import pyarrow.dataset

__all__ = ['MANIFEST', 'Collection', 'is_collection', 'open_collection', 'output_schema', 'read_manifest']

MANIFEST = '_manifest.json'
LABEL, SHARD = b'maclip_pyiqa', b'maclip_pyiqa.shard'  # keys of the schema's metadata


def output_schema(attributes: Iterable[str], kept: pa.Schema | None = None) -> pa.Schema:
    """Schema of the files, without metadata.

    Args:
        attributes: names of the metric's attributes, `MACLIP.attribute_names`
        kept: columns of the input that travel along, by the names that they have in the output

    Example:
        >>> output_schema(['sharp']).names
        ['id', 'score', 'q_sim', 'q_mag', 'w_sim', 'attribute_sharp', 'width', 'height', 'flags', 'error']
    """
    import pyarrow as pa

    return pa.schema(
        [
            pa.field('id', pa.string(), nullable=False),
            *((name, pa.float32()) for name in summary_columns(tuple(attributes))),
            ('width', pa.int32()),
            ('height', pa.int32()),
            ('flags', pa.string()),
            pa.field('error', pa.string(), nullable=False),
            *(kept or ()),
        ]
    )


def to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows of `score_files` as a table; their key `path` is the column `id`."""
    import pyarrow as pa

    cells = {name: [row.get(name) for row in rows] for name in schema.names}
    cells['id'] = [escape_text(row['path']) for row in rows]
    cells['error'] = [escape_text(row['error']) for row in rows]
    return pa.table(cells, schema=schema)


# --- writing ----------------------------------------------------------------------------------------------------------


class Collection:
    """The folder of a run, locked for it. One process writes it; a rerun continues it.

    Args:
        path: path of the folder, local or a URL; created if it does not exist
        label: label of the metric, see `tables.label`
        options: options that a rerun must repeat, since rows would be doubled or differ otherwise; plain data
        inputs: inputs as given, for the manifest

    Raises:
        ValueError: the folder holds scores of other weights or options, or other files; the message says what differs
        OSError: the folder cannot be written, or another run is writing to it
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        label: Label,
        options: Mapping[str, Any],
        inputs: Sequence[str] = (),
    ) -> None:
        self.path = os.fspath(path)
        self.fs, self.root = _folder(path)
        self.is_local = 'file' in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))
        now = _now()
        self.label = label
        self.manifest: dict[str, Any] = {
            'label': self.label,
            **json.loads(json.dumps(options)),
            'inputs': list(inputs),
            'complete': False,
            'rows': 0,
            'failed': 0,
            'started': now,
            'updated': now,
            'seconds': 0.0,
            'shards': {},
            'missing': {},
            'unmatched': [],
        }
        self.fs.makedirs(self.root, exist_ok=True)
        self._lock()
        try:
            self._continue(options)
        except BaseException:
            self.close()
            raise

    @property
    def shards(self) -> dict[str, dict[str, Any]]:
        """Finished shards by name, each with `kind`, `source`, `rows`, `failed`, `seconds` and `lost`."""
        return self.manifest['shards']

    def partial(self, name: str) -> pa.Table | None:
        """The first rows of a shard, or those of one that was finished before its end, which an earlier run left."""
        import pyarrow.parquet as pq

        path = f'{self.root}/{name}.parquet' if name in self.shards else self._partial(name)
        try:
            return pq.read_table(io.BytesIO(self.fs.cat_file(path)))
        except FileNotFoundError:
            return None

    def save_partial(self, name: str, table: pa.Table, about: Mapping[str, Any]) -> None:
        """Keep the first rows of a shard, in place of fewer of them."""
        if not self.partials:
            self.fs.makedirs(f'{self.root}/_partial', exist_ok=True)
        self.partials.add(name)
        self._put(self._partial(name), self._bytes(table, about))

    def finish(self, name: str, table: pa.Table, about: Mapping[str, Any]) -> None:
        """Write the rows of a shard, all of them."""
        entry = {**about, 'rows': len(table), 'failed': table['score'].null_count}
        self._put(f'{self.root}/{name}.parquet', self._bytes(table, entry))
        self._enter(name, entry)
        self.manifest['missing'].pop(name, None)
        if name in self.partials:
            self.fs.rm_file(self._partial(name))
            self.partials.remove(name)

    def finish_partial(self, name: str) -> None:
        """Make the first rows of a shard all that there are in it."""
        table = self.partial(name)
        if table is not None:
            self.finish(name, table, json.loads(table.schema.metadata[SHARD]))

    def ids(self, name: str) -> list[str]:
        """Ids of the rows of a finished shard."""
        import pyarrow.parquet as pq

        with self.fs.open(f'{self.root}/{name}.parquet', 'rb') as file:
            return pq.read_table(file, columns=['id'])['id'].to_pylist()

    def schema(self) -> pa.Schema | None:
        """Schema of the finished shards; None: there is none yet."""
        import pyarrow.parquet as pq

        for name in sorted(self.shards):
            with self.fs.open(f'{self.root}/{name}.parquet', 'rb') as file:
                return pq.read_schema(file).remove_metadata()
        return None

    @property
    def is_complete(self) -> bool:
        """Whether all was read that was found."""
        return not self.manifest['missing'] and not any(entry['lost'] for entry in self.shards.values())

    def save_manifest(self, seconds: float = 0.0, complete: bool = False) -> None:
        """Write the manifest.

        Args:
            seconds: seconds of this run since the last call
            complete: all shards of the run are finished, see `is_complete`
        """
        self.manifest |= {'updated': _now(), 'complete': complete, 'seconds': self.manifest['seconds'] + seconds}
        self._put(f'{self.root}/{MANIFEST}', json.dumps(self.manifest, indent=1).encode())

    def close(self) -> None:
        """Let another run write to the folder."""
        if self.lock is not None:
            self.lock.close()

    def _continue(self, options: Mapping[str, Any]) -> None:
        """Check an earlier run's folder, sweep what its killed attempts left, and take over what it finished."""
        import pyarrow.parquet as pq

        try:
            old = read_manifest(self.path)
        except FileNotFoundError:
            if _tables(self.fs, self.root):
                raise ValueError(
                    f'{self.path} holds Parquet files but no {MANIFEST}; expected an empty or new folder, or one that '
                    'such a run wrote'
                ) from None
            old = None
        if old is not None:
            self._check(old, options)
            for name in ('started', 'seconds', 'missing'):
                self.manifest[name] = old[name]
        for folder in (self.root, f'{self.root}/_partial'):
            for file in self.fs.ls(folder, detail=False) if self.fs.exists(folder) else ():
                if file.endswith('.part'):
                    self.fs.rm_file(file)
        for name, file in sorted(_tables(self.fs, self.root).items()):
            if old is not None and name in old['shards']:
                self._enter(name, old['shards'][name])
            else:  # finished after the manifest was last written
                with self.fs.open(file, 'rb') as stream:
                    self._enter(name, json.loads(pq.read_schema(stream).metadata[SHARD]))
        self.partials = set(_tables(self.fs, f'{self.root}/_partial'))
        for name in self.partials & set(self.shards):
            self.fs.rm_file(self._partial(name))
        self.partials -= set(self.shards)
        if old is None:
            self.save_manifest()

    def _check(self, old: dict[str, Any], options: Mapping[str, Any]) -> None:
        differences = []
        if old['label']['fingerprint'] != self.label['fingerprint']:
            differences.append(label_difference(old['label'], self.label))
        differences += [
            f'{name} was {old.get(name)!r} and is {self.manifest[name]!r}'
            for name in options
            if old.get(name) != self.manifest[name]
        ]
        if differences:
            raise ValueError(
                f'{self.path} holds scores of a run with other weights or options: {"; ".join(differences)}. '
                'Use those that it was written with, or another folder.'
            )

    def _enter(self, name: str, entry: dict[str, Any]) -> None:
        old = self.shards.get(name, {'rows': 0, 'failed': 0})
        self.shards[name] = entry
        for count in ('rows', 'failed'):
            self.manifest[count] += entry[count] - old[count]

    def _bytes(self, table: pa.Table, about: Mapping[str, Any]) -> bytes:
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        metadata = {LABEL: json.dumps(self.label), SHARD: json.dumps(about)}
        pq.write_table(table.replace_schema_metadata(metadata), buffer)
        return buffer.getvalue()

    def _partial(self, name: str) -> str:
        return f'{self.root}/_partial/{name}.parquet'

    def _put(self, path: str, data: bytes) -> None:
        """Whole or not at all: renamed on a file system, one put on an object store."""
        if not self.is_local:
            self.fs.pipe_file(path, data)
            return
        with replacing(path) as part, open(part, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _lock(self) -> None:
        """Local folders only: object stores have no locks."""
        self.lock = None
        if self.is_local and sys.platform != 'win32':
            import fcntl

            self.lock = open(f'{self.root}/_lock', 'w')  # noqa: SIM115 - held until `close`, or the end of the process
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.lock.close()
                raise OSError(f'another run is writing to {self.path}; wait for it, or use another folder') from None
            except OSError:  # a file system without locks
                self.lock.close()
                self.lock = None


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')


# --- reading ----------------------------------------------------------------------------------------------------------


def is_collection(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds the scores of a collection, finished or not."""
    fs, root = _folder(path)
    return fs.exists(f'{root}/{MANIFEST}')


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a collection.

    Returns:
        `label`; `inputs`, `keep`, `shard_rows`; `complete`, whether all shards of the last run are there; `rows`,
        `failed` (rows without a score); `started`, `updated`, `seconds` of all runs; `shards`, each with `source`,
        `rows`, `failed`, `seconds` and `lost`, which says what could not be read behind its rows; `missing`, shards
        that gave no file, each with its `error`; `unmatched`, suffixes of `keep` that no image of the last run's tars
        has a member with

    Raises:
        FileNotFoundError: not a collection
        ValueError: the manifest cannot be read
    """
    fs, root = _folder(path)
    try:
        return json.loads(fs.cat_file(f'{root}/{MANIFEST}'))
    except FileNotFoundError:
        raise FileNotFoundError(
            f'{os.fspath(path)} holds no {MANIFEST}; expected a folder that `maclip-pyiqa score --engine ray` wrote'
        ) from None
    except ValueError as error:
        raise ValueError(f'{os.fspath(path)}/{MANIFEST} is not JSON: {error}') from error


def open_collection(path: str | os.PathLike[str]) -> pyarrow.dataset.Dataset:
    """The rows of a collection as a dataset of pyarrow, which filters and streams without loading it whole.

    Rows of shards that are not finished are not in it.

    Args:
        path: path of the folder, local or a URL

    Returns:
        a dataset; `schema.metadata[b'maclip_pyiqa']` is its label, JSON

    Raises:
        FileNotFoundError: not a collection, or no shard is finished
        ModuleNotFoundError: pyarrow is not installed

    Example::

        import pyarrow.dataset as ds

        best = open_collection('scores').to_table(columns=['id', 'score'], filter=ds.field('score') >= 0.6)
    """
    need('reading a collection', 'pyarrow', extra='parquet')
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    fs, root = _folder(path)
    if not fs.exists(f'{root}/{MANIFEST}'):
        read_manifest(path)  # raises
    files = sorted(_tables(fs, root).values())
    if not files:
        raise FileNotFoundError(f'{os.fspath(path)} has no finished shard yet; rerun the command that writes it')
    with fs.open(files[0], 'rb') as file:
        schema = pq.read_schema(file)
    schema = schema.with_metadata({LABEL: schema.metadata[LABEL]})
    return ds.dataset(files, schema=schema, format='parquet', filesystem=fs)


def _folder(path: str | os.PathLike[str]) -> tuple[fsspec.AbstractFileSystem, str]:
    import fsspec

    fs, root = fsspec.core.url_to_fs(os.fspath(path))
    return fs, root.rstrip('/')


def _tables(fs: fsspec.AbstractFileSystem, folder: str) -> dict[str, str]:
    """Parquet files directly in a folder: names without suffix -> paths."""
    fs.invalidate_cache()
    try:
        files = fs.ls(folder, detail=False)
    except FileNotFoundError:
        return {}
    names = {os.path.basename(file): file for file in files}
    return {name.removesuffix('.parquet'): file for name, file in names.items() if name.endswith('.parquet')}
