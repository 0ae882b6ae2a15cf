"""score_files: rows in order, one an image, whatever is wrong with some of them."""

import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from maclip_pyiqa import MACLIP, score_files
from maclip_pyiqa.scoring import batch
from maclip_pyiqa.scoring.read import read_image, to_tensor
from maclip_pyiqa.scoring.score import score_read


@pytest.fixture
def files(tmp_path, photos):
    """a.png, b.jpg and c.png: small photos of three sizes."""
    paths = []
    for photo, name, size in zip(photos, ('a.png', 'b.jpg', 'c.png'), ((90, 70), (64, 80), (40, 50)), strict=False):
        pixels = (photo[:, : size[0], : size[1]].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        paths.append(str(tmp_path / name))
    return paths


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('size', [1, 16])
def test_rows_are_summaries_in_order(tiny_metric, files, workers, size, workers_at_once):
    rows = list(score_files(tiny_metric, files[::-1], batch=size, workers=workers))
    assert [row['path'] for row in rows] == files[::-1]
    for row in rows:
        want = tiny_metric.analyze([read_image(row['path'])])[0].summary()
        assert list(row) == ['path', *tiny_metric.summary_columns, 'width', 'height', 'flags', 'error']
        assert row['error'] == '' and (row['width'], row['height']) == Image.open(row['path']).size
        assert {name: row[name] for name in want} == pytest.approx(want, abs=1e-5)


def test_rows_come_one_by_one(tiny_metric, files, monkeypatch):
    read, real = [], batch.read_pixels
    monkeypatch.setattr(batch, 'read_pixels', lambda path: read.append(path) or real(path))
    rows = score_files(tiny_metric, (path for path in files), batch=1)
    assert read == []
    assert next(rows)['path'] == files[0] and len(read) <= 2
    assert not torch.is_inference_mode_enabled()  # the caller's own code is not affected
    assert [row['path'] for row in rows] == files[1:]
    assert list(score_files(tiny_metric, [])) == []


def test_images_are_let_go_before_others_are_read(tiny_metric, files):
    scored, alive = [], []

    def read():
        for path in files:
            alive.append([image for ref in scored if (image := ref()) is not None])
            yield batch.read_file(path)

    rows = score_read(tiny_metric, read(), batch=1, each=lambda row, image, _: scored.append(weakref.ref(image)))
    assert len(list(rows)) == len(files) == len(alive)
    assert scored and not any(alive)


def test_files_that_cannot_be_read_are_rows(tiny_metric, files, tmp_path):
    (tmp_path / 'text.jpg').write_text('not an image')
    os.mkfifo(tmp_path / 'pipe.png')
    bad = [str(tmp_path / name) for name in ('missing.png', 'text.jpg', 'pipe.png')]
    # a reader that waits for the pipe would wait for ever
    rows, thread = (
        [],
        threading.Thread(
            target=lambda: rows.extend(score_files(tiny_metric, [bad[0], files[0], *bad[1:], files[1]])), daemon=True
        ),
    )
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert [bool(row['error']) for row in rows] == [True, False, True, True, False]
    none = dict.fromkeys(('score', 'width', 'height', 'flags'))
    assert rows[0] == {'path': bad[0], **none, 'error': 'No such file or directory'}
    assert 'not an image' in rows[2]['error'] and 'a named pipe' in rows[3]['error']


def test_a_shape_that_is_refused_fails_alone(tiny_metric, files, tmp_path):
    thin = str(tmp_path / 'thin.png')
    Image.new('RGB', (1, 3000)).save(thin)
    first, refused, last = score_files(tiny_metric, [files[0], thin, files[1]])
    assert (refused['width'], refused['height'], refused['flags']) == (1, 3000, 'flat enlarged clipped')
    assert refused['score'] is None and '3000x1' in refused['error'] and not refused['error'].startswith('image')
    for row, alone in zip((first, last), score_files(tiny_metric, files[:2]), strict=True):
        assert row['score'] == pytest.approx(alone['score'], abs=1e-5) and row['error'] == ''


def test_an_image_that_does_not_fit_into_memory_fails_alone(tiny_metric, files, monkeypatch):
    analyze = MACLIP.analyze

    def tight(self, images):
        if any(image.shape[-1] == 80 for image in images):
            raise RuntimeError('out of memory')
        return analyze(self, images)

    monkeypatch.setattr(MACLIP, 'analyze', tight)
    assert [row['error'] for row in score_files(tiny_metric, files)] == ['', 'out of memory', '']


@pytest.mark.parametrize('error', [RuntimeError, MemoryError])
def test_an_image_that_does_not_fit_as_a_tensor_fails_alone(tiny_metric, files, monkeypatch, error):
    def tight(pixels):
        if pixels.shape[1] == 80:
            raise error('out of memory')
        return to_tensor(pixels)

    expected = list(score_files(tiny_metric, files))
    monkeypatch.setattr('maclip_pyiqa.scoring.score.to_tensor', tight)
    first, failed, last = score_files(tiny_metric, files)
    assert failed['error'] == 'out of memory' and failed['score'] is None and failed['width'] == 80
    for row, alone in ((first, expected[0]), (last, expected[2])):
        assert row['error'] == '' and row['score'] == pytest.approx(alone['score'], abs=1e-5)


@pytest.mark.parametrize('workers', [0, 1])
def test_flags_of_rows(tiny_metric, files, tmp_path, workers, workers_at_once):
    flat = str(tmp_path / 'flat.png')
    Image.new('RGB', (80, 70), 'grey').save(flat)
    rows = list(score_files(tiny_metric, [*files, flat], workers=workers))
    assert [row['flags'] for row in rows] == ['', '', 'flat enlarged', 'flat']  # the window is 64, c.png is 50x40
    assert all(row['score'] is not None for row in rows)


def test_other_metrics_beside_it(tiny_metric, files):
    def other(x):
        assert x.shape[:2] == (1, 3)
        if x.shape[-1] == 70:
            raise AssertionError('too small')
        return x.mean() if x.shape[-1] == 80 else torch.tensor(float('nan'))

    first, second, third = score_files(tiny_metric, files, others={'other': other, 'constant': lambda x: torch.ones(1)})
    assert (first['other'], first['error']) == (None, 'other: too small')
    assert (third['other'], third['error']) == (None, 'other is not a finite number')
    assert second['other'] == pytest.approx(float(read_image(files[1]).mean())) and second['error'] == ''
    assert all(row['score'] is not None and row['constant'] == 1 for row in (first, second, third))
    last = ['width', 'height', 'flags', 'error']
    assert list(first) == ['path', *tiny_metric.summary_columns, 'other', 'constant', *last]
    with pytest.raises(ValueError, match="metric named 'score'"):
        score_files(tiny_metric, files, others={'score': other})  # before the first row is asked for


def test_prompts_with_the_names_of_columns(tiny, files):
    names = ('score', 'path', 'error', 'q_sim', 'niqe', 'attribute_score')
    metric = MACLIP(backbone=tiny, prompts=[(name, 'no ' + name) for name in names])
    (row,) = score_files(metric, files[:1], others={'niqe': lambda x: 7.0})
    analysis = metric.analyze([read_image(files[0])])[0]
    assert row['path'] == files[0] and row['error'] == '' and row['niqe'] == 7
    assert row['score'] == pytest.approx(float(analysis.q), abs=1e-5)
    assert row['q_sim'] == pytest.approx(float(analysis.q_sim.mean()), abs=1e-5)
    assert len([column for column in row if column.startswith('attribute_')]) == len(names)


def test_each_gets_the_image_and_the_analysis(tiny_metric, files, tmp_path):
    seen = []

    def each(row, image, analysis):
        seen.append(row['path'])
        assert torch.equal(image, read_image(row['path']))
        assert float(analysis.q) == row['score'] and analysis.size == image.shape[1:]
        if row['path'] == files[1]:
            raise OSError(28, 'No space left on device')

    missing = str(tmp_path / 'missing.png')
    rows = list(score_files(tiny_metric, [files[0], missing, files[1]], each=each))
    assert seen == files[:2]  # of what was scored
    assert [row['error'] for row in rows] == ['', 'No such file or directory', 'No space left on device']
    assert rows[2]['score'] is not None


def test_batch_and_workers_out_of_range(tiny_metric, files):
    for wrong in ({'batch': 0}, {'workers': -1}):
        with pytest.raises(ValueError, match='expected at least'):
            score_files(tiny_metric, files, **wrong)


@pytest.mark.parametrize('workers', [0, 1])
def test_the_random_state_is_kept(tiny_metric, files, workers, workers_at_once):
    before = torch.get_rng_state()
    list(score_files(tiny_metric, files, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_workers_end_with_the_reader(tiny, files):
    code = """if True:
        import itertools, multiprocessing, sys, time
        from maclip_pyiqa import MACLIP, score_files
        time.perf_counter = itertools.count().__next__  # a second at each look, so that workers pay
        rows = score_files(MACLIP(backbone=sys.argv[1]), sys.argv[2:] * 20, batch=1, workers=2)
        next(rows), next(rows)
        assert multiprocessing.active_children()
        rows.close()
        del rows
        assert not multiprocessing.active_children()
    """
    subprocess.run([sys.executable, '-c', code, tiny, *files], check=True, timeout=120)
