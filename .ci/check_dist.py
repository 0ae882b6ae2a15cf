"""Checks the sdist and the wheel of a release, and renders README as the package index does.

  python .ci/check_dist.py SOURCE DIST     needs Python 3.11 and readme_renderer[md]; writes DIST/README.html

What they should hold is taken from the files of SOURCE and from its pyproject.toml.
"""

from __future__ import annotations

import runpy
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email import message_from_string
from html.parser import HTMLParser
from pathlib import Path

import tomllib
from readme_renderer import markdown


def same(what: str, found: object, want: object) -> None:
    if isinstance(found, set) and isinstance(want, set) and found != want:
        raise SystemExit(f'{what}: too many {sorted(found - want)}, missing {sorted(want - found)}')
    if found != want:
        raise SystemExit(f'{what}: {found!r}, expected {want!r}')


class Addresses(HTMLParser):
    """Addresses of links and pictures, and the number of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        addresses = [value or '' for name, value in attrs if name in ('href', 'src')]
        self.found += [address for address in addresses if not address.startswith('#user-content-')]  # of headings
        self.pictures += tag == 'img'


def check_readme(text: str) -> str:
    """-> HTML of the page's body."""
    html = markdown.render(text)
    if html is None:
        raise SystemExit('README cannot be rendered')
    page = Addresses()
    page.feed(html)
    same('pictures on the page', page.pictures, text.count('!['))
    same('links and pictures that are not https://', {a for a in page.found if not a.startswith('https://')}, set())
    print(f'ok: README: {page.pictures} pictures, {len(page.found)} addresses, all https')
    return html


def check(source: Path, dist: Path) -> None:
    project = tomllib.loads((source / 'pyproject.toml').read_text('utf-8'))['project']
    name = project['name']
    version = runpy.run_path(str(source / name / '_version.py'))['__version__']
    stem = f'{name}-{version}'
    same('files', {path.name for path in dist.glob('[!.]*')}, {f'{stem}.tar.gz', f'{stem}-py3-none-any.whl'})

    package = {path.relative_to(source).as_posix() for path in (source / name).rglob('*') if path.is_file()}
    with tarfile.open(dist / f'{stem}.tar.gz') as archive:
        members = {member.name.removeprefix(f'{stem}/') for member in archive if member.isfile()}
    inside = {member for member in members if not member.startswith(f'{name}.egg-info/')}
    beside = {'LICENSE', 'MANIFEST.in', 'PKG-INFO', 'README.md', 'pyproject.toml', 'setup.cfg'}
    same('files of the sdist', inside, package | beside)
    print(f'ok: sdist of {len(inside)} files')

    with zipfile.ZipFile(dist / f'{stem}-py3-none-any.whl') as archive:
        members, info = set(archive.namelist()), f'{stem}.dist-info'
        same('files of the wheel', {member for member in members if not member.startswith(info)}, package)
        same('its licence', archive.read(f'{info}/licenses/LICENSE'), (source / 'LICENSE').read_bytes())
        metadata = message_from_string(archive.read(f'{info}/METADATA').decode())
        entries = ConfigParser(delimiters='=')
        entries.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
        entries.read_string(archive.read(f'{info}/entry_points.txt').decode())
    print(f'ok: wheel of {len(members)} files')

    for field, want in {
        'Name': name,
        'Version': version,
        'Summary': project['description'],
        'License-Expression': project['license'],
        'Requires-Python': project['requires-python'],
        'Description-Content-Type': 'text/markdown',
    }.items():
        same(field, metadata[field], want)
    same('Classifier', metadata.get_all('Classifier'), project['classifiers'])
    urls = dict(line.split(', ') for line in metadata.get_all('Project-URL'))
    same('Project-URL', urls, project['urls'])
    same('addresses that are not https://', {url for url in urls.values() if not url.startswith('https://')}, set())
    same('Provides-Extra', set(metadata.get_all('Provides-Extra')), set(project['optional-dependencies']))
    needs = metadata.get_all('Requires-Dist')
    count = len(project['dependencies']) + sum(map(len, project['optional-dependencies'].values()))
    same('number of requirements', len(needs), count)
    same('requirements that an index refuses', {line for line in needs if '@' in line}, set())
    groups = {'console_scripts': project['scripts'], **project['entry-points']}
    same('entry points', {group: dict(entries[group]) for group in entries.sections()}, groups)
    print(f'ok: metadata of {name} {version}: {len(needs)} requirements, {len(groups)} groups of entry points')

    text = metadata.get_payload()
    same('description', text.strip(), (source / 'README.md').read_text('utf-8').strip())
    page = f'<!doctype html><meta charset="utf-8"><title>{stem}</title>{check_readme(text)}'
    (dist / 'README.html').write_text(page, 'utf-8')


if __name__ == '__main__':
    check(Path(sys.argv[1]), Path(sys.argv[2]))
