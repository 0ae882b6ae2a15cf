"""Versions of the same images as one page: pairs side by side, a slider, maps, statistics. Needs the extra `report`."""

from __future__ import annotations

import base64
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from .._lazy import need
from ..backbone import NOTE
from ..scoring.schema import Row
from .html import provenance, save_page
from .pictures import choose, thumbnail, window_values

if TYPE_CHECKING:
    from torch import Tensor

    from ..metric import Analysis

__all__ = ['Maps', 'write_comparison']

SCRIPTS = ('common.js', 'map.js', 'compare.js')
LONGEST, QUALITY = 640, 90  # of a picture: pixels, and JPEG quality, high because versions are compared


class Maps(Mapping[str, dict[str, Any]]):
    """Windows' values of images by path, kept while `score_files` runs: give it as its `each`. Some 600 bytes each."""

    def __init__(self) -> None:
        self._packed: dict[str, bytes] = {}

    def __call__(self, row: Mapping[str, Any], image: Tensor, analysis: Analysis) -> None:
        values = window_values(analysis)
        if values is not None:
            self._packed[row['path']] = zlib.compress(json.dumps(values).encode())

    def share(self, path: str, other: str) -> None:
        """Another path of the same file."""
        if path in self._packed:
            self._packed[other] = self._packed[path]

    def __getitem__(self, path: str) -> dict[str, Any]:
        return json.loads(zlib.decompress(self._packed[path]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


def write_comparison(
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
        names: names of the versions
        images: images by what pairs them: a row for each version, None where it has no such image
        results: results for each pair of versions and quantity: 'a' and 'b', names; 'quantity', 'verdict', and numbers
        pictures: how many images are shown, at most: of each pair of versions those with the largest difference of the
            first quantity in either direction, and evenly spread ones between. They are read from the files of the rows
        maps: windows' values by path, see `Maps`
        notes: shown at the top
        label: says what the scores are from, see `maclip_pyiqa.scoring.label`
        source: further pairs for the provenance

    Raises:
        OSError: the page cannot be written
        NotInstalledError: Jinja2 is not installed
    """
    need('a page', 'jinja2', extra='report')  # before the files are read
    quantities = list(dict.fromkeys(result['quantity'] for result in results))
    failed = sum(bool(row and row.get('error')) for rows in images.values() for row in rows)
    counts = {f'images of {name}': sum(rows[i] is not None for rows in images.values()) for i, name in enumerate(names)}
    demo = label is not None and label['config']['backbone'] == 'demo'
    keys = list(images)
    shown = _shown(images, quantities[0], len(names), pictures)
    made = {
        str(place): [_picture(row, maps or {}) for row in images[key]] for place, key in enumerate(keys) if key in shown
    }
    save_page(
        path,
        'compare.html',
        scripts=SCRIPTS,
        data={
            'comparison': {
                'names': list(names),
                'quantities': quantities,
                'images': [_image(key, images[key], quantities) for key in keys],
                'results': [{name: _finite(value) for name, value in result.items()} for result in results],
            },
            'pictures': {place: found for place, found in made.items() if any(found)},
        },
        title=f'Comparison of {" and ".join([", ".join(names[:-1]), names[-1]])}',
        summary=f'{len(images):,} images' + f', {failed:,} failed' * bool(failed),
        provenance=provenance(label, counts | {'failed': failed}, source),
        note=' '.join([*([f'Scores are from the {NOTE}.'] if demo else []), *(f'{note}.' for note in notes)]),
    )


def _shown(images: Mapping[str, Sequence[Row | None]], quantity: str, versions: int, count: int) -> set[str]:
    """Images that get pictures."""
    couples = list(combinations(range(versions), 2))
    found: set[str] = set()
    for number, (i, j) in enumerate(couples):
        change = {}
        for key, rows in images.items():
            a, b = ((row or {}).get(quantity) for row in (rows[i], rows[j]))
            if a is not None and b is not None:
                change[key] = b - a
        share = count * (number + 1) // len(couples) - count * number // len(couples)
        found.update(choose(sorted(change, key=change.__getitem__), share, {}))
    return found


def _image(key: str, rows: Sequence[Row | None], quantities: Sequence[str]) -> dict[str, Any]:
    return {
        'key': key,
        'rows': [
            row
            and {
                'path': row['path'],
                'flags': row.get('flags') or '',
                'error': row.get('error') or '',
                'values': [_finite(row.get(name)) for name in quantities],
            }
            for row in rows
        ],
    }


def _finite(value: Any) -> Any:
    """Numbers with 6 digits; None for those that are not finite."""
    if not isinstance(value, float):
        return value
    return float(f'{value:.6g}') if math.isfinite(value) else None


def _picture(row: Row | None, maps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The picture of a row's file; None where it cannot be read."""
    from ..scoring.read import read_pixels

    if row is None:
        return None
    try:
        pixels = read_pixels(row['path'])
    except (OSError, ValueError):
        return None
    return {
        'jpeg': base64.b64encode(thumbnail(pixels, LONGEST, QUALITY)).decode(),
        'size': [pixels.shape[1], pixels.shape[0]],
        'windows': maps.get(row['path']),
    }
