"""Scores read back: a table, a folder of tables, local and at URLs, all alike."""

import datetime
import json
import math
from itertools import pairwise

import fsspec
import numpy as np
import pytest

from maclip_pyiqa.scoring.filter import filter_scores
from maclip_pyiqa.scoring.formats import open_table, read_table
from maclip_pyiqa.scoring.formats.parquet import to_bytes, to_table
from maclip_pyiqa.scoring.schema import arrow_schema, columns
from maclip_pyiqa.scoring.source import MANIFEST, ScoreSource, open_scores

LABEL = {'versions': {'maclip_pyiqa': '0.1.0'}, 'config': {'max_views': None}, 'fingerprint': 'abc'}
NAMES = columns(['sharp'], ['niqe'])
TABLES = ('.csv', '.jsonl', '.parquet')


def row(path, score, flags='', error='', **more):
    seen = (
        {'width': 9, 'height': 7, 'flags': flags} if flags is not None else dict.fromkeys(('width', 'height', 'flags'))
    )
    return dict.fromkeys(NAMES) | {'path': path, 'score': score, **more, **seen, 'error': error}


ROWS = [
    row('a/ü.png', 0.25, q_sim=0.5, niqe=4.123456),
    row('b\udcff.png', 0.7, 'noise border'),
    row('=1+1.png', None, None, 'broken, "x"\n'),
    row('NA', 1 / 3, attribute_sharp=1.0),
]


def saved(kind, tmp_path):
    """Where the rows are, as a table or a folder, local or in memory."""
    place, suffix = kind.split(' ')
    if suffix in TABLES:
        path = tmp_path / f'scores{suffix}'
        table = open_table(path, NAMES)
        table.fill(ROWS, LABEL)
        table.close()
        files = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    else:
        path = tmp_path / 'scores'
        path.mkdir()
        tables = (to_table(part, arrow_schema(NAMES)) for part in (ROWS[:3], ROWS[3:]))
        files = {f'scores/{name}.parquet': to_bytes(each, LABEL) for name, each in zip('ab', tables, strict=True)}
        files[f'scores/{MANIFEST}'] = json.dumps({'complete': False, 'updated': '2026-11-26'}).encode()
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
    if place == 'local':
        return str(path)
    memory = fsspec.filesystem('memory')
    root = f'/{tmp_path.name}'
    for name, data in files.items():
        memory.pipe_file(f'{root}/{name}', data)
    return f'memory:/{root}/{path.name}'


@pytest.mark.parametrize(
    'kind', [f'{place} {suffix}' for place in ('local', 'memory') for suffix in (*TABLES, 'folder')]
)
def test_all_are_read_alike(tmp_path, kind):
    scores = open_scores(saved(kind, tmp_path))
    want = [each | {'score': each['score'] and round(each['score'], 6)} for each in ROWS]
    assert scores.rows() == want and scores.label == LABEL and scores.columns == NAMES and len(scores) == 4
    assert scores.changed.startswith('20') and scores.is_complete == ('folder' not in kind)
    batches = list(scores.batches(['score', 'niqe']))
    assert [each['score'] for batch in batches for each in batch.to_pylist()] == [each['score'] for each in want]
    assert {str(field.type) for batch in batches for field in batch.schema} == {'double'}
    assert all(batch.schema.names == [*NAMES] for batch in scores.batches())


def test_a_folder_of_tables_without_a_manifest(tmp_path):
    path = tmp_path / 'scores'
    path.mkdir()
    with pytest.raises(FileNotFoundError, match='not a folder of scores'):
        open_scores(path)
    (path / MANIFEST).write_text('{"complete": false}')
    with pytest.raises(FileNotFoundError, match='has no finished table yet'):
        open_scores(path)
    (path / MANIFEST).write_text('{')
    with pytest.raises(ValueError, match='is not JSON'):
        open_scores(path)
    (path / MANIFEST).unlink()
    (path / 'a.parquet').write_bytes(to_bytes(to_table(ROWS, arrow_schema(NAMES)), None))
    scores = open_scores(path)
    assert (scores.label, scores.is_complete, len(scores)) == (None, True, 4)


def test_what_is_not_there(tmp_path):
    for name in ('none.csv', 'none.jsonl', 'none.parquet', 'none'):
        with pytest.raises((FileNotFoundError, ValueError), match='none'):
            open_scores(tmp_path / name)
    (tmp_path / 'half.parquet').write_bytes(b'PAR1')
    with pytest.raises(ValueError, match='not a complete Parquet file'):
        open_scores(tmp_path / 'half.parquet')


def test_the_journal_of_a_table_that_is_being_written(tmp_path):
    table = open_table(tmp_path / 'o.parquet', NAMES)
    table.fill(ROWS[:1], LABEL)
    table.write(ROWS[1])
    scores = open_scores(tmp_path / 'o.parquet')
    assert scores.rows() == ROWS[:2] and scores.label == LABEL and len(scores) == 2
    table.close()
    assert open_scores(tmp_path / 'o.parquet').rows() == read_table(tmp_path / 'o.parquet') == ROWS[:2]


def test_columns_that_pandas_gave_other_types(tmp_path):
    """Of flags that are all missing, and of pixels with one missing."""
    pa, pq = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    cells = {'path': ['a', 'b'], 'score': [0.5, 0.7], 'width': [64.0, None], 'flags': pa.nulls(2, pa.float64())}
    pq.write_table(pa.table(cells), tmp_path / 'a.parquet')
    kept = filter_scores(tmp_path / 'a.parquet', tmp_path / 'k.csv', without_flags=['flat'])
    assert kept.kept == 2 and (tmp_path / 'k.csv').read_text().splitlines()[1:] == ['a,0.500000,64,', 'b,0.700000,,']


def test_a_journal_beside_an_older_file(tmp_path):
    table = open_table(tmp_path / 'o.parquet', NAMES)
    table.fill(ROWS[:1], LABEL)
    table.close()
    table.fill(ROWS[:1], LABEL)
    table.write(ROWS[1])
    scores = open_scores(tmp_path / 'o.parquet')
    assert len(scores) == sum(map(len, scores.batches(['path']))) == filter_scores(tmp_path / 'o.parquet').rows == 2


def test_the_length_of_a_parquet_table_is_known_without_its_rows(tmp_path, monkeypatch):
    table = open_table(tmp_path / 'o.parquet', NAMES)
    table.fill(ROWS, LABEL)
    table.close()
    monkeypatch.setattr('maclip_pyiqa.scoring.source.read_table', None)  # so that reading the rows would fail
    assert len(open_scores(tmp_path / 'o.parquet')) == len(ROWS)


# --- what a notebook shows ------------------------------------------------------------------------------------------


def tables(root):
    """The tables of what a notebook shows, as rows of text: the first rows, and the histogram."""
    return [[[''.join(cell.itertext()) for cell in row] for row in table] for table in root.iter('table')]


@pytest.mark.parametrize('kind', [f'local {suffix}' for suffix in (*TABLES, 'folder')])
def test_a_notebook_shows_scores(tmp_path, kind, read_html):
    scores = open_scores(saved(kind, tmp_path))
    root = read_html(scores._repr_html_())
    text, (head, *rows), bars = ' '.join(root.itertext()), *tables(root)
    assert head == ['path', 'score', 'q_sim', 'q_mag', 'flags', 'error']
    assert [row[0] for row in rows] == ['a/ü.png', 'b\ufffd.png', '=1+1.png', 'NA']
    assert [row[1:3] for row in rows] == [['0.250', '0.500'], ['0.700', ''], ['', ''], ['0.333', '']]
    assert rows[1][4] == 'noise border' and rows[2][5] == 'broken, "x"'
    counts, edges = np.histogram([0.25, 0.7, 1 / 3], 10)
    assert [int(row[2]) for row in bars] == counts.tolist()
    assert [row[0] for row in bars] == [f'{a:.3f} to {b:.3f}' for a, b in pairwise(edges)]
    assert (
        scores.path[-20:] in text and 'Images: 4, of which the first 4:' in text and '3 with a score, 1 without' in text
    )
    assert 'maclip_pyiqa 0.1.0' in text and 'fingerprint abc' in text
    assert ('Not complete' in text) == ('folder' in kind)
    state = ', not complete' if 'folder' in kind else ''
    assert repr(scores) == f'ScoreSource({scores.path!r}, fingerprint abc{state})'


def test_a_notebook_says_what_scores_are_of(tmp_path, read_html):
    config = {'backbone': 'demo', 'head': None}
    for label, words in [(LABEL | {'config': config}, 'demonstration backbone: not CLIP'), (None, 'unknown metric')]:
        path = tmp_path / f'{words[:4]}<b>.jsonl'
        table = open_table(path, NAMES)
        table.fill(ROWS, label)
        table.close()
        text = ' '.join(read_html(open_scores(path)._repr_html_()).itertext())
        assert words in text and f'{words[:4]}<b>.jsonl' in text


def test_what_a_notebook_shows_is_escaped_and_small(tmp_path, read_html):
    paths = [f'<script>alert("{i}")</script>\'&' + 'x' * 10_000 + f'{i}.png' for i in range(300)]
    for name in ('s.csv', 's.parquet'):
        table = open_table(tmp_path / name, NAMES)
        table.fill([row(path, i / 299, error='<b>' * 999) for i, path in enumerate(paths)], LABEL)
        table.close()
        html = open_scores(tmp_path / name)._repr_html_()
        rows, bars = tables(read_html(html))
        assert len(rows) == 11 and len(bars) == 10 and [row[2] for row in bars] == ['30'] * 10
        assert '<script' not in html and len(html) < 20_000
        assert rows[1][0].startswith('<script>alert("0') and rows[1][0].endswith('x0.png') and len(rows[1][0]) == 40


def test_bars_of_a_notebook_are_as_long_as_their_counts(tmp_path, read_html):
    """Scores that are infinite have no bar."""
    pa, pq = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    scores = [0.05] * 8 + [0.15] * 4 + [0.95, math.inf, -math.inf, None]
    pq.write_table(pa.table({'path': list(map(str, range(16))), 'score': scores}), tmp_path / 's.parquet')
    root = read_html(open_scores(tmp_path / 's.parquet')._repr_html_())
    assert [int(row[2]) for row in tables(root)[1]] == [8, 4, *[0] * 7, 1]
    widths = [style for each in root.iter('div') if 'background' in (style := each.get('style', ''))]
    assert [style.split('%')[0] for style in widths] == [f'width:{n}' for n in (100, 50, *[0] * 7, 12)]
    assert '13 with a score, 3 without' in ' '.join(root.itertext())


@pytest.mark.parametrize(
    'cells',
    [
        {'path': ['a'], 'score': [{'a': 1}]},
        {'path': ['a'], 'score': [datetime.date(1, 1, 1)]},
        {'path': [[1]], 'score': [0.5]},
    ],
)
def test_a_notebook_shows_what_is_no_table_of_scores(tmp_path, read_html, cells):
    pa, pq = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    label = {'config': None, 'fingerprint': 7, 'versions': []}
    table = pa.table(cells).replace_schema_metadata({'maclip_pyiqa': json.dumps(label)})
    pq.write_table(table, tmp_path / 's.parquet')
    scores = open_scores(tmp_path / 's.parquet')
    assert 'no label' in repr(scores) and 'Scores of an unknown metric' in ''.join(
        read_html(scores._repr_html_()).itertext()
    )


def test_a_notebook_shows_files_that_do_not_fit_each_other(tmp_path, read_html):
    pa, pq = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    for name, score in [('a', 0.5), ('b', [0.5])]:
        pq.write_table(pa.table({'path': [name], 'score': [score]}), tmp_path / f'{name}.parquet')
    assert 'cannot be read' in ''.join(read_html(open_scores(tmp_path)._repr_html_()).itertext())


def test_a_notebook_reads_no_more_than_it_shows(tmp_path, monkeypatch, read_html):
    """Of 2 x 150,000 rows in 30 files, those of the first 10."""
    pa, pq = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    values = np.linspace(0, 1, 10_000)
    for i in range(30):
        cells = pa.table({'path': list(map(str, range(10_000))), 'score': values + (i >= 10)})
        pq.write_table(cells, tmp_path / f'{i:02}.parquet')
    read, scores = [], open_scores(tmp_path)
    batches = ScoreSource.batches
    monkeypatch.setattr(
        ScoreSource, 'batches', lambda *args: (read.append(len(batch)) or batch for batch in batches(*args))
    )
    root = read_html(scores._repr_html_())
    text, (_, bars) = ' '.join(root.itertext()), tables(root)
    assert (
        'Images: 300,000, of which the first 10:' in text
        and 'Of the first 100,000 images: 100,000 with a score, 0 without' in text
    )
    assert bars[-1][0] == '0.900 to 1.000' and [row[2] for row in bars] == ['10,000'] * 10
    assert sum(read) == 110_000


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('path,score\n', '0 with a score, 0 without'),
        ('path,score\na,\n', '0 with a score, 1 without'),
        ('path,score\na,0.5\nb,0.5\n', '0.500 to 0.500'),
        ('path,score\na,0.5\nb,0.50001\n', '2 with a score, 0 without 0.500 to 0.500'),
        ('path,score\na,1e308\nb,-1e308\n', '-1e+308 to 1e+308'),
        ('path,score\na,<b>\n', "cannot be read: s.csv, line 2: '<b>' in the column score is not a number"),
        ('path,niqe\na,1\n', 'no column score'),
    ],
)
def test_a_notebook_shows_any_table(tmp_path, monkeypatch, read_html, text, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 's.csv').write_text(text)
    scores = open_scores('s.csv')
    assert words in ' '.join(read_html(scores._repr_html_()).itertext())
    assert repr(scores) == "ScoreSource('s.csv', no label)"
