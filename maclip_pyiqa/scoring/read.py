"""Image files as tensors, as a viewer shows them: rotated by EXIF, on white, the first frame."""

from __future__ import annotations

import io
import os

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from .find import check_file

__all__ = ['read_image', 'read_pixels', 'to_tensor']


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """RGB image of a file, (3, H, W), float32 in [0, 1].

    EXIF orientation is applied, transparency is composited on white, 16-bit grey keeps its 16 bits, animations give
    their first frame, and grey, palette and CMYK images become RGB. Colour profiles are not applied, as in pyiqa.

    Raises:
        OSError: the file is missing, not a regular file, not an image, truncated or broken
        ValueError: an image of 32-bit numbers in an unknown range
    """
    return to_tensor(read_pixels(path))


def read_pixels(file: str | os.PathLike[str] | bytes) -> np.ndarray:
    """The same before scaling, (H, W, 3): uint8 in [0, 255], or float32 in [0, 1] where the file holds more bits.

    Args:
        file: path, or content of a file

    Raises:
        as `read_image`
    """
    if not isinstance(file, bytes):
        check_file(file)
    tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False  # pyiqa may have set it
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            return _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise OSError('not an image, or in a format that Pillow does not read') from None
    except (OSError, ValueError):
        raise
    except Exception as error:  # Pillow's readers raise all kinds of exceptions on broken files
        raise OSError(f'broken image file: {type(error).__name__}: {error}') from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


def to_tensor(pixels: np.ndarray) -> Tensor:
    """Pixels from `read_pixels`, (H, W, 3) -> (3, H, W), float32 in [0, 1]."""
    image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return image if image.is_floating_point() else image.float().div_(255)


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode[0] in 'IF':  # numbers of 16 or 32 bits, which Pillow's convert() would clip to 8
        grey, top = np.array(image, np.float32), 1.0 if image.mode == 'F' else 65535.0
        if not (grey >= 0).all() or not (grey <= top).all():
            raise ValueError(
                f'{image.mode} image with values in [{grey.min():g}, {grey.max():g}]; expected values in [0, {top:g}]'
            )
        if isinstance(image.info.get('transparency'), int):
            grey[grey == image.info['transparency']] = top
        return np.repeat(grey[..., None] / np.float32(top), 3, axis=2)
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return np.array(image.convert('RGB'))
