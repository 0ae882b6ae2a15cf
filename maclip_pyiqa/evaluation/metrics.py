"""Metrics as the evaluation uses them: what is computed of an image and cached, and the score that follows from it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._lists import as_names
from ..backbone.identity import digest
from ..metric import MACLIP
from ..scoring.others import check_metrics, load_metric

__all__ = ['MACLIPAdapter', 'MetricAdapter', 'PyiqaAdapter', 'Scores', 'checksum', 'load_metrics', 'pack']

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
    """

    lower_better = False

    def __init__(self, name: str, net: MACLIP) -> None:
        self.name, self.net = name, net
        self.config, self.fingerprint = net.config, net.fingerprint()
        self.cache_key = {'features': net.features_fingerprint(), 'dtype': str(net.backbone.mean.dtype)}
        self.extra: dict[str, Any] = {'text': net.backbone.text.tolist(), 'scale': net.backbone.scale.tolist()}
        self.extra |= {'image_digest': net.backbone.image_digest, 'text_digest': net.backbone.text_digest}

    def compute(self, image: Tensor) -> dict[str, np.ndarray]:
        """Arrays to cache of an image, (3, H, W) in [0, 1].

        Raises:
            ValueError: features that are not finite
        """
        (features,) = self.net.features([image])
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

    def compute(self, image: Tensor) -> dict[str, np.ndarray]:
        with torch.random.fork_rng([image.device] if image.is_cuda else []), contextlib.redirect_stdout(sys.stderr):
            torch.manual_seed(0)  # some metrics draw random crops: the same ones each time, in any process
            score = float(self.metric(image[None]))
        if not math.isfinite(score):
            raise ValueError('the score is not finite')
        return {'score': np.array(score)}

    def score(self, arrays: dict[str, np.ndarray]) -> float:
        return float(arrays['score'])


MetricAdapter = MACLIPAdapter | PyiqaAdapter


@dataclass
class Scores:
    """A metric's scores of a data set.

    Attributes:
        metric: metric that scored
        scores: scores, as the metric gives them, NaN for images that failed, (N,)
        errors: reasons why images failed, empty for those that were scored, (N,)
        keys: keys of the images in the cache, (N,)
    """

    metric: MetricAdapter
    scores: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def load_metrics(names: Iterable[str], device: torch.device | str = 'cpu', **options: Any) -> list[MetricAdapter]:
    """Metrics by pyiqa's names.

    Args:
        names: names of no-reference metrics, this package's among them
        device: device of the metrics
        **options: options of `MACLIP`, for each of this package's metrics whose name does not stand for one of them

    Raises:
        ValueError: an unknown metric, one that needs a reference, or options that no metric takes
        WeightsError: weights that cannot be found or downloaded
        ModuleNotFoundError: pyiqa is not installed
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
        raise ValueError(f'{", ".join(sorted(unused))}: for maclip, which is not among {", ".join(names)}')
    loaded = {name: load_metric(name, device, **given[name]) for name in names}
    return [
        MACLIPAdapter(name, metric.net) if isinstance(metric.net, MACLIP) else PyiqaAdapter(name, metric, configs[name])
        for name, metric in loaded.items()
    ]


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
