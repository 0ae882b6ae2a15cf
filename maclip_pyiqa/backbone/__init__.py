"""A CLIP, ready to use: weights found and read, open_clip's tower simplified, prompts encoded."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .clip import Backbone
    from .loading import DEMO
    from .weights import WeightsError

__all__ = ['DEMO', 'NOTE', 'Backbone', 'WeightsError']

NOTE = 'demonstration backbone: not CLIP, and not the published metric'  # belongs beside each of its scores

__getattr__ = lazy(__name__, {'Backbone': 'clip', 'DEMO': 'loading', 'WeightsError': 'weights'})
