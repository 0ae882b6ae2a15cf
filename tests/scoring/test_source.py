"""Scores read back: a table, a folder of tables, local and at URLs, all alike."""

import json

import fsspec
import pytest

from maclip_pyiqa.scoring.filter import filter_scores
from maclip_pyiqa.scoring.formats import open_table, read_table
from maclip_pyiqa.scoring.formats.parquet import to_bytes, to_table
from maclip_pyiqa.scoring.schema import arrow_schema, columns
from maclip_pyiqa.scoring.source import MANIFEST, open_scores

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
