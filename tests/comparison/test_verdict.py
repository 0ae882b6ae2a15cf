"""Comparisons of folders and tables: what is scored, left out, found, and written."""

import copy
import csv
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import maclip_pyiqa
from maclip_pyiqa import MACLIP, score_files
from maclip_pyiqa.comparison import compare
from maclip_pyiqa.comparison.pairing import pair, read_versions
from maclip_pyiqa.comparison.statistics import paired
from maclip_pyiqa.comparison.verdict import score_folders
from maclip_pyiqa.scoring import columns, find_images, label, open_table
from maclip_pyiqa.scoring import score as scoring

OURS = [
    'score',
    'q_sim',
    'q_mag',
    *(f'attribute_{name}' for name in ('good', 'sharp', 'edges', 'resolution', 'noise-free')),
]


@pytest.fixture(scope='module')
def folders(photo_files, tmp_path_factory):
    """Crops of photos as PNG, and the same as poor JPEG files."""
    root = tmp_path_factory.mktemp('versions')
    for i, file in enumerate([*photo_files[:4], *photo_files[:4]]):
        crop = Image.open(file).crop((0, 0, 128, 96) if i < 4 else (300, 200, 428, 296))
        for name, options in (('clean', {}), ('jpeg', {'quality': 8})):
            folder = root / name / f'crop{i // 4}'
            folder.mkdir(parents=True, exist_ok=True)
            crop.save(folder / f'{file.stem}.{"jpg" if options else "png"}', **options)
    return root


@pytest.fixture(scope='module')
def metric():
    return MACLIP(backbone='demo')


def rows(values, **more):
    return [
        {'path': f'{i:02}.png', 'score': v, 'error': '', **{k: x[i] for k, x in more.items()}}
        for i, v in enumerate(values)
    ]


def test_a_folder_and_its_jpeg_versions(folders, metric):
    result = compare(folders / 'clean', folders / 'jpeg', metric=metric)
    assert result.names == ('clean', 'jpeg') and result.quantities == tuple(OURS)
    assert result.failed == [] and result.unpaired == {}
    assert result.label | {'date': ''} == label(metric) | {'date': ''}
    first, *_ = result.results
    assert first.verdict == 'jpeg below clean' and first.statistics.n == 8 and first.statistics.wins == 0
    a, b = (
        np.array([row['score'] for row in score_files(metric, find_images([folders / name]))])
        for name in ('clean', 'jpeg')
    )
    assert first.statistics.difference == pytest.approx((b - a).mean(), abs=1e-6)
    assert compare(folders / 'jpeg', folders / 'clean', metric=metric).results[0].verdict == 'clean above jpeg'


def test_a_folder_and_itself(folders, metric, monkeypatch):
    read = []
    monkeypatch.setattr(
        scoring, 'read_files', lambda paths, *args, f=scoring.read_files: read.extend(paths) or f(paths, *args)
    )
    result = compare(folders / 'clean', folders / 'clean', metric=metric)
    assert len(read) == 8  # each file once
    assert {r.verdict for r in result.results} == {'no difference: all 8 pairs are equal'}
    assert all(r.statistics.p == 1 and r.statistics.wins == 0.5 for r in result.results)


def test_tables_give_what_folders_give(folders, metric, tmp_path):
    for name, suffix in (('clean', '.csv'), ('jpeg', '.parquet')):
        table = open_table(tmp_path / f'{name}{suffix}', columns(metric.attribute_names))
        table.fill(label=label(metric))
        for row in score_files(metric, find_images([folders / name])):
            table.write(row)
        table.close()
    both = compare(tmp_path / 'clean.csv', tmp_path / 'jpeg.parquet')
    want = compare(folders / 'clean', folders / 'jpeg', metric=metric)
    mixed = compare(tmp_path / 'clean.csv', folders / 'jpeg', metric=metric)
    for found in (both, mixed):
        assert found.names == want.names and list(found.images) == list(want.images)
        for one, other in zip(found.results, want.results, strict=True):
            assert (one.quantity, one.verdict) == (other.quantity, other.verdict)
            assert one.statistics.difference == pytest.approx(other.statistics.difference, abs=2e-6)
    assert both.label['fingerprint'] == metric.fingerprint() and both.notes == []
    with pytest.raises(ValueError, match='the folders and clean have scores of different metrics: alpha was 2'):
        compare(tmp_path / 'clean.csv', folders / 'jpeg', metric=MACLIP(backbone='demo', alpha=2.0))
    (tmp_path / 'clean.csv.meta.json').unlink()
    result = compare(tmp_path / 'clean.csv', tmp_path / 'jpeg.parquet')
    assert result.notes == ['clean: no label says which metric the scores are from']
    assert result.label == both.label | {'date': result.label['date']}  # that of the other table


def test_failed_and_unpaired_images_are_left_out(folders, metric, tmp_path, monkeypatch):
    a, b = tmp_path / 'a', tmp_path / 'b'
    for folder in (a, b):
        folder.mkdir()
        for i, file in enumerate(find_images([folders / 'clean'])):
            (folder / f'{i}.png').write_bytes(Path(file).read_bytes())
    (b / '3.png').write_bytes(b'broken')
    (a / 'only.png').write_bytes((a / '0.png').read_bytes())
    read = []
    monkeypatch.setattr(
        scoring, 'read_files', lambda paths, *args, f=scoring.read_files: read.extend(paths) or f(paths, *args)
    )
    result = compare(a, b, metric=metric)
    assert len(read) == 16 and not any('only' in path for path in read)  # an image without partner is not scored
    assert result.unpaired == {'only': ('a',)}
    assert [(name, row['path'], row['error'][:12]) for name, row in result.failed] == [
        ('b', str(b / '3.png'), 'not an image')
    ]
    assert {r.statistics.n for r in result.results} == {7}


def test_all_failed(metric, tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / '1.png').write_bytes(b'broken')
    result = compare(tmp_path / 'a', tmp_path / 'b', metric=metric)
    assert result.results[0].verdict == 'too few pairs for a verdict: n = 0, at least 6 are needed'
    assert len(result.failed) == 2 and 'n = 0' in str(result)


def test_rows_of_the_caller_stay_as_they_are(folders, metric):
    versions = read_versions([folders / 'clean', folders / 'jpeg'])
    table = list(score_files(metric, find_images([folders / 'clean'])))
    images, before = pair(versions), copy.deepcopy((versions, pair(versions), table))
    scored, maps = score_folders(images, versions, metric)
    result = compare(table, folders / 'jpeg', metric=metric)
    assert (versions, images, table) == before
    rows = [row for pair in scored.values() for row in pair]
    assert list(scored) == list(images) and all(row['score'] > 0 and row['path'] in maps for row in rows)
    assert [rows[1] for rows in result.images.values()] == [rows[1] for rows in scored.values()]


def test_folders_of_tables(tmp_path, monkeypatch):
    """And URLs of them, which `open_scores` reads."""
    tables = {tmp_path: rows(np.linspace(0.2, 0.9, 8)), 's3://b/scores': rows(np.linspace(0.3, 1.0, 8))}
    (tmp_path / 'part.parquet').touch()

    def source(path):
        rows_of = tables[Path(path) if path[0] == '/' else path]
        return SimpleNamespace(label=None, is_complete=True, rows=lambda text: rows_of)

    monkeypatch.setattr('maclip_pyiqa.comparison.pairing.open_scores', source)
    result = compare(tmp_path, 's3://b/scores')
    assert result.results[0].verdict == f'scores above {tmp_path.name}'


def test_other_metrics_and_their_direction():
    low, high = np.linspace(1, 2, 8), np.linspace(1.1, 2.3, 8)
    result = compare(
        rows(low, niqe=low, mine=low, loss=high), rows(high, niqe=high, mine=high, loss=low), lower_better=['loss']
    )
    found = {r.quantity: (r.verdict, r.statistics.wins) for r in result.results}
    assert found == {
        'score': ('B above A', 1),
        'niqe': ('B above A (lower is better)', 0),  # known from pyiqa
        'mine': ('B above A', 1),
        'loss': ('B below A (lower is better)', 1),
    }


def test_without_pyiqa_a_note_says_which_direction_is_taken(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyiqa', None)
    values = np.linspace(1, 2, 8)
    result = compare(
        rows(values, niqe=values, loss=values), rows(values, niqe=values, loss=values), lower_better=['loss']
    )
    assert result.notes[-1].startswith('niqe: higher is taken for better')
    assert 'higher' not in ''.join(compare(rows(values), rows(values)).notes)


def test_a_quantity_uses_the_pairs_that_have_it():
    scores = np.linspace(0.2, 0.9, 9)
    nothing = [None, math.nan, *scores[2:]]
    result = compare(rows(scores, x=nothing), rows(scores + 0.1, x=scores))
    assert {r.quantity: r.statistics.n for r in result.results} == {'score': 9, 'x': 7}


def test_three_versions_and_options():
    rng = np.random.default_rng(0)
    a, b, c = (rng.random(12) for _ in range(3))
    result = compare(rows(a), rows(b), rows(c), names=['x', 'y', 'z'], resamples=500, seed=3)
    assert [(r.a, r.b) for r in result.results] == [('x', 'y'), ('x', 'z'), ('y', 'z')]
    assert result.of('x', 'z')[0].statistics == paired(a, c, resamples=500, seed=3)
    assert result.settings == {'resamples': 500, 'seed': 3}
    text = str(result)
    assert text.count('quantity') == 3 and all(r.verdict in text for r in result.results)


def test_widths_weights_and_text_are_no_quantities():
    a = rows([0.5] * 6, w_sim=[0.1] * 6, width=[64] * 6, height=[64] * 6, flags=[''] * 6, id=list('abcdef'))
    assert compare(a, a).quantities == ('score',)


def test_tables_of_somebody_else(tmp_path):
    """Without paths and without a score."""
    a, b = ([{'id': i, 'niqe': i + k / 10} for i in range(8)] for k in (1, 2))
    result = compare(a, b, by='id')
    assert result.results[0].verdict == 'B above A (lower is better)' and next(iter(result.images)) == '0'
    assert result.quantities == ('niqe',)
    result.to_html(tmp_path / 'o.html')
    result.pairs_to_csv(tmp_path / 'o.csv')
    with pytest.raises(ValueError, match='no two versions have images and a column of numbers in common'):
        compare(a, [{'id': i, 'piqe': 1.0} for i in range(8)], by='id')


def test_csv(tmp_path):
    hostile = 'a,"b"\n\ud800=1'
    a = [{'path': hostile + str(i), 'score': i / 10, 'error': ''} for i in range(7)]
    b = [*(row | {'score': row['score'] + 0.05} for row in a[:6]), {'path': 'new', 'score': 1.0, 'error': ''}]
    result = compare(a, b, names=['old', hostile])
    result.to_csv(tmp_path / 'o.csv')
    result.pairs_to_csv(tmp_path / 'p.csv')
    (row,) = csv.DictReader((tmp_path / 'o.csv').read_text('utf-8').splitlines(keepends=True))
    assert row['a'] == 'old' and row['b'] == '\ufffda,"b"\n\\ud800=1' and row['quantity'] == 'score'
    assert (row['n'], row['difference'], row['wins'], row['lower_better']) == ('6', '0.05', '1', 'false')
    lines = list(csv.DictReader((tmp_path / 'p.csv').open(encoding='utf-8', newline='')))
    assert len(lines) == 8 and list(lines[0])[5:] == ['score_a', 'score_b', 'score_difference']
    by_path = {line['path_b']: line for line in lines}
    assert by_path['new']['path_a'] == by_path['new']['score_a'] == by_path['new']['score_difference'] == ''
    assert sum(line['score_difference'] == '0.05' for line in lines) == 6
    assert '\n' not in str(result).splitlines()[0] and str(result).count('\n') == 3  # verdict, blank, header, a row
    few = compare(a[:3], b[:3])
    few.to_csv(tmp_path / 'few.csv')
    (row,) = csv.DictReader((tmp_path / 'few.csv').read_text('utf-8').splitlines(keepends=True))
    assert row['low'] == row['detectable'] == '' and row['verdict'].startswith('too few')


def test_public_name():
    assert maclip_pyiqa.compare is compare


def test_lower_better_names_what_is_compared(tmp_path):
    tables = [rows(np.linspace(0.2, 0.9, 8)), rows(np.linspace(0.3, 1.0, 8))]
    with pytest.raises(ValueError, match='lower_better names nique, which is not compared; expected some of score'):
        compare(*tables, lower_better=['nique'])


def test_scores_of_a_run_that_is_not_complete(tmp_path):
    from maclip_pyiqa.scoring.formats.parquet import to_bytes, to_table
    from maclip_pyiqa.scoring.schema import arrow_schema

    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        table = to_table(rows(np.linspace(0.2, 0.9, 8)), arrow_schema(['path', 'score']))
        (tmp_path / name / 'x.parquet').write_bytes(to_bytes(table, None))
        (tmp_path / name / '_manifest.json').write_text('{"complete": %s}' % ('false' if name == 'b' else 'true'))
    notes = compare(tmp_path / 'a', tmp_path / 'b').notes
    assert [note for note in notes if 'not complete' in note] == [
        'b: the run that writes these scores is not complete; rerun its command first'
    ]
