"""Percentiles among the scores of a reference, against SciPy."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from scipy.stats import percentileofscore

import maclip_pyiqa
from maclip_pyiqa import Reference
from maclip_pyiqa.scoring.formats import open_table
from maclip_pyiqa.scoring.formats.parquet import to_bytes, to_table
from maclip_pyiqa.scoring.schema import arrow_schema, columns
from maclip_pyiqa.scoring.source import MANIFEST

LABEL = {'versions': {'maclip_pyiqa': '0.1.0'}, 'config': {'max_views': None}, 'fingerprint': 'abc'}
NAMES = columns(['sharp'])
KINDS = ('.csv', '.jsonl', '.parquet', 'folder')


def save(scores, folder, kind='.csv', label=LABEL, complete=True):
    """Rows with these scores, None for images that failed, as a table or as a folder of tables of 30 rows."""
    rows = [{'path': f'{i}.png', 'score': score, 'error': '' if score else 'broken'} for i, score in enumerate(scores)]
    if kind != 'folder':
        table = open_table(folder / f'reference{kind}', NAMES)
        table.fill(rows, label)
        table.close()
        return folder / f'reference{kind}'
    (folder / 'reference').mkdir()
    for first in range(0, len(rows), 30):
        table = to_table(rows[first : first + 30], arrow_schema(NAMES))
        (folder / 'reference' / f'{first}.parquet').write_bytes(to_bytes(table, label))
    (folder / 'reference' / MANIFEST).write_text(json.dumps({'complete': complete}))
    return folder / 'reference'


def wanted(known, scores):
    """Percentiles of SciPy, with the decimals of tables."""
    known = [round(score, 6) for score in known if score is not None]
    return percentileofscore(known, [round(score, 6) for score in scores], kind='strict').round(6)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('decimals', [9, 2, 1])
def test_percentiles_are_those_of_scipy(tmp_path, kind, decimals):
    rng = np.random.default_rng(decimals)
    known = [None if i % 9 == 0 else round(float(rng.normal(0.5, 0.2)), decimals) for i in range(100)]
    reference = Reference(save(known, tmp_path, kind))
    scored = [score for score in known if score is not None]
    asked = [-9.0, 0.0, 9.0, *scored, *rng.normal(0.5, 0.2, 50), *(score + 1e-6 for score in scored)]
    asked += [score + 4e-7 for score in scored]  # equal, with 6 decimals, or a neighbour
    np.testing.assert_array_equal(reference(asked).round(6), wanted(known, asked))
    assert [reference(score) for score in asked] == reference(asked).tolist()
    assert reference(-9.0) == 0.0 and reference(9.0) == 100.0 and reference.images == len(scored)


def test_equal_scores_and_a_single_one(tmp_path):
    tied = Reference(save([0.5] * 7 + [0.7] * 3, tmp_path))
    assert tied([0.4, 0.5, 0.500001, 0.7, 0.700001]).tolist() == [0, 0, 70, 70, 100]
    single = Reference(save([None, 0.5], tmp_path, '.jsonl'))
    assert single([0.4, 0.5, 0.6]).tolist() == [0, 0, 100] and single.images == 1


def test_shapes_and_missing_scores(tmp_path):
    reference = Reference(save([0.25, 0.5, 0.75, 1.0], tmp_path))
    assert type(reference(0.6)) is type(reference(np.float32(0.6))) is type(reference(torch.tensor(0.6))) is float
    assert reference(torch.tensor([[0.6], [0.1]])).tolist() == [[50], [0]] and reference([]).shape == (0,)
    for missing in (None, math.nan, math.inf, -math.inf):
        assert math.isnan(reference(missing)) and np.isnan(reference([0.6, missing])).tolist() == [False, True]


def test_scores_of_float32_are_those_of_tables(tmp_path):
    """0.6 is a little more as float32, and not above a score of 0.6."""
    pa, pq = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    pq.write_table(pa.table({'path': ['a', 'b'], 'score': pa.array([0.6, 0.1], pa.float32())}), tmp_path / 'r.parquet')
    assert Reference(tmp_path / 'r.parquet')([0.6, np.float32(0.6), 0.600001]).tolist() == [50, 50, 100]


@pytest.mark.parametrize('kind', KINDS)
def test_a_changed_reference_is_told_from_an_unchanged_one(tmp_path, kind):
    scores = [0.125, None, 0.75, 0.5] * 20
    (tmp_path / 'a').mkdir()
    about = Reference(save(scores, tmp_path / 'a')).about
    found = Reference(path := save(scores[::-1], tmp_path, kind))  # in another order, and another format
    assert found.about == about | {'path': str(path)} and about['images'] == 60 and json.loads(json.dumps(about))
    (tmp_path / 'b').mkdir()
    changed = Reference(save([0.125001, *scores[1:]], tmp_path / 'b', kind)).about
    assert changed['digest'] != about['digest'] and changed['images'] == 60


@pytest.mark.parametrize('kind', KINDS)
def test_a_reference_without_a_score(tmp_path, kind):
    with pytest.raises(ValueError, match='cannot be a reference: no image in it has a score'):
        Reference(save([None, None], tmp_path, kind))


def test_what_is_no_reference(tmp_path):
    (tmp_path / 'other.csv').write_text('path,niqe\na.png,4.5\n')
    (tmp_path / 'head.csv').write_text('path,score\n')
    (tmp_path / 'empty.jsonl').write_text('')
    for name in ('other.csv', 'head.csv', 'empty.jsonl'):
        with pytest.raises(ValueError, match='no image in it has a score'):
            Reference(tmp_path / name)
    (tmp_path / 'text.csv').write_text('path,score\na.png,half\n')
    with pytest.raises(ValueError, match='is not a number'):
        Reference(tmp_path / 'text.csv')
    with pytest.raises(FileNotFoundError):
        Reference(tmp_path / 'none.csv')


@pytest.mark.parametrize('suffix', ['.csv', '.jsonl'])
def test_text_needs_no_pyarrow(tmp_path, monkeypatch, suffix):
    path = save([0.25, None, 0.5], tmp_path, suffix)
    for name in [name for name in sys.modules if name.partition('.')[0] == 'pyarrow']:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    assert Reference(path)(0.3) == 50


# --- which metric -----------------------------------------------------------------------------------------------------


def test_a_reference_of_the_same_metric_goes_to_the_label(tmp_path):
    reference = Reference(save([0.25], tmp_path, '.jsonl'))
    assert reference.label == LABEL and reference.fingerprint == 'abc' and reference.path.endswith('.jsonl')
    later = LABEL | {'date': '2026-11-26', 'versions': {'maclip_pyiqa': '9'}}
    assert reference.check(later) == later | {'reference': reference.about} and 'reference' not in later


def test_a_reference_of_another_metric_is_refused(tmp_path):
    reference = Reference(save([0.25], tmp_path))
    with pytest.raises(ValueError, match=r'max_views was None and is 4\. Score its images again .* with the options'):
        reference.check(LABEL | {'config': {'max_views': 4}, 'fingerprint': 'x'})
    with pytest.raises(ValueError, match='another metric; the options are the same, so the weights differ'):
        reference.check(LABEL | {'fingerprint': 'x'})
    with pytest.raises(ValueError, match='the scores have no label that says which metric'):
        reference.check(None)


@pytest.mark.parametrize('kind', KINDS)
def test_a_reference_without_a_label_is_refused(tmp_path, kind):
    reference = Reference(save([0.25, 0.5], tmp_path, kind, label=None))
    assert reference.label is reference.fingerprint is None and reference(0.3) == 50
    with pytest.raises(ValueError, match=r'there is no label that says which metric .* Score its images again'):
        reference.check(LABEL)


def test_an_unfinished_collection(tmp_path):
    assert not Reference(save([0.25], tmp_path, 'folder', complete=False)).is_complete
    assert Reference(save([0.25], tmp_path)).is_complete


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_get_percentiles_after_their_scores(tmp_path):
    reference = Reference(save([0.25, 0.5, 0.75], tmp_path))
    rows = [{'niqe': 4.0, 'path': 'a', 'score': 0.6}, {'path': 'b', 'score': None, 'percentile': 12.0, 'error': 'no'}]
    first, second = reference.add_to(rows)
    assert list(first.items()) == [('path', 'a'), ('score', 0.6), ('percentile', 66.666667), ('niqe', 4.0)]
    assert second == {'path': 'b', 'score': None, 'percentile': None, 'error': 'no'}
    assert rows[1]['percentile'] == 12.0  # the caller's rows stay


def test_percentiles_are_not_compared():
    """They may be of different references; the scores that they are made from are compared."""
    rows = [{'path': f'{i}.png', 'score': i / 10, 'percentile': float(i), 'niqe': 5.0} for i in range(8)]
    found = maclip_pyiqa.compare(rows, [row | {'percentile': 0.0} for row in rows], lower_better=['niqe'])
    assert found.quantities == ('score', 'niqe')
