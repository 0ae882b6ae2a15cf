"""The operator `maclip_filter` for Data-Juicer (py-data-juicer), through its entry point group `data_juicer.ops`."""

from __future__ import annotations

import inspect
from functools import partial
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from .._lazy import need
from ..metric.options import DEFAULTS, Options

need(__name__, 'data_juicer', extra='data-juicer')

from data_juicer.ops.base_op import OPERATORS, Filter  # noqa: E402
from data_juicer.utils.constant import Fields  # noqa: E402
from data_juicer.utils.model_utils import get_model  # noqa: E402
from loguru import logger  # noqa: E402

if TYPE_CHECKING:
    from ..metric import MACLIP
    from ..scoring.batch import FileRead

SCORES, ERROR = 'maclip_scores', 'maclip_error'  # names in the sample's stats


@OPERATORS.register_module('maclip_filter')
class MACLIPFilter(Filter):
    """Keeps samples whose images have MA-CLIP scores in a range.

    The scores of a sample's images are its stat `maclip_scores`. A sample with an image that cannot be read or scored
    is rejected whatever the range and the strategy: its stat `maclip_error` says why, and so does a warning in the log.
    A sample without images is kept, as Data-Juicer's own filters do.

    Images are read from the bytes in `image_bytes_key`, where there are any, or else from the paths in `image_key`.
    """

    _accelerator = 'cuda'
    _batched_op = True

    def __init__(
        self,
        min_score: float | None = None,
        max_score: float | None = None,
        any_or_all: str = 'any',
        *args,
        **kwargs,
    ) -> None:
        """
        Initialization method.

        :param min_score: the least score to keep; None: any
        :param max_score: the highest score to keep; None: any
        :param any_or_all: keep a sample if 'any' of its images is in the range, or only if 'all' are
        :param args: extra args
        :param kwargs: options of `maclip_pyiqa.MACLIP` by name, and extra args
        """
        options = {name: kwargs.pop(name) for name in DEFAULTS if name in kwargs}
        kwargs['memory'] = kwargs.get('memory') or '2GB'  # of one process with RN50
        super().__init__(*args, **kwargs)
        if any_or_all not in ('any', 'all'):
            raise ValueError(f"any_or_all={any_or_all!r}; expected 'any' or 'all'")
        self.min_score, self.max_score, self.any = min_score, max_score, any_or_all == 'any'
        self.load = partial(_load, **options)
        # Loaded here too, since an error while samples are processed would only be logged; and the fingerprint makes
        # Data-Juicer's cache depend on the weights.
        self.fingerprint = self.load(device='cpu').fingerprint()

    def compute_stats_batched(self, samples: dict[str, list], rank: int | None = None, context: bool = False):
        """Add the stats to samples, a dict of columns."""
        from ..scoring.score import score_read

        cells: dict[int, list[Any]] = {}  # images of each sample: bytes where there are any, or else paths
        stats = samples[Fields.stats]
        for i in [i for i, stat in enumerate(stats) if SCORES not in stat]:
            sample = {name: column[i] for name, column in samples.items()}
            paths, contents = (sample.get(key) or [] for key in (self.image_key, self.image_bytes_key))
            cells[i] = [{'bytes': data, 'path': path} if data else path for path, data in zip_longest(paths, contents)]
        metric = get_model(self.load, rank, self.use_cuda())
        rows = score_read(metric, (_read(cell, metric.backbone.window) for images in cells.values() for cell in images))
        for i, images in cells.items():
            own = list(islice(rows, len(images)))
            errors = [': '.join(filter(None, (row['path'], row['error']))) for row in own if row['error']]
            for error in errors:
                logger.warning(f'maclip_filter rejects a sample: {error}')
            stats[i][SCORES] = np.array([np.nan if row['error'] else row['score'] for row in own], np.float64)
            stats[i][ERROR] = '; '.join(errors)
        return samples

    def compute_stats_single(self, sample: dict[str, Any], rank: int | None = None, context: bool = False):
        """Add the stats to one sample."""
        self.compute_stats_batched({name: [value] for name, value in sample.items()}, rank, context)
        return sample

    def process_single(self, sample: dict[str, Any]) -> bool:
        """Whether a sample is kept."""
        stats = sample[Fields.stats]
        if stats[ERROR]:
            return False
        keeps = [self.get_keep_boolean(score, self.min_score, self.max_score) for score in stats[SCORES]]
        return not keeps or bool((any if self.any else all)(keeps))


def _with_options() -> inspect.Signature:
    """The operator's arguments and the metric's options: Data-Juicer takes from here what a configuration may hold."""
    first = inspect.signature(MACLIPFilter.__init__)
    *own, extra = first.parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    defaults = Options().config()
    options = [inspect.Parameter(name, keyword, default=value, annotation=Any) for name, value in defaults.items()]
    return first.replace(parameters=[*own, *options, extra])


MACLIPFilter.__init__.__signature__ = _with_options()  # type: ignore[attr-defined]


def _read(cell: Any, window: int) -> FileRead:
    from ..scoring.batch import FileRead, read_cell

    try:
        return read_cell(cell, window)
    except TypeError as error:  # of this sample only
        return FileRead('', None, str(error))


def _load(device: str, **options: Any) -> MACLIP:
    from ..metric import MACLIP

    return MACLIP(**options).to(device)
