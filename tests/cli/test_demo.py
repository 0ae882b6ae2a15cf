"""`maclip-pyiqa demo`, as who has just installed the package runs it."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from maclip_pyiqa.cli import main


@pytest.mark.slow
def test_without_a_network(tmp_path):
    """Alone in a fresh process: numbers, a table, a picture, and the note that this is not the published metric."""
    code = (
        'import socket, sys\n'
        'def none(*args, **kwargs): raise OSError("no network here")\n'
        'socket.socket.connect = none\n'
        'from maclip_pyiqa.cli import main\n'
        'sys.exit(main(sys.argv[1:]))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, 'demo', '-o', 'out dir'], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {'HF_HOME': str(tmp_path), 'HF_HUB_OFFLINE': '1'},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'not the published metric' in done.stderr
    assert sorted(os.listdir(tmp_path / 'out dir')) == ['demo.csv', 'demo.png']
    with open(tmp_path / 'out dir' / 'demo.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    kinds = list(dict.fromkeys(row['degradation'] for row in rows))
    assert len(kinds) == 4 and len(rows) == 16
    for kind in kinds:  # the photo is one that the training never saw
        values = [float(row['score']) for row in rows if row['degradation'] == kind]
        assert values == sorted(values, reverse=True) and values[0] > values[-1] + 0.05
    header, *lines = [line.split('\t') for line in done.stdout.splitlines()[:-1]]
    assert header == list(rows[0])
    for line, row in zip(lines, rows, strict=True):
        assert line[:2] == [row['degradation'], row['step']] and line[2] == f'{float(row["score"]):.3f}'
    pixels = np.array(Image.open(tmp_path / 'out dir' / 'demo.png').convert('RGB'))
    assert min(pixels.shape[:2]) > 600
    assert all(
        part.std() > 20 for half in np.vsplit(pixels[: len(pixels) // 2 * 2], 2) for part in np.array_split(half, 2, 1)
    )


@pytest.mark.slow
def test_a_photo_of_ones_own(folder, tmp_path, capsys):
    assert main(['demo', str(folder / 'a.png'), '-o', str(tmp_path / 'out')]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == str(tmp_path / 'out' / 'demo.png') and 'not the published metric' in err


def test_wrong_use(tmp_path, capsys):
    assert main(['demo', str(tmp_path / 'none.png'), '-o', str(tmp_path)]) == 1
    assert 'none.png' in capsys.readouterr().err
    (tmp_path / 'file').write_text('')
    assert main(['demo', '-o', str(tmp_path / 'file')]) == 2
    assert str(tmp_path / 'file') in capsys.readouterr().err
    Image.new('RGB', (1, 600)).save(tmp_path / 'thin.png')
    assert main(['demo', str(tmp_path / 'thin.png'), '-o', str(tmp_path / 'out')]) == 1
    assert 'too long and thin' in capsys.readouterr().err


def test_without_matplotlib(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    assert main(['demo']) == 2
    assert 'maclip_pyiqa[plot]' in capsys.readouterr().err
