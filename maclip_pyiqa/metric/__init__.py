"""The paper: tensors in, scores out."""

from .analysis import Analysis
from .cues import Cues
from .maclip import MACLIP
from .prompts import PROMPTS
from .views import ViewPlan

__all__ = ['MACLIP', 'PROMPTS', 'Analysis', 'Cues', 'ViewPlan']
