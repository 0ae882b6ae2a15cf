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

CSV and JSON lines are flushed row by row. A Parquet file cannot be read before it is complete, so rows go to a journal
beside it, FILE.parquet.journal.jsonl, which `close` turns into the Parquet file and removes.

A label, see `label`, says which metric the scores are from. It is in FILE.meta.json beside CSV and JSON lines, and in
the schema's metadata of Parquet files, under the key `maclip_pyiqa`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from .._lazy import need
from .._version import __version__
from ..metric.prompts import summary_columns

if TYPE_CHECKING:
    from ..metric import MACLIP

__all__ = [
    *('FORMATS', 'CSVTable', 'JSONLTable', 'ParquetTable', 'PlainTable', 'Table', 'columns', 'escape_path', 'finished'),
    *('escape_text', 'label', 'label_difference', 'one_line', 'open_table', 'read_label', 'read_table', 'replacing'),
    *('rounded', 'unescape_text', 'write_csv'),
]

Row = dict[str, Any]
TEXT = ('path', 'flags', 'error')  # the columns of text; all others are numbers
WHOLE = ('width', 'height')  # the columns of whole numbers
LAST = (*WHOLE, 'flags', 'error')  # the last columns, those that are not scores


def columns(attributes: Iterable[str], others: Iterable[str] = (), details: bool = True) -> tuple[str, ...]:
    """Columns of a table, in order.

    Args:
        attributes: names of the metric's attributes, `MACLIP.attribute_names`
        others: names of other metrics
        details: whether there are cues and attributes

    Raises:
        ValueError: another metric's name is that of a column

    Example:
        >>> columns(['sharp'], ['niqe'])
        ('path', 'score', 'q_sim', 'q_mag', 'w_sim', 'attribute_sharp', 'niqe', 'width', 'height', 'flags', 'error')
    """
    others = tuple(others)
    for name in others:
        if name in ('path', *summary_columns(()), *LAST) or name.startswith('attribute_') or others.count(name) > 1:
            raise ValueError(f'a metric named {name!r} would share its column with another; give it another name')
    ours = summary_columns(tuple(attributes))
    return ('path', *(ours if details else ours[:1]), *others, *LAST)


def label(metric: MACLIP) -> dict[str, Any]:
    """What a table's scores are computed with: this package's version, `config` and `fingerprint` of the metric."""
    return {'maclip_pyiqa': __version__, 'config': metric.config, 'fingerprint': metric.fingerprint()}


def one_line(error: Exception) -> str:
    """An exception's message as the column `error` holds it: one line of at most 1000 characters."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = ' '.join(text.split()) or type(error).__name__
    return text if len(text) <= 1000 else text[:997] + '...'


# --- writing ----------------------------------------------------------------------------------------------------------


class Table:
    """Rows in a file or a stream: `fill` begins it, `write` adds a row, `close` completes it.

    Args:
        target: path of a file, or a text stream
        columns: see `columns`; a row's other keys are not written
    """

    def __init__(self, target: str | os.PathLike[str] | IO[str], columns: Sequence[str]) -> None:
        self.path, self.columns = '', tuple(columns)
        self.file: IO[str] | None = None
        if isinstance(target, (str, os.PathLike)):
            self.path = os.path.realpath(target)
        else:
            self.file = target
        # what cannot be replaced: streams, and paths such as /dev/stdout or that of a named pipe
        self.is_stream = not self.path or (os.path.exists(self.path) and not os.path.isfile(self.path))

    def fill(self, rows: Iterable[Row] = (), label: dict[str, Any] | None = None) -> None:
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
        self.file.writelines(map(self._line, rows))
        self.file.flush()

    def _header(self) -> str:
        return ''

    def _line(self, row: Row) -> str:
        raise NotImplementedError

    @staticmethod
    def _open(path: str, mode: str) -> IO[str]:
        return open(path, mode, newline='', encoding='utf-8', errors='surrogateescape')

    @classmethod
    def read(cls, path: str, value: Callable[[str, Any], Any] | None = None) -> tuple[tuple[str, ...], list[Row]]:
        """Columns (none where nothing is written yet) and rows; `value` makes values of cells, by default `_value`.

        Raises:
            OSError: the file cannot be read
            ValueError: it is no table of this format
        """
        raise ValueError(f'{path} cannot be read back as a table; expected a file {" or ".join(FORMATS)}')


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
        return ','.join(_quote(_cell(name, row.get(name))) for name in self.columns) + '\n'

    @classmethod
    def read(cls, path: str, value: Callable[[str, Any], Any] | None = None) -> tuple[tuple[str, ...], list[Row]]:
        lines, value = _whole_lines(path), value or _value
        end = len(lines)  # a line break within quotes, so after an odd number of them, is not the end of a row
        while lines.count('"', 0, end) % 2:
            end = lines.rfind('\n', 0, end - 1) + 1
        names: tuple[str, ...] = ()
        rows: list[Row] = []
        reader = csv.reader(io.StringIO(lines[:end], newline=''))
        try:
            for cells in filter(None, reader):
                if not names:
                    names = tuple(map(unescape_text, cells))
                elif len(cells) != len(names):
                    raise ValueError(f'{len(cells)} cells, not {len(names)}')
                else:
                    row = {name: value(name, cell or None) for name, cell in zip(names, cells, strict=True)}
                    if 'flags' in row and row.get('width') is not None:
                        row['flags'] = row['flags'] or ''  # an empty cell is none, or missing as the width is
                    rows.append(row)
        except (csv.Error, ValueError) as error:
            raise ValueError(f'{path}, line {reader.line_num}: not a row of scores: {error}') from error
        return names, rows


class JSONLTable(Table):
    """JSON lines: one object a line."""

    def _line(self, row: Row) -> str:
        cells: dict[str, Any] = {}
        for name in self.columns:
            value = row.get(name)
            if name in TEXT:
                cells[name] = None if value is None and name == 'flags' else escape_text(value or '')
            else:
                cells[escape_text(name)] = value if name in WHOLE else rounded(value)
        return json.dumps(cells) + '\n'

    @classmethod
    def read(cls, path: str, value: Callable[[str, Any], Any] | None = None) -> tuple[tuple[str, ...], list[Row]]:
        rows, value = [], value or _value
        for number, line in enumerate(_whole_lines(path).split('\n')[:-1], start=1):
            try:
                cells = {unescape_text(key): value for key, value in json.loads(line).items()}
                rows.append({name: value(name, cell) for name, cell in cells.items()})
            except (AttributeError, TypeError, ValueError) as error:
                raise ValueError(f'{path}, line {number}: not a row of scores: {error}') from error
        return tuple(rows[0]) if rows else (), rows


class ParquetTable(Table):
    """Parquet, through a journal of JSON lines until it is complete. Needs pyarrow."""

    def __init__(self, target: str | os.PathLike[str] | IO[str], columns: Sequence[str]) -> None:
        super().__init__(target, columns)
        if self.is_stream:
            raise ValueError('Parquet cannot be written to a stream; expected the path of a file')
        need('Parquet', 'pyarrow', extra='parquet')
        self.journal = JSONLTable(_journal(self.path), columns)
        self.label: dict[str, Any] | None = None

    def fill(self, rows: Iterable[Row] = (), label: dict[str, Any] | None = None) -> None:
        self.journal.fill(rows, label)
        self.label = label

    def write(self, row: Row) -> None:
        self.journal.write(row)

    def close(self) -> None:
        import pyarrow as pa
        import pyarrow.json
        import pyarrow.parquet

        self.journal.close()
        types = {**dict.fromkeys(TEXT, pa.string()), **dict.fromkeys(WHOLE, pa.int64())}
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
    def read(cls, path: str, value: Callable[[str, Any], Any] | None = None) -> tuple[tuple[str, ...], list[Row]]:
        if os.path.exists(_journal(path)):  # not complete yet; the journal has all rows, those of a resumed file too
            return JSONLTable.read(_journal(path), value)
        need('a Parquet table', 'pyarrow', extra='parquet')
        import pyarrow as pa
        import pyarrow.parquet

        try:
            with open(path, 'rb') as file:
                table = pa.parquet.read_table(file)
        except pa.ArrowInvalid as error:
            raise ValueError(f'{path} is not a complete Parquet file: {one_line(error)}') from error
        table = table.rename_columns([unescape_text(name) for name in table.column_names])
        rows = table.to_pylist()
        for row in rows:
            row |= {
                name: (value or _value)(name, row[name]) for name in row if name in TEXT or isinstance(row[name], str)
            }
        return tuple(table.column_names), rows


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

    with replacing(os.path.realpath(path)) as part, open(part, 'w', newline='', encoding='utf-8') as file:
        for line in (list(rows[0]) if rows else [], *(list(row.values()) for row in rows)):
            file.write(','.join(map(cell, line)) + '\n')


# --- reading ----------------------------------------------------------------------------------------------------------


def read_table(path: str | os.PathLike[str], text: Collection[str] | None = None) -> list[Row]:
    """Rows of a table, as they were given to it, but for numbers, which it holds with 6 decimals.

    A last line without its line break is skipped, as the write of that row was cut off. Of a Parquet file that is not
    complete, the rows are read from its journal.

    Args:
        path: .csv, .jsonl or .parquet
        text: columns of your own that are text, such as one that names the image; other columns are text where a cell
            is not a number. None: there are none, and such a cell is an error

    Returns:
        for each row its columns: `path` and `error` as str, `flags` as str or None, `width` and `height` as int or
        None, all others as float or None

    Raises:
        OSError: the file cannot be read
        ValueError: an unknown suffix, or not a table of scores
    """

    def value(name: str, cell: Any) -> Any:
        if text is not None and name not in (*TEXT, *WHOLE):
            if name in text:
                return '' if cell is None else unescape_text(str(cell))
            with contextlib.suppress(TypeError, ValueError):
                return _value(name, cell)
            return unescape_text(cell) if isinstance(cell, str) else cell
        return _value(name, cell)

    return _format(path).read(os.path.realpath(path), value)[1]


def read_label(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The label of a table (see `label`); None: it has none.

    Raises:
        OSError, ValueError: the label cannot be read
    """
    path = os.path.realpath(path)
    if _format(path) is ParquetTable:
        if not os.path.exists(_journal(path)):
            need('a Parquet table', 'pyarrow', extra='parquet')
            import pyarrow.parquet

            text = (pyarrow.parquet.read_schema(path).metadata or {}).get(b'maclip_pyiqa')
            return None if text is None else json.loads(text)
        path = _journal(path)
    try:
        with open(path + '.meta.json', encoding='utf-8') as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def finished(path: str | os.PathLike[str], columns: Sequence[str], label: dict[str, Any] | None = None) -> list[Row]:
    """Rows of an earlier table that have a score, to be kept when a run is resumed.

    Args:
        path: path of the table; it need not exist
        columns: columns that it must have
        label: label of the metric that its scores must be from; None: any

    Raises:
        OSError: the file cannot be read
        ValueError: it is not a table of scores, or of other columns, or of another metric (the message says what
            differs)
    """
    path = os.path.realpath(path)
    try:
        found, rows = _format(path).read(path)
    except FileNotFoundError:
        return []
    if found and found != tuple(columns):
        raise ValueError(
            f'{path} cannot be resumed: its columns are {", ".join(found)}; expected {", ".join(columns)}. '
            'Use the options that it was written with, or another file.'
        )
    rows = [row for row in rows if row['score'] is not None]
    if label is None:
        return rows
    old = read_label(path)
    if old is None and (rows or not found) and os.path.getsize(path):
        raise ValueError(
            f'{path} cannot be resumed: there is no label that says which metric its scores are from. '
            f'Expected it in {path}.meta.json; write to another file.'
        )
    if old is not None and rows and old['fingerprint'] != label['fingerprint']:
        raise ValueError(
            f'{path} cannot be resumed: its scores are from another metric; {label_difference(old, label)}. '
            'Use the options and weights that it was written with, or another file.'
        )
    return rows


def label_difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs between two labels, in words."""
    new = json.loads(json.dumps(new))  # tuples as the lists that they are in `old`
    before, now = old['config'], new['config']
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if names:
        return '; '.join(f'{name} was {before.get(name)!r} and is {now.get(name)!r}' for name in names)
    versions = old['maclip_pyiqa'], new['maclip_pyiqa']
    changed = '' if versions[0] == versions[1] else f', or maclip_pyiqa, which was {versions[0]} and is {versions[1]}'
    return f'the options are the same, so the weights differ{changed}'


# --- text -------------------------------------------------------------------------------------------------------------


def escape_path(path: str) -> str:
    r"""A path in one line of plain text: tab, line breaks and backslash as \t, \n, \r and \\."""
    for plain, escaped in (('\\', '\\\\'), ('\t', '\\t'), ('\n', '\\n'), ('\r', '\\r')):
        path = path.replace(plain, escaped)
    return path


def escape_text(text: str) -> str:
    """Valid UTF-8 without NUL; see the head of this file."""
    if not text.startswith('\ufffd') and not re.search(r'[\x00\ud800-\udfff]', text):
        return text
    escaped = re.sub(r'[\\\x00\ud800-\udfff]', lambda m: '\\\\' if m[0] == '\\' else f'\\u{ord(m[0]):04x}', text)
    return '\ufffd' + escaped


def unescape_text(text: str) -> str:
    if not text.startswith('\ufffd'):
        return text
    return re.sub(r'\\(?:\\|u([0-9a-f]{4}))', lambda m: chr(int(m[1], 16)) if m[1] else '\\', text[1:])


def _quote(text: str) -> str:
    # not csv.writer: before Python 3.13 it leaves a lone carriage return unquoted, where csv.reader ends the row
    return '"' + text.replace('"', '""') + '"' if re.search('[",\r\n]', text) else text


def _cell(name: str, value: Any) -> str:
    """A value as text, in a column of this name."""
    if name in TEXT:
        return escape_text(value or '')
    return ('' if value is None else str(value)) if name in WHOLE else _decimal(value)


def _value(name: str, cell: Any) -> Any:
    """What a cell, or its text, stands for; None is a missing value, or empty text. Other programs may have written
    whole numbers as 640.0."""
    if name in TEXT:
        return unescape_text(cell) if cell is not None else None if name == 'flags' else ''
    return None if cell is None else int(float(cell)) if name in WHOLE else float(cell)


def rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


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


def _whole_lines(path: str) -> str:
    """Text of a file up to its last line break, without the byte order mark that spreadsheets write."""
    with open(path, 'rb') as file:
        data = file.read()
    try:
        return data[: data.rfind(b'\n') + 1].decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not a table of scores: it is not UTF-8') from error


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """A path to write to; it replaces `path` at once when all is written, and is removed where that fails."""
    part = path + '.part'
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        _remove(part)
        raise


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
