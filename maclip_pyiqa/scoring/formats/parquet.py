"""Parquet, needs pyarrow. The schema's metadata holds the label, JSON under LABEL_KEY.

A Parquet file cannot be read before it is complete, so rows that come one by one go to a journal beside it,
FILE.parquet.journal.jsonl, which `close` turns into the Parquet file and removes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from ..._files import one_line, replacing
from ..._lazy import need
from ..schema import LABEL_KEY, Label, Row, arrow_schema, as_label, column, rounded
from ..text import escape_cell, escape_text, unescape_text
from .cells import Cells, unique
from .jsonl import JSONLTable
from .table import LABEL_SUFFIX, Table, remove

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS, GROUP_BYTES = 100_000, 1 << 27  # what a group of rows holds, at most about


class ParquetTable(Table):
    """Parquet, through a journal of JSON lines until it is complete."""

    def __init__(self, target: str | os.PathLike[str] | IO[str], columns: Sequence[str]) -> None:
        super().__init__(target, columns)
        if self.is_stream:
            raise ValueError('Parquet cannot be written to a stream; expected the path of a file')
        need('Parquet', 'pyarrow', extra='parquet')
        self.journal = JSONLTable(journal(self.path), columns)
        self.label: Label | None = None
        self.types: dict[str, Any] = {}  # Arrow's, of the user's columns

    def resume(self, label: Label | None = None, again: Collection[str] | None = None) -> list[Row]:
        import pyarrow as pa

        rows = super().resume(label, again)
        try:
            json.dumps(list(self.own_cells.values()))
            self.types = {name: pa.array([row.get(name) for row in self.own_cells.values()]).type for name in self.own}
        except (OverflowError, TypeError, pa.ArrowException) as error:
            raise ValueError(
                f'{self.path} cannot be resumed: {one_line(error)}; expected text or numbers in '
                f'{", ".join(self.own)}. Write to another file.'
            ) from error
        for name in ('columns', 'own', 'own_cells'):
            setattr(self.journal, name, getattr(self, name))
        return rows

    def fill(self, rows: Iterable[Row] = (), label: Label | None = None) -> None:
        self.journal.fill(rows, label)
        self.label = label

    def write(self, row: Row) -> None:
        self.journal.write(row)

    def close(self) -> None:
        import pyarrow as pa
        import pyarrow.json

        self.journal.close()
        schema = arrow_schema(self.columns, self.types)
        schema = pa.schema([field.with_name(escape_text(field.name)) for field in schema])
        table = schema.empty_table()
        if os.path.getsize(self.journal.path):
            options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior='error')
            table = pa.json.read_json(self.journal.path, parse_options=options).select(schema.names)
        self.save(table.to_batches(), table.schema, self.label)
        remove(self.journal.path)
        remove(self.journal.path + LABEL_SUFFIX)

    def save(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema, label: Label | None = None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = schema.with_metadata(_metadata(label))
        with replacing(self.path) as part, pq.ParquetWriter(part, schema) as writer:
            held: list[pa.RecordBatch] = []  # batches may be of a few rows: too few for a group of rows
            for batch in batches:
                held.append(batch.replace_schema_metadata(schema.metadata))
                if sum(map(len, held)) >= GROUP_ROWS or sum(each.nbytes for each in held) >= GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(held, schema))
                    held = []
            if held:
                writer.write_table(pa.Table.from_batches(held, schema))

    @classmethod
    def _read(cls, path: str) -> Cells:
        if has_journal(path):
            return JSONLTable._read(journal(path))
        need('a Parquet table', 'pyarrow', extra='parquet')
        import pyarrow.parquet as pq

        with open(path, 'rb') as file, _complete(path):
            table = pq.read_table(file)
        names = unique(map(unescape_text, table.column_names))
        return Cells(names, table.rename_columns(names).to_pylist(), range(1, len(table) + 1), unit='row')

    @classmethod
    def _read_label(cls, path: str) -> Label | None:
        if has_journal(path):
            return JSONLTable._read_label(journal(path))
        need('a Parquet table', 'pyarrow', extra='parquet')
        import pyarrow.parquet as pq

        with _complete(path):
            return as_label(read_metadata(pq.read_schema(path)))

    @classmethod
    def _label_place(cls, path: str) -> str:
        return 'its metadata'


@contextlib.contextmanager
def _complete(path: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except pa.ArrowInvalid as error:
        raise ValueError(f'{path} is not a complete Parquet file: {one_line(error)}') from error


def to_table(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    """Rows of `score_files` as a table of Arrow: numbers rounded, text escaped.

    Args:
        rows: rows; keys that the schema lacks are left out
        schema: `schema.arrow_schema`, and columns of others, whose values stay as they are
    """
    import pyarrow as pa

    def cell(name: str, value: Any) -> Any:
        known = column(name)
        if value is None or known.role == 'other':
            return value
        return escape_cell(name, value) if known.is_text else rounded(value) if known.kind == 'number' else value

    rows = list(rows)
    return pa.table({name: [cell(name, row.get(name)) for row in rows] for name in schema.names}, schema=schema)


def to_bytes(table: pa.Table, label: Label | None, more: Mapping[str, Any] | None = None) -> bytes:
    """A Parquet file of a table, with a label and more metadata, JSON by its key."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(_metadata(label, more)), buffer)
    return buffer.getvalue()


def read_metadata(schema: pa.Schema, key: str = LABEL_KEY) -> Any:
    """The label of a Parquet file, or what its metadata holds under another key; None: it has none."""
    text = (schema.metadata or {}).get(key.encode())
    return None if text is None else json.loads(text)


def _metadata(label: Label | None, more: Mapping[str, Any] | None = None) -> dict[str, str]:
    entries = {**({} if label is None else {LABEL_KEY: label}), **(more or {})}
    return {key: json.dumps(value) for key, value in entries.items()}


def journal(path: str) -> str:
    """Path of the journal of a file."""
    return path + '.journal.jsonl'


def has_journal(path: str) -> bool:
    """Whether a Parquet file is not complete: the journal has all rows then, those of a resumed file too."""
    try:
        changed = os.path.getmtime(journal(path))
        return not os.path.exists(path) or changed >= os.path.getmtime(path)
    except FileNotFoundError:
        return False
