"""The first use of an installed package, by the Python that runs this; writes into the current folder.

  python .ci/first_use.py SOURCE [plot]    with `plot`, what needs that extra

Scores are of the demonstration backbone, and equal to those that are pinned in SOURCE: so its files came along.
"""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pyiqa
import torch
from PIL import Image

source = Path(sys.argv[1])
(command,) = (path for path in Path(sys.executable).parent.glob('maclip-pyiqa*') if path.is_file())


def run(*args: str) -> str:
    done = subprocess.run([command, *args], capture_output=True, text=True)
    assert done.returncode == 0, (args, done)
    print('ok: maclip-pyiqa', *args)
    return done.stdout


if sys.argv[2:] == ['plot']:
    run('demo')
    with Image.open('maclip_demo/demo.png') as picture:
        assert min(picture.size) > 500, picture
    sys.exit()

pinned = json.loads((source / 'tests/metric/pinned.json').read_text('utf-8'))['metrics'][0]
want = pinned['images']['astronaut']['score']

# by its entry point, with no import of ours
assert not any(name.startswith('maclip_pyiqa') for name in sys.modules)
metric = pyiqa.create_metric('maclip', backbone='demo', device='cpu')
package = Path(sys.modules['maclip_pyiqa'].__file__).parent
assert package.is_relative_to(sys.prefix), package
photo = str(package / 'demo/astronaut.jpg')
score = metric(photo)
assert abs(score.item() - want) < 1e-5, (score, want)
batch = metric(torch.rand(2, 3, 230, 240))
assert batch.shape == (2, 1) and batch.isfinite().all(), batch
assert pyiqa.create_metric('maclip_demo', device='cpu')(photo).item() == score.item()
assert metric.net.fingerprint() == pinned['fingerprint']
print(f"ok: pyiqa.create_metric('maclip', backbone='demo'): {score.item():.7f}, as pinned")

version = runpy.run_path(str(package / '_version.py'))['__version__']
assert run('--version').split()[-1] == version
printed = float(run('score', photo, '--backbone', 'demo').split()[-1])
assert abs(printed - want) < 1e-5, (printed, want)
