"""Versions of the same images, compared: is B better than A? `maclip-pyiqa compare` as a library.

pairing     reads the versions, and finds which image of one belongs to which of another
statistics  statistics of paired values
verdict     `compare`: scores folders, compares each quantity, and says in words which version is better
page        the comparison as one page
"""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .statistics import Paired
    from .verdict import Comparison, Result, compare

__all__ = ['Comparison', 'Paired', 'Result', 'compare']

__getattr__ = lazy(__name__, {'Paired': 'statistics', **dict.fromkeys(('Comparison', 'Result', 'compare'), 'verdict')})
