"""The columns of a table of scores, and its label: names, types, words for people, order. Other modules know `path` and
`score`, and the columns that they fill or that they are about, such as `flags` in filter.py.

A row is a dict by the names of columns. `columns` gives the names in the order of a table; `column` what a name stands
for; `arrow_schema` its types in Arrow. All numbers but pixels are rounded to 6 decimals, so that a row is the same in
every format.

A `Label` says what the scores of a table are computed with. It is JSON in all formats: FILE.meta.json beside CSV and
JSON lines, and the schema's metadata of Parquet under the key LABEL_KEY.
"""

from __future__ import annotations

import datetime
import json
import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, TypedDict

from .._lists import as_names
from .._version import __version__
from ..metric.prompts import summary_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from ..metric import MACLIP

Row = dict[str, Any]
LABEL_KEY = 'maclip_pyiqa'  # of the metadata of Parquet files
LIBRARIES = ('torch', 'torchvision', 'open_clip_torch', 'pyiqa', 'numpy', 'scipy', 'Pillow')


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes:
        name: name in tables
        title: name for people
        kind: 'text'; 'words', separated by spaces; 'number'; or 'integer'
        meaning: meaning of a value, with its unit
        role: part in a row: 'key'; 'quality', a number of this metric of which higher is better; 'detail', another
            number of it; 'other', of another metric or of the user; 'image', a fact of the image; 'error'
    """

    name: str
    title: str
    kind: str
    meaning: str
    role: str

    @property
    def is_text(self) -> bool:
        """Whether its values are text."""
        return self.kind in ('text', 'words')


FIRST = (
    Column('path', 'path', 'text', 'path or URL of the image', 'key'),
    Column('score', 'score', 'number', 'quality, about 0 to about 1; empty where it failed', 'quality'),
    Column('percentile', 'percentile', 'number', "share of the reference's images that score lower, percent", 'detail'),
    Column('q_sim', 'cosine cue', 'number', 'cosine cue in [0, 1], mean over the views', 'quality'),
    Column('q_mag', 'magnitude cue', 'number', 'magnitude cue, mean over the views', 'quality'),
    Column('w_sim', 'cosine weight', 'number', 'weight of the cosine cue in [0, 1], mean over the views', 'detail'),
)
LAST = (
    Column('width', 'width', 'integer', 'width of the image, pixels; empty where it could not be read', 'image'),
    Column('height', 'height', 'integer', 'height of the image, pixels; empty where it could not be read', 'image'),
    Column('flags', 'flags', 'words', 'flat, noise, enlarged, clipped, border: the score means little', 'image'),
    Column('error', 'error', 'text', 'why there is no score, or not all of them; empty where nothing failed', 'error'),
)
ATTRIBUTE = Column('attribute_', '', 'number', 'cosine cue of a prompt pair in [0, 1], mean over the views', 'quality')
KNOWN = {each.name: each for each in (*FIRST, *LAST)}


@cache
def column(name: str) -> Column:
    """The column of a name; a name that is not known is that of another metric, or of a user's own column."""
    if name in KNOWN:
        return KNOWN[name]
    if name.startswith(ATTRIBUTE.name):
        return replace(ATTRIBUTE, name=name, title=name.removeprefix(ATTRIBUTE.name))
    return Column(name, name, 'number', 'score of another metric, or a column that was added', 'other')


def columns(
    attributes: Iterable[str], others: Iterable[str] = (), details: bool = True, percentile: bool = False
) -> tuple[str, ...]:
    """Names of the columns of a table, in order.

    Args:
        attributes: names of the metric's attributes, `MACLIP.attribute_names`
        others: names of other metrics
        details: whether there are cues and attributes
        percentile: whether there are percentiles, see `Reference`

    Raises:
        ValueError: another metric's name is that of a column

    Example:
        >>> from maclip_pyiqa.scoring import columns
        >>> columns(['sharp'], ['niqe'])
        ('path', 'score', 'q_sim', 'q_mag', 'w_sim', 'attribute_sharp', 'niqe', 'width', 'height', 'flags', 'error')
    """
    others = tuple(as_names('others', others))
    for name in others:
        if column(name).role != 'other' or others.count(name) > 1:
            raise ValueError(f'a metric named {name!r} would share its column with another; give it another name')
    ours = summary_columns(tuple(attributes))
    first = ('path', ours[0], *['percentile'] * percentile)
    return (*first, *(ours[1:] if details else ()), *others, *(each.name for each in LAST))


def empty_row(path: str, error: str = '') -> Row:
    """The row of an image that was not read, with the reason."""
    return {'path': path, 'score': None, **{each.name: None for each in LAST}, 'error': error}


def in_order(row: Row) -> Row:
    """A row with the last columns last, as in `columns`."""
    last = [each.name for each in LAST if each.name in row]
    return {name: row[name] for name in (*(name for name in row if name not in last), *last)}


def complete_words(row: Row) -> None:
    """Empty words where there are none; they stay missing where the image could not be read, as its width is."""
    if 'flags' in row and row['flags'] is None and row.get('width', row.get('score')) is not None:
        row['flags'] = ''


def arrow_schema(names: Iterable[str], types: Mapping[str, pa.DataType] | None = None) -> pa.Schema:
    """Schema of Arrow, without metadata.

    Args:
        names: names of columns
        types: types of columns that were added; others of them are numbers
    """
    import pyarrow as pa

    plain = {'text': pa.string(), 'words': pa.string(), 'number': pa.float64(), 'integer': pa.int64()}
    return pa.schema([(name, (types or {}).get(name, plain[column(name).kind])) for name in names])


def rounded(value: float | None) -> float | None:
    """A number as tables hold it: with 6 decimals; None if it is not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


# --- labels -----------------------------------------------------------------------------------------------------------


class Label(TypedDict, total=False):
    """What the scores of a table are computed with, as plain data.

    Attributes:
        config: options of the metric, `MACLIP.config`
        fingerprint: identity of its scores, `MACLIP.fingerprint()`
        versions: versions of Python and of libraries, by name
        date: date and time of the first scores, ISO 8601, UTC
        reference: what the percentiles are of, `Reference.about`
        filter: conditions that the rows were chosen by, of a list that `filter` wrote

    Example::

        from maclip_pyiqa import open_scores

        label = open_scores('scores.csv').label
        print(label['config']['backbone'], label['fingerprint'], label['date'])
    """

    config: dict[str, Any]
    fingerprint: str
    versions: dict[str, str]
    date: str
    reference: dict[str, Any]
    filter: dict[str, Any]


def label(metric: MACLIP) -> Label:
    """The label of what a metric scores from now on.

    Args:
        metric: metric that scores

    Returns:
        a `Label` with the metric's options and fingerprint, the versions of libraries, and the date

    Example::

        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.scoring import label

        print(label(MACLIP())['fingerprint'])  # 64 hexadecimal digits
    """
    return Label(config=metric.config, fingerprint=metric.fingerprint(), versions=versions(), date=now())


def as_label(found: Any) -> Any:
    """The label that was read from a file; None: there is none that says which metric the scores are from."""
    kinds = {'config': dict, 'fingerprint': str, 'versions': dict}
    known = isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in kinds.items())
    return found if known else None


def label_difference(old: Label, new: Label) -> str:
    """What differs between two labels of different fingerprints, in words."""
    before, now = old['config'], json.loads(json.dumps(new['config']))  # tuples as the lists that they are in `old`
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if names:
        return '; '.join(f'{name} was {before.get(name)!r} and is {now.get(name)!r}' for name in names)
    releases = [each['versions'].get('maclip_pyiqa') for each in (old, new)]
    changed = '' if releases[0] == releases[1] else f', or maclip_pyiqa, which was {releases[0]} and is {releases[1]}'
    return f'the options are the same, so the weights differ{changed}'


def versions() -> dict[str, str]:
    """Versions of Python, of this package, and of the libraries that scores depend on, as far as they are installed."""
    found = {'python': platform.python_version(), 'maclip_pyiqa': __version__}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """Date and time, ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')
