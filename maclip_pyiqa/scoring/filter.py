"""The best of many scored images: what passes some conditions, as a list, counts and a histogram.

The scores alone are held in memory, about 20 bytes an image; all else is read twice, batch by batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._files import one_line
from .._lazy import need
from .._lists import as_names
from .formats import LISTS, open_table
from .reference import Reference
from .schema import now
from .source import ScoreSource, is_among, open_scores

if TYPE_CHECKING:
    import pyarrow as pa

BIN = 0.05  # of the histogram


class FilterSummary(NamedTuple):
    """Counts of `filter_scores`. `str(summary)` is the counts and the histogram as text.

    Attributes:
        rows: number of images
        scored: number of those with a score
        passed: number of those that pass all conditions but `top`
        kept: number of those that are kept
        lowest, highest: scores that are kept; None: none is
        histogram: lower edge of each bin, of width 0.05, images with a score in it, and those of them that are kept
        is_complete: whether the run that writes the scores has finished, as far as is known

    Example::

        from maclip_pyiqa.scoring import filter_scores

        summary = filter_scores('scores.csv', min_score=0.6)  # only counts
        print(summary, summary.kept)
    """

    rows: int
    scored: int
    passed: int
    kept: int
    lowest: float | None
    highest: float | None
    histogram: list[tuple[float, int, int]]
    is_complete: bool

    def __str__(self) -> str:
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
    reference: str | os.PathLike[str] | Reference | None = None,
    min_percentile: float | None = None,
) -> FilterSummary:
    """Write the rows of the images that pass all conditions, in their order; those without a score never do.

    The label of the scores goes to the output, with the conditions under `filter`.

    Args:
        source: path of a table, or path or URL of a folder of tables, see `open_scores`
        output: path of the list, .parquet, .csv, .jsonl, or .txt, the paths one a line; None: only count
        min_score, max_score: least and highest score, which are kept themselves
        top: number of the best that pass the other conditions, or their share, if it is a float in (0, 1]. Of equal
            scores at the end, the first are kept, so that the number is exact
        without_flags: words of the column `flags`; images that have one of them are not kept
        reference: what the rows get percentiles of, as their column `percentile`: a `Reference`, or path or URL of one
        min_percentile: least percentile, 0 to 100, which is kept itself; without a reference that of the column
            `percentile`

    Raises:
        FileNotFoundError: there are no such scores
        OSError: they cannot be read, or the output cannot be written
        ValueError: not scores, a column that is missing or that the format cannot hold, an output among its input, a
            reference of another metric
        ModuleNotFoundError: pyarrow is not installed

    Example::

        from maclip_pyiqa.scoring import filter_scores

        filter_scores('scores.csv', 'kept.csv', top=0.2, without_flags=['flat', 'noise'])  # the best fifth
    """
    without_flags = as_names('without_flags', without_flags)
    need('filter', 'pyarrow', extra='parquet')
    scores = open_scores(source)
    # of NumPy too, which JSON does not know
    min_score, max_score = (None if limit is None else float(limit) for limit in (min_score, max_score))
    top = int(top) if isinstance(top, Integral) else None if top is None else float(top)
    if top is not None and not (0 < top <= 1 or (isinstance(top, int) and top > 1)):
        raise ValueError(f'top={top}; expected a whole number of images above 0, or a share in (0, 1]')
    if min_percentile is not None:
        min_percentile = float(min_percentile)
        if not 0 <= min_percentile <= 100:
            raise ValueError(f'min_percentile={min_percentile:g}; expected a number from 0 to 100')
        if reference is None and 'percentile' not in scores.columns:
            raise ValueError(
                f'{scores.path} has no column percentile, so min_percentile needs a reference; expected one of scores '
                'that these are ranked among (--reference)'
            )
    label = scores.label or {}
    if reference is not None:
        reference = reference if isinstance(reference, Reference) else Reference(reference)
        label = reference.check(scores.label)
    if missing := {'score', *['flags'] * bool(without_flags)} - {*scores.columns}:
        raise ValueError(
            f'{scores.path} has no column {" or ".join(sorted(missing))}, but {", ".join(scores.columns)}; expected a '
            'table of scores'
        )
    table = None
    if output is not None:
        output = os.fspath(output)
        table = open_table(output, scores.columns if reference is None else _with_percentile(scores.columns), LISTS)
        if is_among(output, source):
            raise ValueError(f'{output} would be among the scores that are filtered; write to another place')
        if reference is not None and is_among(output, reference.path):
            raise ValueError(f'{output} would be among the scores of the reference; write to another place')
    least, most = -np.inf if min_score is None else min_score, np.inf if max_score is None else max_score
    values, passes = _read(scores, least, most, without_flags, reference, min_percentile)
    passed = int(passes.sum())
    keep = passes
    if top is not None:
        count = min(passed, top if isinstance(top, int) else round(top * passed))
        keep = _best(values, passes, count)
    kept = values[keep]
    if table is not None:
        limits = {'min_score': min_score, 'max_score': max_score, 'min_percentile': min_percentile}
        conditions = {**limits, 'top': top, 'without_flags': without_flags}
        about = {'source': scores.path, **conditions, 'date': now(), 'kept': len(kept), 'of': len(values)}
        try:
            chosen, schema = _chosen(scores, keep), scores.dataset.schema
            if reference is not None:
                chosen, schema = _ranked(chosen, reference), _ranked_schema(schema)
            table.save(chosen, schema, {**label, 'filter': about})  # type: ignore[typeddict-item]
        except (TypeError, ValueError) as error:
            hint = '; a .parquet file holds columns of all types' if isinstance(error, TypeError) else ''
            raise ValueError(f'{output}: {one_line(error)}{hint}') from error
    scored = values[np.isfinite(values)]
    low, high = (float(kept.min()), float(kept.max())) if len(kept) else (None, None)
    bins = _histogram(scored, kept)
    return FilterSummary(len(values), len(scored), passed, len(kept), low, high, bins, scores.is_complete)


def _read(
    scores: ScoreSource,
    low: float,
    high: float,
    without: Sequence[str],
    reference: Reference | None,
    min_percentile: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Of each row the score, NaN where there is none, and whether it passes."""
    import pyarrow.compute as pc

    values, passes = [np.empty(0)], [np.empty(0, bool)]
    own = min_percentile is not None and reference is None
    for batch in scores.batches(['score', *['flags'] * bool(without), *['percentile'] * own]):
        part = _scores(batch)
        keep = np.isfinite(part) & (part >= low) & (part <= high)
        if min_percentile is not None:
            ranks = _own(batch, scores.path) if reference is None else _percentiles(part, reference)
            keep &= ranks >= min_percentile
        if without:
            found = pc.match_substring_regex(batch.column('flags'), f'(^| )({"|".join(without)})( |$)')
            keep &= ~found.fill_null(False).to_numpy(zero_copy_only=False)
        values.append(part)
        passes.append(keep)
    return np.concatenate(values), np.concatenate(passes)


def _scores(batch: pa.RecordBatch) -> np.ndarray:
    return batch.column('score').to_numpy(zero_copy_only=False).astype(np.float64)


def _percentiles(scores: np.ndarray, reference: Reference) -> np.ndarray:
    return np.round(reference(scores), 6)  # as tables hold them, so that a list filters as it was filtered


def _own(batch: pa.RecordBatch, path: str) -> np.ndarray:
    """The column `percentile` of a table."""
    import pyarrow as pa

    try:
        return batch.column('percentile').cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise ValueError(
            f'{path} has something else than numbers in its column percentile: {one_line(error)}. Expected 0 to 100; '
            'correct it, or give a reference'
        ) from error


def _with_percentile(names: Sequence[str]) -> list[str]:
    names = list(names)
    if 'percentile' not in names:
        names.insert(names.index('score') + 1, 'percentile')
    return names


def _ranked_schema(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    column = pa.field('percentile', pa.float64())
    names = _with_percentile(schema.names)
    return pa.schema([column if name == 'percentile' else schema.field(name) for name in names])


def _ranked(batches: Iterable[pa.RecordBatch], reference: Reference) -> Iterator[pa.RecordBatch]:
    """Rows with their percentiles of a reference."""
    import pyarrow as pa

    for batch in batches:
        ranks = pa.array(_percentiles(_scores(batch), reference), from_pandas=True)  # NaN is null
        names = _with_percentile(batch.schema.names)
        columns = [ranks if name == 'percentile' else batch.column(name) for name in names]
        yield pa.RecordBatch.from_arrays(columns, schema=_ranked_schema(batch.schema))


def _best(values: np.ndarray, passes: np.ndarray, count: int) -> np.ndarray:
    """Which rows are the `count` best of those that pass; of equal ones the first."""
    if count == 0:
        return np.zeros_like(passes)
    chosen = values[passes]
    edge = np.partition(chosen, len(chosen) - count)[len(chosen) - count]
    keep = passes & (values > edge)
    keep[np.flatnonzero(passes & (values == edge))[: count - keep.sum()]] = True
    return keep


def _chosen(scores: ScoreSource, keep: np.ndarray) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in scores.batches() if keep.any() else ():
        part = keep[start : start + len(batch)]
        start += len(batch)
        if part.any():
            yield batch.filter(part)


def _histogram(scored: np.ndarray, kept: np.ndarray) -> list[tuple[float, int, int]]:
    if not len(scored):
        return []
    # 1e-6: 0.6 is in the bin that begins with it, also as float32
    bins, kept_bins = (np.floor(each / BIN + 1e-6).astype(np.int64) for each in (scored, kept))
    first = int(bins.min())
    counts, kept_counts = (np.bincount(each - first, minlength=bins.max() - first + 1) for each in (bins, kept_bins))
    return [((first + i) * BIN, int(n), int(k)) for i, (n, k) in enumerate(zip(counts, kept_counts, strict=True))]
