"""Antonym prompt pairs: sets by name, from a YAML file, or your own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .._files import one_line

#: The paper's five antonym pairs, (positive, negative): default of the option `prompts` of `MACLIP`.
#:
#: Example::
#:
#:     from maclip_pyiqa import MACLIP
#:     from maclip_pyiqa.metric import PROMPTS
#:
#:     metric = MACLIP(prompts=[*PROMPTS, ('Natural colours', 'odd colours')])
PROMPTS = (
    ('Good image', 'bad image'),
    ('Sharp image', 'blurry image'),
    ('sharp edges', 'blurry edges'),
    ('High resolution image', 'low resolution image'),
    ('Noise-free image', 'noisy image'),
)
CUES = ('q', 'q_sim', 'q_mag', 'w_sim')  # names that no attribute may have: maps are of cues and of attributes
# the pairs of torchmetrics' CLIP-IQA, by its names: CLIP-IQA's own for quality and abstract perception
TORCHMETRICS = {
    'quality': ('Good photo.', 'Bad photo.'),
    'brightness': ('Bright photo.', 'Dark photo.'),
    'noisiness': ('Clean photo.', 'Noisy photo.'),
    'colorfulness': ('Colorful photo.', 'Dull photo.'),
    'sharpness': ('Sharp photo.', 'Blurry photo.'),
    'contrast': ('High contrast photo.', 'Low contrast photo.'),
    'complexity': ('Complex photo.', 'Simple photo.'),
    'natural': ('Natural photo.', 'Synthetic photo.'),
    'happy': ('Happy photo.', 'Sad photo.'),
    'scary': ('Scary photo.', 'Peaceful photo.'),
    'new': ('New photo.', 'Old photo.'),
    'warm': ('Warm photo.', 'Cold photo.'),
    'real': ('Real photo.', 'Abstract photo.'),
    'beautiful': ('Beautiful photo.', 'Ugly photo.'),
    'lonely': ('Lonely photo.', 'Sociable photo.'),
    'relaxing': ('Relaxing photo.', 'Stressful photo.'),
}
NAMES = {  # of the attributes
    **dict(zip(PROMPTS, ('good', 'sharp', 'edges', 'resolution', 'noise-free'), strict=True)),
    **{pair: name for name, pair in TORCHMETRICS.items()},
}

SETS = {
    'maclip': PROMPTS,
    'clipiqa': (TORCHMETRICS['quality'],),
    **{name: (pair,) for pair, name in NAMES.items()},
}
SPELLINGS = {'colorfullness': 'colorfulness'}  # torchmetrics' own

EXPECTED = "expected pairs such as [('Good image', 'bad image')]"


def read_prompts(prompts: Sequence[Sequence[str]] | str | os.PathLike) -> tuple[tuple[str, str], ...]:
    """Prompt pairs from pairs, the name of a set, or a file.

    Args:
        prompts: pairs, (positive, negative); or the name of a set: 'maclip', 'clipiqa', or one attribute such as
            'sharp' or torchmetrics' 'brightness'; or several names, separated by commas or in a tuple; or the path of a
            .yml or .yaml file with a list of [positive, negative]

    Returns:
        the pairs, positive first

    Raises:
        TypeError: neither pairs, a name nor a path
        ValueError: an unknown name, a file that cannot be read or parsed, no pairs, or malformed ones

    Example:
        >>> read_prompts('quality,warm')
        (('Good photo.', 'Bad photo.'), ('Warm photo.', 'Cold photo.'))
    """
    where = ''
    if isinstance(prompts, (str, os.PathLike)):
        text = os.fspath(prompts)
        if not text.lower().endswith(('.yml', '.yaml')):
            names = [SPELLINGS.get(name.strip(), name.strip()) for name in text.split(',')]
            if unknown := [name for name in names if name not in SETS]:
                raise ValueError(
                    f'prompts={prompts!r}: {unknown[0]!r} is no set of prompts; {EXPECTED}, names of sets, separated '
                    f'by commas ({", ".join(SETS)}), or a file that ends in .yml or .yaml'
                )
            return tuple(dict.fromkeys(pair for name in names for pair in SETS[name]))
        import yaml

        try:
            prompts, where = yaml.safe_load(Path(text).expanduser().read_text('utf-8')), f' (in {text})'
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f'prompts cannot be read from {text}: {one_line(error)}') from None
    if isinstance(prompts, (str, bytes)) or not isinstance(prompts, Sequence):
        raise TypeError(f'prompts are {prompts!r}{where}; {EXPECTED}')
    if not prompts:
        raise ValueError(f'prompts are empty{where}; {EXPECTED}, at least one pair')
    if not where and any(isinstance(pair, str) for pair in prompts):  # names, as torchmetrics takes them
        prompts = [p for pair in prompts for p in (read_prompts(pair) if isinstance(pair, str) else [pair])]
    for pair in prompts:
        is_pair = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
        if not is_pair or not all(isinstance(prompt, str) and prompt.strip() for prompt in pair):
            raise ValueError(f'{pair!r} is no pair of prompts{where}; {EXPECTED}, two texts, neither empty')
    return tuple((positive, negative) for positive, negative in prompts)


def attribute_names(prompts: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """A name for each pair, no two alike: the paper's short one, or else the positive prompt; where that repeats or is
    the name of a cue, both prompts; where that repeats too, with a number.

    Example:
        >>> attribute_names([('Good image', 'bad image'), ('a sunny day', 'a rainy day')])
        ('good', 'a sunny day')
        >>> attribute_names([('a', 'b'), ('a', 'c'), ('a / b', 'z')])
        ('a / b', 'a / c', 'a / b / z')
    """
    pairs = [(positive, negative) for positive, negative in prompts]
    short = [NAMES.get(pair, pair[0]) for pair in pairs]
    both = [' / '.join(pair) for pair in pairs]
    names = [
        long if short.count(name) > 1 or name in both or name in CUES else name
        for name, long in zip(short, both, strict=True)
    ]
    for i, name in enumerate(names):
        number = 2
        while names[i] in names[:i]:
            names[i], number = f'{name} ({number})', number + 1
    return tuple(names)


def summary_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Keys of `Analysis.summary()` for attributes of these names; the prefix keeps them apart from other columns."""
    return ('score', 'q_sim', 'q_mag', 'w_sim', *(f'attribute_{name}' for name in names))
