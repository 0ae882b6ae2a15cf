"""The command line as a whole: help, version, exit codes, and what is answered before torch is imported."""

import os
import re
import subprocess
import sys
from importlib import import_module

import pytest

import maclip_pyiqa
from maclip_pyiqa.cli import main
from maclip_pyiqa.cli.main import COMMANDS as MODULES

COMMANDS = [name.replace('_', '-') for name in MODULES]

LIGHT = """if True:
    import sys
    from maclip_pyiqa.cli import main
    code = main(sys.argv[1:])
    heavy = {'torch', 'torchvision', 'pyiqa', 'open_clip', 'numpy', 'PIL', 'matplotlib', 'pandas', 'pyarrow'}
    print('imported:', *sorted(heavy & set(sys.modules)), file=sys.stderr)
    sys.exit(code)
"""


def test_version(capsys):
    assert main(['--version']) == 0
    assert capsys.readouterr().out.strip() == maclip_pyiqa.__version__


@pytest.mark.parametrize('command', [[], *([name] for name in COMMANDS)])
def test_help(command, capsys):
    assert main([*command, '--help']) == 0
    out = capsys.readouterr().out
    assert out.startswith('usage: maclip-pyiqa') and max(map(len, out.splitlines())) <= 120


def test_no_command(capsys):
    assert main([]) == 2
    assert 'COMMAND' in capsys.readouterr().err


@pytest.mark.parametrize('name', MODULES)
def test_each_command_is_a_module_of_its_name(name, capsys):
    module = import_module(f'maclip_pyiqa.cli.{name}')
    assert callable(module.add) and callable(module.run)
    assert main(['--help']) == 0
    assert f'\n    {name.replace("_", "-")}' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('args', 'code', 'message'),
    [
        (['--help'], 0, 'usage'),
        (['--version'], 0, ''),
        *(([name, '--help'], 0, 'usage') for name in COMMANDS),
        (['nix'], 2, 'invalid choice'),
        (['score', '{tmp}/a.png', '--nix'], 2, 'unrecognized arguments'),
        (['score', '{tmp}/a.png', '-o', 'o.txt'], 2, 'expected one of .csv'),
        (['score', '{tmp}/a.png', '--prompts', 'nix'], 2, 'nix'),
        (['score', '{tmp}/a.png', '--backbone', 'nix'], 2, "unknown backbone 'nix'"),
        (['score', '{tmp}/a.png', '--option', 'nix=1'], 2, 'expected NAME=VALUE'),
        (['score', '{tmp}/a.png', '--option', 'stride=0'], 2, 'stride=0; expected at least 1'),
        (['evaluate', '-d', 'csiq', '--option', 'cue=nix'], 2, "expected 'both', 'sim' or 'mag'"),
        (['compare', '{tmp}', '{tmp}', '--option', 'max_views=3'], 2, 'use --max-views'),
        (['map', '{tmp}/a.png', '-o', 'o.png', '--option', 'sample_views=3'], 2, 'moves no score'),
        (['score', '{tmp}/empty'], 2, 'no images found'),
        (['score', '{tmp}/*.nix'], 2, 'pattern'),
        (['score', '{tmp}/none.png', '{tmp}/too.png'], 1, 'No such file'),
        (['score', '{tmp}/none.png', '-o', '{tmp}/o.csv'], 1, 'No such file'),
        (['report', '{tmp}/none.csv', '-o', 'o.html'], 2, 'No such file'),
        (['map', '{tmp}/none.png', '-o', 'o.png'], 1, 'No such file'),
        (['map', '{tmp}/a.png', '-o', 'o.png', '--of', 'nix'], 2, '--of'),
        (['demo', '{tmp}/none.png'], 1, 'No such file'),
        (['weights', '--backbone', 'demo'], 2, 'brings its own weights'),
    ],
)
def test_answers_that_need_no_heavy_imports(args, code, message, tmp_path):
    """These imports take seconds; without them the answer comes in a tenth of one."""
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'a.png').write_bytes(b'')
    command = [sys.executable, '-c', LIGHT, *(arg.format(tmp=tmp_path) for arg in args)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code and message in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == 'imported:'


def test_rows_of_missing_files_are_written_without_torch_too(tmp_path):
    from maclip_pyiqa.scoring.formats import read_table

    command = [sys.executable, '-c', LIGHT, 'score', 'a.png', 'b.png', '--details', '-o', 'o.csv']
    assert subprocess.run(command, capture_output=True, cwd=tmp_path).returncode == 1
    rows = read_table(tmp_path / 'o.csv')
    assert [(row['path'], row['score'], row['error']) for row in rows] == [
        (name, None, 'No such file or directory') for name in ('a.png', 'b.png')
    ]
    assert 'attribute_sharp' in rows[0]


def test_as_a_module():
    done = subprocess.run([sys.executable, '-m', 'maclip_pyiqa', '--version'], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == maclip_pyiqa.__version__


def test_errors_of_the_program_itself_are_not_hidden(monkeypatch):
    def broken(text):
        raise RuntimeError('a bug')

    monkeypatch.setattr('maclip_pyiqa.cli.score.find_images', lambda *args, **options: broken(args))
    with pytest.raises(RuntimeError, match='a bug'):
        main(['score', 'a.png'])


@pytest.mark.skipif(sys.platform != 'linux', reason='torch has another OpenMP library there')
@pytest.mark.slow
def test_idle_threads_sleep_unless_the_user_has_chosen_otherwise(monkeypatch):
    """As torch's OpenMP library itself reports it: how often a thread looks for work before it sleeps."""
    for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME'):
        monkeypatch.delenv(name, raising=False)
    code = "from maclip_pyiqa.cli import main; main(['--version']); import torch"
    running = [
        subprocess.Popen(
            [sys.executable, '-c', code], env=os.environ | {'OMP_DISPLAY_ENV': 'VERBOSE'} | setting,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for setting in ({}, {'OMP_WAIT_POLICY': 'ACTIVE'}, {'GOMP_SPINCOUNT': '1000'})
    ]  # fmt: skip
    reports = [process.communicate(timeout=120)[1] for process in running]
    spins = [int(re.search(r"GOMP_SPINCOUNT = '(\d+)'", report)[1]) for report in reports]
    assert spins[0] == 0 and spins[1] > 1e6 and spins[2] == 1000
