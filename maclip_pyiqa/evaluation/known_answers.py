"""Known answers: four generated images, and what others have published for them with OpenAI's weights.

pyiqa's `clipiqa` has MA-CLIP's five prompt pairs, so with OpenAI's RN50 its score is `MACLIP(views='full', cue='sim')`.
That equality covers weights, tokens, QuickGELU, the positional embedding, normalisation, pooling and the cosine cue.

Original: the values of pyiqa 0.1.15's `clipiqa` in the repository cozy-creator/cozy-eval (MIT).
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from ..backbone.names import architecture
from ..metric import MACLIP
from ..scoring.read import read_pixels, to_tensor
from ..scoring.schema import versions

__all__ = ['Check', 'Verification', 'verify']

SIZE = 384
PUBLISHED = {
    'scene': 0.35961490869522095,
    'scene_blur': 0.2815520167350769,
    'scene_noise': 0.4080595374107361,
    'whitenoise': 0.5948855876922607,
}
DIGESTS = {  # SHA-256 of the images' raw RGB bytes
    'scene': '0252c7a013f01494c3d24a52d72cd4a526526d8d8e7d54a1b11a8073fea09136',
    'scene_blur': 'aee63cd0880548f06a2b4d29f46b25dc6922b8948d3c46f96e1eefa259ae7cc4',
    'scene_noise': 'c78d157c7038012af590577aa3b2e76e1c2ed18cf8b416d77c819faf22e1883f',
    'whitenoise': '785fcd14ebcb78865dc6790198440797e1b7bae22d81069e16dd9b284890fc23',
}
TOLERANCE = 1e-4  # relative
RECORDS = Path(__file__).parent / 'recorded'  # what users have sent back, made by `record`
PHOTO = 'astronaut.jpg'


@dataclass(frozen=True)
class Check:
    """One value beside what it should be.

    Attributes:
        image: name of the image
        value: name of what is compared: 'clipiqa', or a column of `Analysis.summary`
        published: value that it should be; None: nothing is published for these weights
        ours: value that was computed; None: the image's bytes differ from those of the published value
        verdict: result, 'agrees', 'differs', 'no published value' or 'other image'

    Example::

        from maclip_pyiqa import verify

        for check in verify().checks:
            print(check.image, check.value, check.published, check.ours, check.verdict)
    """

    image: str
    value: str
    published: float | None
    ours: float | None

    @property
    def difference(self) -> float | None:
        """The relative difference; None if there is nothing to compare."""
        if self.published is None or self.ours is None:
            return None
        return abs(self.ours - self.published) / max(abs(self.published), 1e-12)

    @property
    def verdict(self) -> str:
        if self.ours is None:
            return 'other image'
        if self.difference is None:
            return 'no published value'
        return 'agrees' if self.difference <= TOLERANCE else 'differs'


@dataclass(frozen=True)
class Verification:
    """Result of `verify`.

    Attributes:
        checks: checks of all values
        notes: further sentences for a reader

    Example::

        from maclip_pyiqa import verify

        verification = verify()
        differing = [check for check in verification.checks if check.verdict != 'agrees']
    """

    checks: list[Check]
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all values agree with published ones."""
        return all(check.verdict == 'agrees' for check in self.checks)


def images() -> dict[str, np.ndarray]:
    """The four images, (384, 384, 3) uint8 RGB: 'scene', 'scene_blur', 'scene_noise', 'whitenoise'."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]).clip(1 / SIZE)

    def channel(seed: int) -> np.ndarray:
        white = np.random.default_rng(seed).normal(size=(SIZE, SIZE))
        pink = np.fft.irfft2(np.fft.rfft2(white) / frequency)
        pink *= 48 / np.abs(pink).max()
        return (96 + 64 * np.sin(2 * np.pi * 3 * x) * np.cos(2 * np.pi * 2 * y) + pink).clip(0, 255).astype(np.uint8)

    scene = np.stack([channel(seed) for seed in (7, 8, 9)], -1)
    blurred = np.array(Image.fromarray(scene).filter(ImageFilter.GaussianBlur(3)))
    rng = np.random.default_rng(11)
    noisy = (scene + rng.normal(0, 25, scene.shape)).clip(0, 255).astype(np.uint8)
    white = rng.integers(0, 256, scene.shape, dtype=np.uint8)
    return {'scene': scene, 'scene_blur': blurred, 'scene_noise': noisy, 'whitenoise': white}


def verify(
    backbone: str = 'RN50', pretrained: str | os.PathLike = 'openai', *, records: str | os.PathLike = RECORDS
) -> Verification:
    """Compare scores with published ones.

    Args:
        backbone, pretrained: options of `MACLIP`; published values are those of OpenAI's RN50
        records: folder of JSON files that `maclip-pyiqa weights --record` wrote; those of the same weights are
            compared too

    Returns:
        a `Verification`; `ok` says whether all agree within a relative 1e-4

    Raises:
        ValueError: an unknown backbone or tag
        WeightsError: weights that cannot be found, downloaded or read, or that do not fit

    Example::

        from maclip_pyiqa import verify

        verification = verify()                # of OpenAI's RN50
        print(verification.ok, *verification.notes)
    """
    clipiqa = MACLIP(backbone=backbone, pretrained=pretrained, views='full', cue='sim')
    published = architecture(backbone) == 'RN50' and (pretrained == 'openai' or Path(pretrained).is_file())
    checks, notes = [], []
    if not published:
        notes.append(f'There are no published values for {backbone}, {os.fspath(pretrained)}, only for RN50, openai.')
    for name, pixels in images().items():
        ours = float(clipiqa([to_tensor(pixels)])) if _digest(pixels) == DIGESTS[name] else None
        checks.append(Check(name, 'clipiqa', PUBLISHED[name] if published else None, ours))
    if any(check.ours is None for check in checks):
        notes.append(
            f'numpy {np.__version__} and Pillow {version("Pillow")} make other pixels than those of the published '
            'values; try other versions.'
        )
    files = [json.loads(path.read_text('utf-8')) for path in sorted(Path(records).glob('*.json'))]
    if files:
        metric = MACLIP(backbone=backbone, pretrained=pretrained)
        files = [file for file in files if file['fingerprint'] == metric.fingerprint()]
    if not files:
        notes.append('No recorded scores of maclip itself for these weights; --record makes some.')
    scored = _scored(metric) if files else {}
    for file in files:
        for name, known in file['images'].items():
            same = scored[name]['sha256'] == known.pop('sha256')
            checks += [Check(name, what, value, scored[name][what] if same else None) for what, value in known.items()]
    return Verification(checks, notes)


def record(backbone: str = 'RN50', pretrained: str | os.PathLike = 'openai') -> dict[str, Any]:
    """Scores, cues and attributes of `MACLIP` for the four images and the photo in this package, with all that they
    were computed with, as plain data: for a file that others can compare theirs with.

    Raises:
        ValueError, WeightsError: as `verify`
    """
    metric = MACLIP(backbone=backbone, pretrained=pretrained)
    return {
        'config': metric.config | {'pretrained': os.path.basename(os.fspath(pretrained))},
        'fingerprint': metric.fingerprint(),
        'date': datetime.date.today().isoformat(),
        'versions': versions(),
        'images': _scored(metric),
    }


def _scored(metric: MACLIP) -> dict[str, dict[str, Any]]:
    photo = read_pixels(Path(__file__).parents[1] / 'demo' / PHOTO)
    return {
        name: {'sha256': _digest(pixels), **metric.analyze([to_tensor(pixels)])[0].summary()}
        for name, pixels in {**images(), PHOTO: photo}.items()
    }


def _digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
