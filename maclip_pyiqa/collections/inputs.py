"""Inputs of a collection: found, cut into shards, and read image by image, compressed as they are.

A shard is some image files, rows or row groups of a Parquet file, or a tar, local or at URLs that fsspec knows. It is
plain data, small enough to be sent to another machine.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from .._files import file_size, file_system, is_url, one_line, open_binary
from .._lists import as_paths
from .._tars import open_tar, read_member
from ..scoring.find import find_images, find_urls, same_file, suffixes, unread
from ..scoring.formats.arrow import image_column, is_text, plain_column, plain_type
from ..scoring.text import escape_text

if TYPE_CHECKING:
    import pyarrow as pa

    from ..scoring.batch import FileRead

KINDS = {'files': 'image files', 'parquet': 'Parquet files', 'tar': 'tars'}
# suffixes, which are compared in lower case
TARS = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tbz', '.tar.xz', '.txz')
PACKED = ('.parquet', *TARS)
UNREAD = 'convert them to .jpg or .png; the extra `formats` adds .heic, .heif and .jxl'


class Inputs(NamedTuple):
    """What was found: paths of image files; paths of Parquet files and of tars, each with its size in bytes."""

    files: list[str]
    tables: dict[str, int]
    tars: dict[str, int]


class Image(NamedTuple):
    """An image to be read."""

    path: str  # path of its row
    data: bytes | str  # compressed content, or a path or URL of it
    kept: tuple[Any, ...] = ()  # values of the columns to keep
    error: str = ''  # reason why it cannot be read


class Shard(NamedTuple):
    """A part of the input that gives one file of scores."""

    name: str  # name of its file, without suffix
    kind: str  # one of KINDS
    source: str = ''  # path or URL of the file that it is read from; '' for image files
    size: int = 0  # bytes of the source
    share: int = 0  # bytes of the source that belong to this shard, about; number of image files
    of: int = 0  # number of rows of a Parquet file
    start: int = 0  # first row of a Parquet file
    stop: int = 0  # end of the rows of a Parquet file
    paths: tuple[str, ...] = ()  # paths of image files
    column: str = ''  # column of a Parquet file that holds the images
    keep: tuple[str, ...] = ()  # columns of a Parquet file, or suffixes of a tar's members, to keep

    @property
    def about(self) -> dict[str, Any]:
        """What the metadata of its file says of where its rows are from."""
        names = ('kind', 'source', 'size', 'share', *(('start', 'stop', 'of') if self.kind == 'parquet' else ()))
        return {name: getattr(self, name) for name in names}


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
        output: folder of the scores; Parquet files that a search finds in it are no input

    Raises:
        FileNotFoundError: nothing there
        ValueError: a folder or a pattern with several kinds of inputs, which would score images twice: a folder of
            images may hold their table, or one of tars
    """
    own = '\0'  # with which no path starts
    if output is not None:
        fs, root = file_system(output)
        own = fs.unstrip_protocol(root) + '/' if is_url(os.fspath(output)) else os.path.join(same_file(root), '')
    once: dict[str, tuple[str, int]] = {}  # path and size, by what is equal for all paths of a file
    for path in as_paths(inputs):
        found = _find(path, listing)
        if path not in found and not glob.has_magic(path):  # a folder
            is_own = {file for file in found if _kind(file) == 'parquet' and _one_spelling(file).startswith(own)}
            found = {file: size for file, size in found.items() if file not in is_own}
        counts = Counter(map(_kind, found))
        if len(counts) > 1 and path != '-':
            held = ' and '.join(f'{counts[kind]} {name}' for kind, name in KINDS.items() if kind in counts)
            folder = path.removesuffix('*').rstrip('/')
            raise ValueError(
                f"{path} holds {held}; expected one kind. Name the files by a pattern, such as '{folder}/*.tar'"
            )
        for file, size in found.items():
            once.setdefault(_one_spelling(file), (file, size))
    if not once:
        raise FileNotFoundError(
            'no inputs found; expected image files, Parquet files (.parquet) or WebDataset shards (.tar)'
        )
    of = {kind: {file: size for file, size in once.values() if _kind(file) == kind} for kind in KINDS}
    return Inputs(list(of['files']), of['parquet'], of['tar'])


def _kind(path: str) -> str:
    name = path.lower()
    return 'parquet' if name.endswith('.parquet') else 'tar' if name.endswith(TARS) else 'files'


def _one_spelling(path: str) -> str:
    return path if is_url(path) else same_file(path)


def _find(path: str, listing: IO[bytes] | None) -> dict[str, int]:
    """Files at a path, each with its size in bytes; that of an image file does not matter."""
    if is_url(path):
        return find_urls(path, PACKED)
    try:
        files = find_images([path], listing, more=PACKED)
    except FileNotFoundError:
        if not os.path.isdir(path):
            raise
        files = []
    return {file: 0 if _kind(file) == 'files' else file_size(file) for file in files}


# --- cutting ----------------------------------------------------------------------------------------------------------


def shard_name(source: str) -> str:
    """Name of a source's file of scores: its own, and digits of its absolute path, which keep equal names apart.

    Example:
        >>> shard_name('s3://bucket/train/00000.tar')
        '00000-d865c935'
    """
    name = os.path.basename(source)
    stem = next(name[: -len(suffix)] for suffix in PACKED if name.lower().endswith(suffix))
    digits = hashlib.sha256(absolute(source).encode('utf-8', 'surrogateescape')).hexdigest()[:8]
    return f'{re.sub(r"[^A-Za-z0-9.-]", "-", stem).lstrip(".")}-{digits}'


def absolute(path: str, folder: str = '') -> str:
    """A local path as one from the root, relative ones from `folder`; a URL as it is."""
    return path if is_url(path) else os.path.abspath(os.path.join(folder, path))


def cut_files(paths: Sequence[str], rows: int, first: int = 0) -> Iterator[Shard]:
    """Shards of at most `rows` image files, numbered from `first`."""
    for number, start in enumerate(range(0, len(paths), rows), start=first):
        part = tuple(paths[start : start + rows])
        yield Shard(f'files_{number:05d}', 'files', share=len(part), paths=part)


def cut_table(
    source: str, size: int, rows: int, column: str | None = None, keep: Sequence[str] = ()
) -> tuple[list[Shard], pa.Schema]:
    """Shards of a Parquet file: of `rows` rows if it holds paths, of about as many in whole row groups if images. With
    the schema of the columns to keep.

    Raises:
        OSError: the file cannot be read
        ValueError: not Parquet, or without such columns
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_binary(source) as file:
            metadata = pq.read_metadata(file)
        schema, total = metadata.schema.to_arrow_schema(), metadata.num_rows
        column = image_column(schema, column)
        if missing := {*keep} - {*schema.names}:
            raise ValueError(f'no column {", ".join(sorted(missing))}; expected one of {", ".join(schema.names)}')
        kept = pa.schema([(name, plain_type(schema.field(name).type)) for name in keep])
    except pa.ArrowInvalid as error:
        raise ValueError(f'{source} is not a Parquet file: {one_line(error)}') from error
    except ValueError as error:
        raise ValueError(f'{source}: {one_line(error)}') from error
    edges, end = [0], 0
    if is_text(schema.field(column).type):
        edges += range(rows, total, rows)
    else:
        for group in range(metadata.num_row_groups):
            count = metadata.row_group(group).num_rows
            if end > edges[-1] and end + count - edges[-1] > rows:
                edges.append(end)
            end += count
    name, shards = shard_name(source), []
    for start, stop in itertools.pairwise([*edges, total]):
        part = name if len(edges) == 1 else f'{name}-{start:010d}'
        share = size * (stop - start) // max(1, total)
        shards.append(Shard(part, 'parquet', source, size, share, total, start, stop, (), column, tuple(keep)))
    return shards, kept


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


def read(image: Image, window: int, max_pixels: int | None) -> FileRead:
    """The pixels of an image, or why there are none; see `read_file` for `window` and `max_pixels`."""
    from ..scoring.batch import FileRead, read_file

    path, data, _, error = image
    try:
        if isinstance(data, str) and is_url(data) and not error:
            with open_binary(data) as file:
                data = file.read()
    except Exception as failure:  # whatever a file system raises
        error = one_line(failure)
    if error:
        return FileRead(path, None, error)
    name, content = (data, None) if isinstance(data, str) else (path, data)
    return read_file(name, content, window, max_pixels)._replace(path=path)


def _read_table(shard: Shard) -> Iterator[Image]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, end = [shard.column, *shard.keep], 0
    with open_binary(shard.source) as file:
        try:
            table = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)  # a row group may not fit in memory
            kinds = [table.schema_arrow.field(name).type for name in columns]
            rows = 1024 if is_text(kinds[0]) else 32
            for group in range(table.num_row_groups):
                first, end = end, end + table.metadata.row_group(group).num_rows
                if end <= shard.start or first >= shard.stop:
                    continue
                if any('extension<' in str(kind) for kind in kinds):  # pyarrow 26 aborts at those of dictionaries
                    batches = table.read_row_group(group, columns, use_threads=False).to_batches(rows)
                else:  # group by group: pyarrow 26 cannot read batches of nested dictionaries across them
                    batches = table.iter_batches(rows, [group], columns, use_threads=False)
                for batch in batches:
                    cells = (plain_column(batch[name]).to_pylist() for name in columns)
                    for row, (cell, *kept) in enumerate(zip(*cells, strict=True), first):
                        if shard.start <= row < shard.stop:
                            yield _cell(cell, f'{shard.source}#{row}', tuple(kept))
                    first += len(batch)
        except pa.ArrowInvalid as error:
            raise ValueError(f'{shard.source} is broken: {one_line(error)}') from error


def _cell(cell: Any, place: str, kept: tuple[Any, ...]) -> Image:
    if isinstance(cell, str) and cell:
        return Image(cell, cell, kept)
    if isinstance(cell, dict):  # where there are no bytes, the path is that of a file
        cell = cell['bytes'] or cell.get('path')
    return Image(place, cell or b'', kept, '' if cell else 'no image: the cell is empty')


def _read_tar(shard: Shard) -> Iterator[Image]:
    row = 0
    try:
        with open_tar(shard.source) as tar:
            for image in _images(tar, shard.keep):
                yield image._replace(path=f'tar://{image.path}::{shard.source}')
                row += 1
            if tar.damage:
                raise tarfile.ReadError(tar.damage)
    except tarfile.TarError as error:
        raise ValueError(f'{shard.source} is cut or broken behind image {row}: {one_line(error)}') from error


def _images(tar: tarfile.TarFile, keep: Sequence[str]) -> Iterator[Image]:
    """Images of a tar, and as rows with an error those in formats that are not read."""
    readable, known = suffixes(), suffixes() | unread()
    # suffixes of the members to keep
    ends = {name: name.removeprefix('.').lower() for name in keep if name != '__key__'}
    for key, sample in itertools.groupby(filter(_key, tar.getmembers()), _key):
        images: list[tuple[tarfile.TarInfo, str, str]] = []
        others: dict[tuple[str, str], tarfile.TarInfo] = {}  # by what is between key and suffix, and by suffix
        for member in sample:
            rest = posixpath.basename(member.name).partition('.')[2]
            suffix = '.' + rest.rpartition('.')[2].lower()
            found = [end for end in ends.values() if f'.{rest}'.lower().endswith(f'.{end}')]
            if found and suffix not in readable:
                others |= {(rest[: -len(end)].removesuffix('.'), end): member for end in found}
            elif suffix in known:
                images.append((member, rest.rpartition('.')[0], suffix))
        for member, stem, suffix in images:
            # '1.5 zoom.json' belongs to '1.5 zoom.jpg', else '1.json'
            belongs = {name: others.get((stem, end), others.get(('', end))) for name, end in ends.items()}
            kept = tuple(_text(tar, belongs[name]) if name in belongs else key for name in keep)
            data, error = b'', f'{suffix} files are not read; {UNREAD}'
            if suffix in readable:
                data, error = read_member(tar, member)
                if error and member.isreg():
                    raise tarfile.ReadError(error)
            yield Image(member.name, data, kept, error)


def _key(member: tarfile.TarInfo) -> str:
    """The path up to the first dot of the name, by which WebDataset groups consecutive members; '': of no sample."""
    folder, name = posixpath.split(member.name)
    stem, _, rest = name.partition('.')
    is_file = member.isreg() or member.islnk() or member.issym()
    return posixpath.join(folder, stem) if is_file and stem and rest else ''


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> str | None:
    data, error = (b'', 'none') if member is None else read_member(tar, member)
    return None if error else escape_text(data.decode('utf-8', 'replace'))
