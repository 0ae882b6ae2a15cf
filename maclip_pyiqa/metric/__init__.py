"""The paper: tensors in, scores out."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .analysis import Analysis
    from .cues import Cues, box_cox, cosine_cue, fuse, magnitude_cue, standardise
    from .head import Head
    from .maclip import MACLIP
    from .prompts import PROMPTS
    from .views import ViewPlan

__all__ = [
    'MACLIP',
    'PROMPTS',
    'Analysis',
    'Cues',
    'Head',
    'ViewPlan',
    'box_cox',
    'cosine_cue',
    'fuse',
    'magnitude_cue',
    'standardise',
]

# loaded when first used, so that the command line reads prompts before torch is imported
__getattr__ = lazy(
    __name__,
    {
        'Analysis': 'analysis',
        **dict.fromkeys(('Cues', 'box_cox', 'cosine_cue', 'fuse', 'magnitude_cue', 'standardise'), 'cues'),
        'Head': 'head',
        'MACLIP': 'maclip',
        'PROMPTS': 'prompts',
        'ViewPlan': 'views',
    },
)
