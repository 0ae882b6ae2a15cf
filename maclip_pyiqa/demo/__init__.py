"""The demonstration: a photo degraded step by step and scored by the demonstration backbone, in one picture."""

from pathlib import Path
from typing import TYPE_CHECKING

from .._lazy import lazy
from ..backbone import NOTE

if TYPE_CHECKING:
    from .degradations import DEGRADATIONS, reopened
    from .showcase import run

__all__ = ['DEGRADATIONS', 'NOTE', 'PHOTO', 'reopened', 'run']

PHOTO = Path(__file__).parent / 'astronaut.jpg'  # NASA, public domain

__getattr__ = lazy(__name__, {'DEGRADATIONS': 'degradations', 'reopened': 'degradations', 'run': 'showcase'})
