"""Scores as one page: pictures, histogram, table, scatter, maps, choices. Needs Jinja2, the extra `report`."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from numbers import Real
from typing import TYPE_CHECKING, Any

from .._files import check_writable
from .._lazy import need
from ..scoring.formats import Table
from ..scoring.schema import Label, Row, column, in_order
from .html import demo_note, provenance, save_page
from .pictures import choose, read_picture

if TYPE_CHECKING:
    from ..scoring import Reference

SCRIPTS = tuple(
    f'{name}.js' for name in ('common', 'map', 'charts', 'list', 'scores', 'choices', 'detail', 'export', 'report')
)
# numbers are whole millionths on the page, up to LARGEST: as exact as in a table, and short
MILLION, LARGEST = 10**6, 10**9


def write_report(
    rows: Iterable[Row],
    path: str | os.PathLike[str],
    *,
    label: Label | None = None,
    reference: Reference | None = None,
    maps: Mapping[str, Mapping[str, Any]] | None = None,
    thumbnails: int = 500,
    title: str = 'Image quality',
    source: Mapping[str, str] | None = None,
) -> None:
    """Write scores as one page that needs no server and no network.

    Args:
        rows: rows as `score_files` and `ScoreSource.rows` give them; further columns are shown too
        path: path of the page, .html
        label: label of the scores, see `maclip_pyiqa.scoring.label`; None: unknown
        reference: scores that the rows get percentiles of, as their column `percentile`
        maps: windows' values by path, collected while scoring, see `Maps`; other images have no quality map
        thumbnails: number of images with a picture, at most: the worst, the best, and evenly spread ones between. Their
            files are read, where they can be
        title: title of the page
        source: further pairs for the provenance, such as {'command': ...}

    Raises:
        OSError: the page cannot be written
        ValueError: a row without path or score; thumbnails below 0; a reference of another metric
        ModuleNotFoundError: Jinja2 is not installed

    Example::

        from maclip_pyiqa import open_scores
        from maclip_pyiqa.report import write_report

        scores = open_scores('scores.csv')
        write_report(scores.rows(), 'report.html', label=scores.label)
    """
    if thumbnails < 0:
        raise ValueError(f'thumbnails={thumbnails}; expected at least 0')
    need('a report', 'jinja2', extra='report')  # before the files are read
    rows = list(rows)
    if not all('path' in row and 'score' in row for row in rows):
        raise ValueError("a row without 'path' or 'score'; expected rows as score_files and read_table give them")
    if reference is not None:
        label, rows = reference.check(label), list(reference.add_to(rows))
    failed = sum(_is_missing(row['score']) for row in rows)
    counts = {'images': len(rows), 'failed': failed}
    summary = f'{len(rows):,} images' + f', {failed:,} of them without a score' * bool(failed)
    more = dict(source or {})
    # a table may have lost its percentiles, or its label
    if label is not None and 'reference' in label and any('percentile' in row for row in rows):
        about = label['reference']
        among = f'{about["images"]:,} images of {about["path"]}'
        summary += f'; percentiles among the {among}'
        more['reference'] = f'{among}, digest {about["digest"]}'
    save_page(
        path,
        'report.html',
        scripts=SCRIPTS,
        data={'scores': _scores(rows), 'pictures': _pictures(rows, maps or {}, thumbnails)},
        title=title,
        summary=summary,
        provenance=provenance(label, counts, more),
        note=demo_note(label),
    )


class ReportTable(Table):
    """A page as one of the tables that a run writes: rows are collected, and `close` writes the page.

    Args:
        path: path of the page
        columns: columns of the tables beside it; the page has all that the rows have
        options: options of `write_report`
    """

    def __init__(self, path: str | os.PathLike[str], columns: Iterable[str], **options: Any) -> None:
        super().__init__(path, tuple(columns))
        need('a report', 'jinja2', extra='report')
        self.rows: list[Row] = []
        self.label: Label | None = None
        self.options = options

    def fill(self, rows: Iterable[Row] = (), label: Label | None = None) -> None:
        self.rows, self.label = list(rows), label
        check_writable(self.path)

    def write(self, row: Row) -> None:
        self.rows.append(row)

    def close(self) -> None:
        write_report(self.rows, self.path, label=self.label, **self.options)


def _scores(rows: list[Row]) -> dict[str, Any]:
    """The table by columns, for scores.js."""
    names = in_order(dict.fromkeys(['path', 'score', *(name for row in rows for name in row)]))
    columns = [_column(name, [row.get(name) for row in rows]) for name in names]
    # what all paths begin with is held once; paths may be mixed, absolute and relative
    paths = columns[0]['values']
    folder = os.path.commonprefix(paths)  # noqa: RUF071
    folder = folder[: max(folder.rfind('/'), folder.rfind('\\')) + 1]
    identity = hashlib.sha256('\0'.join(sorted(paths)).encode(errors='surrogatepass')).hexdigest()
    columns[0]['values'] = [path[len(folder) :] for path in paths]
    return {'id': identity[:16], 'folder': folder, 'columns': columns}


def _column(name: str, values: list[Any]) -> dict[str, Any]:
    """A column: what it is, see `scoring.schema.Column`, and its values; those of 'number' are parts of 'scale'."""
    known = column(name)
    if known.is_text or not all(_is_missing(value) or _is_number(value) for value in values):
        texts = ['' if _is_missing(value) else str(value) for value in values]
        return asdict(known) | {'kind': known.kind if known.is_text else 'text', 'values': texts}
    numbers = [None if value is None or not math.isfinite(value) else float(value) for value in values]
    if known.kind == 'integer':
        return asdict(known) | {'values': [None if value is None else int(value) for value in numbers]}
    if any(value is not None and abs(value) > LARGEST for value in numbers):
        return asdict(known) | {'scale': 1, 'values': numbers}
    millionths = [None if value is None else round(value * MILLION) for value in numbers]
    return asdict(known) | {'scale': MILLION, 'values': millionths}


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN, as pandas has it, in columns of text too


def _is_number(value: Any) -> bool:
    # whole numbers that JavaScript cannot hold exactly are names
    return isinstance(value, Real) and not (isinstance(value, bool) or (isinstance(value, int) and abs(value) > 2**53))


def _pictures(rows: list[Row], maps: Mapping[str, Mapping[str, Any]], count: int) -> dict[str, Any]:
    """By the numbers of their rows: JPEGs in base64, and windows' values where they are known."""
    scored = [i for i, row in enumerate(rows) if not _is_missing(row['score'])]
    scored.sort(key=lambda i: rows[i]['score'])
    pictures = {}
    for i in choose(scored, count):
        path = rows[i]['path']
        if picture := read_picture(path):
            pictures[str(i)] = {'jpeg': base64.b64encode(picture[0]).decode(), 'windows': maps.get(path)}
    return pictures
