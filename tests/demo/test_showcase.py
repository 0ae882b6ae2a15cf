"""The demonstration's table and figure are those of the metric."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from maclip_pyiqa.backbone import NOTE
from maclip_pyiqa.demo.showcase import SHOWN, draw, run, steps, table


@pytest.mark.slow
def test_numbers_are_the_metrics(metric, clean, analyze, scores, tmp_path):
    rows = run(clean[-1], tmp_path / 'new' / 'folder')
    with open(tmp_path / 'new' / 'folder' / 'demo.csv', newline='') as file:
        written = list(csv.DictReader(file))
    assert list(rows[0]) == ['degradation', 'step', *metric.summary_columns]
    assert [
        {k: v if isinstance(v, (str, int)) else pytest.approx(v, abs=1e-5) for k, v in row.items()} for row in rows
    ] == [
        {k: v if k == 'degradation' else int(v) if k == 'step' else float(v) for k, v in row.items()} for row in written
    ]
    want = analyze(clean[-1:])[0].summary()
    assert {name: rows[0][name] for name in want} == pytest.approx(want, abs=1e-5)
    worst = SHOWN['JPEG'](clean[-1], 1.0, np.random.default_rng(0))
    row = next(row for row in rows if row['degradation'] == 'JPEG' and row['step'] == 3)
    assert row['score'] == pytest.approx(float(scores([worst])), abs=1e-5)


def test_steps_are_of_one_size(clean):
    images = steps(clean[0].resize((1280, 960)))
    assert {image.size for row in images.values() for image in row} == {(640, 480)}
    assert list(images) == list(SHOWN) and all(len(row) == 4 for row in images.values())


def test_the_figure_shows_the_table(clean, analyze):
    images = steps(clean[0].resize((96, 72)))
    analyses = {kind: analyze(row) for kind, row in images.items()}
    rows = table(analyses)
    figure = draw(images, analyses)
    assert NOTE in figure.get_suptitle()
    titles = [axes.get_title() for axes in figure.axes]
    for row in rows:
        name = 'original' if row['step'] == 0 else f'{row["degradation"]} {row["step"]}'
        assert f'{name}: {row["score"]:.3f}' in titles
    curves = next(axes for axes in figure.axes if axes.get_title() == 'score and cues, noise')
    noise = [row for row in rows if row['degradation'] == 'noise']
    for line, name in zip(curves.lines, ('score', 'q_sim', 'q_mag'), strict=True):
        assert line.get_ydata() == pytest.approx([row[name] for row in noise])
        assert max(line.get_ydata()) <= curves.get_ylim()[1]


@pytest.mark.parametrize(
    'size', [(30, 40), *(pytest.param(size, marks=pytest.mark.slow) for size in ((4000, 300), (1, 1)))]
)
def test_photos_of_other_sizes(size, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    assert len(run(Image.fromarray(pixels), tmp_path)) == 16
    assert Image.open(tmp_path / 'demo.png').width > 1000


def test_names_need_no_heavy_imports():
    code = """if True:
        import sys
        from maclip_pyiqa.backbone import NOTE
        from maclip_pyiqa.demo import PHOTO
        assert PHOTO.is_file() and 'not the published metric' in NOTE
        assert not {'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)
    """
    subprocess.run([sys.executable, '-c', code], check=True)
