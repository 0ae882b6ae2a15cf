"""Scores of versions that are folders of images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from ..metric import MACLIP
from ..report.pictures import Maps
from ..scoring.schema import Row
from ..scoring.score import score_files
from .pairing import Images, Version

__all__ = ['score_folders']


def score_folders(
    images: Images, versions: Sequence[Version], metric: MACLIP, **options: Any
) -> tuple[Images, Mapping[str, dict[str, Any]]]:
    """Score the images of folders that are in two versions or more. Each file is scored once.

    Args:
        images: rows of the images, see `pair`; they stay as they are
        versions: versions, see `read_versions`
        metric: metric that scores
        options: options of `score_files`

    Returns:
        the images with rows of scores in place of those of folders, and the windows' values of the images by path
    """
    folders = [not version.scored for version in versions]
    paired = {key: rows for key, rows in images.items() if len(rows) - rows.count(None) > 1}
    paths: dict[str, str] = {}  # of each file, which may be there twice: a folder may be compared with itself
    for rows in paired.values():
        for row, is_folder in zip(rows, folders, strict=True):
            if row is not None and is_folder:
                paths.setdefault(os.path.realpath(row['path']), row['path'])
    maps = Maps()
    rows_as_they_come = score_files(metric, paths.values(), each=maps, **options)
    progress = tqdm(rows_as_they_come, total=len(paths), unit=' images', disable=None)
    scores = dict(zip(paths, progress, strict=True))

    def scored(row: Row | None, is_folder: bool) -> Row | None:
        if row is None or not is_folder:
            return row
        return scores[os.path.realpath(row['path'])] | {'path': row['path']}

    return images | {key: tuple(map(scored, rows, folders)) for key, rows in paired.items()}, maps
