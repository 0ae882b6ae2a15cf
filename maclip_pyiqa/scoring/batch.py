"""Reading files ahead in other processes or threads, and grouping them into batches of bounded size."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .._files import one_line
from .find import MAX_PIXELS
from .flags import find_flags
from .read import read_pixels

GROUP_PIXELS = 16_000_000  # of a group: bounds memory where images are large

# Seconds. Workers take over after TRIAL of reading, once reading the rest would take PAYS at the pace so far: below it,
# starting them and sending pixels through pipes costs what they gain (benchmarks/files.py).
TRIAL, PAYS = 0.5, 5.0


class FileRead(NamedTuple):
    """One file, read: `pixels` (H, W, 3) as `read_pixels` gives them, and their `flags`; or None and why not."""

    path: str
    pixels: np.ndarray | None
    error: str
    flags: str = ''


def read_file(path: str, data: bytes | None = None, window: int = 0, max_pixels: int | None = MAX_PIXELS) -> FileRead:
    """Read an image file. One that cannot be read is returned with an error.

    Args:
        path: path of the file, or another name for it where its content is given
        data: content of the file, compressed as it is; None: read it from `path`
        window: side of the metric's windows, pixels; for the flags, see `find_flags`
        max_pixels: largest number of pixels, see `read_image`
    """
    try:
        pixels = read_pixels(path if data is None else data, max_pixels)
        return FileRead(path, pixels, '', find_flags(pixels, window))
    except Exception as error:
        return FileRead(path, None, one_line(error))


def read_cell(cell: Any, window: int = 0, max_pixels: int | None = MAX_PIXELS) -> FileRead:
    """Read the image in a cell of a table: the path of a file, its content, or Hugging Face's {bytes, path}.

    Args:
        cell: path, content as bytes, or {bytes, path}; None and '' are images that cannot be read
        window: side of the metric's windows, pixels; for the flags, see `find_flags`
        max_pixels: largest number of pixels, see `read_image`

    Raises:
        TypeError: something else
    """
    path, data = cell, None
    if isinstance(cell, Mapping) and cell.keys() >= {'bytes'}:
        path, data = cell.get('path'), cell['bytes']
    elif isinstance(cell, bytes):
        path, data = '', cell
    if not isinstance(path, (str, type(None))) or not isinstance(data, (bytes, type(None))):
        raise TypeError(f'a cell is {type(cell).__name__}; expected a path, bytes, or {{bytes, path}}')
    if not path and not data:
        return FileRead('', None, 'no image: the cell is empty')
    return read_file(path or '', data or None, window, max_pixels)


def read_files(
    paths: Sequence[str], workers: int = 0, window: int = 0, max_pixels: int | None = MAX_PIXELS
) -> Iterator[FileRead]:
    """Read image files in order. Files that cannot be read are returned with an error.

    Reading starts in this process. Workers take over once it turns out that they pay: on long lists. They end with this
    process, whatever ends it.

    Args:
        paths: paths of image files
        workers: processes that read ahead; 0: read in this process
        window: side of the metric's windows, pixels; for the flags, see `find_flags`
        max_pixels: largest number of pixels of an image, see `read_image`
    """
    seconds = 0.0
    for done, path in enumerate(paths):
        if workers and seconds >= TRIAL and seconds * (len(paths) - done) >= PAYS * done:
            break
        start = time.perf_counter()
        file = read_file(path, None, window, max_pixels)
        seconds += time.perf_counter() - start
        yield file
    else:
        return
    rest = paths[done:]
    yield from DataLoader(
        _Files(rest, window, max_pixels),
        batch_size=None,
        num_workers=min(workers, len(rest)),
        collate_fn=_same,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # for the workers' seeds, so that the caller's random state stays as it is
    )


def map_ahead(function: Callable[[Any], Any], items: Iterator[Any], threads: int) -> Iterator[Any]:
    """`map` in so many threads, which work on as many items while others are used."""
    with ThreadPoolExecutor(threads) as pool:
        ready: Iterator[Any] = iter(())
        while group := list(itertools.islice(items, threads)):
            following = pool.map(function, group)
            yield from ready
            ready = following
        yield from ready


def groups(files: Iterable[FileRead], batch: int = 16) -> Iterator[list[FileRead]]:
    """Consecutive files, at most `batch` of them and at most GROUP_PIXELS pixels; or one larger image."""
    group: list[FileRead] = []
    pixels = 0
    for file in files:
        size = 0 if file.pixels is None else file.pixels.shape[0] * file.pixels.shape[1]
        if group and (len(group) == batch or pixels + size > GROUP_PIXELS):
            yield group
            group, pixels = [], 0
        group.append(file)
        pixels += size
    if group:
        yield group


class _Files(Dataset):
    """Data set of FileRead, for torch's DataLoader."""

    def __init__(self, paths: Sequence[str], window: int, max_pixels: int | None) -> None:
        self.paths, self.window, self.max_pixels = paths, window, max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> FileRead:
        return read_file(self.paths[index], None, self.window, self.max_pixels)


def _same(item: Any) -> Any:
    # NumPy arrays are sent through a pipe, so that a small /dev/shm is no limit
    return item


def start_worker(worker: int) -> None:
    """What a process that reads for another one does first: leave Ctrl-C to that one, and end with it.

    Torch's own watch on the parent ends a worker's loop, but then it waits for ever to send what it has read.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # forked siblings keep this process's line to the parent open, so the parent's number is watched too
        number = parent.pid if multiprocessing.get_start_method() == 'fork' else None
        threading.Thread(target=_end_with, args=(parent, number), daemon=True).start()


def _end_with(parent: Any, number: int | None) -> None:
    while parent.is_alive() and number in (None, os.getppid()):
        parent.join(0.5)
    os._exit(1)
