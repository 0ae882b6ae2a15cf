"""What works in an environment without pyiqa, and what says that it needs pyiqa. Writes into the current folder."""

import subprocess
import sys
from importlib.util import find_spec

import torch

from maclip_pyiqa import MACLIP, MACLIPLoss, register, score_files
from maclip_pyiqa.demo import PHOTO
from maclip_pyiqa.integrations.onnx import export
from maclip_pyiqa.integrations.torchmetrics import MACLIPScore
from maclip_pyiqa.scoring import read_image


def command(*args: str, code: int = 0, error: str = '') -> None:
    done = subprocess.run([sys.executable, '-m', 'maclip_pyiqa', *args], capture_output=True, text=True)
    assert done.returncode == code and error in done.stderr, (args, done)
    print('ok: maclip-pyiqa', *args)


for absent in ('pyiqa', 'clip', 'transformers', 'pandas'):
    assert find_spec(absent) is None, absent

metric = MACLIP(backbone='demo')
photo = read_image(PHOTO)[None]
score = metric(photo)
(row,) = score_files(metric, [PHOTO])
assert abs(row['score'] - float(score)) < 1e-5
x = photo.clone().requires_grad_()
MACLIPLoss(backbone='demo')(x).backward()
assert x.grad.abs().sum() > 0
mean = MACLIPScore(metric)
mean.update(photo)
assert torch.allclose(mean.compute(), score)
export(metric, 'maclip.onnx')
print('ok: MACLIP, score_files, MACLIPLoss, MACLIPScore, export')

demo = ('--backbone', 'demo')
command('score', str(PHOTO), '-o', 'scores.csv', '--details', *demo)
command('map', str(PHOTO), '-o', 'map.png', *demo)
command('demo', '-o', 'demo')
command('weights', '--verify', *demo, code=1, error='no published values')
needs = 'needs pyiqa'
command('score', str(PHOTO), '--metrics', 'niqe', *demo, code=2, error=needs)
command('evaluate', '-m', 'maclip', '-d', 'csiq', '-o', 'results', code=2, error='pyiqa')
try:
    register()
except ModuleNotFoundError as error:
    assert needs in str(error)
else:
    raise AssertionError('register() worked without pyiqa')
