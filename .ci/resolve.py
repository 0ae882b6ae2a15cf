"""Resolves the package beside what people run, row by row of matrix.yml, and compares with what is known.

  python .ci/resolve.py             exit code 1 where a row that should resolve does not, or a known conflict is gone
  python .ci/resolve.py --table     print matrix.yml as the table in docs/installation.md

Needs uv and PyYAML. Nothing is installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MATRIX = yaml.safe_load((ROOT / '.ci' / 'matrix.yml').read_text('utf-8'))


def compile_(requirements: list[str], python: str, resolution: str) -> subprocess.CompletedProcess:
    """`uv pip compile` of requirements."""
    command = ['uv', 'pip', 'compile', '-', '--quiet', '--no-header', '--no-annotate', '--no-python-downloads']
    command += ['--python-version', python, '--resolution', resolution, '--python', sys.executable]
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(command, input='\n'.join(requirements), capture_output=True, text=True, cwd=folder)


@cache
def newest(package: str, python: str) -> str:
    """The newest version of a package for a Python, as a requirement."""
    name = re.escape(package.split('[')[0])
    found = re.search(rf'^{name}(\[.*\])?==(\S+)', compile_([package], python, 'highest').stdout, re.MULTILINE)
    if found is None:
        raise SystemExit(f'{package}: no version for Python {python}')
    return f'{package}=={found[2]}'


def build(folder: str) -> Path:
    """A wheel of the package: with the checkout in its place, uv would ask setuptools again each time."""
    subprocess.run(['uv', 'build', '--wheel', '--quiet', '--out-dir', folder, str(ROOT)], check=True)
    (wheel,) = Path(folder).glob('*.whl')
    return wheel


def name_others(wheel: Path) -> None:
    """Names the extras of the row that has all others."""
    (built,) = distributions(path=[str(wheel)])
    (row,) = (row for row in MATRIX['rows'] if row.get('extras') == 'others')
    named = {extra for other in MATRIX['rows'] if other is not row for extra in other.get('extras', [])}
    row['extras'] = sorted({*built.metadata.get_all('Provides-Extra')} - named)


def check(wheel: Path, row: dict, python: str, resolution: str) -> tuple[str, str]:
    """-> 'ok', 'conflict' (a known one), 'FAILED' or 'GONE' (a known conflict that is none any more), and why."""
    extras = f'[{",".join(row["extras"])}]' if 'extras' in row else ''
    beside = [newest(row['newest'], python)] if 'newest' in row else row.get('beside', [])
    done = compile_([f'maclip_pyiqa{extras} @ {wheel.as_uri()}', *beside], python, resolution)
    error = ' '.join(done.stderr.split())
    if 'conflict' in row:
        return ('GONE', 'resolves now') if done.returncode == 0 else ('conflict', row['conflict'])
    return ('FAILED', error) if done.returncode else ('ok', ' '.join(beside))


def table() -> str:
    """matrix.yml for people."""
    lines = ['| beside | versions | Python |', '| --- | --- | --- |']
    pythons = f'{MATRIX["pythons"][0]} to {MATRIX["pythons"][-1]}'
    for row in MATRIX['rows']:
        versions = f'newest {row["newest"]}' if 'newest' in row else ', '.join(row.get('beside', [])) or 'its own'
        lines.append(f'| {row["name"]} | {versions} | {"no: " + row["conflict"] if "conflict" in row else pythons} |')
    return '\n'.join(lines)


def main() -> int:
    if sys.argv[1:] == ['--table']:
        print(table())
        return 0
    cases = [(row, p, r) for row in MATRIX['rows'] for p in MATRIX['pythons'] for r in MATRIX['resolutions']]
    wrong = 0
    with ThreadPoolExecutor(2) as pool, tempfile.TemporaryDirectory() as folder:
        wheel = build(folder)
        name_others(wheel)
        results = pool.map(lambda case: check(wheel, *case), cases)
        for (row, python, resolution), (state, why) in zip(cases, results, strict=True):
            wrong += state in ('FAILED', 'GONE')
            print(f'{state:9}{python}  {resolution:15}{row["name"]:22}{why}', flush=True)
    print(f'{len(cases)} resolutions, {wrong} not as expected')
    return int(wrong > 0)


if __name__ == '__main__':
    sys.exit(main())
