"""Many files: find, read, batch, score, rows, tables."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .filter import FilterSummary, filter_scores
    from .find import find_images
    from .formats import Table, open_table
    from .others import load_metrics
    from .read import read_image
    from .reference import Reference
    from .schema import Label, columns, label
    from .score import score_files
    from .source import ScoreSource, open_scores

__all__ = [
    'FilterSummary',
    'Label',
    'Reference',
    'ScoreSource',
    'Table',
    'columns',
    'filter_scores',
    'find_images',
    'label',
    'load_metrics',
    'open_scores',
    'open_table',
    'read_image',
    'score_files',
]

__getattr__ = lazy(
    __name__,
    {
        **dict.fromkeys(('FilterSummary', 'filter_scores'), 'filter'),
        'find_images': 'find',
        **dict.fromkeys(('Table', 'open_table'), 'formats'),
        'load_metrics': 'others',
        'read_image': 'read',
        'Reference': 'reference',
        **dict.fromkeys(('Label', 'columns', 'label'), 'schema'),
        'score_files': 'score',
        **dict.fromkeys(('ScoreSource', 'open_scores'), 'source'),
    },
)
