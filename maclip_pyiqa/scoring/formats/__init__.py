"""Formats of tables of scores, by the suffix of a file: one module each, and one line in TABLES or LISTS.

csv       .csv, and what spreadsheets make of it
jsonl     .jsonl, an object a line
parquet   .parquet, through a journal until it is complete
plain     lines for people and pipes, which are not read back
table     what all have in common: writing row by row, resuming
cells     from what people's files hold to values
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from ..._lists import as_names
from ..schema import Label, Row
from .cells import values
from .csv import CSVTable
from .jsonl import JSONLTable
from .parquet import ParquetTable
from .plain import PathList
from .table import Table

TABLES: dict[str, type[Table]] = {'.csv': CSVTable, '.jsonl': JSONLTable, '.parquet': ParquetTable}
LISTS: dict[str, type[Table]] = {**TABLES, '.txt': PathList}  # of images that were chosen


def open_table(
    path: str | os.PathLike[str], columns: Sequence[str], formats: Mapping[str, type[Table]] = TABLES
) -> Table:
    """A table in a file, in the format of its suffix.

    Args:
        path: path of the file; nothing is written before `Table.fill`
        columns: names of the columns, see `columns`
        formats: formats by suffix

    Raises:
        ValueError: an unknown suffix, or a stream where the format needs a file
        ModuleNotFoundError: the format's library is not installed

    Example::

        from contextlib import closing

        from maclip_pyiqa import MACLIP, score_files
        from maclip_pyiqa.scoring import columns, find_images, label, open_table

        metric = MACLIP()
        with closing(open_table('new.csv', columns(metric.attribute_names))) as table:
            table.fill(label=label(metric))
            for row in score_files(metric, find_images('photos')):
                table.write(row)
    """
    return _format(path, formats)(path, columns)


def read_table(path: str | os.PathLike[str], text: Collection[str] = ()) -> list[Row]:
    """Rows of a table, as they were given to it, but for numbers, which it holds with 6 decimals.

    People may have edited it, see cells.py and csv.py. A last line without its line break is skipped unless it is
    complete: otherwise the write of that row was cut off. Of a Parquet file that is not complete, the rows are read
    from its journal.

    Args:
        path: path of the file, .csv, .jsonl or .parquet
        text: names of columns that are text even where they look like numbers, and never missing

    Returns:
        for each row its columns: `path` and `error` as str, `flags` as str or None, `width` and `height` as int or
        None, `score` as float or None; all others as float, int or None, or as str or None

    Raises:
        OSError: the file cannot be read
        ValueError: an unknown suffix, or not a table of scores
    """
    cells = _format(path, TABLES)._read(os.path.realpath(path))
    return values(os.fspath(path), cells, as_names('text', text))


def read_columns(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the columns of a table; none where nothing is written yet."""
    return _format(path, TABLES)._read(os.path.realpath(path)).names


def read_label(path: str | os.PathLike[str]) -> Label | None:
    """The label of a table, see `schema.Label`; None: it has none.

    Raises:
        OSError, ValueError: the label cannot be read
    """
    return _format(path, TABLES)._read_label(os.path.realpath(path))


def _format(path: str | os.PathLike[str], formats: Mapping[str, type[Table]]) -> type[Table]:
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in formats:
        raise ValueError(f'{os.fspath(path)!r} has no suffix of a table; expected one of {", ".join(formats)}')
    return formats[suffix]
