"""`maclip-pyiqa map`: a figure and a score of one image."""

import os

import numpy as np
import pytest
from PIL import Image

from maclip_pyiqa.cli import main
from maclip_pyiqa.scoring.read import read_image


def test_map(run, folder, tmp_path, tiny_metric):
    code, out, _ = run(folder / 'a.png', '-o', tmp_path / 'new' / 'map.png', command='map')
    score = tiny_metric(read_image(folder / 'a.png')[None])
    assert code == 0 and float(out.split('\t')[1]) == pytest.approx(float(score), abs=1e-5)
    assert np.asarray(Image.open(tmp_path / 'new' / 'map.png').convert('L')).std() > 5


@pytest.mark.parametrize('of', ['q_sim', 'q_mag', 'w_sim', 'good', 'noise-free'])
def test_each_name_of_the_help_has_a_map(run, folder, tmp_path, of):
    assert run(folder / 'a.png', '-o', tmp_path / 'map.svg', '--of', of, command='map')[0] == 0
    assert (tmp_path / 'map.svg').stat().st_size > 1000


def test_images_that_fail(run, folder, tmp_path):
    os.mkfifo(folder / 'pipe.png')
    Image.new('RGB', (1, 30000)).save(folder / 'thin.png')
    for name, message in {
        'notes.txt': 'not an image',
        'none.png': 'No such file',
        'pipe.png': 'a named pipe',
        'thin.png': 'thin.png: an image of 30000x1 pixels',
    }.items():
        code, out, err = run(folder / name, '-o', tmp_path / 'map.png', command='map')
        assert code == 1 and out == '' and name in err and message in err and not (tmp_path / 'map.png').exists()


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ([], '--output'),
        (['-o', '{folder}/o.png', '--of', 'sharpness'], "--of: no map of 'sharpness'; expected one of q, q_sim"),
        (['-o', '{folder}/o.png', '--of', 'sharp', '--prompts', 'good'], "no map of 'sharp'"),
        (['-o', '{folder}/o.nix'], 'nix'),
        (['-o', '{folder}/a.png/o.png'], 'a.png/o.png'),
    ],
)
def test_wrong_use(run, folder, args, message):
    code, out, err = run(folder / 'a.png', *(arg.format(folder=folder) for arg in args), command='map')
    assert code == 2 and out == '' and message in err and 'Traceback' not in err


def test_the_demonstration_backbone_is_named(folder, tmp_path, capsys):
    assert main(['map', str(folder / 'a.png'), '-o', str(tmp_path / 'map.png'), '--backbone', 'demo']) == 0
    assert 'not the published metric' in capsys.readouterr().err
