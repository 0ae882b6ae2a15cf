"""Tars of any compression, local or at URLs, whose members can be read in any order, up to where a tar is broken."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from ._files import is_url, one_line, open_binary

# by a file's first bytes
COMPRESSED: dict[bytes, Callable[..., Any]] = {b'\x1f\x8b': gzip.open, b'BZh': bz2.open, b'\xfd7zXZ': lzma.open}
BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)  # of what is compressed


class Tar(tarfile.TarFile):
    """A tar that ends where it is broken, which `damage` tells."""

    damage = ''

    def next(self) -> tarfile.TarInfo | None:
        try:
            member = super().next()
            if member is None:  # `tarfile` takes a broken header for the end of the archive, which is zeros
                self.fileobj.seek(self.offset)
                if self.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError('no header of a member, and no end of the archive')
            return member
        except tarfile.TarError as error:
            self.damage = self.damage or one_line(error)
            return None


@contextlib.contextmanager
def open_tar(source: str) -> Iterator[Tar]:
    """Open a tar so that its members can be read in any order, as links need it.

    What is remote or compressed, which its name need not tell, is copied to a temporary file without a name.

    Args:
        source: path or URL
    """
    with contextlib.ExitStack() as stack:
        file, damage = _seekable(source, stack)
        with Tar(fileobj=file) as tar:
            tar.damage = damage or tar.damage
            yield tar


def _seekable(source: str, stack: contextlib.ExitStack) -> tuple[IO[bytes], str]:
    """An uncompressed file that can be read in any order, and what is wrong with it behind its end."""
    file: Any = stack.enter_context(open_binary(source))
    file = io.BufferedReader(file, 1 << 20) if is_url(source) else file
    start, damage = file.peek(6), ''
    stream = next((decompress(file) for magic, decompress in COMPRESSED.items() if start.startswith(magic)), file)
    if stream is file and not is_url(source):
        return file, ''
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    try:
        while data := stream.read1():
            copy.write(data)
    except Exception as error:
        if not isinstance(error, BROKEN) and str(error) != 'Invalid data stream':  # bz2's, an OSError
            raise
        damage = one_line(error)
    copy.seek(0)
    return copy, damage


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[bytes, str]:
    """Content of a member, or of the one that it links to; or b'' and why there is none."""
    try:
        file = tar.extractfile(member)
        if file is not None:
            return file.read(), ''
        error = 'is not a file; expected a link to an image'
    except KeyError:
        error = 'is not in the tar; add it, or put the image in place of the link'
    except RecursionError:
        error = 'leads round in a circle; expected a link to an image'
    except tarfile.TarError as damage:
        error = f'cannot be read: {one_line(damage)}'
    return b'', error if member.isreg() else f'a link to {member.linkname}, which {error}'
