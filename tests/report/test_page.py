"""write_report: what a page holds of its rows, and which of them have a picture."""

import base64
import contextlib
import io
import json
import re
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from maclip_pyiqa.report import Maps, write_report
from maclip_pyiqa.report.page import ReportTable
from maclip_pyiqa.report.pictures import read_picture
from maclip_pyiqa.scoring import label, open_table, score_files


def held(path, name='scores'):
    """Data of a page."""
    text = path.read_text('utf-8')
    return json.loads(re.search(f'<script type="application/json" id="{name}">(.*)</script>', text)[1])


def columns(path):
    return {each['name']: each['values'] for each in held(path)['columns']}


@pytest.fixture
def page(tmp_path):
    return tmp_path / 'r.html'


@pytest.fixture
def save(page):
    def save(rows, **options):
        write_report(rows, page, **options)
        return page

    return save


def scored(count, folder=''):
    return [{'path': f'{folder}{i:03}.png', 'score': i / count, 'error': ''} for i in range(count)]


def test_columns_and_their_values(save):
    rows = [
        {'path': '/a/b/x.png', 'score': 0.123456, 'niqe': 1e12, 'width': 3, 'flags': 'flat', 'error': '', 'note': 'n'},
        {
            'path': '/a/y.png',
            'score': None,
            'niqe': float('nan'),
            'width': None,
            'flags': None,
            'error': 'no',
            'more': 2,
        },
    ]
    page = save(rows)
    assert held(page)['folder'] == '/a/'
    assert columns(page) == {
        'path': ['b/x.png', 'y.png'],
        'score': [123456, None],
        'niqe': [1e12, None],
        'note': ['n', ''],
        'more': [None, 2_000_000],
        'width': [3, None],
        'flags': ['flat', ''],
        'error': ['', 'no'],
    }
    kinds = {each['name']: (each['kind'], each.get('scale')) for each in held(page)['columns']}
    assert (
        kinds['score'] == ('number', 10**6) and kinds['niqe'] == ('number', 1) and kinds['width'] == ('integer', None)
    )
    assert kinds['note'] == ('text', None) and kinds['flags'] == ('words', None)
    about = {each['name']: (each['title'], each['role']) for each in held(page)['columns']}
    assert about['path'] == ('path', 'key') and about['niqe'] == ('niqe', 'other') and about['error'][1] == 'error'
    assert all(each['meaning'] for each in held(page)['columns'])
    assert '2 images, 1 of them without a score' in page.read_text()


def test_rows_from_pandas(save):
    given = [{'path': 'a', 'score': 0.5, 'width': 640, 'flags': 'flat', 'note': 'x'}, {'path': 'b', 'score': None}]
    page = save(pd.DataFrame(given).to_dict('records'))
    found = {
        'path': ['a', 'b'],
        'score': [500_000, None],
        'width': [640, None],
        'flags': ['flat', ''],
        'note': ['x', ''],
    }
    assert columns(page) == found and '2 images, 1 of them without a score' in page.read_text()
    page = save([{'path': 'a', 'score': np.float32(0.5), 'width': np.int64(3), 'note': [1]}])
    assert columns(page) == {'path': ['a'], 'score': [500_000], 'note': ['[1]'], 'width': [3]}


def test_what_is_no_number_is_text(save):
    page = save([{'path': 'a', 'score': 0.5, 'ok': True, 'id': 2**53 + 1}, {'path': 'b', 'score': 0.7, 'ok': False}])
    found = columns(page)
    assert found['ok'] == ['True', 'False'] and found['id'] == ['9007199254740993', '']


def test_rows_may_come_one_by_one(save):
    assert columns(save(iter(scored(3))))['path'] == ['000.png', '001.png', '002.png']


def test_the_same_images_have_the_same_choices(save):
    rows = scored(5, '/a/')
    first = held(save(rows))['id']
    assert held(save([row | {'score': 0.5} for row in rows[::-1]]))['id'] == first
    assert held(save(rows[1:]))['id'] != first


def test_maps_are_collected_while_scoring(save, tiny_metric, photo_files):
    maps = Maps()
    rows = list(score_files(tiny_metric, photo_files[:4], each=maps))
    found = held(save(rows, label=label(tiny_metric), maps=maps), 'pictures')
    assert set(found) == {'0', '1', '2', '3'}
    for i, row in enumerate(rows):
        assert base64.b64decode(found[str(i)]['jpeg']) == read_picture(row['path'])[0]
        assert found[str(i)]['windows'] == maps[row['path']]


def test_pictures_of_a_table_are_read_where_there_are_files(save, photo_files, tmp_path):
    shown, failed = map(str, photo_files[:2])
    rows = [*scored(3, '/none/'), {'path': shown, 'score': 0.7}, {'path': failed, 'score': None}]
    found = held(save(rows), 'pictures')
    assert list(found) == ['3'] and found['3']['windows'] is None
    assert Image.open(io.BytesIO(base64.b64decode(found['3']['jpeg']))).size == (192, 144)
    assert held(save(rows, thumbnails=0), 'pictures') == {}


def test_the_number_of_pictures_is_bounded(save, monkeypatch):
    read = []
    monkeypatch.setattr('maclip_pyiqa.report.page.read_picture', lambda path: read.append(path))
    save(scored(1000), thumbnails=30)
    numbers = sorted(int(path[:3]) for path in read)
    assert len(numbers) == 30 and numbers[:10] == list(range(10)) and numbers[20:] == list(range(990, 1000))
    assert max(b - a for a, b in pairwise(numbers)) < 110


def test_notes(save, tiny_metric):
    from maclip_pyiqa import MACLIP

    note = 'not CLIP, and not the published metric'
    assert note in save(scored(1), label=label(MACLIP(backbone='demo'))).read_text()
    assert note not in save(scored(1), label=label(tiny_metric)).read_text() and note not in save(scored(1)).read_text()


def test_percentiles_of_a_reference(save, page, tmp_path):
    from maclip_pyiqa import Reference

    about = {'versions': {'maclip_pyiqa': '1.0'}, 'config': {'max_views': None}, 'fingerprint': 'abc'}
    with contextlib.closing(open_table(tmp_path / '2025.csv', ('path', 'score', 'error'))) as table:
        table.fill(scored(1200), about)
    rows, reference = [*scored(4), {'path': 'x', 'score': None}], Reference(tmp_path / '2025.csv')
    text = save(rows, label=about, reference=reference, source={'command': 'x'}).read_text()
    assert columns(page)['percentile'] == [0, 25_000_000, 50_000_000, 75_000_000, None]
    assert [each['name'] for each in held(page)['columns']] == ['path', 'score', 'percentile', 'error']
    assert f'without a score; percentiles among the 1,200 images of {tmp_path}/2025.csv<' in text
    assert f'1,200 images of {tmp_path}/2025.csv, digest {reference.about["digest"]}<' in text and '<dd>x</dd>' in text
    # what a table says of its own column, and that it says nothing without that column
    marked = about | {'reference': reference.about}
    assert (
        '; percentiles among the 1,200'
        in save([{'path': 'a', 'score': 1.0, 'percentile': 2.0}], label=marked).read_text()
    )
    for more in ({'label': marked}, {'label': about}, {}):
        assert 'percentiles among' not in save(rows, **more).read_text() and 'percentile' not in columns(page)
    for wrong in (None, about | {'fingerprint': 'x'}):
        with pytest.raises(ValueError, match=r'same metric|another metric'):
            save(rows, label=wrong, reference=reference)


def test_a_page_beside_tables(page):
    table = ReportTable(page, ('path', 'score', 'error'), thumbnails=0)
    table.fill(scored(1))
    assert not page.exists() and not list(page.parent.iterdir())
    table.write({'path': 'b', 'score': 1.0})
    table.close()
    assert columns(page)['path'] == ['000.png', 'b']
    with pytest.raises(OSError):  # before there is anything to lose
        ReportTable(page / 'none' / 'r.html', ()).fill()


def test_wrong_use(save, page, monkeypatch):
    with pytest.raises(ValueError, match='thumbnails=-1'):
        save(scored(1), thumbnails=-1)
    for wrong in ({'path': 'a'}, {'score': 1.0}):
        with pytest.raises(ValueError, match="without 'path' or 'score'"):
            save([wrong])
    monkeypatch.setitem(sys.modules, 'jinja2', None)
    for wrong in (lambda: save(scored(1)), lambda: ReportTable(page, ())):
        with pytest.raises(ImportError, match=r'maclip_pyiqa\[report\]'):
            wrong()
    assert not page.exists()
