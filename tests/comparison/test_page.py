"""The page of a comparison: what it holds, and what a reader does with it in Chromium."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maclip_pyiqa.comparison.page import write_page
from maclip_pyiqa.report.pictures import Maps, window_values

HOSTILE = [
    '"><img src=x onerror=alert(1)>',
    '</script><script>alert(1)</script>',
    '<!--<script>',
    '{{ 7 * 7 }}',
    '\u2028line',
    'bytes\udcff',
    '\u202egnp.exe',
    'x' * 250,
]
COUNT = 9


def result(quantity='score', a='old', b='new', **changes):
    numbers = {'n': COUNT, 'mean_a': 0.5, 'mean_b': 0.55, 'difference': 0.05, 'low': 0.02, 'high': 0.08}
    numbers |= {'wins': 0.75, 'wins_low': 0.5, 'wins_high': 0.9, 'p': 0.01, 'detectable': 0.03, 'lower_better': False}
    return {'a': a, 'b': b, 'quantity': quantity, **numbers, 'verdict': f'{b} above {a}'} | changes


def row(path, score, q_sim=0.5, flags='', error=''):
    return {'path': str(path), 'score': score, 'q_sim': q_sim, 'flags': flags, 'error': error}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Nine pairs; the difference of the score grows from -0.4 to 0.4, that of the cosine cue falls. One failed, one
    without a partner."""
    root, found = tmp_path_factory.mktemp('images'), {}
    for i in range(COUNT):
        paths = [root / f'{version}{i}.png' for version in ('old', 'new')]
        for k, path in enumerate(paths):
            Image.new('RGB', (200, 140), (20 * i, 40, 200 * k)).save(path)
        a, b = row(paths[0], 0.5, 0.9), row(paths[1], 0.5 + (i - 4) / 10, 0.9 - i / 10, 'flat' if i == 8 else '')
        found[f'x/{i}'] = (a, b)
    found['broken'] = (row(root / 'old0.png', 0.5), row(root / 'none.png', None, None, error='cannot be read'))
    found['alone'] = (row(root / 'old1.png', 0.7), None)
    return found


@pytest.fixture(scope='module')
def maps(images, analysis_of):
    found = Maps()
    for i, pair in enumerate(images.values()):
        for each in pair:
            if each is not None and each['score'] is not None:
                found(each, None, analysis_of(140, 200, seed=i))
    return found


RESULTS = [result(), result('q_sim', difference=-0.4, low=-0.5, high=-0.3, verdict='new below old')]


@pytest.fixture(scope='module')
def page(images, maps, tmp_path_factory):
    path = tmp_path_factory.mktemp('page') / 'compare.html'
    label = {'versions': {'maclip_pyiqa': '1.0'}, 'config': {'backbone': 'demo'}, 'fingerprint': 'abc'}
    notes = ['new: no label says which metric the scores are from']
    write_page(
        path, ('old', 'new'), images, RESULTS, maps=maps, label=label, notes=notes, source={'command': 'compare "a b"'}
    )
    return path


def held(path, name):
    return json.loads(re.search(f'<script type="application/json" id="{name}">(.*)</script>', path.read_text())[1])


def test_what_the_page_holds(page, images, maps):
    comparison, pictures = held(page, 'comparison'), held(page, 'pictures')
    assert comparison['names'] == ['old', 'new'] and comparison['quantities'] == ['score', 'q_sim']
    assert [image['key'] for image in comparison['images']] == list(images)
    assert comparison['images'][3]['rows'][1]['values'] == [0.4, 0.6]
    assert comparison['images'][-1]['rows'][1] is None
    assert sorted(pictures) == [str(i) for i in range(COUNT)]
    first = pictures['0'][0]
    assert first['size'] == [200, 140] and first['windows'] == maps[images['x/0'][0]['path']]
    text = page.read_text()
    assert 'demonstration backbone' in text and 'no label' in text and 'compare &#34;a b&#34;' in text
    assert 'images of old' in text and '11 images, 1 failed' in text


@pytest.mark.parametrize(
    ('count', 'shown'), [(0, []), (1, ['0']), (3, ['0', '4', '8']), (6, ['0', '1', '2', '5', '7', '8'])]
)
def test_pictures_are_bounded(images, tmp_path, count, shown):
    """The largest differences of either sign, and evenly spread ones between."""
    write_page(tmp_path / 'o.html', ('old', 'new'), images, RESULTS, pictures=count)
    found = sorted(held(tmp_path / 'o.html', 'pictures'))
    assert len(found) == len(shown) and {'0', '8'} & set(found) == {'0', '8'} & set(shown)
    assert 'the scores have no label' in (tmp_path / 'o.html').read_text()


def test_pictures_of_files_that_are_gone(images, tmp_path):
    gone = {key: (pair[0], pair[1] and pair[1] | {'path': 'gone.png'}) for key, pair in images.items()}
    write_page(tmp_path / 'o.html', ('old', 'new'), gone, RESULTS)
    assert all(first and second is None for first, second in held(tmp_path / 'o.html', 'pictures').values())


def test_numbers_that_are_not_finite(tmp_path, images):
    results = [result(low=float('nan'), high=float('nan'), detectable=float('nan'))]
    write_page(tmp_path / 'o.html', ('old', 'new'), images, results, pictures=0)
    assert held(tmp_path / 'o.html', 'comparison')['results'][0]['low'] is None


def test_maps_are_what_was_packed(analysis_of, tmp_path):
    """By any path of the file."""
    maps, analysis = Maps(), analysis_of(140, 200)
    path, link = str(tmp_path / 'a.png'), tmp_path / 'b.png'
    link.symlink_to('a.png')
    maps({'path': path}, None, analysis)
    assert maps[path] == maps[str(link)] == window_values(analysis) and len(maps) == 1
    assert maps.get('none') is None and len(maps._packed[os.path.realpath(path)]) < 1000


# --- in Chromium ------------------------------------------------------------------------------------------------------


class Reader:
    def __init__(self, browser):
        self.browser = browser

    def run(self, code, *args):
        """What JavaScript returns; by way of JSON, which holds halves of surrogate pairs too."""
        return json.loads(self.browser.execute_script(f'return JSON.stringify((() => {{ {code} }})() ?? null)', *args))

    def texts(self, selector):
        return self.run('return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)', selector)

    def text(self, selector):
        return self.run('return document.querySelector(arguments[0]).textContent', selector)

    def find(self, selector):
        return self.browser.find_element('css selector', selector)

    def shown(self, selector):
        return self.find(selector).is_displayed()

    def set(self, selector, value, event='change'):
        code = 'const e = document.querySelector(arguments[0]); e.value = arguments[1]; '
        self.run(code + 'e.dispatchEvent(new Event(arguments[2], {bubbles: true}))', selector, value, event)

    @property
    def keys(self):
        return self.texts('#pairs .name')


@pytest.fixture
def open_page(browser):
    for log in ('browser', 'performance'):
        browser.get_log(log)
    browser.set_window_size(1280, 1000)

    def open_page(path):
        browser.get(Path(path).as_uri())
        return Reader(browser)

    yield open_page
    # no error, and nothing that the policy stopped; hints on speed are about the tests, which read canvases
    assert [entry for entry in browser.get_log('browser') if entry['source'] != 'rendering'] == []
    messages = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    asked = {m['params']['request']['url'] for m in messages if m['method'] == 'Network.requestWillBeSent'}
    assert {address.split(':')[0] for address in asked} <= {'file', 'data', 'blob'}
    assert len({address for address in asked if address.startswith('file:')}) <= 1
    browser.get('about:blank')


def test_statistics_and_verdict(open_page, page):
    reader = open_page(page)
    assert reader.text('#verdict') == 'new above old' and not reader.shown('#versions')
    (score, cue) = (reader.texts(f'#statistics tbody tr:nth-child({i}) > *') for i in (1, 2))
    assert score == [
        *(
            'score',
            '9',
            '0.5000',
            '0.5500',
            '+0.0500',
            '+0.0200 to +0.0800',
            '75 % (50 to 90)',
            '0.0100',
            'new above old',
        )
    ]
    assert cue[0] == 'cosine cue' and cue[-1] == 'new below old'
    assert reader.text('#mean-first') == 'old'


def test_pairs_are_sorted_by_difference(open_page, page):
    reader = open_page(page)
    up = [f'x/{i}' for i in range(9)]
    assert reader.keys == up
    assert reader.texts('#pairs .change')[0] == '\u25bc -0.4000' and reader.texts('#pairs .change')[4] == '0'
    assert reader.run("return document.querySelectorAll('#pairs img').length") == 18
    reader.set('#sort', 'high')
    assert reader.keys == up[::-1]
    reader.set('#sort', 'size')
    assert set(reader.keys[:2]) == {'x/0', 'x/8'} and reader.keys[-1] == 'x/4'
    reader.set('#sort', 'low')
    reader.find('#statistics tbody tr:nth-child(2) button').click()  # the cosine cue, whose differences fall
    assert reader.keys == up[::-1] and reader.run("return document.getElementById('quantity').value") == 'q_sim'
    reader.set('#search', 'NEW3', 'input')
    assert reader.keys == ['x/3'] and reader.text('#status').startswith('1 of 9 pairs')


def test_failed_and_unpaired_images_are_listed(open_page, page):
    reader = open_page(page)
    for name, text in (('unpaired', 'alone (in old)'), ('failed', 'cannot be read')):
        reader.find(f'#{name} summary').click()
        reader.browser.execute_async_script('requestAnimationFrame(() => setTimeout(arguments[0]))')
        assert len(reader.texts(f'#{name} li')) == 1 and text in reader.text(f'#{name} li')


def test_one_pair_is_wiped(open_page, page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    reader = open_page(page)
    reader.find('.pair:nth-child(3)').click()
    assert reader.text('#pair-key') == 'x/2' and reader.shown('#wipe')
    clip = lambda: reader.run("return document.getElementById('wipe-second').style.clipPath")  # noqa: E731
    assert clip() == 'inset(0px 0px 0px 50%)'
    reader.set('#slider', 20, 'input')
    assert clip() == 'inset(0px 0px 0px 20%)'
    box = reader.find('#wipe')
    ActionChains(reader.browser).move_to_element_with_offset(box, box.size['width'] // 4, 0).click().perform()
    assert clip() == 'inset(0px 0px 0px 75%)' and reader.run("return document.getElementById('slider').value") == '75'
    # left of the line the first version is seen, right of it the second, which is blue
    reader.browser.execute_async_script('requestAnimationFrame(() => requestAnimationFrame(arguments[0]))')
    shot = np.asarray(Image.open(io.BytesIO(box.screenshot_as_png)).convert('RGB')).astype(int)
    middle = shot[shot.shape[0] // 2]
    assert middle[len(middle) // 2, 2] < 30 and middle[len(middle) * 9 // 10, 2] > 170
    ActionChains(reader.browser).send_keys(Keys.ESCAPE).perform()
    assert not reader.shown('#pair')


def test_dialog_shows_values_maps_and_neighbours(open_page, page, maps, images, analysis_of):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    reader = open_page(page)
    reader.find('.pair:last-child').click()
    assert reader.texts('#values tbody tr')[0] == 'score0.50000.9000+0.4000'
    assert reader.texts('#files .flag') == ['flat'] and reader.find('#next').get_attribute('disabled')
    assert reader.texts('#map-of option') == ['score', 'cosine cue', 'magnitude cue', 'good', 'sharp']
    drawn = (
        "const c = document.getElementById(arguments[0]); return [...c.getContext('2d').getImageData(5, 5, 1, 1).data]"
    )
    first = reader.run(drawn, 'map-first')
    assert first == reader.run(drawn, 'map-second') and first[3] == 255  # both versions have the same windows here
    low, high = (float(reader.text(f'#map-{end}')) for end in ('low', 'high'))
    values = np.array(maps[images['x/8'][0]['path']]['values']['score']) / 10_000
    assert (low, high) == (pytest.approx(values.min(), abs=1e-4), pytest.approx(values.max(), abs=1e-4))
    reader.set('#map-of', 'attribute_sharp')
    assert reader.run(drawn, 'map-first') != first
    reader.find('#pair-key').click()
    ActionChains(reader.browser).send_keys(Keys.ARROW_LEFT).perform()
    assert reader.text('#pair-key') == 'x/7'
    reader.find('#next').click()
    assert reader.text('#pair-key') == 'x/8'
    reader.find('#close').click()
    assert not reader.shown('#pair')


def test_three_versions_without_pictures_or_intervals(open_page, tmp_path):
    images = {
        f'{i:03}': tuple(row(f'{v}/{i:03}.png', (i * k % 7) / 10) for k, v in enumerate('abc')) for i in range(60)
    }
    results = [result(a=a, b=b) for a, b in ('ab', 'ac', 'bc')]
    results[2] |= {'low': None, 'high': None, 'verdict': 'too few pairs'}
    write_page(tmp_path / 'o.html', 'abc', images, results)
    reader = open_page(tmp_path / 'o.html')
    assert reader.text('h1') == 'Comparison of a, b and c'
    assert reader.text('#verdict') == 'b above a' and len(reader.keys) == 24
    reader.find('#more').click()
    assert len(reader.keys) == 48
    reader.find('#more').click()
    assert len(set(reader.keys)) == 60 and not reader.shown('#more')
    reader.set('#second', 2)
    assert reader.text('#verdict') == 'c above a'
    reader.set('#first', 1)
    assert (
        reader.text('#verdict') == 'too few pairs' and reader.text('.interval, #statistics td .soft') == 'too few pairs'
    )
    reader.find('.pair').click()
    assert 'no pictures' in reader.text('#wipe-note') and not reader.shown('#wipe') and reader.shown('#map-none')


def test_hostile_names(open_page, tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    images = {
        name: (row(tmp_path / 'a.png', 0.1, error=name), row(f'/{name}', 0.1 + i / 10, flags='<b>'))
        for i, name in enumerate(HOSTILE)
    }
    images['<i>alone'] = (None, row('<i>', 0.5))
    names = [HOSTILE[0], HOSTILE[1]]
    results = [result(a=names[0], b=names[1], verdict=HOSTILE[2]), result('<b>x</b>', a=names[0], b=names[1])]
    label = {'versions': {'maclip_pyiqa': '<b>'}, 'config': {'backbone': '<script>alert(1)</script>'}}
    label |= {'fingerprint': '</dd><b>'}
    write_page(
        tmp_path / 'o.html', names, images, results, label=label, notes=[HOSTILE[0]], source={'command': HOSTILE[1]}
    )
    reader = open_page(tmp_path / 'o.html')
    reader.set('#which', 'all')
    assert reader.keys == HOSTILE and reader.text('#verdict') == HOSTILE[2] and reader.text('#mean-first') == names[0]
    for i, name in enumerate(HOSTILE):
        reader.find(f'.pair:nth-child({i + 1})').click()
        assert reader.text('#pair-key') == name and reader.texts('#files .flag') == ['<b>']
        reader.find('#close').click()
    reader.find('#failed summary').click()
    reader.find('#unpaired summary').click()
    assert (
        reader.run("return document.querySelectorAll('b, #pairs script, img[onerror], i:not(#wipe-line)').length") == 0
    )
    assert reader.run('return document.scripts.length') == 5
    for width in (1280, 500):
        reader.browser.set_window_size(width, 900)
        assert reader.run('return document.documentElement.scrollWidth <= innerWidth')
