"""Finding image files: in folders, by patterns and in lists."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from typing import IO

__all__ = ['SUFFIXES', 'check_file', 'find_images', 'is_image']

SUFFIXES = (
    *('.apng', '.avif', '.avifs', '.bmp', '.dib', '.gif', '.icns', '.ico', '.j2c', '.j2k', '.jfif', '.jp2', '.jpc'),
    *('.jpe', '.jpeg', '.jpf', '.jpg', '.jpx', '.mpo', '.pbm', '.pcx', '.pgm', '.png', '.pnm', '.ppm', '.psd', '.qoi'),
    *('.ras', '.sgi', '.tga', '.tif', '.tiff', '.webp'),
)


def find_images(paths: Iterable[str | os.PathLike[str]], listing: IO[bytes] | None = None) -> list[str]:
    """Image files in folders, matched by patterns, listed in a stream, or named; each once, in the order given.

    A folder is searched with all its subfolders, in order of names. Hidden files are skipped, and so are files whose
    suffix is not that of an image; files without a suffix are detected from their content. In folders and patterns
    only regular files (and links to them) count, because reading a named pipe could block.

    A path that is named itself is returned as it is, whether it exists or not, so that reading it reports the error.
    So is a subfolder that cannot be searched.

    Args:
        paths: files, folders, patterns such as 'photos/**/*.jpg', or '-' for the paths in `listing`
        listing: paths of files and folders, one a line

    Returns:
        paths of files

    Raises:
        FileNotFoundError: a pattern matches nothing, or there are no images at all
        ValueError: '-' without a listing

    Example::

        find_images(['photos', 'more/*.png'])
    """
    found: list[str] = []
    for path in [os.fspath(path) for path in paths]:
        if path == '-':
            if listing is None:
                raise ValueError("the path '-' needs a listing, a binary stream with one path a line")
            names = [os.fsdecode(line.removesuffix(b'\r')) for line in listing.read().split(b'\n')]
            for name in filter(None, names):
                found += _walk(name) if os.path.isdir(name) else [name]
        elif os.path.isdir(path):
            found += _walk(path)
        elif glob.has_magic(path) and not os.path.lexists(path):
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                raise FileNotFoundError(f'no file matches the pattern {path!r}')
            for match in matches:
                found += _walk(match) if os.path.isdir(match) else [match] * is_image(match)
        else:
            found.append(path)
    if not found:
        raise FileNotFoundError('no images found; expected files with suffixes such as .jpg or .png')
    return list(dict.fromkeys(found))


def check_file(path: str | os.PathLike[str]) -> None:
    """Check that a path is that of a regular file; opening a named pipe or a device could block for ever.

    Raises:
        OSError: it does not exist, or is not a regular file
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()  # a folder that cannot be searched raises the reason here
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: 'a folder', stat.S_IFIFO: 'a named pipe', stat.S_IFSOCK: 'a socket'}
        raise OSError(f'{kinds.get(stat.S_IFMT(mode), "a device")}; expected a regular file')


def _walk(folder: str) -> Iterator[str]:
    closed: list[str] = []  # folders that cannot be searched
    for parent, folders, files in os.walk(folder, onerror=lambda error: closed.append(error.filename)):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        for name in sorted(files):
            path = os.path.join(parent, name)
            if not name.startswith('.') and is_image(path):
                yield path
    yield from closed


def is_image(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    # by suffix first: Pillow opens camera raw files as TIFF, and would give the score of a thumbnail
    suffix = os.path.splitext(path)[1].lower()
    if suffix:
        return suffix in SUFFIXES
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.format not in ('BUFR', 'GRIB', 'HDF5', 'MPEG')  # Pillow recognises these without reading them
    except Exception:  # any exception means: not an image
        return False
