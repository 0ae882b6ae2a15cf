"""Scores as one page: pictures, histogram, table, scatter, maps, choices. Needs Jinja2, the extra `report`."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from .._lazy import need
from ..backbone import NOTE
from ..scoring.formats import Table
from ..scoring.schema import KNOWN, Label, Row
from .html import provenance, save_page
from .pictures import Picture, choose, read_picture

__all__ = ['ReportTable', 'write_report']

TEXT = tuple(each.name for each in KNOWN.values() if each.is_text)
WHOLE = tuple(each.name for each in KNOWN.values() if each.kind == 'integer')
SCRIPTS = ('common.js', 'map.js', 'charts.js', 'list.js', 'report.js')
MILLION, LARGEST = (
    10**6,
    10**9,
)  # numbers are whole millionths on the page, up to LARGEST: as exact as in a table, and short


def write_report(
    rows: Iterable[Row],
    path: str | os.PathLike[str],
    *,
    label: Mapping[str, Any] | None = None,
    pictures: Mapping[str, Picture] | None = None,
    thumbnails: int = 500,
    title: str = 'Image quality',
    source: Mapping[str, str] | None = None,
) -> None:
    """Write scores as one page that needs no server and no network.

    Args:
        rows: see `score_files` and `read_table`; further columns are shown too
        path: path of the page, .html
        label: says what the scores are from, see `maclip_pyiqa.scoring.label`
        pictures: pictures by path, made while scoring, see `Pictures`. For others, the file is read if there is one
        thumbnails: how many images get a picture, at most: the worst, the best, and evenly spread ones between
        title: title of the page
        source: further pairs for the provenance, such as {'command': ...}

    Raises:
        OSError: the page cannot be written
        ValueError: a row without path or score; thumbnails below 0
        NotInstalledError: Jinja2 is not installed

    Example::

        pictures = Pictures()
        rows = list(score_files(metric, find_images(['photos']), each=pictures))
        write_report(rows, 'report.html', label=label(metric), pictures=pictures)

        write_report(read_table('scores.csv'), 'report.html', label=read_label('scores.csv'))
    """
    if thumbnails < 0:
        raise ValueError(f'thumbnails={thumbnails}; expected at least 0')
    need('a report', 'jinja2', extra='report')  # before the files are read
    rows = list(rows)
    if not all('path' in row and 'score' in row for row in rows):
        raise ValueError("a row without 'path' or 'score'; expected rows as score_files and read_table give them")
    failed = sum(_is_missing(row['score']) for row in rows)
    counts = {'images': len(rows), 'failed': failed}
    save_page(
        path,
        'report.html',
        scripts=SCRIPTS,
        data={'scores': _scores(rows), 'pictures': _pictures(rows, pictures or {}, thumbnails)},
        title=title,
        summary=f'{len(rows):,} images' + f', {failed:,} of them without a score' * bool(failed),
        provenance=provenance(label, counts, source),
        note=f'Scores are from the {NOTE}.' if label is not None and label['config']['backbone'] == 'demo' else '',
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
        part = Path(f'{self.path}.part')  # now rather than after hours of scoring: can it be written?
        part.touch()
        part.unlink()

    def write(self, row: Row) -> None:
        self.rows.append(row)

    def close(self) -> None:
        write_report(self.rows, self.path, label=self.label, **self.options)


def _scores(rows: list[Row]) -> dict[str, Any]:
    """The table by columns, for report.js."""
    names = dict.fromkeys(name for row in rows for name in row)
    last = [name for name in (*WHOLE, 'flags', 'error') if name in names]
    columns = []
    for name in ['path', 'score', *(name for name in names if name not in ('path', 'score', *last)), *last]:
        values = [row.get(name) for row in rows]
        columns.append({'name': name} | (_text(values) if _is_text(name, values) else _numbers(name, values)))
    # what all paths begin with is held once; paths may be mixed, absolute and relative
    folder = os.path.commonprefix(columns[0]['values'])  # noqa: RUF071
    folder = folder[: max(folder.rfind('/'), folder.rfind('\\')) + 1]
    identity = hashlib.sha256('\0'.join(sorted(columns[0]['values'])).encode(errors='surrogatepass')).hexdigest()
    columns[0]['values'] = [path[len(folder) :] for path in columns[0]['values']]
    return {'id': identity[:16], 'folder': folder, 'columns': columns}


def _is_missing(value: Any) -> bool:
    return value is None or value != value  # NaN, as pandas has it, in columns of text too


def _is_text(name: str, values: list[Any]) -> bool:
    return name in TEXT or not all(_is_missing(value) or _is_number(value) for value in values)


def _is_number(value: Any) -> bool:
    # whole numbers that JavaScript cannot hold exactly are names
    return isinstance(value, Real) and not (isinstance(value, bool) or (isinstance(value, int) and abs(value) > 2**53))


def _text(values: list[Any]) -> dict[str, Any]:
    return {'kind': 'text', 'values': ['' if _is_missing(value) else str(value) for value in values]}


def _numbers(name: str, values: list[Any]) -> dict[str, Any]:
    numbers = [None if value is None or not math.isfinite(value) else float(value) for value in values]
    if name in WHOLE:
        return {'kind': 'whole', 'scale': 1, 'values': [None if value is None else int(value) for value in numbers]}
    if any(value is not None and abs(value) > LARGEST for value in numbers):
        return {'kind': 'number', 'scale': 1, 'values': numbers}
    millionths = [None if value is None else round(value * MILLION) for value in numbers]
    return {'kind': 'number', 'scale': MILLION, 'values': millionths}


def _pictures(rows: list[Row], made: Mapping[str, Picture], count: int) -> dict[str, Any]:
    """By the numbers of their rows: JPEGs in base64, and windows' values where they are known."""
    scored = [i for i, row in enumerate(rows) if not _is_missing(row['score'])]
    scored.sort(key=lambda i: rows[i]['score'])
    places = {rows[i]['path']: i for i in scored}
    pictures = {}
    for path in choose([rows[i]['path'] for i in scored], count, made):
        picture = made.get(path) or read_picture(path)
        if picture is not None:
            pictures[str(places[path])] = {
                'jpeg': base64.b64encode(picture.jpeg).decode(),
                'windows': picture.windows,
            }
    return pictures
