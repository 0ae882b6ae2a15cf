"""A CLIP, ready to use: weights found and read, open_clip's tower simplified, prompts encoded."""

from .clip import Backbone
from .loading import DEMO
from .weights import WeightsError

__all__ = ['DEMO', 'NOTE', 'Backbone', 'WeightsError']

NOTE = 'demonstration backbone: not CLIP, and not the published metric'  # belongs beside each of its scores
