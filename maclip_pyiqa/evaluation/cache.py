"""Files of a results folder that later runs read, so that no image is encoded twice.

    cache/KEY/ab/abcdef...npz   arrays of one image: features of its views and their shares, or a metric's score; and
                                what computing them took
    runs/DATASET/METRIC.json    images and ratings of a data set, and what the metric scored them with

KEY is a hash of what the arrays depend on (`MetricAdapter.cache_key`); the file's name is a hash of the image file's
bytes and of its preparation. Files appear whole or not at all, so any number of processes may write, and be killed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import replacing

if TYPE_CHECKING:  # seconds to import
    from filelock import BaseFileLock
    from torch import Tensor

__all__ = ['Features', 'load_features']

LAYOUT = 3  # of the files; part of their keys


@dataclass(frozen=True)
class Features:
    """Cached features of a data set, with all that scores are computed from. Images that failed are not among them.

    Attributes:
        features: features of each image's views before L2 normalisation, N tensors (V, D), windows row by row, then the
            global view
        shares: share of each view in its image's score, N tensors (V,), each of sum 1
        text: L2-normalised prompt features, (P, 2, D)
        scale: exp(logit_scale), ()
        ratings: ratings of which higher is better (DMOS ratings are negated), (N,)
        groups: group of each image, equal for all versions of one photo; None if the data set does not say
        names: names of the images, (N,)
        keys: keys of the images, equal for entries of one file, (N,)
        metadata: plain data: metric, config (`MACLIP.config`), fingerprint (`MACLIP.fingerprint()`), image_digest and
            text_digest of its backbone, dataset, protocol, preparation, lower_better (of the ratings as given)

    Example::

        from pathlib import Path

        from maclip_pyiqa.evaluation.cache import load_features

        features = load_features(Path('results'), 'ratings')  # of `maclip-pyiqa evaluate --list ratings.csv -o results`
        for f, rating in zip(features.features, features.ratings):
            print(f.shape, rating)             # (V, D), and a number
    """

    features: list[Tensor]
    shares: list[Tensor]
    text: Tensor
    scale: Tensor
    ratings: np.ndarray
    groups: list[str] | None
    names: list[str]
    keys: list[str]
    metadata: dict[str, Any]

    @property
    def title(self) -> str:
        """Metric, data set, protocol and number of images."""
        return '{metric} on {dataset} ({protocol}), n = {n}'.format(**self.metadata, n=len(self.names))


class FeatureCache:
    """Arrays of images, one file each, for plain data `key` that say what they are computed with."""

    def __init__(self, results: Path, key: dict[str, Any]) -> None:
        text = json.dumps(key | {'layout': LAYOUT}, sort_keys=True)
        self.folder = Path(results, 'cache', hashlib.sha256(text.encode()).hexdigest()[:16])

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of an image; None if their file is missing or damaged, and they are to be recomputed."""
        try:
            with np.load(self._path(key), allow_pickle=False) as file:
                return dict(file)
        except Exception:  # a damaged archive raises all kinds of errors
            return None

    def put(self, key: str, arrays: dict[str, Any]) -> None:
        """Save the arrays of an image.

        Raises:
            OSError: the file cannot be written
        """
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, open(part, 'wb') as file:
            np.savez_compressed(file, **arrays)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f'{key}.npz'


def image_key(data: bytes, preparation: object) -> str:
    """Key of an image: a hash of its file's bytes and of what is done to it before it is scored (plain data)."""
    return hashlib.sha256(json.dumps(preparation, sort_keys=True).encode() + b'\0' + data).hexdigest()[:32]


def save_run(results: Path, dataset: str, metric: str, run: dict[str, Any]) -> None:
    """Write how a metric scored a data set: plain data with `metadata`, `cache_key`, `lower_better` and `images` (each
    with name, key, rating, group and error); for features also `text` and `scale`."""
    write_text(Path(results, 'runs', dataset, f'{metric}.json'), json.dumps(run, ensure_ascii=False))


def read_runs(results: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """(data set, metric, run) for each `save_run` of a results folder, sorted by name.

    Raises:
        FileNotFoundError: there are none
    """
    files = sorted(Path(results, 'runs').glob('*/*.json'))
    if not files:
        raise FileNotFoundError(f'{results} holds no results; `maclip-pyiqa evaluate -o {results}` writes them')
    return [(f.parent.name, f.stem, json.loads(f.read_text('utf-8', 'surrogateescape'))) for f in files]


def load_features(results: Path, dataset: str, metric: str | None = None) -> Features:
    """Features of a data set that `maclip-pyiqa evaluate -o results` cached.

    Args:
        results: folder of the results
        dataset: name of the data set, as given to `evaluate`
        metric: name of a metric of this package; None: the only one in the folder, or the only one without a head

    Raises:
        FileNotFoundError: no such features; the message lists what there is
        ValueError: several metrics, and none was named

    Example::

        from pathlib import Path

        from maclip_pyiqa.evaluation.cache import load_features

        features = load_features(Path('results'), 'ratings')  # of `maclip-pyiqa evaluate --list ratings.csv -o results`
        features.text.shape                    # (5, 2, D): the features of five pairs of prompts
    """
    runs = {(d, m): run for d, m, run in read_runs(results) if 'text_digest' in run}
    metrics = [m for d, m in runs if d == dataset and metric in (None, m)]
    if len(metrics) > 1:
        metrics = [m for m in metrics if not runs[dataset, m]['metadata']['config'].get('head')] or metrics
    if not metrics:
        listed = ', '.join(f'{d} ({m})' for d, m in runs) or 'none'
        what = f'{dataset!r}' + (f' by {metric!r}' if metric else '')
        raise FileNotFoundError(f'{results} holds no features of {what}; it holds those of: {listed}')
    if len(metrics) > 1:
        raise ValueError(f'{results} holds features of {dataset!r} by {", ".join(metrics)}; name one metric')
    import torch

    run = runs[dataset, metrics[0]]
    cache = FeatureCache(results, run['cache_key'])
    images = [image for image in run['images'] if not image['error']]
    cached = [cache.get(image['key']) for image in images]
    if missing := [image['name'] for image, arrays in zip(images, cached, strict=True) if arrays is None]:
        raise FileNotFoundError(
            f'{results} lacks the features of {len(missing)} images of {dataset!r}, first {missing[0]}; '
            'rerun `maclip-pyiqa evaluate` to recompute them'
        )
    ratings = np.array([image['rating'] for image in images], float)
    groups = [image['group'] for image in images]
    return Features(
        features=[torch.from_numpy(arrays['features']).float() for arrays in cached if arrays],
        shares=[torch.from_numpy(arrays['shares']).float() for arrays in cached if arrays],
        text=torch.tensor(run['text']),
        scale=torch.tensor(run['scale']),
        ratings=0 - ratings if run['lower_better'] else ratings,  # 0 - 0 is 0, not -0
        groups=None if None in groups else groups,
        names=[image['name'] for image in images],
        keys=[image['key'] for image in images],
        metadata=run['metadata'] | {name: run[name] for name in ('image_digest', 'text_digest', 'lower_better')},
    )


def lock(results: Path) -> BaseFileLock:
    """A context manager: alone among the processes that write the tables of a results folder."""
    from filelock import FileLock

    results.mkdir(parents=True, exist_ok=True)
    return FileLock(results / '.lock')


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, and its folder if there is none. Text holds file names, which may be no UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        Path(part).write_bytes(text.encode('utf-8', 'surrogateescape'))
