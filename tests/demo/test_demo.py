"""The demonstration backbone: scores that mean something, and the command that shows it."""

import csv
import os
import subprocess
import sys

import numpy as np
import pyiqa
import pytest
import torch
from PIL import Image, ImageFilter

from maclip_pyiqa import MACLIP, WeightsError, backbone, cli, demo
from maclip_pyiqa.scoring.read import to_tensor


@pytest.fixture(scope='module')
def metric():
    return MACLIP(backbone='demo')


@pytest.fixture(scope='module')
def clean(photo_files):
    """Five photos that the training never saw."""
    files = [file for file in photo_files if file.parent.name == 'ref_dir']
    assert len(files) == 5
    return [Image.open(file).convert('RGB') for file in files]


def analyze(metric, images):
    with torch.inference_mode():
        return metric.analyze([to_tensor(np.array(image)) for image in images])


def scores(metric, images):
    return torch.stack([a.q.squeeze() for a in analyze(metric, images)])


@pytest.mark.parametrize('kind', demo.DEGRADATIONS)
def test_degraded_scores_below_clean(metric, clean, kind):
    rows = []
    for photo in clean:
        steps = [demo.DEGRADATIONS[kind](photo, s, np.random.default_rng(0)) for s in (0.5, 1.0)]
        rows.append(scores(metric, [photo, *steps]))
    first, middle, last = torch.stack(rows).unbind(1)
    assert (
        (first > last + 0.02).all() and (middle.mean() - last.mean() > 0.01) and (first.mean() > middle.mean() + 0.01)
    )


@pytest.mark.parametrize('radius', [3, 6])
def test_a_degradation_not_trained_on(metric, clean, radius):
    blurred = [photo.filter(ImageFilter.BoxBlur(radius)) for photo in clean]
    assert (scores(metric, clean) > scores(metric, blurred) + 0.05).all()


@pytest.mark.parametrize('half', ['left', 'right', 'upper', 'lower'])
def test_map_sees_the_blurred_half(metric, clean, half):
    mask = torch.zeros(384, 512, dtype=torch.bool)
    where = {'left': np.s_[:, :256], 'right': np.s_[:, 256:], 'upper': np.s_[:192], 'lower': np.s_[192:]}[half]
    mask[where] = True
    for photo in clean:
        pixels = np.array(photo)
        pixels[where] = np.array(photo.filter(ImageFilter.GaussianBlur(4)))[where]
        (a,) = analyze(metric, [Image.fromarray(pixels)])
        map_ = a.quality_map()[0, 0]
        assert map_[mask].mean() < map_[~mask].mean() - 0.02
        before = analyze(metric, [photo])[0].quality_map()[0, 0]
        assert (before - map_)[mask].mean() > 0.05 > abs((before - map_)[~mask].mean())


def test_attributes_react_to_their_own_degradation(metric, clean):
    def fall(kind, strength):
        degraded = [demo.DEGRADATIONS[kind](photo, strength, np.random.default_rng(0)) for photo in clean]
        means = [
            torch.stack([a.attributes.mean((0, 1)) for a in analyze(metric, i)]).mean(0) for i in (clean, degraded)
        ]
        return dict(zip(analyze(metric, clean[:1])[0].names, (means[0] - means[1]).tolist(), strict=True))

    blur, noise = fall('blur', 0.7), fall('noise', 0.7)
    assert blur['sharp'] > blur['noise-free'] + 0.1 and blur['edges'] > blur['noise-free'] + 0.1
    assert noise['noise-free'] > noise['sharp'] + 0.1
    assert blur['sharp'] > noise['sharp'] + 0.1 and noise['noise-free'] > blur['noise-free'] + 0.1


def test_by_name_and_only_by_name(metric, photos, monkeypatch, tmp_path):
    named = pyiqa.create_metric('maclip_demo', device='cpu')
    assert torch.equal(named(photos[0][None]), metric(photos[0][None]))
    for variable in ('HF_HOME', 'TORCH_HOME', 'XDG_CACHE_HOME'):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(WeightsError):
        MACLIP()


def test_assets_are_small_and_described():
    files = [file for file in backbone.DEMO.rglob('*') if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8e6
    text = (backbone.DEMO / 'README.md').read_text('utf-8')
    for word in ('not the published metric', 'licence', 'train_demo.py', 'demo_report.py'):
        assert word.lower() in text.lower()


# --- the command ------------------------------------------------------------------------------------------------------


def test_command(tmp_path):
    """Alone in a fresh process, without any network: numbers, a table, a picture, and what they are of."""
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
    assert [line.split('\t')[0] for line in done.stdout.splitlines()[1:-1]] == [row['degradation'] for row in rows]
    pixels = np.array(Image.open(tmp_path / 'out dir' / 'demo.png').convert('RGB'))
    assert min(pixels.shape[:2]) > 600
    assert all(
        part.std() > 20 for half in np.vsplit(pixels[: len(pixels) // 2 * 2], 2) for part in np.array_split(half, 2, 1)
    )


def test_numbers_are_the_metrics(metric, clean, tmp_path):
    clean[1].save(tmp_path / 'my photo.png')
    assert cli.main(['demo', str(tmp_path / 'my photo.png'), '-o', str(tmp_path)]) == 0
    with open(tmp_path / 'demo.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    (a,) = analyze(metric, clean[1:2])
    for name in ('q_sim', 'q_mag', 'w_sim'):
        assert float(rows[0][name]) == pytest.approx(float(getattr(a, name).mean()), abs=2e-6)
    assert float(rows[0]['score']) == pytest.approx(float(a.q), abs=2e-6)
    assert float(rows[0]['sharp']) == pytest.approx(float(a.attributes[..., a.names.index('sharp')].mean()), abs=2e-6)
    worst = demo.SHOWN['JPEG'](clean[1], 1.0, np.random.default_rng(0))
    row = next(row for row in rows if row['degradation'] == 'JPEG' and row['step'] == '3')
    assert float(row['score']) == pytest.approx(float(scores(metric, [worst])), abs=2e-6)


@pytest.mark.parametrize('size', [(4000, 300), (30, 40), (1, 1)])
def test_photos_of_other_sizes(size, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    assert cli.main(['demo', str(tmp_path / 'a.png'), '-o', str(tmp_path / 'out')]) == 0


def test_wrong_use(tmp_path, capsys):
    assert cli.main(['demo', str(tmp_path / 'none.png'), '-o', str(tmp_path)]) == 1
    assert 'none.png' in capsys.readouterr().err
    (tmp_path / 'file').write_text('')
    assert cli.main(['demo', '-o', str(tmp_path / 'file')]) == 2
    assert str(tmp_path / 'file') in capsys.readouterr().err


def test_other_commands_say_what_it_is(clean, tmp_path, capsys):
    clean[0].save(tmp_path / 'a.png')
    assert cli.main(['score', str(tmp_path / 'a.png'), '--backbone', 'demo', '--workers', '0']) == 0
    assert 'not the published metric' in capsys.readouterr().err
    assert cli.main(['map', str(tmp_path / 'a.png'), '-o', str(tmp_path / 'map.png'), '--backbone', 'demo']) == 0
    assert 'not the published metric' in capsys.readouterr().err
    assert cli.main(['score', str(tmp_path / 'a.png'), '--backbone', 'demo', '--pretrained', 'x.pt']) == 2
    assert 'brings its own weights' in capsys.readouterr().err
    assert cli.main(['weights', '--backbone', 'demo']) == 2
    assert 'brings its own weights' in capsys.readouterr().err


def test_plot_has_the_note(metric, clean):
    from maclip_pyiqa.report.figures import plot_analysis

    (a,) = analyze(metric, clean[:1])
    figure = plot_analysis(to_tensor(np.array(clean[0])), a, note=demo.NOTE)
    assert [part.get_supxlabel() for part in figure.subfigs][1] == demo.NOTE
    figure.canvas.draw()
    assert not any(part.get_supxlabel() for part in plot_analysis(to_tensor(np.array(clean[0])), a).subfigs)


# --- degradations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', demo.SHOWN | demo.DEGRADATIONS)
def test_degradations(clean, kind):
    function = (demo.SHOWN | demo.DEGRADATIONS)[kind]
    error = []
    for strength in (0.0, 0.5, 1.0):
        images = [function(clean[0], strength, np.random.default_rng(3)) for _ in range(2)]
        assert images[0].size == clean[0].size and images[0].mode == 'RGB'
        assert np.array_equal(images[0], images[1])
        error.append(np.square(np.array(images[0], float) - np.array(clean[0], float)).mean())
    assert 0 < error[0] < error[1] < error[2]


def test_half_blur_leaves_the_left(clean):
    half = np.array(demo.half_blur(clean[0], 1.0, np.random.default_rng(0)))
    assert np.array_equal(half[:, :256], np.array(clean[0])[:, :256])
    assert np.array_equal(half[:, 256:], np.array(demo.blur(clean[0], 1.0, np.random.default_rng(0)))[:, 256:])
