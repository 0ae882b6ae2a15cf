"""Scores that were written, read back alike: a table, or a folder of tables, local or a URL."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from datetime import datetime, timezone

from .schema import LABEL_KEY, Label, Row
from .tables import read_label, read_table
from .text import unescape_text

__all__ = ['ScoreSource', 'open_scores']


class ScoreSource:
    """Scores of a table or of a folder of tables, see `open_scores`.

    Attributes:
        path: path or URL
        label: what the scores are from; None: unknown
        changed: date and time of the last change, for people
    """

    def __init__(self, path: str, label: Label | None, changed: str) -> None:
        self.path, self.label, self.changed = path, label, changed

    def rows(self, text: Collection[str] = ()) -> list[Row]:
        """All rows; `text` names columns that are text even where they look like numbers."""
        if '://' not in self.path and not os.path.isdir(self.path):
            return read_table(self.path, text)
        from .collections import open_collection

        rows = [row | {'id': unescape_text(row['id'])} for row in open_collection(self.path).to_table().to_pylist()]
        return [{'path': row.pop('id'), **row} for row in rows]


def open_scores(path: str | os.PathLike[str]) -> ScoreSource:
    """Scores that were written: a table, or a folder of tables, local or a URL.

    Raises:
        OSError: there is none, or it cannot be read
        ValueError: not a table of scores
    """
    path = os.fspath(path)
    if '://' not in path and not os.path.isdir(path):
        changed = f'{datetime.fromtimestamp(os.path.getmtime(path), timezone.utc):%Y-%m-%d %H:%M} UTC'
        return ScoreSource(path, read_label(path), changed)  # type: ignore[arg-type]
    from .collections import open_collection, read_manifest

    data = open_collection(path)
    return ScoreSource(path, json.loads(data.schema.metadata[LABEL_KEY.encode()]), read_manifest(path)['updated'])
