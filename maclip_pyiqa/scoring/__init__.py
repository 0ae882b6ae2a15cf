"""Many files: find, read, batch, score, rows, tables. Nothing here knows a command line."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .batch import groups, read_cell, read_file, read_files
    from .filter import filter_scores
    from .find import find_images
    from .flags import FLAGS, find_flags
    from .formats import open_table, read_label, read_table
    from .others import load_metrics
    from .read import read_image, read_pixels, to_tensor
    from .schema import columns, label
    from .score import score_files, score_read
    from .source import open_scores

__all__ = [
    'FLAGS',
    'columns',
    'filter_scores',
    'find_flags',
    'find_images',
    'groups',
    'label',
    'load_metrics',
    'open_scores',
    'open_table',
    'read_cell',
    'read_file',
    'read_files',
    'read_image',
    'read_label',
    'read_pixels',
    'read_table',
    'score_files',
    'score_read',
    'to_tensor',
]

__getattr__ = lazy(
    __name__,
    {
        **dict.fromkeys(('groups', 'read_cell', 'read_file', 'read_files'), 'batch'),
        'filter_scores': 'filter',
        'find_images': 'find',
        **dict.fromkeys(('FLAGS', 'find_flags'), 'flags'),
        'load_metrics': 'others',
        **dict.fromkeys(('read_image', 'read_pixels', 'to_tensor'), 'read'),
        **dict.fromkeys(('score_files', 'score_read'), 'score'),
        'open_scores': 'source',
        **dict.fromkeys(('columns', 'label'), 'schema'),
        **dict.fromkeys(('open_table', 'read_label', 'read_table'), 'formats'),
    },
)
