"""Lists of paths and names as arguments. Text is a sequence too, of letters, and is never taken for one."""

from __future__ import annotations

import os
from collections.abc import Iterable


def as_paths(paths: str | bytes | os.PathLike | Iterable[str | bytes | os.PathLike]) -> list[str]:
    """Paths as text; a single one is a list of one."""
    if isinstance(paths, (str, bytes, os.PathLike)):
        paths = [paths]
    return [os.fsdecode(path) for path in paths]


def as_names(what: str, names: Iterable[str]) -> list[str]:
    """Names as a list; TypeError for a single text, or for something else than text among them, that names the argument
    `what`."""
    if isinstance(names, (str, bytes)):
        raise TypeError(f'{what}={names!r} is text; expected a list of names, such as [{names!r}]')
    found = list(names)
    wrong = [name for name in found if not isinstance(name, str)]
    if wrong:
        raise TypeError(f'{what} holds {wrong[0]!r}; expected names')
    return found
