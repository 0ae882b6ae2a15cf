"""Inputs of a collection: what is found, how it is cut, and that any row can be read first."""

import io
import tarfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maclip_pyiqa.scoring.shards import Shard, cut_files, cut_table, find_inputs, load, read_shard, shard_name


def png(value, size=(8, 6)):
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size[::-1], 3), value, np.uint8)).save(buffer, 'png')
    return buffer.getvalue()


def write_tar(path, members, mode='w'):
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


MEMBERS = {
    'a/0.json': b'{"n": 0}',
    'a/0.png': png(0),
    'a/1.png': png(1),
    'a/1.txt': 'grün'.encode(),
    'notes.txt': b'x',
    'a/._1.png': b'hidden',
    'a/2.left.png': png(2),
    'a/2.right.png': png(3),
}
IDS = ['a/0.png', 'a/1.png', 'a/2.left.png', 'a/2.right.png']


# --- finding ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=['local', 'memory'])
def folder(request, tmp_path):
    """A folder with images and, in folders of their own, tars and Parquet files; local and in fsspec's memory."""
    root = str(tmp_path) if request.param == 'local' else 'memory://shards'
    fs, base = fsspec.core.url_to_fs(root)
    for name in (
        'x/b.png',
        'x/a.jpg',
        'x/notes.txt',
        'x/.hidden.png',
        't/1.tar',
        't/0.tar.gz',
        'p/q.parquet',
        '2/0.tar',
        '2/0.parquet',
    ):
        fs.makedirs(f'{base}/{name.rpartition("/")[0]}', exist_ok=True)
        fs.pipe_file(f'{base}/{name}', b'abc')
    yield root
    if request.param == 'memory':
        fs.rm(base, recursive=True)


def found(folder, *inputs, **options):
    result = find_inputs([f'{folder}/{name}' for name in inputs], **options)
    return [
        [path.split('/', 3)[3] if '://' in path else path.removeprefix(folder + '/') for path in of] for of in result
    ]


def test_folders_and_patterns(folder):
    def short(*inputs):
        return [[path.removeprefix('shards/') for path in of] for of in found(folder, *inputs)]

    assert short('x') == [['x/a.jpg', 'x/b.png'], [], []]
    assert short('t', 'p') == [[], ['p/q.parquet'], ['t/0.tar.gz', 't/1.tar']]
    assert short('2/*.tar', 'x/*.png') == [['x/b.png'], [], ['2/0.tar']]
    assert short('x/b.png', 't/1.tar', 'x') == [['x/b.png', 'x/a.jpg'], [], ['t/1.tar']]
    assert (
        find_inputs([f'{folder}/t']).tars[f'{folder}/t/1.tar' if '://' not in folder else 'memory:///shards/t/1.tar']
        == 3
    )


def test_what_is_refused(folder):
    with pytest.raises(ValueError, match=r'holds 1 Parquet files and 1 tars; expected one kind\. .*2/\*\.tar'):
        find_inputs([f'{folder}/2'])
    with pytest.raises(FileNotFoundError, match='no file matches'):
        find_inputs([f'{folder}/x/*.webp'])
    with pytest.raises(FileNotFoundError):
        find_inputs([f'{folder}/none.tar'])


def test_the_output_is_no_input(tmp_path):
    (tmp_path / 'a.png').write_bytes(png(0))
    (tmp_path / 'out' / '_partial').mkdir(parents=True)
    (tmp_path / 'out' / 'files_00000.parquet').write_bytes(b'')
    (tmp_path / 'out' / '_partial' / 'files_00001.parquet').write_bytes(b'')
    assert find_inputs([tmp_path], output=tmp_path / 'out') == ([str(tmp_path / 'a.png')], {}, {})

    fs = fsspec.filesystem('memory')
    for name in ('/own/a.parquet', '/own/out/files_00000.parquet'):
        fs.pipe_file(name, b'')
    assert find_inputs(['memory://own'], output='memory://own/out').tables == {'memory:///own/a.parquet': 0}
    fs.rm('/own', recursive=True)


def test_a_listing(tmp_path):
    (tmp_path / 'a.png').write_bytes(png(0))
    listing = io.BytesIO(f'{tmp_path}/a.png\nnone.png\n'.encode())
    assert find_inputs(['-'], listing).files == [f'{tmp_path}/a.png', 'none.png']


def test_names_are_unlike_and_do_not_depend_on_how_a_path_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shard_name('t/0.tar') == shard_name(str(tmp_path / 't' / '0.tar')) != shard_name('u/0.tar')
    assert shard_name('_ä b.parquet').startswith('---b-')  # pyarrow skips names that begin with _


# --- cutting and reading ----------------------------------------------------------------------------------------------


def test_files(tmp_path):
    shards = list(cut_files(['a', 'b', 'c'], 2, first=7))
    assert [(shard.name, shard.paths, shard.rows) for shard in shards] == [
        ('files_00007', ('a', 'b'), 2),
        ('files_00008', ('c',), 1),
    ]
    assert [image.id for image in read_shard(shards[0], 1)] == ['b']
    assert load(next(read_shard(shards[0]))) is None


def parquet(path, kind, rows=10, group=3):
    values = {
        'paths': pa.array([f'{n}.png' for n in range(rows)]),
        'bytes': pa.array([png(n) for n in range(rows)]),
        'struct': pa.array([{'bytes': png(n), 'path': 'image.png'} for n in range(rows)]),
    }[kind]
    name = {'paths': 'file_name', 'bytes': 'jpg', 'struct': 'image'}[kind]
    table = pa.table({'caption': [f'c{n}' for n in range(rows)], name: values, 'n': range(rows)})
    pq.write_table(table, path, row_group_size=group)
    return str(path)


@pytest.mark.parametrize('kind', ['paths', 'bytes', 'struct'])
def test_parquet(tmp_path, kind):
    path = parquet(tmp_path / 'a.parquet', kind)
    shards, kept = cut_table(path, 1000, 5, keep=['n', 'caption'])
    assert kept == pa.schema([('n', pa.int64()), ('caption', pa.string())])
    # paths are cut anywhere, images between row groups
    assert [(shard.start, shard.stop) for shard in shards] == (
        [(0, 5), (5, 10)] if kind == 'paths' else [(0, 3), (3, 6), (6, 10)]
    )
    assert len({shard.name for shard in shards}) == len(shards)
    images = [image for shard in shards for image in read_shard(shard)]
    assert [image.kept for image in images] == [(n, f'c{n}') for n in range(10)]
    assert [image.id for image in images] == [f'{n}.png' if kind == 'paths' else f'{path}#{n}' for n in range(10)]
    assert [image.data for image in images] == [f'{n}.png' if kind == 'paths' else png(n) for n in range(10)]
    for start in range(4):  # from and to any row
        for stop in (*range(start, 4), None):
            part = list(read_shard(shards[0], start, stop))
            assert part == images[start : shards[0].stop if stop is None else min(stop, shards[0].stop)]
    assert cut_table(path, 1000, 100)[0][0].name == shard_name(path)


def test_columns_are_found_or_named(tmp_path):
    table = pa.table({'x': ['a'], 'thumbnail': [b'1'], 'jpg': [b'2'], 'empty': pa.array([None], pa.binary()), 'n': [1]})
    pq.write_table(table, tmp_path / 'a.parquet')

    def images(column=None, keep=()):
        return list(read_shard(cut_table(str(tmp_path / 'a.parquet'), 9, 9, column, keep)[0][0]))

    assert [image.data for image in images()] == [b'2']
    assert [image.data for image in images('thumbnail')] == [b'1'] and images('x')[0].id == 'a'
    assert images('empty')[0].error == 'no image: the cell is empty'
    with pytest.raises(ValueError, match="no column 'y'"):
        images('y')
    with pytest.raises(ValueError, match="'n' is int64; expected paths"):
        images('n')
    with pytest.raises(ValueError, match='no column z'):
        images(keep=['z'])
    pq.write_table(pa.table({'caption': ['a'], 'n': [1]}), tmp_path / 'a.parquet')
    with pytest.raises(ValueError, match=r'no column of images found among caption, n; .*--column'):
        images()
    (tmp_path / 'a.parquet').write_bytes(b'PAR1 but not Parquet')
    with pytest.raises(ValueError, match='not a Parquet file'):
        images()


def test_a_cell_without_bytes_is_a_path(tmp_path):
    pq.write_table(pa.table({'image': [{'bytes': None, 'path': 'x.png'}]}), tmp_path / 'a.parquet')
    (shard,), _ = cut_table(str(tmp_path / 'a.parquet'), 9, 9)
    assert next(read_shard(shard)).data == 'x.png'


@pytest.mark.parametrize('suffix', ['.tar', '.tar.gz'])
def test_tar(tmp_path, suffix):
    path = write_tar(tmp_path / f'a{suffix}', MEMBERS, 'w:gz' if suffix == '.tar.gz' else 'w')
    shard = Shard('a', 'tar', path, keep=('__key__', 'json', 'txt'))
    images = list(read_shard(shard))
    assert [image.id for image in images] == [f'tar://{name}::{path}' for name in IDS]
    assert [image.data for image in images] == [MEMBERS[name] for name in IDS]
    assert [image.kept for image in images] == [
        ('a/0', '{"n": 0}', None),
        ('a/1', None, 'grün'),
        ('a/2', None, None),
        ('a/2', None, None),
    ]
    for start in range(5):
        for stop in (*range(start, 5), None):
            assert list(read_shard(shard, start, stop)) == images[start:stop]
    if suffix == '.tar':  # the id opens the image
        with fsspec.open(images[1].id) as file:
            assert file.read() == images[1].data


@pytest.mark.parametrize('suffix', ['.tar', '.tar.gz'])
@pytest.mark.parametrize('damage', ['cut', 'end', 'header'])
def test_a_broken_tar_gives_what_is_before_the_damage(tmp_path, suffix, damage):
    path = tmp_path / f'a{suffix}'
    write_tar(tmp_path / 'whole.tar', MEMBERS)
    data = (tmp_path / 'whole.tar').read_bytes()
    with tarfile.open(tmp_path / 'whole.tar') as tar:
        members = {member.name: member for member in tar.getmembers()}
    third = members['a/2.left.png']
    if damage == 'cut':  # within the third image
        data = data[: third.offset_data + 20]
    elif damage == 'end':  # between members, without the end of the archive
        data = data[: third.offset]
    else:
        data = data[: third.offset] + b'\x01' * 512 + data[third.offset + 512 :]
    if suffix == '.tar.gz':
        import gzip

        path.write_bytes(gzip.compress(data))
    else:
        path.write_bytes(data)
    images = []
    with pytest.raises(ValueError, match='cut or broken behind image 2'):
        for image in read_shard(Shard('a', 'tar', str(path))):
            images.append(image.data)
    assert images == [png(0), png(1)]


def test_urls(tmp_path):
    write_tar(tmp_path / 'a.tar', MEMBERS)
    fs = fsspec.filesystem('memory')
    fs.pipe_file('/urls/a.tar', (tmp_path / 'a.tar').read_bytes())
    parquet(tmp_path / 'a.parquet', 'bytes')
    fs.pipe_file('/urls/a.parquet', (tmp_path / 'a.parquet').read_bytes())
    fs.pipe_file('/urls/a.png', png(5))
    images = list(read_shard(Shard('a', 'tar', 'memory://urls/a.tar')))
    assert [image.data for image in images] == [MEMBERS[name] for name in IDS]
    shards, _ = cut_table('memory://urls/a.parquet', 9, 99)
    assert [image.data for image in read_shard(shards[0])] == [png(n) for n in range(10)]
    (shard,) = cut_files(['memory://urls/a.png'], 9)
    assert load(next(read_shard(shard))) == png(5)
    fs.rm('/urls', recursive=True)
