"""What a user installs holds the demonstration backbone."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_wheel_and_sdist_hold_the_assets(tmp_path):
    source = tmp_path / 'source'
    source.mkdir()
    for name in ('pyproject.toml', 'setup.cfg', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / 'maclip_pyiqa', source / 'maclip_pyiqa', ignore=shutil.ignore_patterns('__pycache__'))
    code = (
        'from setuptools import build_meta\n'
        'build_meta.build_wheel("..")\n'
        'build_meta.build_sdist("..")'
    )  # fmt: skip
    done = subprocess.run([sys.executable, '-c', code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = tmp_path.glob('*.whl'), tmp_path.glob('*.tar.gz')
    assets = {f'maclip_pyiqa/assets/demo/{p.name}' for p in (ROOT / 'maclip_pyiqa/assets/demo').iterdir()}
    assert len(assets) == 4
    with zipfile.ZipFile(wheel) as archive:
        assert assets <= set(archive.namelist())
    with tarfile.open(sdist) as archive:
        assert assets <= {name.partition('/')[2] for name in archive.getnames()}
