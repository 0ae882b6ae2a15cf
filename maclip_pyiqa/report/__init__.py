"""Figures and pages of scores."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .page import write_report
    from .pictures import Maps

__all__ = ['Maps', 'write_report']

__getattr__ = lazy(__name__, {'Maps': 'pictures', 'write_report': 'page'})
