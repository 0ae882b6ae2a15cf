"""Files read in order, in this process or by workers, and groups of files that are scored at once."""

import multiprocessing
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maclip_pyiqa.scoring.batch import GROUP_PIXELS, FileRead, groups, read_cell, read_file, read_files

SIZES = st.one_of(st.none(), st.integers(1, 50), st.integers(GROUP_PIXELS // 3, GROUP_PIXELS * 2))


@given(st.lists(SIZES, max_size=20), st.integers(1, 5))
def test_groups_are_bounded_and_as_large_as_possible(sizes, batch):
    images = {size: None if size is None else np.broadcast_to(np.uint8(0), (1, size, 3)) for size in sizes}
    files = [FileRead(str(i), images[size], '') for i, size in enumerate(sizes)]
    found = list(groups(files, batch))
    assert [file.path for group in found for file in group] == [file.path for file in files]

    def pixels(group):
        return sum(0 if file.pixels is None else file.pixels.shape[1] for file in group)

    for group in found:
        assert 1 <= len(group) <= batch and (pixels(group) <= GROUP_PIXELS or len(group) == 1)
    for group, after in pairwise(found):
        assert len(group) == batch or pixels([*group, after[0]]) > GROUP_PIXELS


def test_files_that_cannot_be_read_are_returned_with_an_error(tmp_path):
    Image.new('RGB', (3, 2), 'red').save(tmp_path / 'a.png')
    good, bad, missing = read_files([str(tmp_path / name) for name in ('a.png', '.', 'none.png')])
    assert good.pixels.shape == (2, 3, 3) and good.error == ''
    assert bad.pixels is missing.pixels is None
    assert 'a folder' in bad.error and missing.error == 'No such file or directory'
    assert list(read_files([])) == []


def test_the_content_of_a_file_is_read_as_the_file_is(tmp_path):
    path = tmp_path / 'a.png'
    Image.new('RGB', (40, 30), 'red').save(path)
    file, content = read_file(str(path), window=64), read_file('x', path.read_bytes(), window=64)
    assert content.path == 'x' and (content.pixels == file.pixels).all() and content.flags == file.flags != ''
    broken = read_file('x', path.read_bytes()[:50])
    assert (
        broken.pixels is None and broken.error and read_file('x', b'').error == 'the file is empty; expected an image'
    )


@pytest.mark.parametrize(
    ('count', 'seconds', 'here'),  # files, of reading one, and how many are read in this process
    [
        (20, 1, 1),  # half a second of reading here, then the rest would take 5 or more
        (20, 0.3, 2),
        (18, 0.3, 18),  # 16 files, 4.8 seconds
        (100, 0.125, 4),
        (20, 0.125, 20),
        (20, 0, 20),
    ],
)
def test_workers_take_over_where_they_pay(tmp_path, monkeypatch, count, seconds, here):
    """Order and errors are the same whoever reads."""
    names = [str(tmp_path / f'{i}.png') for i in range(count)]
    for i, name in enumerate(names):
        if i % 5:
            Image.new('RGB', (i + 1, 2)).save(name)
    looks = []  # at the clock: before and after each file that is read here, and never by workers

    def clock():
        looks.append(None)
        return len(looks) // 2 * seconds

    monkeypatch.setattr(time, 'perf_counter', clock)
    files = list(read_files(names, workers=2))
    assert [file.path for file in files] == names and len(looks) == 2 * here
    assert [None if file.pixels is None else file.pixels.shape[1] for file in files] == [
        i + 1 if i % 5 else None for i in range(count)
    ]
    assert [file.error for file in files] == ['' if i % 5 else 'No such file or directory' for i in range(count)]
    assert not multiprocessing.active_children()
    looks.clear()
    assert len(list(read_files(names))) == count and len(looks) == 2 * count  # without workers


def test_cells_of_tables(tmp_path):
    path = tmp_path / 'a.png'
    Image.new('RGB', (4, 3)).save(path)
    data, name = path.read_bytes(), str(path)
    for cell in (name, data, {'bytes': data, 'path': 'x'}, {'bytes': None, 'path': name}, {'bytes': b'', 'path': name}):
        assert read_cell(cell).pixels.shape == (3, 4, 3)
    for cell in (None, '', b'', {'bytes': None, 'path': None}, {'bytes': b''}):
        assert read_cell(cell).error == 'no image: the cell is empty'
    for cell in (3, [name], {'path': name}, {'bytes': name, 'path': name}):
        with pytest.raises(TypeError, match='expected a path, bytes'):
            read_cell(cell)


READS_FOR_EVER = """
import multiprocessing, sys, time
from maclip_pyiqa.scoring import batch

if __name__ == '__main__':
    multiprocessing.set_start_method(sys.argv[1])
    batch.TRIAL = batch.PAYS = 0  # workers at once
    for number, file in enumerate(batch.read_files([sys.argv[2]] * 100_000, workers=2)):
        if number == 1:
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            time.sleep(float(sys.argv[3]))  # the workers have much to send by now, and nobody who takes it
"""


@pytest.mark.parametrize(
    ('method', 'end'),
    [
        ('fork', signal.SIGKILL),
        *[pytest.param('fork', end, marks=pytest.mark.slow) for end in (signal.SIGTERM, signal.SIGHUP)],
        *[pytest.param(method, signal.SIGKILL, marks=pytest.mark.slow) for method in ('spawn', 'forkserver')],
    ],
)
def test_workers_end_with_their_parent_whatever_ends_it(tmp_path, method, end):
    image = tmp_path / 'a.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8)).save(image)
    (tmp_path / 'reads.py').write_text(READS_FOR_EVER)
    command = [sys.executable, tmp_path / 'reads.py', method, image, '60']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2 and all(map(psutil.pid_exists, workers))
        time.sleep(1)
        parent.send_signal(end)
        parent.communicate(timeout=20)  # ends when nobody holds its standard error open any more
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], timeout=10)
    assert not alive or {process.status() for process in alive} == {psutil.STATUS_ZOMBIE}
