"""Prints pinned.json anew: fingerprints, scores and cues of the demonstration backbone.

  python tests/metric/pin.py > pinned.json

A fingerprint that changes makes every table that users have stored a stranger, so this is for a new version of the
score's definition (`DEFINITION` in metric/cues.py), or for further options to pin.
"""

import hashlib
import json
import platform
from importlib.metadata import version

import torch

from maclip_pyiqa import MACLIP
from maclip_pyiqa.demo import PHOTO
from maclip_pyiqa.evaluation.known_answers import images
from maclip_pyiqa.scoring.read import read_pixels, to_tensor

OPTIONS = [
    {},
    {'cue': 'sim', 'views': 'full', 'prompts': 'clipiqa'},
    {'views': 'windows', 'stride': 50, 'max_views': 9, 'alpha': 2, 'prompt_weights': [3, 1, 1, 1, 2]},
    {'pos_embedding': True, 'box_lam': 0.25, 'base_cos': 0.5, 'prompts': [['a sunny day', 'a rainy day']]},
]
MOVING = ('prompts', 'views', 'stride', 'max_views', 'pos_embedding', 'prompt_weights', 'cue')
MOVING += ('box_lam', 'base_cos', 'base_norm', 'alpha')
CUES = ('score', 'q_sim', 'q_mag', 'w_sim')


def pins(options: dict, pixels: dict) -> dict:
    metric = MACLIP(backbone='demo', **options)
    with torch.no_grad():
        rows = {name: metric.analyze([to_tensor(image)])[0].summary() for name, image in pixels.items()}
    scores = {name: {cue: round(row[cue], 7) for cue in CUES} for name, row in rows.items()}
    return {'options': options, 'fingerprint': metric.fingerprint(), 'images': scores}


if __name__ == '__main__':
    pixels = {**images(), 'astronaut': read_pixels(PHOTO)}
    names = ('torch', 'open_clip_torch', 'numpy', 'Pillow')
    pinned = {
        'source': 'python tests/metric/pin.py, with the demonstration backbone: not CLIP, and not the published metric',
        'versions': {'python': platform.python_version()} | {name: version(name) for name in names},
        'sha256': {name: hashlib.sha256(image.tobytes()).hexdigest() for name, image in pixels.items()},
        'defaults': {name: MACLIP.__init__.__kwdefaults__[name] for name in MOVING},
        'metrics': [pins(options, pixels) for options in OPTIONS],
    }
    print(json.dumps(pinned, indent=1))
