"""Pillow, without a change of its globals: which formats it reads, and opening a file in a strict way.

`Image.open` warns or fails by the global MAX_IMAGE_PIXELS, and a truncated file is an error or half an image by the
global LOAD_TRUNCATED_IMAGES, which pyiqa sets. A program that uses this package may rely on either, in other threads
too, so neither is touched here.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import FunctionType, SimpleNamespace
from typing import IO, Any

from PIL import Image, ImageFile

PLUGINS = ('pillow_heif', 'pillow_jxl')  # of the extra `formats`; other plugins are those that the program has imported
NOT_READ = ('BUFR', 'GRIB', 'HDF5', 'MPEG')  # formats that Pillow recognises without reading them


@cache
def _load_plugins() -> None:
    for name in PLUGINS:
        with contextlib.suppress(ImportError):
            module = import_module(name)
            if hasattr(module, 'register_heif_opener'):  # the other one registers itself
                module.register_heif_opener()


def of_plugins() -> set[str]:
    """Lower-case suffixes of the formats that plugins of Pillow read."""
    _load_plugins()
    return {
        suffix.lower()
        for suffix, name in Image.registered_extensions().items()
        if name in Image.OPEN and not Image.OPEN[name][0].__module__.startswith('PIL.')
    }


def open_image(file: IO[bytes]) -> ImageFile.ImageFile | None:
    """Open a file as `Image.open` does, without its check of the size; None: not in a format that is read.

    Raises:
        Exception: whatever a reader of Pillow raises
    """
    _load_plugins()
    file.seek(0)
    start = file.read(16)
    tried: set[str] = set()
    for load in (Image.preinit, Image.init):  # the common formats, all
        load()
        for name in [name for name in Image.ID if name not in tried]:
            tried.add(name)
            factory, accept = Image.OPEN[name]
            with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):  # not this format
                if name not in NOT_READ and (accept is None or accept(start) is True):
                    file.seek(0)
                    image = factory(file, '')
                    image.__class__ = _strict_class(image.__class__)
                    return image
    return None


def _strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method of Pillow that reads LOAD_TRUNCATED_IMAGES as False."""
    names = {**function.__globals__, 'LOAD_TRUNCATED_IMAGES': False}
    if 'ImageFile' in names:
        names['ImageFile'] = SimpleNamespace(**{**vars(ImageFile), 'LOAD_TRUNCATED_IMAGES': False, **STRICT})
    return FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)


STRICT: dict[str, Any] = {}


class _StrictFile(ImageFile.ImageFile):
    load = _strict(ImageFile.ImageFile.load)


STRICT['ImageFile'] = _StrictFile  # some kinds of images call its `load` by name


@cache
def _strict_class(kind: type[ImageFile.ImageFile]) -> type[ImageFile.ImageFile]:
    """The same kind of image, whose truncated and broken data are an error."""
    own = {name: getattr(kind, name, None) for name in ('load', 'load_read')}
    strict = {
        name: _strict(method)
        for name, method in own.items()
        if isinstance(method, FunctionType) and method is not ImageFile.ImageFile.load
    }
    return type(kind.__name__, (kind, _StrictFile), strict)
