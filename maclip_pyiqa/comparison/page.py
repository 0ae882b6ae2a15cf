"""Versions of the same images as one page: pairs side by side, a slider, maps, statistics. Needs the extra `report`."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from .._lazy import need
from ..report.html import demo_note, provenance, save_page
from ..report.pictures import choose, read_picture
from ..scoring.schema import Row, column

SCRIPTS = ('common.js', 'map.js', 'compare.js')
LONGEST, QUALITY = 640, 90  # of a picture: pixels, and JPEG quality, high because versions are compared


def write_page(
    path: str | os.PathLike[str],
    names: Sequence[str],
    images: Mapping[str, Sequence[Row | None]],
    results: Sequence[Mapping[str, Any]],
    *,
    pictures: int = 60,
    maps: Mapping[str, Mapping[str, Any]] | None = None,
    notes: Sequence[str] = (),
    label: Mapping[str, Any] | None = None,
    source: Mapping[str, str] | None = None,
) -> None:
    """Write a comparison as one page that needs no server and no network.

    Args:
        path: path of the page, .html
        names, images, maps, notes, label: attributes of `Comparison`
        results: results for each pair of versions and quantity: 'a' and 'b', names; 'quantity', 'verdict', and numbers
        pictures, source: options of `Comparison.to_html`

    Raises:
        OSError: the page cannot be written
        ModuleNotFoundError: Jinja2 is not installed
    """
    need('a page', 'jinja2', extra='report')  # before the files are read
    quantities = list(dict.fromkeys(result['quantity'] for result in results))
    failed = sum(bool(row and row.get('error')) for rows in images.values() for row in rows)
    counts = {f'images of {name}': sum(rows[i] is not None for rows in images.values()) for i, name in enumerate(names)}
    shown, maps = _shown(images, quantities[0], len(names), pictures), maps or {}
    made = {str(i): [_picture(row, maps) for row in images[key]] for i, key in enumerate(images) if key in shown}
    mapped = next(iter(maps.values()), {'values': ()})['values']  # the same quantities in all maps
    save_page(
        path,
        'compare.html',
        scripts=SCRIPTS,
        data={
            'comparison': {
                'names': list(names),
                'quantities': quantities,
                'titles': {name: column(name).title for name in [*quantities, *mapped]},
                'images': [
                    {'key': key, 'rows': [row and _values(row, quantities) for row in rows]}
                    for key, rows in images.items()
                ],
                'results': [{name: _finite(value) for name, value in result.items()} for result in results],
            },
            'pictures': {place: found for place, found in made.items() if any(found)},
        },
        title=f'Comparison of {" and ".join([", ".join(names[:-1]), names[-1]])}',
        summary=f'{len(images):,} images' + f', {failed:,} failed' * bool(failed),
        provenance=provenance(label, counts | {'failed': failed}, source),
        note=' '.join(filter(None, [demo_note(label), *(f'{note}.' for note in notes)])),
    )


def _shown(images: Mapping[str, Sequence[Row | None]], quantity: str, versions: int, count: int) -> set[str]:
    """Images that get pictures."""
    couples = list(combinations(range(versions), 2))
    found: set[str] = set()
    for number, (i, j) in enumerate(couples):
        change = {}
        for key, rows in images.items():
            a, b = (rows[i] or {}).get(quantity), (rows[j] or {}).get(quantity)
            if a is not None and b is not None:
                change[key] = b - a
        share = count * (number + 1) // len(couples) - count * number // len(couples)
        found.update(choose(sorted(change, key=change.__getitem__), share))
    return found


def _values(row: Row, quantities: Sequence[str]) -> dict[str, Any]:
    text = {name: row.get(name) or '' for name in ('path', 'flags', 'error')}
    return text | {'values': [_finite(row.get(name)) for name in quantities]}


def _finite(value: Any) -> Any:
    """Numbers with 6 digits; None for those that are not finite."""
    if not isinstance(value, float):
        return value
    return float(f'{value:.6g}') if math.isfinite(value) else None


def _picture(row: Row | None, maps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The picture of a row's file; None where it cannot be read."""
    if row is None:
        return None
    picture = read_picture(row['path'], LONGEST, QUALITY)
    if picture is None:
        return None
    jpeg, (height, width) = picture
    return {
        'jpeg': base64.b64encode(jpeg).decode(),
        'size': [width, height],
        'windows': maps.get(row['path']),
    }
