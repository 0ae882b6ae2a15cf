"""Finding image files. In folders only regular files count."""

import io
import os
import socket

import pytest
from PIL import Image

from maclip_pyiqa.scoring.find import check_file, find_images


@pytest.fixture
def folder(tmp_path):
    """a.png, b.jpg and sub/c.png, and files that are not found."""
    root = tmp_path / 'photos'
    (root / 'sub').mkdir(parents=True)
    (root / '.cache').mkdir()
    for name in ('a.png', 'b.jpg', 'sub/c.png', '.hidden.png', '.cache/d.png'):
        Image.new('RGB', (2, 2)).save(root / name)
    (root / 'raw.nef').write_bytes((root / 'a.png').read_bytes())
    (root / 'notes.txt').write_text('not an image')
    (root / 'README').write_text('not an image')
    return root


@pytest.fixture
def names(folder):
    return [str(folder / name) for name in ('a.png', 'b.jpg', 'sub/c.png')]


def test_folders_and_files(folder, names):
    a, b, c = names
    assert find_images([str(folder)]) == find_images([folder]) == [a, b, c]
    assert find_images([c, str(folder), a]) == [c, a, b]  # each once
    # what is named itself is not judged
    assert find_images([str(folder / 'notes.txt'), '/none.png']) == [str(folder / 'notes.txt'), '/none.png']


def test_patterns(folder, names):
    a, b, c = names
    assert find_images([str(folder / '*')]) == [a, b, c]
    assert find_images([str(folder / '**' / '*.png')]) == [a, c]
    (folder / 'x[1].png').write_bytes((folder / 'a.png').read_bytes())  # looks like a pattern
    assert find_images([str(folder / 'x[1].png')]) == [str(folder / 'x[1].png')]


def test_a_listing(folder, names):
    a, _, c = names
    listing = io.BytesIO(os.fsencode(f'{c}\r\n\n{a}\n{folder}/no\udcff.png\n{folder}/sub'))
    assert find_images(['-'], listing) == [c, a, f'{folder}/no\udcff.png']
    with pytest.raises(ValueError, match='listing'):
        find_images(['-'])


def test_files_without_a_suffix_are_detected_from_their_content(folder, names):
    (folder / 'hash0123').write_bytes((folder / 'a.png').read_bytes())
    assert find_images([folder]) == [*names[:2], str(folder / 'hash0123'), names[2]]


def test_only_regular_files_count_in_folders_and_patterns(folder, names, monkeypatch):
    os.mkfifo(folder / 'pipe.png')
    os.mkfifo(folder / 'pipe')  # without a suffix: reading its content would block for ever
    (folder / 'dangling.png').symlink_to(folder / 'none.png')
    (folder / 'folder.png').mkdir()
    monkeypatch.chdir(folder)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind('socket.png')
        assert find_images([str(folder)]) == find_images([str(folder / '*')]) == names
    assert find_images([str(folder / 'pipe.png')]) == [str(folder / 'pipe.png')]  # reading it reports the error
    (folder / 'link.png').symlink_to(folder / 'a.png')
    assert str(folder / 'link.png') in find_images([str(folder)])


def test_folders_that_cannot_be_searched_are_passed_on(folder, names, monkeypatch):
    scandir = os.scandir

    def closed(path):
        if str(path).endswith('sub'):
            raise PermissionError(13, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', closed)
    assert find_images([str(folder)]) == [*names[:2], str(folder / 'sub')]
    with pytest.raises(PermissionError):
        check_file(folder / 'sub')


def test_nothing_found(tmp_path):
    with pytest.raises(FileNotFoundError, match='no images'):
        find_images([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"pattern '.*\*\.png'"):
        find_images([str(tmp_path / '*.png')])
