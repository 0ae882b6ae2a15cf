"""`maclip-pyiqa filter`, as a user runs it."""

import sys

import pytest

from maclip_pyiqa.cli import main
from maclip_pyiqa.scoring.formats import read_label, read_table
from maclip_pyiqa.scoring.formats.parquet import to_bytes, to_table
from maclip_pyiqa.scoring.schema import arrow_schema
from maclip_pyiqa.scoring.source import MANIFEST


@pytest.fixture
def filter_(capsys):
    def run(*args):
        code = main(['filter', *map(str, args)])
        return code, *capsys.readouterr()

    return run


def test_the_best_of_a_scored_folder(run, filter_, folder, tmp_path):
    assert run(folder, '-o', tmp_path / 'scores.csv')[0] == 0
    best = max(read_table(tmp_path / 'scores.csv'), key=lambda row: row['score'])
    code, out, err = filter_(tmp_path / 'scores.csv', '--top', '1', '-o', tmp_path / 'kept.jsonl')
    assert (code, err) == (0, '') and read_table(tmp_path / 'kept.jsonl') == [best]
    assert out.startswith('3 images: 3 with a score, 0 failed\n1 kept, 33.3% of those with a score')
    code, out, _ = filter_(tmp_path / 'scores.csv', '--top', '34%')
    assert code == 0 and '1 kept' in out
    code, out, _ = filter_(tmp_path / 'scores.csv', '--min-score', '0.1', '--max-score', '0.11')
    assert code == 1 and '0 kept' in out
    code, out, _ = filter_(tmp_path / 'scores.csv', '--without-flags', 'all')
    assert '3 images' in out


def test_an_unfinished_collection_is_told(filter_, tmp_path):
    (tmp_path / 'out').mkdir()
    table = to_table([{'path': 'a.png', 'score': 0.5, 'error': ''}], arrow_schema(['path', 'score', 'error']))
    (tmp_path / 'out' / 'a.parquet').write_bytes(to_bytes(table, {'fingerprint': 'x'}))
    (tmp_path / 'out' / MANIFEST).write_text('{"complete": false}')
    code, out, err = filter_(tmp_path / 'out', '-o', tmp_path / 'kept.txt')
    assert code == 0 and '1 kept' in out and 'is not complete' in err
    assert (tmp_path / 'kept.txt').read_text() == 'a.png\n'
    (tmp_path / 'out' / MANIFEST).write_text('{"complete": true}')
    assert filter_(f'{tmp_path}/out/')[2] == ''


def test_percentiles(run, filter_, folder, tmp_path):
    assert run(folder, '-o', tmp_path / 'scores.csv')[0] == 0
    names = ['path', 'score', 'error']
    (tmp_path / 'out').mkdir()
    known = [row | {'score': row['score'] - 1e-6} for row in read_table(tmp_path / 'scores.csv')]
    table = to_table(known, arrow_schema(names))
    (tmp_path / 'out' / 'a.parquet').write_bytes(to_bytes(table, read_label(tmp_path / 'scores.csv')))
    (tmp_path / 'out' / MANIFEST).write_text('{"complete": false}')
    args = (tmp_path / 'scores.csv', '--reference', tmp_path / 'out', '--min-percentile')
    code, out, err = filter_(*args, '50', '-o', tmp_path / 'kept.jsonl')
    assert code == 0 and '2 kept' in out and f'--reference {tmp_path}/out: the run that writes these scores' in err
    rows = read_table(tmp_path / 'kept.jsonl')
    assert sorted(row['percentile'] for row in rows) == [66.666667, 100]
    assert filter_(tmp_path / 'kept.jsonl', '--min-percentile', '70')[1].startswith(
        '2 images: 2 with a score, 0 failed\n1'
    )
    for wrong, message in (('101', 'expected a number from 0 to 100'), ('x', 'invalid float')):
        code, _, err = filter_(*args, wrong)
        assert code == 2 and message in err


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ([], 'SCORES'),
        (['{tmp}'], 'not a folder of scores'),
        (['{tmp}/none.csv'], 'No such file'),
        (['{tmp}/a.txt'], 'no suffix of a table'),
        (['{tmp}/a.csv', '--top', '0'], 'neither a number of images nor a percentage'),
        (['{tmp}/a.csv', '--top', '101%'], 'neither a number of images nor a percentage'),
        (['{tmp}/a.csv', '--top', '1.5'], 'neither a number of images nor a percentage'),
        (['{tmp}/a.csv', '--min-score', 'x'], 'invalid float'),
        (['{tmp}/a.csv', '--min-percentile', '50'], 'needs a reference'),
        (['{tmp}/a.csv', '--reference', '{tmp}/a.csv'], 'there is no label'),
        (['{tmp}/a.csv', '--reference', '{tmp}/none.csv'], 'No such file'),
        (['{tmp}/a.csv', '--without-flags', 'ugly'], "unknown flag 'ugly'; expected some of flat, noise"),
        (['{tmp}/a.csv', '-o', '{tmp}/a.csv'], 'among the scores that are filtered'),
        (['{tmp}/a.csv', '-o', '{tmp}/no/kept.csv'], 'No such file'),
    ],
)
def test_wrong_use(filter_, tmp_path, args, message):
    (tmp_path / 'a.csv').write_text('path,score,width,height,flags,error\na.png,0.500000,1,1,,\n')
    code, out, err = filter_(*(arg.format(tmp=tmp_path) for arg in args))
    assert code == 2 and out == '' and message in err and 'Traceback' not in err


def test_without_pyarrow(filter_, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    code, _, err = filter_(tmp_path / 'a.csv')
    assert code == 2 and 'maclip_pyiqa[parquet]' in err


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
def test_a_table_that_people_edited(filter_, tmp_path, delimiter, encoding):
    lines = ['|path|score|flags|caption', '0|a.png|0.5|NA|a cat', '1|b.png|0.7|flat|NA', '2|NA|NA|NA|NA']
    text = '\n'.join(lines).replace('|', delimiter)
    (tmp_path / 'scores.csv').write_text(text if delimiter == ',' else text.replace('0.', '0,'), encoding)
    assert filter_(tmp_path / 'scores.csv', '-o', tmp_path / 'kept.txt')[0] == 0
    assert (tmp_path / 'kept.txt').read_text() == 'a.png\nb.png\n'
    code, out, err = filter_(tmp_path / 'scores.csv', '--without-flags', 'flat', '-o', tmp_path / 'kept.excel.csv')
    assert (code, err) == (0, '') and '3 images: 2 with a score, 1 failed' in out
    assert read_table(tmp_path / 'kept.excel.csv') == [
        {'': 0, 'path': 'a.png', 'score': 0.5, 'flags': '', 'caption': 'a cat'}
    ]
    assert (tmp_path / 'kept.excel.csv').read_bytes().startswith(b'\xef\xbb\xbf')
