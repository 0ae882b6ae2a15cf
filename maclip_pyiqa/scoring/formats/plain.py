"""Plain lines: scores for people and pipes, and lists of paths. They are written only."""

from __future__ import annotations

from ..schema import Row, column
from ..text import decimal, escape_path
from .table import Table


class PlainTable(Table):
    """Lines `path<TAB>score...` of the rows that have a score, without a header: path, scores and cues only."""

    def _line(self, row: Row) -> str:
        if row['score'] is None:
            return ''
        names = [name for name in self.columns if column(name).role in ('quality', 'detail', 'other')]
        return '\t'.join([escape_path(row['path']), *(decimal(row.get(name)) for name in names)]) + '\n'


class PathList(Table):
    """The paths alone, as they are, one a line."""

    def _line(self, row: Row) -> str:
        if 'path' not in row:
            raise ValueError(f'there is no column path, but {", ".join(row)}; expected a table of scores')
        if '\n' in row['path']:
            raise ValueError(f'the path {row["path"]!r} has a line break, so it cannot be a line; write another format')
        return row['path'] + '\n'
