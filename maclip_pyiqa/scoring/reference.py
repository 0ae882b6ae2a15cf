"""What a score means: its percentile among the scores of a reference, images of one's own that were scored before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .schema import Label, Row, label_difference, rounded
from .source import open_scores

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

AGAIN = 'Score its images again with `maclip-pyiqa score`, with the options and weights of these scores'


class Reference:
    """Scores that others are ranked among, such as those of last year's photos. A call gives percentiles.

    The percentile of a score is the share of the reference's images that score lower:
    `scipy.stats.percentileofscore(scores, score, kind='strict')`, with 6 decimals of each score, as tables hold them.
    So the worst image of the reference has 0, images of equal scores have equal percentiles, and only a score above
    all of them has 100.

    Args:
        path: path or URL of a table or of a folder of tables, see `open_scores`. Images without a score do not count.
            The others take 8 bytes each

    Attributes:
        path: path or URL, as it was given
        label: label of the scores; None: unknown
        images: number of images with a score
        is_complete: whether the run that writes the scores has finished, as far as is known
        about: plain data for labels: `path`, `images`, and `digest`, which changes where a score does

    Raises:
        OSError: there is none, or it cannot be read
        ValueError: not a table of scores, or no image in it has a score
        ModuleNotFoundError: pyarrow is not installed, which Parquet needs

    Example::

        from maclip_pyiqa import Reference

        reference = Reference('scores.csv')    # such as those of last year's photos
        reference(0.62)                        # 71.3: of 100 of these images, 71 are worse
        reference([0.5, None])                 # an array (2,), with NaN for the missing score
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        scores = open_scores(path)
        parts = scores.scores() if 'score' in scores.columns else ()
        values = np.concatenate([np.empty(0), *(part[np.isfinite(part)] for part in parts)])
        if not len(values):
            raise ValueError(
                f'{scores.path} cannot be a reference: no image in it has a score; expected a table or a collection '
                'that was scored'
            )
        np.round(values, 6, out=values)
        values += 0.0  # no -0.0, for the digest
        values.sort()
        self._scores = values
        self.path, self.label, self.is_complete = scores.path, scores.label, scores.is_complete
        self.images = len(values)
        digest = hashlib.sha256(values.astype('<f8', copy=False).data).hexdigest()
        self.about: dict[str, Any] = {'path': self.path, 'images': self.images, 'digest': digest[:16]}

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the metric that the scores are from; None where it is unknown."""
        return None if self.label is None else self.label['fingerprint']

    @overload
    def __call__(self, scores: float | None) -> float: ...
    @overload
    def __call__(self, scores: ArrayLike) -> np.ndarray: ...
    def __call__(self, scores: Any) -> Any:
        """Percentiles of scores.

        Args:
            scores: a score, or an array of any shape; None, NaN and infinite: there is none

        Returns:
            percentile, 0 to 100, as a float, or as an array of the same shape; NaN where there is no score
        """
        values = np.asarray(scores, np.float64)
        lower = np.searchsorted(self._scores, np.round(values, 6), 'left')
        found = np.where(np.isfinite(values), 100 * lower / self.images, np.nan)
        return found if found.ndim else float(found)

    def add_to(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Rows with the column `percentile`, after the score; None where there is no score.

        Args:
            rows: rows as `score_files` and `ScoreSource.rows` give them
        """
        for row in rows:
            percentile = rounded(self(row['score']))
            first = {'path': row['path'], 'score': row['score'], 'percentile': percentile}
            yield first | row | {'percentile': percentile}

    def check(self, label: Label | None) -> Label:
        """Check that scores are from the metric that the reference's are from.

        Args:
            label: label of the scores; None: unknown

        Returns:
            their label with an entry `reference`

        Raises:
            ValueError: they are not, or this is unknown (the message says what differs)
        """
        if self.label is None:
            raise ValueError(
                f'{self.path} cannot be the reference: there is no label that says which metric its scores are from, '
                f'such as FILE.csv.meta.json beside FILE.csv. {AGAIN}.'
            )
        if label is None:
            raise ValueError(
                'the scores have no label that says which metric they are from, so they cannot be ranked among those '
                f'of {self.path}. Expected the same metric; score these images again with `maclip-pyiqa score`.'
            )
        if label['fingerprint'] != self.fingerprint:
            raise ValueError(
                f'{self.path} cannot be the reference: its scores are from another metric; '
                f'{label_difference(self.label, label)}. {AGAIN}.'
            )
        marked = label.copy()
        marked['reference'] = self.about
        return marked
