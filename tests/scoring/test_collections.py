"""The folder of a collection's scores: schema, metadata, what a rerun finds, and what it refuses."""

import json
import os

import fsspec
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from maclip_pyiqa.scoring.collections import (
    Collection,
    is_collection,
    open_collection,
    output_schema,
    read_manifest,
    to_table,
)
from maclip_pyiqa.scoring.formats import read_label

SCHEMA = output_schema(['sharp'])
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


def test_rows_and_metadata(out):
    assert not is_collection(out)
    run = Collection(out, LABEL, OPTIONS, ['x.tar'])
    with pytest.raises(FileNotFoundError, match='no finished shard'):
        open_collection(out)
    run.finish('a', rows(0.25, None), ABOUT)
    run.finish('b', rows(0.75), ABOUT)
    run.save_manifest(2.0, complete=True)
    run.close()
    assert is_collection(out)

    data = open_collection(out)
    assert (
        data.schema.names == SCHEMA.names
        and json.loads(data.schema.metadata[b'maclip_pyiqa'])['config'] == LABEL['config']
    )
    found = data.to_table(filter=ds.field('score') >= 0.25, columns=['id', 'score', 'error']).to_pylist()
    assert found == [{'id': '0.25.png', 'score': 0.25, 'error': ''}, {'id': '0.75.png', 'score': 0.75, 'error': ''}]
    assert data.count_rows() == 3

    manifest = read_manifest(out)
    assert (manifest['rows'], manifest['failed'], manifest['complete']) == (3, 1, True)
    assert (manifest['inputs'], manifest['seconds']) == (['x.tar'], 2.0)
    assert manifest['shards']['a'] == {**ABOUT, 'rows': 2, 'failed': 1}
    assert manifest['label'] == LABEL


def test_the_label_of_a_file_is_that_of_a_parquet_table(tmp_path):
    run = Collection(tmp_path, LABEL, OPTIONS)
    run.finish('a', rows(0.25), ABOUT)
    run.close()
    label = read_label(tmp_path / 'a.parquet')
    assert label == LABEL
    assert json.loads(pq.read_schema(tmp_path / 'a.parquet').metadata[b'maclip_pyiqa.shard'])['source'] == 'x.tar'


def test_a_rerun_finds_what_is_finished_and_sweeps_the_rest(out):
    run = Collection(out, LABEL, OPTIONS)
    run.finish('a', rows(0.25), ABOUT)  # the manifest does not know it yet
    run.save_partial('a', rows(0.25), ABOUT)  # as if killed between the file and the removal of this one
    run.save_partial('b', rows(0.5), ABOUT)
    run.save_partial('b', rows(0.5, None), ABOUT)
    fs, root = run.fs, run.root
    for leftover in ('c.parquet.part', '_partial/b.parquet.part', '_manifest.json.part'):
        fs.pipe_file(f'{root}/{leftover}', b'half')
    run.close()
    assert open_collection(out).count_rows() == 1

    again = Collection(out, LABEL, OPTIONS)
    assert again.shards == {'a': {**ABOUT, 'rows': 1, 'failed': 0}} and again.ids('a') == ['0.25.png']
    assert again.partial('b').column('id').to_pylist() == ['0.5.png', 'bad.png']
    assert not [file for file in fs.find(root) if file.endswith('.part')]
    again.finish('b', rows(0.5, None, 0.75), ABOUT)
    again.close()
    assert (
        again.schema() == SCHEMA and again.is_complete and not again.partials and open_collection(out).count_rows() == 4
    )


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
        open_collection(tmp_path)


def test_two_runs_cannot_write_at_once(tmp_path):
    run = Collection(tmp_path, LABEL, OPTIONS)
    with pytest.raises(OSError, match='another run'):
        Collection(tmp_path, LABEL, OPTIONS)
    run.close()
    Collection(tmp_path, LABEL, OPTIONS).close()


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    run = Collection(tmp_path, LABEL, OPTIONS)
    run.save_partial('a', rows(0.25), ABOUT)

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space'):
        run.save_partial('a', rows(0.25, 0.5), ABOUT)
    with pytest.raises(OSError, match='No space'):
        run.finish('a', rows(0.25, 0.5), ABOUT)
    monkeypatch.undo()
    assert run.shards == {} and len(run.partial('a')) == 1
    assert sorted(os.listdir(tmp_path)) == ['_lock', '_manifest.json', '_partial']
    run.close()


def test_ids_are_text_whatever_file_names_are(tmp_path):
    table = to_table([{'path': 'a\udcff\x00.png', 'score': None, 'error': 'x'}], SCHEMA)
    assert table.column('id').to_pylist() == ['\ufffda\\udcff\\u0000.png']
