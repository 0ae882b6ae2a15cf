"""Inputs of a collection: what is found, how it is cut, and how its images are read."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tracemalloc

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maclip_pyiqa.collections.inputs import Shard, cut_files, cut_table, find_inputs, read, read_shard, shard_name
from maclip_pyiqa.scoring.formats.parquet import to_table
from maclip_pyiqa.scoring.schema import arrow_schema, columns


def png(value, size=(8, 6)):
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size[::-1], 3), value, np.uint8)).save(buffer, 'png')
    return buffer.getvalue()


def schema_with(kept):
    return arrow_schema([*columns([]), *kept.names], dict(zip(kept.names, kept.types, strict=True)))


HARD, SYMBOLIC = tarfile.LNKTYPE, tarfile.SYMTYPE


def write_tar(path, members, mode='w'):
    """Members are contents, or links: the type and the target."""
    with tarfile.open(path, mode) as tar:
        for name, data in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            if isinstance(data, tuple):
                info.type, info.linkname = data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(path)


def read_tar(path, *keep):
    """Name, content, what is kept, and error of each row."""
    shard = Shard('a', 'tar', str(path), keep=keep)
    for image in read_shard(shard):
        assert image.path.endswith(f'::{path}')
        yield image.path.removeprefix('tar://').removesuffix(f'::{path}'), image.data, image.kept, image.error


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


def test_suffixes_in_any_case(folder):
    fs, base = fsspec.core.url_to_fs(folder)
    names = {
        'c/a.TAR': 2, 'c/b.Tar.Gz': 2, 'c/c.tar.bz2': 2, 'c/d.TBZ2': 2, 'c/e.tar.XZ': 2, 'c/f.txz': 2, 'c/g.TGZ': 2,
        'd/a.PARQUET': 1, 'd/b.Parquet': 1, 'e/a.JPG': 0, 'e/b.Png': 0,
    }  # fmt: skip
    for name in names:
        fs.makedirs(f'{base}/{name.rpartition("/")[0]}', exist_ok=True)
        fs.pipe_file(f'{base}/{name}', b'abc')

    def short(*inputs):
        return [[path.removeprefix('shards/') for path in of] for of in found(folder, *inputs)]

    expected = [[name for name, kind in names.items() if kind == of] for of in range(3)]
    assert short('c', 'd', 'e') == short('c/*', 'd/*', 'e/*') == short(*names) == expected
    result = find_inputs([f'{folder}/c', f'{folder}/d'])
    assert {*result.tars.values(), *result.tables.values()} == {3}
    assert [shard_name(path).rpartition('-')[0] for path in result.tars] == list('abcdefg')
    assert [shard_name(path).rpartition('-')[0] for path in result.tables] == list('ab')


def test_images_that_are_not_read_are_told(folder, caplog):
    fs, base = fsspec.core.url_to_fs(folder)
    for name in ('x/c.xcf', 'x/d.XCF', 'x/e.dng'):
        fs.pipe_file(f'{base}/{name}', b'abc')
    for of in ('x', 'x/*'):
        caplog.clear()
        assert len(find_inputs([f'{folder}/{of}']).files) == 2
        assert [message.partition(';')[0] for message in caplog.messages] == [
            'left out, image formats that are not read: 1 .dng, 2 .xcf'
        ]


def test_linked_folders(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / '0.tar').write_bytes(b'abc')
    (tmp_path / 'a' / 'linked').symlink_to('../b')
    (tmp_path / 'b' / 'back').symlink_to('../a')
    assert [os.path.relpath(path, tmp_path) for path in find_inputs([tmp_path / 'a']).tars] == ['a/linked/0.tar']


def test_patterns_with_circles(tmp_path):
    for name in ('a', 'a/b'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'x.tar').write_bytes(b'')
        (tmp_path / name / 'up').symlink_to(tmp_path / 'a')  # by glob, some 40 levels deep, and as many ways each
        (tmp_path / name / 'root').symlink_to(tmp_path)
    assert list(find_inputs(f'{tmp_path}/**/*.tar').tars) == [f'{tmp_path}/a/x.tar', f'{tmp_path}/a/b/x.tar']
    (tmp_path / 'a' / 'devices').symlink_to('/dev')
    (tmp_path / 'a' / 'gone.tar').symlink_to('nowhere')
    assert len(find_inputs(tmp_path).tars) == 2
    for system in ('/proc', '/dev', '/sys'):
        with pytest.raises(FileNotFoundError):
            find_inputs(system)


def test_each_file_is_found_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a.png', 'a.tar', 'a.parquet'):
        (tmp_path / name).write_bytes(b'abc')
        inputs = [f'./{name}', name, tmp_path / name, f'../{tmp_path.name}/{name}']
        assert [path for of in find_inputs(inputs) for path in of] == [f'./{name}']


def test_one_path_is_a_list_of_one(tmp_path):
    (tmp_path / 'a.tar').write_bytes(b'abc')
    assert find_inputs(str(tmp_path / 'a.tar')) == find_inputs(tmp_path / 'a.tar') == find_inputs([tmp_path / 'a.tar'])


def test_what_is_refused(folder):
    with pytest.raises(ValueError, match=r'holds 1 Parquet files and 1 tars; expected one kind\. .*2/\*\.tar'):
        find_inputs([f'{folder}/2'])
    with pytest.raises(ValueError, match=r'holds 1 Parquet files and 1 tars; expected one kind\. .*2/\*\.tar'):
        find_inputs([f'{folder}/2/*'])
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

    (tmp_path / 'a.tar').write_bytes(b'abc')  # what is named is an input wherever it is
    assert find_inputs([tmp_path / 'a.tar', f'{tmp_path}/*.png'], output=tmp_path) == (
        [str(tmp_path / 'a.png')],
        {},
        {str(tmp_path / 'a.tar'): 3},
    )

    fs = fsspec.filesystem('memory')
    for name in ('/own/a.parquet', '/own/out/files_00000.parquet'):
        fs.pipe_file(name, b'')
    assert find_inputs(['memory://own'], output='memory://own/out').tables == {'memory:///own/a.parquet': 0}
    fs.rm('/own', recursive=True)


def test_a_listing(tmp_path):
    (tmp_path / 'a.png').write_bytes(png(0))
    listing = io.BytesIO(f'{tmp_path}/a.png\nnone.png\n'.encode())
    assert find_inputs(['-'], listing).files == [f'{tmp_path}/a.png', 'none.png']
    (tmp_path / 'b.tar').write_bytes(b'abc')
    listing = io.BytesIO(f'{tmp_path}/b.tar\n{tmp_path}/a.png\n'.encode())
    assert find_inputs(['-'], listing) == ([f'{tmp_path}/a.png'], {}, {f'{tmp_path}/b.tar': 3})


def test_names_are_unlike_and_do_not_depend_on_how_a_path_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shard_name('t/0.tar') == shard_name(str(tmp_path / 't' / '0.tar')) != shard_name('u/0.tar')
    assert shard_name('_ä b.parquet').startswith('---b-')  # pyarrow skips names that begin with _


# --- cutting and reading ----------------------------------------------------------------------------------------------


def test_files(tmp_path):
    shards = list(cut_files(['a', 'b', 'c'], 2, first=7))
    assert [(shard.name, shard.paths, shard.share) for shard in shards] == [
        ('files_00007', ('a', 'b'), 2),
        ('files_00008', ('c',), 1),
    ]
    assert [image.path for image in read_shard(shards[0])] == ['a', 'b']
    assert read(next(read_shard(shards[0])), 0, None).error == 'No such file or directory'


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
    assert [image.path for image in images] == [f'{n}.png' if kind == 'paths' else f'{path}#{n}' for n in range(10)]
    assert [image.data for image in images] == [f'{n}.png' if kind == 'paths' else png(n) for n in range(10)]
    assert cut_table(path, 1000, 100)[0][0].name == shard_name(path)


def test_columns_are_found_or_named(tmp_path):
    table = pa.table({'x': ['a'], 'thumbnail': [b'1'], 'jpg': [b'2'], 'empty': pa.array([None], pa.binary()), 'n': [1]})
    pq.write_table(table, tmp_path / 'a.parquet')

    def images(column=None, keep=()):
        return list(read_shard(cut_table(str(tmp_path / 'a.parquet'), 9, 9, column, keep)[0][0]))

    assert [image.data for image in images()] == [b'2']
    assert [image.data for image in images('thumbnail')] == [b'1'] and images('x')[0].path == 'a'
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


class Wrapped(pa.ExtensionType):
    """Text or bytes of a type of somebody's own."""

    def __init__(self, storage):
        super().__init__(storage, 'tests.wrapped')

    def __arrow_ext_serialize__(self):
        return b''

    @classmethod
    def __arrow_ext_deserialize__(cls, storage, serialized):
        return cls(storage)

    def __arrow_ext_scalar_class__(self):
        return Opaque


class Opaque(pa.ExtensionScalar):
    def as_py(self, **kwargs):
        return object()


@pytest.fixture
def wrapped():
    pa.register_extension_type(Wrapped(pa.string()))
    yield lambda array: pa.ExtensionArray.from_storage(Wrapped(array.type), array)
    pa.unregister_extension_type('tests.wrapped')


TYPES = {
    'plain': lambda array: array,
    'large': lambda array: array.cast(pa.large_string() if array.type == pa.string() else pa.large_binary()),
    'view': lambda array: array.cast(pa.string_view() if array.type == pa.string() else pa.binary_view()),
    'fixed size': lambda array: array if array.type == pa.string() else array.cast(pa.binary(7)),
    'categories': lambda array: array.dictionary_encode(),
    'large categories': lambda array: TYPES['large'](array).dictionary_encode(),
}


@pytest.mark.parametrize('extension', ['', 'known', 'unknown'])
@pytest.mark.parametrize('name', TYPES)
@pytest.mark.parametrize('kind', ['paths', 'bytes', 'struct', 'struct of paths'])
def test_all_types_of_text_and_bytes(tmp_path, kind, name, extension, wrapped):
    def column(values, kind=None):
        array = TYPES[name](pa.array(values, kind))
        return wrapped(array) if extension else array

    paths, data = [f'{n}.png' for n in range(6)], [f'image {n}'.encode() for n in range(6)]
    cells = {
        'paths': lambda: column(paths),
        'bytes': lambda: column(data),
        'struct': lambda: pa.StructArray.from_arrays([column(data), column(paths)], ['bytes', 'path']),
        'struct of paths': lambda: pa.StructArray.from_arrays(
            [column([None] * 6, pa.binary()), column(paths)], ['bytes', 'path']
        ),
    }[kind]()
    table = pa.table({'n': range(6), 'file' if kind == 'paths' else 'image': cells, 'text': column(paths)})
    path = str(tmp_path / 'a.parquet')
    groups = 6 if name == 'view' else 4  # pyarrow cannot write a nested one in parts
    pq.write_table(table, path, row_group_size=groups)
    if extension == 'unknown':
        pa.unregister_extension_type('tests.wrapped')
    try:
        parts, kept = cut_table(path, 9, 3, keep=['text', table.schema.names[1]])
        images = [image for part in parts for image in read_shard(part)]
    finally:
        if extension == 'unknown':
            pa.register_extension_type(Wrapped(pa.string()))
    assert [image.data for image in images] == (data if kind in ('bytes', 'struct') else paths)
    assert [image.kept[0] for image in images] == paths
    rows = [dict(zip(kept.names, image.kept, strict=True)) | {'path': image.path, 'error': ''} for image in images]
    written = to_table(rows, schema_with(kept))  # what is kept can be written, too
    assert written['text'].to_pylist() == paths and str(written['text'].type) in ('string', 'large_string')
    pq.write_table(pa.concat_tables([written, written]), tmp_path / 'out.parquet')


def test_columns_of_pandas(tmp_path):
    """Categories are numbered in int8, which must not bound what is kept."""
    for part in range(2):
        names = [f'{part}-{n}.png' for n in range(100)]
        frame = pd.DataFrame({'path': pd.Categorical(names, ordered=True), 'label': pd.Categorical(names)})
        frame.to_parquet(tmp_path / f'{part}.parquet')
    rows, kept = [], None
    for part in range(2):
        (shard,), kept = cut_table(str(tmp_path / f'{part}.parquet'), 9, 999, keep=['label'])
        rows += [{'path': image.path, 'error': '', 'label': image.kept[0]} for image in read_shard(shard)]
    assert [row['path'] for row in rows] == [f'{part}-{n}.png' for part in range(2) for n in range(100)]
    assert to_table(rows, schema_with(kept))['label'].to_pylist() == [row['path'] for row in rows]


def test_a_type_that_holds_no_image_is_named_as_it_is(tmp_path):
    columns = {
        'category': pa.array([1]).dictionary_encode(),
        'struct': pa.array([{'bytes': 1, 'path': 'a'}]),
        'list': pa.array([['a']]),
    }
    pq.write_table(pa.table(columns), tmp_path / 'a.parquet')
    for name in columns:
        with pytest.raises(ValueError, match=rf"column '{name}' is .*; expected paths, bytes or {{bytes, path}}"):
            cut_table(str(tmp_path / 'a.parquet'), 9, 9, name)


def test_digests_are_no_images(tmp_path):
    pq.write_table(pa.table({'sha': pa.array([b'abc'], pa.binary(3)), 'url': ['a']}), tmp_path / 'a.parquet')
    (shard,), _ = cut_table(str(tmp_path / 'a.parquet'), 9, 9)
    assert shard.column == 'url'


def test_a_cell_without_bytes_is_a_path(tmp_path):
    pq.write_table(pa.table({'image': [{'bytes': None, 'path': 'x.png'}]}), tmp_path / 'a.parquet')
    (shard,), _ = cut_table(str(tmp_path / 'a.parquet'), 9, 9)
    assert next(read_shard(shard)).data == 'x.png'


@pytest.mark.parametrize('suffix', ['.tar', '.tar.gz', '.tgz', '.TAR.BZ2', '.tbz2', '.tar.xz', '.Txz'])
def test_tar(tmp_path, suffix):
    mode = {'.tar': 'w', '.tar.gz': 'w:gz', '.tgz': 'w:gz', '.TAR.BZ2': 'w:bz2', '.tbz2': 'w:bz2'}.get(suffix, 'w:xz')
    path = write_tar(tmp_path / f'a{suffix}', MEMBERS, mode)
    shard = Shard('a', 'tar', path, keep=('__key__', 'json', 'txt'))
    images = list(read_shard(shard))
    assert [image.path for image in images] == [f'tar://{name}::{path}' for name in IDS]
    assert [image.data for image in images] == [MEMBERS[name] for name in IDS]
    assert [image.kept for image in images] == [
        ('a/0', '{"n": 0}', None),
        ('a/1', None, 'grün'),
        ('a/2', None, None),
        ('a/2', None, None),
    ]
    if suffix == '.tar':  # the id opens the image
        with fsspec.open(images[1].path) as file:
            assert file.read() == images[1].data


COMPRESS = {'': bytes, 'gz': gzip.compress, 'bz2': lambda data: bz2.compress(data, 1), 'xz': lzma.compress}


@pytest.mark.parametrize('compression', ['gz', 'bz2', 'xz'])
def test_compression_is_detected_from_the_content(tmp_path, compression):
    write_tar(tmp_path / 'whole.tar', MEMBERS)
    data, compress = (tmp_path / 'whole.tar').read_bytes(), COMPRESS[compression]
    (tmp_path / 'a.tar').write_bytes(compress(data))
    (tmp_path / 'b.tgz').write_bytes(data)
    (tmp_path / 'c.tar.gz').write_bytes(compress(data[:3000]) + compress(data[3000:]))  # as parallel programs do
    for name in ('a.tar', 'b.tgz', 'c.tar.gz'):
        assert [row[1] for row in read_tar(tmp_path / name)] == [MEMBERS[name] for name in IDS]


@pytest.mark.parametrize('compression', COMPRESS)
def test_links(tmp_path, compression):
    members = [
        ('early.png', (SYMBOLIC, 'deep/3.png')),  # to what follows
        ('deep/0.png', png(0)),
        ('deep/0.json', b'zero'),
        ('deep/1.png', (HARD, './deep/0.png')),
        ('deep/1.json', (HARD, 'deep/0.json')),
        ('deep/2.png', (SYMBOLIC, '0.png')),
        ('deep/2.json', (SYMBOLIC, 'gone.json')),
        ('deep/3.png', (SYMBOLIC, '../deep/../blobs/abc')),  # to one without a suffix, by way of
        ('blobs/' + 'long' * 50, png(3)),
        ('blobs/abc', (HARD, 'blobs/' + 'long' * 50)),  # a link, to one with a long name
        ('gone.png', (HARD, 'none/0.png')),
        ('outside.png', (SYMBOLIC, '../../0.png')),
        ('round.png', (SYMBOLIC, 'circle.png')),
        ('circle.png', (SYMBOLIC, 'round.png')),
        ('folder.png', (SYMBOLIC, 'pipe')),
        ('pipe', (tarfile.FIFOTYPE, '')),
        ('pipe.png', (tarfile.FIFOTYPE, '')),  # no image
        ('twice.png', png(4)),
        ('before.png', (HARD, 'twice.png')),
        ('twice.png', png(5)),
        ('last.png', (SYMBOLIC, 'twice.png')),
        ('6.png', png(6)),
    ]
    write_tar(tmp_path / 'whole.tar', members)
    path = tmp_path / 'a.tar'
    path.write_bytes(COMPRESS[compression]((tmp_path / 'whole.tar').read_bytes()))
    rows = list(read_tar(path, 'json'))
    assert [(name, data) for name, data, _, error in rows if not error] == [
        ('early.png', png(3)),
        ('deep/0.png', png(0)),
        ('deep/1.png', png(0)),
        ('deep/2.png', png(0)),
        ('deep/3.png', png(3)),
        ('twice.png', png(4)),
        ('before.png', png(4)),
        ('twice.png', png(5)),
        ('last.png', png(5)),
        ('6.png', png(6)),
    ]
    assert [kept for name, _, (kept,), _ in rows if name.startswith('deep')] == ['zero', 'zero', None, None]
    errors = {name: error.partition(';')[0] for name, data, _, error in rows if error and data == b''}
    assert errors == {
        'gone.png': 'a link to none/0.png, which is not in the tar',
        'outside.png': 'a link to ../../0.png, which is not in the tar',
        'round.png': 'a link to circle.png, which leads round in a circle',
        'circle.png': 'a link to round.png, which leads round in a circle',
        'folder.png': 'a link to pipe, which is not a file',
    }
    fs = fsspec.filesystem('memory')
    fs.pipe_file('/links/a.tar', path.read_bytes())
    assert [row[1:] for row in read_tar('memory://links/a.tar', 'json')] == [row[1:] for row in rows]
    fs.rm('/links', recursive=True)


def test_a_link_to_what_damage_took(tmp_path):
    members = {'a.png': (SYMBOLIC, 'c.png'), 'b.png': png(1), 'c.png': png(2)}
    write_tar(tmp_path / 'a.tar', members)
    data = (tmp_path / 'a.tar').read_bytes()
    for end, error in ((1536, 'not in the tar'), (2048 + 20, 'cannot be read')):  # its header, or a part of it is left
        (tmp_path / 'a.tar').write_bytes(data[:end])
        rows = []
        with pytest.raises(ValueError, match='cut or broken behind image 2'):
            for row in read_tar(tmp_path / 'a.tar'):
                rows.append(row)
        assert [row[1] for row in rows] == [b'', png(1)] and error in rows[0][3]


def test_what_is_kept_is_found_by_its_suffix_in_any_case(tmp_path):
    members = {
        'UP.JPG': b'up', 'UP.JSON': b'1', 'a/low.jpg': b'low', 'a/low.Json': b'2', 'a/low.SEG.Json': b'3',
        'none.jpg': b'none', 'text.json': b'alone',
    }  # fmt: skip
    path = write_tar(tmp_path / 'a.tar', members)
    for keep in ('json', 'JSON', '.json', '.Json'):
        assert [row[2] for row in read_tar(path, keep)] == [('1',), ('2',), (None,)]
    assert [row[2] for row in read_tar(path, 'seg.json', '.JSON')] == [(None, '1'), ('3', '2'), (None, None)]
    assert [row[2] for row in read_tar(path, 'jsno')] == [(None,)] * 3


def test_names_with_dots(tmp_path):
    """The key ends at the first dot, but what has an image's own name belongs to that image."""
    members = {
        'd.x/1.5 zoom.jpg': b'a', 'd.x/1.5 zoom.json': b'1.5', 'd.x/1.txt': b'all', 'README': b'',
        'd.x/1.6 Zoom.jpg': b'b', 'd.x/1.6 Zoom.JSON': b'1.6', 'd.x/1.6 zoom.json': b'small', 'd.x/1.7.jpg': b'c',
        'd.x/1.8.jpg': b'd', 'd.x/1.8.txt': b'own', 'd.x/1.v2.meta.json': b'no', 'd.x/1.v2.jpg': b'e',
        './2.jpg': b'f', './2.json': b'2', '.hidden.jpg': b'', '..3.jpg': b'', '4..jpg': b'g', '4..json': b'4',
    }  # fmt: skip
    path = write_tar(tmp_path / 'a.tar', members)
    assert [(name, *kept) for name, _, kept, _ in read_tar(path, 'json', 'txt', '__key__')] == [
        ('d.x/1.5 zoom.jpg', '1.5', 'all', 'd.x/1'),
        ('d.x/1.6 Zoom.jpg', '1.6', 'all', 'd.x/1'),
        ('d.x/1.7.jpg', None, 'all', 'd.x/1'),
        ('d.x/1.8.jpg', None, 'own', 'd.x/1'),
        ('d.x/1.v2.jpg', None, 'all', 'd.x/1'),
        ('./2.jpg', '2', None, './2'),
        ('4..jpg', '4', None, '4'),
    ]


def test_images_that_are_not_read_are_rows(tmp_path):
    members = {
        '0.jpg': b'0',
        '0.json': b'{}',
        '0.XCF': b'1',
        '1.dng': b'2',
        '1.json': b'[]',
        '2.svg': b'3',
        '3.jpg': b'4',
    }
    path = write_tar(tmp_path / 'a.tar', members)
    rows = list(read_tar(path, 'json'))
    assert [(name, data, kept) for name, data, (kept,), _ in rows] == [
        ('0.jpg', b'0', '{}'),
        ('0.XCF', b'', '{}'),
        ('1.dng', b'', '[]'),
        ('2.svg', b'', None),
        ('3.jpg', b'4', None),
    ]
    assert [error.partition(';')[0] for *_, error in rows] == [
        '',
        '.xcf files are not read',
        '.dng files are not read',
        '.svg files are not read',
        '',
    ]
    # what is kept is no image of the sample
    assert [(name, kept) for name, _, kept, _ in read_tar(path, 'svg')][3:] == [('3.jpg', (None,))]


@pytest.mark.parametrize('compression', COMPRESS)
@pytest.mark.parametrize('keep', [(), ('json',)])
def test_memory_is_bounded(tmp_path, monkeypatch, compression, keep):
    """Also where all members have one key."""
    members = {f'photo.{n:02d}.jpg': bytes([n]) * 1_000_000 for n in range(40)}
    write_tar(tmp_path / 'whole.tar', members | {'photo.39.json': b''})
    path = tmp_path / 'a.tar'
    path.write_bytes(COMPRESS[compression]((tmp_path / 'whole.tar').read_bytes()))
    del members
    tracemalloc.start()
    try:
        for n, (name, data, kept, _) in enumerate(read_tar(path, *keep)):
            assert (name, data[:1], len(data)) == (f'photo.{n:02d}.jpg', bytes([n]), 1_000_000)
            assert kept == (() if not keep else ('' if n == 39 else None,))
        assert n == 39
        assert tracemalloc.get_traced_memory()[1] < (28_000_000 if compression == 'xz' else 8_000_000)  # xz takes 9 MB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('suffix', ['.tar', '.tar.gz', '.tar.bz2', '.tar.xz'])
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
    path.write_bytes(COMPRESS[suffix.removeprefix('.tar').removeprefix('.')](data))
    images = []
    with pytest.raises(ValueError, match='cut or broken behind image 2'):
        for image in read_shard(Shard('a', 'tar', str(path))):
            images.append(image.data)
    assert images == [png(0), png(1)]


@pytest.mark.parametrize('compression', ['gz', 'bz2', 'xz'])
@pytest.mark.parametrize('damage', ['cut', 'noise'])
def test_broken_compression_is_told(tmp_path, compression, damage):
    members = {f'{n}.png': np.random.default_rng(n).bytes(50_000) for n in range(20)}
    write_tar(tmp_path / 'whole.tar', members)
    data = COMPRESS[compression]((tmp_path / 'whole.tar').read_bytes())
    half = len(data) // 2
    (tmp_path / 'a.tar').write_bytes(
        data[:half] if damage == 'cut' else data[:half] + b'\x55' * 3000 + data[half + 3000 :]
    )
    rows = []
    with pytest.raises(ValueError, match='is cut or broken behind image'):
        for row in read_tar(tmp_path / 'a.tar'):
            rows.append(row[1])
    # in gzip noise can only be found by the checksum at the end
    assert rows[:7] == list(members.values())[:7] and (len(rows) < 13 or compression == 'gz')


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
    assert read(next(read_shard(shard)), 0, None).pixels[0, 0].tolist() == [5, 5, 5]
    fs.rm('/urls', recursive=True)
