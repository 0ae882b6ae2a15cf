"""The studies in benchmarks/ are scripts, not a package: load one from its file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture(scope='session')
def load_script() -> Callable[[str], ModuleType]:
    """NAME -> benchmarks/NAME.py as a module."""

    def load(name: str) -> ModuleType:
        spec = spec_from_file_location(f'benchmarks_{name}', SCRIPTS / f'{name}.py')
        module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look their module up by name
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope='module')
def script(request, load_script) -> ModuleType:
    """benchmarks/NAME.py for tests/benchmarks/test_NAME.py."""
    return load_script(request.path.stem.removeprefix('test_'))
