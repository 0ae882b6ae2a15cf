"""Inputs of a collection: found, cut into shards, and read image by image, compressed as they are.

| input | a shard | id of a row |
| --- | --- | --- |
| image files, folders of them, lists | some of the files | the path as found, or the URL |
| Parquet with a column of paths | rows of a file | the path |
| Parquet with a column of bytes, or of {bytes, path} as Hugging Face writes it | row groups of a file | FILE#ROW |
| WebDataset | a tar file | tar://MEMBER::FILE, which fsspec opens |

All are local or URLs that fsspec knows. A shard is plain data, small enough to be sent to another machine, and reading
it can begin at any of its rows.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from .find import SUFFIXES, find_images, is_image
from .tables import escape_text, one_line

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet

__all__ = [
    *('Image', 'Inputs', 'Shard', 'absolute', 'cut_files', 'cut_table', 'find_inputs', 'load', 'read_shard'),
    'shard_name',
]

TARS = ('.tar', '.tar.gz', '.tgz')
TABLES = ('.parquet',)
NAMES = ('image', 'img', 'jpg', 'png', 'bytes', 'path', 'file_name', 'filename', 'file', 'image_path', 'url')


class Inputs(NamedTuple):
    """What was found: paths of image files; Parquet files and tars, each with its size in bytes."""

    files: list[str]
    tables: dict[str, int]
    tars: dict[str, int]


class Image(NamedTuple):
    """An image to be read: compressed `data`, or a path or URL; `kept` of its row; or why there is none."""

    id: str
    data: bytes | str
    kept: tuple[Any, ...] = ()
    error: str = ''


@dataclass(frozen=True)
class Shard:
    """A part of the input that gives one file of scores.

    Args:
        name: name of its file, without suffix
        kind: 'files', 'parquet' or 'tar'
        source: path or URL of its file; '' for `files`
        size: bytes of the source
        share: bytes of it that are this shard's, about
        of: rows of the source; None: not known before it is read
        start, stop: rows of the source; None: to its end
        paths: paths of `files`
        column: column of a Parquet file, that holds the images
        keep: columns of a Parquet file, or suffixes of a tar's members, that travel along
    """

    name: str
    kind: str
    source: str = ''
    size: int = 0
    share: int = 0
    of: int | None = None
    start: int = 0
    stop: int | None = None
    paths: tuple[str, ...] = ()
    column: str = ''
    keep: tuple[str, ...] = ()

    @property
    def rows(self) -> int | None:
        """Number of rows; None: not known before it is read."""
        if self.kind == 'files':
            return len(self.paths)
        return None if self.stop is None else self.stop - self.start

    @property
    def about(self) -> dict[str, Any]:
        """What the metadata of its file says of where its rows are from."""
        entry: dict[str, Any] = {'kind': self.kind, 'source': self.source, 'size': self.size, 'share': self.share}
        if self.stop is not None:
            entry |= {'start': self.start, 'stop': self.stop, 'of': self.of}
        return entry

    @property
    def is_remote(self) -> bool:
        """Whether its images are read from URLs."""
        return _is_url(self.source or self.paths[0])


# --- finding ----------------------------------------------------------------------------------------------------------


def find_inputs(
    inputs: Iterable[str | os.PathLike[str]],
    listing: IO[bytes] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> Inputs:
    """Image files, Parquet files and tars, each once, in the order given.

    Args:
        inputs: files, folders, patterns, URLs of them, or '-' for the paths in `listing`
        listing: see `find_images`
        output: a folder whose files are no input

    Raises:
        FileNotFoundError: nothing there
        ValueError: a folder that holds several kinds of inputs
    """
    found = Inputs([], {}, {})
    for path in [os.fspath(path) for path in inputs]:
        if path == '-':
            found.files.extend(find_images(['-'], listing))
        elif _is_url(path):
            _find_remote(path, found, os.fspath(output) if output is not None else None)
        else:
            _find_local(path, found, os.path.abspath(os.fspath(output)) if output is not None else None)
    if not any(found):
        raise FileNotFoundError(
            'no inputs found; expected image files, Parquet files (.parquet) or WebDataset shards (.tar)'
        )
    return Inputs(list(dict.fromkeys(found.files)), found.tables, found.tars)


def _find_local(path: str, found: Inputs, output: str | None) -> None:
    if os.path.isdir(path):
        _one_kind(path, _walk(path, output), found)
    elif glob.has_magic(path) and not os.path.lexists(path):
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise FileNotFoundError(f'no file matches the pattern {path!r}')
        for match in matches:
            if os.path.isdir(match):
                _find_local(match, found, output)
            elif match.endswith(TABLES + TARS) or is_image(match):
                _sort(match, os.path.getsize(match), found)
    else:
        _sort(path, os.path.getsize(path) if path.endswith(TABLES + TARS) else 0, found)


def _walk(folder: str, output: str | None) -> Inputs:
    found = Inputs([], {}, {})
    with contextlib.suppress(FileNotFoundError):  # no images
        found.files.extend(find_images([folder]))
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        if output is not None and os.path.abspath(parent) == output:
            folders.clear()
            continue
        for name in sorted(files):
            if name.endswith(TABLES + TARS) and not name.startswith('.'):
                _sort(os.path.join(parent, name), os.path.getsize(os.path.join(parent, name)), found)
    return found


def _find_remote(url: str, found: Inputs, output: str | None) -> None:
    import fsspec

    fs, root = fsspec.core.url_to_fs(url)
    if glob.has_magic(root):
        matches = fs.glob(root, detail=True)
        if not matches:
            raise FileNotFoundError(f'no file matches the pattern {url!r}')
        for file, info in sorted(matches.items()):
            known = file.lower().endswith(TABLES + TARS + SUFFIXES) and not os.path.basename(file).startswith('.')
            if info['type'] != 'directory' and known:
                _sort(fs.unstrip_protocol(file), info['size'], found)
    elif fs.isdir(root):
        inside = Inputs([], {}, {})
        own = fs._strip_protocol(output) if output is not None and _is_url(output) else None
        for file, info in sorted(fs.find(root, detail=True).items()):
            hidden = any(part.startswith('.') for part in file[len(root) :].split('/'))
            if own is not None and file.startswith(own.rstrip('/') + '/'):
                continue
            if not hidden and file.lower().endswith(TABLES + TARS + SUFFIXES):
                _sort(fs.unstrip_protocol(file), info['size'], inside)
        _one_kind(url, inside, found)
    else:
        url = url if '::' in url else fs.unstrip_protocol(root)  # one spelling for one file
        _sort(url, fs.size(root) if url.endswith(TABLES + TARS) else 0, found)


def _sort(path: str, size: int, found: Inputs) -> None:
    if path.endswith(TABLES):
        found.tables[path] = size
    elif path.endswith(TARS):
        found.tars[path] = size
    else:
        found.files.append(path)


def _one_kind(folder: str, inside: Inputs, found: Inputs) -> None:
    """A folder of images may hold their table, and one of tars too: guessing would score images twice."""
    kinds = [
        f'{len(of)} {name}' for of, name in zip(inside, ('image files', 'Parquet files', 'tars'), strict=True) if of
    ]
    if len(kinds) > 1:
        raise ValueError(
            f'{folder} holds {" and ".join(kinds)}; expected one kind. Name the files by a pattern, such as '
            f"'{folder.rstrip('/')}/*.tar'"
        )
    found.files.extend(inside.files)
    found.tables.update(inside.tables)
    found.tars.update(inside.tars)


# --- cutting ----------------------------------------------------------------------------------------------------------


def shard_name(source: str) -> str:
    """Name of a source's file of scores: its own, and digits of its absolute path, which keep equal names apart.

    Example:
        >>> shard_name('s3://bucket/train/00000.tar')
        '00000-d865c935'
    """
    base = os.path.basename(source)
    stem = next(base.removesuffix(suffix) for suffix in (*TARS, *TABLES) if base.endswith(suffix))
    digits = hashlib.sha256(absolute(source).encode('utf-8', 'surrogateescape')).hexdigest()[:8]
    return f'{re.sub(r"[^A-Za-z0-9.-]", "-", stem).lstrip(".")}-{digits}'


def absolute(path: str, folder: str | None = None) -> str:
    """A local path as one from the root, relative ones from `folder`; a URL as it is."""
    return path if _is_url(path) else os.path.abspath(os.path.join(folder or '', path))


def cut_files(paths: Sequence[str], rows: int, first: int = 0) -> Iterator[Shard]:
    """Shards of at most `rows` image files, numbered from `first`."""
    for number, start in enumerate(range(0, len(paths), rows), start=first):
        yield Shard(f'files_{number:05d}', 'files', paths=tuple(paths[start : start + rows]))


def cut_table(
    source: str, size: int, rows: int, column: str | None = None, keep: Sequence[str] = ()
) -> tuple[list[Shard], pa.Schema]:
    """Shards of a Parquet file: of `rows` rows if it holds paths, of whole row groups if it holds images.

    Args:
        source: path or URL
        size: bytes
        rows: number of rows of a shard, about
        column: column with the images; None: found by type and name
        keep: columns that travel along

    Returns:
        the shards, and the schema of the columns to keep

    Raises:
        OSError: the file cannot be read
        ValueError: not Parquet, or without such columns
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _open(source) as file:
            metadata = pq.read_metadata(file)
    except pa.ArrowInvalid as error:
        raise ValueError(f'{source} is not a Parquet file: {one_line(error)}') from error
    schema = metadata.schema.to_arrow_schema()
    column = _image_column(source, schema, column)
    missing = [name for name in keep if name not in schema.names]
    if missing:
        raise ValueError(f'{source} has no column {", ".join(missing)}; expected one of {", ".join(schema.names)}')

    edges = [0]
    if _is_text(schema.field(column).type):
        edges += [*range(rows, metadata.num_rows, rows), metadata.num_rows]
    else:
        end = 0
        for group in range(metadata.num_row_groups):
            count = metadata.row_group(group).num_rows
            if end > edges[-1] and end + count - edges[-1] > rows:
                edges.append(end)
            end += count
        edges.append(end)
    name, parts = shard_name(source), len(edges) - 1
    shards = [
        Shard(
            name if parts == 1 else f'{name}-{start:010d}',
            'parquet',
            source,
            size,
            size * (stop - start) // max(1, metadata.num_rows),
            metadata.num_rows,
            start,
            stop,
            column=column,
            keep=tuple(keep),
        )
        for start, stop in itertools.pairwise(edges)
    ]
    return shards, pa.schema([schema.field(name).with_nullable(True).remove_metadata() for name in keep])


def _image_column(source: str, schema: pa.Schema, column: str | None) -> str:
    import pyarrow.types as types

    def holds_image(kind: pa.DataType) -> bool:
        if types.is_struct(kind):
            return 'bytes' in [field.name for field in kind]
        return types.is_binary(kind) or types.is_large_binary(kind)

    known = {field.name: field.type for field in schema}
    if column is not None:
        if column not in known:
            raise ValueError(f'{source} has no column {column!r}; expected one of {", ".join(known)}')
        if not holds_image(known[column]) and not _is_text(known[column]):
            raise ValueError(
                f'{source}: column {column!r} is {known[column]}; expected paths, bytes or {{bytes, path}}'
            )
        return column
    for holds in (holds_image, _is_text):
        candidates = [name for name, kind in known.items() if holds(kind)]
        named = [name for name in NAMES if name in candidates]
        if named or (len(candidates) == 1 and holds is holds_image):
            return (named or candidates)[0]
    raise ValueError(
        f'{source}: no column of images found among {", ".join(known)}; expected bytes, {{bytes, path}}, or paths in a '
        f'column named {" or ".join(NAMES[5:])}. Name it with --column'
    )


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return types.is_string(kind) or types.is_large_string(kind)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_shard(shard: Shard, start: int = 0, stop: int | None = None) -> Iterator[Image]:
    """Images of a shard, in order.

    Args:
        shard: its relative paths are those of this process
        start, stop: rows of the shard; None: to its end

    Raises:
        OSError, ValueError: what follows cannot be read
    """
    if shard.kind == 'files':
        for path in shard.paths[start:stop]:
            yield Image(path, path)
    elif shard.kind == 'parquet':
        end = shard.stop if stop is None else min(shard.start + stop, shard.stop or 0)
        yield from _read_table(shard, shard.start + start, end or 0)
    else:
        yield from _read_tar(shard, start, stop)


def _read_table(shard: Shard, start: int, stop: int) -> Iterator[Image]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _open(shard.source) as file:
        try:
            table = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)  # a row group may not fit in memory
            row, group = 0, 0
            while group < table.num_row_groups and row + table.metadata.row_group(group).num_rows <= start:
                row += table.metadata.row_group(group).num_rows
                group += 1
            is_text = _is_text(table.schema_arrow.field(shard.column).type)
            batches = table.iter_batches(
                1024 if is_text else 32,
                row_groups=list(range(group, table.num_row_groups)),
                columns=[shard.column, *shard.keep],
                use_threads=False,
            )
            for batch in batches:
                if row >= stop:
                    return
                if row + len(batch) > start:
                    skip = max(0, start - row)
                    part = batch.slice(skip, min(len(batch), stop - row) - skip)
                    kept = [part.column(name).to_pylist() for name in shard.keep]
                    for offset, cell in enumerate(part.column(shard.column).to_pylist()):
                        values = tuple(column[offset] for column in kept)
                        yield _cell(cell, f'{shard.source}#{row + skip + offset}', values)
                row += len(batch)
        except pa.ArrowInvalid as error:
            raise ValueError(f'{shard.source} is broken: {one_line(error)}') from error


def _cell(cell: Any, place: str, kept: tuple[Any, ...]) -> Image:
    if isinstance(cell, str):
        return Image(cell, cell, kept)
    if isinstance(cell, dict):  # where there are no bytes, the path is that of a file
        cell = cell['bytes'] or cell.get('path')
    return Image(place, cell, kept) if cell else Image(place, b'', kept, 'no image: the cell is empty')


def _read_tar(shard: Shard, start: int, stop: int | None) -> Iterator[Image]:
    row = 0
    with _open(shard.source) as file:
        mode = 'r:' if shard.source.endswith('.tar') else 'r|*'  # compressed ones cannot be skipped through
        try:
            with tarfile.open(fileobj=file, mode=mode, tarinfo=_Member) as tar:  # type: ignore[call-overload]
                for key, images, others in _samples(tar, shard.keep, start):
                    for member, data in images:
                        if stop is not None and row >= stop:
                            return
                        if row >= start:
                            kept = tuple(key if name == '__key__' else others.get(name) for name in shard.keep)
                            yield Image(f'tar://{member}::{shard.source}', data, kept)
                        row += 1
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise ValueError(f'{shard.source} is cut or broken behind image {row}: {one_line(error)}') from error


def _samples(
    tar: tarfile.TarFile, keep: Sequence[str], start: int
) -> Iterator[tuple[str, list[tuple[str, bytes]], dict[str, str]]]:
    """Consecutive members of one key, as WebDataset groups them: key, images, and other members that are kept.

    Images before the row `start` come without their data.
    """
    key, row = '', 0
    images: list[tuple[str, bytes]] = []
    others: dict[str, str] = {}
    try:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # or they add up
            folder, base = os.path.split(member.name)
            if not member.isfile() or base.startswith('.'):
                continue
            stem, _, suffix = base.partition('.')
            if os.path.join(folder, stem) != key:
                if images:
                    yield key, images, others
                key, images, others = os.path.join(folder, stem), [], {}
            if os.path.splitext(base)[1].lower() in SUFFIXES:
                images.append((member.name, _content(tar, member) if row >= start else b''))
                row += 1
            elif suffix in keep:
                others[suffix] = escape_text(_content(tar, member).decode('utf-8', 'replace'))
    except (tarfile.TarError, EOFError, zlib.error):
        if images:
            yield key, images, others
        raise
    if images:
        yield key, images, others


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    data = b'' if file is None else file.read()
    if len(data) < member.size:
        raise tarfile.ReadError('unexpected end of data')
    return data


class _Member(tarfile.TarInfo):
    """A header. `tarfile` takes a broken one for the end of the archive, and what lies behind it would be missing."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tar)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError, tarfile.EmptyHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f'{error}: no header of a member, and no end of the archive') from error


# --- files ------------------------------------------------------------------------------------------------------------


def _is_url(path: str) -> bool:
    return '://' in path or '::' in path


def _open(path: str) -> IO[bytes]:
    if not _is_url(path):
        return open(path, 'rb')
    import fsspec

    return fsspec.open(path, 'rb').open()


def load(image: Image) -> bytes | None:
    """Content of an image; None: of a local file, which is to be read from its path.

    Raises:
        Exception: whatever a file system raises
    """
    if isinstance(image.data, bytes):
        return image.data
    if not _is_url(image.data):
        return None
    with _open(image.data) as file:
        return file.read()
