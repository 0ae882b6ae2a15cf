"""JSON lines: an object a line."""

from __future__ import annotations

import json
from typing import Any

from ..schema import Row, column, rounded
from ..text import escape_cell, escape_text, read_text, unescape_text
from .cells import Cells
from .table import Table


class JSONLTable(Table):
    """JSON lines."""

    def _line(self, row: Row) -> str:
        return json.dumps({escape_text(name): self._cell(name, row.get(name)) for name in self.columns}) + '\n'

    def _cell(self, name: str, value: Any) -> Any:
        known = column(name)
        if known.is_text:
            return None if value is None and known.kind == 'words' else escape_cell(name, value or '')
        if name in self.own:
            return escape_text(value) if isinstance(value, str) else value
        return value if known.kind == 'integer' else rounded(value)

    @classmethod
    def _read(cls, path: str) -> Cells:
        rows: list[Row] = []
        numbers: list[int] = []
        lines = read_text(path).split('\n')
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = {unescape_text(name): cell for name, cell in json.loads(line).items()}
            except ValueError as error:
                if number == len(lines) and line.startswith('{'):
                    break  # without its line break: the write of it was cut off
                raise ValueError(f'{path}, line {number}: not a row of scores: {error}') from error
            except AttributeError:
                raise ValueError(f'{path}, line {number}: expected an object, {{"path": ..., "score": ...}}') from None
            rows.append(row)
            numbers.append(number)
        return Cells(tuple(dict.fromkeys(name for row in rows for name in row)), rows, numbers)
