"""Versions of the same images, in folders or tables, and which image belongs to which.

Images of folders are paired by their path below the folder, those of tables by a column, or by their path below the
folder that gives the most pairs. A suffix does not count, so that x/1.png is paired with x/1.jpg, unless a version has
several images that differ in it alone. Tables may be from Windows; where a backslash may separate folders
or be part of a name, the way that gives the most pairs is taken. Imports nothing heavy: a mistake is found before torch
is loaded.
"""

from __future__ import annotations

import ntpath
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import Any

from .._files import is_url
from .._lists import as_names
from ..scoring.find import find_images
from ..scoring.formats import TABLES
from ..scoring.schema import Label, Row, label_difference
from ..scoring.source import open_scores

Images = dict[str, tuple[Row | None, ...]]  # by what pairs them: a row of each version, None where there is none
Source = str | os.PathLike[str] | Sequence[Mapping[str, Any]]


@dataclass
class Version:
    """One version of the images.

    Attributes:
        name: name in tables and verdicts
        source: path of the folder or table, as it was given; empty for rows
        keys: keys of the images, which they are paired by
        rows: rows of the images; those of a folder of images have the path alone
        scored: whether the rows have scores
        label: label of the scores; None: unknown
        by: column that the keys are from; None: they are paths
        is_complete: whether the run that writes the scores has finished, as far as is known
    """

    name: str
    source: str
    keys: list[str]
    rows: list[Row] = field(repr=False)
    scored: bool
    label: Label | None = None
    by: str | None = None
    is_complete: bool = True


def read_versions(
    sources: Sequence[Source], by: str | None = None, names: Sequence[str] | None = None
) -> list[Version]:
    """Versions of images, their keys and names.

    Args:
        sources: folders of images, tables or folders of tables (see `open_scores`), or rows as of `score_files`
        by: column of the tables that images are paired by; None: by path
        names: names of the versions; None: the last parts of their paths, or the whole paths where these repeat

    Raises:
        OSError: a folder or table that cannot be read
        TypeError: text where a list is expected
        ValueError: fewer than two versions, names that repeat, neither folder nor table, a table without the column,
            or one where it repeats
    """
    if isinstance(sources, (str, bytes, os.PathLike)):
        raise TypeError(f'{sources!r} is one version; expected a list of at least two folders or tables')
    if len(sources) < 2:
        raise ValueError(f'{len(sources)} version to compare; expected at least two folders or tables')
    names = _names(sources) if names is None else as_names('names', names)
    if len(names) != len(sources) or len(set(names)) < len(names):
        raise ValueError(f'names of the versions are {", ".join(names)}; expected {len(sources)} different ones')
    versions = [_read(source, name, by) for source, name in zip(sources, names, strict=True)]
    _cut_paths(versions)
    return versions


def pair(versions: Sequence[Version]) -> Images:
    """Rows of each image, one for each version; None where the version has no such image. Sorted by key.

    Raises:
        ValueError: no image is in two versions
    """
    counts = [Counter(map(_stem, version.keys)) for version in versions]
    several = {stem for count in counts for stem in count if count[stem] > 1}  # images that differ in the suffix alone

    def short(key: str) -> str:
        return key if _stem(key) in several else _stem(key)

    keys = [list(map(short, version.keys)) if version.by is None else version.keys for version in versions]
    by_key = [dict(zip(names, version.rows, strict=True)) for names, version in zip(keys, versions, strict=True)]
    images = {key: tuple(rows.get(key) for rows in by_key) for key in sorted(set().union(*keys))}
    if not any(len(rows) - rows.count(None) > 1 for rows in images.values()):
        raise ValueError(
            f'no image is in two versions: {versions[0].name} has {keys[0][0]!r}, {versions[1].name} has '
            f'{keys[1][0]!r}. Expected the same paths below both folders, or a column of both tables that says which '
            'images belong together'
        )
    return images


def check_labels(versions: Iterable[Version], label: Label | None = None) -> None:
    """Check that the scores of tables with labels are from one metric, that of `label`, which scores the folders.

    Raises:
        ValueError: scores of different metrics
    """
    labels = [('the folders', label), *((version.name, version.label) for version in versions)]
    known = [(name, entry) for name, entry in labels if entry is not None]
    for (first, old), (second, new) in pairwise(known):
        if old['fingerprint'] != new['fingerprint']:
            raise ValueError(
                f'{first} and {second} have scores of different metrics: {label_difference(old, new)}. Expected one '
                'metric; score both with the same options and weights'
            )


def _read(source: Source, name: str, by: str | None) -> Version:
    if not isinstance(source, (str, os.PathLike)):
        return _scored(name, '', [dict(row) for row in source], by)
    path = os.fspath(source)
    if os.path.isdir(path) and (files := _images(path)):
        if by is not None:
            raise ValueError(f'{path} is a folder, which has no column {by!r}; expected tables, or pair by path')
        return Version(name, path, [os.path.relpath(file, path) for file in files], [{'path': f} for f in files], False)
    if not is_url(path) and not os.path.isdir(path) and os.path.splitext(path)[1].lower() not in TABLES:
        problem = 'is neither a folder nor a table' if os.path.lexists(path) else 'does not exist'
        raise ValueError(f'{path} {problem}; expected a folder of images, or a table {", ".join(TABLES)}')
    scores = open_scores(path)
    version = _scored(name, path, scores.rows(() if by is None else (by,)), by, scores.label)
    version.is_complete = scores.is_complete
    return version


def _images(folder: str) -> list[str]:
    """Image files of a folder; none if it is one of tables."""
    try:
        return find_images([folder])
    except FileNotFoundError:
        if not any(name.endswith('.parquet') for name in os.listdir(folder)):
            raise
        return []


def _scored(name: str, source: str, rows: list[Row], by: str | None, label: Label | None = None) -> Version:
    """A version of rows with scores."""
    where, column = source or name, 'path' if by is None else by
    if not rows:
        raise ValueError(
            f'{where} has no rows; expected a table made by `maclip-pyiqa score -o`, or rows of score_files'
        )
    if any(column not in row for row in rows):
        raise ValueError(f'{where} has no column {column!r}; its columns are {", ".join(rows[0])}')
    keys = [os.sep.join(parts) for parts in _parts(rows)] if by is None else [str(row[by]) for row in rows]
    (key, times), *_ = Counter(keys).most_common(1)
    if times > 1:
        raise ValueError(f'{where} has {key!r} in the column {column!r} of {times} rows; expected each image once')
    # tables of other programs, paired by a column, need not have paths
    return Version(name, source, keys, [{'path': ''} | row for row in rows], True, label, by)


def _cut_paths(versions: Sequence[Version]) -> None:
    """Cut the paths of tables to those below one folder: of the folders that hold all images of the table, the one that
    gives the most pairs, or else the deepest."""
    known = {_stem(key) for version in versions if not version.scored for key in version.keys}
    tables = [(version, _parts(version.rows)) for version in versions if version.scored and version.by is None]

    def order(table: tuple[Version, list[list[str]]]) -> tuple[bool, int]:
        # last those that may or may not be of Windows, as the others tell; first those with most folders below the one
        # they share: the others may have lost some of these
        version, paths = table
        unsure = _is_windows(version.rows) is None
        return unsure, _shared(paths) - max(map(len, paths))

    for version, paths in sorted(tables, key=order):
        ways = [paths]
        if os.sep == '/' and _is_windows(version.rows) is not False:
            ways.append(_parts(version.rows, not _is_windows(version.rows)))
        best, version.keys = -1, []
        for paths in ways:
            shared = _shared(paths)
            pairs = [sum(_stem(os.sep.join(path[cut:])) in known for path in paths) for cut in range(shared + 1)]
            cut = max(range(shared, -1, -1), key=pairs.__getitem__)
            if pairs[cut] > best and len(set(map(tuple, paths))) == len(paths):
                best, version.keys = pairs[cut], [os.sep.join(path[cut:]) for path in paths]
        known |= set(map(_stem, version.keys))


def _parts(rows: Sequence[Row], windows: bool | None = None) -> list[list[str]]:
    """Folders and name of each path; `windows`: whether they are paths of Windows, None: as they look."""
    module = ntpath if (_is_windows(rows) if windows is None else windows) else os.path
    return [module.normpath(row['path']).split(module.sep) for row in rows]


def _is_windows(rows: Sequence[Row]) -> bool | None:
    """Whether paths were written on Windows; None: perhaps."""
    paths = [os.fspath(row['path']) for row in rows]
    if not any('\\' in path for path in paths):
        return False
    if any(re.match(r'[A-Za-z]:[\\/]|\\\\', path) for path in paths) or not any('/' in path for path in paths):
        return True
    return True if all('\\' in path for path in paths) else None


def _shared(paths: Sequence[list[str]]) -> int:
    """Number of folders that all paths share."""
    folders = zip(*(path[:-1] for path in paths), strict=False)
    return sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, folders))


def _stem(key: str) -> str:
    return os.path.splitext(key)[0]


def _names(sources: Sequence[Source]) -> list[str]:
    paths = [os.fspath(s) if isinstance(s, (str, os.PathLike)) else '' for s in sources]
    short = [os.path.basename(os.path.abspath(path)) if path else '' for path in paths]
    short = [s if os.path.isdir(path) else os.path.splitext(s)[0] for s, path in zip(short, paths, strict=True)]
    names = [s if short.count(s) == 1 else path for s, path in zip(short, paths, strict=True)]
    names = [name or chr(ord('A') + i % 26) for i, name in enumerate(names)]
    return [f'{name} ({i + 1})' if names.count(name) > 1 else name for i, name in enumerate(names)]
