"""`maclip-pyiqa score`, as a user runs it: tables, standard output, resuming, interruptions, wrong use."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from maclip_pyiqa import MACLIP
from maclip_pyiqa.cli import main
from maclip_pyiqa.scoring import batch, pillow
from maclip_pyiqa.scoring.flags import find_flags
from maclip_pyiqa.scoring.formats import TABLES, read_label, read_table
from maclip_pyiqa.scoring.read import read_image, read_pixels

LAST = ['width', 'height', 'flags', 'error']
SKIPPED = 'maclip-pyiqa: left out, image formats that are not read: 1 .nef\n'  # in `folder`
ATTRIBUTES = ['attribute_good', 'attribute_sharp', 'attribute_edges', 'attribute_resolution', 'attribute_noise-free']


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


# --- output -----------------------------------------------------------------------------------------------------------


def test_options_of_the_metric(run, folder, tiny):
    options = ('--option', 'stride=20', '--option', 'alpha=2')
    code, out, _ = run(folder / 'a.png', '--max-views', '2', '--prompts', 'sharp', *options)
    some = MACLIP(backbone=tiny, max_views=2, prompts='sharp', stride=20, alpha=2)([read_image(folder / 'a.png')])
    assert code == 0 and float(out.split('\t')[1]) == pytest.approx(some.item(), abs=1e-5)


@pytest.mark.parametrize('workers', [0, 2])
def test_plain_lines_are_the_scores_of_the_metric(run, folder, tiny_metric, workers, workers_at_once):
    code, out, err = run(folder, workers=workers)
    assert code == 0 and err == SKIPPED
    lines = [line.split('\t') for line in out.splitlines()]
    assert [path for path, _ in lines] == [str(folder / name) for name in ('a.png', 'b.jpg', 'sub/c.png')]
    want = tiny_metric([read_image(path) for path, _ in lines])[:, 0].tolist()
    assert [float(score) for _, score in lines] == pytest.approx(want, abs=1e-5)


def test_tables_of_all_formats_hold_the_same(run, folder, tmp_path, tiny_metric):
    (folder / '0.png').write_bytes(b'broken')
    outputs = [tmp_path / f'o{suffix}' for suffix in TABLES]
    args = [arg for output in outputs for arg in ('-o', output)]
    code, out, _ = run(folder, *args, '--details', '--metrics', 'piqe, entropy')
    assert (code, out) == (1, '')
    from pyiqa import create_metric

    others = {name: create_metric(name, device='cpu') for name in ('piqe', 'entropy')}
    tables = [read_table(output) for output in outputs]
    assert len(tables[0]) == 4 and all(table == tables[0] for table in tables)
    for row in tables[0]:
        assert list(row) == ['path', 'score', 'q_sim', 'q_mag', 'w_sim', *ATTRIBUTES, 'piqe', 'entropy', *LAST]
    assert tables[0][0] == dict.fromkeys(tables[0][0]) | {
        'path': str(folder / '0.png'),
        'error': 'not an image, or in a format that Pillow does not read',
    }
    for row in tables[0][1:]:
        image = read_image(row['path'])
        want = tiny_metric.analyze([image])[0].summary()
        want |= {name: float(other(image[None])) for name, other in others.items()}
        assert {name: row[name] for name in want} == pytest.approx(want, abs=1e-5, rel=1e-5)
        assert row['error'] == ''
        assert (row['height'], row['width']) == image.shape[1:] and row['flags'] == find_flags(
            read_pixels(row['path']), 64
        )
    for output in outputs:
        label = read_label(output)
        assert label['fingerprint'] == tiny_metric.fingerprint() and label['config'] == tiny_metric.config
    assert sorted(os.listdir(tmp_path)) == [
        'o.csv',
        'o.csv.meta.json',
        'o.jsonl',
        'o.jsonl.meta.json',
        'o.parquet',
        'photos',
    ]


def test_formats_of_standard_output(run, folder, tmp_path):
    names = ['a.png', 'b.jpg', 'c.png']
    code, out, _ = run(folder, '--format', 'jsonl')
    assert code == 0 and [Path(json.loads(line)['path']).name for line in out.splitlines()] == names
    code, out, _ = run(folder, '--format', 'csv', '-o', '-', '-o', tmp_path / 'o.jsonl')
    assert code == 0 and [Path(row['path']).name for row in read_csv(out)] == names
    assert [row['error'] for row in read_csv(out)] == ['', '', '']
    assert [row['path'] for row in read_table(tmp_path / 'o.jsonl')] == [row['path'] for row in read_csv(out)]
    code, out, _ = run(folder, '-o', tmp_path / 'o.csv', '-o', '-')
    assert code == 0 and [Path(line.split('\t')[0]).name for line in out.splitlines()] == names


def test_details_of_plain_lines_name_their_columns(run, folder):
    code, out, err = run(folder / 'a.png', '--details', '--prompts', 'sharp')
    assert code == 0 and 'columns: path, score, q_sim, q_mag, w_sim, attribute_sharp\n' in err
    assert len(out.strip().split('\t')) == 6


@pytest.mark.parametrize('output', [('--format', 'csv'), ('-o', 'o.csv'), ('-o', 'o.parquet')])
def test_sort(run, folder, tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    (folder / '0.png').write_bytes(b'')
    code, out, _ = run(folder, *output, '--sort')
    rows = read_csv(out) if out else read_table(output[1])
    scores = [float(row['score']) for row in rows[:-1]]
    assert code == 1 and len(rows) == 4 and scores == sorted(scores, reverse=True)
    assert not rows[-1]['score'] and rows[-1]['error']


def test_prompts_with_the_names_of_columns(run, folder, tmp_path, tiny):
    """A prompt called `score` once overwrote the score."""
    prompts = tmp_path / 'prompts.yml'
    names = ('score', 'path', 'error', 'q_sim', 'entropy')
    prompts.write_text(''.join(f'- [{name}, no {name}]\n' for name in names))
    metric = MACLIP(backbone=tiny, prompts=prompts)
    want = metric.analyze([read_image(folder / 'a.png')])[0].summary()
    code, out, _ = run(folder / 'a.png', '--prompts', prompts)
    assert code == 0 and float(out.split('\t')[1]) == pytest.approx(want['score'], abs=1e-5)
    output = tmp_path / 'o.csv'
    code, _, _ = run(folder / 'a.png', '--prompts', prompts, '--details', '--metrics', 'entropy', '-o', output)
    (row,) = read_table(output)
    assert code == 0 and row['path'] == str(folder / 'a.png') and row['error'] == ''
    assert {name: row[name] for name in want} == pytest.approx(want, abs=1e-5)
    assert list(row) == ['path', *metric.summary_columns, 'entropy', *LAST] and row['entropy'] > 1


# --- percentiles ------------------------------------------------------------------------------------------------------


@pytest.fixture
def reference(run, folder, tmp_path):
    """Scores of b.jpg and c.png, and of a file that failed."""
    (tmp_path / 'bad.png').write_bytes(b'broken')
    path = tmp_path / 'before' / 'reference.csv'
    path.parent.mkdir()
    run(folder / 'b.jpg', folder / 'sub', tmp_path / 'bad.png', '-o', path)
    return path


def percentiles(rows, reference):
    """Of rows by a loop over the scores of a reference."""
    known = [row['score'] for row in read_table(reference) if row['score'] is not None]
    scores = [row['score'] and round(row['score'], 6) for row in rows]
    return [None if s is None else round(100 * sum(k < s for k in known) / len(known), 6) for s in scores]


def test_percentiles_of_a_reference(run, folder, tmp_path, reference):
    (folder / '0.png').write_bytes(b'broken')
    outputs = [tmp_path / f'o{suffix}' for suffix in (*TABLES, '.html')]
    args = [arg for output in outputs for arg in ('-o', output)]
    code, out, err = run(folder, *args, '-o', '-', '--reference', reference)
    tables = [read_table(output) for output in outputs[:-1]]
    assert code == 1 and all(table == tables[0] for table in tables)
    assert list(tables[0][0]) == ['path', 'score', 'percentile', *LAST]
    found = [row['percentile'] for row in tables[0]]
    assert found == percentiles(tables[0], reference) and found[0] is None and {*found[1:]} <= {0, 50, 100}
    lines = [line.split('\t') for line in out.splitlines()]
    assert [float(line[2]) for line in lines] == found[1:] and 'columns: path, score, percentile\n' in err
    for output in outputs[:-1]:
        about = read_label(output)['reference']
        assert about['path'] == str(reference) and about['images'] == 2 and len(about['digest']) == 16
    page = outputs[-1].read_text()
    assert f'4 images, 1 of them without a score; percentiles among the 2 images of {reference}<' in page
    code, out, _ = run(folder / 'a.png', '--reference', reference, '--details', '--format', 'csv')
    assert list(read_csv(out)[0])[:4] == ['path', 'score', 'percentile', 'q_sim'] and code == 0


@pytest.mark.parametrize('suffix', TABLES)
def test_a_resumed_table_has_percentiles_of_one_reference(run, folder, tmp_path, reference, suffix):
    table, page, other = tmp_path / f'o{suffix}', tmp_path / 'o.html', tmp_path / 'before' / 'all.csv'
    assert run(folder, '-o', other)[0] == 0
    assert run(folder / 'a.png', folder / 'b.jpg', tmp_path / 'bad.png', '-o', table, '--reference', reference)[0] == 1
    assert [row['percentile'] for row in read_table(table)] == percentiles(read_table(table), reference)
    assert run(folder, '-o', table, '-o', page, '--reference', other, '--resume')[0] == 0
    rows = read_table(table)
    assert [row['percentile'] for row in rows] == percentiles(rows, other) != percentiles(rows, reference)
    assert len(rows) == 4 and read_label(table)['reference']['path'] == str(other) and str(other) in page.read_text()
    content = table.read_bytes()
    code, _, err = run(folder, '-o', table, '--resume')  # its new rows would have none
    assert code == 2 and 'its columns are path, score, percentile' in err and table.read_bytes() == content
    assert run(folder / 'a.png', '-o', tmp_path / 'p.csv')[0] == 0
    code, _, err = run(folder, '-o', tmp_path / 'p.csv', '--resume', '--reference', other)
    assert code == 2 and 'expected path, score, percentile' in err


def test_an_interrupted_run_has_percentiles_of_one_reference(run, folder, tmp_path, reference, monkeypatch):
    import pyiqa

    table, other = tmp_path / 'o.csv', tmp_path / 'before' / 'all.csv'
    assert run(folder, '-o', other)[0] == 0
    monkeypatch.setattr(pyiqa, 'create_metric', lambda name, device: lambda x: x.mean())
    assert run(folder / 'a.png', '-o', table, '--reference', reference, '--metrics', 'niqe')[0] == 0

    def metric(x):
        raise KeyboardInterrupt

    monkeypatch.setattr(pyiqa, 'create_metric', lambda name, device: metric)
    assert run(folder, '-o', table, '--reference', other, '--metrics', 'niqe', '--resume')[0] == 130
    (row,) = read_table(table)
    assert [row['percentile']] == percentiles([row], other) != percentiles([row], reference)
    assert read_label(table)['reference']['path'] == str(other)


def test_a_reference_of_another_metric_is_refused_before_anything_is_scored(run, folder, tmp_path, reference, read):
    table = tmp_path / 'o.csv'
    table.write_text('precious')
    read.clear()
    code, out, err = run(folder, '-o', table, '--reference', reference, '--prompts', 'sharp')
    assert code == 2 and 'cannot be the reference: its scores are from another metric; prompts was' in err
    (tmp_path / 'before' / 'reference.csv.meta.json').unlink()
    code, out, err = run(folder, '-o', table, '--reference', reference)
    assert code == 2 and 'there is no label that says which metric' in err
    for path, message in ((table, 'would be among the scores of --reference'), (tmp_path / 'none.csv', 'No such file')):
        code, out, err = run(folder, '-o', table, '--reference', path)
        assert code == 2 and message in err
    (tmp_path / 'failed.csv').write_text('path,score,error\na,,no\n')
    code, out, err = run(folder, '-o', table, '--reference', tmp_path / 'failed.csv')
    assert code == 2 and 'no image in it has a score' in err
    assert not read and out == '' and table.read_text() == 'precious'


# --- files that fail --------------------------------------------------------------------------------------------------


def test_bad_files_are_reported_and_the_rest_is_scored(run, folder, tmp_path):
    data = (folder / 'a.png').read_bytes()
    (folder / 'a1-truncated.png').write_bytes(data[: len(data) // 2])
    (folder / 'a2-empty.jpg').write_bytes(b'')
    (folder / 'a3-text.jpg').write_text('not an image')
    Image.new('RGB', (1, 30000)).save(folder / 'a4-thin.png')
    missing = tmp_path / 'missing.png'
    code, out, err = run(missing, folder, folder / 'notes.txt', tmp_path / 'gone', '-o', tmp_path / 'o.csv')
    assert code == 1 and out == ''
    rows = read_table(tmp_path / 'o.csv')
    names = [Path(row['path']).name for row in rows]
    bad = ['missing.png', 'a1-truncated.png', 'a2-empty.jpg', 'a3-text.jpg', 'a4-thin.png', 'notes.txt', 'gone']
    assert names == [bad[0], 'a.png', *bad[1:5], 'b.jpg', 'c.png', *bad[5:]]
    assert [name for name, row in zip(names, rows, strict=True) if row['error']] == bad
    assert all((row['score'] is None) == bool(row['error']) for row in rows)
    for name in bad:
        assert sum(name in line for line in err.splitlines()) == 1
    assert 'No such file' in rows[0]['error'] and 'truncated' in rows[2]['error']
    assert '30000x1' in rows[5]['error']
    assert '7 of 10 images failed' in err
    code, out, _ = run(folder)  # plain lines hold scores only
    assert code == 1 and len(out.splitlines()) == 3


@pytest.mark.slow
def test_named_pipes_never_block(run, folder, tmp_path):
    """One in a folder is skipped; one that is named itself gets a row with an error. Opening it would wait for ever."""
    named = tmp_path / 'named.png'
    for pipe in (named, folder / 'in-folder.png', folder / 'sub' / 'in-folder'):
        os.mkfifo(pipe)
    command = [sys.executable, '-m', 'maclip_pyiqa', 'score', '--backbone', 'demo', '--workers', '0', '--format', 'csv']
    done = subprocess.run([*command, named, folder], capture_output=True, text=True, timeout=120)
    rows = read_csv(done.stdout)
    assert done.returncode == 1 and [Path(row['path']).name for row in rows] == ['named.png', 'a.png', 'b.jpg', 'c.png']
    assert 'a named pipe' in rows[0]['error'] and not rows[0]['score'] and all(row['score'] for row in rows[1:])


def test_folders_that_cannot_be_read_are_reported(run, folder, monkeypatch):
    scandir = os.scandir

    def closed(path):
        if str(path).endswith('sub'):
            raise PermissionError(13, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', closed)
    code, out, err = run(folder)
    assert code == 1 and len(out.splitlines()) == 2 and f'{folder}/sub: Permission denied' in err


def test_a_metric_that_fails_leaves_the_score(run, folder, tmp_path, monkeypatch):
    import pyiqa

    def metric(x):
        print('a metric that prints')
        if x.shape[-1] == 70:
            raise AssertionError('too small')
        return x.mean() if x.shape[-1] == 80 else torch.tensor(float('nan'))

    monkeypatch.setattr(pyiqa, 'create_metric', lambda name, device: metric)
    code, out, err = run(folder, '-o', tmp_path / 'o.csv', '--metrics', 'niqe')
    first, second, third = read_table(tmp_path / 'o.csv')
    assert code == 1 and out == '' and first['score'] and second['score'] and third['score']
    assert (first['niqe'], first['error']) == (None, 'niqe: too small') and 'niqe: too small' in err
    assert second['niqe'] and not second['error']
    assert (third['niqe'], third['error']) == (None, 'niqe is not a finite number')


def test_an_image_that_does_not_fit_into_memory(run, folder, monkeypatch):
    analyze = MACLIP.analyze

    def tight(self, images):
        if any(image.shape[-1] == 80 for image in images):
            raise RuntimeError('out of memory')
        return analyze(self, images)

    monkeypatch.setattr(MACLIP, 'analyze', tight)
    code, out, err = run(folder)
    assert code == 1 and len(out.splitlines()) == 2 and 'b.jpg: out of memory' in err


@pytest.fixture
def hostile(tmp_path, folder) -> Path:
    """A folder of images with names of all kinds."""
    names = ['with space.png', 'new\nline, "quoted"\r.png', 'tab\t\\back.png', 'Öl-漢字.png', 'bytes\udcff\udcfe.png']
    root = tmp_path / 'names'
    root.mkdir()
    for name in names:
        (root / name).write_bytes((folder / 'a.png').read_bytes())
    return root


def test_names_of_all_kinds_survive(run, hostile, tmp_path):
    paths = sorted(map(str, hostile.iterdir()))
    outputs = [tmp_path / f'o{suffix}' for suffix in TABLES]
    args = [arg for output in outputs for arg in ('-o', output)]
    for resume in ([], ['--resume']):
        assert run(hostile, *args, *resume)[0] == 0
        for output in outputs:
            assert [row['path'] for row in read_table(output)] == paths


@pytest.mark.slow
def test_names_of_all_kinds_are_printed(hostile, tiny):
    paths = sorted(map(str, hostile.iterdir()))
    command = [sys.executable, '-m', 'maclip_pyiqa', 'score', hostile, '--backbone', tiny, '--workers', '0']
    lines = [os.fsdecode(line) for line in subprocess.run(command, capture_output=True, check=True).stdout.splitlines()]
    assert len(lines) == len(paths)
    plain = [line.split('\t')[0] for line in lines]
    assert plain == [
        p.replace('\\', '\\\\').replace('\t', '\\t').replace('\n', '\\n').replace('\r', '\\r') for p in paths
    ]


def test_a_list_on_standard_input(run, folder, monkeypatch):
    listing = io.TextIOWrapper(io.BytesIO(os.fsencode(f'{folder}/sub/c.png\n{folder}/a.png\n')))
    monkeypatch.setattr(sys, 'stdin', listing)
    code, out, _ = run('-')
    assert code == 0 and [line.split('\t')[0] for line in out.splitlines()] == [
        *(f'{folder}/sub/c.png', f'{folder}/a.png')
    ]


@pytest.mark.parametrize(
    ('data', 'options'),
    [
        ('\ufeff{a}\r\n{c}\r\n'.encode(), []),
        ('{a}\n{c}\n'.encode('utf-16'), []),
        (b'{a}\0{c}\0', []),
        (b'{a}\0{c}', ['-0']),
        (b'{a}\0{c}', ['--null']),
    ],
)
def test_lists_of_other_programs(run, folder, monkeypatch, data, options):
    names = [str(folder / name) for name in ('a.png', 'sub/c.png')]
    encoding = 'utf-16' if data.startswith(b'\xff\xfe') else 'utf-8'
    data = data.decode(encoding).format(a=names[0], c=names[1]).encode(encoding)
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(data)))
    code, out, _ = run('-', *options)
    assert code == 0 and [line.split('\t')[0] for line in out.splitlines()] == names


def test_one_name_in_a_list_of_nul(run, folder, monkeypatch):
    name = folder / 'two\nlines.png'
    (folder / 'a.png').rename(name)
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(os.fsencode(name))))
    assert run('-', '-0')[:2][0] == 0


# --- one file, one row ------------------------------------------------------------------------------------------------


def test_the_same_folder_spelled_otherwise_is_resumed(run, folder, tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'door').symlink_to(folder)
    assert run('photos', '-o', 'o.csv')[0] == 0
    rows, _ = read_table('o.csv'), read.clear()
    for spelling in ('./photos', folder, 'photos/', 'photos/../photos', 'photos/**/*.*', 'door'):
        assert run(spelling, '--resume', '-o', 'o.csv')[0] == 0
        assert read_table('o.csv') == rows and not read
    Image.new('RGB', (64, 64)).save(folder / 'sub' / 'd.png')
    assert run('./photos', 'door', '--resume', '-o', 'o.csv')[0] == 0 and read == ['d.png']
    assert [row['path'] for row in read_table('o.csv')] == [*(row['path'] for row in rows), './photos/sub/d.png']


def test_failed_rows_of_other_paths_stay(run, folder, tmp_path):
    (tmp_path / 'bad.png').write_bytes(b'no image')
    assert run(tmp_path / 'bad.png', folder / 'a.png', '-o', tmp_path / 'o.csv')[0] == 1
    assert run(folder / 'b.jpg', '--resume', '-o', tmp_path / 'o.csv')[0] == 0
    rows = read_table(tmp_path / 'o.csv')
    assert [os.path.basename(row['path']) for row in rows] == ['bad.png', 'a.png', 'b.jpg'] and rows[0]['error']
    Image.new('RGB', (64, 64)).save(tmp_path / 'bad.png')
    assert run(tmp_path / 'bad.png', '--resume', '-o', tmp_path / 'o.csv')[0] == 0
    rows = read_table(tmp_path / 'o.csv')
    assert len(rows) == 3 and all(row['score'] is not None for row in rows)


@pytest.mark.parametrize('suffix', ['.csv', '.jsonl'])
def test_cells_of_ones_own_stay_as_they_stand(run, folder, tmp_path, suffix):
    path = tmp_path / f'o{suffix}'
    assert run(folder / 'a.png', folder / 'b.jpg', '-o', path)[0] == 0
    own = {'what': ('None', 'NA'), 'psnr': ('inf', '30'), 'version': ('1.10', '1.20'), 'big': ('1e5', '2e7')}
    lines = path.read_text().splitlines()
    if suffix == '.csv':
        lines[0] += ',' + ','.join(own)
        lines[1:] = [line + ',' + ','.join(cells[i] for cells in own.values()) for i, line in enumerate(lines[1:])]
    else:
        lines = [json.dumps(json.loads(line) | {k: v[i] for k, v in own.items()}) for i, line in enumerate(lines)]
    path.write_text('\n'.join(lines) + '\n')
    assert run(folder / 'sub' / 'c.png', '--resume', '-o', path)[0] == 0
    text = path.read_text().splitlines()
    assert text[: len(lines)] == lines and len(text) == len(lines) + 1


def test_rows_of_one_file_are_told(run, folder, tmp_path):
    path = tmp_path / 'o.csv'
    assert run(folder / 'a.png', '-o', path)[0] == 0
    path.write_text(path.read_text() + path.read_text().splitlines()[1].replace('0.', '0.1', 1) + '\n')
    code, _, err = run(folder / 'a.png', '--resume', '-o', path)
    assert code == 0 and '1 rows of files that have a row already; the first of each file is kept' in err


def test_tables_that_would_be_lost_are_refused(run, folder, tmp_path):
    path = tmp_path / 'o.jsonl'
    assert run(folder / 'a.png', '-o', path)[0] == 0
    path.write_text(json.dumps([json.loads(path.read_text())]))  # an array instead of lines
    code, _, err = run(folder / 'b.jpg', '--resume', '-o', path)
    assert code == 2 and 'expected an object' in err
    path = tmp_path / 'o.parquet'
    assert run(folder / 'a.png', '-o', path)[0] == 0
    table = pyarrow.parquet.read_table(path).append_column('hash', pyarrow.array([2**64 - 1], pyarrow.uint64()))
    pyarrow.parquet.write_table(table, path)
    code, _, err = run(folder / 'b.jpg', '--resume', '-o', path)
    assert code == 2 and 'expected text or numbers in hash' in err and not list(tmp_path.glob('*.journal*'))


def test_a_journal_older_than_the_table_is_not_used(run, folder, tmp_path):
    path = tmp_path / 'o.parquet'
    assert run(folder / 'a.png', '-o', path)[0] == 0
    (tmp_path / 'o.parquet.journal.jsonl').write_text('{"path": "old.png", "score": 1.0, "error": ""}\n')
    os.utime(tmp_path / 'o.parquet.journal.jsonl', (0, 0))
    assert [row['path'] for row in read_table(path)] == [str(folder / 'a.png')]


def test_paths_that_overlap_give_one_row(run, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    code, out, err = run('a.png', './a.png', '*.png', '.', folder)
    assert code == 0 and [line.split('\t')[0] for line in out.splitlines()] == ['a.png', './b.jpg', './sub/c.png']
    assert 'left out, other paths of files that are there already' in err


@pytest.mark.slow
def test_what_a_run_writes_into_the_folder_is_no_image_of_the_next(run, folder):
    def paths():
        return [line.split('\t')[0] for line in run(folder)[1].splitlines()]

    want = paths()
    outputs = ['-o', folder / 'page.html', '-o', folder / 'sub' / 'o.csv', '--maps', folder]
    assert run(folder, *outputs)[0] == 0 and (folder / 'a.png.png').exists() and paths() == want
    assert run(folder, '--maps', folder / 'maps')[0] == 0 and paths() == want
    assert run(folder / 'a.png', '-o', folder / 'map.png', command='map')[0] == 0 and paths() == want


# --- what is no image -------------------------------------------------------------------------------------------------


def test_images_that_are_not_read_are_said(run, folder, monkeypatch):
    monkeypatch.setattr(pillow, 'of_plugins', set)
    for name in ('a.HEIC', 'sub/b.heic', 'c.jxl', 'd.CR3'):
        (folder / name).write_bytes(b'?')
    code, out, err = run(folder)
    assert code == 0 and len(out.splitlines()) == 3
    assert "left out, image formats that are not read: 1 .cr3, 2 .heic, 1 .jxl, 1 .nef; pip install 'maclip" in err


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('x.tar', 'a tar archive; `maclip-pyiqa score-collection'),
        ('x.parquet', 'a Parquet file; `maclip-pyiqa score-collection'),
        ('x.csv', '`maclip-pyiqa report`, `filter` and `compare`'),
        ('https://example.com/a.jpg', 'a URL; `maclip-pyiqa score-collection'),
        ('s3://bucket/train.tar', 'a URL'),
        ('empty.jpg', 'the file is empty'),
    ],
)
def test_signposts(run, tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    if '://' not in name:
        Path(name).write_bytes(b'' if name == 'empty.jpg' else b'something else')
    for command in ('score', 'map'):
        code, out, err = run(name, *(['-o', 'map.png'] if command == 'map' else []), command=command)
        assert code == 1 and not out and f'{name}: ' in err and said in err


def test_large_images(run, folder):
    code, out, err = run(folder, '--max-pixels', '4000')
    assert code == 1 and len(out.splitlines()) == 1
    assert 'a.png: the image of 70x90 pixels is larger than 4,000 pixels; raise max_pixels (--max-pixels)' in err
    code, _, err = run(folder / 'a.png', '-o', folder / 'm.png', '--max-pixels', '4000', command='map')
    assert code == 1 and 'is larger than 4,000 pixels' in err


# --- maps -------------------------------------------------------------------------------------------------------------


def test_maps(run, folder, tmp_path):
    code, _, _ = run(folder, '--maps', tmp_path / 'maps')
    maps = sorted(str(p.relative_to(tmp_path / 'maps')) for p in (tmp_path / 'maps').rglob('*.*'))
    assert code == 0 and maps == ['a.png.png', 'b.jpg.png', 'sub/c.png.png']
    for name in maps:
        assert np.asarray(Image.open(tmp_path / 'maps' / name).convert('L')).std() > 5


def test_maps_that_cannot_be_written_are_errors_of_their_rows(run, folder, tmp_path):
    (tmp_path / 'maps').write_text('a file where a folder is expected')
    code, _, err = run(folder / 'a.png', '--maps', tmp_path / 'maps', '-o', tmp_path / 'o.csv')
    (row,) = read_table(tmp_path / 'o.csv')
    assert code == 1 and row['score'] and row['error'].startswith('map: ') and 'a.png: map: ' in err


def test_without_matplotlib(run, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    code, _, err = run(folder, '--maps', tmp_path / 'maps')
    assert code == 2 and 'maclip_pyiqa[plot]' in err


# --- resuming and interruptions ---------------------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch):
    """Names of the files that are read."""
    names, real = [], batch.read_pixels
    monkeypatch.setattr(batch, 'read_pixels', lambda path, *a: names.append(Path(path).name) or real(path, *a))
    return names


@pytest.mark.parametrize('suffix', TABLES)
def test_resume(run, folder, tmp_path, read, suffix):
    table = tmp_path / f'o{suffix}'
    good = (folder / 'b.jpg').read_bytes()
    (folder / 'b.jpg').write_bytes(b'broken')
    assert run(folder, '-o', table)[0] == 1
    before = read_table(table)
    (folder / 'b.jpg').write_bytes(good)
    (folder / 'sub' / 'd.png').write_bytes((folder / 'a.png').read_bytes())
    if suffix != '.parquet':
        with open(table, 'a') as file:  # cut off in the middle of a row
            file.write(f'{folder}/sub/d.png,0.12' if suffix == '.csv' else f'{{"path": "{folder}/sub/d.png", "sco')
    read.clear()
    code, _, err = run(folder, '-o', table, '--resume')
    assert code == 0 and err == SKIPPED and read == ['b.jpg', 'd.png']
    after = read_table(table)
    assert [Path(row['path']).name for row in after] == ['a.png', 'b.jpg', 'c.png', 'd.png']
    assert all(row['score'] and not row['error'] for row in after)
    assert after[0] == before[0] and after[2] == before[2]

    read.clear()
    code, _, _ = run(folder, '-o', table, '--resume')  # nothing left to do
    assert code == 0 and read == [] and read_table(table) == after
    content = table.read_bytes()
    code, _, err = run(folder, '-o', table, '--resume', '--details')
    assert code == 2 and 'columns' in err and table.read_bytes() == content
    code, _, err = run(folder, '-o', table, '--resume', '--prompts', 'sharp')
    assert code == 2 and 'prompts was' in err and table.read_bytes() == content


def test_resume_of_several_files(run, folder, tmp_path, read):
    first, second = tmp_path / 'o.csv', tmp_path / 'o.parquet'
    assert run(folder / 'a.png', '-o', first)[0] == 0
    assert run(folder / 'b.jpg', '-o', second)[0] == 0
    read.clear()
    code, _, _ = run(folder, '-o', first, '-o', second, '-o', tmp_path / 'o.jsonl', '--resume')
    assert code == 0 and read == ['c.png']  # finished in one is finished
    tables = [read_table(path) for path in (first, second, tmp_path / 'o.jsonl')]
    assert [Path(row['path']).name for row in tables[0]] == ['a.png', 'b.jpg', 'c.png']
    assert tables[0] == tables[1] == tables[2]


def test_resume_keeps_rows_of_other_paths(run, folder, tmp_path):
    table = tmp_path / 'o.csv'
    assert run(folder / 'sub', '-o', table)[0] == 0
    assert run(folder / 'a.png', '-o', table, '--resume')[0] == 0
    assert [Path(row['path']).name for row in read_table(table)] == ['c.png', 'a.png']


def test_a_table_is_not_touched_when_there_are_no_weights(folder, tmp_path, capsys):
    table = tmp_path / 'o.csv'
    table.write_text('precious')
    (tmp_path / 'bad.pt').write_bytes(b'no weights')
    code = main(['score', str(folder), '-o', str(table), '--pretrained', str(tmp_path / 'bad.pt')])
    assert code == 3 and 'bad.pt' in capsys.readouterr().err and table.read_text() == 'precious'


def test_a_file_that_is_no_table_is_not_resumed(run, folder, tmp_path):
    (tmp_path / 'o.csv').write_text('precious')
    code, _, err = run(folder, '-o', tmp_path / 'o.csv', '--resume')
    assert code == 2 and 'no label' in err and (tmp_path / 'o.csv').read_text() == 'precious'


@pytest.mark.parametrize(
    ('suffix', 'workers'),
    [('.csv', '1'), ('.csv', '0'), ('.parquet', '0')],
)
@pytest.mark.slow
def test_interruption_keeps_what_is_finished(tiny, folder, tmp_path, suffix, workers):
    names = [f'{i:03}.png' for i in range(300)]
    many = tmp_path / 'many'
    many.mkdir()
    for name in names:
        os.link(folder / 'a.png', many / name)
    table = tmp_path / f'o{suffix}'
    written = tmp_path / 'o.parquet.journal.jsonl' if suffix == '.parquet' else table
    args = ['score', many, '-o', table, '--backbone', tiny, '--batch', '2', '--workers', workers]
    code = """if True:
        import itertools, sys, time
        import PIL.Image
        from maclip_pyiqa import cli

        time.perf_counter = itertools.count().__next__  # a second at each look, so that workers pay
        def slowly(*args, real=PIL.Image.open, **options):  # so that the run lasts until it is interrupted
            time.sleep(0.02)
            return real(*args, **options)
        PIL.Image.open = slowly
        sys.exit(cli.main(sys.argv[1:]))
    """
    process = subprocess.Popen(
        [sys.executable, '-c', code, *map(str, args)], stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
    )  # fmt: skip
    for _ in range(1200):
        if written.exists() and written.read_bytes().count(b'\n') > 5:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C does, to the workers too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b'Traceback' not in err and b'interrupted' in err
    rows = read_table(table)
    assert 5 <= len(rows) < len(names) and all(row['score'] and row['error'] == '' for row in rows)
    assert [Path(row['path']).name for row in rows] == names[: len(rows)]
    assert not (tmp_path / 'o.parquet.journal.jsonl').exists()


@pytest.mark.parametrize('suffix', TABLES)
def test_rows_are_written_one_by_one(run, folder, tmp_path, monkeypatch, suffix):
    import pyiqa

    table, seen = tmp_path / f'o{suffix}', []

    def metric(x):  # a slow metric, interrupted at the last image of one batch
        seen.append([row['path'] for row in read_table(table)])
        if len(seen) == 3:
            raise KeyboardInterrupt
        return x.mean()

    monkeypatch.setattr(pyiqa, 'create_metric', lambda name, device: metric)
    assert run(folder, '-o', table, '--metrics', 'niqe')[0] == 130
    assert [len(paths) for paths in seen] == [0, 1, 2]
    assert len(read_table(table)) == 2


@pytest.mark.parametrize('output', [('--format', 'csv'), ('-o', 'o.csv'), ('-o', 'o.parquet')])
def test_sorted_tables_too_keep_what_is_finished(run, folder, tmp_path, monkeypatch, output):
    import pyiqa

    seen = []

    def metric(x):  # interrupted at the third image
        seen.append(x)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return x.mean()

    monkeypatch.setattr(pyiqa, 'create_metric', lambda name, device: metric)
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(folder, *output, '--sort', '--metrics', 'niqe')
    rows = read_csv(out) if out else read_table(output[1])
    assert code == 130 and len(rows) == 2 and float(rows[0]['score']) >= float(rows[1]['score'])


@pytest.mark.slow
def test_reader_that_has_enough(tiny, folder):
    command = [sys.executable, '-m', 'maclip_pyiqa', 'score', str(folder), '--backbone', tiny, '--workers', '0']
    process = subprocess.Popen([*command, '--batch', '1'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 1 and err == SKIPPED.encode()


def test_a_full_disk_is_an_error_in_one_line(run, folder, tmp_path, monkeypatch):
    (tmp_path / 'o.csv').symlink_to('/dev/full')
    code, _, err = run(folder, '-o', tmp_path / 'o.csv')
    assert code == 2 and 'cannot be written: No space left on device' in err


# --- wrong use --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ([], 'PATH'),
        (['{empty}'], 'no images'),
        (['{empty}/*.png'], 'pattern'),
        (['{a}', '--batch', '0'], 'at least 1'),
        (['{a}', '--workers', '-1'], 'at least 0'),
        (['{a}', '--metrics', 'nix'], 'nix'),
        (['{a}', '--metrics', 'psnr'], 'reference'),
        (['{a}', '--metrics', 'score'], 'share its column'),
        (['{a}', '--backbone', 'nix'], "unknown backbone 'nix'"),
        (['{a}', '--backbone', 'demo', '--pretrained', 'x.pt'], 'brings its own weights'),
        (['{a}', '--prompts', 'clipqia'], 'maclip, clipiqa, good'),
        (['{a}', '--pretrained', 'nix'], 'nix'),
        (['{a}', '--device', 'nix'], 'nix'),
        (['{a}', '-o', 'o.txt'], 'expected one of .csv, .jsonl, .parquet'),
        (['{a}', '-o', '-', '-o', '-'], 'two tables cannot be written to one place'),
        (['{a}', '-o', 'o.csv', '-o', './o.csv'], 'two tables cannot be written to one place'),
        (['{a}', '-o', 'o.csv', '--format', 'csv'], '--format is that of standard output'),
        (['{a}', '--format', 'parquet'], 'invalid choice'),
        (['{a}', '--resume'], '--resume needs -o FILE'),
        (['{a}', '--resume', '-o', '-'], '--resume needs -o FILE'),
        (['{a}', '--backbone', '{tiny}', '-o', '{empty}/no/o.csv'], 'cannot be written'),
        (['{a}', '--backbone', '{tiny}', '-o', '{empty}/no/o.parquet'], 'cannot be written'),
    ],
)
def test_wrong_use(args, message, folder, tmp_path, tiny, capsys):
    (tmp_path / 'empty').mkdir()
    values = {'a': folder / 'a.png', 'empty': tmp_path / 'empty', 'tiny': tiny}
    assert main(['score', *(arg.format(**values) for arg in args)]) == 2
    out, err = capsys.readouterr()
    assert out == '' and message in err and 'Traceback' not in err


def test_without_pyarrow(run, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    code, _, err = run(folder, '-o', 'o.parquet')
    assert code == 2 and 'maclip_pyiqa[parquet]' in err


def test_broken_weights_of_a_folder(folder, tmp_path, capsys):
    assert main(['score', str(folder), '--backbone', f'local-dir:{tmp_path}', '--workers', '0']) == 3
    out, err = capsys.readouterr()
    assert out == '' and str(tmp_path) in err


def test_a_metric_that_cannot_be_downloaded(run, folder, monkeypatch):
    import pyiqa

    def create_metric(name, device):
        print('Downloading')
        raise OSError('no network')

    monkeypatch.setattr(pyiqa, 'create_metric', create_metric)
    code, out, err = run(folder, '--metrics', 'niqe')
    assert code == 3 and out == '' and 'no network' in err


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_sets_of_prompts(run, folder, tiny, tmp_path):
    own = tmp_path / 'own.yml'
    own.write_text('- [a fine photo, a poor photo]\n')
    for prompts in ('clipiqa', str(own)):
        code, out, _ = run(folder / 'a.png', '--prompts', prompts, '--details', '--format', 'csv')
        metric = MACLIP(backbone=tiny, prompts=prompts)
        want = metric.analyze([read_image(folder / 'a.png')])[0].summary()
        (row,) = read_csv(out)
        assert code == 0 and list(row) == ['path', *want, *LAST]
        assert {name: float(row[name]) for name in want} == pytest.approx(want, abs=1e-5)


def test_the_demonstration_backbone_is_named(folder, capsys):
    assert main(['score', str(folder / 'a.png'), '--backbone', 'demo', '--workers', '0']) == 0
    assert 'not the published metric' in capsys.readouterr().err


# --- resuming tables that people edited -------------------------------------------------------------------------------


def test_resume_keeps_what_people_added_to_each_file(run, folder, tmp_path):
    import pandas as pd

    first, second, page = tmp_path / 'o.csv', tmp_path / 'o.jsonl', tmp_path / 'o.html'
    (folder / 'b.jpg').rename(tmp_path / 'b.jpg')
    (folder / 'b.jpg').write_bytes(b'broken')
    assert run(folder, '-o', first, '-o', second)[0] == 1
    frame = pd.read_csv(first).assign(caption=['a "cat"', 'b', None], id=['001', '002', '003'])
    names = ['id', 'score', 'path', 'caption', 'width', 'height', 'error']  # without flags
    frame[names].to_csv(first, sep=';', decimal=',', index=False, encoding='utf-16')
    frame = pd.read_json(second, lines=True).assign(label=[1, 2, 3], caption=['other', None, None])
    frame.to_json(second, orient='records', lines=True)
    (tmp_path / 'b.jpg').replace(folder / 'b.jpg')
    (folder / 'sub' / 'd.png').write_bytes((folder / 'a.png').read_bytes())

    code, _, err = run(folder, '-o', first, '-o', second, '-o', page, '--resume')
    assert code == 0 and f'{first}: columns of its own, empty in new rows: id, caption\n' in err
    rows, others = read_table(first), read_table(second)
    assert list(rows[0]) == [*names, 'flags'] and list(others[0])[-2:] == ['label', 'caption']
    assert [Path(row['path']).name for row in rows] == ['a.png', 'b.jpg', 'c.png', 'd.png']
    assert [row['caption'] for row in rows] == ['a "cat"', 'b', None, None]  # b.jpg was scored again
    assert [row['id'] for row in rows] == ['001', '002', '003', None]
    assert [(row['caption'], row['label']) for row in others] == [('other', 1), (None, 2), (None, 3), (None, None)]
    assert [row['score'] for row in rows] == [row['score'] for row in others] and all(row['score'] for row in rows)
    assert 'a \\u0022cat\\u0022' in page.read_text() or 'a \\"cat\\"' in page.read_text()
    assert run(folder, '-o', first, '-o', second, '--resume')[0] == 0
    assert read_table(first) == rows and read_table(second) == others


def test_resume_of_a_table_without_its_last_line_break(run, folder, tmp_path):
    table = tmp_path / 'o.csv'
    assert run(folder, '-o', table)[0] == 0
    before = read_table(table)
    table.write_bytes(table.read_bytes()[:-1])
    assert run(folder, '-o', table, '--resume')[0] == 0 and read_table(table) == before


def test_a_table_for_excel(run, folder, tmp_path):
    table = tmp_path / 'o.excel.csv'
    for paths in ([folder / 'a.png'], [folder], [folder]):
        assert run(*paths, '-o', table, '--resume')[0] == 0
        content = table.read_bytes()
        assert content.startswith(b'\xef\xbb\xbfpath,score') and content.count(b'\xef\xbb\xbf') == 1
    assert len(read_table(table)) == 3
