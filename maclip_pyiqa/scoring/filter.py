"""The best of many scored images: conditions on a collection or a table, counts, and a list of what is kept.

A collection is streamed, column by column where that is enough, so memory does not grow with the number of images.
"""

from __future__ import annotations

import codecs
import datetime
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._files import one_line, replacing
from .._lazy import need
from .._lists import as_names
from ..metric.prompts import summary_columns
from .collections import LABEL, is_collection, open_collection
from .schema import Label, rounded
from .tables import FORMATS, TEXT, encoding, path_column, read_label, read_table
from .text import escape_cell, escape_text, unescape_text

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

__all__ = ['OUTPUTS', 'Kept', 'filter_scores']

OUTPUTS = (*FORMATS, '.txt')
FILTER = b'maclip_pyiqa.filter'  # key of the schema's metadata
BIN = 0.05  # of the histogram


class Kept(NamedTuple):
    """Counts of `filter_scores`."""

    rows: int
    scored: int  # those with a score
    passed: int  # those that pass all conditions but `top`
    kept: int
    lowest: float | None  # score that is kept
    highest: float | None
    histogram: list[tuple[float, int, int]]  # lower edge of a bin of width BIN, images with a score, images kept

    def __str__(self) -> str:
        """The counts and the histogram as text."""
        lines = [f'{self.rows:,} images: {self.scored:,} with a score, {self.rows - self.scored:,} failed']
        share = f', {self.kept / self.scored:.1%} of those with a score' if self.scored else ''
        ends = f', scores {self.lowest:.4f} to {self.highest:.4f}' if self.kept else ''
        lines.append(f'{self.kept:,} kept{share}{ends}')
        if self.histogram:
            lines += ['', f'{"score":>12} {"images":>13} {"kept":>13}  # kept, . not']
            most = max(scored for _, scored, _ in self.histogram)
            for low, scored, kept in self.histogram:
                long, full = (-(-40 * count // most) for count in (scored, kept))  # at least one sign
                bar = '#' * full + '.' * (long - full)
                lines.append(f'{low:5.2f} - {low + BIN:4.2f} {scored:13,} {kept:13,}  {bar}'.rstrip())
        return '\n'.join(lines)


def filter_scores(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    min_score: float | None = None,
    max_score: float | None = None,
    top: int | float | None = None,
    without_flags: Sequence[str] = (),
) -> Kept:
    """Write the rows of the images that pass all conditions, in their order; those without a score never do.

    The label of the scores goes to the output, with the conditions: in a Parquet file's metadata under `maclip_pyiqa`
    and `maclip_pyiqa.filter`, otherwise in FILE.meta.json.

    Args:
        source: folder or URL of a collection, or a table: .csv, .jsonl or .parquet
        output: .parquet, .csv, .jsonl, or .txt, the paths (ids) one a line; None: only count
        min_score, max_score: both are kept themselves
        top: this many of the best that pass the other conditions, or this share of them, if it is a float in (0, 1].
            Of equal scores at the end, the first are kept, so that the number is exact
        without_flags: words of the column `flags`; images that have one of them are not kept

    Raises:
        FileNotFoundError: there is no such collection or table
        OSError: it cannot be read, or the output cannot be written
        ValueError: not scores, a column that is missing or that the format cannot hold, an output among its input
        ModuleNotFoundError: pyarrow is not installed

    Example::

        print(filter_scores('scores', 'kept.parquet', min_score=0.6, top=0.2))
    """
    without_flags = as_names('without_flags', without_flags)
    need('filter', 'pyarrow', extra='parquet')
    data, label = _open(os.fspath(source))
    if top is not None and not (0 < top <= 1 or (isinstance(top, int) and top > 1)):
        raise ValueError(f'top={top}; expected a whole number of images above 0, or a share in (0, 1]')
    conditions = {'min_score': min_score, 'max_score': max_score, 'top': top, 'without_flags': list(without_flags)}
    if output is not None:
        _check_output(os.fspath(output), os.fspath(source))
    missing = {'score', *['flags'] * bool(without_flags)} - {*data.schema.names}
    if missing:
        raise ValueError(
            f'{os.fspath(source)} has no column {" or ".join(sorted(missing))}, but {", ".join(data.schema.names)}; '
            'expected a table of scores'
        )
    passes = _expression(min_score, max_score, without_flags)

    def scores(expression: ds.Expression) -> Iterator[np.ndarray]:
        for batch in _batches(data, expression, ['score']):
            yield batch.column('score').to_numpy(zero_copy_only=False).astype(np.float64)

    rows, scored, passed = (data.count_rows(filter=condition) for condition in (None, _has_score(), passes))
    count = passed if top is None else min(passed, top if isinstance(top, int) else round(top * passed))
    edge, ties = (-np.inf, 0) if count == passed else _edge(lambda: scores(passes), count)

    kept, histogram, ends = 0, Counter[int](), [np.inf, -np.inf]
    about = {'source': os.fspath(source), **conditions, 'date': _now(), 'kept': count, 'of': rows}

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal kept, ties
        for batch in _batches(data, passes, None if output is not None else ['score']) if count else ():
            values = batch.column('score').to_numpy(zero_copy_only=False).astype(np.float64)
            keep, equal = values > edge, np.flatnonzero(values == edge)[:ties]
            keep[equal] = True
            ties -= len(equal)
            values = values[keep]
            if len(values):
                kept += len(values)
                histogram.update(_bins(values))
                ends[:] = min(ends[0], values.min()), max(ends[1], values.max())
                yield batch.filter(keep)

    if output is None:
        for _ in batches():
            pass
    else:
        _write(os.fspath(output), batches(), data.schema, label, about)
    every = Counter[int]()
    for values in scores(_has_score()):
        every.update(_bins(values))
    whole = [(i * BIN, every[i], histogram[i]) for i in range(min(every), max(every) + 1)] if every else []
    lowest, highest = ends if kept else (None, None)
    return Kept(rows, scored, passed, kept, lowest, highest, whole)


# --- reading ----------------------------------------------------------------------------------------------------------


def _open(source: str) -> tuple[ds.Dataset, Label | None]:
    """The rows and the label of a collection or a table."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    suffix = os.path.splitext(source)[1].lower()
    if '://' in source or os.path.isdir(source):
        if not is_collection(source):
            raise FileNotFoundError(
                f'{source} is not a folder of scores; expected one that `maclip-pyiqa score --engine ray` wrote, or a '
                f'table {", ".join(FORMATS)}'
            )
        data = open_collection(source)
        return _plain(data), json.loads(data.schema.metadata[LABEL])
    if suffix == '.parquet' and os.path.isfile(source):
        try:
            data = ds.dataset(source, format='parquet')
            views = any(str(kind).endswith('_view') for kind in data.schema.types)  # not all pyarrows can compare them
            data = _plain(data)
        except pa.ArrowInvalid as error:
            raise ValueError(f'{source} is not a complete Parquet file: {one_line(error)}') from error
        known = 'score' not in data.schema.names or pa.types.is_floating(data.schema.field('score').type)
        if known and not views:
            return data, read_label(source)
    rows = read_table(source)
    names = list(rows[0]) if rows else ['path', 'score', 'error']
    columns = {escape_text(name): _array(name, [row[name] for row in rows]) for name in names}
    return ds.dataset(pa.table(columns)), read_label(source)


def _plain(data: ds.FileSystemDataset) -> ds.FileSystemDataset:
    """The rows with types that can be compared, searched and written in all formats, where there is such a type."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    def plain(name: str, kind: pa.DataType) -> pa.DataType:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_large_string(kind) or pa.types.is_null(kind) or str(kind) == 'string_view':
            return pa.string()
        return pa.float32() if pa.types.is_float16(kind) else kind

    fields = [field.with_type(plain(field.name, field.type)) for field in data.schema]
    schema = pa.schema(fields, data.schema.metadata)
    return ds.dataset(data.files, schema, data.format, data.filesystem)


def _array(name: str, values: Sequence[Any]) -> pa.Array:
    """Values of a column of `read_table`."""
    import pyarrow as pa

    values = [escape_cell(name, value) if isinstance(value, str) else value for value in values]
    try:
        array = pa.array(values, pa.string() if name in TEXT else None)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several types, as JSON has them
        array = pa.array([None if value is None else str(value) for value in values])
    return array.cast(pa.float64()) if pa.types.is_null(array.type) or name == 'score' else array


def _has_score() -> ds.Expression:
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    return pc.is_finite(ds.field('score'))


def _expression(low: float | None, high: float | None, without: Sequence[str]) -> ds.Expression:
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    passes = _has_score()
    if low is not None:
        passes &= ds.field('score') >= low
    if high is not None:
        passes &= ds.field('score') <= high
    if without:
        found = pc.match_substring_regex(ds.field('flags'), f'(^| )({"|".join(without)})( |$)')
        passes &= ~pc.coalesce(found, pc.scalar(False))  # flags may be missing
    return passes


def _batches(data: ds.Dataset, expression: ds.Expression | None, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    """File by file: a scan of all of them reads further ahead than memory allows."""
    for file in data.get_fragments():
        yield from file.to_batches(schema=data.schema, columns=columns, filter=expression, batch_size=65_536)


def _edge(scores: Callable[[], Iterator[np.ndarray]], count: int, bins: int = 1 << 16) -> tuple[float, int]:
    """The `count`-th best score, and how many of those equal to it are among the `count` best.

    A histogram finds the narrow range that it is in, then another of that range, until few scores are left to sort.

    Args:
        scores: gives all of them, in parts, at each call
    """
    if count == 0:
        return np.inf, 0
    low, high = np.inf, -np.inf
    for part in scores():
        if len(part):
            low, high = min(low, part.min()), max(high, part.max())
    above = 0  # scores above `high`
    while low < high:

        def place(part: np.ndarray, low: float = low, high: float = high) -> np.ndarray:
            return np.minimum((part - low) * (bins / (high - low)), bins - 1).astype(np.int64)

        counts = np.zeros(bins, np.int64)
        for part in scores():
            counts += np.bincount(place(part[(part >= low) & (part <= high)]), minlength=bins)
        down = above + counts[::-1].cumsum()  # scores from each bin on, the highest bin first
        at = int(np.searchsorted(down, count))
        above = int(down[at - 1]) if at else above
        chosen = bins - 1 - at
        small = counts[chosen] <= 1_000_000
        held: list[np.ndarray] = []
        ends = [np.inf, -np.inf]
        for part in scores():
            part = part[(part >= low) & (part <= high)]
            part = part[place(part) == chosen]
            if len(part):
                ends = [min(ends[0], part.min()), max(ends[1], part.max())]
                if small:
                    held.append(part)
        if small:
            best = np.sort(np.concatenate(held))[::-1]
            edge = float(best[count - above - 1])
            return edge, count - above - int((best > edge).sum())
        low, high = ends
    return float(low), count - above


def _bins(values: np.ndarray) -> dict[int, int]:
    """Counts by bin of the histogram."""
    # 1e-6: 0.6 is in the bin that begins with it, also as float32
    numbers, counts = np.unique(np.floor(values / BIN + 1e-6).astype(np.int64), return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


# --- writing ----------------------------------------------------------------------------------------------------------


def _check_output(output: str, source: str) -> None:
    if os.path.splitext(output)[1].lower() not in OUTPUTS:
        raise ValueError(f'{output!r} has no suffix of a list; expected one of {", ".join(OUTPUTS)}')
    target, given = os.path.realpath(output), os.path.realpath(source)
    if given in (target, os.path.dirname(target)):
        raise ValueError(f'{output} would be among the scores that are filtered; write to another place')


def _write(
    output: str,
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    label: Label | None,
    about: dict[str, Any],
) -> None:
    import pyarrow as pa

    output, suffix = os.path.realpath(output), os.path.splitext(output)[1].lower()
    with replacing(output) as part:
        try:
            if suffix == '.parquet':
                _write_parquet(part, batches, schema, label, about)
            elif suffix == '.csv':
                _write_csv(part, batches, schema, mark=encoding(output) == 'utf-8-sig')
            else:
                line = _path_line if suffix == '.txt' else _json_line
                with open(part, 'w', encoding='utf-8', errors='surrogateescape', newline='') as file:
                    _write_lines(file, batches, line)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError) as error:
            raise ValueError(f'{output}: {one_line(error)}; a .parquet file holds columns of all types') from error
    if suffix != '.parquet':
        with replacing(output + '.meta.json') as part, open(part, 'w', encoding='utf-8') as file:
            json.dump({**(label or {}), 'filter': about}, file, indent=1)


def _write_parquet(path: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema, label: Any, about: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {FILTER: json.dumps(about)} | ({} if label is None else {LABEL: json.dumps(label)})
    schema = schema.with_metadata(metadata)
    with pq.ParquetWriter(path, schema) as writer:
        held: list[pa.RecordBatch] = []  # what is kept of a shard may be a few rows: too few for a group of rows
        for batch in batches:
            held.append(batch.replace_schema_metadata(metadata))
            if sum(map(len, held)) >= 100_000 or sum(part.nbytes for part in held) >= 1 << 27:
                writer.write_table(pa.Table.from_batches(held, schema))
                held = []
        if held:
            writer.write_table(pa.Table.from_batches(held, schema))


def _write_csv(path: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema, mark: bool) -> None:
    import pyarrow.csv

    with open(path, 'wb') as file:
        file.write(codecs.BOM_UTF8 if mark else b'')
        with closing(pyarrow.csv.CSVWriter(file, schema)) as writer:
            for batch in batches:
                writer.write_batch(batch)


def _write_lines(file: IO[str], batches: Iterator[pa.RecordBatch], line: Callable[[dict[str, Any]], str]) -> None:
    for batch in batches:
        file.writelines(map(line, batch.to_pylist()))


def _json_line(row: dict[str, Any]) -> str:
    def cell(name: str, value: Any) -> Any:
        if isinstance(value, datetime.date):
            return value.isoformat()
        if not isinstance(value, (float, Decimal)):
            return value
        if name in summary_columns(()) or name.startswith('attribute_'):
            return rounded(float(value))
        return float(value) if math.isfinite(value) else None

    return json.dumps({name: cell(name, value) for name, value in row.items()}) + '\n'


def _path_line(row: dict[str, Any]) -> str:
    path = unescape_text(str(row[path_column(list(row))]))
    if '\n' in path:
        raise ValueError(f'the path {path!r} has a line break, so it cannot be a line; write another format')
    return path + '\n'


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
