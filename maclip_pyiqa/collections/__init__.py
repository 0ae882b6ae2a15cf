"""More than one machine: image files, Parquet files and tars, scored on Ray into a folder of Parquet files."""

from typing import TYPE_CHECKING

from .._lazy import lazy

if TYPE_CHECKING:
    from .folder import read_manifest
    from .ray import score_collection

__all__ = ['read_manifest', 'score_collection']

__getattr__ = lazy(__name__, {'read_manifest': 'folder', 'score_collection': 'ray'})
