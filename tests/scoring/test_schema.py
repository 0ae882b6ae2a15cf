"""The columns and the label: what the schema says is what rows, Arrow and docs have."""

import json
import re
from pathlib import Path

import pytest
import torch

import maclip_pyiqa
from maclip_pyiqa.scoring import schema
from maclip_pyiqa.scoring.schema import arrow_schema, column, columns, label, label_difference
from maclip_pyiqa.scoring.score import score_files

DOCS = Path(maclip_pyiqa.__file__).parents[1] / 'docs/files.md'


def test_rows_have_the_columns_in_order(tiny_metric, photo_files, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'broken')
    others = {'other': lambda x: torch.tensor(0.5)}
    scored, failed = score_files(tiny_metric, [photo_files[0], tmp_path / 'broken.png'], others=others)
    assert tuple(scored) == columns(tiny_metric.attribute_names, ['other'])
    assert tuple(failed) == columns([], details=False)
    for name, value in scored.items():
        kinds = {'text': str, 'words': str, 'number': float, 'integer': int}
        assert isinstance(value, kinds[column(name).kind]) and column(name).is_text == isinstance(value, str)


def test_every_column_is_in_the_docs():
    table = re.findall(r'^\| (`.*?) \|', DOCS.read_text('utf-8'), re.MULTILINE)
    named = {name for cell in table for name in re.findall(r'`([^`]+)`', cell)}
    assert named >= {each.name for each in schema.KNOWN.values()}


def test_columns_of_others():
    assert (column('niqe').role, column('niqe').title, column('niqe').kind) == ('other', 'niqe', 'number')
    assert (column('attribute_sharp').title, column('attribute_sharp').role) == ('sharp', 'quality')
    for name in ('path', 'score', 'w_sim', 'flags', 'attribute_x'):
        with pytest.raises(ValueError, match='would share its column with another'):
            columns([], [name])


def test_types_of_arrow():
    pa = pytest.importorskip('pyarrow')
    found = arrow_schema([*columns(['sharp'], ['niqe']), 'caption'], {'caption': pa.large_string()})
    kinds = {field.name: str(field.type) for field in found}
    assert kinds == {
        **dict.fromkeys(('path', 'flags', 'error'), 'string'),
        **dict.fromkeys(('score', 'q_sim', 'q_mag', 'w_sim', 'attribute_sharp', 'niqe'), 'double'),
        **{'width': 'int64', 'height': 'int64', 'caption': 'large_string'},
    }


def test_a_label_is_plain_data(tiny_metric):
    found = label(tiny_metric)
    assert json.loads(json.dumps(found))['fingerprint'] == tiny_metric.fingerprint()
    assert found['versions'].keys() >= {'python', 'maclip_pyiqa', 'torch', 'open_clip_torch', 'Pillow'}
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00', found['date'])
    changed = {**found, 'config': found['config'] | {'alpha': 2.0}}
    assert label_difference(found, changed) == 'alpha was 1.0 and is 2.0'
    newer = {**found, 'versions': {'maclip_pyiqa': '9'}}
    assert label_difference(found, newer).endswith(f'which was {maclip_pyiqa.__version__} and is 9')
