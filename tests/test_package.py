"""The package as a whole: its public names, what its import costs, and what a wheel holds and does."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import setuptools

import maclip_pyiqa

ROOT = Path(__file__).parents[1]
DATA = [
    'py.typed',
    'backbone/demo/README.md',
    'backbone/demo/open_clip_config.json',
    'backbone/demo/open_clip_model.safetensors',
    'demo/astronaut.jpg',
    'evaluation/paper_results.csv',
    'evaluation/protocols.yml',
    'evaluation/pyiqa_results.csv',
    *(f'report/assets/{path.name}' for path in (ROOT / 'maclip_pyiqa/report/assets').iterdir()),
]


def python(code: str, *args: str, **options) -> str:
    done = subprocess.run([sys.executable, '-c', code, *args], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names():
    for name in maclip_pyiqa.__all__:
        assert getattr(maclip_pyiqa, name) is not None and name in dir(maclip_pyiqa)
    with pytest.raises(AttributeError, match=r'no attribute .MACLIPS'):
        maclip_pyiqa.MACLIPS  # noqa: B018


def test_import_is_light():
    code = 'import sys, maclip_pyiqa; print(*sys.modules)'
    heavy = {'torch', 'numpy', 'PIL', 'pyiqa', 'open_clip', 'scipy', 'pandas', 'pyarrow', 'matplotlib'}
    assert not heavy & set(python(code).split())
    code = 'import sys; from maclip_pyiqa import ViewPlan, MACLIP; print(*sys.modules)'
    assert not {'pyiqa', 'open_clip', 'torchvision', 'scipy'} & set(python(code).split())


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that the checkout stays as it is."""
    if int(setuptools.__version__.split('.')[0]) < 77:
        pytest.skip('building needs setuptools 77, as pyproject.toml says')
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    for name in ('pyproject.toml', 'setup.cfg', 'MANIFEST.in', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / 'maclip_pyiqa', source / 'maclip_pyiqa', ignore=shutil.ignore_patterns('__pycache__'))
    python("from setuptools import build_meta; build_meta.build_sdist('..')", cwd=source)
    (sdist,) = folder.glob('*.tar.gz')
    # the wheel is built from the sdist, as an installer does it, so that the sdist has all that it needs
    shutil.unpack_archive(sdist, folder / 'unpacked', filter='data')
    (unpacked,) = (folder / 'unpacked').iterdir()
    python("from setuptools import build_meta; build_meta.build_wheel('../..')", cwd=unpacked)
    (wheel,) = folder.glob('*.whl')
    return wheel


def test_wheel_holds_the_package_and_its_data_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {name for name in names if '.dist-info/' not in name}
    assert {f'maclip_pyiqa/{name}' for name in DATA} <= package
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'maclip_pyiqa').rglob('*.py')}
    assert here == {name for name in package if name.endswith('.py')}
    assert all(name.startswith('maclip_pyiqa/') for name in package)


@pytest.mark.slow
def test_pyiqa_finds_the_loss_of_an_installed_wheel(wheel, tmp_path):
    """By its entry point, with no import of ours; the loss is imported when it is built."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = """
import sys
from pyiqa.losses import build_loss
from pyiqa.utils.registry import LOSS_REGISTRY
assert 'L1Loss' in LOSS_REGISTRY and not any(name.startswith('maclip_pyiqa') for name in sys.modules)
loss = build_loss({'type': 'MACLIPLoss', 'loss_weight': 0.1, 'paired': True, 'backbone': 'demo'})
print(type(loss).__module__, loss.loss_weight, loss.paired)
"""
    found = python(code, cwd='/', env=os.environ | {'PYTHONPATH': str(tmp_path)})
    assert found.splitlines()[-1] == 'maclip_pyiqa.loss 0.1 True'


@pytest.mark.slow
def test_commands_of_an_installed_wheel(wheel, tmp_path, photo_files):
    """Without the checkout: the wheel's own folder comes first on the path. `.ci/rehearse` tries `score` and `demo`."""
    site, work = tmp_path / 'site', tmp_path / 'work'
    work.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    environment = os.environ | {'PYTHONPATH': str(site)}

    rows = [f'{path.name},{i}' for i, path in enumerate(photo_files)]
    (work / 'list.csv').write_text('\n'.join(['file,mos', *rows, '']))
    head, images = 'results/fit/list.maclip_demo.head.safetensors', str(photo_files[0].parent)
    commands = [
        ['evaluate', '-m', 'maclip_demo', '--list', 'list.csv', '--images', images, '-o', 'results'],
        ['ablate', 'results'],
        ['fit', 'results', 'list', '--folds', '2'],
        ['score', str(photo_files[0]), '-o', 'scores.csv', '--backbone', 'demo', '--head', head],
    ]
    code = f"""
import maclip_pyiqa
from maclip_pyiqa.cli import main
for command in {commands!r}:
    assert main(command) == 0, command
print(maclip_pyiqa.__file__)
"""
    assert python(code, cwd=work, env=environment).splitlines()[-1].startswith(str(site))
    assert (work / 'scores.csv').read_text().count('\n') == 2
    assert 'maclip_demo' in (work / 'results' / 'results.csv').read_text()
    assert (work / 'results' / 'ablation' / 'ablation.csv').is_file()
