"""The best of many scored images, against the same in plain Python."""

import codecs
import datetime
import json
import os
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import percentileofscore

from maclip_pyiqa import Reference
from maclip_pyiqa.scoring.filter import _best, filter_scores
from maclip_pyiqa.scoring.formats import open_table, read_label, read_table
from maclip_pyiqa.scoring.formats.parquet import to_bytes, to_table
from maclip_pyiqa.scoring.schema import arrow_schema, columns
from maclip_pyiqa.scoring.source import MANIFEST, open_scores

LABEL = {'versions': {'maclip_pyiqa': '0.1.0'}, 'config': {'max_views': None}, 'fingerprint': 'abc'}
FORMATS = ('.csv', '.jsonl', '.parquet')


def make_rows(count=40, seed=0):
    """Rows of `score_files`: odd names, some that failed, some with flags, equal scores."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        path = f'{i:03}, "ü\udcff".png' if i % 7 == 0 else f'{i:03}.png'
        row = {'path': path, 'score': None, 'width': None, 'height': None, 'flags': None, 'error': 'broken, "x"'}
        if i % 5:
            row |= {'score': round(float(rng.uniform(0.2, 0.9)), 2), 'q_sim': 0.5, 'width': 9, 'height': i + 1}
            row |= {'flags': ('', '', 'noise', 'flat border')[i % 4], 'error': ''}
        rows.append(row)
    return rows


def save_folder(rows, folder, schema, count=15):
    """A folder of tables, as collections are written."""
    folder.mkdir()
    for number, first in enumerate(range(0, len(rows), count)):
        table = to_table(rows[first : first + count], schema)
        (folder / f'{number}.parquet').write_bytes(to_bytes(table, LABEL, {'more': {}}))
    (folder / MANIFEST).write_text('{"complete": true, "updated": "2026-11-26"}')
    return folder


def save(rows, folder, kind):
    """A folder of three files, or a table."""
    if kind == 'folder':
        return save_folder(rows, folder / 'out', arrow_schema(columns(['sharp'])))
    table = open_table(folder / f'scores{kind}', columns(['sharp']))
    table.fill(rows, LABEL)
    table.close()
    return folder / f'scores{kind}'


def wanted(rows, low=None, high=None, top=None, without=()):
    kept = [row for row in rows if row['score'] is not None]
    kept = [row for row in kept if low is None or row['score'] >= low]
    kept = [row for row in kept if high is None or row['score'] <= high]
    kept = [row for row in kept if not {*row['flags'].split()} & {*without}]
    if top is not None:
        count = round(top * len(kept)) if isinstance(top, float) else top
        best = {row['path'] for row in sorted(kept, key=lambda row: -row['score'])[:count]}  # the first of equal ones
        kept = [row for row in kept if row['path'] in best]
    return [row['path'] for row in kept]


CASES = [
    {},
    {'low': 0.501},
    {'low': 0.301, 'high': 0.599},
    {'top': 3},
    {'top': np.int64(3), 'low': np.float32(0.25)},
    {'top': 0.2},
    {'top': 1000},
    {'without': ['noise']},
    {'low': 0.4, 'top': 0.5, 'without': ['noise', 'border']},
    {'low': 2.0},
]


@pytest.mark.parametrize('kind', ['folder', *FORMATS])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_what_is_kept(tmp_path, kind, case):
    rows = make_rows()
    source = save(rows, tmp_path, kind)
    want = wanted(rows, **case)
    names = {'low': 'min_score', 'high': 'max_score', 'top': 'top', 'without': 'without_flags'}
    options = {names[name]: value for name, value in case.items()}
    kept = filter_scores(source, tmp_path / 'kept.txt', **options)
    lines = (tmp_path / 'kept.txt').read_text('utf-8', errors='surrogateescape')
    assert lines == ''.join(path + '\n' for path in want)
    assert kept == filter_scores(source, **options)  # counting only
    scored = [row['score'] for row in rows if row['score'] is not None]
    chosen = [row['score'] for row in rows if row['path'] in want]
    assert (kept.rows, kept.scored, kept.kept) == (40, len(scored), len(want))
    if want:
        assert (kept.lowest, kept.highest) == pytest.approx((min(chosen), max(chosen)), abs=1e-6)
    for low, images, kept_here in kept.histogram:
        inside = [score for score in scored if low - 1e-9 <= score < low + 0.05 - 1e-9]
        assert images == len(inside) and kept_here == len([s for s in chosen if s in inside])
    assert sum(images for _, images, _ in kept.histogram) == len(scored)


@pytest.mark.parametrize('kind', ['folder', *FORMATS])
@pytest.mark.parametrize('suffix', FORMATS)
def test_rows_and_label_go_to_the_output(tmp_path, kind, suffix):
    rows = make_rows()
    source, output = save(rows, tmp_path, kind), tmp_path / f'kept{suffix}'
    filter_scores(source, output, min_score=0.5)
    want = [row for row in open_scores(source).rows() if row['score'] is not None and row['score'] >= 0.5]
    assert read_table(output) == want != []
    label = read_label(output)
    assert {name: label[name] for name in LABEL} == LABEL
    about = label['filter']
    assert about['min_score'] == 0.5 and about['source'] == str(source) and about['of'] == 40
    assert sorted(os.listdir(tmp_path)) == sorted(
        {source.name, output.name, *[f'{source.name}.meta.json'] * (kind in ('.csv', '.jsonl')),
         *[f'{output.name}.meta.json'] * (suffix != '.parquet')}
    )  # fmt: skip


def test_columns_of_the_input_travel_along(tmp_path):
    schema = pa.schema([*arrow_schema(columns(['sharp'])), ('caption', pa.string()), ('image', pa.binary())])
    rows = [row | {'caption': f'of {row["path"][:3]}', 'image': b'\x00\xff'} for row in make_rows(15)]
    save_folder(rows, tmp_path / 'out', schema)
    filter_scores(tmp_path / 'out', tmp_path / 'kept.parquet', top=2)
    table = pq.read_table(tmp_path / 'kept.parquet')
    assert table.schema.remove_metadata().equals(schema) and table['image'].to_pylist() == [b'\x00\xff'] * 2
    assert [c == f'of {i[:3]}' for c, i in zip(table['caption'].to_pylist(), table['path'].to_pylist(), strict=True)]
    with pytest.raises(ValueError, match=r'a \.parquet file holds columns of all types'):
        filter_scores(tmp_path / 'out', tmp_path / 'kept.jsonl', top=2)
    assert sorted(os.listdir(tmp_path)) == ['kept.parquet', 'out']  # no half of a file


@given(
    st.lists(st.sampled_from([0.1, 0.5, 0.5000001, 0.7, 1.3]) | st.floats(-2, 2), min_size=1, max_size=60),
    st.data(),
    st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_the_best(values, data, passes):
    """Against a stable sort."""
    values = np.array(values)
    passes = np.array(passes[: len(values)])
    count = data.draw(st.integers(0, int(passes.sum())))
    order = sorted(np.flatnonzero(passes), key=lambda i: -values[i])
    assert np.flatnonzero(_best(values, passes, count)).tolist() == sorted(order[:count])


def test_text_of_the_counts(tmp_path):
    text = str(filter_scores(save(make_rows(), tmp_path, '.csv'), min_score=0.7))
    assert text.startswith('40 images: 32 with a score, 8 failed\n') and 'kept' in text
    lines = text.splitlines()[4:]
    assert [line.split()[0] for line in lines] == [f'{0.2 + 0.05 * i:.2f}' for i in range(len(lines))]
    assert all('#' in line if float(line[:5]) >= 0.7 and ' 0 ' not in line else '#' not in line for line in lines)
    assert max(len(line.split()[-1]) for line in lines) == 40


def test_nothing_to_filter(tmp_path):
    source = save([row for row in make_rows() if row['score'] is None], tmp_path, '.jsonl')
    kept = filter_scores(source, tmp_path / 'kept.csv', top=0.5)
    assert (kept.rows, kept.scored, kept.kept, kept.lowest, kept.histogram) == (8, 0, 0, None, [])
    assert str(kept) == '8 images: 0 with a score, 8 failed\n0 kept'
    assert read_table(tmp_path / 'kept.csv') == []


def test_wrong_use(tmp_path):
    source, table = save(make_rows(), tmp_path, 'folder'), save(make_rows(), tmp_path, '.parquet')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='not a folder of scores'):
        filter_scores(tmp_path / 'empty')
    with pytest.raises(FileNotFoundError):
        filter_scores(tmp_path / 'none.csv')
    for output in (source / 'kept.parquet', table):
        with pytest.raises(ValueError, match='among the scores that are filtered'):
            filter_scores(source if output != table else table, output)
    with pytest.raises(ValueError, match=r'expected one of .csv, .jsonl, .parquet, .txt'):
        filter_scores(table, tmp_path / 'kept.xlsx')
    (tmp_path / 'old.csv').write_text('path,score,error\na.png,0.500000,\n')
    with pytest.raises(ValueError, match='has no column flags'):
        filter_scores(tmp_path / 'old.csv', without_flags=['noise'])
    assert filter_scores(tmp_path / 'old.csv', tmp_path / 'kept.jsonl').kept == 1
    (tmp_path / 'half.parquet').write_bytes(table.read_bytes()[:200])
    with pytest.raises(ValueError, match='not a complete Parquet file'):
        filter_scores(tmp_path / 'half.parquet')
    pq.write_table(pa.table({'path': ['a']}), tmp_path / 'other.parquet')
    with pytest.raises(ValueError, match='has no column score'):
        filter_scores(tmp_path / 'other.parquet')
    for top in (0, -1, 1.5, 0.0):
        with pytest.raises(ValueError, match='expected a whole number'):
            filter_scores(table, top=top)
    rows = [{'path': 'a\nb.png', 'score': 0.5, 'error': ''}]
    with pytest.raises(ValueError, match='line break'):
        filter_scores(save(rows, tmp_path, '.jsonl'), tmp_path / 'kept.txt')


# --- percentiles of a reference ---------------------------------------------------------------------------------------


@pytest.fixture
def reference(tmp_path):
    """A table of scores with ties and failures, elsewhere."""
    (tmp_path / 'reference').mkdir()
    return save(make_rows(30, seed=1), tmp_path / 'reference', '.csv')


def ranked(rows, reference):
    """Rows with a score, with the percentiles that SciPy gives them."""
    known = [row['score'] for row in read_table(reference) if row['score'] is not None]
    rows = [row for row in rows if row['score'] is not None]
    return [row | {'percentile': round(percentileofscore(known, row['score'], kind='strict'), 6)} for row in rows]


@pytest.mark.parametrize('kind', ['folder', *FORMATS])
@pytest.mark.parametrize('suffix', FORMATS)
def test_percentiles_go_to_the_output(tmp_path, reference, kind, suffix):
    source, output = save(make_rows(), tmp_path, kind), tmp_path / f'kept{suffix}'
    want = [row for row in ranked(open_scores(source).rows(), reference) if row['percentile'] >= 40]
    kept = filter_scores(source, output, reference=reference, min_percentile=40)
    assert read_table(output) == want and kept.kept == kept.passed == len(want) > 5 and kept.scored == 32
    assert open_scores(output).columns[:3] == ('path', 'score', 'percentile')
    found = read_label(output)
    assert found['reference'] == Reference(reference).about and {name: found[name] for name in LABEL} == LABEL
    assert found['filter']['min_percentile'] == 40 and found['filter']['min_score'] is None
    assert kept == filter_scores(source, reference=reference, min_percentile=np.float32(40))  # counting only
    both = filter_scores(source, reference=Reference(reference), min_percentile=40, max_score=0.7, top=3)
    assert (both.passed, both.kept) == (sum(row['score'] <= 0.7 for row in want), 3)


@pytest.mark.parametrize('kind', ['folder', '.parquet'])
def test_percentiles_are_streamed(tmp_path, reference, kind):
    """Batch by batch, in the order of the rows."""
    count, rng = 50_000, np.random.default_rng(0)
    scores = [np.where(rng.random(count) < 0.1, np.nan, rng.random(count).round(6)) for _ in range(3)]
    tables = [pa.table({'path': [f'{n}/{i}' for i in range(count)], 'score': pa.array(part, from_pandas=True)})
              for n, part in enumerate(scores)]  # fmt: skip
    source = tmp_path / 'scores'
    source.mkdir()
    if kind == 'folder':
        for n, table in enumerate(tables):
            (source / f'{n}.parquet').write_bytes(to_bytes(table, LABEL))
    else:
        source = source / 'scores.parquet'
        source.write_bytes(to_bytes(pa.concat_tables(tables), LABEL))
    assert len(list(open_scores(source).batches())) == 3
    filter_scores(source, tmp_path / 'kept.parquet', reference=reference, min_percentile=90)
    found = pq.read_table(tmp_path / 'kept.parquet')
    known = np.array([row['score'] for row in read_table(reference) if row['score'] is not None])
    scores = np.concatenate(scores)
    want = 100 * (known < scores[:, None]).mean(axis=1)
    keep = np.isfinite(scores) & (want.round(6) >= 90)
    assert found['score'].to_numpy().tolist() == scores[keep].tolist()
    assert found['percentile'].to_numpy().tolist() == want[keep].round(6).tolist()


@pytest.mark.parametrize('suffix', FORMATS)
def test_percentiles_of_another_reference_are_replaced(tmp_path, reference, suffix):
    source, first, second = save(make_rows(), tmp_path, suffix), tmp_path / f'1{suffix}', tmp_path / f'2{suffix}'
    filter_scores(source, first, reference=source)
    assert read_table(first) == ranked(read_table(source), source)
    filter_scores(first, second, reference=reference)
    assert read_table(second) == ranked(read_table(source), reference) != read_table(first)
    assert read_label(second)['reference']['path'] == str(reference)


@pytest.mark.parametrize('suffix', FORMATS)
def test_a_table_is_filtered_by_percentiles_of_its_own(tmp_path, reference, suffix):
    source, all_, some = save(make_rows(), tmp_path, suffix), tmp_path / f'all{suffix}', tmp_path / f'some{suffix}'
    filter_scores(source, all_, reference=reference)
    rows = read_table(all_)
    for least in (0, 37.5, rows[3]['percentile'], 100):  # one of them with all its decimals
        kept = filter_scores(all_, some, min_percentile=least)
        assert read_table(some) == [row for row in rows if row['percentile'] >= least]
        assert read_label(some)['reference'] == Reference(reference).about  # that of the column
        assert kept == filter_scores(all_, reference=reference, min_percentile=least)


def test_missing_percentiles_are_below_all(tmp_path):
    (tmp_path / 'a.csv').write_text('path,score,percentile\na,0.5,12\nb,0.7,\nc,0.9,80\n')
    assert [filter_scores(tmp_path / 'a.csv', min_percentile=least).kept for least in (0, 12, 13)] == [2, 2, 1]
    assert filter_scores(tmp_path / 'a.csv').kept == 3


def test_columns_of_ones_own_stay_beside_percentiles(tmp_path, reference):
    source = save(make_rows(10), tmp_path, '.csv')
    lines = source.read_text('utf-8').splitlines()
    source.write_text('\n'.join([lines[0] + ',caption', *(f'{line},c{i}' for i, line in enumerate(lines[1:]))]))
    filter_scores(source, tmp_path / 'kept.csv', reference=reference)
    found = read_table(tmp_path / 'kept.csv')
    assert [row['caption'] for row in found] == [f'c{i}' for i in range(10) if i % 5] and 'percentile' in found[0]


def test_wrong_percentiles(tmp_path, reference):
    source = save(make_rows(), tmp_path, '.csv')
    for least in (-0.1, 100.1, float('nan')):
        with pytest.raises(ValueError, match=r'min_percentile=.*expected a number from 0 to 100'):
            filter_scores(source, reference=reference, min_percentile=least)
    with pytest.raises(ValueError, match='has no column percentile, so min_percentile needs a reference'):
        filter_scores(source, min_percentile=50)
    with pytest.raises(ValueError, match='would be among the scores of the reference'):
        filter_scores(source, reference, reference=reference)
    (tmp_path / 'text.csv').write_text('path,score,percentile\na,0.5,high\n')
    with pytest.raises(ValueError, match='something else than numbers in its column percentile'):
        filter_scores(tmp_path / 'text.csv', min_percentile=50)
    with pytest.raises(ValueError, match='the scores have no label'):
        filter_scores(tmp_path / 'text.csv', reference=reference)
    other = json.loads((tmp_path / 'scores.csv.meta.json').read_text()) | {'fingerprint': 'x'}
    (tmp_path / 'scores.csv.meta.json').write_text(json.dumps(other))
    with pytest.raises(ValueError, match='cannot be the reference: its scores are from another metric'):
        filter_scores(source, tmp_path / 'kept.csv', reference=reference)
    assert not (tmp_path / 'kept.csv').exists()


# --- tables that people edited ----------------------------------------------------------------------------------------


MORE = {
    'caption': ['a "cat", ü', None, 'x'],
    'label': [3, 4, None],
    'id': ['001', '002', '003'],
    'ok': [True, None, False],
}


def edited(folder, suffix, **more):
    """Three rows, with columns that somebody joined; the second has no score."""
    table = {'score': [0.5, None, 0.7], **MORE, 'path': ['a, b.png', 'NA', 'c.png'], **more}
    rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    path = folder / f'scores{suffix}'
    if suffix == '.csv':
        lines = ['score;caption;label;id;ok;path', '0,5;"a ""cat"", ü";3;001;True;a, b.png', ';;4;002;;NA']
        path.write_text('\n'.join([*lines, '0,7;x;NA;003;False;c.png']), 'utf-16')
    elif suffix == '.jsonl':
        path.write_text('\n'.join(map(json.dumps, rows)))
    else:
        pq.write_table(pa.table(table), path)
    return path


@pytest.mark.parametrize('suffix', FORMATS)
@pytest.mark.parametrize('output', ['kept.csv', 'kept.excel.csv', 'kept.jsonl', 'kept.parquet'])
def test_further_columns_go_to_the_output(tmp_path, suffix, output):
    filter_scores(edited(tmp_path, suffix), tmp_path / output, min_score=0.4)
    first, second = read_table(tmp_path / output)
    assert first['path'] == 'a, b.png' and (second['path'], second['score']) == ('c.png', 0.7)
    assert [first[name] for name in ('caption', 'label', 'id')] == ['a "cat", ü', 3, '001']
    assert [second[name] for name in ('caption', 'label', 'id')] == ['x', None, '003']
    assert str(first['ok']).lower() == 'true' and str(second['ok']).lower() == 'false'
    assert (tmp_path / output).read_bytes().startswith(codecs.BOM_UTF8) == (output == 'kept.excel.csv')


@pytest.mark.parametrize('suffix', FORMATS)
def test_paths_are_those_of_the_column_path(tmp_path, suffix):
    filter_scores(edited(tmp_path, suffix), tmp_path / 'kept.txt')
    assert (tmp_path / 'kept.txt').read_text() == 'a, b.png\nc.png\n'
    (tmp_path / 'index.csv').write_text(',id,path,score\n0,7,a.png,0.5\n1,8,NA,0.7')  # as pandas writes it
    filter_scores(tmp_path / 'index.csv', tmp_path / 'kept.txt')
    assert (tmp_path / 'kept.txt').read_text() == 'a.png\nNA\n'


@pytest.mark.parametrize('score', [None, float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('suffix', FORMATS)
def test_scores_that_are_no_numbers_are_missing(tmp_path, suffix, score):
    if suffix == '.csv':
        (tmp_path / 'scores.csv').write_text(f'path,score\na,0.5\nb,{score}\nc,0.7\n')
    else:
        edited(tmp_path, suffix, score=[0.5, score, 0.7])
    kept = filter_scores(tmp_path / f'scores{suffix}', tmp_path / 'kept.csv', max_score=9, top=1.0)
    assert (kept.rows, kept.scored, kept.kept, kept.highest) == (3, 2, 2, 0.7)
    assert sum(count for _, count, _ in kept.histogram) == 2


TYPES = {
    'dictionary': lambda values: pa.array(values).dictionary_encode(),
    'large_string': lambda values: pa.array(values, pa.large_string()),
    **({'string_view': lambda values: pa.array(values, pa.string_view())} if hasattr(pa, 'string_view') else {}),
}
SCORES = {
    'float16': lambda values: pa.array(np.array(values, np.float16)),
    'float32': lambda values: pa.array(values, pa.float32()),
    'decimal': lambda values: pa.array([Decimal(value) for value in values]),
    'text': lambda values: pa.array(list(map(str, values))),
    'whole': lambda values: pa.array([round(value) for value in values]),
    'dictionary': lambda values: pa.array(values).dictionary_encode(),
}


@pytest.mark.parametrize('output', ['kept.csv', 'kept.jsonl', 'kept.parquet', 'kept.txt'])
@pytest.mark.parametrize('text', TYPES)
@pytest.mark.parametrize('score', SCORES)
def test_types_of_parquet_files_of_others(tmp_path, score, text, output):
    texts = {'path': ['a', 'b', 'c'], 'flags': ['flat', None, 'noise'], 'caption': ['x', None, 'z']}
    table = {name: TYPES[text](values) for name, values in texts.items()} | {'score': SCORES[score]([0.75, 1.5, 0.25])}
    table |= {'price': pa.array([Decimal('1.25')] * 3), 'error': pa.nulls(3), 'half': pa.array(np.ones(3, np.float16))}
    table['date'] = pa.array([datetime.date(2024, 1, 2)] * 3)
    source = tmp_path / 'scores.parquet'
    pq.write_table(pa.table(table), source)
    kept = filter_scores(source, tmp_path / output, min_score=0.5, without_flags=['flat', 'border'])
    assert kept.kept == 1
    if output == 'kept.txt':
        assert (tmp_path / output).read_text() == 'b\n'
    else:
        (row,) = read_table(tmp_path / output)
        assert (row['path'], row['caption'], row['price'], row['half']) == ('b', None, 1.25, 1)
        assert row['score'] == (2.0 if score == 'whole' else 1.5) and str(row['date']) == '2024-01-02'


def test_flags_that_are_missing_exclude_nothing(tmp_path):
    (tmp_path / 'a.jsonl').write_text('{"path": "a", "score": 0.5, "flags": null}\n{"path": "b", "score": 0.5}\n')
    assert filter_scores(tmp_path / 'a.jsonl', without_flags=['noise']).kept == 2


def test_scores_that_are_text_are_named(tmp_path):
    pq.write_table(pa.table({'path': ['a', 'b'], 'score': ['0.5', 'half']}), tmp_path / 'a.parquet')
    with pytest.raises(ValueError, match=r"a\.parquet, row 2: 'half' in the column score is not a number"):
        filter_scores(tmp_path / 'a.parquet')


def test_a_table_without_a_label(tmp_path):
    """What is filtered from it has none either, for report and compare."""
    (tmp_path / 'a.csv').write_text('path,score,flags\na.png,0.5,\nb.png,0.7,flat\n')
    for output in ('kept.csv', 'kept.parquet'):
        filter_scores(tmp_path / 'a.csv', tmp_path / output, min_score=0.1)
        assert open_scores(tmp_path / output).label is None and len(open_scores(tmp_path / output).rows()) == 2


def test_a_table_of_a_header_alone(tmp_path):
    (tmp_path / 'a.csv').write_text('path,score,flags\n')
    assert open_scores(tmp_path / 'a.csv').columns == ('path', 'score', 'flags')
    assert filter_scores(tmp_path / 'a.csv', tmp_path / 'kept.csv', without_flags=['flat']).rows == 0
