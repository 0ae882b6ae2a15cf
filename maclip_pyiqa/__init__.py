"""MA-CLIP, a no-reference image quality metric, as a torch module and a pyiqa metric.

>>> import pyiqa
>>> metric = pyiqa.create_metric('maclip')  # doctest: +SKIP

Importing this package imports neither torch nor pyiqa: a name is loaded when it is first used. Where pyiqa is imported,
before or after, its `create_metric` knows the metric names of `register`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import lazy
from ._version import __version__
from .integrations.pyiqa import register, register_when_imported

if TYPE_CHECKING:
    from .backbone import WeightsError
    from .comparison import compare
    from .evaluation.known_answers import verify
    from .loss import MACLIPLoss
    from .metric import MACLIP, Analysis, Cues, ViewPlan
    from .scoring import Reference, open_scores, score_files

__all__ = [
    'MACLIP',
    'Analysis',
    'Cues',
    'MACLIPLoss',
    'Reference',
    'ViewPlan',
    'WeightsError',
    '__version__',
    'compare',
    'open_scores',
    'register',
    'score_files',
    'verify',
]

__getattr__ = lazy(
    __name__,
    {
        **dict.fromkeys(('MACLIP', 'Analysis', 'Cues', 'ViewPlan'), 'metric'),
        'MACLIPLoss': 'loss',
        'WeightsError': 'backbone',
        'compare': 'comparison',
        **dict.fromkeys(('Reference', 'open_scores', 'score_files'), 'scoring'),
        'verify': 'evaluation.known_answers',
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
