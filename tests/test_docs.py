"""README, docs and the reference: Python blocks run, commands parse, links and pictures exist. The tour, a notebook, is
run where the site is built.

Blocks run in a folder with the image `photo.jpg`, the folder `photos` of two images, and the head HEAD. The default
backbone is the demonstration backbone there, so that `MACLIP()` and `create_metric('maclip')` need no download. A YAML
block whose first line is the comment `# NAME.yml` is a file of that name. Examples of docstrings have more files there,
see `files`.
"""

from __future__ import annotations

import argparse
import ast
import doctest
import inspect
import json
import re
import runpy
import shlex
import shutil
import sys
import textwrap
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch
import yaml
from PIL import Image
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from maclip_pyiqa import MACLIP, __version__, score_files, verify
from maclip_pyiqa.collections.folder import SHARD
from maclip_pyiqa.demo import PHOTO
from maclip_pyiqa.scoring import columns, find_images, label, open_table
from maclip_pyiqa.scoring.schema import LABEL_KEY

ROOT = Path(__file__).parents[1]
README = ROOT / 'README.md'
CARD = ROOT / 'maclip_pyiqa/backbone/demo/README.md'
BESIDE = ('CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md', 'CODE_OF_CONDUCT.md', '.github/PULL_REQUEST_TEMPLATE.md')
PAGES = [README, CARD, *(ROOT / name for name in BESIDE), *sorted((ROOT / 'docs').glob('*.md'))]
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]
PROJECT = 'https://github.com/maclip-pyiqa/maclip_pyiqa/blob/main/'
TOUR = ROOT / 'docs/tour.ipynb'
HEAD = 'results/fit/ratings.maclip.head.safetensors'
FILES = 'https://raw.githubusercontent.com/maclip-pyiqa/maclip_pyiqa/main/'


def write_yaml(example):
    name = re.match(r'# (\S+\.yml)\n', example.parsed)
    if name:
        Path(name[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(name[1]).write_text(example.parsed)


BLOCKS = Sybil([PythonCodeBlockParser(), CodeBlockParser('yaml', write_yaml)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory of a block."""
    with Image.open(PHOTO) as photo:
        photo.crop((0, 0, 300, 260)).save(tmp_path / 'photo.jpg')
        (tmp_path / 'photos').mkdir()
        photo.crop((100, 0, 260, 150)).save(tmp_path / 'photos/a.jpg')
        photo.crop((200, 100, 360, 220)).save(tmp_path / 'photos/b.png')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MACLIP.__init__.__kwdefaults__, 'backbone', 'demo')
    return tmp_path


SLOW = dict.fromkeys(('docs/collections.md', 'docs/integrations.md'), pytest.mark.slow)  # Ray; exported programs


@pytest.mark.parametrize(
    'page', [pytest.param(p, id=i, marks=SLOW.get(i, ())) for p, i in zip(PAGES, IDS, strict=True)]
)
def test_blocks_run(page, folder, save_head):
    examples = list(BLOCKS.parse(page))
    if not examples:
        return
    if HEAD in page.read_text('utf-8'):
        Path(HEAD).parent.mkdir(parents=True)
        save_head(MACLIP(), Path(HEAD))
    for example in examples:
        if needs_export(example.parsed):
            continue
        example.evaluate()


def needs_export(block):
    """Whether the extra `export`, and the torch that it asks for, would have to be installed."""
    return 'export(' in block and find_spec('onnxscript') is None


def test_every_page_of_a_room_has_blocks_that_run():
    with_blocks = {page.stem for page in PAGES if list(BLOCKS.parse(page))}
    assert with_blocks >= {'README', 'metric', 'loss-guidance-reward', 'files', 'evaluation', 'integrations'}


SITE = runpy.run_path(str(ROOT / 'docs/conf.py'))


def reference():
    """Public modules and names by full name, each with its docstring."""
    for module, names in SITE['NAMES'].items():
        yield module, (import_module(module), inspect.getdoc(import_module(module)))
        for name in names:
            value = resolve_name(f'{module}:{name}')
            text = inspect.getdoc(value) if callable(value) else SITE['comment'](name, value)
            yield f'{module}.{name}', (value, text + '\n')


REFERENCE = dict(reference())
BLOCK = re.compile(r'^Example::\n\n((?:(?: {4}.*)?\n)+)', re.MULTILINE)
EXAMPLES = {name: textwrap.dedent(block[1]) for name, (_, text) in REFERENCE.items() if (block := BLOCK.search(text))}
SLOW_CODE = re.compile(r"score_collection\(|Path\('results|export\(|diffusers|make_clip\('RN50'")


@pytest.fixture(scope='session')
def files(tmp_path_factory, save_head):
    """What examples have beside photos: versions of images, rated images, a data set, scores, and a head."""
    folder, metric = tmp_path_factory.mktemp('files'), MACLIP(backbone='demo')
    koniq = 'datasets/koniq10k/1024x768'
    with Image.open(PHOTO) as photo:
        for place, count, side in (('before', 2, 100), ('after', 2, 120), ('rated', 15, 64), (koniq, 1, 96)):
            (folder / place).mkdir(parents=True)
            for i in range(count):
                photo.crop((20 * i, 100, 20 * i + side, 100 + side)).save(folder / place / f'{i}.png')
    tables = {
        'ratings.csv': ['filename,mos', *(f'{i}.png,{1 + i % 5}' for i in range(15))],
        'mdfs.csv': ['filename,MDFS', *(f'{i}.png,{i}' for i in range(15))],
        'datasets/meta_info/meta_info_KonIQ10kDataset.csv': ['img_name,mos,std,official_split', '0.png,60,1,test'],
    }
    for name, lines in tables.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text('\n'.join([*lines, '']))
    table = open_table(folder / 'scores.csv', columns(metric.attribute_names))
    table.fill(score_files(metric, find_images(folder / 'rated')), label=label(metric))
    table.close()
    save_head(metric, folder / 'head.safetensors')
    return folder


@pytest.fixture(scope='session')
def results(files, tmp_path_factory):
    """The results of evaluating the rated images."""
    from maclip_pyiqa.evaluation.datasets import read_list
    from maclip_pyiqa.evaluation.evaluate import evaluate
    from maclip_pyiqa.evaluation.metrics import load_adapters

    folder, dataset = tmp_path_factory.mktemp('results'), read_list(files / 'ratings.csv', files / 'rated')
    list(evaluate([dataset], load_adapters(['maclip'], backbone='demo'), folder))
    return folder


@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=[pytest.mark.slow] * bool(SLOW_CODE.search(block))) for n, block in EXAMPLES.items()]
)
def test_examples_of_the_reference_run(name, folder, files, monkeypatch, request):
    block = EXAMPLES[name]
    if needs_export(block):
        pytest.skip('the extra `export` is not installed')
    shutil.copytree(files, folder, dirs_exist_ok=True)
    # it compares with what is published for OpenAI's RN50: here it runs, and finds nothing to compare with
    monkeypatch.setattr(verify, '__defaults__', ('demo', 'openai'))
    if 'from_pretrained' in block:
        monkeypatch.setattr('diffusers.StableDiffusionPipeline.from_pretrained', lambda name: tiny_pipeline())
    if 'score_collection(' in block:
        request.getfixturevalue('cluster')
    if "Path('results" in block and 'evaluate(' not in block:
        shutil.copytree(request.getfixturevalue('results'), 'results')
    exec(compile(block, name, 'exec'), {})


def test_doctests_of_the_reference_import_what_they_use():
    """With the names of their modules they run beside the tests, as all doctests do."""
    tests = [doctest.DocTestParser().get_doctest(text, {}, name, name, 0) for name, (_, text) in REFERENCE.items()]
    assert sum(bool(test.examples) for test in tests) > 5
    assert [test.name for test in tests if doctest.DocTestRunner().run(test).failed] == []


def tiny_pipeline():
    """The pipeline that a page makes for its own example."""
    (made,) = (e.parsed for e in BLOCKS.parse(ROOT / 'docs/loss-guidance-reward.md') if 'def pipe(' in e.parsed)
    names = {'torch': torch}
    exec(made, names)
    return names['pipe']


def test_every_public_name_has_an_example_and_describes_its_parameters():
    missing = []
    for name, (value, text) in REFERENCE.items():
        if inspect.ismodule(value):
            continue
        if not re.search(r'^Example:(:\n\n {4}\w|\n {4}>>> )', text, re.MULTILINE):
            missing.append(f'{name}: Example')
        if callable(value):
            sections = re.findall(r'^(?:Args|Attributes):\n((?: {4}.*\n)+)', text, re.MULTILINE)
            entries = re.findall(r'^ {4}([\w*]+(?:, [\w*]+)*): \S', ''.join(sections), re.MULTILINE)
            described = {entry.lstrip('*') for line in entries for entry in line.split(', ')}
            missing += [f'{name}: {parameter}' for parameter in parameters(value) if parameter not in described]
    assert len(REFERENCE) > 60 and missing == []


def parameters(value):
    if inspect.isclass(value) and issubclass(value, (Exception, dict)):  # with a constructor of Python's own
        return inspect.get_annotations(value)
    return inspect.signature(value).parameters


def test_examples_of_methods_are_doctests():
    """Blocks of code are run where they are a name's own."""
    members = [
        (f'{name}.{key}', inspect.getdoc(member) or '')
        for name, (value, _) in REFERENCE.items()
        if inspect.isclass(value)
        for key, member in vars(value).items()
        if not key.startswith('__')
    ]
    assert members and [name for name, text in members if BLOCK.search(text)] == []


FENCED = re.compile(r'^```(\w*)\n(.*?)^```', re.DOTALL | re.MULTILINE)
PROGRAMS = ('maclip-pyiqa', 'python -m maclip_pyiqa', 'python benchmarks/', 'torchrun ')


def spans(page):
    return re.findall(r'`([^`]+)`', FENCED.sub('', page.read_text('utf-8')))


def commands(page):
    """Commands in a page's shell blocks, and those with arguments within its text, as lists of words."""
    text = page.read_text('utf-8')
    lines = [line for kind, block in FENCED.findall(text) if kind == 'bash' for line in _lines(block)]
    lines += [span for span in spans(page) if span.startswith(PROGRAMS) and len(span.split()) > 2]
    for line in lines:
        words = shlex.split(line, comments=True)
        while words:
            end = next((i for i, word in enumerate(words) if word in ('&&', '|')), len(words))
            yield words[words[0] == 'time' : end]
            words = words[end + 1 :]


def _lines(block):
    return block.replace('\\\n', ' ').splitlines()


LINES = {shlex.join(words): words for page in PAGES for words in commands(page)}


def arguments(words):
    """Of this package's command line; None: another program."""
    if words[0] == 'torchrun':
        words = ['python', *words[next(i for i, word in enumerate(words) if word == '-m') :]]
    starts = (['maclip-pyiqa'], ['python', '-m', 'maclip_pyiqa'])
    return next((words[len(start) :] for start in starts if words[: len(start)] == start), None)


@pytest.mark.parametrize('line', [line for line, words in LINES.items() if arguments(words)])
def test_commands_parse(line, tmp_path, monkeypatch, capsys):
    (tmp_path / 'own.yml').write_text('- [good, bad]\n')  # is read by the parser
    monkeypatch.chdir(tmp_path)
    try:
        import_module('maclip_pyiqa.cli.main')._parser().parse_args(arguments(LINES[line]))
    except SystemExit as stop:
        assert stop.code == 0, capsys.readouterr().err


class Parsed(Exception):
    pass


@pytest.mark.parametrize('line', [line for line in LINES if line.startswith('python benchmarks/')])
def test_commands_of_scripts_parse(line, tmp_path, monkeypatch, capsys):
    """The script itself takes the arguments, and is stopped there."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise Parsed

    _, script, *rest = LINES[line]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    monkeypatch.setattr(sys, 'argv', [script, *rest])
    try:
        with pytest.raises(Parsed):
            runpy.run_path(str(ROOT / script), run_name='__main__')
    except SystemExit:
        pytest.fail(capsys.readouterr().err)


KEYS = {LABEL_KEY, SHARD}  # of metadata, which look like names of Python


def test_files_and_names_in_the_text_exist():
    named = {span for page in PAGES for span in spans(page)}
    folders = r'(maclip_pyiqa|benchmarks|tests|docs|\.ci|\.github)'
    files = {span for span in named if re.fullmatch(rf'{folders}/[\w./-]*', span)}
    assert len(files) > 20 and {file for file in files if not (ROOT / file).exists()} == set()
    names = {match[0] for span in named if (match := re.match(r'maclip_pyiqa(\.\w+)+', span))} - KEYS
    assert len(names) > 5 and all(resolve_name(name) is not None for name in names)


def test_files_in_commands_exist():
    named = {
        word
        for words in LINES.values()
        for word in words
        if word.startswith(('maclip_pyiqa/', 'benchmarks/', 'tests/'))
    }
    assert named and {name for name in named if not (ROOT / name).exists()} == set()


def anchor(heading):
    """GitHub's anchor of a heading."""
    text = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading.strip()).lower()
    return re.sub(r'[^\w\- ]', '', text).replace(' ', '-')


def anchors(page):
    text = FENCED.sub('', page.read_text('utf-8'))
    return {anchor(heading) for heading in re.findall(r'^#+ (.*)$', text, re.MULTILINE)}


def broken_links(page, text):
    broken = []
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        target, _, heading = link.partition('#')
        for address in (PROJECT, FILES, PROJECT.replace('//github.com', '//colab.research.google.com/github')):
            if target.startswith(address):
                target = str(ROOT / target.removeprefix(address))
        if ':' in target:
            continue  # elsewhere on the web
        file = (page.parent / target) if target else page
        if not file.exists() or (heading and heading not in anchors(file)):
            broken.append(link)
    return broken


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_links_exist(page):
    assert broken_links(page, FENCED.sub('', page.read_text('utf-8'))) == []


def test_the_tour():
    """Committed without outputs, in a format that Jupyter, Colab and Sphinx read, with links and names that exist."""
    tour = json.loads(TOUR.read_text('utf-8'))
    assert (tour['nbformat'], tour['nbformat_minor']) == (4, 5) and tour['metadata']['kernelspec']['name'] == 'python3'
    cells = tour['cells']
    assert len({cell['id'] for cell in cells}) == len(cells) and all(re.fullmatch(r'[\w-]+', c['id']) for c in cells)
    codes = [cell for cell in cells if cell['cell_type'] == 'code']
    assert all(cell['outputs'] == [] and cell['execution_count'] is None for cell in codes)
    text = '\n\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown')
    assert f'blob/main/{TOUR.relative_to(ROOT).as_posix()})' in text and "not MA-CLIP's" in text
    assert broken_links(TOUR, text) == [] and len(re.findall(re.escape(PROJECT), text)) > 5

    lines = [re.sub(r'^(\s*)%pip .*', r'\1pass', line) for cell in codes for line in [*cell['source'], '\n']]
    program = ast.parse(''.join(lines))
    imports = [each for each in ast.walk(program) if isinstance(each, ast.ImportFrom)]
    names = {f'{each.module}:{alias.name}' for each in imports for alias in each.names if 'maclip' in each.module}
    assert len(names) > 8 and all(resolve_name(name) is not None for name in names)
    assert [ast.literal_eval(node.value) for node in program.body if ast.unparse(node).startswith('BACKBONE')] == [
        'demo'
    ]


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_nothing_is_left_to_be_written(page):
    assert re.findall(r'\b(?:TODO|TBD|FIXME)\b|^TABLE$', page.read_text('utf-8'), re.MULTILINE) == []


def test_readmes_links_work_on_a_package_index():
    links = re.findall(r'\]\(([^)\s]+)\)', README.read_text('utf-8'))
    assert links and [link for link in links if not link.startswith(('https://', '#'))] == []


def test_readme_names_the_test_command_for_ci():
    """.ci/run takes the first line after the marker that is neither empty nor a fence."""
    after = README.read_text('utf-8').partition('<!-- test -->\n')[2]
    command = next(line for line in after.splitlines() if line and not line.startswith('```'))
    assert re.fullmatch(r"pip install '\.\[test,export\]' && python -m pytest\b.*", command)


def test_citation_and_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text('utf-8'))
    assert citation['version'] == __version__ and citation['references'][0]['title'].startswith('Beyond Cosine')
    newest = re.search(r'^## \[(.+)\] - (.+)$', (ROOT / 'CHANGELOG.md').read_text('utf-8'), re.MULTILINE)
    assert newest and newest[1] == __version__
    assert newest[2] == str(citation.get('date-released', 'unreleased'))


def test_fields_of_issue_forms_have_ids_and_labels_of_their_own():
    """GitHub refuses a form without; its schema does not say so, which .ci/github checks."""
    forms = sorted((ROOT / '.github/ISSUE_TEMPLATE').glob('[!c]*.yml'))
    assert [form.stem for form in forms] == ['bug', 'question', 'results']
    for form in forms:
        fields = [field for field in yaml.safe_load(form.read_text('utf-8'))['body'] if field['type'] != 'markdown']
        for names in ([field['id'] for field in fields], [field['attributes']['label'] for field in fields]):
            assert len(set(names)) == len(names)
