"""Pages: `score -o FILE.html`, and `report` from a table."""

import json
import os
import re
import sys

import pytest

from maclip_pyiqa.cli import main


def held(path, name='scores'):
    return json.loads(
        re.search(f'<script type="application/json" id="{name}">(.*)</script>', path.read_text('utf-8'))[1]
    )


def columns(path):
    return {each['name']: each['values'] for each in held(path)['columns']}


@pytest.mark.parametrize('workers', [0, 2])
def test_a_page_beside_a_table(run, folder, tmp_path, workers):
    (folder / 'bad.png').write_bytes(b'broken')
    page, table = tmp_path / 'o.html', tmp_path / 'o.csv'
    code, out, _ = run(folder, '-o', page, '-o', table, '--metrics', 'entropy', workers=workers)
    assert (code, out) == (1, '')
    found = columns(page)
    assert found['path'] == ['a.png', 'b.jpg', 'bad.png', 'sub/c.png'] and held(page)['folder'] == f'{folder}/'
    assert found['score'][2] is None and 'not an image' in found['error'][2]
    assert {'q_sim', 'attribute_sharp', 'entropy', 'width', 'flags'} <= set(found)  # whatever the table has
    pictures = held(page, 'pictures')
    assert sorted(pictures) == ['0', '1', '3'] and all(
        picture['windows']['values']['score'] for picture in pictures.values()
    )
    text = page.read_text()
    assert '4 images, 1 of them without a score' in text and 'fingerprint' in text and 'torch 2' in text
    assert f'score {folder}' in text  # the command
    assert sorted(path.name for path in tmp_path.iterdir()) == ['o.csv', 'o.csv.meta.json', 'o.html', 'photos']


def test_a_page_of_few_pictures(run, folder, tmp_path):
    assert run(folder, '-o', tmp_path / 'o.html', '--thumbnails', '2')[0] == 0
    assert len(held(tmp_path / 'o.html', 'pictures')) == 2
    assert run(folder, '-o', tmp_path / 'o.html', '--thumbnails', '0', '--maps', tmp_path / 'maps')[0] == 0
    assert held(tmp_path / 'o.html', 'pictures') == {} and len(list((tmp_path / 'maps').rglob('*.png'))) == 3


def test_a_resumed_run_has_a_page_of_all(run, folder, tmp_path):
    table, page = tmp_path / 'o.csv', tmp_path / 'o.HTML'
    assert run(folder / 'a.png', '-o', table)[0] == 0
    assert run(folder, '-o', table, '-o', page, '--resume')[0] == 0
    assert columns(page)['path'] == ['a.png', 'b.jpg', 'sub/c.png']
    pictures = held(page, 'pictures')
    assert len(pictures) == 3 and pictures['0']['windows'] is None and pictures['1']['windows'] is not None
    code, _, err = run(folder, '-o', page, '--resume')
    assert code == 2 and 'needs -o FILE, the table' in err


@pytest.mark.parametrize('suffix', ['.csv', '.jsonl', '.parquet'])
def test_a_page_from_a_table(run, folder, tmp_path, suffix, capsys):
    table, page = tmp_path / f'o{suffix}', tmp_path / 'o.html'
    assert run(folder, '-o', table)[0] == 0
    assert main(['report', str(table), '-o', str(page)]) == 0
    assert capsys.readouterr().err == f'maclip-pyiqa: {page}: 3 images\n'
    assert columns(page)['path'] == ['a.png', 'b.jpg', 'sub/c.png'] and 'q_sim' not in columns(page)
    assert len(held(page, 'pictures')) == 3
    text = page.read_text()
    assert f'report {table}' in text and 'fingerprint' in text and f'{table}, of 20' in text
    (folder / 'a.png').unlink()
    assert main(['report', str(table), '-o', str(page), '--thumbnails', '3']) == 0
    assert sorted(held(page, 'pictures')) == ['1', '2']


def test_percentiles_of_a_reference(run, folder, tmp_path, capsys):
    table, kept, page = tmp_path / 'o.csv', tmp_path / 'kept.csv', tmp_path / 'o.html'
    assert run(folder, '-o', table)[0] == 0
    assert main(['report', str(table), '-o', str(page), '--reference', str(table), '--thumbnails', '0']) == 0
    assert sorted(columns(page)['percentile']) == [0, 33_333_333, 66_666_667]
    assert f'3 images; percentiles among the 3 images of {table}<' in page.read_text()
    assert main(['filter', str(table), '--reference', str(table), '--min-percentile', '30', '-o', str(kept)]) == 0
    assert main(['report', str(kept), '-o', str(page), '--thumbnails', '0']) == 0  # the label of the table says it
    assert f'2 images; percentiles among the 3 images of {table}<' in page.read_text()
    page.unlink()
    (tmp_path / 'kept.csv.meta.json').unlink()
    for args in (['report', kept, '--reference', table], ['report', table, '--reference', kept]):
        capsys.readouterr()
        assert main([*map(str, args), '-o', str(page)]) == 2
        assert 'no label that says which metric' in capsys.readouterr().err and not page.exists()


def test_rows_that_all_failed(tmp_path):
    page = tmp_path / 'o.html'
    assert main(['score', str(tmp_path / 'none.png'), '-o', str(page)]) == 1
    assert columns(page)['error'] == ['No such file or directory']


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['{tmp}/none.csv', '-o', '{tmp}/o.html'], 'No such file'),
        (['{tmp}/o.txt', '-o', '{tmp}/o.html'], 'expected one of .csv'),
        (['{tmp}/wrong.csv', '-o', '{tmp}/o.html'], 'line 2'),
        (['{tmp}/good.csv', '-o', '{tmp}/o.pdf'], 'expected FILE.html'),
        (['{tmp}/good.csv', '-o', '{tmp}/none/o.html'], 'No such file'),
        (['{tmp}/good.csv', '-o', '{tmp}/o.html', '--thumbnails', 'x'], 'whole number'),
        (['{tmp}/good.csv'], 'required'),
    ],
)
def test_wrong_use(args, message, tmp_path, capsys):
    (tmp_path / 'wrong.csv').write_text('path,score,error\na,half,\n')
    (tmp_path / 'good.csv').write_text('path,score,error\na,0.5,\n')
    assert main(['report', *(arg.format(tmp=tmp_path) for arg in args)]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.glob('o.*'))


def test_places_that_cannot_be_written_are_known_at_the_start(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr('maclip_pyiqa.scoring.batch.read_pixels', lambda path: pytest.fail('read'))
    code, _, err = run(folder, '-o', tmp_path / 'none' / 'o.html')
    assert code == 2 and 'cannot be written' in err


def test_without_jinja2(run, folder, tmp_path, monkeypatch):
    (tmp_path / 'o.csv').write_text('path,score,error\na,0.5,\n')
    monkeypatch.setitem(sys.modules, 'jinja2', None)
    code, _, err = run(folder, '-o', tmp_path / 'o.html')
    assert code == 2 and 'maclip_pyiqa[report]' in err
    assert main(['report', str(tmp_path / 'o.csv'), '-o', str(tmp_path / 'o.html')]) == 2


def test_a_page_of_a_collection_and_of_what_was_filtered_from_it(run, folder, tmp_path, monkeypatch, capsys):
    from maclip_pyiqa import MACLIP, score_files
    from maclip_pyiqa.collections.folder import Collection
    from maclip_pyiqa.scoring import find_images, label
    from maclip_pyiqa.scoring.formats.parquet import to_table
    from maclip_pyiqa.scoring.schema import arrow_schema
    from maclip_pyiqa.scoring.schema import columns as names_of

    (folder / os.fsdecode(b'\xff.png')).write_bytes(b'broken')
    metric = MACLIP(backbone='demo')
    rows = list(score_files(metric, find_images([folder])))
    scores = Collection(tmp_path / 'scores', label(metric), {'keep': [], 'shard_rows': 2})
    about = {'kind': 'files', 'source': '', 'seconds': 0.0, 'lost': ''}
    for name, first in (('a', 0), ('b', 2)):
        scores.finish(name, to_table(rows[first : first + 2], arrow_schema(names_of(metric.attribute_names))), about)
    scores.save_manifest(ended=True)
    scores.close()

    page = tmp_path / 'o.html'
    assert main(['report', str(tmp_path / 'scores'), '-o', str(page)]) == 0
    found = columns(page)
    assert [held(page)['folder'] + path for path in found['path']] == [row['path'] for row in rows]
    assert len(held(page, 'pictures')) == 3 and sum(score is None for score in found['score']) == 1
    assert 'not the published metric' in page.read_text()
    for suffix in ('.parquet', '.csv', '.jsonl'):
        kept = tmp_path / f'kept{suffix}'
        assert main(['filter', str(tmp_path / 'scores'), '--top', '2', '-o', str(kept)]) == 0
        assert main(['report', str(kept), '-o', str(page)]) == 0
        best = sorted((row['path'] for row in rows if row['score']), key={r['path']: r['score'] for r in rows}.get)[-2:]
        assert sorted(held(page)['folder'] + path for path in columns(page)['path']) == sorted(best)
        assert 'fingerprint' in page.read_text()

    monkeypatch.setattr('maclip_pyiqa.cli.report.MOST', 3)
    capsys.readouterr()
    assert main(['report', str(tmp_path / 'scores'), '-o', str(page)]) == 2
    assert 'holds 4 images, and a page at most 3; choose some with `maclip-pyiqa filter' in capsys.readouterr().err


@pytest.mark.parametrize('suffix', ['.csv', '.jsonl'])
def test_a_page_of_a_table_that_people_edited(tmp_path, suffix, capsys):
    table, page = tmp_path / f'o{suffix}', tmp_path / 'o.html'
    if suffix == '.csv':
        table.write_text(';score;path;caption;n;ok\n0;0,5;a;"a cat; sitting";1;True\n1;NA;b;NA;NaN;False', 'utf-16')
    else:
        first = '{"": 0, "score": 0.5, "path": "a", "caption": "a cat; sitting", "n": 1, "ok": true}'
        table.write_text(f'{first}\n{{"": 1, "score": NaN, "path": "b", "caption": null, "n": NaN, "ok": false}}')
    assert main(['report', str(table), '-o', str(page)]) == 0, capsys.readouterr().err
    found = columns(page)
    assert found['path'] == ['a', 'b'] and found['score'] == [500_000, None]
    assert found['caption'] == ['a cat; sitting', ''] and found['n'] == [1_000_000, None]
    assert found['ok'] == ['True', 'False'] and '2 images, 1 of them without a score' in page.read_text()
