"""Tables: any path and any error text read back equal in each format, and a cut file is continued without a loss."""

import codecs
import contextlib
import csv
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maclip_pyiqa._files import one_line
from maclip_pyiqa.metric.prompts import summary_columns
from maclip_pyiqa.scoring.formats import TABLES, open_table, read_label, read_table
from maclip_pyiqa.scoring.formats.csv import write_csv
from maclip_pyiqa.scoring.formats.parquet import ParquetTable
from maclip_pyiqa.scoring.formats.plain import PlainTable
from maclip_pyiqa.scoring.schema import columns, label

SUFFIXES = list(TABLES)
NAMES = columns(['sharp'], ['niqe'])
LABEL = {'versions': {'maclip_pyiqa': '1.0'}, 'config': {'backbone': 'RN50', 'stride': 128}, 'fingerprint': 'abc'}

paths = st.one_of(st.binary().map(os.fsdecode), st.text(st.characters(exclude_categories=())))
errors = st.text(st.characters(exclude_categories=()))
numbers = st.one_of(st.none(), st.floats(-1e6, 1e6))


def row(path, score=None, error='', **others):
    return {'path': path, **dict.fromkeys(NAMES[1:-1]), 'score': score, **others, 'error': error}


def seen(row, size, flags):
    """The same of an image that was read."""
    return row | {'width': size[0], 'height': size[1], 'flags': flags}


def finished(path, names, label=None):
    """Rows of an earlier run that have a score."""
    return open_table(path, names).resume(label)


def rounded(row):
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}


rows = st.builds(row, paths, numbers, errors, q_sim=numbers, attribute_sharp=numbers, niqe=numbers)
sizes = st.tuples(st.integers(1, 2**31), st.integers(1, 2**31))
rows = st.one_of(rows, st.builds(seen, rows, sizes, st.sampled_from(('', 'flat', 'noise border'))))
rows = rows.filter(lambda row: any(value not in ('', None) for value in row.values()))  # no empty rows


def save(path, rows, names=NAMES, label=None):
    with contextlib.closing(open_table(path, names)) as table:
        table.fill(label=label)
        for row in rows:
            table.write(row)


# --- properties -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', SUFFIXES)
@settings(max_examples=60)
@given(rows=st.lists(rows, max_size=5))
@example(rows=[row('lone\rreturn', 0.5), row('"quote"\n', 0.25, 'a\n"b",\r\nc')])
@example(rows=[row('\ufffd', 0.5), row('\ufffd\\udcff\\', 0.5), row('\\udcff', 0.5), row('bytes\udcff\\', 0.5)])
@example(rows=[row('=1+1', 0.5, '+cmd|x'), row('', 0.0), row('\ufeffbom', 1.0), row('\u2028\x85\x1c', 1e-7)])
def test_rows_read_back_equal(suffix, rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f'o{suffix}')
        save(path, rows)
        assert read_table(path) == [rounded(row) for row in rows]
        assert os.listdir(folder) == [path.name]


@pytest.mark.parametrize('suffix', SUFFIXES)
@settings(max_examples=30)
@given(names=st.lists(st.text(st.characters(exclude_categories=())), max_size=3, unique=True))
def test_columns_of_any_name_read_back_equal(suffix, names):
    names = columns(names)
    given = {'path': 'a', **dict.fromkeys(names[1:-4], 0.5), 'width': 3, 'height': 2, 'flags': '', 'error': ''}
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder, f'o{suffix}'), [given], names)
        assert read_table(Path(folder, f'o{suffix}')) == [given]


@pytest.mark.parametrize('suffix', SUFFIXES)
@settings(max_examples=60)
@given(rows=st.lists(rows, max_size=4, unique_by=lambda row: row['path']), data=st.data())
def test_resuming_after_a_cut_at_any_byte_gives_all_rows_once(suffix, rows, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f'o{suffix}')
        table = open_table(path, NAMES)
        table.fill(label=LABEL)
        for each in rows:
            table.write(each)
        written = next(file for file in Path(folder).iterdir() if not file.name.endswith('.meta.json'))
        content = written.read_bytes()
        cut = data.draw(st.integers(0, len(content)), label='cut')
        written.write_bytes(content[:cut])  # as a full disk or a power failure leaves it

        kept = finished(path, NAMES, LABEL)
        scored = [rounded(row) for row in rows if row['score'] is not None]
        assert kept[:-1] == scored[: len(kept)][:-1]
        assert [row | {'error': ''} for row in kept] == [row | {'error': ''} for row in scored[: len(kept)]]
        if cut == len(content):
            assert kept == scored
        done = {row['path'] for row in kept}
        table = open_table(path, NAMES)
        table.fill(kept, LABEL)
        for each in rows:
            if each['path'] not in done:
                table.write(each)
        table.close()
        found = [row | {'error': ''} for row in read_table(path)]  # its last cell is all that a row may lose
        assert sorted(map(repr, found)) == sorted(repr(rounded(row) | {'error': ''}) for row in rows)
        assert read_label(path) == LABEL


def test_a_cut_loses_the_cut_row_only(tmp_path):
    given = [row(f'a\n"{i}"', 0.5, 'an\nerror') for i in range(3)]
    for suffix in ('.csv', '.jsonl'):
        path = tmp_path / f'o{suffix}'
        save(path, given, label=LABEL)
        content, kept = path.read_bytes(), []
        for cut in range(len(content) + 1):
            path.write_bytes(content[:cut])
            kept.append(len(finished(path, NAMES, LABEL)))
        assert set(kept) == {0, 1, 2, 3} and kept[-3:] == [2, 3, 3]  # a row counts with or without its line break
        if suffix == '.jsonl':
            ends = [i for i, byte in enumerate(content) if byte == ord('\n')]
            assert kept == sorted(kept) and [kept.index(n) for n in (1, 2, 3)] == ends


# --- formats ----------------------------------------------------------------------------------------------------------


def test_other_libraries_read_them(tmp_path):
    """One file name that is not UTF-8 must not make a table unreadable."""
    given = [row('a,"b"\r\n.png', 0.5), row('bytes\udcff.png', 0.25, '漢字'), row('=1+1.png', None, 'no')]
    readers = {'.csv': pd.read_csv, '.jsonl': lambda path: pd.read_json(path, lines=True), '.parquet': pd.read_parquet}
    for suffix, read in readers.items():
        path = tmp_path / f'o{suffix}'
        save(path, given, label=LABEL)
        frame = read(path)
        assert tuple(frame.columns) == NAMES
        assert frame['path'].tolist() == ['a,"b"\r\n.png', '\ufffdbytes\\udcff.png', '=1+1.png']
        assert frame['score'].iloc[:2].tolist() == [0.5, 0.25] and frame['score'].isna().tolist()[2]
        assert frame['error'].iloc[1] == '漢字'


def test_csv_and_json_lines_as_text(tmp_path):
    save(tmp_path / 'o.csv', [row('=1+1', 2 / 3, 'x, y')], columns([], details=False))
    header, line = (tmp_path / 'o.csv').read_text().splitlines()
    assert (header, line) == ('path,score,width,height,flags,error', '=1+1,0.666667,,,,"x, y"')
    given = [seen(row('=1+1', 2 / 3), (640, 480), 'flat clipped'), row('b')]
    save(tmp_path / 'o.csv', given, columns([], details=False))
    assert (tmp_path / 'o.csv').read_text().splitlines()[1:] == ['=1+1,0.666667,640,480,flat clipped,', 'b,,,,,']
    save(tmp_path / 'o.jsonl', given, columns([], details=False))
    assert [json.loads(line) for line in (tmp_path / 'o.jsonl').read_text().splitlines()] == [
        {'path': '=1+1', 'score': 0.666667, 'width': 640, 'height': 480, 'flags': 'flat clipped', 'error': ''},
        {'path': 'b', 'score': None, 'width': None, 'height': None, 'flags': None, 'error': ''},
    ]


def test_plain_lines_of_scored_rows():
    stream = io.StringIO()
    table = PlainTable(stream, columns([], ['niqe'], details=False))
    table.fill([row('tab\tback\\slash\n\r', 0.5, 'niqe: no')])
    table.write(row('b', None, 'broken'))
    table.write(seen(row('c', 1.0, niqe=2.5), (640, 480), 'flat'))
    table.close()
    assert stream.getvalue() == 'tab\\tback\\\\slash\\n\\r\t0.500000\t\nc\t1.000000\t2.500000\n'


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_whole_numbers_and_flags(tmp_path, suffix):
    given = [seen(row('a', 0.5), (640, 480), ''), seen(row('b', 0.5), (1, 2), 'flat enlarged'), row('c', None, 'no')]
    save(tmp_path / f'o{suffix}', given)
    found = read_table(tmp_path / f'o{suffix}')
    assert found == given and type(found[0]['width']) is int
    assert [row['flags'] for row in found] == ['', 'flat enlarged', None]
    older = [name for name in NAMES if name not in ('width', 'height', 'flags')]
    save(tmp_path / f'o{suffix}', given, older)
    assert [list(row) for row in read_table(tmp_path / f'o{suffix}')] == [older] * 3


def test_numbers_that_are_not_finite_are_missing(tmp_path):
    for suffix in SUFFIXES:
        save(tmp_path / f'o{suffix}', [row('a', float('nan'), niqe=float('inf'))])
        assert read_table(tmp_path / f'o{suffix}') == [row('a')]


def test_rows_are_flushed_one_by_one(tmp_path):
    for suffix in SUFFIXES:
        table = open_table(tmp_path / f'o{suffix}', NAMES)
        table.fill([row('a', 1.0)])
        for count in (1, 2, 3):
            assert len(read_table(tmp_path / f'o{suffix}')) == count
            table.write(row(str(count), 0.5))
        table.close()


def test_parquet_has_a_journal_until_it_is_closed(tmp_path):
    path, journal = tmp_path / 'o.parquet', tmp_path / 'o.parquet.journal.jsonl'
    save(path, [row('old', 0.5)], label=LABEL)
    table = open_table(path, NAMES)
    table.fill([row('a', 0.5)], LABEL)
    table.write(row('b', 0.25))
    assert pd.read_parquet(path)['path'].tolist() == ['old']  # untouched until the new one is complete
    assert (
        [row['path'] for row in read_table(path)] == [row['path'] for row in finished(path, NAMES, LABEL)] == ['a', 'b']
    )
    content = journal.read_bytes()
    table.close()
    assert sorted(os.listdir(tmp_path)) == ['o.parquet']
    assert [row['path'] for row in read_table(path)] == ['a', 'b'] and read_label(path) == LABEL
    journal.write_bytes(content)  # as if the process had ended before the journal was removed
    (tmp_path / 'o.parquet.journal.jsonl.meta.json').write_text(json.dumps(LABEL))
    assert finished(path, NAMES, LABEL) == read_table(path) and len(read_table(path)) == 2


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_tables_saved_by_pandas(tmp_path, suffix):
    """Which makes a column of whole numbers with a missing one a column of floats."""
    given, path = [seen(row('a', 0.5), (640, 480), 'flat'), row('b', None, 'no')], str(tmp_path / f'o{suffix}')
    save(path, given)
    if suffix == '.csv':
        pd.read_csv(path).to_csv(path, index=False)
    elif suffix == '.jsonl':
        pd.read_json(path, lines=True).to_json(path, orient='records', lines=True)
    else:
        pd.read_parquet(path).to_parquet(path)
    found = read_table(path)
    assert [row['score'] for row in found] == [0.5, None] and found[0]['width'] == 640 and found[0]['flags'] == 'flat'


def test_tables_saved_by_a_spreadsheet(tmp_path):
    path = tmp_path / 'o.csv'
    save(path, [row('ä', 0.5), row('b\nc', 0.25)], label=LABEL)
    with open(path, newline='', encoding='utf-8') as file:
        cells = list(csv.reader(file))
    with open(path, 'w', newline='', encoding='utf-8-sig') as file:
        csv.writer(file).writerows([*cells, []])  # with a byte order mark, CRLF, and an empty line
    assert [row['path'] for row in finished(path, NAMES, LABEL)] == ['ä', 'b\nc']


# --- labels and resuming ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_labels(tmp_path, tiny_metric, suffix):
    path = tmp_path / f'o{suffix}'
    mine = label(tiny_metric)
    assert mine['fingerprint'] == tiny_metric.fingerprint() and mine['config'] == tiny_metric.config
    save(path, [row('a', 0.5)], label=mine)
    assert read_label(path)['fingerprint'] == mine['fingerprint']
    assert read_label(path)['config']['prompts'][1] == ['Sharp image', 'blurry image']
    assert finished(path, NAMES, mine) == read_table(path)
    save(path, [row('a', 0.5)])  # a new table without a label does not keep the old one
    assert read_label(path) is None


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_tables_of_another_metric_are_refused(tmp_path, suffix):
    path = tmp_path / f'o{suffix}'
    save(path, [row('a', 0.5)], label=LABEL)
    options = LABEL | {'config': {'backbone': 'RN101', 'stride': 128}, 'fingerprint': 'x'}
    with pytest.raises(ValueError, match="backbone was 'RN50' and is 'RN101'") as caught:
        finished(path, NAMES, options)
    assert 'stride' not in str(caught.value)
    with pytest.raises(ValueError, match='the weights differ'):
        finished(path, NAMES, LABEL | {'fingerprint': 'x'})
    with pytest.raises(ValueError, match=r'which was 1\.0 and is 2\.0'):
        finished(path, NAMES, LABEL | {'fingerprint': 'x', 'versions': {'maclip_pyiqa': '2.0'}})
    with pytest.raises(ValueError, match='its columns are path, score, q_sim'):
        finished(path, columns([], details=False), LABEL)
    save(path, [row('a', 0.5)])
    with pytest.raises(ValueError, match='no label'):
        finished(path, NAMES, LABEL)
    save(path, [row('a', None, 'broken')])  # no score that could be from another metric
    assert finished(path, NAMES, LABEL) == []
    assert finished(tmp_path / f'none{suffix}', NAMES, LABEL) == []


@pytest.mark.parametrize('content', ['precious', 'precious\n', 'path,score,error\n', '{"path": 1}\n', '[]\n', '\xff\n'])
@pytest.mark.parametrize('suffix', SUFFIXES)
def test_files_that_are_not_our_tables_are_not_resumed(tmp_path, suffix, content):
    path = tmp_path / f'o{suffix}'
    path.write_text(content, 'latin-1')
    with pytest.raises(ValueError, match=r'o\.'):
        finished(path, NAMES, LABEL)


@pytest.mark.parametrize(
    ('suffix', 'content', 'where'),
    [
        ('.csv', 'path,score,error\na,0.5\nb,0.5,\n', 'line 2'),
        ('.csv', 'path,score,error\na,half,\n', "line 2: 'half' in the column score is not a number; expected one, or"),
        ('.csv', 'path,score,caption\na,0.5,"x\ny"\nb,0_5,\n', "line 4: '0_5' in the column score"),
        ('.csv', 'path,score\na,"0,5"\n', "line 2: '0,5' in the column score"),  # or is it 5?
        ('.csv', 'path;score\na;1.234,5\n', r"line 2: '1\.234,5' in the column score"),
        ('.jsonl', '{"path": "a", "score": 1}\n{"path": \n', 'line 2'),
        ('.jsonl', '{"path": "a", "score": "half"}\n', "line 1: 'half' in the column score"),
        ('.jsonl', '\n{"path": "a", "score": true}\n', 'line 2: True in the column score'),
    ],
)
def test_errors_name_the_line(tmp_path, suffix, content, where):
    (tmp_path / f'o{suffix}').write_text(content)
    with pytest.raises(ValueError, match=where):
        read_table(tmp_path / f'o{suffix}')


def test_files_that_cannot_be_read(tmp_path):
    for suffix in SUFFIXES:
        with pytest.raises(FileNotFoundError):
            read_table(tmp_path / f'o{suffix}')
    with pytest.raises(ValueError, match=r"'o\.txt'.*\.csv, \.jsonl, \.parquet"):
        read_table('o.txt')


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    def broken():
        yield row('b', 0.5)
        raise KeyboardInterrupt

    for suffix in SUFFIXES:
        path = tmp_path / f'o{suffix}'
        save(path, [row('a', 0.5)], label=LABEL)
        before = sorted(os.listdir(tmp_path))
        with pytest.raises(KeyboardInterrupt):
            open_table(path, NAMES).fill(broken(), LABEL)
        assert read_table(path) == [row('a', 0.5)] and sorted(os.listdir(tmp_path)) == before


def test_links_and_suffixes_in_capitals(tmp_path):
    (tmp_path / 'link.CSV').symlink_to(tmp_path / 'o.csv')
    save(tmp_path / 'link.CSV', [row('a', 0.5)])
    assert (tmp_path / 'link.CSV').is_symlink() and read_table(tmp_path / 'o.csv') == [row('a', 0.5)]


def test_what_cannot_be_replaced_is_written_as_a_stream(tmp_path):
    (tmp_path / 'o.csv').symlink_to('/dev/null')
    table = open_table(tmp_path / 'o.csv', NAMES)
    assert table.is_stream
    table.fill([row('a', 0.5)])
    table.close()
    assert not os.path.isfile('/dev/null') and os.listdir(tmp_path) == ['o.csv']


def test_wrong_use(tmp_path, monkeypatch):
    for path in ('o', 'o.txt', 'o.parquet.gz'):
        with pytest.raises(ValueError, match='no suffix of a table; expected one of'):
            open_table(path, NAMES)
    with pytest.raises(ValueError, match='cannot be written to a stream'):
        ParquetTable(io.StringIO(), NAMES)
    with pytest.raises(ValueError, match=r'before fill\(\)'):
        open_table(tmp_path / 'o.csv', NAMES).write(row('a'))
    with pytest.raises(OSError):
        open_table(tmp_path / 'none' / 'o.csv', NAMES).fill()
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ModuleNotFoundError, match=r'maclip_pyiqa\[parquet\]'):
        open_table(tmp_path / 'o.parquet', NAMES)
    for read in (read_table, read_label):
        with pytest.raises(ModuleNotFoundError, match=r'maclip_pyiqa\[parquet\]'):
            read(tmp_path / 'o.parquet')
    assert not os.listdir(tmp_path)


def test_no_metric_shares_a_column():
    attributes = ['score', 'path', 'error', 'q_sim', 'niqe']
    names = columns(attributes, ['niqe'])
    assert len(set(names)) == len(names) and names[1:-5] == summary_columns(attributes)
    for name in ('path', 'score', 'q_sim', 'q_mag', 'w_sim', 'width', 'flags', 'error', 'attribute_sharp'):
        with pytest.raises(ValueError, match=f"metric named '{name}'"):
            columns(attributes, [name])
    with pytest.raises(ValueError, match="metric named 'niqe'"):
        columns(attributes, ['niqe', 'niqe'])


def test_one_line():
    assert one_line(ValueError('a\n  b\t')) == 'a b'
    assert one_line(FileNotFoundError(2, 'No such file or directory', 'a.png')) == 'No such file or directory'
    assert one_line(KeyboardInterrupt()) == 'KeyboardInterrupt'
    assert len(one_line(ValueError('x' * 5000))) == 1000


# --- tables that people edited ----------------------------------------------------------------------------------------


def written(path, text, encoding='utf-8'):
    path.write_bytes(text.encode(encoding))
    return read_table(path)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize(
    'text',
    [
        'path,score,width,note,id,n\nä.png,0.5,64,"a, b",007,1\nb;c.png,0.7,32,,x,\n',
        'path,score,width,note,id,n\r\nä.png,0.5,64,"a, b",007,1\r\nb;c.png,0.7,32,,x,\r\n,,,,,\r\n',
        'path,score,width,note,id,n\rä.png,0.5,64,"a, b",007,1\rb;c.png,0.7,32,,x,\r',
        'path,score,width,note,id,n\nä.png,0.5,64,"a, b",007,1\nb;c.png,0.7,32,,x,',
        'n;note;id;"score";width;path\n1;a, b;007;0.5;64.0;ä.png\n;;x;0.7;32.0;"b;c.png"\n',
        'n;note;id;"score";width;path\n1;a, b;007;0,5;64,0;ä.png\n;;x;"0,7";32;"b;c.png"\n',
        'n\tnote\tid\tscore\twidth\tpath\n1\ta, b\t007\t0,5\t64\tä.png\n\t\tx\t0,7\t32\tb;c.png\n',
        'path,score,width,note,id,n,,\nä.png,0.5,64,"a, b",007,1,,\nb;c.png,0.7,32,,x,,,\n',
    ],
)
def test_csv_of_spreadsheets(tmp_path, text, encoding):
    first = {'path': 'ä.png', 'score': 0.5, 'width': 64, 'note': 'a, b', 'id': '007', 'n': 1}
    second = {'path': 'b;c.png', 'score': 0.7, 'width': 32, 'note': None, 'id': 'x', 'n': None}
    assert written(tmp_path / 'o.csv', text, encoding) == [first, second]


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_json_lines_of_editors(tmp_path, encoding):
    text = '{"path": "ä", "score": 0.5}\r\n\r\n{"more": 1, "score": NaN, "path": "b"}'
    found = written(tmp_path / 'o.jsonl', text, encoding)
    assert found == [{'path': 'ä', 'score': 0.5, 'more': None}, {'path': 'b', 'score': None, 'more': 1}]
    assert len(written(tmp_path / 'o.jsonl', text[:-1], encoding)) == 1  # cut off


@pytest.mark.parametrize('word', ['', 'NA', 'N/A', '#N/A', 'NaN', 'nan', '<NA>', 'null', 'NULL', 'None'])
@pytest.mark.parametrize('suffix', ['.csv', '.jsonl'])
def test_words_for_missing_values(tmp_path, suffix, word):
    names = ('path', 'score', 'niqe', 'width', 'flags', 'error', *['caption'] * (suffix == '.csv'))
    lines = [('NA', 'inf', '3.5', word, word, word, word), ('b', word, word, '64', word, word, 'text')]
    if suffix == '.csv':
        text = '\n'.join(map(','.join, [names, *lines])) + '\n'
    else:
        cells = [[json.loads(cell) if cell[0:1].isdigit() else cell for cell in line] for line in lines]
        text = ''.join(json.dumps(dict(zip(names, line, strict=False))) + '\n' for line in cells)
    first, second = written(tmp_path / f'o{suffix}', text)
    assert first | {'caption': None} == {
        **{'path': 'NA', 'score': None, 'niqe': 3.5, 'width': None, 'flags': None, 'error': '', 'caption': None}
    }
    assert second | {'caption': 'text'} == {
        **{'path': 'b', 'score': None, 'niqe': None, 'width': 64, 'flags': '', 'error': '', 'caption': 'text'}
    }


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_errors_that_look_missing_read_back_equal(tmp_path, suffix):
    given = [row('NA', None, 'None'), row('None', 0.5, 'nan'), row('nan', 0.5, ' ')]
    save(tmp_path / f'o{suffix}', given)
    assert read_table(tmp_path / f'o{suffix}') == given


FURTHER = {
    **{'caption': ['a "cat", sitting', None], 'id': ['001', '002'], 'tweet': [2**62 + 1, 3], 'label': [3.0, None]},
    **{'tiny': [1e-9, 2.0], 'ok': [True, False], 'nothing': [None, None], 'long': [str(10**20), '1']},
}


def join(path, change=lambda frame: frame, **options):
    """Columns that somebody joins with pandas."""
    with contextlib.suppress(FileNotFoundError):
        label = read_label(path)
    reader = {'.csv': pd.read_csv, '.jsonl': lambda path: pd.read_json(path, lines=True), '.parquet': pd.read_parquet}
    frame = change(reader[path.suffix](path).assign(**FURTHER))
    if path.suffix == '.csv':
        frame.to_csv(path, **{'index': False} | options)
    elif path.suffix == '.jsonl':
        frame.to_json(path, orient='records', lines=True, double_precision=15)
    else:
        table = pyarrow.Table.from_pandas(frame, preserve_index=False)
        pyarrow.parquet.write_table(table.replace_schema_metadata({'maclip_pyiqa': json.dumps(label)}), path)


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_further_columns(tmp_path, suffix):
    path = tmp_path / f'o{suffix}'
    save(path, [seen(row('a', 0.5), (640, 480), ''), row('b', None, 'no')])
    join(path)
    found = read_table(path)
    ok = ['True', 'False'] if suffix == '.csv' else [True, False]
    assert {name: [row[name] for row in found] for name in FURTHER} == FURTHER | {'ok': ok}
    assert [row['path'] for row in found] == ['a', 'b'] and found[0]['width'] == 640 and found[1]['score'] is None
    assert type(found[0]['tweet']) is int
    text = read_table(path, text=('tweet', 'label', 'caption'))
    assert text[0]['tweet'] == str(2**62 + 1) and text[1]['caption'] == ''


def test_columns_that_repeat_or_have_no_name(tmp_path):
    found = written(tmp_path / 'o.csv', ',path,score,x,x,x.1\n0,a,0.5,1,2,3\n1,b,0.7,4,5,6\n')
    assert found[1] == {'': 1, 'path': 'b', 'score': 0.7, 'x': 4, 'x.1': 5, 'x.1.1': 6}
    assert written(tmp_path / 'o.csv', 'id,score\n007,1\n') == [{'id': '007', 'score': 1.0}]  # of a collection


@pytest.mark.parametrize(
    ('content', 'count'),
    [
        ('path,score\na,0.5\nb,0.7', 2),
        ('path,score,error\na,0.5,\nb,0.7', 1),
        ('path,score,error\na,0.5,\nb,0.7,"no', 1),
        ('path,score,error\na,0.5,\nb,0.7,"no\n', 1),
        ('path,score,error\na,0.5,\n"b\n', 1),
        ('path,score,error\n5" x,0.5,\nb,0.7,"no"', 2),
        ('path,score,error', 0),
        ('path,sc', 0),
        ('', 0),
    ],
)
def test_a_last_line_without_its_line_break(tmp_path, content, count):
    assert len(written(tmp_path / 'o.csv', content)) == count


def test_a_character_that_is_cut(tmp_path):
    (tmp_path / 'o.csv').write_bytes('path,score,error\na,0.5,\nb,0.7,ä'.encode()[:-1])
    assert [row['error'] for row in read_table(tmp_path / 'o.csv')] == ['', '']
    (tmp_path / 'o.csv').write_bytes('path,score\nä,0.5\n'.encode('latin-1'))
    with pytest.raises(ValueError, match=r'it is not UTF-8\. Expected UTF-8, or UTF-16 with a byte'):
        read_table(tmp_path / 'o.csv')


@pytest.mark.parametrize('name', ['o.excel.csv', 'o.Excel.CSV', 'o.csv'])
def test_a_byte_order_mark_for_excel(tmp_path, name):
    mark = codecs.BOM_UTF8 * (name != 'o.csv')
    save(tmp_path / name, [row('ä', 0.5)], label=LABEL)
    table = open_table(tmp_path / name, NAMES)
    table.fill(table.resume(LABEL), LABEL)
    table.write(row('b', 0.7))
    table.close()
    content = (tmp_path / name).read_bytes()
    assert content.startswith(mark + b'path,') and content.count(codecs.BOM_UTF8) == len(mark) // 3
    assert [row['path'] for row in finished(tmp_path / name, NAMES, LABEL)] == ['ä', 'b']
    write_csv(tmp_path / name, [{'a': 1}])
    assert (tmp_path / name).read_bytes() == mark + b'a\n1\n'


# --- resuming them ----------------------------------------------------------------------------------------------------


def resumed(path, rows, names=NAMES):
    """The table after a run that scores these rows."""
    table = open_table(path, names)
    table.fill(table.resume(LABEL), LABEL)
    for each in rows:
        table.write(each)
    table.close()
    return read_table(path)


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_resuming_keeps_further_columns_and_their_order(tmp_path, suffix):
    path, names = tmp_path / f'o{suffix}', ['label', 'score', 'path', 'caption', 'error', 'id', 'tweet', 'tiny', 'ok']
    more = [name for name in NAMES if name not in (*names, 'flags', 'width')]  # those may be missing
    save(path, [seen(row('a', 0.5), (640, 480), 'flat'), row('b', None, 'no')], label=LABEL)
    join(path, lambda frame: frame[[*names, *more]])
    before = read_table(path)
    found = resumed(path, [seen(row('b', 0.25), (1, 2), ''), seen(row('c', 1.0), (3, 4), '')])
    assert list(found[0]) == [*names, *more, 'width', 'flags'] and read_label(path) == LABEL
    further = [[row[name] for name in FURTHER if name in names] for row in found]
    assert further[:2] == [[row[name] for name in FURTHER if name in names] for row in before]  # b, scored again, too
    assert further[2] == [None] * len(further[2])
    scores = [(row['path'], row['score'], row['error'], row['height'], row['width']) for row in found]
    assert scores == [('a', 0.5, '', 480, None), ('b', 0.25, '', 2, 1), ('c', 1.0, '', 4, 3)]
    if suffix == '.parquet':
        kinds = {field.name: str(field.type) for field in pyarrow.parquet.read_schema(path)}
        assert kinds['tweet'] == 'int64' and kinds['ok'] == 'bool' and kinds['caption'] == 'string'
    assert resumed(path, []) == found


def test_resuming_a_journal_keeps_further_columns(tmp_path):
    path = tmp_path / 'o.parquet'
    save(path, [row('a', 0.5), row('b', 0.25)], label=LABEL)
    join(path)
    table = open_table(path, NAMES)
    table.fill(table.resume(LABEL), LABEL)
    table.write(row('c', 1.0))  # and the process ends
    found = resumed(path, [row('d', 1.0)])
    assert [row['id'] for row in found] == ['001', '002', None, None] and found[0]['tiny'] == 1e-9


def test_tables_that_cannot_be_resumed(tmp_path):
    path = tmp_path / 'o.csv'
    save(path, [row('a', 0.5)], label=LABEL)
    path.write_text('path,score,error,caption\na,0.5,,one\n./a,0.5,,two\n')
    with pytest.raises(ValueError, match=r"it has './a' in rows that differ in caption; expected each path once"):
        finished(path, columns([], details=False), LABEL)
    path.write_text('path,score,error,q_sim\na,0.5,,0.1\n')  # of --details
    with pytest.raises(ValueError, match='its columns are path, score, error, q_sim; expected path, score, width'):
        finished(path, columns([], details=False), LABEL)
    path.write_text('path,score,width\na,0.5,wide\n')
    with pytest.raises(ValueError, match='its column width has text; expected numbers'):
        finished(path, columns([], details=False), LABEL)
    path = tmp_path / 'o.parquet'
    given = pyarrow.table({'path': ['a'], 'score': [0.5], 'image': [b'\x00']})
    pyarrow.parquet.write_table(given.replace_schema_metadata({'maclip_pyiqa': json.dumps(LABEL)}), path)
    with pytest.raises(ValueError, match='bytes is not JSON serializable; expected text or numbers in image'):
        finished(path, columns([], details=False), LABEL)


def test_excels_line_that_names_the_delimiter(tmp_path):
    path = tmp_path / 'o.csv'
    path.write_text('sep=;\npath;score;n\na.png;0,5;7\n')
    assert read_table(path) == [{'path': 'a.png', 'score': 0.5, 'n': 7}]
    path.write_text('sep=;\npath;score\na.png;high\n')
    with pytest.raises(ValueError, match='line 3'):
        read_table(path)
