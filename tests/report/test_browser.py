"""The page in Chromium: what a reader does with it, and what it must never do."""

import base64
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import KDTree

from maclip_pyiqa.report import write_report
from maclip_pyiqa.report.page import SCRIPTS
from maclip_pyiqa.report.pictures import GRID, window_values
from maclip_pyiqa.scoring.formats import read_table

LABEL = {
    'versions': {'maclip_pyiqa': '1.0'},
    'config': {'backbone': 'RN50', 'stride': 128, 'prompts': [['Good image', 'bad image']]},
    'fingerprint': 'abc',
}
COUNT = 40


def row(path, score, flags='', error='', **others):
    cues = {'q_sim': 0.25, 'q_mag': 0.75, 'w_sim': 0.5, 'attribute_good': 0.125, 'attribute_sharp': 0.5}
    seen = {'width': 200, 'height': 140, 'flags': flags}
    return {'path': path, 'score': score, **cues, **others, **seen, 'error': error}


def jpeg(colour):
    file = io.BytesIO()
    Image.new('RGB', (192, 134), colour).save(file, 'JPEG')
    return file.getvalue()


def write(rows, path, picture, **options):
    """A page on which all images look alike: no file is read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('maclip_pyiqa.report.page.read_picture', lambda path: (picture, (134, 192)))
        write_report(rows, path, **options)


@pytest.fixture(scope='session')
def rows():
    """Scores from 0 to 0.975 in an order of their own; niqe falls with the score; the first two have no score."""
    order = np.random.default_rng(0).permutation(COUNT)
    flags = {0: 'flat clipped', 1: 'flat', 2: 'noise'}
    failed = [
        {'path': f'/photos/bad{i}.png', 'score': None, 'width': None, 'flags': None, 'error': f'broken {i}'}
        for i in (0, 1)
    ]
    return failed + [row(f'/photos/{i:02}.png', i / COUNT, flags.get(i, ''), niqe=9 - i / 10) for i in order]


@pytest.fixture(scope='session')
def page(tmp_path_factory, rows, analysis_of):
    maps = {row['path']: window_values(analysis_of(140, 200, seed=i)) for i, row in enumerate(rows)}
    path = tmp_path_factory.mktemp('page') / 'report.html'
    source = {'command': 'maclip-pyiqa score "a b"'}
    write(rows, path, jpeg((60, 90, 120)), label=LABEL, maps=maps, source=source)
    return path


class Reader:
    """Who looks at a page."""

    def __init__(self, browser):
        self.browser = browser
        from selenium.webdriver.common.keys import Keys

        self.keys = Keys

    def open(self, path):
        self.browser.get(Path(path).as_uri())

    def run(self, code, *args):
        """What JavaScript returns; by way of JSON, which holds halves of surrogate pairs too."""
        return json.loads(self.browser.execute_script(f'return JSON.stringify((() => {{ {code} }})() ?? null)', *args))

    def find(self, selector):
        return self.browser.find_element('css selector', selector)

    def texts(self, selector):
        code = 'return Array.from(document.querySelectorAll(arguments[0]), (each) => each.textContent)'
        return self.run(code, selector)

    def click(self, selector):
        self.find(selector).click()

    def press(self, *keys):
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.browser).send_keys(getattr(self.keys, key, key)).perform()

    def choose(self, selector, value):
        code = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change', {bubbles: true}))"
        self.run(code, self.find(selector), value)

    def type(self, selector, text):
        field = self.find(selector)
        field.clear()
        field.send_keys(text)
        self.frame()

    def frame(self):
        """Waits until the page has drawn what it was asked to."""
        code = 'requestAnimationFrame(() => requestAnimationFrame(() => arguments[0]()))'
        self.browser.execute_async_script(code.replace('arguments[0]()', 'arguments[0](1)'))

    def paths(self):
        """Of the pictures that are drawn, in their order."""
        code = """
            const cards = Array.from(document.querySelectorAll('.card'));
            cards.sort((a, b) => a.ariaPosInSet - b.ariaPosInSet);
            return cards.map((card) => card.querySelector('.name').title);
        """
        return self.run(code)

    @property
    def status(self):
        return self.find('#status').text

    @property
    def current(self):
        return self.run("return document.querySelector('.current .name, .current .path')?.textContent ?? null")

    def errors(self):
        return [entry['message'] for entry in self.browser.get_log('browser')]

    def saved(self, name):
        """Content of a file that the page has saved."""
        path = self.browser.downloads / name
        for _ in range(200):
            if path.is_file() and not list(self.browser.downloads.glob('*.crdownload')):
                content = path.read_bytes()
                path.unlink()
                return content
            time.sleep(0.05)
        raise AssertionError(f'{name} was not saved; there is {list(self.browser.downloads.iterdir())}')


@pytest.fixture
def reader(browser):
    for log in ('browser', 'performance'):
        browser.get_log(log)
    browser.set_window_size(1280, 1000)
    yield Reader(browser)
    # what waits to be stored first
    browser.execute_script('try { dispatchEvent(new Event("pagehide")); localStorage.clear() } catch {}')
    browser.get('about:blank')


@pytest.fixture
def opened(reader, page):
    reader.open(page)
    yield reader
    assert reader.errors() == []


def names(*numbers):
    return [f'/photos/{i:02}.png' for i in numbers]


# --- looking ----------------------------------------------------------------------------------------------------------


def test_what_is_shown(opened):
    paths = opened.paths()
    assert paths == names(*range(len(paths))) and len(paths) >= 15  # worst first
    assert opened.status == '40 of 40 images with a score' and '42 images, 2 of them' in opened.find('.summary').text
    assert opened.find('#errors').get_attribute('hidden') and opened.find('#tab-errors').text == 'Errors (2)'
    opened.click('.provenance summary')
    shown = opened.find('.provenance').text
    for text in ("backbone='RN50', stride=128", 'Good image / bad image', 'abc', 'score "a b"', '42', 'UTC'):
        assert text in shown
    assert not opened.browser.find_elements('css selector', '[role=note]')


def test_the_note_of_the_demonstration_backbone(reader, tmp_path):
    label = LABEL | {'config': {'backbone': 'demo'}}
    write_report([row('a.png', 0.5)], tmp_path / 'r.html', label=label)
    reader.open(tmp_path / 'r.html')
    assert 'not CLIP, and not the published metric' in reader.find('[role=note]').text and reader.errors() == []


def test_without_pictures_the_table_is_shown(reader, tmp_path):
    write_report([row('a.png', 0.5), row('b.png', 0.25)], tmp_path / 'r.html')
    reader.open(tmp_path / 'r.html')
    assert not reader.find('#tab-grid').is_displayed() and reader.texts('#table .path') == ['b.png', 'a.png']
    assert 'unknown' in reader.find('.provenance').get_attribute('textContent') and reader.errors() == []


@pytest.mark.parametrize('some', [[], [{'path': 'a.png', 'score': None, 'error': 'no'}], [{'path': 'a', 'score': 1.0}]])
def test_pages_of_little(reader, tmp_path, some):
    write_report(some, tmp_path / 'r.html')
    reader.open(tmp_path / 'r.html')
    assert len(reader.texts('.space .line')) == sum(row['score'] is not None for row in some)
    for tab in ('table', 'errors'):
        reader.click(f'#tab-{tab}')
    assert reader.errors() == []


def test_the_table(opened, rows):
    opened.click('#tab-table')
    heads = [text.strip() for text in opened.texts('[role=columnheader] button')]
    assert heads == [
        *('path', 'score \u25b2', 'cosine cue', 'magnitude cue', 'cosine weight', 'good', 'sharp', 'niqe'),
        *('width', 'height', 'flags', 'error'),
    ]
    titles = opened.run("return [...document.querySelectorAll('[role=columnheader] button')].map((each) => each.title)")
    assert titles[2].startswith('q_sim: cosine cue in [0, 1]') and titles[7].startswith('niqe: score of another metric')
    code = 'return Array.from(document.querySelectorAll(\'[aria-rowindex="3"] [role=gridcell]\'), (e) => e.textContent)'
    assert opened.run(code) == [
        '',
        '01.png',
        '0.0250',
        '0.2500',
        '0.7500',
        '0.5000',
        '0.1250',
        '0.5000',
        '8.9000',
        *[*('200', '140', 'flat', '')],
    ]
    opened.run("document.querySelectorAll('[role=columnheader] button')[7].click()")  # niqe, lowest first
    assert opened.texts('#table .line .path')[:2] == ['39.png', '38.png']
    assert opened.run("return document.querySelector('[aria-sort=ascending]').textContent").startswith('niqe')
    opened.run("document.querySelectorAll('[role=columnheader] button')[7].click()")
    assert opened.texts('#table .line .path')[:2] == ['00.png', '01.png']
    opened.run("document.querySelectorAll('[role=columnheader] button')[0].click()")
    assert opened.texts('#table .line .path')[:2] == ['00.png', '01.png']


def test_sorting(opened):
    opened.click('#direction')
    assert opened.paths()[:2] == names(39, 38) and opened.find('#direction').text == 'best first'
    opened.choose('#sort', 'niqe')
    assert opened.paths()[:2] == names(39, 38) and opened.find('#direction').text == 'lowest first'
    opened.click('#direction')
    assert opened.paths()[:2] == names(0, 1)


def test_search(opened):
    opened.type('#search', '/3')
    assert opened.paths() == names(*range(30, 40)) and opened.status == '10 of 40 images with a score'
    opened.type('#search', 'PHOTOS/07')
    assert opened.paths() == names(7)
    opened.type('#search', 'nothing')
    assert opened.paths() == [] and opened.status == '0 of 40 images with a score'


@pytest.mark.slow
def test_the_range_is_dragged(opened):
    from selenium.webdriver import ActionChains

    low, high = opened.browser.find_elements('css selector', '.handle')
    width = opened.find('.histogram-area').rect['width']
    ActionChains(opened.browser).drag_and_drop_by_offset(high, -round(width * 0.75), 0).perform()
    top = float(opened.find('#high').get_attribute('value'))
    assert 0.2 < top < 0.28 and opened.paths() == names(*(i for i in range(40) if i / 40 <= top))
    ActionChains(opened.browser).drag_and_drop_by_offset(low, round(width * 0.1), 0).perform()
    bottom = float(opened.find('#low').get_attribute('value'))
    assert 0.06 < bottom < 0.14 and opened.paths() == names(*(i for i in range(40) if bottom <= i / 40 <= top))
    before = len(opened.paths())
    low.send_keys(opened.keys.ARROW_RIGHT * 10)
    assert len(opened.paths()) < before and low.get_attribute('role') == 'slider'
    opened.click('#reset')
    assert opened.status == '40 of 40 images with a score'
    area = opened.find('.histogram-area')  # a new range, drawn from where there is no handle
    ActionChains(opened.browser).move_to_element(area).click_and_hold().move_by_offset(
        round(width / 4), 0
    ).release().perform()
    drawn = [float(opened.find(each).get_attribute('value')) for each in ('#low', '#high')]
    assert drawn == pytest.approx([0.4875, 0.73], abs=0.02)
    assert opened.paths() == names(*(i for i in range(40) if drawn[0] <= i / 40 <= drawn[1]))
    opened.choose('#low', '0.9')
    opened.choose('#high', '2')
    assert opened.paths() == names(36, 37, 38, 39)
    opened.choose('#histogram-of', 'niqe')
    assert opened.status == '40 of 40 images with a score'
    opened.choose('#high', '5.25')
    assert opened.paths() == names(38, 39)


def test_flags(opened):
    assert opened.texts('#flags button') == ['clipped 1', 'flat 2', 'noise 1', 'none 37']
    opened.click('#flags button:nth-child(2)')
    assert opened.paths() == names(0, 1)
    opened.click('#flags button:nth-child(3)')
    assert opened.paths() == names(0, 1, 2)
    for child in (2, 3, 4):
        opened.click(f'#flags button:nth-child({child})')
    assert opened.paths()[:1] == names(3)


def test_errors_have_a_list_of_their_own(opened):
    opened.click('#tab-errors')
    assert [text.split('.png') for text in opened.texts('.error')] == [
        ['/photos/bad0', 'broken 0'],
        ['/photos/bad1', 'broken 1'],
    ]


def test_scatter(opened):
    opened.click('#tab-scatter')
    assert (opened.find('#scatter-x').get_attribute('value'), opened.find('#scatter-y').get_attribute('value')) == (
        *('score', 'niqe'),
    )
    assert opened.find('#correlation').text == 'rank correlation -1.000'
    from selenium.webdriver import ActionChains

    canvas = opened.find('#points')  # the best score, and so the lowest niqe, is at the bottom right
    box = canvas.rect
    chain = ActionChains(opened.browser).move_to_element_with_offset(
        canvas, box['width'] / 2 - 16, box['height'] / 2 - 44
    )
    chain.click().perform()
    assert opened.find('#detail-path').text == '/photos/39.png'


# --- one image --------------------------------------------------------------------------------------------------------


def test_the_details_of_an_image(opened):
    opened.press('ARROW_RIGHT', 'ARROW_RIGHT', 'ENTER')
    assert opened.find('#detail').get_attribute('open') and opened.find('#detail-path').text == '/photos/01.png'
    assert opened.find('#detail-flags').text == 'flat'
    assert opened.find('#detail-rank').text == 'rank 39 of 40 on this page'  # the worst but one
    bars = opened.texts('#detail-bars > span:not(.bar)')
    assert bars == [
        'score',
        '0.0250',
        'cosine cue',
        '0.2500',
        'magnitude cue',
        '0.7500',
        'good',
        '0.1250',
        'sharp',
        '0.5000',
    ]
    widths = opened.run("return Array.from(document.querySelectorAll('.bar i'), (bar) => bar.style.width)")
    assert widths == ['2.5%', '25%', '75%', '12.5%', '50%']
    assert opened.find('#detail-image').get_attribute('alt') == '01.png' and opened.find('#detail-image').is_displayed()
    opened.press('ARROW_RIGHT')
    assert opened.find('#detail-path').text == '/photos/02.png'
    opened.press('k')
    assert opened.find('#keep').get_attribute('aria-pressed') == 'true'
    opened.click('#previous')
    assert opened.find('#detail-path').text == '/photos/01.png'
    opened.press('ESCAPE')
    assert not opened.find('#detail').get_attribute('open') and opened.current == '01.png'
    opened.run("document.querySelector('.card .picture').click()")
    assert opened.find('#detail-path').text == '/photos/00.png'
    opened.click('#detail-close')
    assert not opened.find('#detail').get_attribute('open')


def test_the_details_of_an_image_with_a_reference(reader, rows, tmp_path):
    ranked = [each | {'percentile': each['score'] and 100 * each['score']} for each in rows]
    label = LABEL | {'reference': {'path': '<2025>.parquet', 'images': 12345, 'digest': '0123'}}
    write_report(ranked, tmp_path / 'r.html', label=label)
    reader.open(tmp_path / 'r.html')
    assert reader.find('.summary').text.endswith('; percentiles among the 12,345 images of <2025>.parquet')
    reader.press('ARROW_RIGHT', 'ARROW_RIGHT', 'ENTER')
    assert reader.find('#detail-path').text == '/photos/01.png' and not reader.find('#detail-rank').is_displayed()
    assert reader.texts('#detail-columns > *')[:4] == ['percentile', '2.5000', 'cosine weight', '0.5000']
    reader.press('ESCAPE')
    reader.choose('#sort', 'percentile')
    assert reader.texts('#table .line .path')[:2] == ['00.png', '01.png'] and reader.errors() == []


def test_the_map_is_that_of_the_analysis(opened, rows, analysis_of):
    opened.press('ARROW_RIGHT', 'ENTER')
    assert opened.texts('#map-of option') == ['none', 'score', 'cosine cue', 'magnitude cue', 'good', 'sharp']
    number = next(i for i, row in enumerate(rows) if row['path'] == '/photos/00.png')
    analysis = analysis_of(140, 200, seed=number)
    for name, of in (('score', 'q'), ('q_sim', 'q_sim'), ('q_mag', 'q_mag'), ('attribute_sharp', 'sharp')):
        opened.choose('#map-of', name)
        want = analysis.quality_map(of)[0, 0].numpy()
        code = (
            'return Array.from(QualityMap.values(Page.data("pictures")[arguments[0]].windows, arguments[1], 200, 140))'
        )
        got = np.reshape(opened.run(code, str(number), name), (140, 200))
        np.testing.assert_allclose(got, want, atol=1e-4)
        # what is drawn: from the colours back to values
        low, high = (float(opened.find(f'#map-{end}').text) for end in ('low', 'high'))
        code = """
            const canvas = document.getElementById('detail-map');
            const colours = Array.from({length: 1001}, (_, i) => QualityMap.colour(i / 1000));
            return [canvas.toDataURL(), colours];
        """
        address, colours = opened.run(code)
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(address.split(',')[1]))).convert('RGB'), float)
        height, width = pixels.shape[:2]
        drawn = KDTree(colours).query(pixels.reshape(-1, 3))[1] / 1000
        values = drawn.reshape(height, width) * (high - low) + low
        rows_, columns_ = ((np.arange(n) + 0.5) * side / n for n, side in ((height, 140), (width, 200)))
        sampled = want[np.ix_(rows_.astype(int), columns_.astype(int))]
        assert np.abs(values - sampled).max() < 0.05 and np.abs(values - sampled).mean() < 0.01
        assert opened.find('#detail-map').is_displayed()
    opened.choose('#map-of', '')
    assert not opened.find('#detail-map').is_displayed() and not opened.find('#map-legend').is_displayed()


def test_maps_of_places_that_no_window_sees(opened, analysis_of):
    """The rest at the right and at the bottom, and windows that lie apart (max_views)."""
    for height, width, most in ((84, 94, None), (280, 400, 4)):
        analysis = analysis_of(height, width, max_views=most)
        code = 'return Array.from(QualityMap.values(arguments[0], "score", arguments[1], arguments[2]))'
        got = np.reshape(opened.run(code, window_values(analysis), width, height), (height, width))
        np.testing.assert_allclose(got, analysis.quality_map()[0, 0].numpy(), atol=1e-4)


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_keys(opened):
    opened.press('ARROW_RIGHT')
    assert opened.current == '00.png'
    opened.press('k', 'ARROW_RIGHT', 'x', 'ARROW_DOWN')
    columns = int(opened.current[:2]) - 1
    assert columns == len(opened.run('return Array.from(document.querySelectorAll(\'.card[style*="top: 0px"]\'))'))
    opened.press('x', 'ARROW_UP', 'ARROW_LEFT')
    assert opened.current == '00.png'
    assert opened.texts('#choices button') == ['undecided 37', '\u2713 kept 1', '\u2717 rejected 2']
    assert [text for text in opened.texts('.sign') if text] == ['\u2713', '\u2717', '\u2717']
    opened.press('x')
    assert opened.texts('#choices button')[1:] == ['\u2713 kept 0', '\u2717 rejected 3']
    opened.press('u')
    assert opened.texts('#choices button')[1:] == ['\u2713 kept 1', '\u2717 rejected 2']
    opened.press('u', 'u', 'u', 'u')
    assert opened.texts('#choices button') == ['undecided 40', '\u2713 kept 0', '\u2717 rejected 0']
    assert opened.status == 'nothing to undo'
    opened.type('#search', 'kxu')  # text, not keys
    assert opened.texts('#choices button')[0] == 'undecided 40'


def test_keys_in_the_table_and_far_down(opened):
    opened.browser.set_window_size(1280, 600)
    opened.click('#tab-table')
    opened.find('#table').click()
    opened.press(*['ARROW_DOWN'] * 30)
    current = opened.find('.line.current')
    box, area = current.rect, opened.find('#table').rect
    assert box['y'] >= area['y'] and box['y'] + box['height'] <= area['y'] + area['height']
    assert opened.find('#table').get_attribute('aria-activedescendant') == current.get_attribute('id')


def test_rows_without_a_picture(reader, tmp_path):
    rows = [row(f'/a/{i:02}.png', i / 40) for i in range(40)]
    write(rows, tmp_path / 'r.html', jpeg((9, 9, 9)), thumbnails=3)
    reader.open(tmp_path / 'r.html')
    assert reader.status == '40 of 40 images with a score; 3 have a picture here, the table has all'
    assert len(reader.paths()) == 3
    reader.click('#tab-table')
    reader.press('ARROW_DOWN', 'ARROW_DOWN', 'k', 'ENTER')  # the tab has the focus
    assert reader.find('#detail-path').text == '/a/01.png' and not reader.find('#detail-picture').is_displayed()
    assert reader.find('#detail-none').text.startswith('No picture')
    reader.press('ESCAPE', 'ARROW_UP', 'ENTER')
    assert reader.find('#detail-picture').is_displayed() and reader.find('#detail-none').text.startswith('No map')
    reader.press('ESCAPE')
    for _ in range(2):  # a click makes a row the current one, another opens it
        assert not reader.find('#detail').get_attribute('open')
        reader.run('document.querySelector(\'[aria-rowindex="6"]\').click()')
    assert reader.find('#detail-path').text == '/a/04.png'
    reader.press('ESCAPE', *['ARROW_UP'] * 4)
    reader.click('#tab-table')
    reader.press('ARROW_LEFT')  # moves among the tabs
    assert reader.find('#tab-grid').get_attribute('aria-selected') == 'true' and reader.current == '00.png'
    assert reader.errors() == []


def test_choices_that_cannot_be_stored(opened):
    opened.run("Storage.prototype.setItem = () => { throw new Error('full') }")
    opened.press('ARROW_RIGHT', 'k')
    for _ in range(100):
        if 'does not store choices' in opened.status:
            return
        time.sleep(0.05)
    raise AssertionError(opened.status)


def test_choices_as_a_filter(opened):
    opened.press('ARROW_RIGHT')
    opened.click('#choices button:nth-child(1)')
    opened.press('x', 'x', 'k')  # each leaves the list, and the next takes its place
    assert opened.paths()[0] == '/photos/03.png' and opened.current == '03.png'
    opened.click('#choices button:nth-child(1)')
    opened.click('#choices button:nth-child(3)')
    assert opened.paths() == names(0, 1)


def test_a_reload_keeps_choices(opened, page, rows, tmp_path):
    opened.press('ARROW_RIGHT', 'k', 'ARROW_RIGHT', 'x')
    opened.browser.refresh()
    assert opened.texts('#choices button') == ['undecided 38', '\u2713 kept 1', '\u2717 rejected 1']
    write_report(rows[::-1], tmp_path / 'again.html', thumbnails=0)  # of the same images, scored again
    opened.open(tmp_path / 'again.html')
    assert opened.texts('#choices button') == ['undecided 38', '\u2713 kept 1', '\u2717 rejected 1']
    write_report(rows[:-1], tmp_path / 'other.html', thumbnails=0)
    opened.open(tmp_path / 'other.html')
    assert opened.texts('#choices button')[1:] == ['\u2713 kept 0', '\u2717 rejected 0']


def test_exports(opened, rows, tmp_path):
    opened.press('ARROW_RIGHT', 'k', 'ARROW_RIGHT', 'x', 'ARROW_RIGHT', 'k')

    def export(what, form, name):
        opened.choose('#export-what', what)
        opened.choose('#export-as', form)
        opened.click('#export')
        return opened.saved(name)

    assert export('kept', 'paths', 'kept.txt') == b'/photos/00.png\n/photos/02.png\n'
    assert opened.status == '2 images saved'
    want = b'path,choice\n/photos/00.png,kept\n/photos/01.png,rejected\n/photos/02.png,kept\n'
    assert export('chosen', 'choices', 'chosen-choices.csv') == want
    opened.type('#search', '/3')
    assert export('shown', 'paths', 'shown.txt') == ''.join(f'/photos/{i}.png\n' for i in range(30, 40)).encode()
    (tmp_path / 'shown.csv').write_bytes(export('shown', 'table', 'shown.csv'))
    by_path = {row['path']: row for row in rows}
    assert read_table(tmp_path / 'shown.csv') == [by_path[path] for path in names(*range(30, 40))]
    assert export('rejected', 'table', 'rejected.csv').count(b'\n') == 2


# --- what it must never do --------------------------------------------------------------------------------------------

HOSTILE = [
    '"><img src=x onerror=alert(1)>.png',
    "'><script>alert(1)</script>.png",
    '</script><script>alert(1)</script>.png',
    '<!--<script>.png',
    '{{ 7 * 7 }}{% raw %}.png',
    '\u2028\u2029line.png',
    'bytes\udcff\udcfe.png',
    '\u202egnp.exe',
    '\u200f\u05d0right.png',
    'javascript:alert(1).png',
    '&lt;b&gt;&amp;.png',
    'new\nline.png',
    ' spaces  .png',
    'a' * 251 + '.png',
    '漢字' * 40 + '.png',
    '=1+1.png',
    '\x01\x7f\x85.png',
    '__proto__',
    '\ufffd\\udcff.png',
]


def test_hostile_names(reader, tmp_path):
    rows = [
        row(f'/h/{name}', i / 40, error=f'e {name}', **{'<b>col</b>': 1.5, 'constructor': 2.5, '__proto__': 3.5})
        for i, name in enumerate(HOSTILE)
    ]
    rows.append({'path': '/h/<i>failed', 'score': None, 'error': '<img src=x onerror=alert(1)>'})
    label = {'versions': {'maclip_pyiqa': '<b>'}, 'config': {'backbone': '<script>alert(1)</script>'}}
    label |= {'fingerprint': '</dd><b>'}
    write(
        *(rows, tmp_path / 'r.html', jpeg((9, 9, 9))),
        label=label,
        title='</title><script>alert(1)</script>',
        source={'command': 'score \udcff "</script>" <img src=x onerror=alert(1)>'},
    )
    reader.open(tmp_path / 'r.html')
    assert reader.paths() == [f'/h/{name}' for name in HOSTILE]
    assert reader.texts('.card .name') == [name.rsplit('/')[-1] for name in HOSTILE]
    reader.click('#tab-table')
    assert sorted(reader.texts('#table .path')) == sorted(HOSTILE)
    reader.click('#tab-errors')
    assert [text.split('e ', 1)[0] for text in reader.texts('.error')][: len(HOSTILE)] == [
        f'/h/{name}'.split('e ', 1)[0] for name in HOSTILE
    ]
    assert 'onerror=alert(1)>' in reader.texts('.error')[-1]
    reader.click('#tab-table')
    reader.run('document.activeElement.blur()')
    for name in HOSTILE:
        reader.press('ARROW_DOWN', 'ENTER')
        assert reader.run("return document.getElementById('detail-path').textContent") == f'/h/{name}'
        reader.press('ESCAPE')
    for what, form, name in (
        *(('shown', 'paths', 'shown.txt'), ('shown', 'table', 'shown.csv'), ('shown', 'choices', 'shown-choices.csv')),
    ):
        reader.choose('#export-what', what)
        reader.choose('#export-as', form)
        reader.click('#export')
        content = reader.saved(name)
        if form == 'paths':  # bytes as the file system has them; a path with a line break cannot stand in a list
            good = [f'/h/{name}' for name in HOSTILE if '\n' not in name]
            assert content == ''.join(f'{path}\n' for path in good).encode('utf-8', 'surrogateescape')
            assert '1 are left out' in reader.status
        elif form == 'table':
            (tmp_path / name).write_bytes(content)
            assert read_table(tmp_path / name) == rows[:-1]
        else:
            content.decode()
    code = 'return [document.title, document.images.length, document.querySelectorAll(".card").length]'
    title, images, cards = reader.run(code)
    assert title == '</title><script>alert(1)</script>' and images == cards + 1
    scripts = reader.run('return document.scripts.length')
    assert scripts == 2 + len(SCRIPTS)  # with those of data
    assert reader.errors() == []
    reader.browser.get_screenshot_as_png()  # raises where an alert is open


def test_no_request_leaves_the_page(opened, page):
    opened.press('ARROW_RIGHT', 'k', 'ENTER')
    opened.choose('#map-of', 'score')
    opened.press('ESCAPE')
    for tab in ('table', 'scatter', 'errors', 'grid'):
        opened.click(f'#tab-{tab}')
    opened.click('#export')
    opened.saved('shown.txt')
    messages = [json.loads(entry['message'])['message'] for entry in opened.browser.get_log('performance')]
    addresses = {m['params']['request']['url'] for m in messages if m['method'] == 'Network.requestWillBeSent'}
    assert page.as_uri() in addresses
    assert {address.split(':')[0] for address in addresses - {page.as_uri()}} <= {'data', 'blob'}


def test_the_policy_stops_what_is_not_ours(reader, page):
    """Were a hole in the page, a picture, a script or a request of somebody else would still not be let through."""
    reader.open(page)
    code = """
        const done = arguments[arguments.length - 1];
        const stopped = [];
        document.addEventListener('securitypolicyviolation', (event) => stopped.push(event.effectiveDirective));
        document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/a.png'}));
        fetch('http://127.0.0.1:9/').catch(() => {});
        try { document.body.innerHTML += '<p>'; } catch { stopped.push('html'); }
        const script = document.createElement('script');
        script.append('window.strange = true');
        document.body.append(script);
        if (window.strange) stopped.push('a script has run');
        document.body.append(Object.assign(document.createElement('iframe'), {src: 'http://127.0.0.1:9/'}));
        setTimeout(() => done(stopped), 300);
    """
    stopped = set(reader.browser.execute_async_script(code))
    assert {'img-src', 'connect-src', 'html', 'frame-src'} <= stopped
    assert 'a script has run' not in stopped


# --- large, small, dark, heard ----------------------------------------------------------------------------------------


@pytest.fixture(scope='session')
def large(tmp_path_factory):
    """A page of 100,000 rows with the longest side of what a run gives: cues, five attributes, two metrics."""
    generator = np.random.default_rng(0)
    numbers = generator.random((100_000, 11)).round(6)
    keys = ['score', 'q_sim', 'q_mag', 'w_sim', *(f'attribute_{i}' for i in range(5)), 'clipiqa', 'niqe']
    rows = [
        {
            'path': f'/data/collection/part-{i // 1000:03}/{i:08}-of-a-hundred-thousand.jpg',
            **dict(zip(keys, line, strict=True)),
        }
        | {'width': 4000, 'height': 3000, 'flags': 'noise' if i % 1000 == 0 else '', 'error': ''}
        for i, line in enumerate(numbers.tolist())
    ]
    file = io.BytesIO()
    Image.fromarray(generator.integers(0, 255, (144, 192, 3), np.uint8)).save(file, 'JPEG', quality=80)
    windows = {'size': [3000, 4000], 'rows': [[0, 224]] * GRID, 'columns': [[0, 224]] * GRID}
    windows['values'] = {key: [5000] * GRID**2 for key in keys[:3] + keys[4:9]}
    path = tmp_path_factory.mktemp('large') / 'report.html'
    write(rows, path, file.getvalue(), maps=dict.fromkeys([row['path'] for row in rows], windows))
    return path, rows


@pytest.mark.slow
def test_a_hundred_thousand_rows(reader, large):
    path, rows = large
    assert path.stat().st_size < 30_000_000
    reader.open(path)
    assert reader.status.startswith('100,000 of 100,000 images with a score; ')
    reader.click('#tab-table')
    order = sorted(rows, key=lambda row: row['score'])
    first = reader.texts('#table .path')
    assert len(first) < 100 and first[0] == order[0]['path'].removeprefix('/data/collection/')
    reader.run("const box = document.getElementById('table'); box.scrollTop = box.scrollHeight")
    reader.frame()
    assert reader.texts('#table .path')[-1] == order[-1]['path'].removeprefix('/data/collection/')
    assert len(reader.texts('#table .path')) < 100
    reader.type('#search', 'part-042/')
    assert reader.status == '1,000 of 100,000 images with a score'
    reader.click('#flags button:nth-child(1)')
    assert reader.texts('#table .path') == ['part-042/00042000-of-a-hundred-thousand.jpg']
    reader.click('#tab-scatter')
    assert reader.errors() == []


@pytest.mark.parametrize('dark', [False, True])
def test_on_a_phone(reader, tmp_path, dark):
    long = '/photos/' + 'a-very-long-name-' * 12 + '.png'
    rows = [row(long, 0.5, 'flat noise'), *(row(f'/photos/{i}.png', i / 10) for i in range(9))]
    write(rows, tmp_path / 'r.html', jpeg((60, 90, 120)))
    command = reader.browser.execute_cdp_cmd
    size = {'width': 360, 'height': 740, 'deviceScaleFactor': 2, 'mobile': True}
    command('Emulation.setDeviceMetricsOverride', size)
    command('Emulation.setEmulatedMedia', {'features': [{'name': 'prefers-color-scheme', 'value': 'dark' * dark}]})
    try:
        reader.open(tmp_path / 'r.html')
        for step in ('', '#tab-table', '#tab-scatter', '#tab-errors', '#tab-grid', '.card .picture'):
            if step:
                reader.run('document.querySelector(arguments[0]).click()', step)
            assert reader.run('return document.documentElement.scrollWidth') <= 360
        colours = reader.run('const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]')
        light = [sum(map(int, c[4:-1].split(','))) for c in colours]
        assert (light[0] > light[1]) == dark and abs(light[0] - light[1]) > 500
    finally:
        command('Emulation.clearDeviceMetricsOverride', {})
        command('Emulation.setEmulatedMedia', {'features': []})


def test_everything_that_can_be_used_has_a_name(opened):
    """As screen readers are told."""
    opened.press('ARROW_RIGHT', 'ENTER')
    for _ in range(2):
        tree = opened.browser.execute_cdp_cmd('Accessibility.getFullAXTree', {})['nodes']
        roles = {'button', 'combobox', 'spinbutton', 'searchbox', 'slider', 'tab', 'listbox', 'dialog', 'textbox'}
        used = [n for n in tree if n.get('role', {}).get('value') in roles and not n['ignored']]
        assert len(used) > 6
        assert [n['role']['value'] for n in used if not n.get('name', {}).get('value')] == []
        opened.press('ESCAPE')
