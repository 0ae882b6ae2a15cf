"""One page in one file: a template, our own CSS and JavaScript, and data, under a policy that allows nothing else.

The page runs the scripts whose hashes its Content-Security-Policy lists, shows the pictures that are in it, and can
send or fetch nothing. Data are JSON in elements of their own, which browsers do not run; Jinja2 escapes text in
templates. Needs Jinja2, the extra `report`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .._files import replacing
from .._lazy import need
from .._version import __version__
from ..backbone import note

ASSETS = Path(__file__).parent / 'assets'


def save_page(
    path: str | os.PathLike[str], template: str, *, scripts: Iterable[str], data: Mapping[str, Any], **context: Any
) -> None:
    """Write a page into one file, which is replaced at once.

    Args:
        path: path of the file
        template: name of a file in the folder `assets`; it extends base.html, which says what its blocks are
        scripts: names of files in the folder `assets`, in the order in which they run
        data: data by the ids of the elements that hold them; what `json` can write
        context: variables for the template. base.html needs `title`, and shows `provenance`, pairs of names and values,
            and `note`

    Raises:
        OSError: the file cannot be written
        ModuleNotFoundError: Jinja2 is not installed
    """
    need('a page', 'jinja2', extra='report')
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    style = _asset('style.css')
    codes = [_asset(name) for name in scripts]
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, codes))}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; "
        # no text becomes HTML or a script, in our own code either
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(
        {'provenance': (), 'note': ''} | context,
        policy=policy,
        style=Markup(style),
        scripts=[Markup(code) for code in codes],
        data={name: Markup(json_block(value)) for name, value in data.items()},
    )
    # text of the context that is not UTF-8, such as a path in the command, is shown with replacement characters
    with replacing(path) as part, open(part, 'w', encoding='utf-8', errors='replace', newline='\n') as file:
        file.write(text)


def json_block(value: Any) -> str:
    r"""JSON that can stand in a <script> element: ASCII, with <, > and & as \u003c, \u003e and \u0026."""
    text = json.dumps(value, separators=(',', ':'), allow_nan=False)
    return text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026')


def demo_note(label: Mapping[str, Any] | None) -> str:
    """A sentence that says that scores are from the demonstration backbone or a head; '' where they are not."""
    return f'Scores are from the {text}.' if (text := note(label and label['config'])) else ''


def provenance(
    label: Mapping[str, Any] | None, counts: Mapping[str, int], more: Mapping[str, str] | None = None
) -> list[tuple[str, str]]:
    """Pairs for a page's provenance: numbers of images by what they are, such as {'images': 100}, the label of the
    scores (None: unknown), and further pairs, such as the command."""
    pairs = [(name, f'{count:,}') for name, count in counts.items()]
    if label is None:
        pairs.append(('metric', 'unknown: the scores have no label'))
    else:
        config, versions = dict(label['config']), dict(label['versions'])
        pairs.append(('metric', f'MA-CLIP of maclip_pyiqa {versions.pop("maclip_pyiqa", "(unknown)")}'))
        prompts = '; '.join(' / '.join(map(str, pair)) for pair in config.pop('prompts', None) or ())
        options = ', '.join(f'{name}={value!r}' for name, value in config.items() if value is not None)
        pairs += [('options', options), ('prompts', prompts), ('fingerprint', label['fingerprint'])]
        pairs.append(('versions', ', '.join(f'{name} {value}' for name, value in versions.items())))
    pairs += (more or {}).items()
    pairs.append(('page', f'{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, by maclip_pyiqa {__version__}'))
    return [(name, value) for name, value in pairs if value]


def _asset(name: str) -> str:
    text = (ASSETS / name).read_text('utf-8')
    if '</' in text or '<!--' in text:  # its element would end there, or elsewhere than it seems to
        raise ValueError(f"{name} must not hold '</' or '<!--'")
    return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
