"""CSV, as RFC 4180 has it but for line breaks of one character, and what spreadsheets make of it.

The reader takes commas, semicolons or tabs (with the latter two a decimal comma too), UTF-8 with or without a byte
order mark, and UTF-16. FILE.excel.csv is written with a byte order mark, by which Excel recognises UTF-8. Text stays as
it is: a path such as '=1+1.png' is a formula for a spreadsheet. Import such files as text.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import IO, Any

from ..._files import replacing
from ..schema import Row, column
from ..text import decimal, escape_cell, escape_text, read_text, unescape_text
from .cells import Cells, unique
from .table import Table

QUOTED = re.compile('[",\r\n]')  # text with these is in quotes


class CSVTable(Table):
    """Comma-separated values with a header."""

    def _header(self) -> str:
        return ','.join(_quote(escape_text(name)) for name in self.columns) + '\n'

    def _line(self, row: Row) -> str:
        return ','.join([self._cell(name, row.get(name)) for name in self.columns]) + '\n'

    def _cell(self, name: str, value: Any) -> str:
        if value is None:
            return ''
        if isinstance(value, str) or column(name).is_text:
            return _quote(escape_cell(name, value))
        if isinstance(value, float) and name not in self.own:
            return decimal(value)
        if isinstance(value, (bytes, dict, list)):
            raise TypeError(f'CSV holds no {type(value).__name__}, as in the column {name}')
        return _quote(str(value))

    def _open(self, path: str, mode: str) -> IO[str]:
        return open(path, mode, newline='', encoding=_encoding(self.path), errors='surrogateescape')

    @classmethod
    def _read(cls, path: str) -> Cells:
        lines = list(io.StringIO(read_text(path), newline=''))
        names: tuple[str, ...] = ()
        empty: set[str] = set()  # columns without a name: an index, or what a spreadsheet leaves
        rows: list[Row] = []
        numbers: list[int] = []
        start = 0
        try:
            delimiter = _delimiter(lines)
            if _names_delimiter(lines):
                lines[0] = '\n'
            reader = csv.reader(lines, delimiter=delimiter)
            for cells in reader:
                start, first = reader.line_num, start + 1
                cut = _cut(''.join(lines[first - 1 :]), delimiter) if start == len(lines) else ''
                if not any(cells):
                    continue  # an empty row
                if not names:
                    names = () if cut else unique(map(unescape_text, cells))
                    empty = {name for name, given in zip(names, cells, strict=False) if not given}
                elif cut == 'quote' or (cut and len(cells) < len(names)):
                    break
                elif len(cells) != len(names):
                    raise ValueError(f'{len(cells)} cells, not {len(names)}')
                else:
                    rows.append(dict(zip(names, cells, strict=True)))
                    numbers.append(first)
        except (csv.Error, ValueError) as error:
            raise ValueError(f'{path}, line {start or 1}: not a row of scores: {error}') from error
        for name in empty - {name for row in rows for name in empty if row[name]}:
            names = tuple(other for other in names if other != name)
            for row in rows:
                del row[name]
        return Cells(names, rows, numbers, '.' if delimiter == ',' else ',')


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same keys to a file, at once: for results other than scores.

    Text is escaped as in tables of scores; numbers have 6 digits; None and NaN are empty cells, a bool true or false.

    Raises:
        OSError: the file cannot be written
    """

    def cell(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            return '' if math.isnan(value) else f'{value:.6g}'
        return '' if value is None else _quote(escape_text(str(value)))

    with replacing(path) as part, open(part, 'w', newline='', encoding=_encoding(path)) as file:
        for line in (list(rows[0]) if rows else [], *(list(row.values()) for row in rows)):
            file.write(','.join(map(cell, line)) + '\n')


def _encoding(path: str | os.PathLike[str]) -> str:
    return 'utf-8-sig' if os.fspath(path).lower().endswith('.excel.csv') else 'utf-8'


def _quote(text: str) -> str:
    # not csv.writer: before Python 3.13 it leaves a lone carriage return unquoted, where csv.reader ends the row
    return '"' + text.replace('"', '""') + '"' if QUOTED.search(text) else text


def _delimiter(lines: Sequence[str]) -> str:
    """The delimiter of CSV: the one by which the header has our columns, or else most columns."""
    if _names_delimiter(lines):
        return lines[0][4]

    def found(delimiter: str) -> tuple[int, int]:
        header: list[str] = next(filter(any, csv.reader(lines, delimiter=delimiter)), [])
        return len({'path', 'score'} & {*header}), len(header)

    return max(',;\t', key=found)


def _names_delimiter(lines: Sequence[str]) -> bool:
    """Whether the first line is Excel's `sep=;`."""
    return bool(lines) and re.fullmatch('sep=.\r?\n?', lines[0]) is not None


def _cut(row: str, delimiter: str) -> str:
    """What the last row of CSV lacks at its end: '', nothing; a 'quote'; or its 'line' break alone."""
    try:
        next(csv.reader([row], delimiter=delimiter, strict=True), None)
    except csv.Error as error:
        if 'unexpected end of data' in str(error):
            return 'quote'
    return '' if row.endswith(('\n', '\r')) else 'line'
