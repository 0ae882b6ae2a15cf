"""Image files as tensors, as a viewer shows them: rotated by EXIF, on white, the first frame."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from typing import IO, Any, TypeAlias

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from .._values import integer
from .find import MAX_PIXELS, check_file, describe
from .pillow import open_image

Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image

UPRIGHT = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# tags of TIFF
SUBFILE, BITS, PHOTOMETRIC, PLANES, SAMPLE_FORMAT, DNG = 254, 258, 262, 284, 339, 50706
UNSIGNED, SIGNED = 1, 2  # of SAMPLE_FORMAT

PNG = b'\x89PNG\r\n\x1a\n'
PNG_EXIF = (b'XML:com.adobe.xmp\0', b'Raw profile type exif\0')  # text that may say how the image is rotated


def read_image(source: Source, max_pixels: int | None = MAX_PIXELS) -> Tensor:
    """RGB image of a file, (3, H, W), float32 in [0, 1].

    EXIF orientation is applied, transparency is composited on white, grey images of more than 8 bits keep their bits,
    animations give their first frame, and grey, palette and CMYK images become RGB. Colour profiles are not applied, as
    in pyiqa. Globals of Pillow, such as LOAD_TRUNCATED_IMAGES and MAX_IMAGE_PIXELS, are neither used nor changed. A PIL
    image gives the same as its file, unless it is a copy, which has lost the tags of a TIFF.

    Args:
        source: path of a file, its content as bytes, a file open for reading in binary mode (read from its start, and
            left open), or a PIL image
        max_pixels: largest number of pixels, height x width, 200 million by default; None: any

    Raises:
        OSError: the file is missing, empty, not a regular file, not an image, truncated, broken, or larger than
            `max_pixels`
        ValueError: an image of 32-bit numbers in an unknown range
        TypeError: `source` is something else

    Example::

        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.scoring import read_image

        image = read_image('photo.jpg')        # (3, H, W)
        score = MACLIP()([image])              # (1, 1)
    """
    return to_tensor(read_pixels(source, max_pixels))


def read_pixels(source: Source, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """The same before scaling, (H, W, 3): uint8 in [0, 255], or float32 in [0, 1] where the file holds more bits.

    Args:
        source, max_pixels: as in `read_image`

    Raises:
        as `read_image`
    """
    if max_pixels is not None:
        max_pixels = integer('max_pixels', max_pixels)
    try:
        if isinstance(source, Image.Image):
            return _pixels(source, max_pixels)
        with contextlib.ExitStack() as stack:
            return decode(_file(source, stack), lambda image: _pixels(image, max_pixels))
    except UnidentifiedImageError:
        raise OSError(describe(source if isinstance(source, (str, os.PathLike)) else '')) from None
    except (OSError, ValueError, MemoryError):
        raise
    except _WrongSourceError as error:
        raise TypeError(str(error)) from None
    except Exception as error:  # Pillow's readers raise all kinds of exceptions on broken files
        raise OSError(f'broken image file: {type(error).__name__}: {error}') from error


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Pixels from `read_pixels`, (H, W, 3) -> (3, H, W), float32 in [0, 1]."""
    image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return image if image.is_floating_point() else image.float().div_(255)


class _WrongSourceError(Exception):
    """A TypeError of the caller, kept apart from those of Pillow."""


def _file(source: Any, stack: contextlib.ExitStack) -> IO[bytes]:
    """The source as a file that can be searched."""
    if isinstance(source, (str, os.PathLike)):
        check_file(source)
        return stack.enter_context(open(source, 'rb'))
    data = source
    if hasattr(source, 'read'):
        if not hasattr(source, 'seekable') or source.seekable():
            source.seek(0)
        data = source.read()
    if not isinstance(data, (bytes, bytearray, memoryview)):
        what = 'a file open in text mode' if isinstance(data, str) else f'a {type(source).__name__}'
        raise _WrongSourceError(
            f'the image is {what}; expected a path, bytes, a file open in binary mode, or a PIL image'
        )
    return io.BytesIO(data)


def decode(file: IO[bytes], pixels: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """Open an image file, strictly whatever Pillow's globals are, and take its pixels.

    Args:
        file: file that can be searched
        pixels: function that takes an open image and returns its pixels, (H, W, 3)

    Raises:
        Exception: whatever a reader of Pillow raises; UnidentifiedImageError where none knows the format
    """
    start = file.read(len(PNG))
    if not start:
        raise OSError('the file is empty; expected an image')
    try:
        return _open(file, pixels)
    except Exception:
        if start != PNG:
            raise
    # text may be too large or broken: the pixels are fine without it
    file.seek(0)
    data = file.read()
    for exif in (True, False):
        try:
            return _open(io.BytesIO(_without_text(data, exif)), pixels)
        except UnidentifiedImageError:
            error: Exception = OSError('broken PNG file')
        except Exception as caught:
            error = caught
    raise error


def _open(file: IO[bytes], pixels: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    image = open_image(file)
    if image is None:
        raise UnidentifiedImageError
    with image:
        return pixels(image)


def _pixels(image: Image.Image, max_pixels: int | None) -> np.ndarray:
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise OSError(
            f'the image of {image.width}x{image.height} pixels is larger than {max_pixels:,} pixels; raise max_pixels '
            '(--max-pixels), or make it smaller'
        )
    tags = getattr(image, 'tag_v2', {})
    if DNG in tags or tags.get(SUBFILE, 0) & 1:
        raise OSError(
            'a camera raw file, or a TIFF whose first page is a smaller version; develop it to a plain TIFF, PNG or '
            'JPEG first'
        )
    if tags.get(PLANES) == 2 and max(tags.get(BITS, (8,))) > 8 and len(tags[BITS]) > 1:
        raise OSError(
            'a TIFF with 16 bits and a plane for each channel, which Pillow reads wrongly; save it interleaved'
        )
    image.load()  # outside the next block, which takes all errors for those of EXIF
    try:
        turn = UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:  # EXIF may be broken in many ways
        turn = None
    pixels = image if turn is None else image.transpose(turn)
    is_grey = image.mode[0] in 'IF' or (image.mode == 'L' and tags.get(SAMPLE_FORMAT) == (SIGNED,))
    return _grey(pixels, tags, of_file=image.format is not None) if is_grey else _rgb(pixels)


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode == 'La':
        image = image.convert('LA')
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return np.array(image.convert('RGB'))


def _grey(image: Image.Image, tags: Any, of_file: bool) -> np.ndarray:
    """Grey of more than 8 bits, which Pillow's convert() would clip to 8, or signed."""
    values, top = np.array(image), 65535.0
    bits, kind = (tags.get(tag, (default,))[0] for tag, default in ((BITS, 16), (SAMPLE_FORMAT, UNSIGNED)))
    if image.mode == 'F':
        top = 1.0
    elif tags:
        # 32 bits with a sign say nothing of the range, and mostly hold 16 bits
        top = 65535.0 if (bits, kind) == (32, SIGNED) else 2.0 ** (bits - (kind == SIGNED)) - 1
        if (bits, kind) in ((32, UNSIGNED), (8, SIGNED)):  # which Pillow has the other way round
            values = values.view(np.uint32 if bits == 32 else np.int8)
    if not of_file and image.mode == 'I' and 0 < values.max() <= 255:
        raise ValueError(
            f'I image with values in [0, {values.max()}]; expected 16 bits, and these may be 8: convert it to uint8 or '
            'uint16'
        )
    if not (values >= 0).all() or not (values <= top).all():
        raise ValueError(
            f'{image.mode} image with values in [{values.min():g}, {values.max():g}]; expected values in [0, {top:g}]'
        )
    grey = values.astype(np.float32)
    if isinstance(image.info.get('transparency'), int):
        grey[values == image.info['transparency']] = top
    grey = np.minimum(grey / np.float32(top), 1)  # float32 rounds 2**32 - 1 up
    return np.repeat((1 - grey if tags.get(PHOTOMETRIC) == 0 else grey)[..., None], 3, axis=2)


def _without_text(data: bytes, exif: bool) -> bytes:
    """A PNG file without what Pillow may refuse, or fail on, that holds no pixels: text, profiles and the like.

    Args:
        data: content of the file
        exif: whether to keep what says how the image is rotated
    """
    parts, at = [PNG], len(PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], 'big')
        kind = data[at + 4 : at + 8]
        rotates = kind == b'eXIf' or data[at + 8 : end].startswith(PNG_EXIF)
        if kind[:1].isupper() or kind == b'tRNS' or (exif and rotates):  # upper case: what is needed
            parts.append(data[at:end])
        at = end
    return b''.join(parts)
