"""Names of a package that are loaded when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

__all__ = ['lazy']


def lazy(package: str, modules: dict[str, str]) -> Callable[[str], object]:
    """A `__getattr__` for a package: names, each with the module of the package that defines it.

    A name must not be that of a module of the package too: importing the module would shadow it.
    """

    def load(name: str) -> object:
        if name not in modules:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        value = getattr(import_module(f'.{modules[name]}', package), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
