"""The folder of a collection's scores, and what of the inputs is not in it yet.

    OUT/NAME.parquet     the rows of a shard, all of them; the file appears whole or not at all
    OUT/_manifest.json   what the scores are computed with; shards, rows, failures

The metadata of a file holds its label, and under SHARD where its rows are from. One process writes.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._files import file_system, is_local, one_line, write_binary
from ..scoring.formats.parquet import read_metadata, to_bytes
from ..scoring.schema import Label, arrow_schema, column, columns, label_difference, now
from ..scoring.source import MANIFEST, read_manifest
from ..scoring.text import unescape_text
from .inputs import Inputs, Shard, absolute, cut_files, cut_table, shard_name

if TYPE_CHECKING:
    import pyarrow as pa

SHARD = 'maclip_pyiqa.shard'  # key of the metadata of Parquet files
SAVE_SECONDS = 60.0  # between two writes of the manifest


class BuildError(RuntimeError):
    """Processes of a run cannot build the metric."""


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
        self.path, self.label, self.saved = os.fspath(path), label, time.monotonic()
        self.fs, self.root = file_system(path)
        self.shards: dict[str, dict[str, Any]] = {}  # finished ones by name, each as the metadata of its file has it
        self.manifest = {'label': label, **json.loads(json.dumps(options)), 'inputs': list(inputs)}
        self.manifest |= {'complete': False, 'updated': now(), 'rows': 0, 'failed': 0}
        self.manifest |= {'shards': self.shards, 'missing': {}, 'unmatched': []}
        self.fs.makedirs(self.root, exist_ok=True)
        self.lock = self._lock() if is_local(self.fs) else None  # object stores have no locks
        try:
            self._continue(options)
        except BaseException:
            self.close()
            raise

    def finish(self, name: str, table: pa.Table, about: Mapping[str, Any]) -> None:
        """Write the rows of a shard, all of them, in place of those of an earlier run."""
        entry = {**about, 'rows': len(table), 'failed': table['score'].null_count}
        write_binary(self.fs, f'{self.root}/{name}.parquet', to_bytes(table, self.label, {SHARD: entry}))
        self._enter(name, entry)
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save_manifest()

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
        return self._schema(min(self.shards)).remove_metadata() if self.shards else None

    def save_manifest(self, ended: bool = False) -> None:
        """Write the manifest; it is complete where the run has `ended` by itself and has read all that was found."""
        lost = self.manifest['missing'] or any(entry['lost'] for entry in self.shards.values())
        self.manifest |= {'updated': now(), 'complete': ended and not lost}
        write_binary(self.fs, f'{self.root}/{MANIFEST}', json.dumps(self.manifest, indent=1).encode())
        self.saved = time.monotonic()

    def close(self) -> None:
        """Let another run write to the folder."""
        if self.lock is not None:
            self.lock.release()

    def _continue(self, options: Mapping[str, Any]) -> None:
        """Check an earlier run's folder, remove what it has written in part, and take over what it finished."""
        self.fs.invalidate_cache()
        files = self.fs.ls(self.root, detail=False)
        tables = sorted(os.path.basename(file)[: -len('.parquet')] for file in files if file.endswith('.parquet'))
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
        changed = [name for name in options if old.get(name) != self.manifest[name]]
        differences = [f'{name} was {old.get(name)!r} and is {self.manifest[name]!r}' for name in changed]
        if old['label']['fingerprint'] != self.label['fingerprint']:
            differences.insert(0, label_difference(old['label'], self.label))
        if differences:
            raise ValueError(
                f'{self.path} holds scores of a run with other weights or options: {"; ".join(differences)}. '
                'Use those that it was written with, or another folder.'
            )
        for file in files:
            if file.endswith('.part'):
                self.fs.rm_file(file)
        for name in tables:  # some are not in the manifest: finished after it was last written
            self._enter(name, old['shards'].get(name) or read_metadata(self._schema(name), SHARD))

    def _schema(self, name: str) -> pa.Schema:
        import pyarrow.parquet as pq

        return pq.read_schema(f'{self.root}/{name}.parquet', filesystem=self.fs)

    def _enter(self, name: str, entry: dict[str, Any]) -> None:
        old = self.shards.get(name, {'rows': 0, 'failed': 0})
        self.shards[name] = entry
        for count in ('rows', 'failed'):
            self.manifest[count] += entry[count] - old[count]

    def _lock(self) -> Any:
        from filelock import FileLock, Timeout

        lock = FileLock(f'{self.root}/_lock', timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise OSError(f'another run is writing to {self.path}; wait for it, or use another folder') from None
        except (OSError, NotImplementedError):  # a file system without locks
            return None
        return lock


class Plan:
    """Shards that are not finished, cut as they are needed, so that the footers of many files are not read at once.

    Raises:
        ValueError: an input has changed since it was scored
    """

    def __init__(
        self, folder: Collection, found: Inputs, attributes: Sequence[str], images: str | None, keep: Sequence[str]
    ) -> None:
        self.folder, self.found, self.images, self.keep = folder, found, images, tuple(keep)
        self.columns = arrow_schema(columns(attributes))
        self.names = [name if column(name).role == 'other' else f'input_{name}' for name in keep]
        self.schema = folder.schema()  # that of the first shard; the kept columns of later ones are converted to it
        done: set[str] = set()  # image files
        sizes = {shard_name(path): size for path, size in found.tables.items()}
        left: dict[tuple[str, int], int] = {}  # rows of Parquet files, by name and size, found without opening them
        for name, entry in folder.shards.items():
            if entry['kind'] == 'files' and found.files:
                done.update(absolute(path, entry['cwd']) for path in folder.paths(name))
            elif entry['kind'] == 'parquet' and not entry['lost']:
                source = re.sub(r'-\d{10}$', '', name), entry['size']
                self._check_size(entry, sizes.get(source[0], entry['size']))
                left[source] = left.get(source, entry['of']) - entry['rows']
        self.files = [path for path in found.files if absolute(path) not in done]
        self.tables = {path: size for path, size in found.tables.items() if left.get((shard_name(path), size)) != 0}
        self.tars = {path: size for path, size in found.tars.items() if not self._has(shard_name(path), size)}

    def left(self) -> int:
        """Bytes of tars and Parquet files that are not finished; an image file counts as one."""
        sources = {**self.tars, **self.tables}
        done = sum(
            entry['share']
            for entry in self.folder.shards.values()
            if entry['source'] in self.tables and not entry['lost']
        )
        return len(self.files) + sum(sources.values()) - done

    def shards(self, files: int, rows: int) -> Iterator[tuple[Shard, pa.Schema]]:
        """The shards, of so many image files or rows of a Parquet file, and the schema of their rows."""
        import pyarrow as pa

        for path, size in self.tables.items():
            try:
                shards, kept = cut_table(path, size, rows, self.images, self.keep)
            except (OSError, ValueError) as error:
                if len(self.tables) == 1 and isinstance(error, ValueError):
                    raise
                self.folder.miss(shard_name(path), path, one_line(error))
                continue
            yield from ((shard, self._schema(kept.types)) for shard in shards if not self._has(shard.name, size))
        for path, size in self.tars.items():
            shard = Shard(shard_name(path), 'tar', path, size, size, keep=self.keep)
            yield shard, self._schema([pa.string()] * len(self.keep))
        taken = [int(name.removeprefix('files_')) for name in self.folder.shards if name.startswith('files_')]
        for shard in cut_files(self.files, files, max(taken, default=-1) + 1):
            yield shard, self._schema([])

    def unmatched(self) -> list[str]:
        """Suffixes of `keep` that no image of the tars has a member with."""
        names = set(map(shard_name, self.found.tars)) if self.keep else set()
        entries = [entry for name, entry in self.folder.shards.items() if name in names and entry['rows']]
        matched = {suffix for entry in entries for suffix in entry['matched']}
        return [suffix for suffix in self.keep if suffix not in matched] if entries else []

    def _schema(self, kept: Sequence[pa.DataType]) -> pa.Schema:
        import pyarrow as pa

        self.schema = self.schema or pa.schema([*self.columns, *zip(self.names, kept, strict=True)])
        return self.schema

    def _has(self, name: str, size: int) -> bool:
        """Whether a shard is finished. One that could not be read to its end is tried again."""
        entry = self.folder.shards.get(name)
        if entry is None or entry['lost']:
            return False
        self._check_size(entry, size)
        return True

    def _check_size(self, entry: Mapping[str, Any], size: int) -> None:
        if entry['size'] != size:
            raise ValueError(
                f'{entry["source"]} had {entry["size"]} bytes when it was scored and has {size} now; expected the same '
                f'file. To score it again, remove {shard_name(entry["source"])}*.parquet from {self.folder.path}.'
            )
