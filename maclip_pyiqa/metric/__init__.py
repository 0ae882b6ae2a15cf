"""The paper: tensors in, scores out."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .analysis import Analysis
    from .cues import Cues
    from .maclip import MACLIP
    from .prompts import PROMPTS
    from .views import ViewPlan

__all__ = ['MACLIP', 'PROMPTS', 'Analysis', 'Cues', 'ViewPlan']

# loaded when first used, so that the command line reads prompts before torch is imported
__getattr__ = lazy(
    __name__, {'Analysis': 'analysis', 'Cues': 'cues', 'MACLIP': 'maclip', 'PROMPTS': 'prompts', 'ViewPlan': 'views'}
)
