"""Figures and pages of scores."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .figures import plot_analysis
    from .page import write_report
    from .pictures import Maps

__all__ = ['Maps', 'plot_analysis', 'write_report']

__getattr__ = lazy(__name__, {'Maps': 'pictures', 'plot_analysis': 'figures', 'write_report': 'page'})
