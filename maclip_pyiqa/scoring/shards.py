"""Inputs of a collection: found, cut into shards, and read image by image, compressed as they are.

| input | a shard | id of a row |
| --- | --- | --- |
| image files, folders of them, lists | some of the files | the path as found, or the URL |
| Parquet with a column of paths | rows of a file | the path |
| Parquet with a column of bytes, or of {bytes, path} as Hugging Face writes it | row groups of a file | FILE#ROW |
| WebDataset | a tar file, compressed or not | tar://MEMBER::FILE, which fsspec opens |

All are local or URLs that fsspec knows. A shard is plain data, small enough to be sent to another machine, and reading
it can begin at any of its rows.
"""

from __future__ import annotations

import bz2
import contextlib
import glob
import gzip
import hashlib
import itertools
import logging
import lzma
import os
import posixpath
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from .._files import one_line
from .._lists import as_paths
from .find import files_below, find_images, is_image, matching, same_file, suffixes, unread
from .text import escape_text

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet

__all__ = [
    *('Image', 'Inputs', 'Shard', 'absolute', 'cut_files', 'cut_table', 'find_inputs', 'load', 'plain_column'),
    *('read_shard', 'shard_name'),
]

# suffixes, which are compared in lower case
TARS = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tbz', '.tar.xz', '.txz')
TABLES = ('.parquet',)
NAMES = ('image', 'img', 'jpg', 'png', 'bytes', 'path', 'file_name', 'filename', 'file', 'image_path', 'url')
# by a file's first bytes
COMPRESSED: dict[bytes, Callable[..., Any]] = {b'\x1f\x8b': gzip.open, b'BZh': bz2.open, b'\xfd7zXZ': lzma.open}
BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
HELD = 64_000_000  # bytes of images of one sample that are held, while what belongs to them is looked for
LINKS = 40  # from link to link, as Linux follows them
UNREAD = 'convert them to .jpg or .png; the extra `formats` adds .heic, .heif and .jxl'

logger = logging.getLogger(__name__)


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
        keep: columns of a Parquet file, or suffixes of a tar's members (as 'json' or '.JSON'), that travel along
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
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
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
    for path in as_paths(inputs):
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
    tables, tars = ({path: of[path] for path in _once(of)} for of in (found.tables, found.tars))
    return Inputs(_once(found.files), tables, tars)


def _once(paths: Iterable[str]) -> list[str]:
    """Paths without other paths of the same files."""
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(path if _is_url(path) else same_file(path), path)
    return list(first.values())


def _find_local(path: str, found: Inputs, output: str | None) -> None:
    if os.path.isdir(path):
        _one_kind(path, _walk(path, output), found)
    elif glob.has_magic(path) and not os.path.lexists(path):
        matches = matching(path)
        for match in matches:
            if os.path.isdir(match):
                _find_local(match, found, output)
            elif _ends(match, TABLES + TARS) or is_image(match):
                _sort(match, os.path.getsize(match), found)
        _tell_unread(filter(os.path.isfile, matches))
    else:
        _sort(path, os.path.getsize(path) if _ends(path, TABLES + TARS) else 0, found)


def _walk(folder: str, output: str | None) -> Inputs:
    found = Inputs([], {}, {})
    with contextlib.suppress(FileNotFoundError):  # no images
        found.files.extend(find_images([folder]))
    own = None if output is None else os.path.join(os.path.realpath(output), '')
    for path in files_below(folder, []):
        if _ends(path, TABLES + TARS) and os.path.isfile(path) and not (own and os.path.realpath(path).startswith(own)):
            _sort(path, os.path.getsize(path), found)
    return found


def _find_remote(url: str, found: Inputs, output: str | None) -> None:
    import fsspec

    fs, root = fsspec.core.url_to_fs(url)
    known = TABLES + TARS + tuple(suffixes())
    if glob.has_magic(root):
        matches = fs.glob(root, detail=True)
        if not matches:
            raise FileNotFoundError(f'no file matches the pattern {url!r}')
        for file, info in sorted(matches.items()):
            hidden = os.path.basename(file).startswith('.')
            if info['type'] != 'directory' and _ends(file, known) and not hidden:
                _sort(fs.unstrip_protocol(file), info['size'], found)
        _tell_unread(file for file, info in matches.items() if info['type'] != 'directory')
    elif fs.isdir(root):
        inside = Inputs([], {}, {})
        own = fs._strip_protocol(output) if output is not None and _is_url(output) else None
        files = fs.find(root, detail=True)
        for file, info in sorted(files.items()):
            hidden = any(part.startswith('.') for part in file[len(root) :].split('/'))
            if own is not None and file.startswith(own.rstrip('/') + '/'):
                continue
            if not hidden and _ends(file, known):
                _sort(fs.unstrip_protocol(file), info['size'], inside)
        _tell_unread(files)
        _one_kind(url, inside, found)
    else:
        url = url if '::' in url else fs.unstrip_protocol(root)  # one spelling for one file
        _sort(url, fs.size(root) if _ends(url, TABLES + TARS) else 0, found)


def _ends(path: str, endings: tuple[str, ...]) -> bool:
    return path.lower().endswith(endings)


def _tell_unread(paths: Iterable[str]) -> None:
    """Say which images of a pattern or a remote folder are left out, as `find_images` does for local folders."""
    known = unread()
    counts = Counter(suffix for path in paths if (suffix := os.path.splitext(path)[1].lower()) in known)
    if counts:
        kinds = ', '.join(f'{count} {suffix}' for suffix, count in sorted(counts.items()))
        logger.warning('left out, image formats that are not read: %s; %s', kinds, UNREAD)


def _sort(path: str, size: int, found: Inputs) -> None:
    if _ends(path, TABLES):
        found.tables[path] = size
    elif _ends(path, TARS):
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
    stem = next(base[: -len(suffix)] for suffix in (*TARS, *TABLES) if _ends(base, (suffix,)))
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
    if _is_text(_plain(schema.field(column).type)):
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
    return shards, pa.schema([(name, _plain(schema.field(name).type)) for name in keep])


def _image_column(source: str, schema: pa.Schema, column: str | None) -> str:
    import pyarrow.types as types

    known = {field.name: _plain(field.type) for field in schema}
    if column is not None:
        if column not in known:
            raise ValueError(f'{source} has no column {column!r}; expected one of {", ".join(known)}')
        if not _holds_images(known[column]) and not _is_text(known[column]):
            raise ValueError(
                f'{source}: column {column!r} is {schema.field(column).type}; expected paths, bytes or {{bytes, path}}'
            )
        return column
    for holds in (_holds_images, _is_text):
        candidates = [name for name, kind in known.items() if holds(kind)]
        named = [name for name in NAMES if name in candidates]
        if named:
            return named[0]
        # all of one length are digests rather than images
        likely = [name for name in candidates if not types.is_fixed_size_binary(known[name])]
        if len(likely) == 1 and holds is _holds_images:
            return likely[0]
    raise ValueError(
        f'{source}: no column of images found among {", ".join(known)}; expected bytes, {{bytes, path}}, or paths in a '
        f'column named {" or ".join(NAMES[5:])}. Name it with --column'
    )


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the same values without their encoding, as views or categories, and without extensions."""
    import pyarrow as pa
    import pyarrow.types as types

    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _plain(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    views = {'string_view': pa.string(), 'binary_view': pa.binary()}  # types that pyarrow 15 has no names for
    return views.get(str(kind), kind)


def _extends_dictionary(kind: pa.DataType) -> bool:
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(_extends_dictionary(field.type) for field in kind)
    return isinstance(kind, pa.BaseExtensionType) and types.is_dictionary(kind.storage_type)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return types.is_string(kind) or types.is_large_string(kind)


def _holds_images(kind: pa.DataType) -> bool:
    """Whether a plain type is bytes, or {bytes, path}."""
    import pyarrow.types as types

    if types.is_struct(kind):
        parts = {field.name: field.type for field in kind}
        return 'bytes' in parts and (types.is_null(parts['bytes']) or _holds_images(parts['bytes']))
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


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
            columns = [shard.column, *shard.keep]
            rows = 1024 if _is_text(_plain(table.schema_arrow.field(shard.column).type)) else 32
            for batch in _batches(table, range(group, table.num_row_groups), columns, rows):
                if row >= stop:
                    return
                if row + len(batch) > start:
                    skip = max(0, start - row)
                    part = batch.slice(skip, min(len(batch), stop - row) - skip)
                    kept = [plain_column(part.column(name)).to_pylist() for name in shard.keep]
                    for offset, cell in enumerate(plain_column(part.column(shard.column)).to_pylist()):
                        values = tuple(column[offset] for column in kept)
                        yield _cell(cell, f'{shard.source}#{row + skip + offset}', values)
                row += len(batch)
        except pa.ArrowInvalid as error:
            raise ValueError(f'{shard.source} is broken: {one_line(error)}') from error


def _batches(
    table: pyarrow.parquet.ParquetFile, groups: Iterable[int], columns: list[str], rows: int
) -> Iterator[pa.RecordBatch]:
    # what pyarrow 26 cannot do: batches of nested dictionaries across row groups, and, where it aborts the process,
    # batches of extensions of dictionaries
    whole = any(_extends_dictionary(table.schema_arrow.field(name).type) for name in columns)
    for group in groups:
        if whole:
            yield from table.read_row_group(group, columns, use_threads=False).to_batches(rows)
        else:
            yield from table.iter_batches(rows, [group], columns, use_threads=False)


def plain_column(column: pa.Array) -> pa.Array:
    """A column, or a chunked one, without extension types, whose cells may be anything in Python."""
    import pyarrow as pa

    if 'extension<' not in str(column.type):
        return column
    try:
        return column.cast(_plain(column.type))
    except pa.ArrowNotImplementedError:  # with run-end encoding, for one
        return column


def _cell(cell: Any, place: str, kept: tuple[Any, ...]) -> Image:
    if isinstance(cell, str) and cell:
        return Image(cell, cell, kept)
    if isinstance(cell, dict):  # where there are no bytes, the path is that of a file
        cell = cell['bytes'] or cell.get('path')
    return Image(place, cell, kept) if cell else Image(place, b'', kept, 'no image: the cell is empty')


def _read_tar(shard: Shard, start: int, stop: int | None) -> Iterator[Image]:
    wanted = {name: name.removeprefix('.').lower() for name in shard.keep if name != '__key__'}
    row = 0
    with contextlib.ExitStack() as stack:
        targets = _Targets(shard.source, stack)
        try:
            for sample in _samples(_open_tar(shard.source, stack), targets, {*wanted.values()}, start):
                for name, data, error in sample.images:
                    if stop is not None and row >= stop:
                        return
                    if row >= start:
                        if isinstance(data, int):
                            data, error = targets.read(data)
                        kept = tuple(
                            sample.other(name, wanted[suffix]) if suffix in wanted else sample.key
                            for suffix in shard.keep
                        )
                        yield Image(f'tar://{name}::{shard.source}', data, kept, error)
                    row += 1
        except Exception as error:
            if not _is_damage(error):
                raise
            raise ValueError(f'{shard.source} is cut or broken behind image {row}: {one_line(error)}') from error


@dataclass
class _Sample:
    """Consecutive members of one key, which is their path up to the first dot of the name, as WebDataset groups them.

    Args:
        key: the key
        images: name, content or offset of the header if it is to be read later, and error
        others: members that are kept, by what their name has between key and suffix, and by suffix, lower case
    """

    key: str
    images: list[tuple[str, bytes | int, str]] = field(default_factory=list)
    others: dict[tuple[str, str], str] = field(default_factory=dict)

    def other(self, image: str, suffix: str) -> str | None:
        """The member that belongs to an image: '1.5 zoom.json' to '1.5 zoom.jpg', else '1.json'."""
        stem = posixpath.basename(image).partition('.')[2].rpartition('.')[0]
        return self.others.get((stem, suffix), self.others.get(('', suffix)))


def _samples(tar: tarfile.TarFile, targets: _Targets, keep: Collection[str], start: int) -> Iterator[_Sample]:
    """Samples with images. Images before the row `start` come without content; without `keep` each comes alone."""
    read, known = suffixes(), suffixes() | unread()
    sample, row, held = _Sample(''), 0, 0
    try:
        for member in _members(tar):
            folder, base = posixpath.split(member.name)
            stem, _, rest = base.partition('.')
            if not (member.isreg() or member.islnk() or member.issym()) or not stem or not rest:
                continue
            key, suffix = posixpath.join(folder, stem), posixpath.splitext(base)[1].lower()
            if key != sample.key or (sample.images and not keep):
                if sample.images:
                    yield sample
                sample, held = _Sample(key), 0
            if suffix in read:
                data: bytes | int = b''
                if row >= start and (not member.isreg() or held > HELD):
                    data = member.offset
                elif row >= start:
                    data = _content(tar, member)
                    held += len(data)
                sample.images.append((member.name, data, ''))
                row += 1
                continue
            ends = [end for end in keep if f'.{rest}'.lower().endswith(f'.{end}')]
            if ends:
                data, error = (_content(tar, member), '') if member.isreg() else targets.read(member.offset)
                text = escape_text(data.decode('utf-8', 'replace'))
                sample.others |= {(rest[: -len(end)].removesuffix('.'), end): text for end in ends if not error}
            elif suffix in known:
                sample.images.append((member.name, b'', f'{suffix} files are not read; {UNREAD}'))
                row += 1
    except Exception as error:
        if sample.images and _is_damage(error):
            yield sample
        raise
    if sample.images:
        yield sample


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # or they add up
        yield member


def _is_damage(error: Exception) -> bool:
    """Whether an exception tells of a broken tar, and not of a network, which may work again."""
    return isinstance(error, BROKEN) or str(error) == 'Invalid data stream'  # bz2's, an OSError


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    data = b'' if file is None else file.read()
    if len(data) < member.size:
        raise tarfile.ReadError('unexpected end of data')
    return data


class _Targets:
    """Members of a tar out of their order: what links lead to, and images of a sample too large to be held.

    The tar is opened once more for them. A compressed one is decompressed on from the last of them, or from its start.

    Args:
        source: path or URL of the tar
        stack: what closes it
    """

    def __init__(self, source: str, stack: contextlib.ExitStack) -> None:
        self.source, self.stack = source, stack

    @cached_property
    def tar(self) -> tarfile.TarFile:
        return _open_tar(self.source, self.stack)

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Offsets of the headers of all members by path, those behind damage excepted."""
        places: dict[str, list[int]] = {}
        with contextlib.ExitStack() as stack:
            try:
                for member in _members(_open_tar(self.source, stack)):
                    places.setdefault(_clean(member.name), []).append(member.offset)
            except Exception as error:
                if not _is_damage(error):
                    raise
        return places

    def read(self, offset: int) -> tuple[bytes, str]:
        """Content of the member at an offset, or of that to which it links; or b'' and why there is none."""
        link = member = self._member(offset)
        if not (link.islnk() or link.issym()):
            return _content(self.tar, link), ''
        about = f'a link to {link.linkname}'
        try:
            for _ in range(LINKS):
                if member.isreg():
                    return _content(self.tar, member), ''
                if not (member.islnk() or member.issym()):
                    return b'', f'{about}, which is not a file; expected a link to an image'
                member = self._member(self._target(member))
        except KeyError:
            return b'', f'{about}, which is not in the tar; add it, or put the image in place of the link'
        except Exception as error:
            if not _is_damage(error):
                raise
            return b'', f'{about}, which cannot be read: {one_line(error)}'
        return b'', f'{about}, which leads round in a circle; expected a link to an image'

    def _member(self, offset: int) -> tarfile.TarInfo:
        self.tar.fileobj.seek(offset)  # type: ignore[union-attr]
        return _Member.fromtarfile(self.tar)

    def _target(self, link: tarfile.TarInfo) -> int:
        """Offset of the header to which a link leads; a hard link to what was there before it."""
        if link.issym():
            return self.places[_clean(posixpath.join(posixpath.dirname(link.name), link.linkname))][-1]
        places = self.places[_clean(link.linkname)]
        return ([place for place in places if place < link.offset] or places)[-1]


def _clean(path: str) -> str:
    return posixpath.normpath(path).lstrip('/')


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


def _open_tar(source: str, stack: contextlib.ExitStack) -> tarfile.TarFile:
    """Open a tar until `stack` is closed, whatever its compression is, which its name need not tell."""
    file = stack.enter_context(_open(source))
    start = file.read(6)
    try:
        file.seek(0)
    except (OSError, ValueError):  # a stream that goes forward only
        file = stack.enter_context(_open(source))
    for magic, decompress in COMPRESSED.items():
        if start.startswith(magic):
            file = stack.enter_context(decompress(file))
    return stack.enter_context(tarfile.open(fileobj=file, mode='r:', tarinfo=_Member))


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
