"""The demonstration: a photo degraded step by step and scored by the demonstration backbone, in one picture."""

from pathlib import Path

__all__ = ['PHOTO']

PHOTO = Path(__file__).parent / 'astronaut.jpg'  # NASA, public domain
