"""What a pass over a data set leaves behind, so that no image is encoded twice.

A results folder holds

    store/images/SETTING/ab/abcdef...npz   one array an image: each view's raw feature (V, D), or a metric's score ()
    store/runs/DATASET/METRIC.json         which images a data set has, their labels, and what the metric was

SETTING names what made the array (metric, backbone, weights), the file's name is a hash of the image file's bytes and
of how it was prepared. Files appear whole or not at all, so that any number of processes may write, and be killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor, nn

TOLERANCE = 1e-4  # the most that float16 may move a score
LAYOUT = 2  # of the files; part of their keys


@dataclass(frozen=True)
class Kept:
    """Features of a data set and all that scores are computed from. Images that failed are not in it.

    Attributes:
        features: of each image's views before normalisation, windows row by row and the global view last, (V, D)
        text: L2-normalised prompt features, (P, 2, D)
        scale: exp(logit_scale), ()
        labels: turned so that higher is better, (N,)
        groups: of each image, one for all versions of one photo; None where the data set tells none
        names: of the images
        meta: metric, backbone, pretrained, weights (their checksum), views, stride, prompts, prompt_weights, cue,
            constants, dataset, protocol, preparation (of the images)
    """

    features: list[Tensor]
    text: Tensor
    scale: Tensor
    labels: np.ndarray
    groups: list[str] | None
    names: list[str]
    meta: dict


class Shelf:
    """Arrays by key, a file each, of one setting.

    Args:
        results: the results folder
        setting: what made the arrays; each setting has a folder of its own
    """

    def __init__(self, results: Path, setting: dict) -> None:
        text = json.dumps(setting | {'layout': LAYOUT}, sort_keys=True)
        self.folder = Path(results, 'store', 'images', hashlib.sha256(text.encode()).hexdigest()[:16])

    def get(self, key: str) -> np.ndarray | None:
        """The array, or None where it is missing or its file is damaged: then it is to be made anew."""
        try:
            with np.load(self._path(key)) as file:
                return file['array']
        except Exception:  # a damaged archive fails in all kinds of ways
            return None

    def put(self, key: str, array: np.ndarray) -> None:
        """Keep an array.

        Raises:
            OSError: it cannot be written
        """
        write(self._path(key), lambda file: np.savez_compressed(file, array=array))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f'{key}.npz'


def image_key(data: bytes, preparation: object) -> str:
    """Key of an image by its file's bytes and what is done to it before it is scored (plain data)."""
    return hashlib.sha256(json.dumps(preparation, sort_keys=True).encode() + b'\0' + data).hexdigest()[:32]


def checksum(net: nn.Module) -> str:
    """SHA-256 of what features or scores are computed with, whatever file it came from: tensors, layers, heads; of a
    MACLIP its image tower's, with window and normalisation."""
    told = ''
    if (backbone := getattr(net, 'backbone', None)) and hasattr(backbone, 'window'):
        told = f'{backbone.window} {backbone.mean.tolist()} {backbone.std.tolist()}'
        net = backbone.visual
    heads = [getattr(module, 'num_heads', getattr(module, 'heads', None)) for module in net.modules()]
    layers = re.sub(r'0x[0-9a-f]+', '', repr(net))  # addresses of functions
    digest = hashlib.sha256(f'{told} {heads} {layers}'.encode())
    for name, tensor in sorted([*net.named_buffers(), *net.named_parameters()]):
        digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}'.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def pack(f: Tensor, scores: Callable[[Tensor], Tensor]) -> np.ndarray:
    """(V, D) as it is kept: float16 if that moves none of the image's scores by more than 1e-4, else float32.

    Args:
        f: features of an image's views
        scores: all that is computed of them, (V, D) -> any shape
    """
    half = f.half()
    moved = (scores(half.float()) - scores(f)).abs().max()
    return (half if moved <= TOLERANCE else f).numpy()  # a half that overflowed moves them by NaN


def save_run(results: Path, dataset: str, metric: str, run: dict) -> None:
    """Write what a data set and a metric were: `meta`, `setting`, `lower_better`, `images` (with name, key, label,
    group, and error where one failed); with features also `text` and `scale` (nested lists)."""
    text = json.dumps(run, indent=None, ensure_ascii=False)
    write(_run_file(results, dataset, metric), lambda file: file.write(text.encode('utf-8', 'surrogateescape')))


def runs(results: Path) -> list[tuple[str, str, dict]]:
    """(data set, metric, what `save_run` wrote) of all that a results folder holds, sorted by name.

    Raises:
        FileNotFoundError: it holds none
    """
    files = sorted(Path(results, 'store', 'runs').glob('*/*.json'))
    if not files:
        raise FileNotFoundError(f'{results} holds no results; `python benchmarks/accuracy.py -o {results}` makes them')
    return [(file.parent.name, file.name.removesuffix('.json'), _read(file)) for file in files]


def load(results: Path, dataset: str, metric: str | None = None) -> Kept:
    """Features that `accuracy.py -o results` kept of a data set.

    Args:
        results: the folder
        dataset: name, as `accuracy.py` was given it
        metric: one that is made of features; None: the only one

    Raises:
        FileNotFoundError: no such features; the message tells which there are
        ValueError: several metrics, and none was named
    """
    found = {(d, m): run for d, m, run in runs(results) if 'text' in run}
    mine = [m for d, m in found if d == dataset and metric in (None, m)]
    if not mine:
        have = ', '.join(f'{d} ({m})' for d, m in found) or 'none'
        wanted = f'{dataset!r}' + (f' by {metric!r}' if metric else '')
        raise FileNotFoundError(f'{results} holds no features of {wanted}; it holds those of: {have}')
    if len(mine) > 1:
        raise ValueError(f'{results} holds features of {dataset!r} by {", ".join(mine)}; name one metric')
    import torch

    run = found[dataset, mine[0]]
    shelf = Shelf(results, run['setting'])
    images = [image for image in run['images'] if not image['error']]
    features = [shelf.get(image['key']) for image in images]
    gone = [image['name'] for image, f in zip(images, features, strict=True) if f is None]
    if gone:
        raise FileNotFoundError(
            f'{results} lacks the features of {len(gone)} images of {dataset!r}, the first: {gone[0]}; run '
            'accuracy.py again, it makes what is missing'
        )
    labels = np.array([image['label'] for image in images], float)
    groups = [image['group'] for image in images]
    return Kept(
        features=[torch.from_numpy(f).float() for f in features],
        text=torch.tensor(run['text']),
        scale=torch.tensor(run['scale']),
        labels=0 - labels if run['lower_better'] else labels,
        groups=None if None in groups else groups,
        names=[image['name'] for image in images],
        meta=run['meta'],
    )


@contextlib.contextmanager
def lock(results: Path) -> Iterator[None]:
    """Alone among the processes that write tables of a results folder (where the system has such locks)."""
    results.mkdir(parents=True, exist_ok=True)
    with open(results / '.lock', 'w') as file:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write a file as a whole: `fill` gets it open for bytes; it has its name once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix='.', suffix='.tmp', delete=False) as file:
        try:
            fill(file)
            file.close()
            os.chmod(file.name, 0o644)  # temporary files are for their owner only
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _run_file(results: Path, dataset: str, metric: str) -> Path:
    return Path(results, 'store', 'runs', dataset, f'{metric}.json')


def _read(path: Path) -> dict:
    return json.loads(path.read_text('utf-8', 'surrogateescape'))
