"""Finding image files. In folders only regular files count."""

import codecs
import io
import os
import socket

import pytest
from matplotlib.figure import Figure
from PIL import Image

from maclip_pyiqa.report.figures import save
from maclip_pyiqa.scoring import pillow
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


def test_only_regular_files_count_in_folders_and_patterns(folder, names, tmp_path, monkeypatch):
    os.mkfifo(folder / 'pipe.png')
    os.mkfifo(folder / 'pipe')  # without a suffix: reading its content would block for ever
    (folder / 'dangling.png').symlink_to(folder / 'none.png')
    (folder / 'folder.png').mkdir()
    monkeypatch.chdir(folder)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind('socket.png')
        assert find_images([str(folder)]) == find_images([str(folder / '*')]) == names
    assert find_images([str(folder / 'pipe.png')]) == [str(folder / 'pipe.png')]  # reading it reports the error
    (tmp_path / 'other.png').write_bytes((folder / 'a.png').read_bytes())
    (folder / 'link.png').symlink_to(tmp_path / 'other.png')
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


# --- text, links, and what is left out --------------------------------------------------------------------------------


def test_one_path_is_one_path(folder, names, monkeypatch):
    monkeypatch.chdir(folder)
    for path in (str(folder), folder, os.fsencode(folder)):
        assert find_images(path) == names
    assert find_images('xyz') == ['xyz']
    assert find_images('a.png') == ['a.png']
    assert find_images('-', io.BytesIO(b'a.png')) == ['a.png']
    with pytest.raises(TypeError):
        find_images([1])


@pytest.mark.parametrize('encode', [codecs.BOM_UTF8.__add__, lambda data: data.decode().encode('utf-16')])
def test_listings_with_a_byte_order_mark(names, encode):
    a, b, _ = names
    assert find_images(['-'], io.BytesIO(encode(f'{a}\r\n{b}\r\n'.encode()))) == [a, b]


def test_listings_separated_by_nul(folder, names):
    a, _, c = names
    odd = str(folder / 'two\nlines.png')
    Image.new('RGB', (2, 2)).save(odd)
    assert find_images(['-'], io.BytesIO(os.fsencode(f'{odd}\0{a}\0{c}'))) == [odd, a, c]
    assert find_images(['-'], io.BytesIO(os.fsencode(odd)), null=True) == [odd]


def test_linked_folders_are_followed_and_their_circles_end(folder, names, tmp_path):
    other = tmp_path / 'other'
    other.mkdir()
    Image.new('RGB', (2, 2)).save(other / 'd.png')
    (folder / 'linked').symlink_to(other)
    (folder / 'again').symlink_to(other)  # the same files
    (folder / 'sub' / 'up').symlink_to(folder)
    (other / 'back').symlink_to(folder)
    (folder / 'itself').symlink_to('itself')
    a, b, c = names
    assert find_images([folder]) == [a, b, str(folder / 'again' / 'd.png'), c]
    assert find_images([str(folder / '**' / '*.png')]) == [a, str(folder / 'again' / 'd.png'), c]
    (folder / 'again').unlink()
    assert str(folder / 'linked' / 'd.png') in find_images([folder])


@pytest.mark.parametrize(
    ('pattern', 'found'),
    [
        ('**/*.png', ['a.png', 'sub/c.png', 'sub/deep/e.png']),
        ('**', ['a.png', 'b.jpg', 'sub/c.png', 'sub/deep/e.png']),
        ('**/', ['a.png', 'b.jpg', 'sub/c.png', 'sub/deep/e.png']),
        ('**/deep', ['sub/deep/e.png']),
        ('s*/**/*.png', ['sub/c.png', 'sub/deep/e.png']),
        ('**/deep/**/e.*', ['sub/deep/e.png']),
        ('**/[ab].*', ['a.png', 'b.jpg']),
        ('./**/c.png', ['./sub/c.png']),
        ('s?b', ['sub/c.png', 'sub/deep/e.png']),
        ('*/*', ['sub/c.png', 'sub/deep/e.png']),
    ],
)
def test_patterns_find_what_a_shell_would(folder, monkeypatch, pattern, found):
    (folder / 'sub' / 'deep').mkdir()
    Image.new('RGB', (2, 2)).save(folder / 'sub' / 'deep' / 'e.png')
    monkeypatch.chdir(folder)
    assert find_images([pattern]) == found
    whole = [str(folder / name) for name in found]
    assert find_images([f'{folder}/{pattern}']) == ([f'{folder}/{n}' for n in found] if pattern[0] == '.' else whole)


def test_patterns_that_match_nothing_that_is_an_image(folder):
    with pytest.raises(FileNotFoundError, match='no file matches the pattern'):
        find_images([f'{folder}/**/*.webp'])
    with pytest.raises(FileNotFoundError, match='no images found'):
        find_images([f'{folder}/**/*.txt'])


def test_one_file_is_found_once(folder, names, tmp_path, monkeypatch):
    said = []
    monkeypatch.chdir(folder)
    (folder / 'z.png').symlink_to('a.png')
    (tmp_path / 'door').symlink_to(folder)
    ways = ['a.png', './a.png', 'sub/../a.png', '*.png', '**/*.png', str(folder / 'a.png'), f'{tmp_path}/door/a.png']
    assert find_images([*ways, '.', tmp_path / 'door'], warn=said.append) == ['a.png', 'sub/c.png', './b.jpg']
    assert 'other paths of files that are there already: ' in said[-1]
    said.clear()
    os.link('b.jpg', 'hard.jpg')  # another file to whoever lists the folder
    assert find_images(['b.jpg', 'b.jpg', 'hard.jpg'], warn=said.append) == ['b.jpg', 'hard.jpg'] and not said


def test_images_that_are_not_read_are_counted(folder, names, monkeypatch, caplog):
    monkeypatch.setattr(pillow, 'of_plugins', set)
    for name in ('x.HEIC', 'y.heic', 'sub/z.jxl', 'r.dng', 'r.CR3', 'm.exr', 'p.dds', 'v.svg', 't.pdf', '.h.heic'):
        (folder / name).write_bytes(b'?')
    assert find_images([folder, f'{folder}/*', f'{folder}/**/*']) == names
    counts = '1 .cr3, 1 .dds, 1 .dng, 1 .exr, 2 .heic, 1 .jxl, 1 .nef, 1 .svg'
    assert f'left out, image formats that are not read: {counts}; pip install' in caplog.text
    assert '[formats]' in caplog.text
    caplog.clear()
    assert find_images([f'{folder}/**/*.png'], warn=caplog.handler.records.append) == [names[0], names[2]]
    assert not caplog.records


def test_formats_of_plugins_are_found(folder):
    heif = pytest.importorskip('pillow_heif')
    pytest.importorskip('pillow_jxl')
    heif.from_pillow(Image.new('RGB', (64, 64))).save(folder / 'x.HEIC')
    (folder / 'y.jxl').write_bytes(b'?')
    assert {'x.HEIC', 'y.jxl'} <= {os.path.basename(path) for path in find_images([folder])}


def test_nothing_below_proc_sys_and_dev_is_found_by_walking(folder, names):
    (folder / 'devices').symlink_to('/dev')
    (folder / 'processes').symlink_to('/proc')
    (folder / 'kernel.png').symlink_to('/proc/version')
    assert find_images([folder]) == find_images([f'{folder}/*']) == names
    assert find_images([f'{folder}/**/*.*g']) == names
    for system in ('/proc', '/sys', '/dev', '/proc/self', '/proc/./self/..', str(folder / 'devices')):
        with pytest.raises(FileNotFoundError, match='no images found'):
            find_images([system])
    assert find_images([f'/proc/self/cwd/{os.path.relpath(names[0])}'])  # named, and a way to another place


def test_figures_that_this_package_drew_are_not_found(folder, names):
    figure = Figure(figsize=(1, 1))
    for name in ('map.png', 'sub/map.PNG'):
        save(figure, folder / name)
    figure.savefig(folder / 'sub' / 'theirs.png')
    assert find_images([folder]) == [*names, str(folder / 'sub' / 'theirs.png')]
    assert find_images([str(folder / 'map.png')]) == [str(folder / 'map.png')]  # named
