"""The studies in benchmarks/ are scripts, not a package: load one from its file."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture(scope='module')
def script(request) -> ModuleType:
    """benchmarks/NAME.py for tests/benchmarks/test_NAME.py."""
    name = request.path.stem.removeprefix('test_')
    spec = spec_from_file_location(f'benchmarks_{name}', SCRIPTS / f'{name}.py')
    module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module
