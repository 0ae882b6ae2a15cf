"""Which image belongs to which, in folders and tables."""

import json
import os

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from maclip_pyiqa.comparison.pairing import check_labels, pair, read_versions

LABEL = {'versions': {'maclip_pyiqa': '1'}, 'config': {'backbone': 'RN50', 'alpha': 1.0}, 'fingerprint': 'f'}


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8)).save(root / name)
    return root


def rows(*paths, **more):
    return [{'path': path, 'score': 0.5, 'error': '', **more} for path in paths]


def pairs(*sources, **options):
    versions = read_versions(sources, **options)
    return {key: tuple(row and row['path'] for row in found) for key, found in pair(versions).items()}


def test_folders_are_paired_by_the_path_below(tmp_path):
    a = make(tmp_path / 'a', 'x/1.png', 'x/2.png', '1.png')
    b = make(tmp_path / 'b', 'x/1.png', 'x/2.jpg', 'y/1.png')
    want = {
        'x/1': (f'{a}/x/1.png', f'{b}/x/1.png'),
        'x/2': (f'{a}/x/2.png', f'{b}/x/2.jpg'),
        '1': (f'{a}/1.png', None),
        'y/1': (None, f'{b}/y/1.png'),
    }
    found = pairs(a, b)
    assert found == want and list(found) == sorted(want)


def test_suffixes_count_where_they_alone_tell_images_apart(tmp_path):
    a = make(tmp_path / 'a', '1.png', '1.jpg', '2.png')
    b = make(tmp_path / 'b', '1.png', '2.jpg')
    found = pairs(a, b)
    assert found == {
        '1.png': (f'{a}/1.png', f'{b}/1.png'),
        '1.jpg': (f'{a}/1.jpg', None),
        '2': (f'{a}/2.png', f'{b}/2.jpg'),
    }


def test_dots_in_names_are_kept(tmp_path):
    a, b = make(tmp_path / 'a', 'v1.5/x.0.png', 'v1.5/x.1.png'), make(tmp_path / 'b', 'v1.5/x.0.jpg', 'v1.5/x.1.jpg')
    assert list(pairs(a, b)) == ['v1.5/x.0', 'v1.5/x.1']


def test_three_versions(tmp_path):
    a, b, c = (make(tmp_path / name, '1.png', f'{name}.png') for name in 'abc')
    found = pairs(a, b, c)
    assert found['1'] == (f'{a}/1.png', f'{b}/1.png', f'{c}/1.png') and found['b'] == (None, f'{b}/b.png', None)


def test_rows_are_paired_below_their_common_folder():
    found = pairs(rows('out/a/x/1.png', 'out/a/y/2.png'), rows('/data/b/x/1.png', '/data/b/y/3.png'))
    assert found['x/1'] == ('out/a/x/1.png', '/data/b/x/1.png') and list(found) == ['x/1', 'y/2', 'y/3']
    assert list(pairs(rows('1.png', '2.png'), rows('c/1.png', 'c/2.png'))) == ['1', '2']


def test_rows_are_paired_below_the_folder_that_gives_the_most_pairs(tmp_path):
    """The deepest folder of all images of one table may be one that the other table calls a subfolder."""
    deep, flat = rows('out/b/x/1.png', 'out/b/x/2.png'), rows('a/x/1.png', 'a/x/2.png', 'a/top.png')
    assert list(pairs(deep, flat)) == list(pairs(flat, deep)) == ['top', 'x/1', 'x/2']
    folder = make(tmp_path / 'c', 'x/1.jpg', 'x/3.jpg')
    found = pairs(deep, folder)
    assert found['x/1'] == ('out/b/x/1.png', f'{folder}/x/1.jpg') and list(found) == ['x/1', 'x/2', 'x/3']
    assert list(pairs(rows('/p/1.png', '2.png'), rows('p/1.png', '2.png'))) == ['/p/1', '2', 'p/1']


def test_rows_are_paired_by_a_column():
    a = [row | {'id': i} for i, row in enumerate(rows('p.png', 'q.png'))]
    b = [row | {'id': 1 - i} for i, row in enumerate(rows('r.png', 's.png'))]
    assert pairs(a, b, by='id') == {'0': ('p.png', 's.png'), '1': ('q.png', 'r.png')}


@pytest.mark.parametrize('suffix', ['.csv', '.jsonl', '.parquet'])
def test_tables_are_paired_by_a_column_of_text(tmp_path, suffix):
    """Tables may have further columns of text."""
    for name, score in (('a', 0.25), ('b', 0.5)):
        table = {'path': f'{name}.png', 'id': '007', 'prompt': 'a cat, sitting', 'score': score, 'error': ''}
        path = tmp_path / f'{name}{suffix}'
        if suffix == '.csv':
            path.write_text(f'path,id,prompt,score,error\n{name}.png,007,"a cat, sitting",{score},\n')
        elif suffix == '.jsonl':
            path.write_text(json.dumps(table) + '\n')
        else:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([table]), path)
    for by, want in (('id', '007'), ('prompt', 'a cat, sitting')):
        versions = read_versions([tmp_path / f'a{suffix}', tmp_path / f'b{suffix}'], by=by)
        ((key, found),) = pair(versions).items()
        assert key == want and [row['score'] for row in found] == [0.25, 0.5]
        assert found[0]['prompt'] == 'a cat, sitting'


WINDOWS = [
    ['C:\\out\\a\\x\\1.png', 'C:\\out\\a\\y\\2.png'],
    ['C:/out/a/x/1.png', 'C:/out/a/y/2.png'],
    ['C:\\out\\a/x/1.png', 'C:\\out\\a/y/../y/2.png'],
    ['\\\\server\\share\\a\\x\\1.png', '\\\\server\\share\\a\\y\\2.png'],
    ['\\\\?\\C:\\a\\x\\1.png', '\\\\?\\C:\\a\\y\\2.png'],
    ['a\\x\\1.png', 'a\\.\\y\\2.png'],
    ['x\\1.png', 'y\\2.png'],
    ['out/a\\x\\1.png', 'out/a\\y\\2.png'],  # as a folder given with slashes is listed there
    ['out\\a\\x\\1.png', 'out/a/y/2.png'],  # clear from the others only
]


@pytest.mark.parametrize('paths', WINDOWS)
def test_paths_of_windows(tmp_path, paths):
    posix = ['/data/b/x/1.png', '/data/b/y/2.png']
    first, second = paths
    want = {'x/1': (first, posix[0]), 'y/2': (second, posix[1])}
    assert pairs(rows(*paths), rows(*posix)) == want
    assert pairs(rows(*posix), rows(*paths)) == {key: pair[::-1] for key, pair in want.items()}
    folder = make(tmp_path / 'c', 'x/1.jpg', 'y/2.jpg')
    assert pairs(folder, rows(*paths)) == {'x/1': (f'{folder}/x/1.jpg', first), 'y/2': (f'{folder}/y/2.jpg', second)}
    for others in WINDOWS[:-1]:
        assert list(pairs(rows(*paths), rows(*others))) == ['x/1', 'y/2']


def test_file_names_with_backslashes(tmp_path):
    """On POSIX they are names like others."""
    names = ['x/a\\b.png', 'x/c\\d.png', 'x/e.png']
    keys = ['a\\b', 'c\\d', 'e']
    folder, other = (make(tmp_path / name, *names) for name in ('a', 'b'))
    assert list(pairs(folder, other)) == [f'x/{key}' for key in keys]
    table = rows(*(f'out/{name}' for name in names))
    assert list(pairs(folder, table)) == list(pairs(table, folder)) == [f'x/{key}' for key in keys]
    assert list(pairs(table, rows(*(f'/data/{name}' for name in names)))) == keys
    flat = make(tmp_path / 'c', 'a\\b.png', 'c\\d.png')
    found = pairs(flat, rows('a\\b.png', 'c\\d.png'))
    assert found == {'a\\b': (f'{flat}/a\\b.png', 'a\\b.png'), 'c\\d': (f'{flat}/c\\d.png', 'c\\d.png')}
    assert len(pairs(rows('x/a\\b.png', 'x/a/b.png'), rows('y/a\\b.png', 'y/a/b.png'))) == 2


def test_one_image_in_two_spellings_of_windows():
    with pytest.raises(ValueError, match=r"A has 'C:/a/1\.png' in the column 'path' of 2 rows"):
        pairs(rows('C:\\a\\1.png', 'C:/a/1.png'), rows('1.png', '2.png'))


def test_a_table_without_paths_is_paired_by_a_column(tmp_path):
    for name in 'ab':
        (tmp_path / f'{name}.csv').write_text('niqe;id\n3,5;001\n4,5;NA\n')
    a, b = read_versions([tmp_path / 'a.csv', tmp_path / 'b.csv'], by='id')
    assert list(pair([a, b])) == ['001', 'NA'] and [row['niqe'] for row in a.rows] == [3.5, 4.5]


def test_names(tmp_path):
    a, b = make(tmp_path / 'one/out', '1.png'), make(tmp_path / 'two/out', '1.png')
    name = lambda *sources, **more: [v.name for v in read_versions(sources, **more)]  # noqa: E731
    assert name(f'{a}/', tmp_path / 'two') == ['out', 'two']
    assert name(a, b) == [str(a), str(b)]
    assert name(a, a) == [f'{a} (1)', f'{a} (2)']
    assert name(a, b, names=['old', 'new']) == ['old', 'new']
    assert name(rows('x/1.png'), rows('y/1.png')) == ['A', 'B']


def test_names_that_are_not_utf8(tmp_path):
    for folder in ('a', 'b'):
        make(tmp_path / folder, '1.png')
        os.rename(tmp_path / folder / '1.png', os.fsencode(tmp_path / folder) + b'/\xff.png')
    assert list(pairs(tmp_path / 'a', tmp_path / 'b')) == ['\udcff']


def test_labels(tmp_path):
    versions = read_versions([rows('1.png'), rows('1.png'), rows('1.png')])
    check_labels(versions)
    versions[0].label, versions[2].label = LABEL, LABEL | {'config': LABEL['config'] | {'alpha': 2.0}}
    check_labels(versions)  # the same fingerprint
    versions[2].label['fingerprint'] = 'g'
    with pytest.raises(ValueError, match=r'A and C have scores of different metrics: alpha was 1\.0 and is 2\.0'):
        check_labels(versions)
    versions[2].label = None
    with pytest.raises(ValueError, match='the folders and A'):
        check_labels(versions, LABEL | {'fingerprint': 'h'})


@pytest.mark.parametrize(
    ('sources', 'options', 'message'),
    [
        ([rows('1.png')], {}, '1 version to compare; expected at least two'),
        ([rows('1.png'), rows('2.png')], {}, "no image is in two versions: A has '1', B has '2'"),
        ([rows('1.png'), rows('1.png', '1.png')], {}, "B has '1.png' in the column 'path' of 2 rows"),
        ([rows('1.png'), rows('1.png')], {'by': 'id'}, "A has no column 'id'; its columns are path, score, error"),
        ([rows('1.png'), []], {}, 'B has no rows'),
        ([rows('1.png'), rows('1.png')], {'names': ['x', 'x']}, 'expected 2 different ones'),
        (['{tmp}', rows('1.png')], {'by': 'id'}, 'is a folder, which has no column'),
        (['{tmp}/none', rows('1.png')], {}, 'none does not exist; expected a folder of images, or a table .csv'),
        (['{tmp}/1.png', rows('1.png')], {}, 'is neither a folder nor a table'),
        (['{tmp}/empty.csv', rows('1.png')], {}, 'has no rows'),
    ],
)
def test_wrong_use(sources, options, message, tmp_path):
    make(tmp_path, '1.png')
    (tmp_path / 'empty.csv').write_text('path,score,error\n')
    sources = [s.format(tmp=tmp_path) if isinstance(s, str) else s for s in sources]
    with pytest.raises(ValueError) as caught:
        pair(read_versions(sources, **options))
    assert message in str(caught.value)
