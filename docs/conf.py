"""Configuration of the site, for Sphinx: `python -m sphinx -W --keep-going docs build/site`, which needs no network.

Pages are those of this folder. The reference is made from what the public modules list in `__all__`, a page a name.
Docstrings are in Google's style, with `names` and $equations$ as in Markdown.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import sys
import textwrap
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # links to source are to what lies here

import maclip_pyiqa  # noqa: E402

COMMIT = os.environ.get('READTHEDOCS_GIT_COMMIT_HASH', 'main')
SOURCE = f'https://github.com/maclip-pyiqa/maclip_pyiqa/blob/{COMMIT}'

project = 'maclip_pyiqa'
author = 'The maclip_pyiqa contributors'
version = release = maclip_pyiqa.__version__
extensions = [
    'myst_nb',
    *('sphinx.ext.autodoc', 'sphinx.ext.intersphinx', 'sphinx.ext.linkcode', 'sphinx.ext.mathjax'),
    'sphinx.ext.napoleon',
]
exclude_patterns = ['README.md']  # index.md shows it
nitpicky = True
# types of arguments that are not public: what may be passed is in words
nitpick_ignore = [('py:class', name) for name in ('MetricAdapter', 'Options', 'Processes', 'Source')]
nitpick_ignore += [('py:class', f'maclip_pyiqa.evaluation.metrics.{name}Adapter') for name in ('MACLIP', 'Pyiqa')]
smartquotes = False  # quotes are those of code
html_theme = 'furo'
html_title = f'{project} {release}'
html_show_copyright = False
html_theme_options = {
    'source_repository': 'https://github.com/maclip-pyiqa/maclip_pyiqa',
    'source_branch': 'main',
    'source_directory': 'docs/',
}
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 4
nb_execution_mode = 'force'
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
python_maximum_signature_line_length = 100
autodoc_member_order = 'bysource'
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_param = False
napoleon_custom_sections = [('Attributes', 'params_style')]

# Where other projects document the names that signatures have, as these spell them. Their own inventories would tie the
# build to a network.
LINKED = {
    'https://docs.python.org/3/': {
        'collections.abc.Callable collections.abc.Collection collections.abc.Iterable collections.abc.Iterator '
        'collections.abc.Mapping collections.abc.Sequence': 'library/collections.abc.html',
        'os.PathLike': 'library/os.html',
        'Row': 'library/stdtypes.html#dict',  # dict[str, Any]
        'pathlib.Path Path': 'library/pathlib.html#pathlib.Path',
    },
    'https://docs.pytorch.org/docs/stable/': {
        'torch.Tensor Tensor': 'tensors.html#torch.Tensor',
        'torch.device': 'tensor_attributes.html#torch.device',
        'torch.Generator torch._C.Generator': 'generated/torch.Generator.html#torch.Generator',
        'torch.nn.Module torch.nn.modules.module.Module': 'generated/torch.nn.Module.html#torch.nn.Module',
        'torch.export.exported_program.ExportedProgram': 'export/api_reference.html#torch.export.ExportedProgram',
    },
    'https://pillow.readthedocs.io/en/stable/': {
        'PIL.Image.Image': 'reference/Image.html#PIL.Image.Image',
    },
    'https://numpy.org/doc/stable/': {
        'ArrayLike': 'reference/typing.html#numpy.typing.ArrayLike',
        'numpy.ndarray np.ndarray': 'reference/generated/numpy.ndarray.html#numpy.ndarray',
    },
    'https://arrow.apache.org/docs/': {
        'pa.Schema': 'python/generated/pyarrow.Schema.html#pyarrow.Schema',
        'pa.Table': 'python/generated/pyarrow.Table.html#pyarrow.Table',
        'pa.RecordBatch': 'python/generated/pyarrow.RecordBatch.html#pyarrow.RecordBatch',
        'ds.Dataset': 'python/generated/pyarrow.dataset.Dataset.html#pyarrow.dataset.Dataset',
    },
    'https://matplotlib.org/stable/': {'Figure': 'api/figure_api.html#matplotlib.figure.Figure'},
    'https://iqa-pytorch.readthedocs.io/en/latest/': {
        'pyiqa.create_metric': 'source/_autosummary/pyiqa.api_helpers.html#pyiqa.api_helpers.create_metric',
    },
}
intersphinx_mapping: dict[str, Any] = {}


def public_modules() -> list[ModuleType]:
    """Modules that list public names."""
    modules = [maclip_pyiqa]
    for found in pkgutil.walk_packages(maclip_pyiqa.__path__, 'maclip_pyiqa.'):
        path = HERE.parent.joinpath(*found.name.split('.'))
        file = path / '__init__.py' if found.ispkg else path.with_suffix('.py')
        if '\n__all__ =' in file.read_text('utf-8'):  # the others are not imported
            modules.append(importlib.import_module(found.name))
    return modules


def public_names() -> dict[str, list[str]]:
    """Public names by module, each where it is found first."""
    seen: set[int] = set()
    names: dict[str, list[str]] = {}
    for module in public_modules():
        own = [name for name in sorted(module.__all__) if id(getattr(module, name)) not in seen and name[0] != '_']
        seen.update(id(getattr(module, name)) for name in own)
        if own:
            names[module.__name__] = own
    return names


NAMES = public_names()
PAGES = {name: f'{module}.{name}' for module, names in NAMES.items() for name in names}
CLASSES = {PAGES[name]: getattr(importlib.import_module(module), name) for module in NAMES for name in NAMES[module]}
# such as `label`, which are names of columns and keys too: linked where a call of them is named
WORDS = {name for name in PAGES if name.isalpha() and name.islower()}
assert len(PAGES) == sum(map(len, NAMES.values()))  # docstrings name them without their modules


def comment(name: str, value: Any) -> str:
    """The comment `#:` above the assignment of data, in whichever module that is."""
    for module in [module for key, module in sys.modules.items() if key.startswith('maclip_pyiqa')]:
        if vars(module).get(name) is value:
            found = re.search(rf'^((?:#:.*\n)+){name}\b', inspect.getsource(module), re.MULTILINE)
            if found:
                return re.sub(r'^#: ?', '', found[1], flags=re.MULTILINE)
    raise ValueError(f'{name} is public, and has no comment that begins with `#:`')


def write_reference(*_: Any) -> None:
    """Write the pages of the reference, and their list."""
    folder = HERE / 'reference'
    folder.mkdir(exist_ok=True)
    lines = ['# Reference', '', 'What is listed here is public; [](../public.md) says what that means.', '']
    pages = {}
    for module, names in NAMES.items():
        first, *_ = (inspect.getdoc(importlib.import_module(module)) or '').split('\n')
        lines += [f'## {module}', '', first, '', '| name | what it is |', '| --- | --- |']
        for name in names:
            value = getattr(importlib.import_module(module), name)
            kind = 'class' if inspect.isclass(value) else 'function' if callable(value) else 'data'
            members = '   :members:\n   :special-members: __call__, __getitem__, __len__\n'
            directive = f'.. auto{kind}:: {module}.{name}\n' + members * (kind == 'class')
            text = inspect.getdoc(value) or ''
            if kind == 'data':
                text = comment(name, value)
                directive = f'.. py:data:: {module}.{name}\n\n' + textwrap.indent(restructured(text), '   ')
            pages[page(name)] = f'{name}\n{"=" * len(name)}\n\n{directive}\n'
            summary = text.split('\n\n')[0].replace('\n', ' ').replace('|', r'\|').rstrip(':')
            lines.append(f'| [`{name}`]({page(name)}.rst) | {summary} |')
        lines.append('')
    toctree = [f'{name} <{page(name)}>' for name in PAGES]
    pages['index'] = '\n'.join([*lines, '```{toctree}', ':hidden:', '', *toctree, '```', ''])
    for old in folder.iterdir():
        old.unlink()
    for name, text in pages.items():
        (folder / f'{name}.{"md" if name == "index" else "rst"}').write_text(text, 'utf-8')


def page(name: str) -> str:
    """File of a public name's page. Not all file systems tell `Label` from `label`."""
    return PAGES[name] + '-class' * (name[0].isupper() and name.lower() in PAGES)


def write_inventories(app: Any, config: Any) -> None:
    """Write LINKED as the inventories that intersphinx reads."""
    for i, (address, places) in enumerate(LINKED.items()):
        lines = [f'{name} py:class 1 {place} -' for names, place in places.items() for name in names.split()]
        head = f'# Sphinx inventory version 2\n# Project: {i}\n# Version:\n# The rest is compressed by zlib.\n'
        path = Path(app.doctreedir) / f'{i}.inv'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(head.encode() + zlib.compress('\n'.join([*lines, '']).encode()))
        config.intersphinx_mapping[f'project{i}'] = (address, str(path))


def link(app: Any, name: str, text: list[str]) -> None:
    """Link public names on pages to the reference, and files that are not pages to the repository."""
    if name.startswith('reference/') or name == 'tour':
        return

    def linked(match: re.Match) -> str:
        name = match[1].rpartition('.')[2]
        is_word = name in WORDS and name == match[1] and not match.string.startswith('| `maclip_pyiqa')  # of public.md
        known = PAGES.get(name, '').endswith(match[1]) and not is_word
        return f'[{match[0]}](reference/{page(name)}.rst)' if known else match[0]

    parts = re.split(r'(^```.*?^```$)', text[0], flags=re.MULTILINE | re.DOTALL)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r'(?<!!)(\[[^]]*\])\(\.\./([^)\s]+)\)', rf'\1({SOURCE}/\2)', parts[i])
        lines = parts[i].split('\n')
        parts[i] = '\n'.join(re.sub(r'(?<![\[`])`([\w.]+)`(?![\]`])', linked, line) for line in lines)
    text[0] = ''.join(parts)


def markup(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn the Markdown of a docstring into reStructuredText."""
    lines[:] = restructured('\n'.join(lines)).split('\n')


def restructured(text: str) -> str:
    """reStructuredText of Markdown. Examples stay: doctests, and what is indented below a line that ends with '::'."""
    pattern = r'((?:^ *>>> .*\n(?:.+\n?)*)|(?<=::)\n\n(?: *\n|(?: {4}|\t).*\n?)*)'
    parts = re.split(pattern, text, flags=re.MULTILINE)
    return ''.join(part if i % 2 else _restructured(part) for i, part in enumerate(parts))


def _restructured(text: str) -> str:
    def display(match: re.Match) -> str:
        equation = ' '.join(match[2].split())
        return f'\n{match[1]}.. math:: {equation}\n'

    def escaped(match: re.Match) -> str:
        if match['math']:
            return f':math:`{match["math"]}`'
        if match['code']:
            target = match['code'].partition('(')[0]
            known = _public(target) and (target not in WORDS or target != match['code'])
            code = f':py:obj:`{match["code"]} <{target}>`' if known else f'``{match["code"]}``'
            return code + f'\\ {match["end"]}' * bool(match['end'])
        return '\\' + match[0]

    text = re.sub(r'^( *)\$\$(.+?)\$\$', display, text, flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r'(^ *\.\. math::.*$)', text, flags=re.MULTILINE)
    inline = r'(?<!`)`(?P<code>[^`]+)`(?!`)(?P<end>\w?)|\$(?P<math>[^$]+)\$|\|(?=\S)|(?<![\s*])\*+|\*+(?=[\s./])'
    return ''.join(part if i % 2 else re.sub(inline, escaped, part) for i, part in enumerate(parts))


def _public(name: str) -> str:
    """Full name of a public name or of a member of one, as docstrings and signatures have it; '' for other words."""
    first, dot, rest = name.rpartition('maclip_pyiqa.')[2].partition('.')
    while first not in PAGES and dot and name.startswith('maclip_pyiqa.'):
        first, dot, rest = rest.partition('.')
    return f'{PAGES[first]}{dot}{rest}' if first in PAGES else ''


def resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Find a public name wherever it is spelled from, as signatures have it without its module or with another one."""
    if node.get('refdomain') != 'py' or not (target := _public(node['reftarget'])):
        return None
    domain, place = env.domains['py'], (env, node['refdoc'], app.builder, 'obj')
    found = domain.resolve_xref(*place, target, node, content)
    owner, _, member = target.rpartition('.')
    text = inspect.getdoc(CLASSES.get(owner)) or ''
    if not found and re.search(rf'\b{member}\b', text):  # a field, which its class describes
        found = domain.resolve_xref(*place, owner, node, content)
    return found


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Fields of named tuples are described by their classes."""
    return True if type(obj).__name__ == '_tuplegetter' else None


def signature(app: Any, what: str, name: str, obj: Any, options: Any, arguments: str, returns: str) -> Any:
    """Signatures that Sphinx can read: not with the default of a dataclass's field that a function makes."""
    return (arguments.replace('<factory>', '...'), returns) if arguments else None


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Where the source of a name is."""
    if not info['module']:  # data
        return None
    value: Any = importlib.import_module(info['module'])
    for part in info['fullname'].split('.'):
        value = getattr(value, part, None)
    value = inspect.unwrap(value.fget if isinstance(value, property) else value) if value is not None else None
    try:
        lines, first = inspect.getsourcelines(value)
        path = Path(inspect.getsourcefile(value)).relative_to(HERE.parent)
    except (TypeError, ValueError, OSError):
        return None
    return f'{SOURCE}/{path.as_posix()}#L{first}-L{first + len(lines) - 1}'


def setup(app: Any) -> None:
    app.connect('config-inited', write_reference)
    app.connect('config-inited', write_inventories, priority=1)  # before intersphinx looks at its mapping
    app.connect('source-read', link)
    app.connect('autodoc-process-docstring', markup, priority=100)  # before napoleon
    app.connect('autodoc-process-signature', signature)
    app.connect('autodoc-skip-member', skip)
    app.connect('missing-reference', resolve, priority=100)
