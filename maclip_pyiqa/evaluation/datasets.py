"""IQA data sets as lists of image files and labels: pyiqa's, by a protocol, and lists of one's own."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent

# column names by which a list is understood, the first that is there; those of pyiqa's meta_info files and the authors'
FILE = ('dist_name', 'img_path', 'img_name', 'image_name', 'image_path', 'filename', 'file', 'image', 'path', 'name')
LABEL = ('gt_score', 'mos', 'dmos', 'label', 'score')
GROUP = ('group', 'ref_name', 'ref_path')


class UsageError(Exception):
    """Wrong use; the message says what was wanted."""


def line(error: Exception) -> str:
    """An error in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ' '.join(text.split()) or type(error).__name__


@dataclass(frozen=True)
class DataSet:
    """Images and their labels, as published.

    Attributes:
        name: as it was asked for
        paths: of the image files
        names: their paths below the image folder
        labels: as published, (N,)
        groups: one for all versions of one photo (its reference); None where unknown
        lower_better: whether a lower label means a better image, as declared
        preparation: what is done to each image, pyiqa's `augment`; empty: nothing
        protocol: 'pyiqa', 'paper' or 'list'
    """

    name: str
    paths: list[str]
    names: list[str]
    labels: list[float]
    groups: list[str] | None
    lower_better: bool
    preparation: dict
    protocol: str


def protocols() -> dict:
    """What protocols.yml holds: `protocols`, `lists` and `published`."""
    import yaml

    return yaml.safe_load((HERE / 'protocols.yml').read_text('utf-8'))


def by_name(name: str, protocol: str, data_root: Path, download: bool = False) -> DataSet:
    """A data set by its name.

    Args:
        name: pyiqa's, or one of `lists` in protocols.yml
        protocol: 'pyiqa' or 'paper'
        data_root: folder of data sets in pyiqa's layout
        download: let pyiqa fetch what is not there

    Raises:
        UsageError: an unknown name, one that the protocol lacks, a data set without one label an image, or missing
            files; says where they are looked for
    """
    import pyiqa

    book = protocols()
    known, changes = pyiqa.get_dataset_info(), book['protocols'][protocol]
    if name not in changes and 'any' not in changes:
        raise UsageError(f'protocol {protocol!r} has no data set {name!r}; it has {", ".join(changes)}')
    if name not in known and name not in book['lists']:
        raise UsageError(f'unknown data set {name!r}; known are {", ".join(sorted({*known, *book["lists"]}))}')
    options = changes.get(name, {})
    preparation = options.get('augment', known.get(name, {}).get('augment')) or {}
    if name in book['lists']:
        entry = book['lists'][name]
        table, images = data_root / entry['table'], data_root / entry['images']
        return from_list(
            table, images, name, entry['file'], entry['label'], entry['lower_better'], preparation, protocol
        )

    config = known[name] | options
    places = [data_root / Path(*Path(config[key]).parts[1:]) for key in ('meta_info_file', 'dataroot_target')]
    missing = [str(place) for place in places if not place.exists()]
    if missing and not download:
        raise UsageError(
            f'data set {name!r}: {" and ".join(missing)} missing; --data-root names the folder of data sets in '
            "pyiqa's layout, --download lets pyiqa fetch them"
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):
            dataset = pyiqa.load_dataset(name, data_root, dataset_opts=options)
    except Exception as error:  # downloads and half-read tables fail in all kinds of ways
        raise UsageError(f'data set {name!r} cannot be loaded from {data_root}: {line(error)}') from error
    return _from_pyiqa(name, dataset, places[1], config.get('lower_better', False), preparation, protocol)


def _from_pyiqa(name: str, dataset, folder: Path, lower_better: bool, preparation: dict, protocol: str) -> DataSet:
    from pyiqa.data.general_fr_dataset import GeneralFRDataset
    from pyiqa.data.general_nr_dataset import GeneralNRDataset

    groups = None
    if not dataset.paths_mos:
        raise UsageError(f'data set {name!r} has no images in its split; see its meta_info file')
    if isinstance(dataset, GeneralFRDataset):
        groups, paths, labels = zip(*((os.path.basename(r), p, m) for r, p, m, *_ in dataset.paths_mos), strict=True)
    elif isinstance(dataset, GeneralNRDataset):
        paths, labels = zip(*((p, m) for p, m, *_ in dataset.paths_mos), strict=True)
    elif type(dataset).__name__ == 'AVADataset':
        paths, labels = zip(*((os.path.join(folder, p), m) for p, m, *_ in dataset.paths_mos), strict=True)
    else:
        raise UsageError(f'data set {name!r} is of pairs of images; wanted is one with a label for each image')
    names = [os.path.relpath(path, folder) for path in paths]
    labels = [_number(Path(f'meta_info of {name}'), i, label) for i, label in enumerate(labels)]
    paths, groups = [str(p) for p in paths], groups and list(groups)
    return DataSet(name, paths, names, labels, groups, lower_better, preparation, protocol)


def from_list(
    table: Path,
    images: Path,
    name: str | None = None,
    file_column: str | None = None,
    label_column: str | None = None,
    lower_better: bool | None = None,
    preparation: dict | None = None,
    protocol: str = 'list',
) -> DataSet:
    """A data set from a table of files and labels.

    Args:
        table: .csv with a header, or .json, a list of objects
        images: folder that the files are in
        name: of the data set; None: the table's own
        file_column, label_column: None: found by their usual names
        lower_better: direction of the labels; None: higher is better, unless the column is called dmos, which must
            be told, as data sets differ there

    Raises:
        UsageError: a table that cannot be read or lacks a column, labels that are no numbers, no images
    """
    rows = _rows(table)
    columns = {column.strip().lower(): column for column in rows[0] if column is not None}  # None: too many fields
    file = _column(table, columns, FILE, file_column, 'file')
    label = _column(table, columns, LABEL, label_column, 'label')
    group = next((columns[c] for c in GROUP if c in columns), None)
    if lower_better is None:
        if label.strip().lower() == 'dmos':
            raise UsageError(f'{table}: is a low {label!r} good? say --labels dmos if it is, else --labels mos')
        lower_better = False
    name = name or table.stem
    if not re.fullmatch(r'[\w+-][\w.+-]*', name):
        raise UsageError(f'{name!r} is to be a folder of results; name the data set by letters, digits and _ . + -')
    labels = [_number(table, i, row.get(label)) for i, row in enumerate(rows)]
    names = [str(row.get(file) or '') for row in rows]
    if not all(names):
        raise UsageError(f'{table}: entry {names.index("") + 1} names no file')
    groups = [str(row[group]) for row in rows] if group and all(row.get(group) for row in rows) else None
    paths = [str(images / n) for n in names]
    return DataSet(name, paths, names, labels, groups, lower_better, preparation or {}, protocol)


def _rows(table: Path) -> list[dict]:
    try:
        text = table.read_text('utf-8-sig')  # as Excel saves it too
        rows = json.loads(text) if table.suffix.lower() == '.json' else list(csv.DictReader(io.StringIO(text)))
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f'{table} cannot be read: {line(error)}') from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f'{table}: wanted is a CSV file with a header and rows, or a JSON list of objects')
    return rows


def _column(table: Path, columns: dict[str, str], usual: tuple[str, ...], given: str | None, what: str) -> str:
    found = next((columns[c] for c in ((given.lower(),) if given else usual) if c in columns), None)
    if found is None:
        wanted = repr(given) if given else f'{what} column ({", ".join(usual)})'
        raise UsageError(f'{table} has no {wanted}; it has {", ".join(columns)}; name one with --{what}-column')
    return found


def _number(table: Path, i: int, text: object) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f'{table}: the label of entry {i + 1} is {text!r}; a number is wanted')
    return value


def prepared(data: bytes, preparation: dict) -> np.ndarray:
    """Pixels of an image file as a protocol wants them, (H, W, 3), uint8.

    Opened as pyiqa's loaders do (no EXIF rotation, converted to RGB), but truncated files are refused: some of pyiqa's
    modules switch Pillow's check off for the whole process.

    Raises:
        OSError, ValueError: no image, or a broken one
    """
    from PIL import Image, ImageFile, UnidentifiedImageError

    tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert('RGB')
    except UnidentifiedImageError:
        raise OSError('no image, or of a format that Pillow does not read') from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant
    if preparation:
        from pyiqa.data.transforms import transform_mapping

        for key, value in preparation.items():
            for transform in transform_mapping(key, value):
                image = transform(image)
    return np.array(image)
