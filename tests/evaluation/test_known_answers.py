"""Known answers: the images' bytes, the comparison on stand-in weights, and, where they are, the true weights."""

import json

import numpy as np
import pytest
import torch

import maclip_pyiqa
from maclip_pyiqa import MACLIP, cli
from maclip_pyiqa.backbone.weights import local_files
from maclip_pyiqa.evaluation import known_answers
from maclip_pyiqa.evaluation.known_answers import DIGESTS, PUBLISHED, Check, images, record, verify


def test_images_are_those_of_the_published_values():
    made = images()
    assert list(made) == list(DIGESTS) == list(PUBLISHED)
    for name, pixels in made.items():
        assert pixels.shape == (384, 384, 3) and pixels.dtype == np.uint8
        assert known_answers._digest(pixels) == DIGESTS[name]


def test_stand_in_weights_differ(rn50_file):
    verification = maclip_pyiqa.verify(pretrained=rn50_file)
    assert [check.verdict for check in verification.checks] == ['differs'] * 4 and not verification.ok
    metric = MACLIP(pretrained=rn50_file, views='full')
    scene = torch.from_numpy(images()['scene']).permute(2, 0, 1)[None].float() / 255
    assert verification.checks[0].ours == pytest.approx(float(metric.analyze(scene).q_sim), abs=1e-5)
    assert verification.checks[0].published == PUBLISHED['scene']


def test_tolerance():
    assert Check('a', 'clipiqa', 0.5, 0.50004).verdict == 'agrees'
    assert Check('a', 'clipiqa', 0.5, 0.50006).verdict == 'differs'
    assert Check('a', 'clipiqa', None, 0.5).verdict == 'no published value'


def test_other_weights_have_no_published_values(tiny):
    verification = verify(tiny)
    assert {check.verdict for check in verification.checks} == {'no published value'} and not verification.ok
    assert 'no published values for local-dir:' in verification.notes[0]


def test_other_pixels_are_not_compared(tiny, monkeypatch):
    monkeypatch.setitem(known_answers.DIGESTS, 'scene_blur', 'x')
    verification = verify(tiny)
    verdicts = [check.verdict for check in verification.checks]
    assert verdicts == ['no published value', 'other image', 'no published value', 'no published value']
    assert 'Pillow' in verification.notes[1] and not verification.ok


def test_recorded_scores_are_compared(tiny, tmp_path):
    written = record(tiny)
    assert len(written['images']) == 5 and written['fingerprint'] == MACLIP(backbone=tiny).fingerprint()
    assert MACLIP(**written['config'] | {'pretrained': 'openai'}).fingerprint() == written['fingerprint']
    (tmp_path / 'a.json').write_text(json.dumps(written))
    checks = verify(tiny, records=tmp_path).checks[4:]
    assert len(checks) == 5 * 9 and {check.verdict for check in checks} == {'agrees'}
    written['images']['scene']['score'] *= 1.001
    written['images']['astronaut.jpg']['sha256'] = 'of another decoder'
    (tmp_path / 'a.json').write_text(json.dumps(written))
    verdicts = {(c.image, c.value): c.verdict for c in verify(tiny, records=tmp_path).checks[4:]}
    assert verdicts['scene', 'score'] == 'differs' and verdicts['scene', 'q_sim'] == 'agrees'
    assert verdicts['astronaut.jpg', 'score'] == 'other image'
    written['fingerprint'] = 'of other weights'
    (tmp_path / 'a.json').write_text(json.dumps(written))
    assert len(verify(tiny, records=tmp_path).checks) == 4


def test_command(rn50_file, tiny, tmp_path, capsys):
    assert cli.main(['weights', '--verify', '--pretrained', str(rn50_file)]) == 1
    out, err = capsys.readouterr()
    assert out.count('\tdiffers\n') == 4 and '0.359615' in out and 'NOT verified' in err
    target = tmp_path / 'mine.json'
    assert cli.main(['weights', '--record', str(target), '--backbone', tiny]) == 0
    assert set(json.loads(target.read_text())['images']) == {*PUBLISHED, 'astronaut.jpg'}
    assert cli.main(['weights', '--record', str(tmp_path / 'no' / 'a.json'), '--backbone', tiny]) == 2
    assert cli.main(['weights', '--verify', '--pretrained', str(tmp_path / 'no.pt')]) == 3
    assert cli.main(['weights', '--verify', '--pretrained', 'opnai']) == 2


def test_the_published_weights():
    """Runs where OpenAI's RN50 is."""
    if not any(state == 'ok' for _, state in local_files('RN50', 'openai')):
        pytest.skip("OpenAI's RN50 is not on this machine: its scores were not compared with the published ones")
    assert verify().ok
