"""Many files: find, read, batch, score, rows, tables."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .batch import read_file
    from .filter import filter_scores
    from .find import find_images
    from .flags import FLAGS, find_flags
    from .formats import open_table
    from .others import load_metrics
    from .read import read_image, read_pixels, to_tensor
    from .reference import Reference
    from .schema import columns, label
    from .score import score_files, score_read
    from .source import open_scores

__all__ = ['FLAGS', 'Reference', 'columns', 'filter_scores', 'find_flags', 'find_images', 'label', 'load_metrics']
__all__ += ['open_scores', 'open_table', 'read_file', 'read_image', 'read_pixels', 'score_files', 'score_read']
__all__ += ['to_tensor']

__getattr__ = lazy(
    __name__,
    {
        'read_file': 'batch',
        'filter_scores': 'filter',
        'find_images': 'find',
        **dict.fromkeys(('FLAGS', 'find_flags'), 'flags'),
        'open_table': 'formats',
        'load_metrics': 'others',
        **dict.fromkeys(('read_image', 'read_pixels', 'to_tensor'), 'read'),
        'Reference': 'reference',
        **dict.fromkeys(('columns', 'label'), 'schema'),
        **dict.fromkeys(('score_files', 'score_read'), 'score'),
        'open_scores': 'source',
    },
)
