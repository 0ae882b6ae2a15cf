"""MA-CLIP, a no-reference image quality metric, as a torch module and a pyiqa metric.

>>> import pyiqa
>>> metric = pyiqa.create_metric('maclip')  # doctest: +SKIP
"""

from .metric.maclip import MACLIP
from .integrations.pyiqa import register
from .backbone.weights import WeightsError

__all__ = ['MACLIP', 'WeightsError', '__version__', 'register']
__version__ = '0.1.0'

try:
    register()
except ModuleNotFoundError as error:
    if error.name != 'pyiqa':  # without pyiqa the class works all the same; a broken pyiqa is not hidden
        raise
