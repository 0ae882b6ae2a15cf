"""The demonstration: a photo degraded step by step and scored by the demonstration backbone, in one picture."""

from pathlib import Path

__all__ = ['PHOTO']

#: Path of the demonstration's photo, 512x384 pixels (NASA, public domain).
#:
#: Example::
#:
#:     from maclip_pyiqa.demo import PHOTO
#:     from maclip_pyiqa.scoring import read_image
#:
#:     photo = read_image(PHOTO)  # (3, 384, 512)
PHOTO = Path(__file__).parent / 'astronaut.jpg'
