"""Collections on Ray: the rows are those of the plain command, none is missing and none twice, whatever is killed."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import fsspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from maclip_pyiqa import MACLIP, WeightsError, score_files
from maclip_pyiqa.cli import main
from maclip_pyiqa.collections import ray as driver
from maclip_pyiqa.collections import read_manifest, score_collection
from maclip_pyiqa.collections.folder import Collection, Plan
from maclip_pyiqa.collections.inputs import Shard, cut_table, find_inputs
from maclip_pyiqa.scoring import find_images, open_scores
from maclip_pyiqa.scoring.schema import arrow_schema, columns, label
from maclip_pyiqa.testing import TINY, make_clip, save_folder

ray = pytest.importorskip('ray')
STORE = 80_000_000


@pytest.fixture(scope='module')
def folder(tmp_path_factory, photo_files) -> Path:
    """Twenty images of two sizes, one of them broken and one too long and thin."""
    root = tmp_path_factory.mktemp('collection')
    for number in range(18):
        with Image.open(photo_files[number % 10]) as photo:
            photo.crop((number, 0, 200 + number, 150 + 30 * (number % 2))).save(root / f'{number:02d}.png')
    (root / '18.png').write_bytes((root / '17.png').read_bytes()[:2000])
    Image.new('RGB', (2, 3000)).save(root / '19.png')
    return root


@pytest.fixture(scope='module')
def plain(folder, tiny) -> dict[str, dict]:
    """Rows of the plain command by the name of the image."""
    return {Path(row['path']).name: row for row in score_files(MACLIP(backbone=tiny), find_images([folder]))}


@pytest.fixture
def run(tiny, capsys):
    """Runs the command; -> exit code, standard output, standard error."""
    return lambda *args: (main(['score-collection', *map(str, args), '--backbone', tiny]), *capsys.readouterr())


def rows_of(out) -> list[dict]:
    return open_scores(out).rows()


def check(rows, plain, name=lambda row: row['path'].partition('::')[0].rpartition('/')[2]):
    """All rows, each once, and as the plain command gives them."""
    assert sorted(map(name, rows)) == sorted(plain)
    assert any(row['score'] is None for row in plain.values())
    for row in rows:
        expected = plain[name(row)]
        for key in expected.keys() - {'path'}:
            if isinstance(expected[key], float):
                assert row[key] == pytest.approx(expected[key], abs=1e-5)
            else:
                assert row[key] == expected[key], key
        assert (row['score'] is None) == (expected['score'] is None)


def write_tar(path, files, **others):
    with tarfile.open(path, 'w') as tar:
        for file in files:
            tar.add(file, file.name)
            for suffix, text in others.items():
                info = tarfile.TarInfo(f'{file.stem}.{suffix}')
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
    return str(path)


@pytest.mark.slow
def test_two_tars_and_a_resume(cluster, folder, plain, tiny, tmp_path):
    files, out = sorted(folder.iterdir()), tmp_path / 'out'
    tars = [write_tar(tmp_path / f'{n}.tar', files[10 * n : 10 * n + 10], txt=f'tar {n}') for n in range(2)]
    metric = MACLIP(backbone=tiny)
    manifest = score_collection(tars, out, metric, keep=['txt'], workers=1, progress=False)
    check(rows_of(out), plain)
    assert manifest['unmatched'] == []
    assert [row['txt'] for row in rows_of(out)].count('tar 1') == 10
    failed = sum(row['score'] is None for row in plain.values())
    assert (manifest['rows'], manifest['failed'], manifest['complete']) == (20, failed, True)
    assert manifest == read_manifest(out) and sorted(entry['source'] for entry in manifest['shards'].values()) == tars

    # what is missing is scored again, and nothing else
    first, second = sorted(out.glob('*.parquet'))
    times = first.stat().st_mtime_ns
    second.unlink()
    score_collection(tars, out, metric, keep=['txt'], workers=1, progress=False)
    check(rows_of(out), plain)
    assert first.stat().st_mtime_ns == times

    with pytest.raises(ValueError, match='max_views was None and is 4'):
        score_collection(tars, out, MACLIP(backbone=tiny, max_views=4), keep=['txt'])
    with open(tars[0], 'ab') as tar:
        tar.write(b'\0' * 512)
    with pytest.raises(ValueError, match='expected the same file'):
        score_collection(tars, out, metric, keep=['txt'])


@pytest.mark.slow
def test_a_head_goes_to_the_workers(cluster, folder, tiny, tiny_head, tmp_path, monkeypatch):
    """By a path that is relative to where the run was started."""
    shutil.copy(tiny_head, tmp_path / 'head.safetensors')
    monkeypatch.chdir(tmp_path)
    metric = MACLIP(backbone=tiny, head='head.safetensors')
    score_collection([folder], 'out', metric, progress=False)
    plain = {Path(row['path']).name: row for row in score_files(metric, find_images([folder]))}
    check(rows_of('out'), plain)
    assert open_scores('out').label['fingerprint'] == metric.fingerprint()


# --- without Ray: the task --------------------------------------------------------------------------------------------


@pytest.fixture
def score(tiny, monkeypatch):
    """Scores a shard in this process, as a task does."""
    monkeypatch.setattr(signal, 'signal', lambda *args: None)
    monkeypatch.setattr(driver, '_metrics', {})
    metric = MACLIP(backbone=tiny)
    threads = torch.get_num_threads()

    def score(shard, names=(), schema=None, **options):
        job = driver.Job(metric.config, metric.fingerprint(), os.getcwd(), 4, None, names, 0)
        return driver.score_shard(job, shard, schema or arrow_schema(columns(metric.attribute_names)), **options)

    yield score
    torch.set_num_threads(threads)


def test_a_task_scores_a_shard(score, folder, plain, tmp_path):
    shard = Shard('a', 'tar', write_tar(tmp_path / 'a.tar', sorted(folder.iterdir())))
    table, about = score(shard)
    assert about['lost'] == ''
    check(table.to_pylist(), plain)
    assert score(shard)[0] == table
    assert len(driver._metrics) == 1  # built once


def test_a_task_returns_what_lies_before_damage(score, folder, tmp_path):
    path = tmp_path / 'a.tar'
    write_tar(path, sorted(folder.iterdir()))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    table, about = score(Shard('a', 'tar', str(path)))
    assert 3 < len(table) < 17 and f'behind image {len(table)}' in about['lost']
    with pytest.raises(OSError, match='No such file or directory'):  # which Ray tries again
        score(Shard('a', 'tar', str(tmp_path / 'gone.tar')))


def test_columns_of_another_type_are_told(score, folder, tmp_path, tiny):
    table = pa.table({'path': [str(folder / '00.png')], 'n': ['one']})
    pq.write_table(table, tmp_path / 'a.parquet')
    (shard,), _ = cut_table(str(tmp_path / 'a.parquet'), 9, 9, keep=['n'])
    schema = arrow_schema([*columns(MACLIP(backbone=tiny).attribute_names), 'n'], {'n': pa.int64()})
    table, about = score(shard, ['n'], schema)
    assert about['lost'] and len(table) == 0


def test_links_and_formats_that_are_not_read_are_rows(score, folder, tmp_path):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w') as tar:
        tar.add(folder / '00.png', '0.png')
        for name, target in (('1.png', '0.png'), ('2.png', 'gone.png')):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        tar.add(folder / '00.png', '3.xcf')
        tar.add(folder / '00.png', '4.PNG')
    rows = score(Shard('a', 'tar', str(path)))[0].to_pylist()
    assert [row['score'] is None for row in rows] == [False, False, True, True, False]
    assert rows[0]['score'] == pytest.approx(rows[1]['score'], abs=1e-5)
    assert [row['error'].partition(';')[0] for row in rows[2:4]] == [
        'a link to gone.png, which is not in the tar',
        '.xcf files are not read',
    ]


def test_what_is_kept_of_tars_and_never_there_is_said(score, tiny, tmp_path, folder, run):
    """By the run that ends with it, and by each rerun, which has nothing to do."""
    keep = ('json', '.TXT', 'jsno', '__key__')
    tars = [write_tar(tmp_path / f'{n}.tar', [folder / f'0{n}.png'], **{'TXT': 'a', 'seg.json': 'b'}) for n in range(2)]
    metric, out = MACLIP(backbone=tiny), tmp_path / 'out'

    options = {'column': None, 'keep': list(keep), 'shard_rows': 2000}
    collection = Collection(out, label(metric), options)
    plan = Plan(collection, find_inputs(tars), metric.attribute_names, None, keep)
    for shard, schema in plan.shards(9, 9):
        collection.finish(shard.name, *score(shard, plan.names, schema))
    assert plan.unmatched() == ['json', 'jsno']
    collection.close()
    assert [row['.TXT'] for row in rows_of(out)] == ['a', 'a']

    assert score_collection(tars, out, metric, keep=keep)['unmatched'] == ['json', 'jsno']
    error = run(*tars, '-o', out, '--keep', ','.join(keep))[2]
    assert [line.split(':')[1].strip() for line in error.splitlines()[:-1]] == ['--keep json', '--keep jsno']


def test_wrong_use(folder, tiny, tmp_path, run):
    assert 'expected a folder' in run(folder, '-o', tmp_path / 'a.csv')[2]
    code, _, error = run(folder, '-o', f'{tmp_path}/out/', '--keep', 'a')
    assert code == 2 and 'no columns to keep' in error
    with pytest.raises(ValueError, match='retries=-1'):
        score_collection([folder], tmp_path / 'out', MACLIP(backbone=tiny), retries=-1)


GPU = {'CPU': 8.0, 'GPU': 2.0}


@pytest.mark.parametrize(
    'nodes, workers, gpus, expected',
    [
        ([{'CPU': 4.0}, {'CPU': 2.0}], None, None, (6, 1, 0.0)),
        ([{'CPU': 4.0}], 2, False, (2, 1, 0.0)),
        ([GPU, {'CPU': 64.0}], None, None, (2, 4, 1.0)),
        ([GPU], 8, None, (8, 1, 0.25)),
        ([GPU], 3, True, (3, 2, 0.5)),
        ([GPU], None, False, (8, 1, 0.0)),
        ([{'CPU': 4.0}], None, True, 'has 4 cores and 0 GPUs'),  # a task would wait for ever
        ([{'memory': 1.0}], None, None, 'has 0 cores'),
    ],
)
def test_what_a_task_asks_for(monkeypatch, nodes, workers, gpus, expected):
    monkeypatch.setattr(ray, 'nodes', lambda: [{'Alive': True, 'Resources': node} for node in nodes])
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            driver._resources(workers, gpus)
    else:
        assert driver._resources(workers, gpus) == expected


# --- with Ray ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_that_are_added_are_scored(cluster, folder, plain, tiny, tmp_path, monkeypatch):
    photos, out = tmp_path / 'photos', tmp_path / 'out'
    photos.mkdir()
    names = sorted(file.name for file in folder.iterdir())
    metric = MACLIP(backbone=tiny)
    for number, part in enumerate((names[::2], names[1::2])):
        for name in part:
            shutil.copy(folder / name, photos)
        monkeypatch.chdir([tmp_path, photos][number])  # and the same files by another path are the same files
        score_collection([['photos', '.'][number]], out, metric, shard_rows=6, progress=False)
    check(rows_of(out), plain)
    assert read_manifest(out)['complete'] and len(list(out.glob('*.parquet'))) == 4


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['paths', 'bytes', 'struct'])
def test_parquet(cluster, folder, plain, tiny, tmp_path, kind):
    files, out = sorted(folder.iterdir()), tmp_path / 'out'
    column = {
        'paths': [str(file) for file in files],
        'bytes': [file.read_bytes() for file in files],
        'struct': [{'bytes': file.read_bytes(), 'path': file.name} for file in files],
    }[kind]
    table = pa.table({'image': column, 'score': [file.name for file in files]})
    pq.write_table(table, tmp_path / 'a.parquet', row_group_size=6)
    score_collection([tmp_path / 'a.parquet'], out, MACLIP(backbone=tiny), shard_rows=7, keep=['score'], progress=False)
    rows = rows_of(out)
    check(rows, plain, lambda row: row['input_score'])
    assert len(list(out.glob('*.parquet'))) == (3 if kind == 'paths' else 4)
    assert rows[0]['path'] == (str(files[0]) if kind == 'paths' else f'{tmp_path}/a.parquet#0')


@pytest.mark.slow
def test_what_is_kept_and_never_there_is_said_by_the_run(cluster, folder, tiny, tmp_path, run):
    path = write_tar(tmp_path / 'a.tar', [folder / '00.png'], json='{}')
    code, _, error = run(path, '-o', f'{tmp_path}/out/', '--keep', 'JSON,jsno')
    assert code == 0 and '--keep jsno: no image' in error and '--keep JSON' not in error
    (row,) = rows_of(tmp_path / 'out')
    assert (row['JSON'], row['jsno']) == ('{}', None)


@pytest.mark.slow
def test_a_broken_tar_keeps_its_rows_and_is_told(cluster, folder, plain, tiny, tmp_path, capsys):
    files, out = sorted(folder.iterdir()), tmp_path / 'out'
    path = tmp_path / 'a.tar'
    whole = Path(write_tar(path, files)).read_bytes()
    with tarfile.open(path) as tar:
        cut = tar.getmember('07.png').offset_data + 100
    path.write_bytes(whole[:cut])
    options = [str(path), '-o', f'{out}/', '--backbone', tiny]
    assert main(['score-collection', *options]) == 1
    assert 'cut or broken behind image 7' in capsys.readouterr().err
    assert sorted(Path(row['path'].partition('::')[0]).name for row in rows_of(out)) == sorted(plain)[:7]
    manifest = read_manifest(out)
    assert not manifest['complete'] and 'behind image 7' in next(iter(manifest['shards'].values()))['lost']

    path.write_bytes(whole)  # a rerun reads on where the damage was
    assert main(['score-collection', *options]) == 1  # of the images that fail
    check(rows_of(out), plain)
    assert read_manifest(out)['complete']


@pytest.mark.slow
def test_inputs_that_cannot_be_opened_are_told(cluster, tiny, tmp_path, folder):
    (tmp_path / 'a.tar').write_bytes(b'not a tar' * 1000)
    pq.write_table(pa.table({'path': [str(folder / '00.png')]}), tmp_path / 'a.parquet')
    (tmp_path / 'b.parquet').write_bytes(b'not Parquet')
    inputs = [tmp_path / name for name in ('a.tar', 'b.parquet', 'a.parquet')]
    manifest = score_collection(inputs, tmp_path / 'out', MACLIP(backbone=tiny), progress=False)
    assert manifest['rows'] == 1 and not manifest['complete']
    assert [entry['lost'] != '' for entry in manifest['shards'].values()].count(True) == 1
    assert 'not a Parquet file' in next(iter(manifest['missing'].values()))['error']


@pytest.mark.slow
def test_what_a_network_does_not_give_is_missing_and_tried_again(cluster, folder, plain, tiny, tmp_path):
    """The memory that fsspec calls memory:// is the driver's own, so no worker finds what is in it."""
    path, out = write_tar(tmp_path / 'a.tar', sorted(folder.iterdir())), tmp_path / 'out'
    fs = fsspec.filesystem('memory')
    fs.pipe_file('/network/b.tar', Path(path).read_bytes())
    manifest = score_collection([path, 'memory://network/b.tar'], out, MACLIP(backbone=tiny), retries=1, progress=False)
    fs.rm('/network', recursive=True)
    check(rows_of(out), plain)
    (missing,) = manifest['missing'].values()
    assert missing['source'] == 'memory:///network/b.tar' and missing['error'] and not manifest['complete']
    manifest = score_collection([path], out, MACLIP(backbone=tiny), progress=False)
    assert manifest['complete'] and manifest['missing'] == {}


@pytest.mark.slow
def test_workers_with_other_weights_are_refused(cluster, photos, folder, tmp_path):
    """As on a machine of a cluster where another file lies in the same place."""
    metric = MACLIP(backbone=save_folder(make_clip(TINY, photos[:2]), TINY, tmp_path / 'clip'))
    save_folder(make_clip(TINY, photos[:2], seed=1), TINY, tmp_path / 'clip')
    with pytest.raises(WeightsError, match='weights differ'):
        score_collection([folder], tmp_path / 'out', metric, progress=False)


# --- real kills -------------------------------------------------------------------------------------------------------

# `maclip-pyiqa`; who runs tests in the background may ignore Ctrl-C
PROGRAM = """
import signal
import sys
from maclip_pyiqa.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""
POISON = b'POISON'
POISONED = """
import os
from PIL import Image

Image.init()
Image.register_open('POISON', lambda file, name: os.kill(os.getpid(), 9), lambda start: start.startswith(b'POISON'))
"""  # a reader that crashes, see `site`
DOOMED = """
import os
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == 'open_clip':
            os.kill(os.getpid(), 9)

if any('default_worker' in word for word in sys.orig_argv):
    sys.meta_path.insert(0, Finder())
"""  # Ray's workers die where they load the metric
CRASHES_ONCE = """
import io
import os
from PIL import Image

def crashing(file, name):
    if not os.path.exists(os.environ['CRASHED']):
        open(os.environ['CRASHED'], 'w').close()
        os.kill(os.getpid(), 9)
    file.seek(6)
    return Image.open(io.BytesIO(file.read()))

Image.init()
Image.register_open('POISON', crashing, lambda start: start.startswith(b'POISON'))
"""
SLOW = """
import time
from PIL import ImageFile

original = ImageFile.ImageFile.__init__

def slowly(*args, **options):
    time.sleep(0.1)
    original(*args, **options)

ImageFile.ImageFile.__init__ = slowly
"""  # so that a run lasts until it is killed, on a fast machine too


@pytest.fixture
def many(tmp_path, photo_files) -> Path:
    """120 images, one of them broken."""
    root = tmp_path / 'photos'
    root.mkdir()
    for number in range(119):
        os.link(photo_files[number % 10], root / f'{number:03d}.png')
    (root / '119.png').write_bytes(b'broken')
    return root


@pytest.fixture
def start(tmp_path, tiny):
    """Starts the command in a process group of its own; afterwards no process of it may be left."""
    seen: dict[int, psutil.Process] = {}
    groups = []

    def start(*args, command=None, **environment):
        command = command or [
            *(sys.executable, '-c', PROGRAM, 'score-collection', *map(str, args), '-o', f'{tmp_path}/out/'),
            *('--backbone', tiny, '--batch', '4', '--shard-rows', '20'),
        ]
        with open(tmp_path / 'err', 'a') as err:
            process = subprocess.Popen(
                command, stdout=err, stderr=err, start_new_session=True, env=os.environ | environment
            )
        groups.append(process)
        return process

    def children(process):
        try:
            found = psutil.Process(process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        seen.update({child.pid: child for child in found})
        return found

    start.children = children
    start.errors = lambda: (tmp_path / 'err').read_text()
    yield start
    for process in groups:
        children(process)
        if process.poll() is None:
            process.kill()
    end = time.monotonic() + 120  # agents of a killed driver's Ray end by themselves, after about 40
    while (left := [process for process in seen.values() if lives(process)]) and time.monotonic() < end:
        time.sleep(0.1)
    for process in left:
        process.kill()
    assert not left


def lives(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        # what has ended stays a zombie, where nobody waits for the children of those that were killed
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def site(tmp_path, code):
    """A PYTHONPATH with which all processes run this code first."""
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site/sitecustomize.py').write_text(code)
    return os.pathsep.join([str(tmp_path / 'site'), os.environ.get('PYTHONPATH', '')])


def until(condition, process, start, seconds=400):
    """Wait for a condition while a process runs; records its children."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end, start.errors()
        start.children(process)
        time.sleep(0.05)


def finished(tmp_path):
    return list((tmp_path / 'out').glob('*.parquet'))


def workers(process, start):
    names = {}
    for child in start.children(process):
        try:
            names[child.pid] = ' '.join(child.cmdline())
        except psutil.Error:  # it has ended
            continue
    return [pid for pid, name in names.items() if name.startswith('ray::score_shard')]


def complete(start, tmp_path, many, tiny, *args):
    """After a rerun all rows are there, each once, with the plain command's scores."""
    process = start(many, *args)
    until(lambda: process.poll() is not None, psutil_like(process), start)
    assert process.returncode == 1, start.errors()  # for the broken image
    plain = {Path(row['path']).name: row for row in score_files(MACLIP(backbone=tiny), find_images([many]))}
    check(rows_of(tmp_path / 'out'), plain)
    manifest = read_manifest(tmp_path / 'out')
    assert (manifest['complete'], manifest['rows'], manifest['failed']) == (True, 120, 1)


def psutil_like(process):
    """A process whose end is no failure of `until`."""

    class Ends:
        pid = process.pid

        def poll(self):
            return None

    return Ends()


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGINT])
def test_the_driver_is_killed_or_interrupted(start, many, tiny, tmp_path, how):
    process = start(many, PYTHONPATH=site(tmp_path, SLOW))
    until(lambda: finished(tmp_path), process, start)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as Ctrl-C in a terminal: to all of the group
        assert process.wait(60) == 130, start.errors()
        assert not read_manifest(tmp_path / 'out')['complete']
    else:
        process.kill()
        process.wait()
    done = len(finished(tmp_path))
    assert 0 < done < 6
    complete(start, tmp_path, many, tiny)


@pytest.mark.slow
def test_a_worker_is_killed(start, many, tiny, tmp_path):
    process = start(many, '--workers', '2', PYTHONPATH=site(tmp_path, SLOW))
    until(lambda: finished(tmp_path), process, start)
    os.kill(workers(process, start)[0], signal.SIGKILL)
    until(lambda: process.poll() is not None, psutil_like(process), start)
    assert process.returncode == 1 and read_manifest(tmp_path / 'out')['complete'], start.errors()
    complete(start, tmp_path, many, tiny)


@pytest.mark.slow
def test_the_disk_is_full(start, many, tiny, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    if os.geteuid() or subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=40k', 'tmpfs', out]).returncode:
        pytest.skip('mounting a small file system needs root')
    try:
        process = start(many)
        until(lambda: process.poll() is not None, psutil_like(process), start)
        assert process.returncode == 2 and 'No space left on device' in start.errors()
        for file in finished(tmp_path):
            pq.read_table(file)  # whole
        assert not list(out.rglob('*.part'))
        subprocess.run(['mount', '-o', 'remount,size=10m', out], check=True)
        complete(start, tmp_path, many, tiny)
    finally:
        subprocess.run(['umount', out], check=True)


@pytest.mark.slow
def test_an_image_that_kills_its_process_is_a_row_with_an_error(start, many, tiny, tmp_path):
    (many / '030.png').unlink()  # a link to a photo that others share
    (many / '030.png').write_bytes(POISON)
    process = start(many, '--retries', '0', PYTHONPATH=site(tmp_path, POISONED))
    until(lambda: process.poll() is not None, psutil_like(process), start)
    assert process.returncode == 1, start.errors()
    rows = rows_of(tmp_path / 'out')
    assert sorted(Path(row['path']).name for row in rows) == [f'{number:03d}.png' for number in range(120)]
    failed = {Path(row['path']).name: row['error'] for row in rows if row['score'] is None}
    assert failed.keys() == {'030.png', '119.png'} and 'processes died of it' in failed['030.png']
    assert read_manifest(tmp_path / 'out')['complete']


@pytest.mark.slow
def test_a_crash_that_passes_costs_no_image(start, many, tiny, tmp_path):
    """A reader that crashes once: without retries, the same images are tried again, each alone."""
    (many / '030.png').unlink()
    (many / '030.png').write_bytes(POISON + (many / '031.png').read_bytes())
    process = start(many, '--retries', '0', PYTHONPATH=site(tmp_path, CRASHES_ONCE), CRASHED=str(tmp_path / 'crashed'))
    until(lambda: process.poll() is not None, psutil_like(process), start)
    assert (tmp_path / 'crashed').exists() and process.returncode == 1, start.errors()
    rows = {Path(row['path']).name: row for row in rows_of(tmp_path / 'out')}
    assert len(rows) == 120 and [name for name, row in rows.items() if row['score'] is None] == ['119.png']
    assert rows['030.png']['score'] == pytest.approx(rows['031.png']['score'], abs=1e-5)


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_run(start, many, tmp_path):
    process = start(many, PYTHONPATH=site(tmp_path, DOOMED))
    until(lambda: process.poll() is not None, psutil_like(process), start)
    assert process.returncode == 2 and 'processes die while they build the metric' in start.errors()


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_a_node_is_killed(start, many, tiny, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv('PYTHONPATH', site(tmp_path, SLOW))  # of the nodes, which start the workers
    monkeypatch.setenv('RAY_memory_monitor_refresh_ms', '0')  # a machine short of memory is not what is tested

    options = {'num_cpus': 1, 'object_store_memory': STORE, 'include_dashboard': False}
    cluster = Cluster(initialize_head=True, head_node_args=options)
    try:
        second = cluster.add_node(num_cpus=1, object_store_memory=STORE)
        cluster.wait_for_nodes()
        process = start(many, '--address', cluster.address, '--workers', '2')
        until(lambda: len(finished(tmp_path)) >= 2, process, start)
        cluster.remove_node(second, allow_graceful=False)
        until(lambda: process.poll() is not None, psutil_like(process), start)
        assert process.returncode == 1 and read_manifest(tmp_path / 'out')['complete'], start.errors()
        complete(start, tmp_path, many, tiny, '--address', cluster.address)
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_cluster_by_the_address_of_its_client_server(start, many, tiny, tmp_path, monkeypatch):
    # a token of this cluster's own: Ray asks for one from 2.59 on
    monkeypatch.setenv('RAY_AUTH_MODE', 'token')
    monkeypatch.setenv('RAY_AUTH_TOKEN', secrets.token_hex(32))
    # the client's server may be slow to start, beside other tests, and a child that it forks may die in gRPC's handlers
    monkeypatch.setenv('GRPC_ENABLE_FORK_SUPPORT', 'false')
    monkeypatch.setenv('RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S', '300')
    port, client = free_port(), free_port()
    head = start(
        command=[
            *(sys.executable, '-m', 'ray.scripts.scripts', 'start', '--head', '--block', '--disable-usage-stats'),
            *('--num-cpus', '2', '--object-store-memory', str(STORE), '--include-dashboard', 'false'),
            *('--node-ip-address', '127.0.0.1'),
            *('--port', str(port), '--ray-client-server-port', str(client), '--temp-dir', f'/tmp/r{port}'),
        ]
    )
    try:
        until(lambda: 'Ray runtime started' in start.errors(), head, start)
        complete(start, tmp_path, many, tiny, '--address', f'ray://127.0.0.1:{client}')
    finally:
        start.children(head)
        head.terminate()
        head.wait(60)
        shutil.rmtree(f'/tmp/r{port}', ignore_errors=True)
