"""A page's file: its policy, its data, and that it asks for nothing outside itself."""

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from maclip_pyiqa.report.html import ASSETS, demo_note, json_block, provenance, save_page


class Elements(HTMLParser):
    """Tags with their attributes, and the text of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self.inside = [], [], ''
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ''

    def handle_data(self, data):
        if self.inside in ('script', 'style'):
            self.texts.append((self.inside, self.found[-1][1], data))

    def texts_of(self, tag, **attrs):
        return [text for name, found, text in self.texts if name == tag and attrs.items() <= found.items()]


@pytest.fixture
def save(tmp_path):
    def save(**options):
        options = {'scripts': ('common.js', 'map.js'), 'data': {}, 'title': 'A title'} | options
        save_page(tmp_path / 'p.html', 'base.html', **options)
        return Elements((tmp_path / 'p.html').read_text('utf-8'))

    return save


def test_the_policy_names_what_is_on_the_page_and_nothing_else(save):
    page = save()
    (policy,) = [attrs['content'] for tag, attrs in page.found if attrs.get('http-equiv') == 'Content-Security-Policy']
    rules = dict(rule.split(' ', 1) for rule in policy.split('; '))
    assert rules['default-src'] == rules['base-uri'] == rules['form-action'] == "'none'" and rules['img-src'] == 'data:'
    for tag, rule in (('script', 'script-src'), ('style', 'style-src')):
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in page.texts_of(tag)]
        assert hashes and rules[rule] == ' '.join(f"'sha256-{each}'" for each in hashes)
    first = next(i for i, (tag, attrs) in enumerate(page.found) if 'http-equiv' in attrs)
    assert not {'script', 'style', 'link'} & {tag for tag, _ in page.found[:first]}


def test_nothing_is_loaded_and_nothing_is_styled_or_run_inline():
    for path in ASSETS.iterdir():
        text = path.read_text('utf-8').replace('http://www.w3.org/2000/svg', '')  # the name of a namespace
        for wrong in ('http:', 'https:', '@import', 'url(', 'innerHTML', 'insertAdjacent', 'document.write', 'eval('):
            assert wrong not in text, (path.name, wrong)
        if path.suffix == '.html':
            assert not re.search(r'\s(on\w+|style|srcset)=', text) and '|safe' not in text
            assert not re.search(r'<(script|img)[^>]*\ssrc=', text) and '<iframe' not in text


@pytest.mark.parametrize(
    'value', ['</script><b>', '<!--', '\u2028\u2029', '\udcff', 'ü漢', '&amp;', {'<a>': [1.5, None]}]
)
def test_data_read_back_equal(save, value):
    page = save(data={'it': value})
    assert [json.loads(text) for text in page.texts_of('script', id='it')] == [value]
    assert json_block(value).isascii() and not set('<>&') & set(json_block(value))


def test_text_is_escaped(save, tmp_path):
    save(title='<b>&</b>', note='<i>', provenance=[('<u>', '"\'>'), ('bytes', '\udcff')])
    text = (tmp_path / 'p.html').read_text('utf-8')
    assert '<title>&lt;b&gt;&amp;&lt;/b&gt;</title>' in text and '&lt;i&gt;' in text and '&lt;u&gt;' in text
    assert not re.search('<[biu]>', text)


def test_provenance():
    label = {
        'versions': {'python': '3.11.2', 'maclip_pyiqa': '1.0', 'torch': '2.6.0'},
        'config': {'backbone': 'RN50', 'max_views': None, 'prompts': (('good', 'bad'), ('a', 'b'))},
        'fingerprint': 'abc',
    }
    pairs = dict(provenance(label, {'images': 1200, 'failed': 3}, {'command': 'x', 'table': ''}))
    assert pairs['images'] == '1,200' and pairs['failed'] == '3' and pairs['metric'] == 'MA-CLIP of maclip_pyiqa 1.0'
    assert pairs['options'] == "backbone='RN50'" and pairs['prompts'] == 'good / bad; a / b'
    assert pairs['fingerprint'] == 'abc' and pairs['command'] == 'x' and 'table' not in pairs and 'UTC' in pairs['page']
    assert 'unknown' in dict(provenance(None, {}))['metric']
    assert pairs['versions'] == 'python 3.11.2, torch 2.6.0'
    assert 'versions' not in dict(provenance(label | {'versions': {'maclip_pyiqa': '1.0'}}, {}))


def test_the_note_of_the_demonstration_backbone():
    assert 'not the published metric' in demo_note({'config': {'backbone': 'demo'}})
    assert demo_note({'config': {'backbone': 'RN50'}}) == demo_note(None) == ''


def test_a_page_is_replaced_whole_or_not_at_all(save, tmp_path):
    save()
    before = (tmp_path / 'p.html').read_bytes()
    with pytest.raises(TypeError):
        save(data={'it': object()})
    assert (tmp_path / 'p.html').read_bytes() == before
    with pytest.raises(OSError):
        save_page(tmp_path / 'none' / 'p.html', 'base.html', scripts=(), data={}, title='')
    assert [path.name for path in tmp_path.iterdir()] == ['p.html']


def test_without_jinja2_the_extra_is_named(save, monkeypatch):
    monkeypatch.setitem(sys.modules, 'jinja2', None)
    with pytest.raises(ImportError, match=r'maclip_pyiqa\[report\]'):
        save()
