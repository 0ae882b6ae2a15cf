"""The folder of a collection's scores: schema, metadata, what a rerun finds, and what it refuses."""

import json
import os

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maclip_pyiqa.collections import read_manifest
from maclip_pyiqa.collections.folder import SHARD, Collection, Plan
from maclip_pyiqa.collections.inputs import Inputs
from maclip_pyiqa.scoring.formats import read_label
from maclip_pyiqa.scoring.formats.parquet import to_table
from maclip_pyiqa.scoring.schema import arrow_schema, columns

SCHEMA = arrow_schema(columns(['sharp']))
LABEL = {'versions': {'maclip_pyiqa': '0.1.0'}, 'config': {'max_views': None}, 'fingerprint': 'abc'}
OPTIONS = {'keep': [], 'shard_rows': 3}


def rows(*scores):
    return to_table(
        [
            {'path': f'{score}.png', 'score': score, 'q_sim': 0.5, 'width': 3, 'height': 2, 'flags': '', 'error': ''}
            if score is not None
            else {'path': 'bad.png', 'score': None, 'error': 'broken'}
            for score in scores
        ],
        SCHEMA,
    )


ABOUT = {'kind': 'tar', 'source': 'x.tar', 'seconds': 1.5, 'lost': ''}


@pytest.fixture(params=['local', 'memory'])
def out(request, tmp_path):
    if request.param == 'local':
        yield str(tmp_path / 'out')
    else:
        yield 'memory://collection/out'
        fsspec.filesystem('memory').rm('/collection', recursive=True)


def read_all(run):
    tables = [pq.read_table(run.fs.open(file)) for file in sorted(run.fs.glob(f'{run.root}/*.parquet'))]
    assert {json.loads(table.schema.metadata[b'maclip_pyiqa'])['fingerprint'] for table in tables} == {'abc'}
    return pa.concat_tables(table.replace_schema_metadata() for table in tables)


def test_rows_and_metadata(out):
    run = Collection(out, LABEL, OPTIONS, ['x.tar'])
    run.finish('a', rows(0.25, None), ABOUT)
    run.finish('b', rows(0.75), ABOUT)
    run.save_manifest(ended=True)
    run.close()

    data = read_all(run)
    assert data.schema == SCHEMA
    assert data.select(['path', 'score', 'error']).to_pylist() == [
        {'path': '0.25.png', 'score': 0.25, 'error': ''},
        {'path': 'bad.png', 'score': None, 'error': 'broken'},
        {'path': '0.75.png', 'score': 0.75, 'error': ''},
    ]
    manifest = read_manifest(out)
    assert (manifest['rows'], manifest['failed'], manifest['complete']) == (3, 1, True)
    assert manifest['inputs'] == ['x.tar']
    assert manifest['shards']['a'] == {**ABOUT, 'rows': 2, 'failed': 1}
    assert manifest['label'] == LABEL


def test_the_label_of_a_file_is_that_of_a_parquet_table(tmp_path):
    run = Collection(tmp_path, LABEL, OPTIONS)
    run.finish('a', rows(0.25), ABOUT)
    run.close()
    label = read_label(tmp_path / 'a.parquet')
    assert label == LABEL
    assert json.loads(pq.read_schema(tmp_path / 'a.parquet').metadata[SHARD.encode()])['source'] == 'x.tar'


def test_a_rerun_finds_what_is_finished_and_sweeps_the_rest(out):
    run = Collection(out, LABEL, OPTIONS)
    run.finish('a', rows(0.25), ABOUT)  # the manifest does not know it yet
    fs, root = run.fs, run.root
    for leftover in ('c.parquet.part', '_manifest.json.part'):
        fs.pipe_file(f'{root}/{leftover}', b'half')
    run.close()
    assert len(read_all(run)) == 1

    again = Collection(out, LABEL, OPTIONS)
    assert again.shards == {'a': {**ABOUT, 'rows': 1, 'failed': 0}} and again.paths('a') == ['0.25.png']
    assert not [file for file in fs.find(root) if file.endswith('.part')]
    again.finish('b', rows(0.5, None, 0.75), ABOUT)
    again.finish('a', rows(0.25, 0.3), ABOUT)  # one that was broken and is read again
    again.save_manifest(ended=True)
    again.close()
    assert again.schema() == SCHEMA and again.manifest['complete'] and len(read_all(again)) == 5
    assert (again.manifest['rows'], again.manifest['failed']) == (5, 1)


@pytest.mark.parametrize('missing', [False, True])
def test_what_is_lost_or_missing_is_not_complete(out, missing):
    run = Collection(out, LABEL, OPTIONS)
    run.finish('a', rows(0.25), ABOUT | {'lost': '' if missing else 'cut behind image 1'})
    if missing:
        run.miss('b', 'b.tar', 'gone')
    run.save_manifest(ended=True)
    run.close()
    assert not read_manifest(out)['complete']


@pytest.mark.parametrize(
    'label, options, message',
    [
        ({'config': {'max_views': 4}, 'fingerprint': 'x'}, {}, 'max_views was None and is 4'),
        ({'fingerprint': 'x'}, {}, 'the weights differ'),
        ({}, {'shard_rows': 4}, 'shard_rows was 3 and is 4'),
        ({}, {'keep': ['url']}, r"keep was \[\] and is \['url'\]"),
    ],
)
def test_other_weights_or_options_are_refused(out, label, options, message):
    Collection(out, LABEL, OPTIONS).close()
    with pytest.raises(ValueError, match=message):
        Collection(out, LABEL | label, OPTIONS | options)
    Collection(out, LABEL, OPTIONS).close()


def test_a_folder_with_other_files_is_refused(tmp_path):
    pq.write_table(rows(0.5), tmp_path / 'own.parquet')
    with pytest.raises(ValueError, match='no _manifest'):
        Collection(tmp_path, LABEL, OPTIONS)
    with pytest.raises(FileNotFoundError, match='no _manifest'):
        read_manifest(tmp_path)


def test_two_runs_cannot_write_at_once(tmp_path):
    run = Collection(tmp_path, LABEL, OPTIONS)
    with pytest.raises(OSError, match='another run'):
        Collection(tmp_path, LABEL, OPTIONS)
    run.close()
    Collection(tmp_path, LABEL, OPTIONS).close()


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    run = Collection(tmp_path, LABEL, OPTIONS)
    run.finish('a', rows(0.25), ABOUT)

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    for name in 'ab':
        with pytest.raises(OSError, match='No space'):
            run.finish(name, rows(0.25, 0.5), ABOUT)
    monkeypatch.undo()
    assert run.shards == {'a': {**ABOUT, 'rows': 1, 'failed': 0}} and run.paths('a') == ['0.25.png']
    assert sorted(os.listdir(tmp_path)) == ['_lock', '_manifest.json', 'a.parquet']
    run.close()


def test_paths_are_text_whatever_file_names_are(tmp_path):
    table = to_table([{'path': 'a\udcff\x00.png', 'score': None, 'error': 'x'}], SCHEMA)
    assert table.column('path').to_pylist() == ['\ufffda\\udcff\\u0000.png']
    run = Collection(tmp_path, LABEL, OPTIONS)
    run.finish('a', table, ABOUT)
    run.close()
    assert run.paths('a') == ['a\udcff\x00.png']


@pytest.mark.parametrize(('before', 'after'), [(2, 9), (9, 2), (9, 10)])  # rows; a shard has 3
def test_a_parquet_file_that_has_changed_is_refused(tmp_path, before, after):
    source, out = str(tmp_path / 'x.parquet'), tmp_path / 'out'

    def plan(count):
        pq.write_table(pa.table({'path': [f'{i}.png' for i in range(count)]}), source)
        found = Inputs([], {source: os.path.getsize(source)}, {})
        return Plan(Collection(out, LABEL, OPTIONS), found, ['sharp'], None, [])

    first = plan(before)
    for shard, schema in first.shards(3, 3):
        first.folder.finish(shard.name, schema.empty_table(), {**shard.about, 'seconds': 0.0, 'lost': ''})
    first.folder.close()
    with pytest.raises(ValueError, match='bytes when it was scored and has'):
        plan(after)
