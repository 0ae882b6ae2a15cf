"""The folder of a collection's scores, and what of the inputs is not in it yet.

    OUT/NAME.parquet     the rows of a shard, all of them; the file appears whole or not at all
    OUT/_manifest.json   what the scores are computed with; shards, rows, failures

Columns are those of `scoring.schema` with all details, and the input's columns that were to be kept. The metadata of a
file holds its label, and under SHARD where its rows are from. Folders are local or any that fsspec knows, such as
s3://bucket/scores. One process writes; nothing here knows Ray.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._files import one_line, replacing
from ..scoring.formats.parquet import read_metadata, to_bytes
from ..scoring.schema import Label, arrow_schema, column, columns, label_difference, now
from ..scoring.source import MANIFEST
from ..scoring.text import unescape_text
from .inputs import Inputs, Shard, absolute, cut_files, cut_table, shard_name

if TYPE_CHECKING:
    import fsspec
    import pyarrow as pa

__all__ = ['SHARD', 'Collection', 'Plan', 'read_manifest']

SHARD = 'maclip_pyiqa.shard'  # key of the metadata of Parquet files


class Collection:
    """The folder of a run, locked for it; a rerun continues it.

    Args:
        path: path of the folder, local or a URL; created if it does not exist
        label: label of the metric
        options: options that a rerun must repeat, since rows would be doubled or differ otherwise; plain data
        inputs: inputs as given, for the manifest

    Raises:
        ValueError: the folder holds scores of other weights or options, or other files; the message says what differs
        OSError: the folder cannot be written, or another run is writing to it
    """

    def __init__(
        self, path: str | os.PathLike[str], label: Label, options: Mapping[str, Any], inputs: Sequence[str] = ()
    ) -> None:
        self.path, self.label = os.fspath(path), label
        self.fs, self.root = _folder(path)
        self.is_local = 'file' in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))
        self.manifest: dict[str, Any] = {
            'label': label,
            **json.loads(json.dumps(options)),
            'inputs': list(inputs),
            **{'complete': False, 'updated': now(), 'rows': 0, 'failed': 0},
            **{'shards': {}, 'missing': {}, 'unmatched': []},
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

    def finish(self, name: str, table: pa.Table, about: Mapping[str, Any]) -> None:
        """Write the rows of a shard, all of them, in place of those of an earlier run."""
        entry = {**about, 'rows': len(table), 'failed': table['score'].null_count}
        self._put(f'{self.root}/{name}.parquet', to_bytes(table, self.label, {SHARD: entry}))
        self._enter(name, entry)

    def miss(self, name: str, source: str, error: str) -> None:
        """Enter a shard that gave no rows, and why."""
        self.manifest['missing'][name] = {'source': source, 'error': error}

    def paths(self, name: str) -> list[str]:
        """Paths of the rows of a finished shard."""
        import pyarrow.parquet as pq

        with self.fs.open(f'{self.root}/{name}.parquet', 'rb') as file:
            return list(map(unescape_text, pq.read_table(file, columns=['path'])['path'].to_pylist()))

    def schema(self) -> pa.Schema | None:
        """Schema of the finished shards; None: there is none yet."""
        import pyarrow.parquet as pq

        for name in sorted(self.shards):
            with self.fs.open(f'{self.root}/{name}.parquet', 'rb') as file:
                return pq.read_schema(file).remove_metadata()
        return None

    def save_manifest(self, ended: bool = False) -> None:
        """Write the manifest.

        Args:
            ended: whether the run has ended by itself; it is complete then if all was read that was found
        """
        lost = self.manifest['missing'] or any(entry['lost'] for entry in self.shards.values())
        self.manifest |= {'updated': now(), 'complete': ended and not lost}
        self._put(f'{self.root}/{MANIFEST}', json.dumps(self.manifest, indent=1).encode())

    def close(self) -> None:
        """Let another run write to the folder."""
        if self.lock is not None:
            self.lock.close()

    def _continue(self, options: Mapping[str, Any]) -> None:
        """Check an earlier run's folder, remove what it has written in part, and take over what it finished."""
        import pyarrow.parquet as pq

        self.fs.invalidate_cache()
        files = self.fs.ls(self.root, detail=False)
        tables = {os.path.basename(file).removesuffix('.parquet'): file for file in files if file.endswith('.parquet')}
        try:
            old = read_manifest(self.path)
        except FileNotFoundError:
            if tables:
                raise ValueError(
                    f'{self.path} holds Parquet files but no {MANIFEST}; expected an empty or new folder, or one that '
                    'such a run wrote'
                ) from None
            self.save_manifest()
            old = self.manifest
        self._check(old, options)
        for file in files:
            if file.endswith('.part'):
                self.fs.rm_file(file)
        for name, file in sorted(tables.items()):
            if name in old['shards']:
                self._enter(name, old['shards'][name])
            else:  # finished after the manifest was last written
                with self.fs.open(file, 'rb') as stream:
                    self._enter(name, read_metadata(pq.read_schema(stream), SHARD))

    def _check(self, old: dict[str, Any], options: Mapping[str, Any]) -> None:
        differences = []
        if old['label']['fingerprint'] != self.label['fingerprint']:
            differences.append(label_difference(old['label'], self.label))
        for name in options:
            if old.get(name) != self.manifest[name]:
                differences.append(f'{name} was {old.get(name)!r} and is {self.manifest[name]!r}')
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


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a collection.

    Returns:
        `label`; `inputs`, `column`, `keep`, `shard_rows`; `complete`, whether all that the last run found is scored;
        `updated`; `rows`, `failed` (rows without a score); `shards`, each with `source`, `rows`, `failed`, `seconds`
        and `lost`, which says what could not be read behind its rows; `missing`, shards that gave no file, each with
        its `error`; `unmatched`, suffixes of `keep` that no image of the last run's tars has a member with

    Raises:
        FileNotFoundError: not a collection
        ValueError: the manifest cannot be read
    """
    fs, root = _folder(path)
    try:
        return json.loads(fs.cat_file(f'{root}/{MANIFEST}'))
    except FileNotFoundError:
        raise FileNotFoundError(
            f'{os.fspath(path)} holds no {MANIFEST}; expected a folder that `maclip-pyiqa score-collection` wrote'
        ) from None
    except ValueError as error:
        raise ValueError(f'{os.fspath(path)}/{MANIFEST} is not JSON: {error}') from error


def _folder(path: str | os.PathLike[str]) -> tuple[fsspec.AbstractFileSystem, str]:
    import fsspec

    fs, root = fsspec.core.url_to_fs(os.fspath(path))
    return fs, root.rstrip('/')


# --- what is to be done -----------------------------------------------------------------------------------------------


class Plan:
    """Shards that are not finished, cut as they are needed, so that the footers of many files are not read at once.

    Args:
        folder: folder of the run
        found: inputs
        attributes: names of the metric's attributes, `MACLIP.attribute_names`
        images: column of Parquet files that holds the images; None: found by type and name
        keep: columns of Parquet files, or suffixes of a tar's members, that travel along

    Raises:
        ValueError: an input has changed since it was scored
    """

    def __init__(
        self, folder: Collection, found: Inputs, attributes: Sequence[str], images: str | None, keep: Sequence[str]
    ) -> None:
        self.folder, self.found, self.images, self.keep = folder, found, images, tuple(keep)
        self.own = columns(attributes)
        self.names = [name if column(name).role == 'other' else f'input_{name}' for name in keep]
        self.files = self._new_files()
        self.tars = {path: size for path, size in found.tars.items() if not self._has(shard_name(path), size)}
        self.tables = self._unfinished_tables()
        self.schema = folder.schema()  # that of the first shard; the kept columns of later ones are converted to it

    def __bool__(self) -> bool:
        return bool(self.files or self.tars or self.tables)

    def shards(self, files: int, rows: int) -> Iterator[tuple[Shard, pa.Schema]]:
        """The shards, and the schema of their rows.

        Args:
            files: number of files of a shard of image files
            rows: number of rows of a shard of a Parquet file
        """
        import pyarrow as pa

        for path, size in self.tables.items():
            try:
                shards, kept = cut_table(path, size, rows, self.images, self.keep)
            except (OSError, ValueError) as error:
                if len(self.tables) == 1 and isinstance(error, ValueError):
                    raise
                self.folder.miss(shard_name(path), path, one_line(error))
                continue
            types = dict(zip(self.names, kept.types, strict=True))
            yield from ((shard, self._schema(types)) for shard in shards if not self._has(shard.name, size))
        for path, size in self.tars.items():
            shard = Shard(shard_name(path), 'tar', path, size, size, keep=self.keep)
            yield shard, self._schema(dict.fromkeys(self.names, pa.string()))
        taken = [int(name.removeprefix('files_')) for name in self.folder.shards if name.startswith('files_')]
        for shard in cut_files(self.files, files, max(taken, default=-1) + 1):
            yield shard, self._schema({})

    def progress(self) -> tuple[int, int]:
        """Bytes of tars and tables that are finished, and all of them; an image file counts as one."""
        sources = {**self.tars, **self.tables}
        done = sum(entry['share'] for entry in self.folder.shards.values() if entry['source'] in sources)
        return done, sum(sources.values()) + len(self.files)

    def unmatched(self) -> list[str]:
        """Suffixes of `keep` that no image of the tars has a member with."""
        names = set(map(shard_name, self.found.tars)) if self.keep else set()
        entries = [entry for name, entry in self.folder.shards.items() if name in names and entry['rows']]
        matched = {name for entry in entries for name in entry['matched']}
        return [name for name in self.keep if entries and name not in matched]

    def _schema(self, types: Mapping[str, pa.DataType]) -> pa.Schema:
        if self.schema is None:
            self.schema = arrow_schema([*self.own, *self.names], types)
        return self.schema

    def _new_files(self) -> list[str]:
        """Image files that no finished shard has."""
        if not self.found.files:
            return []
        done = {
            absolute(path, entry['cwd'])
            for name, entry in self.folder.shards.items()
            if entry['kind'] == 'files'
            for path in self.folder.paths(name)
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
        left: dict[tuple[str, int], int] = {}  # rows by name and size
        for name, entry in self.folder.shards.items():
            if entry['kind'] == 'parquet' and not entry['lost']:
                source = re.sub(r'-\d{10}$', '', name), entry['size']
                left[source] = left.get(source, entry['of']) - entry['rows']
        return {path: size for path, size in self.found.tables.items() if left.get((shard_name(path), size)) != 0}
