"""The options of MACLIP, each one once: its default, its check, what it is, and what it moves.

Read by the constructor, `config`, the fingerprints, the command line, Data-Juicer's operator, and the table in
docs/metric.md, which `python -m maclip_pyiqa.metric.options` prints. Imports nothing heavy, so that the command line
checks options before torch is loaded.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import textwrap
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from operator import attrgetter
from typing import Any, Literal

from .._values import flag, integer, number
from .prompts import PROMPTS, read_prompts

Check = Callable[[str, Any], Any]  # of an option's name and value -> the value in its usual type
Moved = Literal['weights', 'features', 'cues', 'nothing']
WINDOWS, FUSION = ('views', 'windows'), ('cue', 'both')  # without which some options have no effect


def option(
    default: Any, check: Check, help: str, moves: Moved = 'features', only: tuple[str, str] | None = None
) -> Any:
    """An entry of `Options`.

    Args:
        default: default value; None is allowed where it is the default
        check: function of name and value that returns the value, or raises TypeError or ValueError
        help: noun phrase that says what the option is
        moves: 'features', and with them scores; 'cues', so scores but no feature; 'weights' for what the fingerprint
            holds as what it stands for, weights and tokens; or 'nothing'
        only: another option and the value without which this one has no effect
    """
    return field(default=default, metadata={'check': check, 'help': help, 'moves': moves, 'only': only})


def one_of(*choices: str) -> Check:
    """The check of an option of a few words."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            *others, last = map(repr, choices)
            raise ValueError(f'{name}={value!r}; expected {", ".join(others)} or {last}')
        return value

    return check


def instance(kind: Any, expected: str) -> Check:
    """The check of an option of a type."""

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f'{name}={value!r}; expected {expected}')
        return value

    return check


def numbers(name: str, value: Any) -> list[float]:
    """The check of an option of several numbers."""
    values = value.tolist() if hasattr(value, 'tolist') else value  # of NumPy or torch
    try:
        if isinstance(values, (str, bytes, dict, set)):
            raise TypeError
        return [number(name, item) for item in values]
    except (TypeError, ValueError) as error:
        raise type(error)(f'{name}={values!r}; expected finite numbers, one for each pair of prompts') from None


@dataclass
class Options:
    """Checked options of a metric. Each is documented by its entry; `describe` lists them.

    Raises:
        TypeError, ValueError: a value that an option cannot have
    """

    backbone: str = option(
        'RN50',
        instance(str, "a name such as 'RN50'"),
        "open_clip architecture, also in OpenAI's spelling ('ViT-B/32'); 'local-dir:PATH' or 'hf-hub:ID', which bring "
        "their own weights; or 'demo', the tiny demonstration backbone: no download, and not the published metric",
        'weights',
    )
    pretrained: str | os.PathLike[str] = option(  # noqa: RUF009
        'openai',
        instance((str, os.PathLike), 'a path or an open_clip tag'),
        "open_clip tag, or path of a file of weights: OpenAI's TorchScript .pt, a state dict or .safetensors",
        'weights',
    )
    prompts: tuple[tuple[str, str], ...] = option(
        PROMPTS,
        lambda _, value: read_prompts(value),
        "pairs of prompts, (positive, negative); or the name of a set: 'maclip' (the paper's five pairs), 'clipiqa' "
        "('Good photo.' / 'Bad photo.'), one attribute such as 'sharp' or torchmetrics' 'brightness'; or several "
        'names, separated by commas; or the path of a .yml file of such pairs',
        'weights',
    )
    views: str = option(
        'windows',
        one_of('windows', 'global', 'full'),
        "views of an image: 'windows' (windows and global view, the paper), 'global' (the resized image only) or "
        "'full' (the whole image once at its own size, as CLIP-IQA does)",
    )
    stride: int = option(  # of a metric, that of its window where None was given
        None, integer, 'stride of the windows, pixels; None: 128 for a window of 224, in proportion', only=WINDOWS
    )
    max_views: int | None = option(
        None, integer, 'largest number of windows, an even grid; not the published metric; None: all', only=WINDOWS
    )
    pos_embedding: bool = option(False, flag, "use of CLIP's positional embedding, interpolated where the size differs")
    box_lam: float = option(0.5, number, 'lambda of the Box-Cox transform in the magnitude cue', 'cues')
    base_cos: float = option(1.0, number, 'base constant of the cosine cue in the fusion', 'cues', FUSION)
    base_norm: float = option(0.6, number, 'base constant of the magnitude cue in the fusion', 'cues', FUSION)
    alpha: float = option(1.0, number, "factor of the cues' difference in the fusion", 'cues', FUSION)
    chunk: int = option(16, integer, 'largest number of views encoded at once: bounds memory only', 'nothing')
    sample_views: int | None = option(
        None,
        integer,
        'number of windows in training: where gradients flow, an image is scored by so many windows, drawn anew at '
        "each call by torch's generator, and the global view; the expectation is the full score. None: all",
        'nothing',
    )
    quick_gelu: bool | None = option(
        None, flag, "QuickGELU as the transformers' activation; None: as the published weights were trained", 'weights'
    )
    prompt_weights: list[float] | None = option(  # noqa: RUF009
        None, numbers, 'weights of the pairs of prompts in the cosine cue, in proportion; None: equal', 'cues'
    )
    cue: str = option(
        'both',
        one_of('both', 'sim', 'mag'),
        "cue of the score: 'both' (the paper's fusion), 'sim' (the cosine cue alone) or 'mag' (the magnitude cue)",
        'cues',
    )
    head: str | os.PathLike[str] | None = option(  # noqa: RUF009
        None,
        instance((str, os.PathLike), 'a path'),
        'path of a head that `maclip-pyiqa fit` wrote, in place of the fusion; not the published metric. None: the '
        'fusion',
        'weights',
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            setattr(self, entry.name, _checked(entry, getattr(self, entry.name)))
        if self.prompt_weights is not None:
            self.prompt_weights = _shares(self.prompt_weights, len(self.prompts))
        if self.head is not None and self.cue != 'both':
            raise ValueError(f'cue={self.cue!r} and a head; a head is computed from both cues, so leave one of the two')

    def config(self) -> dict[str, Any]:
        """The options as plain data."""
        return json.loads(json.dumps(vars(self), default=os.fspath))

    def changed(self, default: Options, *moves: Moved) -> dict[str, Any]:
        """Options that have an effect and differ from those of `default`, as plain data.

        Args:
            default: options to compare with
            moves: what the options move
        """
        values, defaults = self.config(), default.config()
        if values['prompt_weights'] is not None:
            values['prompt_weights'] = [rounded(share) for share in values['prompt_weights']]
        changed = {}
        for entry in fields(self):
            name, moved, only = entry.name, entry.metadata['moves'], entry.metadata['only']
            has_effect = only is None or values[only[0]] == only[1]
            if moved in moves and has_effect and values[name] != defaults[name]:
                changed[name] = values[name]
        return changed


ENTRIES = {entry.name: entry for entry in fields(Options)}
DEFAULTS: dict[str, Any] = {name: entry.default for name, entry in ENTRIES.items()}


def with_options_as_attributes(cls: Any) -> Any:
    """A class of metrics with `options`, which are read-only attributes of the metric too."""
    for name in DEFAULTS.keys() - {'backbone', 'prompt_weights', 'head'}:  # modules and a buffer
        setattr(cls, name, property(attrgetter(f'options.{name}'), doc='The option of this name, read only.'))
    return cls


def parse(text: str) -> tuple[str, Any]:
    """Name and checked value of an option that is written NAME=VALUE.

    Raises:
        TypeError, ValueError: an unknown name, or a value that the option cannot have

    Example:
        >>> parse('alpha=2'), parse('pos_embedding=true'), parse('prompt_weights=2,1')
        (('alpha', 2.0), ('pos_embedding', True), ('prompt_weights', [2.0, 1.0]))
    """
    name, equals, value = text.partition('=')
    if name not in ENTRIES or not equals:
        raise ValueError(f'{text!r}; expected NAME=VALUE, NAME being one of {", ".join(ENTRIES)}')
    entry, parsed = ENTRIES[name], value
    if not isinstance(entry.default, str) and name != 'prompts':
        words = {'true': 'true', 'false': 'false', 'none': 'null'}  # Python's, in any case, as JSON
        data = f'[{value}]' if ',' in value and value[0] != '[' else words.get(value.lower(), value)
        with contextlib.suppress(ValueError):
            parsed = json.loads(data)
    return name, _checked(entry, parsed)


def describe() -> str:
    """The options as entries of a docstring."""
    wrap = textwrap.TextWrapper(112, initial_indent=' ' * 4, subsequent_indent=' ' * 8)
    return '\n'.join(wrap.fill(f'{entry.name}: {entry.metadata["help"]}') for entry in ENTRIES.values()).lstrip()


def table() -> str:
    """The options as a table in Markdown."""
    lines = ['| option | default | meaning |', '| --- | --- | --- |']
    for entry in ENTRIES.values():
        default = 'the five pairs' if entry.name == 'prompts' else f'`{entry.default!r}`'
        lines.append(f'| `{entry.name}` | {default} | {entry.metadata["help"]} |')
    return '\n'.join(lines)


def _checked(entry: Field, value: Any) -> Any:
    return None if value is None and entry.default is None else entry.metadata['check'](entry.name, value)


def _shares(weights: list[float], pairs: int) -> list[float] | None:
    """Weights of the pairs of prompts, scaled to a sum of 1; None: equal."""
    total = sum(weights)
    if len(weights) != pairs or not (min(weights) >= 0 and 0 < total < math.inf):
        raise ValueError(
            f'prompt_weights={weights!r}; expected {pairs} numbers, one for each pair of prompts, none negative, not '
            'all zero'
        )
    if not math.isclose(total, 1, abs_tol=1e-9):  # those of a `config` stay as they are
        weights = [weight / total for weight in weights]
    return None if len({rounded(weight) for weight in weights}) == 1 else weights


def rounded(share: float) -> float:
    """To six digits: the last bits of a share depend on what it was divided by."""
    return float(f'{share:.6g}')


if __name__ == '__main__':
    print(table())
