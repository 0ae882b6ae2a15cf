"""The pages with a screen reader and with a keyboard: axe-core in Chromium, and what axe-core does not see.

axe-core comes with the package axe-core-python; another one, such as the newest of npm, is taken from the file that the
environment variable MACLIP_AXE names.
"""

import io
import json
import os
import re
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image

from maclip_pyiqa.comparison.page import write_page
from maclip_pyiqa.report import write_report
from maclip_pyiqa.report.html import ASSETS
from maclip_pyiqa.report.pictures import window_values

TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']
COUNT, FAILED = 1000, 3
DEMO = {'versions': {'maclip_pyiqa': '1.0'}, 'config': {'backbone': 'demo', 'stride': 128}, 'fingerprint': 'abc'}


def result(quantity='score', a='old', b='new', verdict='new above old', **changes):
    numbers = {'n': COUNT, 'mean_a': 0.5, 'mean_b': 0.55, 'difference': 0.05, 'low': 0.02, 'high': 0.08}
    numbers |= {'wins': 0.75, 'wins_low': 0.5, 'wins_high': 0.9, 'p': 0.01, 'detectable': 0.03, 'lower_better': False}
    return {'a': a, 'b': b, 'quantity': quantity, **numbers, 'verdict': verdict} | changes


@pytest.fixture(scope='module')
def pages(tmp_path_factory, analysis_of):
    """Pages by name. The report's images have the scores 0 to 0.999 in the order of their paths; niqe falls with them.
    All images look alike: no file is read."""
    folder = tmp_path_factory.mktemp('pages')
    rows = [
        {'path': f'/photos/{i // 500}/{i:03}.png', 'score': i / COUNT, 'q_sim': 0.25, 'attribute_good': 0.125}
        | {'niqe': 9 - i / 200, 'width': 200, 'height': 140, 'flags': {0: 'flat clipped', 5: 'noise'}.get(i % 7, '')}
        for i in range(COUNT)
    ]
    rows += [{'path': f'/photos/bad{i}.png', 'score': None, 'error': 'cannot be read'} for i in range(FAILED)]
    pairs = {
        f'x/{i:03}': tuple(
            {'path': f'/{version}/{i:03}.png', 'score': score, 'q_sim': 0.5, 'flags': flags}
            for version, score, flags in (('old', 0.5, ''), ('new', (250 + i) / COUNT, 'flat'), ('third', 0.25, ''))
        )
        for i in range(30)
    }
    pairs['bad'] = (pairs['x/000'][0], {'path': '/new/bad.png', 'score': None, 'error': 'cannot be read'}, None)
    pairs['alone'] = (pairs['x/000'][0], None, None)
    windows = window_values(analysis_of(140, 200))
    paths = [row['path'] for row in rows] + [row['path'] for pair in pairs.values() for row in pair if row]
    maps = dict.fromkeys(paths, windows)
    file = io.BytesIO()
    Image.new('RGB', (192, 134), (60, 90, 120)).save(file, 'JPEG')
    with pytest.MonkeyPatch.context() as patch:
        for place in ('report', 'comparison'):
            picture = (file.getvalue(), (134, 192))
            patch.setattr(f'maclip_pyiqa.{place}.page.read_picture', lambda *_, picture=picture: picture)
        write_report(rows, folder / 'report.html', label=DEMO, maps=maps, thumbnails=COUNT)
        write_report(rows, folder / 'plain.html', thumbnails=0)
        results = [result(), result('q_sim', low=-0.1, verdict='no difference shown')]
        two = {key: pair[:2] for key, pair in pairs.items()}
        write_page(folder / 'compare.html', ('old', 'new'), two, results, maps=maps, label=DEMO)
        results = [result(a=a, b=b) for a, b in ('ab', 'ac', 'bc')]
        write_page(folder / 'three.html', 'abc', pairs, [*results[:2], results[2] | {'low': None}], pictures=0)
    return folder


@pytest.fixture(scope='module')
def axe():
    pytest.importorskip('axe_core_python')
    return Path(os.environ.get('MACLIP_AXE') or files('axe_core_python') / 'axe.min.js').read_text('utf-8')


class Reader:
    """Who reads a page by ear or by keyboard."""

    def __init__(self, browser, folder):
        from selenium.webdriver import ActionChains, Keys

        self.browser, self.folder, self.actions, self.keys = browser, folder, ActionChains, Keys

    def open(self, name):
        self.browser.get((self.folder / f'{name}.html').as_uri())

    def run(self, code, *args):
        return json.loads(self.browser.execute_script(f'return JSON.stringify((() => {{ {code} }})() ?? null)', *args))

    def text(self, selector):
        return self.run('return document.querySelector(arguments[0]).textContent', selector)

    def click(self, selector):
        self.browser.find_element('css selector', selector).click()

    def focus(self, selector):
        self.run('document.querySelector(arguments[0]).focus()', selector)

    def press(self, *keys):
        """Keys by their names, or letters."""
        for key in keys:
            self.actions(self.browser).send_keys(getattr(self.keys, key, key)).perform()
        self.frame()

    def set(self, selector, value, event='change'):
        code = 'const e = document.querySelector(arguments[0]); e.value = arguments[1]; '
        self.run(code + 'e.dispatchEvent(new Event(arguments[2], {bubbles: true}))', selector, value, event)
        self.frame()

    def frame(self):
        """Waits until the page has drawn what it was asked to."""
        self.browser.execute_async_script('requestAnimationFrame(() => requestAnimationFrame(() => arguments[0](1)))')

    @property
    def focused(self):
        """The id of the element that has the focus, or its text."""
        return self.run('const e = document.activeElement; return e.id || e.ariaLabel || e.textContent.trim()')

    def tree(self, *roles):
        """What the browser tells screen readers of these roles: [(role, name)], in order."""
        nodes = self.browser.execute_cdp_cmd('Accessibility.getFullAXTree', {})['nodes']
        children, found = {node['nodeId']: node for node in nodes}, []

        def walk(node):
            role = node['role']['value']
            if not node['ignored'] and role in roles:
                found.append((role, node.get('name', {}).get('value', '')))
            for each in node.get('childIds', ()):
                if each in children:
                    walk(children[each])

        walk(nodes[0])
        return found

    def names(self, role):
        return [name for _, name in self.tree(role)]

    def told(self):
        """What screen readers were told last, once it is told."""
        code = """
            const done = arguments[arguments.length - 1];
            setTimeout(() => done((document.querySelector('dialog[open] [role=status]') ??
                document.getElementById('live')).textContent), 600);
        """
        return self.browser.execute_async_script(code)

    def emulate(self, dark=False, width=1280, height=900):
        command = self.browser.execute_cdp_cmd
        theme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
        command('Emulation.setEmulatedMedia', {'features': [theme]})
        size = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False}
        command('Emulation.setDeviceMetricsOverride', size)
        self.frame()

    def faults(self, axe):
        """What axe-core finds wrong, and what it cannot decide and is wrong."""
        self.browser.execute_script(axe)
        code = """
            const [tags, done] = arguments;
            const options = { runOnly: { type: 'tag', values: tags }, resultTypes: ['violations', 'incomplete'] };
            axe.run(document, options).then(
                ({ violations, incomplete }) => done({ violations, incomplete }), (error) => done(`${error}`));
        """
        found = self.browser.execute_async_script(code, TAGS)
        assert isinstance(found, dict), found
        faults = [(rule['id'], node['html']) for rule in found['violations'] for node in rule['nodes']]
        undecided = [
            (rule['id'], node['target'][0], node['html']) for rule in found['incomplete'] for node in rule['nodes']
        ]
        # of what is partly out of sight, of signs and of single letters
        texts = [each for each in undecided if each[0] == 'color-contrast']
        ratios = self.run(CONTRAST, [selector for _, selector, _ in texts])
        faults += [(*text, ratio) for text, ratio in zip(texts, ratios, strict=True) if ratio < 4.5]
        # a list may be empty: its name, or the line above it, says so
        known = {('aria-required-children', '#grid'), ('aria-required-children', '#pairs')}
        faults += [each for each in undecided if each not in texts and each[:2] not in known]
        return faults


# The contrast of elements' text, or of another property, with what is behind it, which is of one colour everywhere on
# these pages. See WCAG 2.2, relative luminance.
CONTRAST = """
    const luminance = (colour) => {
        const [r, g, b] = colour.slice(0, 3).map((c) =>
            c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    return arguments[0].map((selector) => {
        const element = document.querySelector(selector);
        let behind = element;
        while (numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
        const colours = [getComputedStyle(element)[arguments[1] ?? 'color'], getComputedStyle(behind).backgroundColor];
        const [low, high] = colours.map((text) => luminance(numbers(text))).sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    });
"""


@pytest.fixture
def reader(browser, pages):
    browser.get_log('browser')
    browser.set_window_size(1280, 1000)
    yield Reader(browser, pages)
    for command in ('Emulation.clearDeviceMetricsOverride', 'Emulation.setEmulatedMedia'):
        browser.execute_cdp_cmd(command, {})
    browser.execute_script('try { dispatchEvent(new Event("pagehide")); localStorage.clear() } catch {}')
    assert [entry for entry in browser.get_log('browser') if entry['source'] != 'rendering'] == []
    browser.get('about:blank')


# --- axe-core ---------------------------------------------------------------------------------------------------------


def scrolled(reader):
    reader.click('#tab-table')
    reader.press('ARROW_DOWN')
    reader.run("document.getElementById('table').scrollTop = 5000")


def detail(reader):
    reader.press('ARROW_RIGHT', 'ENTER', 'k')
    reader.set('#map-of', 'score')


STATES = {
    'pictures': ('report', lambda r: r.press('ARROW_RIGHT', 'k', 'ARROW_RIGHT', 'x')),
    'provenance': ('report', lambda r: r.click('.provenance summary')),
    'table': ('report', lambda r: (r.click('#tab-table'), r.press('ARROW_DOWN', 'k'))),
    'table, scrolled away from the current row': ('report', scrolled),
    'scatter': ('report', lambda r: r.click('#tab-scatter')),
    'errors': ('report', lambda r: r.click('#tab-errors')),
    'details with a map': ('report', detail),
    'a flag and a range': ('report', lambda r: (r.click('#flags button'), r.set('#low', '0.5'))),
    'no image': ('report', lambda r: r.set('#search', 'nothing', 'input')),
    'no image in the table': ('report', lambda r: (r.click('#tab-table'), r.set('#search', 'nothing', 'input'))),
    'no pictures': ('plain', lambda r: None),
    'details without a picture': ('plain', lambda r: r.press('ARROW_DOWN', 'ENTER')),
    'comparison': ('compare', lambda r: None),
    'comparison, lists open': ('compare', lambda r: (r.click('#failed summary'), r.click('#unpaired summary'))),
    'no pair': ('compare', lambda r: r.set('#search', 'nothing', 'input')),
    'a pair': ('compare', lambda r: r.click('.pair')),
    'three versions': ('three', lambda r: r.set('#second', '2')),
    'a pair without pictures': ('three', lambda r: r.click('.pair')),
}


@pytest.mark.parametrize(('name', 'dark'), [('report', True), ('compare', False)])
def test_axe_finds_nothing_at_first_sight(reader, axe, name, dark):
    reader.open(name)
    reader.emulate(dark)
    assert reader.faults(axe) == []
    borders = reader.run(CONTRAST, ['#search', '#sort'], 'borderTopColor')
    assert min(borders) >= 3  # WCAG 1.4.11, which axe-core does not check


@pytest.mark.slow
@pytest.mark.parametrize('state', STATES)
def test_axe_finds_nothing(reader, axe, state):
    """Dark, and light at 1280 x 1024 pixels enlarged four times, which leaves 320 x 256."""
    name, act = STATES[state]
    reader.open(name)
    act(reader)
    for look in ({'dark': True}, {'width': 320, 'height': 256}):
        reader.emulate(**look)
        assert reader.faults(axe) == [], look
    wide, wider, panel = reader.run("""
        const [dialog, panel] = ['dialog[open]', '[role=tabpanel]:not([hidden])'].map((s) => document.querySelector(s));
        const wider = dialog ? dialog.scrollWidth - dialog.clientWidth : 0;
        return [document.documentElement.scrollWidth, wider, panel?.clientHeight ?? null];
    """)
    assert wide <= 320 and wider <= 0 and (panel is None or panel >= 200)


@pytest.mark.slow
def test_axe_finds_faults(reader, axe):
    """Also where it cannot decide: the sign of a choice is no text to it."""
    reader.open('report')
    reader.emulate()
    reader.press('ARROW_RIGHT', 'k')
    reader.run("""
        document.querySelector('.summary').style.color = '#999';
        document.querySelector('.sign.kept').style.color = '#aaa';
        document.getElementById('export').textContent = '';
        document.getElementById('flags-title').setAttribute('aria-level', 4);
    """)
    assert sorted(fault[0] for fault in reader.faults(axe)) == [
        *('button-name', 'color-contrast', 'color-contrast', 'heading-order')
    ]


# --- what is heard ----------------------------------------------------------------------------------------------------


def test_headings_and_landmarks(reader):
    reader.open('report')
    heads = ['Image quality', 'Histogram of', 'Search in paths', 'Flags', 'Choices', 'Export', 'Images']
    assert reader.names('heading') == heads and reader.run("return document.querySelectorAll('h1').length") == 1
    roles = 'banner', 'main', 'region', 'navigation', 'complementary', 'form', 'contentinfo'
    assert reader.tree(*roles) == [('banner', ''), ('main', ''), ('region', 'Filters'), ('region', 'Images')]
    assert reader.run('return document.documentElement.lang') == 'en'
    reader.open('compare')
    assert reader.names('heading') == ['Comparison of old and new', 'new above old', 'Pairs']
    assert reader.tree(*roles) == [('banner', ''), ('main', ''), ('region', 'new above old'), ('region', 'Pairs')]


def test_what_is_heard_of_images(reader):
    """Of entries that are drawn, which are few, their places among all."""
    reader.open('report')
    reader.press('ARROW_RIGHT', 'k')
    assert reader.names('listbox') == ['1000 pictures']
    options = [name for name in reader.names('option') if '.png' in name]
    assert options[:3] == ['0/ 000.png score 0 flat clipped kept', '0/ 001.png score 0.0010', '0/ 002.png score 0.0020']
    reader.set('#sort', 'niqe')
    options = [name for name in reader.names('option') if '.png' in name]
    assert options[0] == '1/ 999.png score 0.9990 niqe 4.0050 noise' and len(options) < 100
    reader.focus('#grid')
    reader.press('END')
    current = "const e = document.getElementById(document.activeElement.getAttribute('aria-activedescendant')); "
    place = 'return [e.ariaPosInSet, e.ariaSetSize, e.ariaSelected, e.ariaRowIndex]'
    assert reader.run(current + place)[:3] == ['1000', '1000', 'true']
    reader.click('#tab-table')
    rows = reader.names('row')
    assert rows[0].startswith('choice path score cosine cue good niqe') and len(rows) < 100
    assert rows[-1] == '0/000.png, score 0, niqe 9, flat, clipped, kept'
    assert reader.names('columnheader')[:3] == ['choice', 'path', 'score']  # without the arrow
    reader.focus('#table')
    reader.press('HOME')
    assert reader.run(current + place)[2:] == ['true', '2']
    assert reader.run("return document.getElementById('table').getAttribute('aria-rowcount')") == '1001'
    reader.run("document.getElementById('table').scrollTop = 9000")
    reader.frame()
    assert not reader.run("return document.getElementById('table').hasAttribute('aria-activedescendant')")
    reader.run("document.getElementById('table').scrollTop = 0")
    reader.frame()
    assert reader.run(current + place)[2:] == ['true', '2']


@pytest.mark.slow
def test_what_is_heard_of_pairs(reader):
    reader.open('compare')
    assert reader.names('list')[0] == 'Pairs' and len(reader.names('listitem')) == 24
    assert reader.names('button')[2:4] == [
        'x/000 old 0.5000 new 0.2500 difference -0.2500',
        'x/001 old 0.5000 new 0.2510 difference -0.2490',
    ]
    assert reader.run("const e = document.querySelector('.pair'); return [e.ariaPosInSet, e.ariaSetSize]") == [
        '1',
        '30',
    ]
    reader.click('#more')
    assert len(reader.names('listitem')) == 30 and reader.focused.startswith('x/024')  # the button is gone
    reader.focus('#statistics tr:nth-child(2) button')
    reader.press('ENTER')
    assert reader.focused == 'cosine cue' and reader.told() == '30 of 30 pairs'


@pytest.mark.slow
def test_drawings_and_sliders_have_words(reader):
    reader.open('report')
    values = """
        const sliders = document.querySelectorAll('[role=slider], [type=range]');
        return [...sliders].map((each) => each.getAttribute('aria-valuetext'));
    """
    assert reader.names('slider') == ['lowest score shown', 'highest score shown']
    assert reader.run(values)[:2] == ['0', '0.9990']
    reader.focus('.handle')
    reader.press('PAGE_UP')
    assert reader.run(values)[0] == '0.0999' and reader.told() == '900 of 1,000 images with a score'
    reader.set('#histogram-of', 'niqe')
    assert reader.names('slider') == ['lowest niqe shown', 'highest niqe shown']
    reader.click('#tab-scatter')
    want = 'niqe against score of 1000 images, rank correlation -1.000; the table has the numbers'
    assert reader.names('image') == [want]
    reader.focus('#points')
    reader.press('ARROW_DOWN', 'ARROW_DOWN')
    assert reader.told() == '0/001.png, score 0.0010, niqe 8.9950'
    reader.press('ENTER')
    reader.set('#map-of', 'score')
    low, high = (reader.text(f'#map-{end}') for end in ('low', 'high'))
    assert reader.names('image') == ['001.png', f'quality map of score, colours from {low} to {high}']
    assert reader.names('slider') == ['strength'] and reader.run(values)[2:] == ['60 %']
    reader.open('compare')
    reader.click('.pair')
    assert len(reader.names('image')) == 6 and all(reader.names('image')) and reader.run(values) == ['50 %', '60 %']


@pytest.mark.slow
def test_a_search_is_told_once(reader):
    """Not at each letter. Nothing else on the page speaks by itself."""
    for name, text, found in (
        ('report', '1/995', '1 of 1,000 images with a score'),
        ('compare', '/00', '10 of 30 pairs'),
    ):
        reader.open(name)
        reader.told()
        reader.run("""
            window.heard = [];
            const live = document.querySelectorAll('[role=status], [role=alert], [aria-live]');
            const hear = (changes) => heard.push(...changes.map(({ target }) => target.textContent));
            for (const each of live) new MutationObserver(hear).observe(each, { childList: true, subtree: true });
        """)
        reader.focus('#search')
        reader.press(*text)
        assert reader.told() == found and reader.run('return heard') == [found]


# --- keys -------------------------------------------------------------------------------------------------------------


def stops(reader):
    """Tab from the focus to the end of the page: what has the focus, which is to be seen."""
    found = []
    outline = 'const s = getComputedStyle(document.activeElement); return [s.outlineStyle, parseFloat(s.outlineWidth)]'
    while True:
        reader.actions(reader.browser).send_keys(reader.keys.TAB).perform()
        if reader.run('return document.activeElement === document.body'):
            return found
        found.append(reader.focused.split('\n')[0])
        style, width = reader.run(outline)
        assert style != 'none' and width >= 2, found[-1]


def test_order_of_the_focus(reader):
    """As read: title, filters, views, list. A list of any length is one stop, and so are tabs."""
    reader.open('report')
    assert stops(reader) == [
        *('How these scores were made', 'histogram-of', 'lowest score shown', 'highest score shown', 'low', 'high'),
        *('reset', 'search', 'clipped 143', 'flat 143', 'noise 143', 'none 714'),
        *('undecided 1,000', '\u2713 kept 0', '\u2717 rejected 0', 'letters', 'export-what', 'export-as', 'export'),
        *('tab-grid', 'sort', 'direction', 'grid'),
    ]
    reader.click('#tab-table')
    heads = ['path', 'score \u25b2', 'cosine cue', 'good', 'niqe', 'width', 'height', 'flags', 'error']
    assert stops(reader) == ['sort', 'direction', 'table', *heads]
    reader.click('#tab-errors')
    assert stops(reader) == ['sort', 'direction', 'errors']


@pytest.mark.slow
def test_order_of_the_focus_of_a_comparison(reader):
    reader.open('compare')
    found = stops(reader)
    top = ['How these scores were made', 'score', 'cosine cue', 'sort', 'quantity', 'which', 'search']
    assert found[:7] == top and [each[:5] for each in found[7:31]] == [f'x/{i:03}' for i in range(24)]
    assert found[31:] == ['more', '1 images are not in all of old, new', '1 images failed and are left out']


def test_a_dialog_keeps_the_focus_and_gives_it_back(reader):
    reader.open('report')
    reader.press('ARROW_RIGHT', 'ARROW_RIGHT', 'ENTER')
    assert reader.focused == 'detail-close' and reader.names('dialog') == ['/photos/0/001.png']
    assert reader.names('listbox') == []  # nothing behind it is read
    assert stops(reader) == ['map-of', 'previous', 'next', 'keep', 'reject']
    reader.focus('#previous')
    reader.press('ENTER')
    assert reader.focused == 'next'  # there is none before it
    reader.press('ESCAPE')
    assert reader.focused == 'grid'


@pytest.mark.slow
def test_what_is_heard_in_a_dialog(reader):
    reader.open('report')
    reader.press('ARROW_RIGHT', 'ENTER', 'ARROW_RIGHT')
    assert reader.told() == '0/001.png, score 0.0010'
    reader.press('k')
    assert reader.told() == '001.png is kept'
    reader.press('ARROW_LEFT', 'u')  # the image whose choice is undone is shown
    assert reader.text('#detail-path') == '/photos/0/001.png' and reader.told() == '001.png is undecided again'
    reader.press('ESCAPE')
    reader.click('#choices button')  # undecided images only: one that is kept gives way to the next
    reader.focus('#grid')
    reader.press('k')
    assert reader.told() == '001.png is kept; 0/002.png, score 0.0020'


@pytest.mark.slow
def test_the_dialog_of_a_pair_keeps_the_focus_and_gives_it_back(reader):
    reader.open('compare')
    reader.focus('.pair:nth-child(2) button')
    reader.press('ENTER')
    assert reader.focused == 'previous' and stops(reader) == ['next', 'close', 'slider', 'map-of', 'map-strength']
    reader.focus('#previous')
    reader.press('ENTER')
    assert reader.focused == 'next' and reader.told() == 'x/000, old 0.5000, new 0.2500, difference -0.2500'
    reader.press('ARROW_RIGHT')
    assert reader.text('#pair-key') == 'x/001'
    reader.press('ESCAPE')
    assert reader.focused.startswith('x/001')


@pytest.mark.slow
def test_tabs(reader):
    """https://www.w3.org/WAI/ARIA/apg/patterns/tabs/"""
    reader.open('report')
    reader.focus('#tab-grid')
    shown = """
        const tabs = [...document.querySelectorAll('[role=tab]')];
        const panels = [...document.querySelectorAll('[role=tabpanel]:not([hidden])')];
        return [
            document.activeElement.id,
            tabs.filter((tab) => tab.tabIndex === 0).map((tab) => tab.id),
            tabs.filter((tab) => tab.ariaSelected === 'true').map((tab) => tab.getAttribute('aria-controls')),
            panels.map((panel) => panel.getAttribute('aria-labelledby')),
            panels.map((panel) => panel.id),
        ];
    """
    for key, tab in (
        *(('ARROW_RIGHT', 'table'), ('ARROW_RIGHT', 'scatter'), ('END', 'errors'), ('ARROW_RIGHT', 'grid')),
        *(('ARROW_LEFT', 'errors'), ('ARROW_LEFT', 'scatter'), ('HOME', 'grid')),
    ):
        reader.press(key)
        focused, stop, controlled, labelled, panel = reader.run(shown)
        assert [focused] == stop == labelled == [f'tab-{tab}'] and controlled == panel and len(panel) == 1


@pytest.mark.slow
def test_the_focus_is_not_lost_to_what_it_does(reader):
    reader.open('report')
    reader.click('#tab-table')
    reader.focus('[role=columnheader]:nth-child(6) button')
    for direction in ('ascending', 'descending'):
        reader.press('ENTER')
        assert reader.focused.startswith('niqe')
        assert reader.run('return document.activeElement.parentElement.ariaSort') == direction
    reader.set('#low', '0.5')
    reader.focus('#reset')
    reader.press('ENTER')
    assert reader.focused == 'reset' and reader.run('return document.activeElement.ariaDisabled') == 'true'


@pytest.mark.slow
def test_letters_are_keys_where_nothing_is_typed_and_can_be_switched_off(reader):
    """WCAG 2.1.4."""
    kept = "return document.querySelector('#choices button:nth-child(2)').textContent"
    reader.open('report')
    reader.press('ARROW_RIGHT')
    for field in ('#search', '#low', '#sort', '#letters', '.handle'):
        reader.focus(field)
        reader.press('k', 'x', 'u')
        assert reader.run(kept) == '\u2713 kept 0', field
    reader.set('#search', '', 'input')
    reader.focus('#letters')
    reader.press('SPACE')
    reader.open('report')
    reader.press('ARROW_RIGHT', 'k')
    assert reader.run(kept) == '\u2713 kept 0'
    reader.focus('#letters')
    reader.press('SPACE')
    reader.focus('#grid')
    reader.press('k')
    assert reader.run(kept) == '\u2713 kept 1'


@pytest.mark.slow
def test_text_of_a_list_can_be_selected(reader):
    reader.open('report')
    reader.click('#tab-table')
    place = reader.browser.find_element('css selector', '[aria-rowindex="4"] .path')
    chain = reader.actions(reader.browser).move_to_element_with_offset(place, -20, 0).click_and_hold()
    chain.move_by_offset(15, 0).release().perform()
    assert reader.run('return getSelection().toString()') in '0/002.png'
    assert reader.run("return document.querySelector('.current')") is None
    reader.click('[aria-rowindex="4"] .number')
    assert reader.run("return document.querySelector('.current').ariaRowIndex") == '4'


def test_nothing_moves():
    """So there is nothing for `prefers-reduced-motion` to stop."""
    for path in ASSETS.iterdir():
        assert not re.search(
            r'transition|animation:|@keyframes|smooth|\.animate\(|<marquee', path.read_text('utf-8')
        ), path
