"""What is loaded when it is first used: names of a package (PEP 562), and optional libraries."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec


class NotInstalledError(ModuleNotFoundError):
    """An optional library is not installed; the message says what needs it and how to install it."""


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


def need(what: str, *packages: str, extra: str = '') -> None:
    """Check for packages that `what` needs, without importing them.

    Args:
        what: needs them, in words
        packages: names of packages, as they are imported
        extra: name of the extra of this package that installs them; '': they are installed by their own names

    Raises:
        NotInstalledError: one is not installed
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        install = f"'maclip_pyiqa[{extra}]'" if extra else ' '.join(missing)
        verb = 'is' if len(missing) == 1 else 'are'
        message = f'{what} needs {", ".join(missing)}, which {verb} not installed: pip install {install}'
        raise NotInstalledError(message, name=missing[0])
