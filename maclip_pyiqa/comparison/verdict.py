"""Two or more versions of the same images: which one is better, by how much, and how sure is that?"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from .._lists import as_names
from ..scoring.formats.csv import write_csv
from ..scoring.others import lower_better as known_lower_better
from ..scoring.schema import Label, Row, column, label
from ..scoring.text import escape_path
from .pairing import Images, Source, Version, check_labels, pair, read_versions
from .statistics import FEWEST, POWER, Paired, paired

if TYPE_CHECKING:
    from torch import Tensor

    from ..metric import MACLIP


@dataclass(frozen=True)
class Result:
    """One quantity in two versions.

    Attributes:
        a, b: names of the versions
        quantity: 'score', 'q_sim', 'q_mag', 'attribute_NAME', or the name of another metric
        statistics: statistics of its pairs
        verdict: verdict in words

    Example::

        from maclip_pyiqa import compare

        for result in compare('before', 'after').results:
            print(result.quantity, result.statistics.difference, result.verdict)
    """

    a: str
    b: str
    quantity: str
    statistics: Paired
    verdict: str


@dataclass
class Comparison:
    """Versions of the same images, compared. `str(comparison)` is a plain table.

    Attributes:
        names: names of the versions, in the order given
        images: rows of each image, by what pairs it: one of each version, None where there is none
        results: results for each pair of versions (a before b in the order given) and each quantity
        failed: (name of the version, row) of each image with an error; numbers that are missing there are left out
        notes: sentences that a reader has to know, such as that a table has no label
        label: label of the scores; None: unknown
        settings: settings of the bootstrap: `resamples` and `seed`
        maps: windows' values of images that were scored, by path, for the page's quality maps

    Example::

        from maclip_pyiqa import compare

        comparison = compare('before', 'after')
        comparison.of('before', 'after')[0].verdict  # of the score
        comparison.pairs_to_csv('pairs.csv')
    """

    names: tuple[str, ...]
    images: Images
    results: list[Result]
    failed: list[tuple[str, Row]]
    notes: list[str]
    label: Label | None = None
    settings: dict[str, int] = field(default_factory=dict)
    maps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the quantities that are compared."""
        return tuple(dict.fromkeys(result.quantity for result in self.results))

    @property
    def unpaired(self) -> dict[str, tuple[str, ...]]:
        """Images that some version lacks -> the versions that have them."""
        return {
            key: tuple(name for name, row in zip(self.names, rows, strict=True) if row is not None)
            for key, rows in self.images.items()
            if None in rows
        }

    def of(self, a: str, b: str) -> list[Result]:
        """Results of two versions, named in the order of `names`."""
        return [result for result in self.results if (result.a, result.b) == (a, b)]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the statistics, a row for each pair of versions and quantity.

        Raises:
            OSError: the file cannot be written
        """
        write_csv(path, self._statistics())

    def pairs_to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the values, and further text, a row for each pair of versions and image: with empty cells where a
        version lacks it.

        Raises:
            OSError: the file cannot be written
        """
        every = [row for rows in self.images.values() for row in rows if row is not None]
        text = dict.fromkeys(name for row in every for name, value in row.items() if not _is_number(value))
        more = [name for name in text if _is_compared(name) and name not in self.quantities]
        lines = []
        for i, j in combinations(range(len(self.names)), 2):
            for key, rows in self.images.items():
                first, second = rows[i] or {}, rows[j] or {}
                if first or second:
                    line: Row = {'image': key, 'a': self.names[i], 'b': self.names[j]}
                    line |= {'path_a': first.get('path', ''), 'path_b': second.get('path', '')}
                    for name in self.quantities:
                        a, b = first.get(name), second.get(name)
                        change = None if a is None or b is None else b - a
                        line |= {f'{name}_a': a, f'{name}_b': b, f'{name}_difference': change}
                    for name in more:
                        line |= {f'{name}_a': first.get(name), f'{name}_b': second.get(name)}
                    lines.append(line)
        write_csv(path, lines)

    def to_html(
        self, path: str | os.PathLike[str], pictures: int = 60, source: Mapping[str, str] | None = None
    ) -> None:
        """Write a page: pairs side by side, a slider that wipes one over the other, quality maps, the statistics.

        It is one file that needs no server and no network. Images of tables have no quality maps.

        Args:
            path: path of the page
            pictures: largest number of images that are shown: those with the largest difference of the score in either
                direction, and evenly spread ones between. They are read from their files
            source: further pairs for the provenance, such as {'command': ...}

        Raises:
            OSError: the file cannot be written
            ModuleNotFoundError: Jinja2 is not installed
        """
        from .page import write_page

        how = {
            'intervals': '95 %, bootstrap over pairs (expanded percentiles, {resamples} resamples, seed {seed}); of '
            'the wins, Wilson'.format(**self.settings),
            'verdicts': 'above or below where the interval of the mean difference lies on one side of zero',
        }
        more: dict[str, Any] = {
            'maps': self.maps,
            'notes': self.notes,
            'label': self.label,
            'source': how | dict(source or {}),
        }
        write_page(path, self.names, self.images, self._statistics(), pictures=pictures, **more)

    def _statistics(self) -> list[dict[str, Any]]:
        return [
            {'a': r.a, 'b': r.b, 'quantity': r.quantity, **asdict(r.statistics), 'verdict': r.verdict}
            for r in self.results
        ]

    def __str__(self) -> str:
        lines = []
        for a, b in combinations(self.names, 2):
            if results := self.of(a, b):
                lines += [escape_path(results[0].verdict), '', *_plain_table(a, b, results), '']
            else:
                lines += [escape_path(f'{a}, {b}: no image in both'), '']
        return '\n'.join(lines).rstrip()


def compare(
    *versions: Source,
    metric: MACLIP | None = None,
    by: str | None = None,
    names: Sequence[str] | None = None,
    others: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    lower_better: Collection[str] = (),
    resamples: int = 9999,
    seed: int = 0,
    batch: int = 16,
    workers: int = 0,
) -> Comparison:
    """Compare versions of the same images: is B better than A?

    For each two versions, and the score, the cues, each attribute and each other metric: the mean difference with its
    95 % paired bootstrap interval, the share of pairs in which the second is better, Wilcoxon's test, and a verdict.
    Each interval holds for itself: of 20 quantities that do not differ, one is expected to seem to.

    Args:
        versions: two or more folders of images, tables made by `maclip-pyiqa score -o` or folders of them, or lists of
            rows of `score_files`
        metric: metric that scores the folders; None: MACLIP(), if there are folders
        by: column of the tables that pairs images; None: the path below the folder, without its suffix
        names: names of the versions; None: the names of the folders or tables
        others: other metrics for the folders, see `score_files`
        lower_better: names of those other metrics (columns of tables too) where lower is better
        resamples, seed: number of resamples and seed of the bootstrap
        batch, workers: options of `score_files`

    Returns:
        the results as a `Comparison`, which prints as a table, and writes itself as .csv and as a page

    Raises:
        OSError: a folder or table that cannot be read
        ValueError: fewer than two versions, no image in two of them, or scores of different metrics
        WeightsError: no weights for MACLIP()

    Example::

        from maclip_pyiqa import compare

        comparison = compare('before', 'after')
        print(comparison)
        comparison.to_html('compare.html')
    """
    read = read_versions(versions, by, names)
    images = pair(read)
    check_labels(read)  # before the metric is loaded
    if all(version.scored for version in read):
        metric = None
    elif metric is None:
        from ..metric import MACLIP

        metric = MACLIP()
    options = {'others': others, 'batch': batch, 'workers': workers}
    return compare_versions(
        read, images, metric, lower_better=lower_better, resamples=resamples, seed=seed, options=options
    )


def compare_versions(
    versions: Sequence[Version],
    images: Images,
    metric: MACLIP | None = None,
    *,
    lower_better: Collection[str] = (),
    resamples: int = 9999,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Comparison:
    """`compare` for versions that `read_versions` has read and `pair` has paired.

    Args:
        metric: metric that scores the folders; None: there are only tables
        options: options of `score_files`

    Raises:
        ValueError: scores of different metrics, or nothing that can be compared
    """
    source: Label | None = None
    maps: Mapping[str, Mapping[str, Any]] = {}
    if metric is not None:
        source = label(metric)
        check_labels(versions, source)
        images, maps = score_folders(images, versions, metric, **(options or {}))
    names = tuple(version.name for version in versions)
    keys = {version.by for version in versions}
    values = []  # (names of two versions, quantity, its values in their pairs), without keys of tables
    for (i, a), (j, b) in combinations(enumerate(names), 2):
        rows = [(x, y) for row in images.values() if (x := row[i]) is not None and (y := row[j]) is not None]
        for quantity in _quantities(rows):
            if quantity not in keys:
                pairs = np.array([(x.get(quantity), y.get(quantity)) for x, y in rows], float).reshape(-1, 2)
                values.append((a, b, quantity, pairs[np.isfinite(pairs).all(axis=1)]))
    if not values:
        raise ValueError('no two versions have images and a column of numbers in common; expected scores in both')
    foreign = {quantity for _, _, quantity, _ in values if column(quantity).role == 'other'}
    named, notes = as_names('lower_better', lower_better), list[str]()
    if unknown := {*named} - {quantity for _, _, quantity, _ in values}:
        problem = (
            f'lower_better names {", ".join(sorted(unknown))}, which is not compared; expected some of '
            f'{", ".join(dict.fromkeys(quantity for _, _, quantity, _ in values))}'
        )
        if metric is None:
            raise ValueError(problem)
        notes.append(problem)  # scores are not lost for it
    lower = {*named} | known_lower_better(foreign)
    results = []
    for a, b, quantity, pairs in values:
        found = paired(*pairs.T, lower_better=quantity in lower, resamples=resamples, seed=seed)
        results.append(Result(a, b, quantity, found, verdict(found, a, b)))
    return Comparison(
        names=names,
        images=images,
        results=results,
        failed=[
            (name, row)
            for place, name in enumerate(names)
            for rows in images.values()
            if (row := rows[place]) is not None and row.get('error')
        ],
        notes=[*notes, *_notes(versions, foreign - lower)],
        label=next((known for known in (source, *(version.label for version in versions)) if known is not None), None),
        settings={'resamples': resamples, 'seed': seed},
        maps=maps,
    )


def score_folders(
    images: Images, versions: Sequence[Version], metric: MACLIP, **options: Any
) -> tuple[Images, Mapping[str, dict[str, Any]]]:
    """Score the images of folders that are in two versions or more, each file once, with options of `score_files`.

    Returns the images with rows of scores in place of those of folders, and the windows' values of the images by path.
    """
    from tqdm import tqdm

    from ..report.pictures import Maps
    from ..scoring.score import score_files

    paired = {key: rows for key, rows in images.items() if len(rows) - rows.count(None) > 1}
    paths: dict[str, str] = {}  # of each file, which may be there twice: a folder may be compared with itself
    for rows in paired.values():
        for row, version in zip(rows, versions, strict=True):
            if row is not None and not version.scored:
                paths.setdefault(os.path.realpath(row['path']), row['path'])
    maps = Maps()
    progress = tqdm(
        score_files(metric, paths.values(), each=maps, **options), total=len(paths), unit=' images', disable=None
    )
    scores = dict(zip(paths, progress, strict=True))

    def scored(row: Row | None, version: Version) -> Row | None:
        return row if row is None or version.scored else scores[os.path.realpath(row['path'])] | {'path': row['path']}

    return images | {key: tuple(map(scored, rows, versions)) for key, rows in paired.items()}, maps


def _notes(versions: Sequence[Version], unknown: Collection[str]) -> Iterator[str]:
    """What a reader has to know; `unknown`: columns whose better direction was not given."""
    for version in versions:
        if version.scored and version.label is None:
            yield f'{version.name}: no label says which metric the scores are from'
        if not version.is_complete:
            yield f'{version.name}: the run that writes these scores is not complete; rerun its command first'
    if unknown and find_spec('pyiqa') is None:
        taken = ', '.join(sorted(unknown))
        yield f'{taken}: higher is taken for better, as pyiqa, which knows its metrics, is not installed'
    for v, w in combinations(versions, 2):
        if v.source and w.source and os.path.realpath(v.source) == os.path.realpath(w.source):
            kind = 'folder' if os.path.isdir(w.source) else 'table'
            yield f'{v.name} and {w.name} are the same {kind}, so all pairs are equal; expected another version'


def _quantities(both: Sequence[tuple[Row, Row]]) -> list[str]:
    """Columns of numbers that both versions have, in their order; the score first."""
    first = dict.fromkeys(name for a, _ in both for name in a)
    second = {name for _, b in both for name in b}
    indexes = re.compile(r'(__index_level_0__|Unnamed: .*)?')  # numbers of rows, as pandas writes them
    names = [name for name in first if name in second and _is_compared(name) and not indexes.fullmatch(name)]
    numbers = [name for name in names if all(_is_number(row.get(name)) for p in both for row in p)]
    return sorted(numbers, key=lambda name: name != 'score')


def _is_compared(name: str) -> bool:
    return column(name).role in ('quality', 'other')  # the weight of a cue, a detail, is neither good nor bad


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def verdict(found: Paired, a: str, b: str) -> str:
    """What the statistics of versions called a and b say, in words.

    b is above (or below) a where the 95 % interval of the mean difference lies on one side of zero. Wilcoxon's test
    stands beside it and has no part in this.

    Example:
        >>> low = np.array([0.20, 0.50, 0.40, 0.90, 0.70, 0.30])
        >>> verdict(paired(low, low + 0.1), 'A', 'B')
        'B above A'
        >>> verdict(paired(low, low[::-1]), 'A', 'B')
        'no difference shown at n = 6; a difference of 0.49 would have been, with 80 % power'
    """
    if found.n < FEWEST:
        return f'too few pairs for a verdict: n = {found.n}, at least {FEWEST} are needed'
    if found.low > 0 or found.high < 0:
        words = f'{b} {"above" if found.low > 0 else "below"} {a}'
        return words + ' (lower is better)' * found.lower_better
    if found.low == found.high == 0:
        return f'no difference: all {found.n} pairs are equal'
    return (
        f'no difference shown at n = {found.n}; a difference of {found.detectable:.2g} would have been, '
        f'with {100 * POWER:.0f} % power'
    )


def _plain_table(a: str, b: str, results: Sequence[Result]) -> list[str]:
    more = ('difference', '95 % interval', 'wins', 'p', 'verdict')
    cells = [('quantity', 'n', escape_path(a), escape_path(b), *more)]
    for result in results:
        s = result.statistics
        interval = '-' if math.isnan(s.low) else f'{s.low:+.4f} to {s.high:+.4f}'
        wins = (
            '-' if math.isnan(s.wins) else f'{100 * s.wins:.0f} % ({100 * s.wins_low:.0f} to {100 * s.wins_high:.0f})'
        )
        numbers = (_short(s.mean_a), _short(s.mean_b), _short(s.difference, '+.4f'), interval, wins, _short(s.p, '.2g'))
        title = escape_path(column(result.quantity).title)
        cells.append((title, str(s.n), *numbers, escape_path(result.verdict)))
    widths = [max(map(len, entries)) for entries in zip(*cells, strict=True)]
    widths[-1] = 0  # verdicts are ragged
    return ['  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]


def _short(value: float, digits: str = '.4f') -> str:
    return '-' if math.isnan(value) else format(value, digits)
