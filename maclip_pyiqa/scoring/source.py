"""Scores that were written, read back alike: a table, or a folder of tables, local or a URL."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timezone
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .. import _html
from .._files import file_system, is_url, one_line
from .._lazy import need
from ..backbone import note
from .formats import TABLES, read_columns, read_label, read_table
from .formats.arrow import plain_type
from .formats.cells import Cells, unique, values
from .formats.parquet import has_journal, journal, read_metadata
from .formats.table import LABEL_SUFFIX
from .schema import Label, Row, as_label, column
from .text import escape_cell, escape_text, unescape_text

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.dataset as ds

MANIFEST = '_manifest.json'  # in a folder that `score-collection` writes; says whether it is complete
SCORES, SHOWN = 100_000, 10  # in a notebook: scores in the histogram, and rows, at most
MAIN = ('path', 'score', 'percentile', 'q_sim', 'q_mag', 'flags', 'error')  # columns of these rows


def open_scores(path: str | os.PathLike[str]) -> ScoreSource:
    """Scores that were written by `score`, `score-collection` or `filter`, and may have been edited since.

    Args:
        path: path or URL of a table, .csv, .jsonl or .parquet, or of a folder of Parquet tables

    Raises:
        OSError: there is none, or it cannot be read
        ValueError: not a table of scores
        ModuleNotFoundError: pyarrow is not installed, which Parquet needs

    Example::

        from maclip_pyiqa import open_scores

        scores = open_scores('scores.csv')
        print(scores.label['config']['backbone'], len(scores))
    """
    path = os.fspath(path)
    if os.path.splitext(path)[1].lower() in TABLES and not os.path.isdir(path):
        return _Table(path)
    return _Folder(path) if is_url(path) or os.path.isdir(path) else _Table(path)


def is_among(path: str | os.PathLike[str], source: str | os.PathLike[str]) -> bool:
    """Whether a table that is written to a path would be that of a source, or one of its folder."""
    place = os.path.realpath(path)
    return os.path.realpath(os.fspath(source).removeprefix('file://')) in (place, os.path.dirname(place))


class ScoreSource:
    """Scores of a table or of a folder of tables, see `open_scores`. A notebook shows what they are, with
    a histogram and the first rows.

    Attributes:
        path: path or URL
        label: label of the scores; None: unknown
        changed: date and time of the last change, for people
        is_complete: whether the run that writes them has finished, as far as is known

    Example::

        from maclip_pyiqa import open_scores

        scores = open_scores('scores.csv')
        best = [row['path'] for row in scores.rows() if row['score'] is not None and row['score'] > 0.6]
        for batch in scores.batches(['path', 'score']):  # of Arrow: for more rows than fit into memory
            print(batch.num_rows)
    """

    path: str
    label: Label | None
    changed: str
    is_complete: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(map(unescape_text, self.dataset.schema.names))

    def __len__(self) -> int:
        """Number of rows."""
        return self.dataset.count_rows()

    def rows(self, text: Collection[str] = ()) -> list[Row]:
        """All rows, dicts by the names of columns; None where a cell is empty.

        Args:
            text: names of columns that are text whatever they look like

        Raises:
            OSError: the scores cannot be read
            ValueError: they are no scores
        """
        table = self.dataset.to_table()
        names = unique(map(unescape_text, table.column_names))
        cells = Cells(names, table.rename_columns(names).to_pylist(), range(1, len(table) + 1), unit='row')
        return values(self.path, cells, text)

    def batches(self, columns: Collection[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Rows in their order, in batches of Arrow, file by file, so that memory does not grow with their number.

        Args:
            columns: names of the columns to read; None: all
        """
        names = None if columns is None else [escape_text(name) for name in columns]
        for file in self.dataset.get_fragments():
            yield from file.to_batches(schema=self.dataset.schema, columns=names, batch_size=65_536)

    def scores(self) -> Iterator[np.ndarray]:
        """The column `score` in its order, in parts, float64; NaN where there is none."""
        for batch in self.batches(['score']):
            yield batch.column('score').to_numpy(zero_copy_only=False).astype('float64')

    @property
    def dataset(self) -> ds.Dataset:
        """The rows as a dataset of pyarrow, text escaped as in Parquet."""
        raise NotImplementedError

    def __repr__(self) -> str:
        metric = f'fingerprint {self.label["fingerprint"][:12]}' if self.label else 'no label'
        return f'ScoreSource({self.path!r}, {metric}{"" if self.is_complete else ", not complete"})'

    def _repr_html_(self) -> str:
        """What a notebook shows: some 10 kB, of which of Parquet files no more is read than is shown."""
        parts = [f'<b>{_html.text(self.path, 200)}</b>', _html.text(self._metric(), 300)]
        if not self.is_complete:
            parts.append('Not complete: the run that writes them has not finished.')
        try:
            columns = [name for name in MAIN if name in self.columns]
            rows = [[_cell(row[name]) for name in columns] for row in self._first(columns)]
            parts.append(f'Images: {len(self):,}' + f', of which the first {len(rows)}:' * bool(rows))
            more = _html.block(_html.table(columns, rows), self._histogram())
        except Exception as error:  # a notebook shows it in place of the rows, whatever people's files hold
            more = _html.paragraph(_html.text(f'cannot be read: {one_line(error)}', 300))
        return f'<div>{"".join(map(_html.paragraph, parts))}{more}</div>'

    def _metric(self) -> str:
        if self.label is None:
            return 'Scores of an unknown metric: they have no label.'
        config, versions = self.label['config'], self.label['versions']
        about = f'maclip_pyiqa {versions.get("maclip_pyiqa", "(unknown)")}, backbone {config.get("backbone")}'
        named = f'Scores of {about}, fingerprint {self.label["fingerprint"][:12]}'
        return f'{named}: {text}.' if (text := note(config)) else f'{named}.'

    def _first(self, columns: list[str]) -> list[Row]:
        rows: list[Row] = []
        for batch in self.batches(columns):
            rows += batch.slice(0, SHOWN - len(rows)).to_pylist()
            if len(rows) == SHOWN:
                break
        return rows

    def _histogram(self) -> str:
        import numpy as np

        if 'score' not in self.columns:
            return _html.paragraph('no column score')
        parts, count = [], 0
        for part in self.scores():
            parts.append(part[: SCORES - count])
            count += len(parts[-1])
            if count == SCORES:
                break
        read = np.concatenate(parts or [np.empty(0)])
        scores = read[np.isfinite(read)]
        of = f'Of the first {count:,} images: ' if count < len(self) else ''
        words = _html.paragraph(f'{of}{len(scores):,} with a score, {count - len(scores):,} without')
        if not len(scores):
            return words
        low, high = float(scores.min()), float(scores.max())
        if not 0.01 < high - low < np.inf:  # bars would have the same numbers
            return words + _html.paragraph(f'{_html.number(low)} to {_html.number(high)}')
        counts, edges = np.histogram(scores, 10)
        names = [f'{_html.number(a)} to {_html.number(b)}' for a, b in pairwise(edges)]
        bars = [(name, n / counts.max(), f'{n:,}') for name, n in zip(names, counts, strict=True)]
        return words + _html.bars(bars)


class _Table(ScoreSource):
    def __init__(self, path: str) -> None:
        self.path = self.file = path
        if is_url(path):
            self._copy()
        self.label = read_label(self.file)
        is_begun = not os.path.exists(self.file) and os.path.exists(journal(self.file))
        time = os.path.getmtime(journal(self.file) if is_begun else self.file)
        self.changed = f'{datetime.fromtimestamp(time, timezone.utc):%Y-%m-%d %H:%M} UTC'

    def _copy(self) -> None:
        """Copy a table that a URL names, and its label, to a folder that is removed with this object."""
        need('a table at a URL', 'fsspec', extra='ray')
        fs, root = file_system(self.path)
        self.folder = tempfile.TemporaryDirectory()
        self.file = os.path.join(self.folder.name, os.path.basename(root))
        fs.get_file(root, self.file)
        with contextlib.suppress(FileNotFoundError):
            fs.get_file(root + LABEL_SUFFIX, self.file + LABEL_SUFFIX)

    @property
    def columns(self) -> tuple[str, ...]:
        if self.file.lower().endswith('.parquet'):
            return super().columns
        return tuple(self._rows[0]) if self._rows else read_columns(self.file)  # without pyarrow

    def __len__(self) -> int:
        return super().__len__() if self.file.lower().endswith('.parquet') else len(self._rows)

    def rows(self, text: Collection[str] = ()) -> list[Row]:
        return read_table(self.file, text) if text else self._rows

    def _first(self, columns: list[str]) -> list[Row]:
        return super()._first(columns) if self.file.lower().endswith('.parquet') else self._rows[:SHOWN]

    def scores(self) -> Iterator[np.ndarray]:
        import numpy as np

        if self.file.lower().endswith('.parquet'):
            yield from super().scores()
        else:
            yield np.array([row['score'] for row in self._rows], np.float64)  # without pyarrow

    @cached_property
    def _rows(self) -> list[Row]:
        return read_table(self.file)

    @cached_property
    def dataset(self) -> ds.Dataset:
        import pyarrow as pa
        import pyarrow.dataset as ds

        if self.file.lower().endswith('.parquet') and os.path.isfile(self.file) and not has_journal(self.file):
            try:
                data = ds.dataset(self.file, format='parquet')
                views = any(str(kind).endswith('_view') for kind in data.schema.types)  # not all pyarrows search them
                data = _plain(data)
            except pa.ArrowInvalid as error:
                raise ValueError(f'{self.path} is not a complete Parquet file: {one_line(error)}') from error
            if not views and all(map(_is_plain, data.schema)):
                return data
        rows = self.rows()
        names = list(rows[0]) if rows else read_columns(self.file)
        return ds.dataset(pa.table({escape_text(name): _array(name, [row[name] for row in rows]) for name in names}))


class _Folder(ScoreSource):
    files: Sequence[str] = ()

    def __init__(self, path: str) -> None:
        need('a folder of scores', 'pyarrow', 'fsspec', extra='ray')
        import pyarrow.parquet as pq

        self.path = path
        self.fs, root = file_system(path)
        self.fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            self.files = sorted(file for file in self.fs.ls(root, detail=False) if file.endswith('.parquet'))
        try:
            manifest = read_manifest(path)
        except FileNotFoundError:
            if not self.files:
                raise
            manifest = {}
        if not self.files:
            raise FileNotFoundError(f'{path} has no finished table yet; rerun the command that writes it')
        self.schema = pq.read_schema(self.files[0], filesystem=self.fs)
        self.label = as_label(read_metadata(self.schema))
        self.is_complete = manifest.get('complete', True)
        self.changed = manifest.get('updated', '')

    @cached_property
    def dataset(self) -> ds.Dataset:
        import pyarrow.dataset as ds

        return _plain(ds.dataset(self.files, schema=self.schema, format='parquet', filesystem=self.fs))


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a folder that `score-collection` wrote.

    Args:
        path: path or URL of the folder

    Returns:
        `label`; `inputs`, `column`, `keep`, `shard_rows`; `complete`, whether all that the last run found is scored;
        `updated`; `rows`, `failed` (rows without a score); `shards` by name, each with `source`, `rows`, `failed`,
        `seconds` and `lost`, which says what could not be read behind its rows; `missing`, shards that gave no file, by
        name, each with `source` and `error`; `unmatched`, suffixes of `keep` that no image of the last run's tars has a
        member with

    Raises:
        FileNotFoundError: not such a folder
        ValueError: the manifest cannot be read

    Example::

        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.collections import read_manifest, score_collection

        score_collection(['photos'], 'scores', MACLIP())
        manifest = read_manifest('scores')
        for name, shard in manifest['shards'].items():
            print(name, shard['source'], shard['rows'], shard['failed'])
    """
    fs, root = file_system(path)
    try:
        return json.loads(fs.cat_file(f'{root}/{MANIFEST}'))
    except FileNotFoundError:
        raise FileNotFoundError(
            f'{os.fspath(path)} is not a folder of scores, it holds no {MANIFEST}; expected one that `maclip-pyiqa '
            'score-collection` wrote'
        ) from None
    except ValueError as error:
        raise ValueError(f'{os.fspath(path)}/{MANIFEST} is not JSON: {error}') from error


def _plain(data: ds.FileSystemDataset) -> ds.FileSystemDataset:
    """The rows with types that can be compared, searched and written in all formats, where there is such a type."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    def plain(kind: pa.DataType) -> pa.DataType:
        if isinstance(kind, pa.BaseExtensionType):  # Python has values of their own for some, as for UUIDs
            return kind
        return pa.string() if pa.types.is_null(kind) else plain_type(kind)

    schema = pa.schema([field.with_type(plain(field.type)) for field in data.schema], data.schema.metadata)
    return ds.dataset(data.files, schema, data.format, data.filesystem)


def _cell(value: Any) -> str:
    """A value of a row in words."""
    if value is None:
        return ''
    return _html.number(value) if isinstance(value, float) else unescape_text(str(value))


def _is_plain(field: pa.Field) -> bool:
    """Whether a known column has the kind of type that it should have; pandas makes others of columns with gaps."""
    import pyarrow.types as types

    known = column(field.name)
    if known.is_text:
        return types.is_string(field.type)
    return (
        types.is_integer(field.type)
        if known.kind == 'integer'
        else field.name != 'score' or types.is_floating(field.type)
    )


def _array(name: str, cells: list[Any]) -> pa.Array:
    """Values of a column of `read_table`, as Arrow has them."""
    import pyarrow as pa

    cells = [escape_cell(name, cell) if isinstance(cell, str) else cell for cell in cells]
    try:
        array = pa.array(cells, pa.string() if column(name).is_text else None)
    except (OverflowError, pa.ArrowInvalid, pa.ArrowTypeError):  # of several types, as JSON has them
        array = pa.array([None if cell is None else str(cell) for cell in cells])
    return array.cast(pa.float64()) if pa.types.is_null(array.type) or name == 'score' else array
