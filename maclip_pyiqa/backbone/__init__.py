"""A CLIP, ready to use: weights found and read, open_clip's tower simplified, prompts encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._lazy import lazy

if TYPE_CHECKING:
    from .clip import Backbone
    from .weights import WeightsError

__all__ = ['Backbone', 'WeightsError']

NOTE = 'demonstration backbone: not CLIP, and not the published metric'
FITTED = 'metric with a head fitted to ratings: not MA-CLIP as published'

__getattr__ = lazy(__name__, {'Backbone': 'clip', 'WeightsError': 'weights'})


def note(config: Mapping[str, Any] | None) -> str:
    """The note that belongs beside each score that is not the published metric's for its backbone or its head; '' for
    others.

    Args:
        config: options of a metric, as `MACLIP.config` gives them; None: unknown
    """
    config = config or {}
    notes = [NOTE] * (config.get('backbone') == 'demo') + [FITTED] * (config.get('head') is not None)
    return '; '.join(notes)
