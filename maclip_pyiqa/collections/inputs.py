"""Inputs of a collection: found, cut into shards, and read image by image, compressed as they are.

| input | a shard | path of a row |
| --- | --- | --- |
| image files, folders of them, lists | some of the files | the path as found, or the URL |
| Parquet with a column of paths | rows of a file | the path |
| Parquet with a column of bytes, or of {bytes, path} as Hugging Face writes it | row groups of a file | FILE#ROW |
| WebDataset | a tar file, compressed or not | tar://MEMBER::FILE, which fsspec opens |

All are local or URLs that fsspec knows. A shard is plain data, small enough to be sent to another machine.
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
from ..scoring.find import files_below, find_images, is_image, matching, same_file, suffixes, unread
from ..scoring.text import escape_text

if TYPE_CHECKING:
    import pyarrow as pa

    from ..scoring.batch import FileRead

__all__ = [
    *('Image', 'Inputs', 'Shard', 'absolute', 'cut_files', 'cut_table', 'find_inputs', 'plain_column', 'read'),
    *('read_shard', 'shard_name'),
]

# suffixes, which are compared in lower case
TARS = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tbz', '.tar.xz', '.txz')
TABLES = ('.parquet',)
PACKED = TABLES + TARS
NAMES = ('image', 'img', 'jpg', 'png', 'bytes', 'path', 'file_name', 'filename', 'file', 'image_path', 'url')
# by a file's first bytes
COMPRESSED: dict[bytes, Callable[..., Any]] = {b'\x1f\x8b': gzip.open, b'BZh': bz2.open, b'\xfd7zXZ': lzma.open}
BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
HELD = 64_000_000  # bytes of images of one sample that are held, while what belongs to them is looked for
LINKS = 40  # from link to link, as Linux follows them
UNREAD = 'convert them to .jpg or .png; the extra `formats` adds .heic, .heif and .jxl'

logger = logging.getLogger(__name__)


class Inputs(NamedTuple):
    """What was found: paths of image files; paths of Parquet files and of tars, each with its size in bytes."""

    files: list[str]
    tables: dict[str, int]
    tars: dict[str, int]

    def add(self, path: str, size: int) -> None:
        """Add a file to those of its kind, which its suffix tells."""
        if _ends(path, PACKED):
            (self.tables if _ends(path, TABLES) else self.tars)[path] = size
        else:
            self.files.append(path)


class Image(NamedTuple):
    """An image to be read: the path of its row; its compressed content, or a path or URL of it; values of the columns
    to keep; and why it cannot be read, if so."""

    path: str
    data: bytes | str
    kept: tuple[Any, ...] = ()
    error: str = ''


@dataclass(frozen=True)
class Shard:
    """A part of the input that gives one file of scores.

    Attributes:
        name: name of its file, without suffix
        kind: 'files', 'parquet' or 'tar'
        source: path or URL of the file that it is read from; '' for `files`
        size: bytes of the source
        share: bytes of the source that belong to this shard, about; for `files` their number
        of: number of rows of a Parquet file
        start: first row of a Parquet file
        stop: end of the rows of a Parquet file
        paths: paths of `files`
        column: column of a Parquet file that holds the images
        keep: columns of a Parquet file, or suffixes of a tar's members (as 'json' or '.JSON'), that travel along
    """

    name: str
    kind: str
    source: str = ''
    size: int = 0
    share: int = 0
    of: int = 0
    start: int = 0
    stop: int = 0
    paths: tuple[str, ...] = ()
    column: str = ''
    keep: tuple[str, ...] = ()

    @property
    def about(self) -> dict[str, Any]:
        """What the metadata of its file says of where its rows are from."""
        names = ('kind', 'source', 'size', 'share', *(('start', 'stop', 'of') if self.kind == 'parquet' else ()))
        return {name: getattr(self, name) for name in names}

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
        listing: stream of paths, see `find_images`
        output: folder whose files are no input

    Raises:
        FileNotFoundError: nothing there
        ValueError: a folder that holds several kinds of inputs
    """
    found, own = Inputs([], {}, {}), None if output is None else os.fspath(output)
    for path in as_paths(inputs):
        if path == '-':
            found.files.extend(find_images(['-'], listing))
        elif _is_url(path):
            _find_remote(path, found, own)
        else:
            _find_local(path, found, own)
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
        inside = Inputs([], {}, {})
        with contextlib.suppress(FileNotFoundError):  # no images
            inside.files.extend(find_images([path]))
        own = os.path.join(os.path.realpath(output), '') if output else '\0'  # with which no path starts
        for file in files_below(path, []):
            if _ends(file, PACKED) and os.path.isfile(file) and not os.path.realpath(file).startswith(own):
                inside.add(file, os.path.getsize(file))
        _one_kind(path, inside, found)
    elif glob.has_magic(path) and not os.path.lexists(path):
        matches = matching(path)
        for match in matches:
            if os.path.isdir(match):
                _find_local(match, found, output)
            elif _ends(match, PACKED) or is_image(match):
                found.add(match, os.path.getsize(match))
        _warn_of_unread(filter(os.path.isfile, matches))
    else:
        found.add(path, os.path.getsize(path) if _ends(path, PACKED) else 0)


def _find_remote(url: str, found: Inputs, output: str | None) -> None:
    import fsspec

    fs, root = fsspec.core.url_to_fs(url)
    is_pattern = glob.has_magic(root)
    if not is_pattern and not fs.isdir(root):
        url = url if '::' in url else fs.unstrip_protocol(root)  # one spelling for one file
        found.add(url, fs.size(root) if _ends(url, PACKED) else 0)
        return
    files = fs.glob(root, detail=True) if is_pattern else fs.find(root, detail=True)
    if is_pattern and not files:
        raise FileNotFoundError(f'no file matches the pattern {url!r}')
    own = fs._strip_protocol(output).rstrip('/') + '/' if output and _is_url(output) and not is_pattern else '\0'
    known, inside = PACKED + tuple(suffixes()), found if is_pattern else Inputs([], {}, {})
    for file, info in sorted(files.items()):
        parts = (os.path.basename(file) if is_pattern else file[len(root) :]).split('/')
        is_hidden = any(part.startswith('.') for part in parts)
        if info['type'] != 'directory' and _ends(file, known) and not is_hidden and not file.startswith(own):
            inside.add(fs.unstrip_protocol(file), info['size'])
    _warn_of_unread(file for file, info in files.items() if info['type'] != 'directory')
    if not is_pattern:
        _one_kind(url, inside, found)


def _ends(path: str, endings: tuple[str, ...]) -> bool:
    return path.lower().endswith(endings)


def _warn_of_unread(paths: Iterable[str]) -> None:
    """Say which images of a pattern or a remote folder are skipped, as `find_images` does for local folders."""
    known = unread()
    counts = Counter(suffix for path in paths if (suffix := os.path.splitext(path)[1].lower()) in known)
    if counts:
        kinds = ', '.join(f'{count} {suffix}' for suffix, count in sorted(counts.items()))
        logger.warning('left out, image formats that are not read: %s; %s', kinds, UNREAD)


def _one_kind(folder: str, inside: Inputs, found: Inputs) -> None:
    """A folder of images may hold their table, and one of tars too: guessing would score images twice."""
    names = ('image files', 'Parquet files', 'tars')
    kinds = [f'{len(of)} {name}' for of, name in zip(inside, names, strict=True) if of]
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
    name = os.path.basename(source)
    stem = next(name[: -len(suffix)] for suffix in PACKED if _ends(name, (suffix,)))
    digits = hashlib.sha256(absolute(source).encode('utf-8', 'surrogateescape')).hexdigest()[:8]
    return f'{re.sub(r"[^A-Za-z0-9.-]", "-", stem).lstrip(".")}-{digits}'


def absolute(path: str, folder: str = '') -> str:
    """A local path as one from the root, relative ones from `folder`; a URL as it is."""
    return path if _is_url(path) else os.path.abspath(os.path.join(folder, path))


def cut_files(paths: Sequence[str], rows: int, first: int = 0) -> Iterator[Shard]:
    """Shards of at most `rows` image files, numbered from `first`."""
    for number, start in enumerate(range(0, len(paths), rows), start=first):
        part = tuple(paths[start : start + rows])
        yield Shard(f'files_{number:05d}', 'files', share=len(part), paths=part)


def cut_table(
    source: str, size: int, rows: int, column: str | None = None, keep: Sequence[str] = ()
) -> tuple[list[Shard], pa.Schema]:
    """Shards of a Parquet file: of `rows` rows if it holds paths, of whole row groups if it holds images.

    Args:
        source: path or URL
        size: number of bytes
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
    schema, total = metadata.schema.to_arrow_schema(), metadata.num_rows
    column = _image_column(source, schema, column)
    missing = [name for name in keep if name not in schema.names]
    if missing:
        raise ValueError(f'{source} has no column {", ".join(missing)}; expected one of {", ".join(schema.names)}')

    edges = [0]
    if _is_text(_plain(schema.field(column).type)):
        edges += range(rows, total, rows)
    else:
        end = 0
        for group in range(metadata.num_row_groups):
            count = metadata.row_group(group).num_rows
            if end > edges[-1] and end + count - edges[-1] > rows:
                edges.append(end)
            end += count
    name = shard_name(source)
    shards = []
    for start, stop in itertools.pairwise([*edges, total]):
        part = name if len(edges) == 1 else f'{name}-{start:010d}'
        share = size * (stop - start) // max(1, total)
        shards.append(Shard(part, 'parquet', source, size, share, total, start, stop, (), column, tuple(keep)))
    return shards, pa.schema([(name, _plain(schema.field(name).type)) for name in keep])


def _image_column(source: str, schema: pa.Schema, column: str | None) -> str:
    known = {field.name: _plain(field.type) for field in schema}
    if column is not None:
        if column not in known:
            raise ValueError(f'{source} has no column {column!r}; expected one of {", ".join(known)}')
        if not _holds_images(known[column]) and not _is_text(known[column]):
            raise ValueError(
                f'{source}: column {column!r} is {schema.field(column).type}; expected paths, bytes or {{bytes, path}}'
            )
        return column
    images = [name for name, kind in known.items() if _holds_images(kind)]
    texts = [name for name, kind in known.items() if _is_text(kind)]
    # bytes all of one length are digests rather than images
    unnamed = [name for name in images if not str(known[name]).startswith('fixed_size_binary')]
    likely = [name for name in NAMES if name in images] or (unnamed if len(unnamed) == 1 else [])
    likely += [name for name in NAMES if name in texts]
    if not likely:
        raise ValueError(
            f'{source}: no column of images found among {", ".join(known)}; expected bytes, {{bytes, path}}, or paths '
            f'in a column named {" or ".join(NAMES[5:])}. Name it with --column'
        )
    return likely[0]


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


def _is_text(kind: pa.DataType) -> bool:
    return str(kind) in ('string', 'large_string')


def _holds_images(kind: pa.DataType) -> bool:
    """Whether a plain type is bytes, or {bytes, path}."""
    import pyarrow.types as types

    if types.is_struct(kind):
        kinds = [field.type for field in kind if field.name == 'bytes']
        return any(types.is_null(each) or _holds_images(each) for each in kinds)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_shard(shard: Shard) -> Iterator[Image]:
    """Images of a shard, in order; relative paths are those of this process.

    Raises:
        ValueError: what follows is broken
        OSError: what follows cannot be read
    """
    if shard.kind == 'files':
        return (Image(path, path) for path in shard.paths)
    return _read_table(shard) if shard.kind == 'parquet' else _read_tar(shard)


def _read_table(shard: Shard) -> Iterator[Image]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, end = [shard.column, *shard.keep], 0
    with _open(shard.source) as file:
        try:
            table = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)  # a row group may not fit in memory
            kinds = [table.schema_arrow.field(name).type for name in columns]
            rows = 1024 if _is_text(_plain(kinds[0])) else 32
            for group in range(table.num_row_groups):
                first, end = end, end + table.metadata.row_group(group).num_rows
                if end <= shard.start or first >= shard.stop:
                    continue
                if any('extension<' in str(kind) for kind in kinds):  # pyarrow 26 aborts at those of dictionaries
                    batches = table.read_row_group(group, columns, use_threads=False).to_batches(rows)
                else:  # group by group: pyarrow 26 cannot read batches of nested dictionaries across them
                    batches = table.iter_batches(rows, [group], columns, use_threads=False)
                for batch in batches:
                    start, stop = max(first, shard.start), min(first + len(batch), shard.stop)
                    if start < stop:
                        part = batch.slice(start - first, stop - start)
                        cells, *kept = (plain_column(part[name]).to_pylist() for name in columns)
                        for row, cell, *values in zip(range(start, stop), cells, *kept, strict=True):
                            yield _cell(cell, f'{shard.source}#{row}', tuple(values))
                    first += len(batch)
        except pa.ArrowInvalid as error:
            raise ValueError(f'{shard.source} is broken: {one_line(error)}') from error


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
    return Image(place, cell or b'', kept, '' if cell else 'no image: the cell is empty')


def _read_tar(shard: Shard) -> Iterator[Image]:
    wanted = {name: name.removeprefix('.').lower() for name in shard.keep if name != '__key__'}
    row = 0
    with contextlib.ExitStack() as stack:
        targets = _Targets(shard.source, stack)
        try:
            for sample in _samples(_open_tar(shard.source, stack), targets, {*wanted.values()}):
                for name, data, error in sample.images:
                    if isinstance(data, int):
                        data, error = targets.read(data)
                    kept = (sample.other(name, wanted[each]) if each in wanted else sample.key for each in shard.keep)
                    yield Image(f'tar://{name}::{shard.source}', data, tuple(kept), error)
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


def _samples(tar: tarfile.TarFile, targets: _Targets, keep: Collection[str]) -> Iterator[_Sample]:
    """Samples with images; without `keep` each image is a sample."""
    read, known = suffixes(), suffixes() | unread()
    sample, held = _Sample(''), 0
    try:
        for member in _members(tar):
            folder, name = posixpath.split(member.name)
            stem, _, rest = name.partition('.')
            if not (member.isreg() or member.islnk() or member.issym()) or not stem or not rest:
                continue
            key, suffix = posixpath.join(folder, stem), posixpath.splitext(name)[1].lower()
            if key != sample.key or (sample.images and not keep):
                if sample.images:
                    yield sample
                sample, held = _Sample(key), 0
            ends = [end for end in keep if f'.{rest}'.lower().endswith(f'.{end}')]
            if suffix in read:
                data = _content(tar, member) if member.isreg() and held <= HELD else member.offset
                held += len(data) if isinstance(data, bytes) else 0
                sample.images.append((member.name, data, ''))
            elif ends:
                data, error = (_content(tar, member), '') if member.isreg() else targets.read(member.offset)
                text = escape_text(data.decode('utf-8', 'replace'))
                sample.others |= {(rest[: -len(end)].removesuffix('.'), end): text for end in ends if not error}
            elif suffix in known:
                sample.images.append((member.name, b'', f'{suffix} files are not read; {UNREAD}'))
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
    def members(self) -> dict[int, tarfile.TarInfo]:
        """All members by the offset of their header, those behind damage excepted."""
        members = {}
        try:
            for member in _members(self.tar):
                members[member.offset] = member
        except Exception as error:
            if not _is_damage(error):
                raise
        return members

    @cached_property
    def by_path(self) -> dict[str, list[tarfile.TarInfo]]:
        found: dict[str, list[tarfile.TarInfo]] = {}
        for member in self.members.values():
            found.setdefault(_clean(member.name), []).append(member)
        return found

    def read(self, offset: int) -> tuple[bytes, str]:
        """Content of the member at an offset, or of that to which it links; or b'' and why there is none."""
        link = member = self.members[offset]
        about = f'a link to {link.linkname}'
        for _ in range(LINKS):
            if member.isreg():
                break
            if not (member.islnk() or member.issym()):
                return b'', f'{about}, which is not a file; expected a link to an image'
            folder = posixpath.dirname(member.name) if member.issym() else ''
            same = self.by_path.get(_clean(posixpath.join(folder, member.linkname)), [])
            if not same:
                return b'', f'{about}, which is not in the tar; add it, or put the image in place of the link'
            # a hard link leads to what was there before it
            before = [other for other in same if other.offset < member.offset] if member.islnk() else []
            member = (before or same)[-1]
        else:
            return b'', f'{about}, which leads round in a circle; expected a link to an image'
        try:
            return _content(self.tar, member), ''
        except Exception as error:
            if member is link or not _is_damage(error):
                raise
            return b'', f'{about}, which cannot be read: {one_line(error)}'


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


def read(image: Image, window: int, max_pixels: int | None) -> FileRead:
    """The pixels of an image, or why there are none.

    Args:
        image: an image of a shard
        window: side of the metric's windows, pixels; for the flags, see `find_flags`
        max_pixels: largest number of pixels, see `read_image`
    """
    from ..scoring.batch import FileRead, read_file

    path, data, _, error = image
    try:
        if isinstance(data, str) and _is_url(data) and not error:
            with _open(data) as file:
                data = file.read()
    except Exception as failure:  # whatever a file system raises
        error = one_line(failure)
    if error:
        return FileRead(path, None, error)
    name, content = (data, None) if isinstance(data, str) else (path, data)
    return read_file(name, content, window, max_pixels)._replace(path=path)
