"""What all formats of tables share: rows in a file or a stream, and how an earlier run is resumed."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any

from ..._files import replacing
from ..find import same_file
from ..schema import Label, Row, as_label, column, label_difference
from ..text import unescape_text
from .cells import Cells, values

if TYPE_CHECKING:
    import pyarrow as pa

LABEL_SUFFIX = '.meta.json'  # of the file beside a table that holds its label


class Table:
    """Rows in a file or a stream: `fill` begins it, `write` adds a row, `close` completes it.

    Args:
        target: path of a file, or a text stream
        columns: names of the columns; a row's other keys are not written

    Example::

        from maclip_pyiqa import open_scores
        from maclip_pyiqa.scoring import open_table

        scores = open_scores('scores.csv')
        table = open_table('scores.parquet', scores.columns)
        table.fill(scores.rows(), label=scores.label)
        table.close()
    """

    def __init__(self, target: str | os.PathLike[str] | IO[str], columns: Iterable[str]) -> None:
        self.path, self.columns = '', tuple(columns)
        self.own: tuple[str, ...] = ()  # columns of the user in a resumed file
        self.own_cells: dict[str, Row] = {}  # `same_file` of a path -> what it has there
        self.file: IO[str] | None = None
        if isinstance(target, (str, os.PathLike)):
            self.path = os.path.realpath(target)
        else:
            self.file = target
        # what cannot be replaced: streams, and paths such as /dev/stdout or that of a named pipe
        self.is_stream = not self.path or (os.path.exists(self.path) and not os.path.isfile(self.path))

    def resume(self, label: Label | None = None, again: Collection[str] | None = None) -> list[Row]:
        """Rows of an earlier run that stay: those with a score, and others; they, or more, go to `fill`.

        From then on the table has the columns of its file, in their order, and what the user's own columns hold.

        Args:
            label: label of the metric that the scores must be from; None: any
            again: `same_file` of paths that are scored again where they have no score; None: all of them

        Raises:
            OSError: the file cannot be read
            ValueError: it is not a table of scores, or of other columns, or of another metric (the message says what
                differs)
        """
        try:
            cells = self._read(self.path)
        except FileNotFoundError:
            return []
        names, rows = cells.names, values(self.path, cells)
        required = {name for name in self.columns if column(name).role not in ('image', 'error')}
        ours = {name for name in names if column(name).role in ('quality', 'detail')}
        if names and not (required <= {*names} and ours <= {*self.columns}):
            raise ValueError(
                f'{self.path} cannot be resumed: its columns are {", ".join(names)}; expected '
                f'{", ".join(self.columns)}. Use the options that it was written with, or another file.'
            )
        for name in self.columns:
            if not column(name).is_text and any(isinstance(row.get(name), str) for row in rows):
                raise ValueError(
                    f'{self.path} cannot be resumed: its column {name} has text; expected numbers. '
                    'Correct it, or write to another file.'
                )
        self._check_label(label, names, any(row['score'] is not None for row in rows))
        self.own = tuple(name for name in names if name not in self.columns)
        self.columns = (*names, *(name for name in self.columns if name not in names))
        if self.own:
            self._keep_cells(cells.rows, rows, cells.mark)
        if again is None:
            return [row for row in rows if row['score'] is not None]
        return [row for row in rows if row['score'] is not None or same_file(row['path']) not in again]

    def fill(self, rows: Iterable[Row] = (), label: Label | None = None) -> None:
        """Begin, with these rows in place of all earlier ones. A file is replaced at once, never half written.

        Args:
            rows: rows of `score_files`
            label: label of the scores; None: unknown. Streams have no label

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
            with replacing(self.path + LABEL_SUFFIX) as part, open(part, 'w', encoding='utf-8') as file:
                json.dump(label, file, indent=1)
        else:
            remove(self.path + LABEL_SUFFIX)
        self.file = self._open(self.path, 'a')

    def write(self, row: Row) -> None:
        """Add a row, and flush it to the file."""
        self._put([row])

    def close(self) -> None:
        """Complete the file. Streams stay open."""
        if self.path and self.file is not None:
            self.file.close()

    def save(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema, label: Label | None = None) -> None:
        """Write a file whole from batches of Arrow, whose text is escaped.

        Raises:
            OSError: the file cannot be written
            ValueError, TypeError: the format cannot hold a column
        """
        self.own = tuple(name for name in self.columns if column(name).role == 'other')
        self.fill((row for batch in batches for row in plain_rows(batch)), label)
        self.close()

    def _put(self, rows: Iterable[Row], header: bool = False) -> None:
        if self.file is None:
            raise ValueError('nothing can be written before fill()')
        if header:
            self.file.write(self._header())
        if self.own_cells:
            empty = dict.fromkeys(self.own)
            rows = (row | empty | self.own_cells.get(same_file(row['path']), {}) for row in rows)
        self.file.writelines(map(self._line, rows))
        self.file.flush()

    def _header(self) -> str:
        return ''

    def _line(self, row: Row) -> str:
        raise NotImplementedError

    def _open(self, path: str, mode: str) -> IO[str]:
        return open(path, mode, newline='', encoding='utf-8', errors='surrogateescape')

    def _keep_cells(self, given: list[Row], rows: list[Row], mark: str) -> None:
        """Keep what the user's columns hold as it stands, but for numbers with a decimal comma."""
        for row, cells in zip(rows, given, strict=True):
            numbers = {name: row[name] for name in self.own if mark == ',' and not isinstance(row[name], str)}
            texts = {name: unescape_text(text) for name, text in cells.items() if isinstance(text, str)}
            held = {name: (cells | texts | numbers).get(name) for name in self.own}
            held = {name: value for name, value in held.items() if value not in (None, '')}
            if self.own_cells.setdefault(same_file(row['path']), held) != held:
                raise ValueError(
                    f'{self.path} cannot be resumed: it has {row["path"]!r} in rows that differ in '
                    f'{", ".join(self.own)}; expected each path once. Write to another file.'
                )

    def _check_label(self, new: Label | None, names: Iterable[str], has_scores: bool) -> None:
        """Check that the scores of the file are from the metric of a label; None: any."""
        old = self._read_label(self.path)
        if new is None:
            return
        if old is None and (has_scores or not names) and os.path.getsize(self.path):
            raise ValueError(
                f'{self.path} cannot be resumed: there is no label that says which metric its scores are from. '
                f'Expected it in {self._label_place(self.path)}. Write to another file.'
            )
        if old is not None and has_scores and old['fingerprint'] != new['fingerprint']:
            raise ValueError(
                f'{self.path} cannot be resumed: its scores are from another metric; {label_difference(old, new)}. '
                'Use the options and weights that it was written with, or another file.'
            )

    @classmethod
    def _read(cls, path: str) -> Cells:
        """Content of a file.

        Raises:
            OSError: the file cannot be read
            ValueError: it is no table of this format
        """
        raise ValueError(f'{path} cannot be read back as a table')

    @classmethod
    def _read_label(cls, path: str) -> Label | None:
        """The label of a file; None: it has none.

        Raises:
            OSError, ValueError: the label cannot be read
        """
        try:
            with open(path + LABEL_SUFFIX, encoding='utf-8') as file:
                return as_label(json.load(file))
        except FileNotFoundError:
            return None

    @classmethod
    def _label_place(cls, path: str) -> str:
        """Where the label of a file is, in words."""
        return path + LABEL_SUFFIX


def plain_rows(batch: pa.RecordBatch | pa.Table) -> Iterable[Row]:
    """Rows of Arrow as those of `score_files`: text without escapes, decimals as numbers, dates as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return unescape_text(value)
        if isinstance(value, (float, Decimal)):
            return float(value) if math.isfinite(value) else None
        return value.isoformat() if isinstance(value, datetime.date) else value

    names = [unescape_text(name) for name in batch.schema.names]
    return (dict(zip(names, map(plain, row.values()), strict=True)) for row in batch.to_pylist())


def remove(path: str) -> None:
    """Remove a file if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
