"""docs/public.md lists what is public: names, options, columns, commands, exit codes; nothing more, nothing less."""

import argparse
import re
from importlib import import_module
from pathlib import Path

from pyiqa.utils.registry import LOSS_REGISTRY

from maclip_pyiqa import MACLIP
from maclip_pyiqa.cli import common
from maclip_pyiqa.cli.main import _parser
from maclip_pyiqa.integrations.pyiqa import VARIANTS, register_loss
from maclip_pyiqa.metric.options import DEFAULTS
from maclip_pyiqa.scoring import Label
from maclip_pyiqa.scoring.schema import ATTRIBUTE, KNOWN

ROOT = Path(__file__).parents[1]


def table(heading):
    """Rows of the table below a heading, without links: first cell -> names in the other two."""
    section = (ROOT / 'docs/public.md').read_text('utf-8').partition(f'\n## {heading}\n')[2].partition('\n## ')[0]
    rows = re.findall(r'^\| (?!---)(.+?) \| (.*?) ?\| ?(.*?) ?\|$', section, re.MULTILINE)[1:]
    cells = {re.sub(r' \(\[.*', '', first).replace('`', ''): re.findall('`([^`]+)`', a + b) for first, a, b in rows}
    assert all(len(names) == len({*names}) for names in cells.values())
    return {first: {*names} for first, names in cells.items()}


def test_names_in_python():
    named = {(module, name) for module, names in table('Names in Python').items() for name in names}
    files = (ROOT / 'maclip_pyiqa').rglob('*.py')
    listing = (file.relative_to(ROOT) for file in files if '\n__all__ = ' in file.read_text('utf-8'))
    modules = [import_module('.'.join(file.with_suffix('').parts).removesuffix('.__init__')) for file in listing]
    listed = {(name, id(getattr(module, name))) for module in modules for name in module.__all__}
    assert len(modules) > 15 and {(name, id(getattr(import_module(module), name))) for module, name in named} == listed
    assert len(named) == len(listed)  # each is named once
    assert all(name in import_module(module).__all__ for module, name in named)


def test_names_elsewhere():
    names = table('Names elsewhere')
    assert names['metrics of pyiqa'] == {'maclip', *VARIANTS, 'maclip_builtin'}
    assert names['options of the metric'] == DEFAULTS.keys()
    assert names['columns of tables'] == {*KNOWN, f'{ATTRIBUTE.name}NAME'}
    assert names['keys of a label'] == Label.__annotations__.keys()
    assert names['exit codes'] == {*re.findall(r'^  (\d+) ', common.CODES, re.MULTILINE)}
    assert names['identity of scores'] == {'fingerprint'} and callable(MACLIP.fingerprint)
    register_loss()
    assert {name for name in names['loss of pyiqa and BasicSR'] if name in LOSS_REGISTRY} == {'MACLIPLoss'}
    operator = (ROOT / 'maclip_pyiqa/integrations/data_juicer.py').read_text('utf-8')  # needs its own environment
    assert {*re.findall(r"register_module\('(\w+)'\)", operator)} == names['operator of Data-Juicer']


def test_commands():
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    options = {
        name: {option.option_strings[-1] for option in parser._actions if option.option_strings} - {'--help'}
        for name, parser in commands.choices.items()
    }
    text = (ROOT / 'docs/public.md').read_text('utf-8').partition('\n## Commands\n')[2].partition('\n|')[0]
    shared = {*re.findall('`(--[^`]+)`', text)} - {'--help'}
    listed = {
        first.removesuffix(' *'): names | shared if first.endswith('*') else names
        for first, names in table('Commands').items()
    }
    assert listed == options
