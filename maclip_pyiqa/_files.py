"""Files, local or at URLs: opened, or written whole or not at all; and what an error says in one line."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import fsspec


def is_url(path: str) -> bool:
    """Whether a path is a URL that fsspec opens, such as s3://bucket/name."""
    return '://' in path


def open_binary(path: str) -> IO[bytes]:
    """Open a file for reading; URLs need fsspec."""
    if not is_url(path):
        return open(path, 'rb')
    import fsspec

    return fsspec.open(path, 'rb').open()


def file_system(path: str | os.PathLike[str]) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and the path in it; needs fsspec."""
    import fsspec

    fs, root = fsspec.core.url_to_fs(os.fspath(path))
    return fs, root.rstrip('/') or root


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """A path to write to, beside `path`; its file replaces `path` at the end, or is removed if an error is raised.

    A link stays a link: the file that it leads to is replaced. Several processes may write one file at once.

    Example::

        with replacing('scores.csv') as part, open(part, 'w') as file:
            file.write(text)
    """
    target = os.path.realpath(path)
    part = f'{target}.{uuid.uuid4().hex[:8]}.part'
    try:
        yield part
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)
        raise


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written, now rather than after hours; OSError if not. The file stays as it is."""
    part = f'{os.path.realpath(path)}.{uuid.uuid4().hex[:8]}.part'
    open(part, 'wb').close()
    os.remove(part)


def file_size(path: str) -> int:
    """Size of a file in bytes; needs fsspec."""
    fs, root = file_system(path)
    return fs.size(root)


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether a file system is that of this machine."""
    return 'file' in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def write_binary(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Write a file whole or not at all: renamed on a local file system, one put on an object store."""
    if not is_local(fs):
        fs.pipe_file(path, data)
        return
    with replacing(path) as part, open(part, 'wb') as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def one_line(error: BaseException, most: int = 1000) -> str:
    """An exception's message in one line.

    Args:
        error: the exception
        most: largest number of characters
    """
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = ' '.join(text.split()) or type(error).__name__
    return text if len(text) <= most else text[: most - 3] + '...'
