"""IQA data sets as lists of image files and ratings: pyiqa's, prepared by a named protocol, or a list of your own."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .._files import one_line
from .._lazy import need
from ..scoring.text import read_text

__all__ = ['DataSet', 'load_dataset', 'read_list']

DATA = Path(__file__).parent  # of protocols.yml and the published results

NAME = r'[\w+-][\w.+-]*'  # what may name a file of the results: no folder, not hidden

# Column names that a list is searched for, in this order: those of pyiqa's meta_info files and of the authors' lists
FILE = ('dist_name', 'img_path', 'img_name', 'image_name', 'image_path', 'filename', 'file', 'image', 'path', 'name')
RATING = ('gt_score', 'mos', 'dmos', 'label', 'score')
GROUP = ('group', 'ref_name', 'ref_path')


@dataclass(frozen=True)
class DataSet:
    """Images and their ratings.

    Attributes:
        name: name, as it was asked for
        paths: paths of the image files, (N,)
        names: paths relative to the image folder, (N,)
        ratings: ratings, as published, (N,)
        groups: group of each image, equal for all versions of one photo (its reference); None if unknown
        lower_better: whether a lower rating means a better image (DMOS), as declared by the data set
        preparation: pyiqa's `augment`, which prepares each image before it is scored; empty: nothing
        protocol: name of the protocol: 'pyiqa', 'paper' or 'list'

    Example::

        from pathlib import Path

        from maclip_pyiqa.evaluation.datasets import read_list

        dataset = read_list(Path('ratings.csv'), images=Path('rated'))
        dataset.signed_ratings                 # (N,), higher is better
    """

    name: str
    paths: list[str]
    names: list[str]
    ratings: list[float]
    groups: list[str] | None
    lower_better: bool
    preparation: dict[str, Any] = field(default_factory=dict)
    protocol: str = 'list'

    @property
    def signed_ratings(self) -> np.ndarray:
        """Ratings of which higher is better, (N,). DMOS ratings are negated."""
        ratings = np.array(self.ratings, float)
        return 0 - ratings if self.lower_better else ratings


def protocols() -> dict[str, Any]:
    """The content of protocols.yml: `protocols` and `lists`."""
    import yaml

    return yaml.safe_load((DATA / 'protocols.yml').read_text('utf-8'))


def load_dataset(name: str, protocol: str, data_root: Path, download: bool = False) -> DataSet:
    """A data set by name.

    Args:
        name: name of a data set of pyiqa, or of `lists` in protocols.yml
        protocol: name of the protocol: 'pyiqa' or 'paper'
        data_root: folder of data sets in pyiqa's layout
        download: whether pyiqa may download a data set that is missing

    Raises:
        KeyError: an unknown protocol
        ValueError: an unknown name, one that the protocol lacks, or a data set that does not rate single images
        FileNotFoundError: missing files; the message says where they are expected
        OSError: a failed download
        ModuleNotFoundError: pyiqa is not installed

    Example::

        from pathlib import Path

        from maclip_pyiqa.evaluation.datasets import load_dataset

        dataset = load_dataset('koniq10k-1024', 'paper', Path('datasets'))
        print(dataset.names[0], dataset.ratings[0])
    """
    need("a data set in pyiqa's layout", 'pyiqa')
    import pyiqa

    settings = protocols()
    known, changes, lists = pyiqa.get_dataset_info(), settings['protocols'][protocol], settings['lists']
    if name not in changes and 'any' not in changes:
        raise ValueError(f'protocol {protocol!r} has no data set {name!r}; it has {", ".join(changes)}')
    if name not in known and name not in lists:
        raise ValueError(f'unknown data set {name!r}; known are {", ".join(sorted({*known, *lists}))}')
    options = changes.get(name, {})
    preparation = options.get('augment', known.get(name, {}).get('augment')) or {}
    if name in lists:
        entry = lists[name]
        columns = entry['file'], entry['rating'], entry['lower_better']
        dataset = read_list(data_root / entry['table'], data_root / entry['images'], name, *columns)
        return replace(dataset, preparation=preparation, protocol=protocol)

    config = known[name] | options
    places = [data_root / Path(*Path(config[key]).parts[1:]) for key in ('meta_info_file', 'dataroot_target')]
    missing = [str(place) for place in places if not place.exists()]
    if missing and not download:
        raise FileNotFoundError(
            f'data set {name!r}: {" and ".join(missing)} missing; set --data-root to the folder of data sets in '
            "pyiqa's layout, or --download them through pyiqa"
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):
            loaded = pyiqa.load_dataset(name, data_root, dataset_opts=options)
    except Exception as error:  # downloads and incomplete tables raise all kinds of errors
        raise OSError(f'data set {name!r} cannot be loaded from {data_root}: {one_line(error)}') from error
    from pyiqa.data.general_fr_dataset import GeneralFRDataset
    from pyiqa.data.general_nr_dataset import GeneralNRDataset

    rows, folder = loaded.paths_mos, places[1]
    if not rows:
        raise ValueError(f'data set {name!r} has no images in its split; see its meta_info file')
    if isinstance(loaded, GeneralFRDataset):
        entries = [(path, rating, os.path.basename(reference)) for reference, path, rating, *_ in rows]
    elif isinstance(loaded, GeneralNRDataset):
        entries = [(path, rating, None) for path, rating, *_ in rows]
    elif type(loaded).__name__ == 'AVADataset':
        entries = [(os.path.join(folder, path), rating, None) for path, rating, *_ in rows]
    else:
        raise ValueError(f'data set {name!r} is of pairs of images; expected one with a rating for each image')
    paths, ratings, groups = (list(column) for column in zip(*entries, strict=True))
    return DataSet(
        name=name,
        paths=[str(path) for path in paths],
        names=[os.path.relpath(path, folder) for path in paths],
        ratings=[_number(f'meta_info of {name}', i, rating) for i, rating in enumerate(ratings)],
        groups=None if None in groups else groups,
        lower_better=config.get('lower_better', False),
        preparation=preparation,
        protocol=protocol,
    )


def read_list(
    table: Path,
    images: Path,
    name: str | None = None,
    file_column: str | None = None,
    rating_column: str | None = None,
    lower_better: bool | None = None,
    group_column: str | None = None,
) -> DataSet:
    """A data set from a table of files and ratings.

    Args:
        table: path of a .csv file with a header (commas, semicolons or tabs, with the latter two decimal commas), or of
            a .json file with a list of objects
        images: folder that the file names are relative to
        name: name of the data set; None: the table's
        file_column, rating_column: names of the columns; None: the first usual names that the table has
        lower_better: direction of the ratings; None: higher is better, but a column called dmos must be declared, as
            data sets differ there
        group_column: name of the column of groups, equal for all versions of one photo; None: a usual name, if the
            table has one and it is filled

    Raises:
        OSError, ValueError: a table that cannot be read or lacks a column, ratings that are not numbers, no images, or
            scores of a metric in place of ratings

    Example::

        from pathlib import Path

        from maclip_pyiqa.evaluation.datasets import read_list

        dataset = read_list(Path('ratings.csv'), images=Path('rated'))
        print(dataset.name, len(dataset.paths))
    """
    rows = _rows(table)
    columns = {column.strip().lower(): column for column in rows[0] if column is not None}  # None: too many fields
    file = _column(table, columns, FILE, file_column, 'file')
    rating = _column(table, columns, RATING, rating_column, 'rating')
    if rating == 'score' and 'error' in columns and not rating_column:
        raise ValueError(
            f'{table} looks like a table of `maclip-pyiqa score`, whose column score is no human rating; name the '
            'column of the ratings with --rating-column'
        )
    group = _column(table, columns, GROUP, group_column, 'group') if group_column or {*GROUP} & {*columns} else None
    if lower_better is None and rating.strip().lower() == 'dmos':
        raise ValueError(
            f'{table}: the direction of {rating!r} is ambiguous; pass --ratings dmos if low values mean good images, '
            'else --ratings mos'
        )
    cells = [row.get(group) if group else None for row in rows]
    groups = ['' if cell is None else str(cell).strip() for cell in cells]
    if group_column and '' in groups:
        raise ValueError(
            f'{table}: entry {groups.index("") + 1} has no {group}; expected one in each, or leave --group-column out'
        )
    name = name or table.stem
    if not re.fullmatch(NAME, name):
        raise ValueError(f'{name!r} cannot name the data set; name it with letters, digits and _ . + - by --name')
    names = [str(row.get(file) or '') for row in rows]
    if not all(names):
        raise ValueError(f'{table}: entry {names.index("") + 1} names no file')
    return DataSet(
        name=name,
        paths=[str(images / n) for n in names],
        names=names,
        ratings=[_number(str(table), i, row.get(rating)) for i, row in enumerate(rows)],
        groups=None if '' in groups else groups,
        lower_better=bool(lower_better),
    )


def _rows(table: Path) -> list[dict[str, Any]]:
    try:
        text = read_text(os.fspath(table))
        rows = json.loads(text) if table.suffix.lower() == '.json' else _csv(text)
    except (OSError, ValueError, csv.Error) as error:
        raise OSError(f'{table} cannot be read: {one_line(error)}') from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f'{table} has no entries; expected a CSV file with a header and rows, or a JSON list of objects'
        )
    return rows


def _csv(text: str) -> list[dict[str, Any]]:
    """Rows of CSV, as spreadsheets write it too: with semicolons or tabs, and then with decimal commas."""
    delimiter = max(',;\t', key=text.partition('\n')[0].count)
    rows = list(csv.DictReader(io.StringIO(text), delimiter=delimiter))
    if delimiter == ',':
        return rows
    number = re.compile(r'\s*[+-]?\d*,\d+\s*')
    return [
        {k: v.replace(',', '.') if isinstance(v, str) and number.fullmatch(v) else v for k, v in row.items()}
        for row in rows
    ]


def _column(table: Path, columns: dict[str, str], usual: tuple[str, ...], given: str | None, what: str) -> str:
    column = next((columns[c] for c in ((given.strip().lower(),) if given else usual) if c in columns), None)
    if column is None:
        expected = repr(given) if given else f'{what} column ({", ".join(usual)})'
        raise ValueError(
            f'{table} has no {expected}; it has {", ".join(columns.values())}; name one with --{what}-column'
        )
    return column


def _number(table: str, i: int, text: Any) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f'{table}: the rating of entry {i + 1} is {text!r}; expected a number')
    return value


def prepared(data: bytes, preparation: dict[str, Any]) -> np.ndarray:
    """Pixels of an image file as a protocol prepares it, (H, W, 3), uint8.

    As pyiqa's data sets do it: no EXIF rotation, converted to RGB. Unlike there, truncated files are refused: some of
    pyiqa's modules disable Pillow's check for the whole process.

    Raises:
        OSError, ValueError: not an image, or a damaged one
    """
    from PIL import UnidentifiedImageError

    from ..scoring.find import describe
    from ..scoring.read import decode

    def pixels(opened: Any) -> np.ndarray:
        image = opened.convert('RGB')
        if preparation:
            from pyiqa.data.transforms import transform_mapping

            for key, value in preparation.items():
                for transform in transform_mapping(key, value):
                    image = transform(image)
        return np.array(image)

    try:
        return decode(io.BytesIO(data), pixels)
    except UnidentifiedImageError:
        raise OSError(describe('')) from None
