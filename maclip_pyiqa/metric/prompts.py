"""Antonym prompt pairs: sets by name, from a YAML file, or one's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ['NAMES', 'PROMPTS', 'SETS', 'attribute_names', 'read_prompts']

PROMPTS = (
    ('Good image', 'bad image'),
    ('Sharp image', 'blurry image'),
    ('sharp edges', 'blurry edges'),
    ('High resolution image', 'low resolution image'),
    ('Noise-free image', 'noisy image'),
)
NAMES = dict(zip(PROMPTS, ('good', 'sharp', 'edges', 'resolution', 'noise-free'), strict=True))  # of the attributes

SETS = {
    'maclip': PROMPTS,
    'clipiqa': (('Good photo.', 'Bad photo.'),),
    **{name: (pair,) for pair, name in NAMES.items()},
}

WANTED = "prompts are pairs such as [('Good image', 'bad image')]"


def read_prompts(prompts: Sequence[Sequence[str]] | str | os.PathLike) -> tuple[tuple[str, str], ...]:
    """Prompt pairs from whatever names them.

    Args:
        prompts: (positive, negative) pairs; or the name of a set: 'maclip', 'clipiqa', or one attribute such as
            'sharp'; or the path of a .yml or .yaml file with a list of [positive, negative]

    Returns:
        the pairs, positive first

    Raises:
        TypeError: something else
        ValueError: an unknown name, a file that cannot be read or is no YAML, no pairs, or malformed ones

    Example:
        >>> read_prompts('clipiqa')
        (('Good photo.', 'Bad photo.'),)
    """
    where = ''
    if isinstance(prompts, (str, os.PathLike)):
        text = os.fspath(prompts)
        if text in SETS:
            return SETS[text]
        if not text.lower().endswith(('.yml', '.yaml')):
            raise ValueError(
                f'{WANTED}, the name of a set ({", ".join(SETS)}) or a file that ends in .yml or .yaml, not {prompts!r}'
            )
        prompts, where = _read(text), f' in {text}'
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Sequence):
        raise TypeError(f'{WANTED}, not {prompts!r}{where}')
    if not prompts:
        raise ValueError(f'{WANTED}; at least one pair is wanted{where}')
    for pair in prompts:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f'{WANTED}, not {pair!r}{where}')
        if not all(isinstance(prompt, str) and prompt.strip() for prompt in pair):
            raise ValueError(f'{WANTED}: two texts, neither empty, not {pair!r}{where}')
    return tuple((positive, negative) for positive, negative in prompts)


def attribute_names(prompts: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """A name for each pair: the paper's short one, or else its positive prompt, with the negative where that repeats.

    Example:
        >>> attribute_names([('Good image', 'bad image'), ('a sunny day', 'a rainy day')])
        ('good', 'a sunny day')
    """
    names = [NAMES.get(pair, pair[0]) for pair in prompts]
    return tuple(
        n if names.count(n) == 1 else ' / '.join(pair) for n, pair in zip(names, map(tuple, prompts), strict=True)
    )


def _read(path: str):
    import yaml

    try:
        return yaml.safe_load(Path(path).expanduser().read_text('utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f'prompts cannot be read from {path}: {" ".join(str(error).split())}') from None
