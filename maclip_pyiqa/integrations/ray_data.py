"""Scores in a pipeline of Ray Data, or wherever Arrow tables come in batches. Needs pyarrow only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from .._lazy import need
from ..metric import MACLIP
from ..scoring.batch import read_cell
from ..scoring.find import MAX_PIXELS
from ..scoring.formats.arrow import plain_column
from ..scoring.formats.parquet import to_table
from ..scoring.schema import LABEL_KEY, arrow_schema, columns, label
from ..scoring.score import score_read

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ['BatchScorer']


class BatchScorer:
    """Adds the columns of a score to Arrow tables, for `ray.data.Dataset.map_batches`.

    The tables keep their columns and rows, and get `score`, `q_sim`, `q_mag`, `w_sim` and `attribute_NAME` (float64,
    means over the views), `width` and `height` (int64), `flags` and `error` (string), whatever a batch holds. An image
    that cannot be read or scored is a row with a null score and an error, and the rows beside it keep their scores.
    The schema's metadata says under `maclip_pyiqa` which metric the scores are from, see `scoring.label`.

    Args:
        metric: metric to score with; None: one is built from `options`, once in each actor
        column: column of the images: paths of local files, contents of files, or Hugging Face's {bytes, path}, in
            any Arrow type of text and bytes
        batch: largest number of images that are scored at once
        max_pixels: largest number of pixels of an image, see `read_image`
        device: device of the metric; None: the GPU that Ray gives the actor, or the CPU
        **options: options of `MACLIP`, such as backbone or prompts

    Raises:
        TypeError: `metric` is not a MACLIP, or options are given beside it
        ValueError: `batch` is out of range
        WeightsError: as `MACLIP`
        ModuleNotFoundError: pyarrow is not installed

    Example::

        import pyarrow as pa
        from maclip_pyiqa.integrations.ray_data import BatchScorer

        scorer = BatchScorer(column='path')
        table = scorer(pa.table({'path': ['photo.jpg', 'missing.jpg']}))
        table['score'], table['error']         # a null and an error for what cannot be read

    In a pipeline of Ray Data, each actor builds one::

        ds = ray.data.read_parquet('images').map_batches(
            BatchScorer,
            fn_constructor_kwargs={'column': 'image', 'max_views': 9},
            batch_format='pyarrow',
            batch_size=64,
            concurrency=2,
        )
        ds.filter(expr='score >= 0.6').write_parquet('kept')
    """

    def __init__(
        self,
        metric: MACLIP | None = None,
        *,
        column: str = 'image',
        batch: int = 16,
        max_pixels: int | None = MAX_PIXELS,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> None:
        need('BatchScorer', 'pyarrow', extra='parquet')
        if metric is not None and not isinstance(metric, MACLIP):
            raise TypeError(f'metric is a {type(metric).__name__}; expected a MACLIP')
        if metric is not None and options:
            raise TypeError(f'options {", ".join(options)} beside a metric, which has its own; pass one or the other')
        if batch < 1:
            raise ValueError(f'batch={batch}; expected at least 1')
        self.column, self.batch, self.max_pixels = column, batch, max_pixels
        self.metric = MACLIP(**options) if metric is None else metric
        self.metric.to(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        self._rows = arrow_schema(columns(self.metric.attribute_names))
        self._label = json.dumps(label(self.metric))

    @property
    def schema(self) -> pa.Schema:
        """The columns that are added."""
        return self._rows.remove(self._rows.get_field_index('path')).with_metadata({LABEL_KEY: self._label})

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table with the scores of its images.

        Raises:
            ValueError: it has no such column, or one with the name of a column to be added
            TypeError: the column holds no images
        """
        if self.column not in table.column_names:
            raise ValueError(f'no column {self.column!r}; expected one of {", ".join(table.column_names)} as `column`')
        taken = [name for name in self.schema.names if name in table.column_names]
        if taken:
            raise ValueError(f'the table already has columns {", ".join(taken)}; rename or drop them before')
        window = self.metric.backbone.window
        files = (read_cell(cell.as_py(), window, self.max_pixels) for cell in plain_column(table[self.column]))
        scores = to_table(list(score_read(self.metric, files, batch=self.batch)), self._rows)
        for field in self.schema:
            table = table.append_column(field, scores[field.name])
        return table.replace_schema_metadata({**(table.schema.metadata or {}), LABEL_KEY: self._label})
