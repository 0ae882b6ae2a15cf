"""What people's tables hold: cells as a file has them, and the values that they stand for.

People edit tables. Columns may have any order, and there may be columns of their own: numbers if all of their cells but
missing ones are, else text. Missing are null, numbers that are not finite, and the words of MISSING, but never in
`path`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

from ..schema import Row, column, complete_words
from ..text import MISSING, unescape_text

# Python's numbers may have underscores; what has leading zeros is a name such as 007
NAME, INTEGER = re.compile(r'_|^[+-]?0\d'), re.compile(r'-?\d+')


class Cells(NamedTuple):
    """Content of a file, before columns have types.

    Attributes:
        names: names of the columns; none where nothing is written yet
        rows: cells of each row
        lines: number of each row in the file, for messages
        mark: decimal mark of numbers in text; '': text is no number, as the format has numbers of its own
        unit: name of what `lines` counts
    """

    names: tuple[str, ...]
    rows: list[Row]
    lines: Sequence[int]
    mark: str = ''
    unit: str = 'line'


def values(path: str, cells: Cells, text: Collection[str] = ()) -> list[Row]:
    """Rows whose cells are values, see `read_table`; `text` names columns that are text whatever they look like.

    Raises:
        ValueError: a cell of the column `score` that is no number
    """
    rows: list[Row] = [{} for _ in cells.rows]
    for name in cells.names:
        known, cells_of = column(name), [row.get(name) for row in cells.rows]
        found: Sequence[Any]
        if known.role == 'key' or name in text:
            found = ['' if cell is None else unescape_text(str(cell)) for cell in cells_of]
        elif known.is_text:
            missing = None if known.kind == 'words' else ''
            found = [missing if _is_missing(cell) else unescape_text(str(cell)) for cell in cells_of]
        else:
            try:
                found = _numbers(name, cells_of, cells.mark or '.' * (name == 'score'))
            except ValueError as error:
                if name == 'score':
                    at, cell = error.args
                    raise ValueError(
                        f'{path}, {cells.unit} {cells.lines[at]}: {cell!r} in the column score is not a number; '
                        'expected one, or nothing for an image without a score. Correct that cell'
                    ) from None
                found = _texts(cells_of, in_text=bool(cells.mark))
        for row, value in zip(rows, found, strict=True):
            row[name] = value
    for row in rows:
        complete_words(row)
    return rows


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Names of columns; one that repeats gets a number, as in pandas."""
    found: dict[str, None] = {}
    for name in names:
        again = (f'{name}.{number}' for number in itertools.count(1))
        found[name if name not in found else next(other for other in again if other not in found)] = None
    return tuple(found)


def _numbers(name: str, cells: Sequence[Any], mark: str) -> list[int | float | None]:
    """Numbers of a column, with None for what is missing; ValueError(index, cell) for a cell that is no number."""
    found: list[int | float | None] = []
    for at, cell in enumerate(cells):
        try:
            cell = cell.strip() if isinstance(cell, str) else cell
            found.append(None if _is_missing(cell) else _number(cell, mark))
        except ValueError:
            raise ValueError(at, cell) from None
    known = column(name)
    integers = known.role == 'other' and all(value is None or isinstance(value, int) for value in found)
    kind = int if integers or known.kind == 'integer' else float
    return [None if value is None else kind(value) for value in found]


def _number(cell: Any, mark: str) -> int | float | None:
    if isinstance(cell, str) and mark:
        cell = cell.replace(mark, '.')
        if NAME.search(cell):
            raise ValueError
        cell = int(cell) if INTEGER.fullmatch(cell) else float(cell)
    if type(cell) is float:
        return cell if math.isfinite(cell) else None
    if isinstance(cell, (bool, str)) or not isinstance(cell, (Real, Decimal)):
        raise ValueError
    if isinstance(cell, int) and not -(2**63) <= cell < 2**63:  # too long for a number of Parquet
        raise ValueError
    return cell if isinstance(cell, int) else float(cell) if math.isfinite(cell) else None


def _texts(cells: Sequence[Any], in_text: bool) -> list[Any]:
    """Text of a column that is not all numbers; a column without any text stays as it is."""
    if not any(isinstance(cell, str) for cell in cells):
        return [None if _is_missing(cell) else cell for cell in cells]
    missing = _is_missing if in_text else lambda cell: cell is None
    return [None if missing(cell) else unescape_text(str(cell)) for cell in cells]


def _is_missing(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell in MISSING
    return cell is None or (isinstance(cell, (float, Decimal)) and not math.isfinite(cell))
