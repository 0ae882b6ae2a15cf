"""README and docs: Python blocks run, commands parse, links and pictures exist.

Blocks run in a folder with the image `photo.jpg` and the folder `photos` of two images. The default backbone is the
demonstration backbone there, so that `MACLIP()` and `create_metric('maclip')` need no download. A YAML block whose
first line is the comment `# NAME.yml` is a file of that name.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from PIL import Image
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from maclip_pyiqa import MACLIP, __version__
from maclip_pyiqa.demo import PHOTO

ROOT = Path(__file__).parents[1]
README = ROOT / 'README.md'
PAGES = [README, ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md', *sorted((ROOT / 'docs').glob('*.md'))]
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]
PROJECT = 'https://github.com/maclip-pyiqa/maclip_pyiqa/blob/main/'
FILES = 'https://raw.githubusercontent.com/maclip-pyiqa/maclip_pyiqa/main/'


def write_yaml(example):
    name = re.match(r'# (\S+\.yml)\n', example.parsed)
    if name:
        Path(name[1]).write_text(example.parsed)


BLOCKS = Sybil([PythonCodeBlockParser(), CodeBlockParser('yaml', write_yaml)])


@pytest.mark.parametrize('page', PAGES, ids=IDS)
def test_blocks_run(page, tmp_path, monkeypatch):
    examples = list(BLOCKS.parse(page))
    if not examples:
        return
    with Image.open(PHOTO) as photo:
        photo.crop((0, 0, 300, 260)).save(tmp_path / 'photo.jpg')
        (tmp_path / 'photos').mkdir()
        photo.crop((100, 0, 260, 150)).save(tmp_path / 'photos/a.jpg')
        photo.crop((200, 100, 360, 220)).save(tmp_path / 'photos/b.png')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MACLIP.__init__.__kwdefaults__, 'backbone', 'demo')
    for example in examples:
        example.evaluate()


def test_every_page_of_a_room_has_blocks_that_run():
    with_blocks = {page.stem for page in PAGES if list(BLOCKS.parse(page))}
    assert with_blocks >= {'README', 'metric', 'loss-and-guidance', 'files', 'evaluation', 'integrations'}


def commands(page):
    """Command lines of a page's shell blocks, continuation lines joined; each part of `a && b` and `a | b` alone."""
    for block in re.findall(r'^```bash\n(.*?)^```', page.read_text('utf-8'), re.DOTALL | re.MULTILINE):
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            while words:
                end = next((i for i, word in enumerate(words) if word in ('&&', '|', '>', ';')), len(words))
                yield words[:end]
                words = words[end + 1 :]


LINES = [(name, words) for name, page in zip(IDS, PAGES, strict=True) for words in commands(page)]
PROGRAMS = (('maclip-pyiqa',), ('python', '-m', 'maclip_pyiqa'))


def arguments(words):
    """Of this package's command line; None: another program."""
    if words[0] == 'torchrun':
        words = ['python', *words[next(i for i, word in enumerate(words) if word == '-m') :]]
    return next((words[len(start) :] for start in PROGRAMS if tuple(words[: len(start)]) == start), None)


@pytest.mark.parametrize(
    'page, words', [pytest.param(page, words, id=shlex.join(words)) for page, words in LINES if arguments(words)]
)
def test_commands_parse(page, words, tmp_path, monkeypatch, capsys):
    from maclip_pyiqa.cli import main as cli

    (tmp_path / 'own.yml').write_text('- [good, bad]\n')  # is read by the parser
    monkeypatch.chdir(tmp_path)
    try:
        cli._parser().parse_args(arguments(words))
    except SystemExit as stop:
        assert stop.code == 0, f'{page}: {shlex.join(words)}: {capsys.readouterr().err}'


@cache
def help_of(script):
    return subprocess.run([sys.executable, ROOT / script, '--help'], capture_output=True, text=True, check=True).stdout


SCRIPTS = [words for _, words in LINES if words[0] == 'python' and words[1].startswith('benchmarks/')]


@pytest.mark.parametrize('words', SCRIPTS, ids=shlex.join)
def test_options_of_scripts_exist(words):
    known = set(re.findall(r'(?<![\w-])--?[a-z][\w-]*', help_of(words[1])))
    assert {word for word in words[2:] if word.startswith('-')} <= known


def test_files_in_commands_exist():
    named = {word for _, words in LINES for word in words if word.startswith(('maclip_pyiqa/', 'benchmarks/', 'tests/'))}
    assert named and {name for name in named if not (ROOT / name).exists()} == set()


def anchor(heading):
    """GitHub's anchor of a heading."""
    text = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading.strip()).lower()
    return re.sub(r'[^\w\- ]', '', text).replace(' ', '-')


def anchors(page):
    text = re.sub(r'^```.*?^```', '', page.read_text('utf-8'), flags=re.DOTALL | re.MULTILINE)
    return {anchor(heading) for heading in re.findall(r'^#+ (.*)$', text, re.MULTILINE)}


@pytest.mark.parametrize('page', [*PAGES, ROOT / 'maclip_pyiqa/backbone/demo/README.md'], ids=[*IDS, 'model card'])
def test_links_exist(page):
    text = re.sub(r'^```.*?^```', '', page.read_text('utf-8'), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r'\]\(([^)\s]+)\)', text)
    broken = []
    for link in links:
        target, _, heading = link.partition('#')
        for address in (PROJECT, FILES):
            if target.startswith(address):
                target = str(ROOT / target.removeprefix(address))
        if ':' in target:
            continue  # elsewhere on the web
        file = (page.parent / target) if target else page
        if not file.exists() or (heading and heading not in anchors(file)):
            broken.append(link)
    assert broken == []


def test_readme_is_short_and_works_on_a_package_index():
    text = README.read_text('utf-8')
    assert len(text.splitlines()) <= 150
    links = re.findall(r'\]\(([^)\s]+)\)', text)
    assert links and [link for link in links if not link.startswith(('https://', '#'))] == []


def test_readme_names_the_test_command_for_ci():
    """.ci/run takes the first line after the marker that is neither empty nor a fence."""
    after = README.read_text('utf-8').partition('<!-- test -->\n')[2]
    command = next(line for line in after.splitlines() if line and not line.startswith('```'))
    assert re.fullmatch(r"pip install '\.\[test\]' && python -m pytest\b.*", command)


def test_citation_and_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text('utf-8'))
    assert citation['version'] == __version__ and citation['references'][0]['title'].startswith('Beyond Cosine')
    assert f'## [{__version__}]' in (ROOT / 'CHANGELOG.md').read_text('utf-8')
