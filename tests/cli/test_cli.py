"""The command line, as a user runs it, on files of all kinds made with Pillow; and reading of images."""

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

import maclip_pyiqa
from maclip_pyiqa import cli, weights
from maclip_pyiqa.scoring.read import read_image

RED, WHITE = [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]


def pixel(path, y, x):
    return read_image(path)[:, y, x].tolist()


def read_csv(path):
    with open(path, newline='', encoding='utf-8', errors='surrogateescape') as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path, photos):
    """Small photos: a.png, b.jpg and sub/c.png, and what else is in folders."""
    root = tmp_path / 'photos'
    (root / 'sub').mkdir(parents=True)
    for photo, name, size in zip(photos, ('a.png', 'b.jpg', 'sub/c.png'), ((90, 70), (64, 80), (40, 50)), strict=False):
        pixels = (photo[:, : size[0], : size[1]].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(root / name)
    (root / 'notes.txt').write_text('no image')
    (root / 'README').write_text('no image')
    (root / '.hidden.png').write_bytes((root / 'a.png').read_bytes())
    (root / '.cache').mkdir()
    (root / '.cache' / 'd.png').write_bytes((root / 'a.png').read_bytes())
    (root / 'raw.nef').write_bytes((root / 'a.png').read_bytes())
    return root


@pytest.fixture
def run(tiny, capsys):
    """Runs `score`; -> exit code, standard output, standard error."""

    def run(*args, command='score', workers=0):
        extra = ['--backbone', tiny] + (['--workers', str(workers)] if command == 'score' else [])
        code = cli.main([command, *map(str, args), *extra])
        return code, *capsys.readouterr()

    return run


def test_version(capsys):
    assert cli.main(['--version']) == 0
    assert capsys.readouterr().out.strip() == maclip_pyiqa.__version__


def test_details_without_a_table_name_their_columns(run, folder):
    code, out, err = run(folder / 'a.png', '--details', '--prompts', 'sharp')
    assert code == 0 and 'columns: path, score, q_sim, q_mag, w_sim, sharp' in err
    assert len(out.strip().split('\t')) == 6


def test_an_unknown_map_is_not_the_files_fault(run, folder, tmp_path):
    code, _, err = run(folder / 'a.png', '-o', tmp_path / 'a.png', '--of', 'sharpness', command='map')
    assert code == 2 and '--of: a map is of one of q, ' in err and 'a.png' not in err


# --- reading images ----------------------------------------------------------------------------------------------


def test_reading_is_exact(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    image = read_image(tmp_path / 'a.png')
    assert image.shape == (3, 5, 7) and image.dtype == torch.float32 and image.is_contiguous()
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), pixels.astype(np.float32) / 255)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    image = Image.new('RGB', (40, 20))
    image.paste((255, 0, 0), (0, 0, 8, 8))  # the first corner of the data
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / 'a.png', exif=exif)
    got = read_image(tmp_path / 'a.png')
    # where EXIF's table says that row 0 and column 0 of the data are
    row, column = {1: 'TL', 2: 'TR', 3: 'BR', 4: 'BL', 5: 'LT', 6: 'RT', 7: 'RB', 8: 'LB'}[orientation]
    assert got.shape == ((3, 20, 40) if orientation < 5 else (3, 40, 20))
    y = 0 if 'T' in row + column else -1
    x = 0 if 'L' in row + column else -1
    assert got[:, y, x].tolist() == RED
    assert got[0].sum() == 64


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.pgm'])
def test_16_bit_grey_keeps_its_bits(tmp_path, name):
    values = np.array([[0, 1, 256, 65535], [40000, 40001, 12345, 2]], np.uint16)
    if name == 'a.pgm':
        (tmp_path / name).write_bytes(b'P5 4 2 65535\n' + values.astype('>u2').tobytes())
    else:
        Image.fromarray(values).save(tmp_path / name)
    want = np.broadcast_to(values / 65535, (3, 2, 4))
    np.testing.assert_allclose(read_image(tmp_path / name), want, atol=1e-7)


def test_float_images(tmp_path):
    Image.fromarray(np.array([[0, 0.25, 1]], np.float32)).save(tmp_path / 'a.tif')
    assert read_image(tmp_path / 'a.tif')[1].tolist() == [[0, 0.25, 1]]
    for i, wrong in enumerate((255, -0.5, float('nan'))):
        Image.fromarray(np.array([[0, wrong]], np.float32)).save(tmp_path / f'{i}.tif')
        with pytest.raises(ValueError, match=r'not \[0, 1\]'):
            read_image(tmp_path / f'{i}.tif')


def test_transparency_is_composited_on_white(tmp_path):
    image = Image.new('RGBA', (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 51))  # a fifth black
    image.save(tmp_path / 'a.png')
    assert [pixel(tmp_path / 'a.png', 0, x) for x in (0, 1)] == [RED, WHITE]
    assert pixel(tmp_path / 'a.png', 0, 2) == pytest.approx([0.8] * 3, abs=0.003)
    Image.new('LA', (1, 1), (0, 51)).save(tmp_path / 'grey.png')
    assert pixel(tmp_path / 'grey.png', 0, 0) == pytest.approx([0.8] * 3, abs=0.003)
    Image.new('RGB', (1, 1), (1, 2, 3)).save(tmp_path / 'key.png', transparency=(1, 2, 3))
    assert pixel(tmp_path / 'key.png', 0, 0) == WHITE


@pytest.mark.parametrize('name', ['a.png', 'a.gif'])
def test_palette_with_and_without_transparency(tmp_path, name):
    image = Image.new('P', (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / name)
    assert [pixel(tmp_path / name, 0, x) for x in (0, 1)] == [RED, [0.0, 0.0, 1.0]]
    image.save(tmp_path / name, transparency=1)
    assert [pixel(tmp_path / name, 0, x) for x in (0, 1)] == [RED, WHITE]


def test_cmyk_grey_and_bilevel(tmp_path):
    Image.new('CMYK', (8, 8), (0, 255, 255, 0)).save(tmp_path / 'a.jpg', quality=100)
    assert pixel(tmp_path / 'a.jpg', 4, 4) == pytest.approx(RED, abs=0.02)
    Image.new('L', (2, 2), 51).save(tmp_path / 'l.png')
    assert pixel(tmp_path / 'l.png', 0, 0) == pytest.approx([0.2] * 3)
    Image.new('1', (2, 2), 1).save(tmp_path / '1.png')
    assert pixel(tmp_path / '1.png', 0, 0) == WHITE


@pytest.mark.parametrize('name', ['a.gif', 'a.png', 'a.webp', 'a.tif'])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue', 'lime')]
    options = {} if name == 'a.tif' else {'duration': 50}
    options |= {'lossless': True} if name == 'a.webp' else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(tmp_path / name), 'n_frames', 1) == 3
    assert pixel(tmp_path / name, 0, 0) == pytest.approx(RED, abs=0.01)


@pytest.mark.parametrize('format', ['png', 'jpg', 'bmp', 'gif', 'tif', 'webp'])
def test_truncated_files_are_errors_and_never_half_an_image(tmp_path, photos, format, monkeypatch):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)  # as pyiqa's data sets do
    path = tmp_path / f'a.{format}'
    Image.fromarray((photos[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(path)
    data = path.read_bytes()
    for size in (len(data) // 2, 60, 10, 0):
        path.write_bytes(data[:size])
        with pytest.raises(OSError):
            read_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


# --- finding images ----------------------------------------------------------------------------------------------


def test_files_of_folders_patterns_and_lists(folder):
    a, b, c = (str(folder / name) for name in ('a.png', 'b.jpg', 'sub/c.png'))
    assert cli.find_images([str(folder)]) == [a, b, c]
    assert cli.find_images([c, str(folder), a]) == [c, a, b]  # each once
    assert cli.find_images([str(folder / '*')]) == [a, b, c]
    assert cli.find_images([str(folder / '**' / '*.png')]) == [a, c]
    assert cli.find_images([str(folder / 'notes.txt'), '/none.png']) == [str(folder / 'notes.txt'), '/none.png']
    listed = io.BytesIO(os.fsencode(f'{c}\r\n\n{a}\n{folder}/no\udcff.png'))
    assert cli.find_images(['-'], listed) == [c, a, f'{folder}/no\udcff.png']
    (folder / 'hash0123').write_bytes(Path(a).read_bytes())  # no suffix: judged by its content
    assert cli.find_images([str(folder)]) == [a, b, str(folder / 'hash0123'), c]
    (folder / 'x[1].png').write_bytes(Path(a).read_bytes())  # looks like a pattern
    assert cli.find_images([str(folder / 'x[1].png')]) == [str(folder / 'x[1].png')]


def test_folders_that_cannot_be_read_are_reported(run, folder, monkeypatch):
    scandir = os.scandir

    def closed(path):
        if str(path).endswith('sub'):
            raise PermissionError(13, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', closed)
    code, out, err = run(folder)
    assert code == 1 and len(out.splitlines()) == 2 and f'{folder}/sub: ' in err


def test_groups_are_bounded():
    def item(pixels):
        return 'x', None if pixels is None else np.empty((1, pixels, 3), np.uint8), ''

    sizes = [10, 10, 10, cli.GROUP_PIXELS, 5, None, 5, cli.GROUP_PIXELS * 2, None]
    groups = list(cli._groups([item(size) for size in sizes], batch=2))
    flat = [i for group in groups for i in group]
    assert [None if i[1] is None else i[1].shape[1] for i in flat] == sizes
    for group in groups:
        pixels = [i[1].shape[1] for i in group if i[1] is not None]
        assert len(group) <= 2 and (sum(pixels) <= cli.GROUP_PIXELS or len(pixels) == 1)


# --- score -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('workers', [0, 2])
def test_plain_lines_are_the_scores_of_the_metric(run, folder, tiny_metric, workers):
    code, out, err = run(folder, workers=workers)
    assert code == 0 and err == ''
    lines = [line.split('\t') for line in out.splitlines()]
    assert [path for path, _ in lines] == [str(folder / name) for name in ('a.png', 'b.jpg', 'sub/c.png')]
    want = tiny_metric([read_image(path) for path, _ in lines])[:, 0].tolist()
    assert [float(score) for _, score in lines] == pytest.approx(want, abs=2e-6)


def test_csv_json_and_details(run, folder, tmp_path, tiny_metric):
    table, lines = tmp_path / 'o.csv', tmp_path / 'o.json'
    code, out, _ = run(folder, '--csv', table, '--json', lines, '--details', '--metrics', 'piqe, entropy')
    assert (code, out) == (0, '')
    rows, objects = read_csv(table), [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) == len(objects) == 3
    from pyiqa import create_metric

    others = {name: create_metric(name, device='cpu') for name in ('piqe', 'entropy')}
    for row, line in zip(rows, objects, strict=True):
        assert (
            list(row)
            == list(line)
            == [
                *('path', 'score', 'q_sim', 'q_mag', 'w_sim', 'good', 'sharp', 'edges', 'resolution', 'noise-free'),
                *('piqe', 'entropy', 'error'),
            ]
        )
        image = read_image(row['path'])
        analysis = tiny_metric.analyze([image])[0]
        want = {name: getattr(analysis, name).mean() for name in ('q_sim', 'q_mag', 'w_sim')} | {'score': analysis.q}
        want |= dict(zip(analysis.names, analysis.attributes.mean((0, 1)), strict=True))
        want |= {name: other(image[None]) for name, other in others.items()}
        for name, value in want.items():
            assert float(row[name]) == line[name] == pytest.approx(float(value), abs=1e-5, rel=1e-5)
        assert row['error'] == line['error'] == ''


def test_json_and_csv_on_standard_output(run, folder):
    code, out, _ = run(folder, '--json', '-')
    assert code == 0 and [Path(json.loads(line)['path']).name for line in out.splitlines()] == [
        *('a.png', 'b.jpg', 'c.png')
    ]
    code, out, _ = run(folder, '--csv', '-')
    assert code == 0 and [row['error'] for row in csv.DictReader(io.StringIO(out))] == ['', '', '']


@pytest.mark.parametrize('target', ['-', 'file'])
def test_sort(run, folder, tmp_path, target):
    (folder / '0.png').write_bytes(b'')
    target = target if target == '-' else tmp_path / 'o.csv'
    code, out, _ = run(folder, '--csv', target, '--sort')
    rows = list(csv.DictReader(io.StringIO(out))) if target == '-' else read_csv(target)
    scores = [float(row['score']) for row in rows[:-1]]
    assert code == 1 and len(rows) == 4 and scores == sorted(scores, reverse=True)
    assert rows[-1]['score'] == '' and rows[-1]['error']


def test_bad_files_are_reported_and_the_rest_goes_on(run, folder, tmp_path):
    data = (folder / 'a.png').read_bytes()
    (folder / 'a1-truncated.png').write_bytes(data[: len(data) // 2])
    (folder / 'a2-empty.jpg').write_bytes(b'')
    (folder / 'a3-text.jpg').write_text('no image')
    missing = tmp_path / 'missing.png'
    code, out, err = run(missing, folder, folder / 'notes.txt', tmp_path / 'gone', '--csv', tmp_path / 'o.csv')
    assert code == 1 and out == ''
    rows = read_csv(tmp_path / 'o.csv')
    names = [Path(row['path']).name for row in rows]
    bad = ['missing.png', 'a1-truncated.png', 'a2-empty.jpg', 'a3-text.jpg', 'notes.txt', 'gone']
    assert names == [bad[0], 'a.png', *bad[1:4], 'b.jpg', 'c.png', *bad[4:]]
    assert [name for name, row in zip(names, rows, strict=True) if row['error']] == bad
    assert all(bool(row['score']) != bool(row['error']) for row in rows)
    for name in bad:
        assert sum(name in line for line in err.splitlines()) == 1
    assert 'No such file' in rows[0]['error'] and 'truncated' in rows[2]['error']
    assert '6 of 9 images failed' in err
    code, out, _ = run(folder)  # plain lines hold scores only
    assert code == 1 and len(out.splitlines()) == 3


def test_a_metric_that_fails_leaves_the_score(run, folder, tmp_path, monkeypatch):
    import pyiqa

    def metric(x):
        if x.shape[-1] == 70:
            raise AssertionError('too small')
        return x.mean() if x.shape[-1] == 80 else torch.tensor(float('nan'))

    monkeypatch.setattr(pyiqa, 'create_metric', lambda name, device: metric)
    code, _, err = run(folder, '--csv', tmp_path / 'o.csv', '--metrics', 'niqe')
    first, second, third = read_csv(tmp_path / 'o.csv')
    assert code == 1 and first['score'] and second['score'] and third['score']
    assert (first['niqe'], first['error']) == ('', 'niqe: too small') and 'niqe: too small' in err
    assert second['niqe'] and not second['error']
    assert (third['niqe'], third['error']) == ('', 'niqe is not a finite number')


def test_an_image_that_does_not_fit_into_memory(run, folder, monkeypatch):
    from maclip_pyiqa import MACLIP

    analyze = MACLIP.analyze

    def tight(self, images):
        if any(image.shape[-1] == 80 for image in images):
            raise RuntimeError('out of memory')
        return analyze(self, images)

    monkeypatch.setattr(MACLIP, 'analyze', tight)
    code, out, err = run(folder)
    assert code == 1 and len(out.splitlines()) == 2 and 'b.jpg: out of memory' in err


def test_names_of_all_kinds_survive(run, folder, tmp_path, tiny):
    names = ['with space.png', 'new\nline, "quoted"\r.png', 'tab\t\\back.png', 'Öl-漢字.png', 'bytes\udcff\udcfe.png']
    root = tmp_path / 'names'
    root.mkdir()
    for name in names:
        (root / name).write_bytes((folder / 'a.png').read_bytes())
    paths = sorted(str(root / name) for name in names)
    code, _, _ = run(root, '--csv', tmp_path / 'o.csv', '--json', tmp_path / 'o.json')
    assert code == 0
    assert [row['path'] for row in read_csv(tmp_path / 'o.csv')] == paths
    assert [json.loads(line)['path'] for line in (tmp_path / 'o.json').read_text().splitlines()] == paths
    code, _, _ = run(root, '--csv', tmp_path / 'o.csv', '--resume')
    assert code == 0 and [row['path'] for row in read_csv(tmp_path / 'o.csv')] == paths
    command = [sys.executable, '-m', 'maclip_pyiqa', 'score', root, '--backbone', tiny, '--workers', '0']
    lines = [os.fsdecode(line) for line in subprocess.run(command, capture_output=True, check=True).stdout.splitlines()]
    assert len(lines) == len(names)
    plain = [line.split('\t')[0] for line in lines]
    assert plain == [
        p.replace('\\', '\\\\').replace('\t', '\\t').replace('\n', '\\n').replace('\r', '\\r') for p in paths
    ]


def test_maps(run, folder, tmp_path):
    code, _, _ = run(folder, '--maps', tmp_path / 'maps')
    maps = sorted(str(p.relative_to(tmp_path / 'maps')) for p in (tmp_path / 'maps').rglob('*.*'))
    assert code == 0 and maps == ['a.png.png', 'b.jpg.png', 'sub/c.png.png']
    for name in maps:
        assert np.asarray(Image.open(tmp_path / 'maps' / name).convert('L')).std() > 5


# --- resuming and interrupting -----------------------------------------------------------------------------------


def test_resume(run, folder, tmp_path, monkeypatch):
    table = tmp_path / 'o.csv'
    good = (folder / 'b.jpg').read_bytes()
    (folder / 'b.jpg').write_bytes(b'broken')
    assert run(folder, '--csv', table)[0] == 1
    before = read_csv(table)
    (folder / 'b.jpg').write_bytes(good)
    (folder / 'sub' / 'd.png').write_bytes((folder / 'a.png').read_bytes())
    with open(table, 'a') as file:
        file.write(f'{folder}/sub/d.png,0.12')  # cut off in the middle of a row
    read = []
    plain = cli._Files.__getitem__
    monkeypatch.setattr(cli._Files, '__getitem__', lambda self, i: read.append(self.paths[i]) or plain(self, i))
    code, _, err = run(folder, '--csv', table, '--resume')
    assert code == 0 and err == ''
    assert [Path(path).name for path in read] == ['b.jpg', 'd.png']
    after = read_csv(table)
    assert [Path(row['path']).name for row in after] == ['a.png', 'b.jpg', 'c.png', 'd.png']
    assert all(row['score'] and not row['error'] for row in after)
    assert after[0] == before[0] and after[2] == before[2]

    read.clear()
    code, _, _ = run(folder, '--csv', table, '--resume')  # nothing left to do
    assert code == 0 and read == [] and read_csv(table) == after
    content = table.read_bytes()
    code, _, err = run(folder, '--csv', table, '--resume', '--details')
    assert code == 2 and 'columns' in err and table.read_bytes() == content
    code, _, err = run(folder, '--resume')
    assert code == 2 and '--csv' in err


def test_a_table_is_not_touched_when_there_are_no_weights(folder, tmp_path, capsys):
    table = tmp_path / 'o.csv'
    table.write_text('precious')
    (tmp_path / 'bad.pt').write_bytes(b'no weights')
    code = cli.main(['score', str(folder), '--csv', str(table), '--pretrained', str(tmp_path / 'bad.pt')])
    assert code == 3 and 'bad.pt' in capsys.readouterr().err and table.read_text() == 'precious'


def test_a_stream_is_not_replaced_by_a_file(run, folder):
    assert run(folder, '--csv', '/dev/null', '--sort')[0] == 0
    assert not os.path.isfile('/dev/null')


@pytest.mark.parametrize('workers', ['0', '1'])
def test_interruption_keeps_what_is_finished(tiny, folder, tmp_path, workers):
    names = [f'{i:04}.png' for i in range(4000)]
    many = tmp_path / 'many'
    many.mkdir()
    for name in names:
        os.link(folder / 'a.png', many / name)
    table = tmp_path / 'o.csv'
    args = ['score', many, '--csv', table, '--backbone', tiny, '--batch', '2', '--workers', workers]
    process = subprocess.Popen(
        [sys.executable, '-m', 'maclip_pyiqa', *map(str, args)], stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
    )  # fmt: skip
    for _ in range(600):
        if table.exists() and table.read_bytes().count(b'\n') > 5:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does, to the workers too
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert b'Traceback' not in err and b'interrupted' in err
    rows = read_csv(table)
    assert 5 <= len(rows) < 4000 and all(row['score'] and row['error'] == '' for row in rows)
    assert [Path(row['path']).name for row in rows] == names[: len(rows)]


def test_rows_are_written_one_by_one(run, folder, tmp_path, monkeypatch):
    import pyiqa

    table, seen = tmp_path / 'o.csv', []

    def metric(x):  # a slow metric, interrupted at the last image of one batch
        seen.append([row['path'] for row in read_csv(table)])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return x.mean()

    monkeypatch.setattr(pyiqa, 'create_metric', lambda name, device: metric)
    assert run(folder, '--csv', table, '--metrics', 'niqe')[0] == 130
    assert [len(paths) for paths in seen] == [0, 1, 2]
    assert len(read_csv(table)) == 2


@pytest.mark.parametrize('target', ['-', 'file'])
def test_sorted_tables_too_keep_what_is_finished(run, folder, tmp_path, monkeypatch, target):
    analyze = cli._Scorer._row

    def row(self, path, *args):
        if path.endswith('c.png'):
            raise KeyboardInterrupt
        return analyze(self, path, *args)

    monkeypatch.setattr(cli._Scorer, '_row', row)
    target = target if target == '-' else tmp_path / 'o.csv'
    code, out, _ = run(folder, '--csv', target, '--sort')
    rows = list(csv.DictReader(io.StringIO(out))) if target == '-' else read_csv(target)
    assert code == 130 and len(rows) == 2 and float(rows[0]['score']) >= float(rows[1]['score'])


# --- wrong use, help, the other commands -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ([], 'COMMAND'),
        (['score'], 'PATH'),
        (['score', '{empty}'], 'no images'),
        (['score', '{empty}/*.png'], 'pattern'),
        (['score', '{a}', '--batch', '0'], 'at least 1'),
        (['score', '{a}', '--workers', '-1'], 'at least 0'),
        (['score', '{a}', '--metrics', 'nix'], 'nix'),
        (['score', '{a}', '--metrics', 'psnr'], 'reference'),
        (['score', '{a}', '--backbone', 'nix'], 'nix'),
        (['score', '{a}', '--pretrained', 'nix'], 'nix'),
        (['score', '{a}', '--device', 'nix'], 'nix'),
        (['score', '{a}', '--csv', '-', '--json', '-'], 'only one'),
        (['score', '{a}', '--backbone', '{tiny}', '--csv', '{empty}/no/o.csv'], 'cannot be written'),
        (['map', '{a}'], '--output'),
        (['map', '{a}', '-o', '{empty}/o.png', '--backbone', '{tiny}', '--of', 'nix'], 'nix'),
        (['map', '{a}', '-o', '{empty}/o.nix', '--backbone', '{tiny}'], 'nix'),
        (['weights', '--backbone', 'nix'], 'nix'),
        (['weights', '--pretrained', 'nix'], 'nix'),
    ],
)
def test_wrong_use(args, message, folder, tmp_path, tiny, capsys):
    (tmp_path / 'empty').mkdir()
    values = {'a': folder / 'a.png', 'empty': tmp_path / 'empty', 'tiny': tiny}
    assert cli.main([arg.format(**values) for arg in args]) == 2
    out, err = capsys.readouterr()
    assert out == '' and message in err and 'Traceback' not in err


def test_without_matplotlib(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    code, _, err = run(folder, '--maps', tmp_path / 'maps')
    assert code == 2 and 'maclip_pyiqa[plot]' in err


def test_broken_weights_of_a_folder(folder, tmp_path, capsys):
    assert cli.main(['score', str(folder), '--backbone', f'local-dir:{tmp_path}', '--workers', '0']) == 3
    out, err = capsys.readouterr()
    assert out == '' and str(tmp_path) in err


def test_a_metric_that_cannot_be_fetched(run, folder, monkeypatch):
    import pyiqa

    def create_metric(name, device):
        print('Downloading')
        raise OSError('no network')

    monkeypatch.setattr(pyiqa, 'create_metric', create_metric)
    code, out, err = run(folder, '--metrics', 'niqe')
    assert code == 3 and out == '' and 'no network' in err


def test_reader_that_has_enough(tiny, folder):
    command = [sys.executable, '-m', 'maclip_pyiqa', 'score', str(folder), '--backbone', tiny, '--workers', '0']
    process = subprocess.Popen([*command, '--batch', '1'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 1 and err == b''


@pytest.mark.parametrize('command', [[], ['score'], ['map'], ['weights']])
def test_help(command, capsys):
    assert cli.main([*command, '--help']) == 0
    out = capsys.readouterr().out
    assert out.startswith('usage: maclip-pyiqa') and max(map(len, out.splitlines())) <= 120


def test_help_needs_no_heavy_imports():
    code = """if True:
        import importlib.util, sys
        spec = importlib.util.spec_from_file_location('cli', sys.argv[1])
        cli = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(cli)
        assert cli.main(['score', '--help']) == 0
        assert not {'torch', 'open_clip', 'pyiqa', 'numpy', 'PIL', 'matplotlib', 'tqdm'} & set(sys.modules)
    """
    subprocess.run([sys.executable, '-c', code, cli.__file__], check=True, stdout=subprocess.DEVNULL)


def test_map(run, folder, tmp_path, tiny_metric):
    code, out, _ = run(folder / 'a.png', '-o', tmp_path / 'new' / 'map.png', command='map')
    score = tiny_metric(read_image(folder / 'a.png')[None])
    assert code == 0 and float(out.split('\t')[1]) == pytest.approx(float(score), abs=2e-6)
    assert np.asarray(Image.open(tmp_path / 'new' / 'map.png').convert('L')).std() > 5
    code, out, err = run(folder / 'notes.txt', '-o', tmp_path / 'b.png', command='map')
    assert code == 1 and out == '' and 'notes.txt' in err and not (tmp_path / 'b.png').exists()


def test_weights(tmp_path, monkeypatch, capsys):
    """Places of OpenAI's file and of the hub's cache, with a published checksum that we can fit."""
    import huggingface_hub
    import open_clip.pretrained

    content = b'these are weights'
    digest = hashlib.sha256(content).hexdigest()
    configs = {'RN50': {'url': f'https://openaipublic.example/{digest}/RN50.pt', 'hf_hub': 'some/repo/'}}
    monkeypatch.setattr(open_clip.pretrained, 'get_pretrained_cfg', lambda name, tag: configs.get(name, {}))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(huggingface_hub, 'try_to_load_from_cache', lambda repo, name: None)
    local = tmp_path / 'clip' / 'RN50.pt'

    def listed(code):
        assert cli.main(['weights']) == code
        out, err = capsys.readouterr()
        assert bool(err) == bool(code)
        return {line.split('\t')[2]: line.split('\t')[0] for line in out.splitlines()}

    states = listed(3)
    assert states.pop(str(local)) == 'missing' and list(states.values()) == ['missing']
    local.parent.mkdir()
    local.write_bytes(content[:5])
    assert listed(3)[str(local)] == 'damaged'
    local.write_bytes(content)
    assert listed(0)[str(local)] == 'ok'
    local.unlink()

    blob = tmp_path / 'blobs' / digest  # the hub's cache names its files by their checksums
    blob.parent.mkdir()
    blob.write_bytes(content)
    cached = tmp_path / 'open_clip_model.safetensors'
    cached.symlink_to(blob)
    monkeypatch.setattr(huggingface_hub, 'try_to_load_from_cache', lambda repo, name: str(cached))
    assert listed(0)[str(cached)] == 'ok'
    blob.write_bytes(content[:5])
    assert listed(3)[str(cached)] == 'damaged'

    asked = []
    monkeypatch.setattr(weights, 'find', lambda *which: asked.append(which) or blob.write_bytes(content))
    assert cli.main(['weights', '--fetch']) == 0 and asked == [('RN50', 'openai')]
    assert cli.main(['weights', '--fetch']) == 0 and len(asked) == 1


def test_weights_that_cannot_be_fetched(monkeypatch, capsys):
    def find(name, tag):
        raise weights.WeightsError('none here, get them there')

    monkeypatch.setattr(weights, 'places', lambda name, tag: [(Path('/none'), 'missing')])
    monkeypatch.setattr(weights, 'find', find)
    assert cli.main(['weights', '--fetch']) == 3
    assert 'get them there' in capsys.readouterr().err


def test_weights_of_a_file(tmp_path, capsys):
    torch.save({'a': torch.zeros(1)}, tmp_path / 'a.pt')
    assert cli.main(['weights', '--pretrained', str(tmp_path / 'a.pt')]) == 0
    assert capsys.readouterr().out.startswith('ok\t')
    (tmp_path / 'a.pt').write_bytes(b'PK\x03\x04 cut off')
    assert cli.main(['weights', '--pretrained', str(tmp_path / 'a.pt')]) == 3
