"""One pass over data sets: what is missing in the cache is computed, scores follow from the cache, tables from scores.

Works in one process or in several that torchrun started; results do not depend on their number.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import one_line
from .._lazy import need
from ..scoring.find import same_file
from ..scoring.schema import versions
from .cache import FeatureCache, image_key, lock, read_runs, save_run, write_text
from .datasets import DataSet, prepared

if TYPE_CHECKING:  # seconds to import
    import numpy as np
    import torch

    from .metrics import MetricAdapter, Scores

__all__ = ['STANDARD', 'evaluate']

logger = logging.getLogger(__name__)
POLL = 0.05  # seconds
FEW = 5  # images; statistics of fewer are unreliable
#: Names of the metrics of the standard comparison, see `load_adapters`.
#:
#: Example::
#:
#:     from maclip_pyiqa.evaluation.evaluate import STANDARD
#:
#:     print(*STANDARD)  # what `maclip-pyiqa evaluate -m standard` evaluates
STANDARD = ('maclip', 'clipiqa', 'clipiqa+', 'qualiclip', 'arniqa', 'liqe', 'topiq_nr', 'niqe', 'brisque')


@dataclass
class Processes:
    """The processes of this run. What the others have computed, process 0 reads from the cache.

    They wait by counters in torchrun's key-value store, because ending a process group of torch 2.6 can hang or abort.

    Attributes:
        rank: rank of this process
        size: number of processes
        store: key-value store that all share; None for one process
    """

    rank: int = 0
    size: int = 1
    store: torch.distributed.Store | None = None
    _met: int = field(default=0, init=False)

    @classmethod
    @contextlib.contextmanager
    def join(cls) -> Iterator[Processes]:
        """The processes that torchrun started, or this one alone."""
        if int(os.environ.get('WORLD_SIZE', 1)) == 1:
            yield cls()
            return
        from torch.distributed import rendezvous

        store, rank, size = next(rendezvous('env://'))
        processes = cls(rank, size, store)
        yield processes
        processes.wait_for(range(1, size))  # the store may be in process 0

    def wait_for(self, ranks: range) -> None:
        """Wait until the processes of these ranks are here too; they themselves go on."""
        if self.store is None:
            return
        self._met += 1
        if self.rank in ranks:
            self.store.add(str(self._met), 1)
            return
        while self.store.add(str(self._met), 0) < len(ranks):  # get() would wait too, but not end at Ctrl-C
            time.sleep(POLL)

    def one_first(self, do: Callable[[], Any]) -> Any:
        """do() in process 0 and then in the others, which find the files that it downloaded."""
        result = do() if self.rank == 0 else None
        self.wait_for(range(1))
        return result if self.rank == 0 else do()


def check_results(results: Path, datasets: Iterable[DataSet], metrics: Iterable[str]) -> None:
    """Check that a results folder, if it exists, can take these data sets by the metrics of these names.

    Raises:
        ValueError: it holds one of the data sets by another protocol, or another metric on other images or ratings
    """
    again, by_name = set(metrics), {dataset.name: dataset for dataset in datasets}
    with contextlib.suppress(FileNotFoundError):
        for name, metric, run in read_runs(results):
            if not (dataset := by_name.get(name)):
                continue
            protocol = run['metadata']['protocol']
            if protocol != dataset.protocol:
                raise ValueError(f'{results} holds {name!r} by protocol {protocol!r}; choose another folder')
            images = [(image['name'], image['rating']) for image in run['images']]
            if metric not in again and images != list(zip(dataset.names, dataset.ratings, strict=True)):
                raise ValueError(
                    f'{results} holds {metric!r} on {name!r} with other images or ratings; rerun all metrics together, '
                    'or choose another folder'
                )


def check_scores(datasets: Iterable[DataSet], metrics: Iterable[MetricAdapter]) -> None:
    """Check that each file of scores among the metrics has scores of each data set.

    Raises:
        ValueError: it has none
    """
    from .metrics import FileAdapter

    files = [metric for metric in metrics if isinstance(metric, FileAdapter)]
    for dataset in datasets:
        for file in files:
            file.look_up(dataset)


def evaluate(
    datasets: Sequence[DataSet],
    metrics: Sequence[MetricAdapter],
    results: Path,
    *,
    device: torch.device | str = 'cpu',
    resamples: int = 1000,
    workers: int = 0,
    processes: Processes | None = None,
    run: dict[str, Any] | None = None,
    warn: Callable[[str], object] = logger.warning,
) -> Iterator[tuple[DataSet, int]]:
    """Score data sets and write their tables, plots and scores into a results folder.

    Args:
        datasets: data sets of `load_dataset` or `read_list`
        metrics: metrics of `load_adapters`, and `FileAdapter`s
        results: folder of the results; what it has cached is not recomputed
        device: device of the metrics
        resamples: number of resamples of the bootstrap intervals; 0 disables them
        workers: number of processes that read images, for each process that computes; 0: that process itself
        processes: processes of this run; None: this process alone
        run: plain data to note in run.json, such as the command
        warn: function that is given a message for each image and metric that fails, and first for each data set with
            files that are listed more than once, or with fewer than 5 images

    Yields:
        each data set with the number of scores that failed: in process 0, when its tables are written; in the others,
        when their part is computed, with 0

    Raises:
        OSError: a file cannot be written, or the processes do not share the folder
        ValueError: the folder holds one of the data sets by another protocol, or another metric on other images or
            ratings; or a `FileAdapter` has no score of a data set

    Example::

        from pathlib import Path

        from maclip_pyiqa.evaluation.datasets import read_list
        from maclip_pyiqa.evaluation.evaluate import evaluate
        from maclip_pyiqa.evaluation.metrics import load_adapters

        datasets = [read_list(Path('ratings.csv'), images=Path('rated'))]
        for dataset, failed in evaluate(datasets, load_adapters(['maclip']), Path('results')):
            print(dataset.name, failed)        # results/ has its tables and plots
    """
    need('evaluate', 'filelock', 'matplotlib', 'pandas', extra='evaluation')  # now, not when all is scored
    from .tables import write_tables

    processes = processes or Processes()
    check_results(results, datasets, [metric.name for metric in metrics])
    check_scores(datasets, metrics)
    if processes.rank == 0:
        _note_run(results, datasets, metrics, {'processes': processes.size, 'resamples': resamples, **(run or {})})
        for dataset in datasets:
            for doubt in _doubts(dataset):
                warn(f'{dataset.name}: {doubt}')
    processes.wait_for(range(1))
    with lock(results):
        if not (results / 'run.json').exists():
            raise FileNotFoundError(f'{results} is not the folder that process 0 writes to; all hosts must share it')
    for dataset in datasets:
        scores = score_dataset(dataset, metrics, results, device, workers, processes, warn)
        if scores:  # in process 0
            write_tables(dataset, scores, results, resamples)
        yield dataset, sum(bool(error) for s in scores for error in s.errors)


def score_dataset(
    dataset: DataSet,
    metrics: Sequence[MetricAdapter],
    results: Path,
    device: torch.device | str = 'cpu',
    workers: int = 0,
    processes: Processes | None = None,
    warn: Callable[[str], object] = logger.warning,
) -> list[Scores]:
    """Compute and cache what is missing of a data set, each process its part, and score it from the cache.

    Arguments are those of `evaluate`. Returns the scores of each metric in process 0, elsewhere an empty list.
    """
    import torch
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from ..scoring.batch import start_worker
    from ..scoring.read import to_tensor
    from .measure import Meter, costs_of
    from .metrics import FileAdapter, Scores

    processes = processes or Processes()
    scored = [Scores(metric) for metric in metrics]
    computed = [
        (scores, scores.metric, FeatureCache(results, scores.metric.cache_key), Meter())
        for scores in scored
        if not isinstance(scores.metric, FileAdapter)
    ]
    part = range(processes.rank, len(dataset.paths) if computed else 0, processes.size)
    files: Any = _Images(dataset.paths, dataset.preparation, [cache for _, _, cache, _ in computed])
    count = min(workers, len(part))
    loader = DataLoader(
        files, batch_size=None, sampler=part, num_workers=count, collate_fn=_same, worker_init_fn=start_worker
    )
    hide = processes.rank > 0 or not computed or None  # None: where standard error is no terminal
    images = tqdm(loader, total=len(part), desc=dataset.name, unit=' images', disable=hide)
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with exact, torch.inference_mode():
        for i, key, pixels, unread in images:
            # one image at a time, so that its rounding depends neither on its neighbours nor on the number of processes
            for scores, metric, cache, meter in computed:
                arrays, error = cache.get(key), unread or 'its file in the cache was removed'
                if arrays is None and pixels is not None:
                    try:
                        image = to_tensor(pixels).to(device)
                        result, costs = meter(metric.compute, image)
                        arrays = metric.to_cache(image, result) | costs
                    except Exception as failure:  # each metric has limits of its own, such as the smallest image
                        error = one_line(failure)
                    else:
                        cache.put(key, arrays)
                if arrays is None:
                    warn(f'{dataset.name}: {dataset.names[i]}: {metric.name}: {error}')
                scores.keys.append(key)
                scores.scores.append(math.nan if arrays is None else metric.score(arrays))
                scores.errors.append(error if arrays is None else '')
                scores.costs.append(costs_of(arrays))
    processes.wait_for(range(1, processes.size))
    if processes.rank:
        return []
    for scores in scored:
        if isinstance(scores.metric, FileAdapter):
            scores.scores, scores.errors = scores.metric.look_up(dataset)
            scores.keys = [''] * len(dataset.names)
            for name, error in zip(dataset.names, scores.errors, strict=True):
                if error:
                    warn(f'{dataset.name}: {name}: {scores.metric.name}: {error}')
    if processes.size > 1:  # all from the cache; what failed, here or elsewhere, is tried again
        return score_dataset(dataset, metrics, results, device, workers, warn=lambda message: None)
    for scores in scored:
        _save_run(dataset, scores, results)
    return scored


@dataclass
class _Images:
    """Reads image files that some cache lacks: a torch data set."""

    paths: list[str]
    preparation: dict[str, Any]
    caches: list[FeatureCache]

    def __getitem__(self, i: int) -> tuple[int, str, np.ndarray | None, str]:
        """-> i, the image's key, its pixels (H, W, 3) if something is to be computed, and an error."""
        key = ''
        try:
            data = Path(self.paths[i]).read_bytes()
            key = image_key(data, self.preparation)
            cached = all(cache.get(key) is not None for cache in self.caches)
            return i, key, None if cached else prepared(data, self.preparation), ''
        except Exception as error:  # Pillow raises all kinds of errors for damaged files
            return i, key, None, one_line(error)


def _same(item: Any) -> Any:
    return item  # arrays stay arrays


def _save_run(dataset: DataSet, scored: Scores, results: Path) -> None:
    """Note what was scored, for `load_features`."""
    metric, groups = scored.metric, dataset.groups or [None] * len(scored.keys)  # type: ignore[list-item]
    rows = zip(dataset.names, scored.keys, dataset.ratings, groups, scored.errors, strict=True)
    images = [dict(zip(('name', 'key', 'rating', 'group', 'error'), row, strict=True)) for row in rows]
    metadata = {'metric': metric.name, 'config': metric.config, 'fingerprint': metric.fingerprint}
    metadata |= {'dataset': dataset.name, 'protocol': dataset.protocol, 'preparation': dataset.preparation}
    run = {'metadata': metadata, 'cache_key': metric.cache_key, 'lower_better': dataset.lower_better, **metric.extra}
    save_run(results, dataset.name, metric.name, run | {'images': images})


def _doubts(dataset: DataSet) -> Iterator[str]:
    """What is doubtful about the list of a data set."""
    entries: dict[str, list[int]] = {}  # by file
    for i, path in enumerate(dataset.paths):
        entries.setdefault(same_file(path), []).append(i)
    if repeated := [places for places in entries.values() if len(places) > 1]:
        names = [' = '.join(dict.fromkeys(dataset.names[i] for i in places)) for places in repeated[:3]]
        shown, differ = ', '.join(names) + ', ...' * (len(repeated) > 3), ''
        if unequal := [places for places in repeated if len({dataset.ratings[i] for i in places}) > 1]:
            ratings = ' and '.join(f'{dataset.ratings[i]:g}' for i in unequal[0])
            differ = f', {len(unequal)} of them with different ratings ({dataset.names[unequal[0][0]]}: {ratings})'
        yield (
            f'files listed more than once: {len(repeated)} ({shown}){differ}; expected one entry for each file, '
            'because each entry counts as an image. Remove the others, or keep them to run a published list as it is'
        )
    if (count := len(dataset.paths)) < FEW:
        yield f'number of images: {count}, too few for reliable statistics; expected at least {FEW}. Add images'


def _note_run(
    results: Path, datasets: Sequence[DataSet], metrics: Sequence[MetricAdapter], run: dict[str, Any]
) -> None:
    """Add an entry to run.json."""
    entry = run | {'started': time.strftime('%Y-%m-%dT%H:%M:%S%z'), 'versions': versions(), 'datasets': []}
    entry['metrics'] = [{'metric': m.name, 'fingerprint': m.fingerprint, 'config': m.config} for m in metrics]
    for dataset in datasets:
        facts = {name: getattr(dataset, name) for name in ('name', 'protocol', 'preparation', 'lower_better')}
        facts |= {'images': len(dataset.paths), 'groups': len(set(dataset.groups or []))}
        entry['datasets'].append(facts)
    path = results / 'run.json'
    with lock(results):
        before = []
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # not there, or cut off by a power failure
            before = json.loads(path.read_text('utf-8'))
        write_text(path, json.dumps([*before, entry], indent=1))
