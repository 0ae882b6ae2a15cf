"""Scores of the authors' published code, on the same stand-in weights and images."""

import hashlib
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from maclip_pyiqa import MACLIP
from maclip_pyiqa.demo import PHOTO
from maclip_pyiqa.evaluation.datasets import prepared, protocols
from maclip_pyiqa.evaluation.known_answers import images
from maclip_pyiqa.scoring.read import read_pixels, to_tensor
from maclip_pyiqa.testing import make_clip, state_dict, synthetic_images

AUTHORS = json.loads(Path(__file__).with_name('authors_scores.json').read_text('utf-8'))
PROTOCOLS = {'koniq': 'koniq10k-1024', 'SPAQ': 'spaq', 'AGIQA-1k': 'agiqa-1k'}  # their names and ours


def png(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    return file.getvalue()


@pytest.mark.slow
def test_scores_are_the_authors(tmp_path):
    weights = state_dict(make_clip('RN50', synthetic_images()), half=True)
    digest = hashlib.sha256(b''.join(weights[name].numpy().tobytes() for name in sorted(weights))).hexdigest()
    torch.save(weights, tmp_path / 'RN50.pt')
    metric = MACLIP(pretrained=tmp_path / 'RN50.pt', quick_gelu=True)
    pixels, got = {**images(), 'astronaut': read_pixels(PHOTO)}, {}
    for case in AUTHORS['scores']:
        name, preprocessing = case.split('/')
        preparation = protocols()['protocols']['paper'][PROTOCOLS[preprocessing]].get('augment', {})
        with torch.no_grad():
            got[case] = float(metric([to_tensor(prepared(png(pixels[name]), preparation))]))
    same = 'the same' if digest == AUTHORS['weights'] else 'not the same to the last bit'
    # the weights are made on each machine, and their last bits differ between processors
    assert got == pytest.approx(AUTHORS['scores'], abs=3e-5), f'weights are {same}'
