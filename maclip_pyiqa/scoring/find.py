"""Finding image files: in folders, by patterns, in lists and at URLs."""

from __future__ import annotations

import codecs
import glob
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import IO

from .._files import file_system, is_url
from .._lists import as_paths

SUFFIXES = (
    *('.apng', '.avif', '.avifs', '.bmp', '.dib', '.gif', '.icns', '.ico', '.j2c', '.j2k', '.jfif', '.jp2', '.jpc'),
    *('.jpe', '.jpeg', '.jpf', '.jpg', '.jpx', '.mpo', '.pbm', '.pcx', '.pgm', '.png', '.pnm', '.ppm', '.psd', '.qoi'),
    *('.ras', '.sgi', '.tga', '.tif', '.tiff', '.webp'),
)
# Pillow opens many camera raw files as TIFF, and would give the score of a thumbnail.
RAW = (
    *('.3fr', '.arw', '.cr2', '.cr3', '.crw', '.dcr', '.dng', '.erf', '.fff', '.gpr', '.iiq', '.k25', '.kdc', '.mef'),
    *('.mos', '.mrw', '.nef', '.nrw', '.orf', '.pef', '.raf', '.raw', '.rw2', '.rwl', '.sr2', '.srf', '.srw', '.x3f'),
)
FORMATS = ('.heic', '.heics', '.heif', '.heifs', '.hif', '.jxl')  # that the extra `formats` reads
# Images too, which are read only where a plugin of Pillow does, see the extra `formats`.
OTHERS = (
    *('.avci', '.blp', '.bpg', '.bw', '.cin', '.cur', '.dcx', '.dds', '.djvu', '.dpx', '.emf', '.eps', '.exr', '.fit'),
    *('.fits', '.flc', '.fli', '.flif', '.ftc', '.ftu', '.hdp', '.hdr', '.heic', '.heics', '.heif', '.heifs', '.hif'),
    *('.icb', '.im', '.jls', '.jng', '.jxl', '.jxr', '.msp', '.pcd', '.pfm', '.rgb', '.rgba', '.svg', '.svgz', '.vda'),
    *('.vst', '.wdp', '.wmf', '.xbm', '.xcf', '.xpm'),
)
SYSTEM = ('/proc/', '/sys/', '/dev/')  # files there may never end, or do something when they are read
MAX_PIXELS = 200_000_000  # of the images that are read: the largest cameras in phones
SOFTWARE = 'maclip_pyiqa'  # PNG files that this package draws say so, and are no photos

HINTS = {  # what a file is that is no image, and which command takes it; by suffix
    ('.tar', '.tgz', '.tbz', '.tbz2', '.txz', '.tar.gz', '.tar.bz2', '.tar.xz'): (
        'a tar archive; `maclip-pyiqa score-collection FILE -o FOLDER/` scores the images in it'
    ),
    ('.parquet',): (
        'a Parquet file; `maclip-pyiqa score-collection FILE -o FOLDER/` scores the images in it, and `maclip-pyiqa '
        'report`, `filter` and `compare` read the scores in it'
    ),
    ('.csv', '.jsonl', '.tsv', '.txt', '.list'): (
        'text; `maclip-pyiqa report`, `filter` and `compare` read scores in .csv and .jsonl files, and `maclip-pyiqa '
        'score - < FILE` scores the files of a list, one path a line'
    ),
    ('.html', '.htm'): 'a page; open it in a browser',
    ('.zip', '.7z', '.rar', '.zst'): 'an archive; unpack it and score the folder',
    ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm'): (
        'a video; extract its frames, for example with ffmpeg, and score the folder'
    ),
}

logger = logging.getLogger(__name__)


def suffixes() -> frozenset[str]:
    """Suffixes of the image files that are read, lower case, with those that plugins of Pillow read."""
    from .pillow import of_plugins

    return frozenset(SUFFIXES) | of_plugins().intersection(OTHERS)


def unread() -> frozenset[str]:
    """Suffixes of known image formats that are not read."""
    return frozenset((*RAW, *OTHERS)) - suffixes()


def find_images(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    listing: IO[bytes] | None = None,
    *,
    null: bool = False,
    more: tuple[str, ...] = (),
    warn: Callable[[str], None] = logger.warning,
) -> list[str]:
    """Image files in folders, matched by patterns, listed in a stream, or named; each once, in the order given.

    A folder is searched with all its subfolders, in order of names, linked ones too. Hidden files are skipped, and so
    are files whose suffix is not that of an image, and figures that this package drew (PNG); files without a suffix are
    detected from their content. In folders and patterns only regular files (and links to them) count, because reading a
    named pipe could block, and nothing below /proc, /sys and /dev but /dev/shm.

    A file that is reached by several paths is returned once, by the first of them. A path that is named itself is
    returned as it is, whether it exists or not, so that reading it reports the error. So is a subfolder that cannot be
    searched.

    Args:
        paths: files, folders, patterns such as 'photos/**/*.jpg', or '-' for the paths in `listing`
        listing: paths of files and folders, one a line, or separated by NUL
        null: whether the paths in `listing` are separated by NUL even if there is only one
        more: suffixes, in lower case, of other files to return
        warn: function that is told what was left out: images in formats that are not read, by suffix, and paths of
            files that are there already

    Returns:
        paths of files

    Raises:
        FileNotFoundError: a pattern matches nothing, or there are no images at all
        ValueError: '-' without a listing

    Example::

        from maclip_pyiqa.scoring import find_images

        paths = find_images(['photos', '*.jpg'])
    """
    _real_folder.cache_clear()  # links may have changed
    walk, paths = _Walk(more), as_paths(paths)
    found: list[str] = []
    for path in paths:
        if path == '-':
            if listing is None:
                raise ValueError("the path '-' needs a listing, a binary stream with one path a line")
            for name in _lines(listing.read(), null):
                found += walk.folder(name) if os.path.isdir(name) else [name]
        elif os.path.isdir(path):
            found += walk.folder(path)
        elif glob.has_magic(path) and not os.path.lexists(path):
            found += walk.pattern(path)
        else:
            found.append(path)
    once: dict[str, str] = {}
    for path in dict.fromkeys(found):
        once.setdefault(same_file(path), path)
    other_names = len(dict.fromkeys(found)) - len(once)
    _warn_of_unread(walk.skipped.values(), warn)
    if other_names:
        warn(f'left out, other paths of files that are there already: {other_names}')
    if not once:
        where = ', '.join(paths)
        raise FileNotFoundError(
            f'no images found in {where[:200]}; expected files with suffixes such as .jpg or .png (figures that '
            'maclip_pyiqa drew are skipped in folders)'
        )
    return list(once.values())


def find_urls(url: str, more: tuple[str, ...] = ()) -> dict[str, int]:
    """Image files at a URL of fsspec: in a folder, matched by a pattern, or named; no hidden ones.

    Args:
        url: URL
        more: suffixes, in lower case, of other files to return

    Returns:
        URLs, each with the file's size in bytes; that of an image that is named itself is 0

    Raises:
        FileNotFoundError: a pattern matches nothing
    """
    fs, root = file_system(url)
    is_pattern = glob.has_magic(root)
    if not is_pattern and not fs.isdir(root):
        name = url if '::' in url else fs.unstrip_protocol(root)  # one spelling for one file
        return {name: fs.size(root) if name.lower().endswith(more) else 0}
    found = fs.glob(root, detail=True) if is_pattern else fs.find(root, detail=True)
    if is_pattern and not found:
        raise FileNotFoundError(f'no file matches the pattern {url!r}')
    files = {file: info['size'] for file, info in sorted(found.items()) if info['type'] != 'directory'}
    known, left_out = (*more, *suffixes()), unread()
    _warn_of_unread(suffix for file in files if (suffix := os.path.splitext(file)[1].lower()) in left_out)

    def takes(file: str) -> bool:
        parts = (os.path.basename(file) if is_pattern else file.removeprefix(root)).split('/')
        return file.lower().endswith(known) and not any(part.startswith('.') for part in parts)

    return {fs.unstrip_protocol(file): size for file, size in files.items() if takes(file)}


def _warn_of_unread(suffixes: Iterable[str], warn: Callable[[str], None] = logger.warning) -> None:
    """Tell `warn` how many images in formats that are not read are left out, from their suffixes."""
    counts = Counter(suffixes)
    if counts:
        kinds = ', '.join(f'{count} {suffix}' for suffix, count in sorted(counts.items()))
        hint = "; pip install 'maclip_pyiqa[formats]' reads .heic, .heif and .jxl" if {*FORMATS} & {*counts} else ''
        warn(f'left out, image formats that are not read: {kinds}{hint}')


def same_file(path: str) -> str:
    """A text that is equal for all spellings of the path of one file, through links too."""
    folder, name = os.path.split(path)
    if name in ('', '.', '..') or os.path.islink(path):
        return os.path.normcase(os.path.realpath(path))
    return os.path.normcase(os.path.join(_real_folder(folder, os.getcwd()), name))


def check_file(path: str | os.PathLike[str]) -> None:
    """Check that a path is that of a regular file; opening a named pipe or a device could block for ever.

    Raises:
        OSError: it does not exist, is not a regular file, is a URL, or by its suffix a camera raw file
    """
    text = os.fsdecode(path)
    if is_url(text) and not os.path.lexists(text):
        raise OSError(
            'a URL; `maclip-pyiqa score-collection URL -o FOLDER/` scores images at URLs, or download it first'
        )
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        os.scandir(path).close()  # a folder that cannot be searched raises the reason here
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: 'a folder', stat.S_IFIFO: 'a named pipe', stat.S_IFSOCK: 'a socket'}
        raise OSError(f'{kinds.get(stat.S_IFMT(mode), "a device")}; expected a regular file')
    if text.lower().endswith(RAW):
        raise OSError('a camera raw file, of which Pillow reads a thumbnail; develop it to a TIFF, PNG or JPEG first')


def describe(path: str | os.PathLike[str]) -> str:
    """What a file is that is no image, and what takes it, as far as its suffix tells."""
    name = os.path.basename(os.fsdecode(path)).lower()
    hint = next((hint for ends, hint in HINTS.items() if name.endswith(ends)), None)
    suffix = os.path.splitext(name)[1]
    if hint is None and suffix in unread():
        hint = 'an image in a format that is not read' + "; pip install 'maclip_pyiqa[formats]'" * (suffix in FORMATS)
    return 'not an image, or in a format that Pillow does not read' if hint is None else f'not an image: {hint}'


def is_image(path: str) -> bool:
    """Whether a path is that of an image file, by its suffix, or where it has none by its content."""
    if not os.path.isfile(path):
        return False
    suffix = os.path.splitext(path)[1].lower()
    if suffix:
        return suffix in SUFFIXES or (suffix in OTHERS and suffix in suffixes())
    from .pillow import open_image

    try:
        with open(path, 'rb') as file:
            return open_image(file) is not None
    except Exception:  # any exception means: not an image
        return False


def files_below(folder: str, closed: list[str]) -> Iterator[str]:
    """Files in a folder and its subfolders, linked ones too, in order of names; no hidden ones, and none of the system.

    Args:
        folder: path of the folder
        closed: list that gets the subfolders that cannot be searched
    """
    seen: set[str] = set()  # real paths of folders: links may lead round in a circle
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=lambda e: closed.append(e.filename)):
        real = os.path.realpath(parent)
        if real in seen or _is_system(real):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        yield from (os.path.join(parent, name) for name in sorted(files) if not name.startswith('.'))


def matching(pattern: str) -> list[str]:
    """Files and folders that match a pattern; where it has '**', the files below the folders in their place.

    Raises:
        FileNotFoundError: there are none
    """
    parts = pattern.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if '**' in parts:  # not by glob, which follows links round in circles
        first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root, rest = os.sep.join(parts[:first]) or os.sep * (first > 0), list(filter(None, parts[first:]))
        start, closed = len(os.path.join(root or os.curdir, '')), list[str]()
        found = [path for path in files_below(root or os.curdir, closed) if _matches(path[start:].split(os.sep), rest)]
        found = [path if root else path[start:] for path in [*found, *(closed if found else ())]]
    else:
        found = sorted(name for name in glob.glob(pattern) if not _is_system(os.path.abspath(name)))
    if not found:
        raise FileNotFoundError(f'no file matches the pattern {pattern!r}')
    return found


class _Walk:
    """A search through folders, for images and files with the suffixes `more`.

    Attributes:
        skipped: suffixes of images that are not read, see `same_file`
    """

    def __init__(self, more: tuple[str, ...]) -> None:
        self.more, self.skipped = more, dict[str, str]()

    def folder(self, folder: str) -> Iterator[str]:
        """Images in a folder and its subfolders; subfolders that cannot be searched last."""
        closed: list[str] = []
        yield from filter(self.takes, files_below(folder, closed))
        yield from closed

    def pattern(self, pattern: str) -> Iterator[str]:
        """Images that match a pattern, or are in folders that do."""
        for path in matching(pattern):
            if os.path.isdir(path):
                yield from self.folder(path)
            elif self.takes(path):
                yield path

    def takes(self, path: str) -> bool:
        """Whether a file that was found is an image to score. Counts those that should be and cannot."""
        if os.path.islink(path) and _is_system(os.path.realpath(path)):
            return False
        if path.lower().endswith(self.more):
            return os.path.isfile(path)
        suffix = os.path.splitext(path)[1].lower()
        if is_image(path):
            return not (suffix == '.png' and _is_figure(path))
        if suffix in (*RAW, *OTHERS) and os.path.isfile(path):
            self.skipped[same_file(path)] = suffix
        return False


def _matches(path: list[str], pattern: list[str]) -> bool:
    """Whether a path, or a folder that it is in, matches a pattern; both in parts."""
    if not pattern:
        return True
    if pattern[0] == '**':
        return any(_matches(path[i:], pattern[1:]) for i in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])


def _lines(data: bytes, null: bool) -> list[str]:
    """Paths in a list."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode('utf-16').encode()
    data = data.removeprefix(codecs.BOM_UTF8)
    if null or b'\0' in data:
        return [os.fsdecode(name) for name in data.split(b'\0') if name]
    return [os.fsdecode(name) for line in data.split(b'\n') if (name := line.removesuffix(b'\r'))]


@lru_cache(maxsize=10_000)
def _real_folder(folder: str, current: str) -> str:
    return os.path.realpath(os.path.join(current, folder))


def _is_system(real: str) -> bool:
    return real != '/dev/shm' and not real.startswith('/dev/shm/') and f'{real}/'.startswith(SYSTEM)


def _is_figure(path: str) -> bool:
    try:
        with open(path, 'rb') as file:
            return f'tEXtSoftware\0{SOFTWARE}'.encode() in file.read(1024)
    except OSError:
        return False
