"""Tables of scores: one definition of the columns, written as CSV, JSON lines, Parquet or plain lines, and read back.

Columns: `path`; `score`, `q_sim`, `q_mag`, `w_sim` and `attribute_NAME` of each attribute (means over the views);
one for each other metric, by its name; `width` and `height` of the image, pixels; `flags`, see flags.py; `error`. All
numbers but pixels are rounded to 6 decimals; a missing one is empty in CSV and null elsewhere. `flags` is empty where
there are none, and missing, like `width` and `height`, where the image could not be read. `error` is empty where
nothing failed.

CSV, JSON lines and Parquet are valid UTF-8 whatever a path or an error holds. Text that is not (file names may be any
bytes; Python holds those that are not UTF-8 as lone surrogates) or that holds a NUL starts with U+FFFD, the replacement
character, and continues with these characters as \\uXXXX and backslashes doubled. Text that itself starts with U+FFFD
is written that way too, so `read_table` reverses it exactly. All other text stays as it is: a CSV file can hold a path
such as '=1+1.png', which a spreadsheet runs as a formula. Import such files as text.

People edit tables. `read_table` also takes CSV with semicolons or tabs (then with a decimal comma too), UTF-16 or UTF-8
with a byte order mark, columns in any order, and further columns. A further column is numbers if all of its cells that
are not missing are, else text. Missing are null, numbers that are not finite, and the words of MISSING, but never in
`path`. An error that is such a word is written escaped, as above. FILE.excel.csv is written with a byte order mark, by
which Excel recognises UTF-8.

CSV and JSON lines are flushed row by row. A Parquet file cannot be read before it is complete, so rows go to a journal
beside it, FILE.parquet.journal.jsonl, which `close` turns into the Parquet file and removes.

A label, see `label`, says which metric the scores are from. It is in FILE.meta.json beside CSV and JSON lines, and in
the schema's metadata of Parquet files, under the key `maclip_pyiqa`.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import IO, Any, NamedTuple

from .._files import one_line, replacing
from .._lazy import need
from .._lists import as_names
from ..metric.prompts import summary_columns
from .find import same_file
from .schema import Label, Row, label_difference, rounded
from .text import MISSING, escape_cell, escape_path, escape_text, unescape_text

__all__ = [
    *('FORMATS', 'CSVTable', 'JSONLTable', 'ParquetTable', 'PlainTable', 'Table', 'encoding', 'finished'),
    *('open_table', 'path_column', 'read_label', 'read_table', 'write_csv'),
]

TEXT = ('path', 'flags', 'error')  # the columns of text; all others are numbers
WHOLE = ('width', 'height')  # the columns of whole numbers
LAST = (*WHOLE, 'flags', 'error')  # the last columns, those that are not scores


class Cells(NamedTuple):
    """Content of a file, before columns have types.

    Attributes:
        names: columns; none where nothing is written yet
        rows: cells of each row
        lines: number of each row in the file, for messages
        mark: decimal mark of numbers in text; '': text is no number, as the format has numbers of its own
        unit: what `lines` counts
    """

    names: tuple[str, ...]
    rows: list[Row]
    lines: Sequence[int]
    mark: str = ''
    unit: str = 'line'


# --- writing ----------------------------------------------------------------------------------------------------------


class Table:
    """Rows in a file or a stream: `fill` begins it, `write` adds a row, `close` completes it.

    Args:
        target: path of a file, or a text stream
        columns: see `columns`; a row's other keys are not written
    """

    def __init__(self, target: str | os.PathLike[str] | IO[str], columns: Sequence[str]) -> None:
        self.path, self.columns, self.encoding = '', tuple(columns), 'utf-8'
        self.further: tuple[str, ...] = ()  # columns that a resumed file has beside ours
        self.kept: dict[str, Row] = {}  # `same_file` of a path -> what it has there
        self.file: IO[str] | None = None
        if isinstance(target, (str, os.PathLike)):
            self.path, self.encoding = os.path.realpath(target), encoding(target)
        else:
            self.file = target
        # what cannot be replaced: streams, and paths such as /dev/stdout or that of a named pipe
        self.is_stream = not self.path or (os.path.exists(self.path) and not os.path.isfile(self.path))

    def resume(self, label: Label | None = None, again: Collection[str] | None = None) -> list[Row]:
        """Rows of an earlier run that stay: those with a score, and others; they, or more, go to `fill`.

        From then on the table has the columns of its file, in their order, and what the file holds in further columns.

        Args:
            label: label of the metric that the scores must be from; None: any
            again: `same_file` of paths that are scored again where they have no score; None: all of them

        Raises:
            OSError: the file cannot be read
            ValueError: it is not a table of scores, or of other columns, or of another metric (the message says what
                differs)
        """
        try:
            cells = self.read(self.path)
        except FileNotFoundError:
            return []
        given = [dict(row) for row in cells.rows]
        names, rows = cells.names, _values(self.path, cells)
        ours = [name for name in names if name in summary_columns(()) or name.startswith('attribute_')]
        if names and not ({*self.columns} - {*LAST} <= {*names} and {*ours} <= {*self.columns}):
            raise ValueError(
                f'{self.path} cannot be resumed: its columns are {", ".join(names)}; expected '
                f'{", ".join(self.columns)}. Use the options that it was written with, or another file.'
            )
        for name in self.columns:
            if name not in TEXT and any(isinstance(row.get(name), str) for row in rows):
                raise ValueError(
                    f'{self.path} cannot be resumed: its column {name} has text; expected numbers. '
                    'Correct it, or write to another file.'
                )
        _check_label(self.path, self.read_label(self.path), label, names, any(row['score'] is not None for row in rows))
        self.further = tuple(name for name in names if name not in self.columns)
        self.columns = (*names, *(name for name in self.columns if name not in names))
        for row, cell in zip(rows, given, strict=True) if self.further else ():
            # as they stand, but for numbers with a decimal comma
            numbers = {name: row[name] for name in self.further if cells.mark == ',' and not isinstance(row[name], str)}
            texts = {name: unescape_text(text) for name, text in cell.items() if isinstance(text, str)}
            held = {name: (cell | texts | numbers).get(name) for name in self.further}
            held = {name: value for name, value in held.items() if value not in (None, '')}
            if self.kept.setdefault(same_file(row['path']), held) != held:
                raise ValueError(
                    f'{self.path} cannot be resumed: it has {row["path"]!r} in rows that differ in '
                    f'{", ".join(self.further)}; expected each path once. Write to another file.'
                )
        if again is None:
            return [row for row in rows if row['score'] is not None]
        return [row for row in rows if row['score'] is not None or same_file(row['path']) not in again]

    def fill(self, rows: Iterable[Row] = (), label: Label | None = None) -> None:
        """Begin, with these rows in place of all earlier ones. A file is replaced at once, never half written.

        Args:
            rows: see `score_files`
            label: see `label`; None: without one. Streams have none

        Raises:
            OSError: the file cannot be written
        """
        if self.is_stream:
            self.file = self.file or self._open(self.path, 'w')
            self._put(rows, header=True)
            return
        self.close()
        with replacing(self.path) as part, self._open(part, 'w') as self.file:
            self._put(rows, header=True)
        # the label after the table: until then the table has no scores that an older label could be wrong about
        if label is not None:
            with replacing(self.path + '.meta.json') as part, open(part, 'w', encoding='utf-8') as file:
                json.dump(label, file, indent=1)
        else:
            _remove(self.path + '.meta.json')
        self.file = self._open(self.path, 'a')

    def write(self, row: Row) -> None:
        """Add a row, and flush it to the file."""
        self._put([row])

    def close(self) -> None:
        """Complete the file. Streams stay open."""
        if self.path and self.file is not None:
            self.file.close()

    def _put(self, rows: Iterable[Row], header: bool = False) -> None:
        if self.file is None:
            raise ValueError('nothing can be written before fill()')
        if header:
            self.file.write(self._header())
        if self.further:
            empty = dict.fromkeys(self.further)
            rows = (row | empty | self.kept.get(same_file(row['path']), {}) for row in rows)
        self.file.writelines(map(self._line, rows))
        self.file.flush()

    def _header(self) -> str:
        return ''

    def _line(self, row: Row) -> str:
        raise NotImplementedError

    def _open(self, path: str, mode: str) -> IO[str]:
        return open(path, mode, newline='', encoding=self.encoding, errors='surrogateescape')

    @classmethod
    def read(cls, path: str) -> Cells:
        """Content of a file.

        Raises:
            OSError: the file cannot be read
            ValueError: it is no table of this format
        """
        raise ValueError(f'{path} cannot be read back as a table; expected a file {" or ".join(FORMATS)}')

    @classmethod
    def read_label(cls, path: str) -> Label | None:
        """The label of a file; None: it has none.

        Raises:
            OSError, ValueError: the label cannot be read
        """
        try:
            with open(path + '.meta.json', encoding='utf-8') as file:
                return json.load(file)
        except FileNotFoundError:
            return None


class PlainTable(Table):
    """Lines `path<TAB>score...` of the rows that have a score, without a header and without the columns LAST."""

    def _line(self, row: Row) -> str:
        if row['score'] is None:
            return ''
        numbers = [_decimal(row.get(name)) for name in self.columns if name not in ('path', *LAST)]
        return '\t'.join([escape_path(row['path']), *numbers]) + '\n'


class CSVTable(Table):
    """Comma-separated values with a header, as RFC 4180 has them but for line breaks of one character."""

    def _header(self) -> str:
        return ','.join(_quote(escape_text(name)) for name in self.columns) + '\n'

    def _line(self, row: Row) -> str:
        return ','.join(_quote(_cell(name, row.get(name), name in self.further)) for name in self.columns) + '\n'

    @classmethod
    def read(cls, path: str) -> Cells:
        lines = list(io.StringIO(_text(path), newline=''))
        names: tuple[str, ...] = ()
        empty: set[str] = set()  # columns without a name: an index, or what a spreadsheet leaves
        rows: list[Row] = []
        places: list[int] = []
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
                    names = () if cut else _unique(map(unescape_text, cells))
                    empty = {name for name, given in zip(names, cells, strict=False) if not given}
                elif cut == 'quote' or (cut and len(cells) < len(names)):
                    break
                elif len(cells) != len(names):
                    raise ValueError(f'{len(cells)} cells, not {len(names)}')
                else:
                    rows.append(dict(zip(names, cells, strict=True)))
                    places.append(first)
        except (csv.Error, ValueError) as error:
            raise ValueError(f'{path}, line {start or 1}: not a row of scores: {error}') from error
        for name in empty - {name for row in rows for name in empty if row[name]}:
            names = tuple(other for other in names if other != name)
            for row in rows:
                del row[name]
        return Cells(names, rows, places, '.' if delimiter == ',' else ',')


class JSONLTable(Table):
    """JSON lines: one object a line."""

    def _line(self, row: Row) -> str:
        cells: dict[str, Any] = {}
        for name in self.columns:
            value = row.get(name)
            if name in TEXT:
                cells[name] = None if value is None and name == 'flags' else escape_cell(name, value or '')
            elif name in self.further:
                cells[escape_text(name)] = escape_text(value) if isinstance(value, str) else value
            else:
                cells[escape_text(name)] = value if name in WHOLE else rounded(value)
        return json.dumps(cells) + '\n'

    @classmethod
    def read(cls, path: str) -> Cells:
        rows: list[Row] = []
        places: list[int] = []
        lines = _text(path).split('\n')
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
            places.append(number)
        return Cells(tuple(dict.fromkeys(name for row in rows for name in row)), rows, places)


class ParquetTable(Table):
    """Parquet, through a journal of JSON lines until it is complete. Needs pyarrow."""

    def __init__(self, target: str | os.PathLike[str] | IO[str], columns: Sequence[str]) -> None:
        super().__init__(target, columns)
        if self.is_stream:
            raise ValueError('Parquet cannot be written to a stream; expected the path of a file')
        need('Parquet', 'pyarrow', extra='parquet')
        self.journal = JSONLTable(_journal(self.path), columns)
        self.label: Label | None = None
        self.types: dict[str, Any] = {}  # Arrow's, of further columns

    def resume(self, label: Label | None = None, again: Collection[str] | None = None) -> list[Row]:
        import pyarrow as pa

        rows, journal = super().resume(label, again), self.journal
        try:
            json.dumps(list(self.kept.values()))
            self.types = {name: pa.array([row.get(name) for row in self.kept.values()]).type for name in self.further}
        except (OverflowError, TypeError, pa.ArrowException) as error:
            raise ValueError(
                f'{self.path} cannot be resumed: {one_line(error)}; expected text or numbers in '
                f'{", ".join(self.further)}. Write to another file.'
            ) from error
        journal.columns, journal.further, journal.kept = self.columns, self.further, self.kept
        return rows

    def fill(self, rows: Iterable[Row] = (), label: Label | None = None) -> None:
        self.journal.fill(rows, label)
        self.label = label

    def write(self, row: Row) -> None:
        self.journal.write(row)

    def close(self) -> None:
        import pyarrow as pa
        import pyarrow.json
        import pyarrow.parquet

        self.journal.close()
        types = {**dict.fromkeys(TEXT, pa.string()), **dict.fromkeys(WHOLE, pa.int64()), **self.types}
        schema = pa.schema([(escape_text(name), types.get(name, pa.float64())) for name in self.columns])
        table = schema.empty_table()
        if os.path.getsize(self.journal.path):
            options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior='error')
            table = pa.json.read_json(self.journal.path, parse_options=options).select(schema.names)
        metadata = None if self.label is None else {'maclip_pyiqa': json.dumps(self.label)}
        with replacing(self.path) as part:
            pa.parquet.write_table(table.replace_schema_metadata(metadata), part)
        _remove(self.journal.path)
        _remove(self.journal.path + '.meta.json')

    @classmethod
    def read(cls, path: str) -> Cells:
        if _has_journal(path):
            return JSONLTable.read(_journal(path))
        need('a Parquet table', 'pyarrow', extra='parquet')
        import pyarrow as pa
        import pyarrow.parquet

        try:
            with open(path, 'rb') as file:
                table = pa.parquet.read_table(file)
        except pa.ArrowInvalid as error:
            raise ValueError(f'{path} is not a complete Parquet file: {one_line(error)}') from error
        names = _unique(map(unescape_text, table.column_names))
        return Cells(names, table.rename_columns(names).to_pylist(), range(1, len(table) + 1), unit='row')

    @classmethod
    def read_label(cls, path: str) -> Label | None:
        if _has_journal(path):
            return JSONLTable.read_label(_journal(path))
        need('a Parquet table', 'pyarrow', extra='parquet')
        import pyarrow.parquet

        text = (pyarrow.parquet.read_schema(path).metadata or {}).get(b'maclip_pyiqa')
        return None if text is None else json.loads(text)


FORMATS: dict[str, type[Table]] = {'.csv': CSVTable, '.jsonl': JSONLTable, '.parquet': ParquetTable}


def open_table(path: str | os.PathLike[str], columns: Sequence[str]) -> Table:
    """A table in a file, in the format of its suffix: see FORMATS.

    Args:
        path: path of the file; nothing is written before `Table.fill`
        columns: see `columns`

    Raises:
        ValueError: an unknown suffix, or a stream where the format needs a file
        ModuleNotFoundError: the format's library is not installed

    Example::

        with contextlib.closing(open_table('scores.csv', columns(metric.attribute_names))) as table:
            table.fill(label=label(metric))
            for row in score_files(metric, paths):
                table.write(row)
    """
    return _format(path)(path, columns)


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

    with replacing(os.path.realpath(path)) as part, open(part, 'w', newline='', encoding=encoding(path)) as file:
        for line in (list(rows[0]) if rows else [], *(list(row.values()) for row in rows)):
            file.write(','.join(map(cell, line)) + '\n')


# --- reading ----------------------------------------------------------------------------------------------------------


def read_table(path: str | os.PathLike[str], text: Collection[str] = ()) -> list[Row]:
    """Rows of a table, as they were given to it, but for numbers, which it holds with 6 decimals.

    See the head of this file for what tables that people edited may look like. A last line without its line break is
    skipped unless it is complete: otherwise the write of that row was cut off. Of a Parquet file that is not complete,
    the rows are read from its journal.

    Args:
        path: .csv, .jsonl or .parquet
        text: columns that are text even where they look like numbers, and never missing, such as one of names

    Returns:
        for each row its columns: `path` and `error` as str, `flags` as str or None, `width` and `height` as int or
        None, `score` as float or None; all others as float, int or None, or as str or None

    Raises:
        OSError: the file cannot be read
        ValueError: an unknown suffix, or not a table of scores
    """
    cells = _format(path).read(os.path.realpath(path))
    return _values(os.fspath(path), cells, as_names('text', text))


def path_column(names: Sequence[str]) -> str:
    """The column that names the images, of a table's: `path`, or the `id` of a collection, or else the first."""
    return next((name for name in ('path', 'id') if name in names), names[0])


def read_label(path: str | os.PathLike[str]) -> Label | None:
    """The label of a table (see `label`); None: it has none.

    Raises:
        OSError, ValueError: the label cannot be read
    """
    return _format(path).read_label(os.path.realpath(path))


def finished(path: str | os.PathLike[str], columns: Sequence[str], label: Label | None = None) -> list[Row]:
    """Rows of an earlier table that have a score, see `Table.resume`."""
    return open_table(path, columns).resume(label)


def _values(path: str, cells: Cells, text: Collection[str] = ()) -> list[Row]:
    """Rows whose cells are values, by columns."""
    text = {'path' if 'path' in cells.names else 'id', *text}
    rows = cells.rows
    for name in cells.names:
        column = [row.get(name) for row in rows]
        values: Sequence[Any]
        if name in text:
            values = ['' if cell is None else unescape_text(str(cell)) for cell in column]
        elif name in TEXT:
            missing = None if name == 'flags' else ''
            values = [missing if _is_missing(cell) else unescape_text(str(cell)) for cell in column]
        else:
            mark = cells.mark or '.' * (name == 'score')
            try:
                values = _numbers(name, column, mark)
            except ValueError as error:
                if name == 'score':
                    at, cell = error.args
                    raise ValueError(
                        f'{path}, {cells.unit} {cells.lines[at]}: {cell!r} in the column score is not a number; '
                        'expected one, or nothing for an image without a score. Correct that cell'
                    ) from None
                values = _texts(column, in_text=bool(cells.mark))
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    if 'flags' in cells.names:
        for row in rows:  # none, or missing as the width is
            if row['flags'] is None and row.get('width', row.get('score')) is not None:
                row['flags'] = ''
    return rows


def _numbers(name: str, column: Sequence[Any], mark: str) -> list[int | float | None]:
    """Numbers of a column, with None for what is missing; ValueError(index, cell) for a cell that is no number."""
    values: list[int | float | None] = []
    for at, cell in enumerate(column):
        try:
            cell = cell.strip() if isinstance(cell, str) else cell
            values.append(None if _is_missing(cell) else _number(cell, mark))
        except ValueError:
            raise ValueError(at, cell) from None
    whole = all(value is None or isinstance(value, int) for value in values) and name != 'score'
    kind = int if whole or name in WHOLE else float
    return [None if value is None else kind(value) for value in values]


def _number(cell: Any, mark: str) -> int | float | None:
    if isinstance(cell, str) and mark:
        cell = cell.strip().replace(mark, '.')
        # Python's numbers may have underscores; what has leading zeros is a name such as 007
        if re.search(r'_|^[+-]?0\d', cell):
            raise ValueError
        cell = int(cell) if re.fullmatch(r'-?\d+', cell) else float(cell)
    if isinstance(cell, (bool, str)) or not isinstance(cell, (Real, Decimal)):
        raise ValueError
    if isinstance(cell, int) and not -(2**63) <= cell < 2**63:  # too long for a number of Parquet
        raise ValueError
    return cell if isinstance(cell, int) else float(cell) if math.isfinite(cell) else None


def _texts(column: Sequence[Any], in_text: bool) -> list[Any]:
    """Text of a column that is not all numbers; a column without any text stays as it is."""
    if not any(isinstance(cell, str) for cell in column):
        return [None if _is_missing(cell) else cell for cell in column]
    missing = _is_missing if in_text else lambda cell: cell is None
    return [None if missing(cell) else unescape_text(str(cell)) for cell in column]


def _is_missing(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell in MISSING
    return cell is None or (isinstance(cell, (float, Decimal)) and not math.isfinite(cell))


def _check_label(path: str, old: Label | None, new: Label | None, names: Sequence[str], scored: bool) -> None:
    """Check that the scores of a table are from the metric of a label; None: any."""
    if new is None:
        return
    if old is None and (scored or not names) and os.path.getsize(path):
        raise ValueError(
            f'{path} cannot be resumed: there is no label that says which metric its scores are from. '
            f'Expected it in {"its metadata" if path.endswith(".parquet") else path + ".meta.json"}. Write to another '
            'file.'
        )
    if old is not None and scored and old['fingerprint'] != new['fingerprint']:
        raise ValueError(
            f'{path} cannot be resumed: its scores are from another metric; {label_difference(old, new)}. '
            'Use the options and weights that it was written with, or another file.'
        )


# --- cells ------------------------------------------------------------------------------------------------------------


def _quote(text: str) -> str:
    # not csv.writer: before Python 3.13 it leaves a lone carriage return unquoted, where csv.reader ends the row
    return '"' + text.replace('"', '""') + '"' if re.search('[",\r\n]', text) else text


def _cell(name: str, value: Any, further: bool) -> str:
    """A value as text, in a column of this name."""
    if value is None:
        return ''
    if name in TEXT or isinstance(value, str):
        return escape_cell(name, value)
    return _decimal(value) if isinstance(value, float) and not further else str(value)


def _decimal(value: float | None) -> str:
    return '' if rounded(value) is None else f'{value:.6f}'


# --- files ------------------------------------------------------------------------------------------------------------


def _format(path: str | os.PathLike[str]) -> type[Table]:
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in FORMATS:
        raise ValueError(f'{os.fspath(path)!r} has no suffix of a table; expected one of {", ".join(FORMATS)}')
    return FORMATS[suffix]


def _journal(path: str) -> str:
    return path + '.journal.jsonl'


def _has_journal(path: str) -> bool:
    """Whether a Parquet file is not complete: the journal has all rows then, those of a resumed file too."""
    try:
        changed = os.path.getmtime(_journal(path))
        return not os.path.exists(path) or changed >= os.path.getmtime(path)
    except FileNotFoundError:
        return False


def encoding(path: str | os.PathLike[str]) -> str:
    """Encoding of a text file that is written, by its name."""
    return 'utf-8-sig' if os.fspath(path).lower().endswith('.excel.csv') else 'utf-8'


def _text(path: str) -> str:
    """Text of a file without its byte order mark, and without a character that is cut at the end."""
    with open(path, 'rb') as file:
        data = file.read()
    codec = 'utf-16' if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else 'utf-8-sig'
    try:
        return codecs.getincrementaldecoder(codec)().decode(data)
    except UnicodeDecodeError as error:
        raise ValueError(
            f'{path} is not a table of scores: it is not UTF-8. Expected UTF-8, or UTF-16 with a byte order mark; save '
            "it as UTF-8, in Excel as 'CSV UTF-8'"
        ) from error


def _delimiter(lines: Sequence[str]) -> str:
    """The delimiter of CSV: the one by which the header has our columns, or else most columns."""

    if _names_delimiter(lines):
        return lines[0][4]

    def found(delimiter: str) -> tuple[int, int]:
        header: list[str] = next(filter(any, csv.reader(lines, delimiter=delimiter)), [])
        return len({'path', 'id', 'score'} & {*header}), len(header)

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


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    """Names of columns; one that repeats gets a number, as in pandas."""
    unique: dict[str, None] = {}
    for name in names:
        again = (f'{name}.{number}' for number in itertools.count(1))
        unique[name if name not in unique else next(other for other in again if other not in unique)] = None
    return tuple(unique)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
