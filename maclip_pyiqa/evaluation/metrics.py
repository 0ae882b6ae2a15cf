"""Metrics as the evaluation uses them, with what is cached of each image, and scores that another program wrote."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import posixpath
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._lists import as_names
from ..backbone.identity import digest
from ..metric import MACLIP
from ..scoring.others import check_metrics, load_metric
from ..scoring.source import open_scores
from .datasets import FILE, NAME, DataSet

__all__ = ['FileAdapter', 'MACLIPAdapter', 'load_adapters']

TOLERANCE = 1e-4  # the most that float16 features may change a score of the metric that cached them


class MACLIPAdapter:
    """A metric of this package. Its features are cached, (V, D), with the share of each view in the score, (V,), so
    metrics that differ in prompts, constants or cues share them.

    Args:
        name: name of the metric in tables
        net: metric of this package

    Attributes:
        config: options of the metric, plain data
        fingerprint: hash of what its scores are computed with
        cache_key: plain data that its cached arrays depend on
        extra: plain data that later studies need beside the arrays

    Example::

        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.evaluation.metrics import MACLIPAdapter

        metric = MACLIPAdapter('brightness', MACLIP(prompts='brightness'))  # for `evaluate`, beside others
    """

    lower_better = False

    def __init__(self, name: str, net: MACLIP) -> None:
        self.name, self.net = name, net
        self.config, self.fingerprint = net.config, net.fingerprint()
        self.cache_key = {'features': net.features_fingerprint(), 'dtype': str(net.backbone.mean.dtype)}
        self.extra: dict[str, Any] = {'text': net.backbone.text.tolist(), 'scale': net.backbone.scale.tolist()}
        self.extra |= {'image_digest': net.backbone.image_digest, 'text_digest': net.backbone.text_digest}

    def compute(self, image: Tensor) -> Tensor:
        """Features of an image, (3, H, W) in [0, 1]: (V, D). Does all that a score takes, which is measured."""
        (features,) = self.net.features([image])
        self.net.cues(features)
        return features

    def to_cache(self, image: Tensor, features: Tensor) -> dict[str, np.ndarray]:
        """Arrays to cache of an image, from what `compute` gave.

        Raises:
            ValueError: features that are not finite
        """
        if not features.isfinite().all():
            raise ValueError('the features are not finite')
        shares = np.array(self.net.plan(*image.shape[-2:]).shares)
        return {'features': pack(features.float().cpu(), lambda f: self._statistics(f, shares)), 'shares': shares}

    def score(self, arrays: dict[str, np.ndarray]) -> float:
        """The score of an image from its cached arrays."""
        q = self.net.cues(torch.from_numpy(arrays['features']).float().to(self.net.backbone.text)).q
        return float(q @ torch.from_numpy(arrays['shares']).to(q))

    def _statistics(self, features: Tensor, shares: np.ndarray) -> Tensor:
        """All that the score and the ablations make of features: score and cues for several lambdas, attributes, and
        mean |f|, each of all views and of the global view alone."""
        features = features.to(self.net.backbone.text)
        cues = [self.net.cues(features, box_lam=lam) for lam in {0.0, 0.5, 1.0, self.config['box_lam']}]
        views = torch.cat([torch.stack([c.q, c.q_sim, c.q_mag]) for c in cues])  # (3 * lambdas, V)
        views = torch.cat([views, cues[0].attributes.T, features.abs().mean(-1)[None]])
        return torch.cat([views @ torch.from_numpy(shares).to(views), views[:, -1]]).cpu()


class PyiqaAdapter:
    """Any other no-reference metric of pyiqa, like `MACLIPAdapter`. Its scores are cached.

    Args:
        name: name of the metric in tables
        metric: metric, as `pyiqa.create_metric` returns it
        options: options that the metric was made with
    """

    def __init__(self, name: str, metric: Any, options: dict[str, Any]) -> None:
        import pyiqa

        self.name, self.metric, self.lower_better = name, metric, metric.lower_better
        self.config = json.loads(json.dumps(options, default=repr))
        self.cache_key = {'metric': name, 'pyiqa': pyiqa.__version__, 'options': self.config}
        self.cache_key |= {'weights': checksum(metric.net)}
        self.fingerprint = hashlib.sha256(json.dumps(self.cache_key, sort_keys=True).encode()).hexdigest()
        self.extra: dict[str, Any] = {}

    def compute(self, image: Tensor) -> float:
        with torch.random.fork_rng([image.device] if image.is_cuda else []), contextlib.redirect_stdout(sys.stderr):
            torch.manual_seed(0)  # some metrics draw random crops: the same ones each time, in any process
            return float(self.metric(image[None]))

    def to_cache(self, image: Tensor, score: float) -> dict[str, np.ndarray]:
        if not math.isfinite(score):
            raise ValueError('the score is not finite')
        return {'score': np.array(score)}

    def score(self, arrays: dict[str, np.ndarray]) -> float:
        return float(arrays['score'])


class FileAdapter:
    """A metric whose scores another program wrote into a table; `evaluate` takes it like the others.

    A row belongs to an image if its file is the image's name, relative to the image folder, or the image's path. For
    images without such a row, it may be a further row of which the file ends with the image's name, or the other way
    round, in whole folders: '/mnt/photos/a/1.png', 'a/1.png' and '1.png'. A row that may be of several images belongs
    to none of them.

    Args:
        name: name of the metric in tables
        path: path of a table, as `open_scores` takes it, with a column of files that has a usual name, such as
            `filename` or `path`, and a column of scores, called like the metric or `score`
        lower_better: whether a lower score means a better image; for metrics of pyiqa, which says so itself: False

    Attributes:
        scores: score of each file of the table, None where it is missing or not finite

    Raises:
        OSError: the table cannot be read
        ValueError: a name that is no file name, a table without such columns, scores that are not numbers, a file
            with different scores, or `lower_better` of a metric of pyiqa

    Example::

        from maclip_pyiqa.evaluation.metrics import FileAdapter, load_adapters

        metrics = [*load_adapters(['maclip']), FileAdapter('MDFS', 'mdfs.csv', lower_better=True)]
    """

    def __init__(self, name: str, path: str | os.PathLike[str], lower_better: bool = False) -> None:
        self.name, self.path = name, os.fspath(path)
        if not re.fullmatch(NAME, name):
            raise ValueError(f'{name!r} cannot name a metric; expected letters, digits and _ . + -')
        known = _directions().get(name.lower())
        if lower_better and known is not None:
            raise ValueError(
                f'{name} is a metric of pyiqa, of which {"lower" if known else "higher"} is better; expected '
                "lower_better for other metrics only. Leave it out, or give the file's metric another name"
            )
        self.lower_better = lower_better or bool(known)
        column, self.scores = self._read()
        rows = json.dumps(sorted(self.scores.items()))
        self.fingerprint = hashlib.sha256(rows.encode()).hexdigest()
        self.config = {'file': self.path, 'column': column, 'lower_better': self.lower_better}
        self.cache_key = {'scores': self.fingerprint}
        self.extra: dict[str, Any] = {}

    def look_up(self, dataset: DataSet) -> tuple[list[float], list[str]]:
        """Scores of a data set's images, NaN where there is none, and the reasons, '' where there is one.

        Raises:
            ValueError: no image has a score
        """
        found = self._find(dataset)
        places = [_absolute(path) for path in dataset.paths]
        owners: dict[str, set[str]] = defaultdict(set)
        for place, (_, rows) in zip(places, found, strict=True):
            for row in rows:
                owners[row].add(place)
        scores, errors = [], []
        for rows, _ in found:
            values = {self.scores[row] for row in rows}
            score = next(iter(values), None)
            if not rows:
                error = f'no score in {self.path}'
            elif shared := [row for row in rows if len(owners[row]) > 1]:
                error = f'{self.path}: {shared[0]} may be of {len(owners[shared[0]])} images'
            elif len(values) > 1:
                error = f'{self.path}: {" and ".join(rows[:2])} have different scores, and both may be of this image'
            else:
                error = '' if score is not None else f'its score in {self.path} is missing or not finite'
            scores.append(math.nan if error or score is None else score)
            errors.append(error)
        if all(errors):
            raise ValueError(
                f'{self.path} has a score for no image of {dataset.name!r} ({errors[0]}): the data set has files such '
                f'as {dataset.names[0]!r}, the table {next(iter(self.scores), "none")!r}. Expected the same names'
            )
        return scores, errors

    def _read(self) -> tuple[str, dict[str, float | None]]:
        """The column of the scores, and the score of each file."""
        table = open_scores(self.path)
        columns = {column.strip().lower(): column for column in reversed(table.columns)}
        file = next((columns[name] for name in FILE if name in columns), None)
        score = self.name if self.name in table.columns else columns.get(self.name.lower(), columns.get('score'))
        if file is None or score is None:
            expected = f'scores ({self.name}, score)' if file else f'files ({", ".join(FILE)})'
            raise ValueError(
                f'{self.path} has no column of {expected}; its columns are {", ".join(table.columns) or "none"}. '
                'Rename one of them'
            )
        scores: dict[str, float | None] = {}
        for row in table.rows(text=(file,)):
            key, cell = _normal(row[file]), row[score]
            try:
                number = math.nan if cell is None else float(cell)
            except (TypeError, ValueError):
                raise ValueError(
                    f'{self.path}: the score of {row[file]} is {cell!r}; expected a number, or nothing'
                ) from None
            value = number if math.isfinite(number) else None
            if scores.setdefault(key, value) != value:
                raise ValueError(f'{self.path}: {row[file]} has several rows with different scores; expected one row')
        return score, scores

    def _find(self, dataset: DataSet) -> list[tuple[list[str], list[str]]]:
        """Of each image the rows that have its score, and all that fit it."""
        names, by_place = list(map(_normal, dataset.names)), defaultdict(list)
        for row in self.scores:
            by_place[_absolute(row)].append(row)
        exact = [
            list(dict.fromkeys([*([name] if name in self.scores else []), *by_place.get(_absolute(path), [])]))
            for name, path in zip(names, dataset.paths, strict=True)
        ]
        free = self.scores.keys() - {row for rows in exact for row in rows}
        wanted, by_end = set(names), defaultdict(list)
        for row in free:
            for end in wanted.intersection(_ends(row)):
                by_end[end].append(row)
        near = [sorted({*by_end[name], *free.intersection(_ends(name))}) for name in names]
        return [(rows or others, [*rows, *others]) for rows, others in zip(exact, near, strict=True)]


def _normal(path: str) -> str:
    """A path as it is compared: of Windows or not, without './'."""
    return posixpath.normpath(path.replace('\\', '/'))


def _absolute(path: str) -> str:
    return _normal(os.path.abspath(path))


def _ends(path: str) -> Iterator[str]:
    """a/b.png, b.png of a/b.png."""
    parts = path.split('/')
    return ('/'.join(parts[i:]) for i in range(len(parts)))


def _directions() -> dict[str, bool]:
    """Names of pyiqa's metrics in small letters -> whether lower is better; none where pyiqa is not installed."""
    if find_spec('pyiqa') is None:
        return {}
    from ..backbone.guest import GUEST, same_random

    with GUEST, same_random():  # importing pyiqa changes some of what they guard
        from pyiqa.default_model_configs import DEFAULT_CONFIGS
    return {name.lower(): config.get('lower_better', False) for name, config in DEFAULT_CONFIGS.items()}


MetricAdapter = MACLIPAdapter | PyiqaAdapter | FileAdapter


@dataclass
class Scores:
    """A metric's scores of a data set.

    Attributes:
        metric: metric that scored
        scores: scores, as the metric gives them, NaN for images that failed, (N,)
        errors: reasons why images failed, empty for those that were scored, (N,)
        keys: keys of the images in the cache, (N,)
        costs: what scoring each image took, see `measure.costs_of`, (N,)
    """

    metric: MetricAdapter
    scores: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    costs: list[dict[str, Any]] = field(default_factory=list)


def load_adapters(names: Iterable[str], device: torch.device | str = 'cpu', **options: Any) -> list[MetricAdapter]:
    """Metrics by pyiqa's names.

    Args:
        names: names of no-reference metrics, this package's among them
        device: device of the metrics
        **options: options of `MACLIP`, for each of this package's metrics whose name does not stand for one of them. A
            metric with a head is no longer the one of that name: `maclip` is called `maclip+HEAD`, by the head's file

    Returns:
        the metrics as `evaluate` takes them, each with its `name` in tables

    Raises:
        ValueError: an unknown metric, one that needs a reference, or options that no metric takes
        WeightsError: weights that cannot be found or downloaded
        ModuleNotFoundError: pyiqa is not installed

    Example::

        from maclip_pyiqa.evaluation.metrics import load_adapters

        metrics = load_adapters(['maclip', 'piqe'], max_views=9)
        print([metric.name for metric in metrics])
    """
    names = list(dict.fromkeys(as_names('names', names)))
    check_metrics(names)
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    configs = {name: DEFAULT_CONFIGS[name]['metric_opts'] for name in names}
    given: dict[str, dict[str, Any]] = {}
    for name, own in configs.items():
        fixed = {*own, *(('pretrained', 'quick_gelu') if 'backbone' in own else ())}  # which go with a backbone
        given[name] = {key: options[key] for key in options if own['type'] == 'MACLIP' and key not in fixed}
    unused = set(options).difference(*given.values())
    if unused:
        raise ValueError(f'{", ".join(sorted(unused))}: for maclip, which is not among {", ".join(names) or "none"}')
    loaded = {name: load_metric(name, device, **given[name]) for name in names}
    return [
        MACLIPAdapter(with_head(name, metric.net.options.head), metric.net)
        if isinstance(metric.net, MACLIP)
        else PyiqaAdapter(name, metric, configs[name])
        for name, metric in loaded.items()
    ]


def with_head(name: str, head: str | os.PathLike[str] | None) -> str:
    """Name of a metric in tables, if it has a head.

    Example:
        >>> with_head('maclip', 'fit/koniq.maclip.head.safetensors')
        'maclip+koniq.maclip.head'
    """
    return name if head is None else name + '+' + re.sub(r'[^\w.+-]', '_', Path(head).stem)


def pack(f: Tensor, statistics: Any) -> np.ndarray:
    """Features (V, D) of an image as they are cached: float16 if that changes none of their `statistics`, a function
    (V, D) -> any shape, by more than 1e-4, else float32."""
    half = f.half()
    change = (statistics(half.float()) - statistics(f)).abs().max()
    return (half if change <= TOLERANCE else f).numpy()  # NaN where float16 overflows


def checksum(module: nn.Module) -> str:
    """Hash of a module's tensors, layers and heads, whatever file they came from: 64 hexadecimal digits."""
    heads = [getattr(m, 'num_heads', getattr(m, 'heads', None)) for m in module.modules()]
    layers = re.sub(r'0x[0-9a-f]+', '', f'{heads} {module!r}')  # addresses of functions
    return digest({'layers': layers}, dict([*module.named_buffers(), *module.named_parameters()]))
