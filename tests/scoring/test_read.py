"""Reading of image files of all kinds, made with Pillow."""

import io
import os
import socket
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin

from maclip_pyiqa.scoring.read import read_image, read_pixels

RED, WHITE = [1.0, 0.0, 0.0], [1.0, 1.0, 1.0]


def pixel(path, y, x):
    return read_image(path)[:, y, x].tolist()


def test_reading_is_exact(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    image = read_image(tmp_path / 'a.png')
    assert image.shape == (3, 5, 7) and image.dtype == torch.float32 and image.is_contiguous()
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), pixels.astype(np.float32) / 255)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    image = Image.new('RGB', (40, 20))
    image.paste((255, 0, 0), (0, 0, 8, 8))  # the first corner of the data
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / 'a.png', exif=exif)
    got = read_image(tmp_path / 'a.png')
    # where EXIF's table says that row 0 and column 0 of the data are
    row, column = {1: 'TL', 2: 'TR', 3: 'BR', 4: 'BL', 5: 'LT', 6: 'RT', 7: 'RB', 8: 'LB'}[orientation]
    assert got.shape == ((3, 20, 40) if orientation < 5 else (3, 40, 20))
    y = 0 if 'T' in row + column else -1
    x = 0 if 'L' in row + column else -1
    assert got[:, y, x].tolist() == RED
    assert got[0].sum() == 64


@pytest.mark.parametrize('name', ['a.png', 'a.tif', 'a.pgm'])
def test_16_bit_grey_keeps_its_bits(tmp_path, name):
    values = np.array([[0, 1, 256, 65535], [40000, 40001, 12345, 2]], np.uint16)
    if name == 'a.pgm':
        (tmp_path / name).write_bytes(b'P5 4 2 65535\n' + values.astype('>u2').tobytes())
    else:
        Image.fromarray(values).save(tmp_path / name)
    want = np.broadcast_to(values / 65535, (3, 2, 4))
    np.testing.assert_allclose(read_image(tmp_path / name), want, atol=1e-7)


def test_float_images(tmp_path):
    Image.fromarray(np.array([[0, 0.25, 1]], np.float32)).save(tmp_path / 'a.tif')
    assert read_image(tmp_path / 'a.tif')[1].tolist() == [[0, 0.25, 1]]
    for i, wrong in enumerate((255, -0.5, float('nan'))):
        Image.fromarray(np.array([[0, wrong]], np.float32)).save(tmp_path / f'{i}.tif')
        with pytest.raises(ValueError, match=r'expected values in \[0, 1\]'):
            read_image(tmp_path / f'{i}.tif')


def test_transparency_is_composited_on_white(tmp_path):
    image = Image.new('RGBA', (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 51))  # a fifth black
    image.save(tmp_path / 'a.png')
    assert [pixel(tmp_path / 'a.png', 0, x) for x in (0, 1)] == [RED, WHITE]
    assert pixel(tmp_path / 'a.png', 0, 2) == pytest.approx([0.8] * 3, abs=0.003)
    Image.new('LA', (1, 1), (0, 51)).save(tmp_path / 'grey.png')
    assert pixel(tmp_path / 'grey.png', 0, 0) == pytest.approx([0.8] * 3, abs=0.003)
    Image.new('RGB', (1, 1), (1, 2, 3)).save(tmp_path / 'key.png', transparency=(1, 2, 3))
    assert pixel(tmp_path / 'key.png', 0, 0) == WHITE


@pytest.mark.parametrize('name', ['a.png', 'a.gif'])
def test_palette_with_and_without_transparency(tmp_path, name):
    image = Image.new('P', (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / name)
    assert [pixel(tmp_path / name, 0, x) for x in (0, 1)] == [RED, [0.0, 0.0, 1.0]]
    image.save(tmp_path / name, transparency=1)
    assert [pixel(tmp_path / name, 0, x) for x in (0, 1)] == [RED, WHITE]


def test_cmyk_grey_and_bilevel(tmp_path):
    Image.new('CMYK', (8, 8), (0, 255, 255, 0)).save(tmp_path / 'a.jpg', quality=100)
    assert pixel(tmp_path / 'a.jpg', 4, 4) == pytest.approx(RED, abs=0.02)
    Image.new('L', (2, 2), 51).save(tmp_path / 'l.png')
    assert pixel(tmp_path / 'l.png', 0, 0) == pytest.approx([0.2] * 3)
    Image.new('1', (2, 2), 1).save(tmp_path / '1.png')
    assert pixel(tmp_path / '1.png', 0, 0) == WHITE


@pytest.mark.parametrize('name', ['a.gif', 'a.png', 'a.webp', 'a.tif'])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue', 'lime')]
    options = {} if name == 'a.tif' else {'duration': 50}
    options |= {'lossless': True} if name == 'a.webp' else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(tmp_path / name), 'n_frames', 1) == 3
    assert pixel(tmp_path / name, 0, 0) == pytest.approx(RED, abs=0.01)


@pytest.mark.parametrize('format', ['png', 'jpg', 'bmp', 'gif', 'tif', 'webp'])
def test_truncated_files_are_errors_and_never_half_an_image(tmp_path, photos, format, monkeypatch):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)  # as pyiqa's data sets do
    path = tmp_path / f'a.{format}'
    Image.fromarray((photos[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(path)
    data = path.read_bytes()
    for size in (len(data) // 2, 60, 10, 0):
        path.write_bytes(data[:size])
        with pytest.raises(OSError):
            read_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_what_is_not_a_regular_file_is_an_error_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / 'pipe.png')
    with pytest.raises(OSError, match='a named pipe; expected a regular file'):  # opening it would block for ever
        read_image(tmp_path / 'pipe.png')
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind('socket.png')
        with pytest.raises(OSError, match='a socket'):
            read_image('socket.png')
    with pytest.raises(OSError, match='a device'):
        read_image('/dev/zero')
    with pytest.raises(OSError, match='a folder'):
        read_image(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / 'missing.png')


def test_links_to_files_are_read(tmp_path):
    Image.new('RGB', (2, 2), 'red').save(tmp_path / 'a.png')
    (tmp_path / 'b.png').symlink_to(tmp_path / 'a.png')
    assert pixel(tmp_path / 'b.png', 0, 0) == RED


# --- pixels count, not what surrounds them ----------------------------------------------------------------------------

GREY = np.random.default_rng(0).random((24, 32))  # what the TIFFs show


def tiff(values, bits=0, photometric=1, order='<', kind=1, more=()):
    """A TIFF of one strip, written by hand: Pillow writes few kinds."""
    data = values.tobytes()
    tags = {256: (4, 32), 257: (4, 24), 258: (3, bits or 8 * values.itemsize), 259: (3, 1), 262: (3, photometric)}
    tags |= {273: (4, 0), 277: (3, 1), 278: (4, 24), 279: (4, len(data)), 339: (3, kind), **dict(more)}
    at = 8 + 2 + 12 * len(tags) + 4
    head = (b'II*\0' if order == '<' else b'MM\0*') + struct.pack(order + 'IH', 8, len(tags))
    for tag, (size, value) in sorted(tags.items()):
        field = (
            struct.pack(order + 'HH', value, 0) if size == 3 else struct.pack(order + 'I', at if tag == 273 else value)
        )
        head += struct.pack(order + 'HHI', tag, size, 1) + field
    return head + b'\0' * 4 + data


def packed(bits):
    """GREY in 12 bits or fewer, packed, and what it shows."""
    top = 2**bits - 1
    values = np.round(GREY * top).astype('u2')
    digits = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(digits.astype('u1')), values / top


@pytest.mark.parametrize('photometric', [0, 1])  # 0: white is zero
@pytest.mark.parametrize(
    ('kind', 'order', 'type', 'bits'),
    [
        *[(1, '<', 'u1', bits) for bits in (1, 2, 4, 12)],
        *[(1, order, type, 0) for order in '<>' for type in ('u1', 'u2', 'u4')],
        *[(2, order, type, 0) for order in '<>' for type in ('i1', 'i2', 'i4')],
        *[(3, order, 'f4', 0) for order in '<>'],
    ],
)
def test_tiff_by_its_own_tags(kind, order, type, bits, photometric):
    if bits:
        values, want = packed(bits)
    elif type[0] == 'f':
        values, want = GREY.astype(order + type), GREY
    else:
        top = 65535 if type == 'i4' else np.iinfo(type).max
        values = np.round(GREY * top).astype(order + type)
        want = values / top
    try:
        got = read_image(tiff(values, bits, photometric, order, kind))
    except OSError as error:  # Pillow reads few kinds with white as zero, and few of another byte order
        assert 'Pillow does not read' in str(error) and (photometric == 0 or order == '>')
        return
    np.testing.assert_allclose(got[1], want if photometric else 1 - want, atol=1e-6)
    assert (got[0] == got[2]).all()


def test_the_kinds_of_tiff_that_are_read():
    """So that the test above cannot pass by errors alone."""
    for bits, photometric in ((12, 1), (16, 0), (16, 1)):
        values = packed(12)[0] if bits == 12 else np.round(GREY * 65535).astype('<u2')
        want = GREY if photometric else 1 - GREY
        np.testing.assert_allclose(read_image(tiff(values, bits, photometric))[0], want, atol=2e-4)


def test_signed_tiff_below_zero():
    with pytest.raises(ValueError, match=r'values in \[-5, .*expected values in \[0, 32767\]'):
        read_image(tiff(np.full((24, 32), -5, '<i2'), kind=2))


@pytest.mark.parametrize('tag', [(50706, (4, 0x01040000)), (254, (4, 1))])
def test_camera_raw_files_are_refused_and_not_their_thumbnails_scored(tmp_path, tag):
    data = tiff(np.zeros((24, 32), 'u1'), more=[tag])
    with pytest.raises(OSError, match='camera raw file'):
        read_image(data)
    for name in ('a.CR2', 'a.nef'):
        (tmp_path / name).write_bytes(tiff(np.zeros((24, 32), 'u1')))
        with pytest.raises(OSError, match='camera raw file'):
            read_image(tmp_path / name)


def test_planes_of_16_bits_are_refused():
    """Pillow gives wrong pixels."""
    with pytest.raises(OSError, match='a plane for each channel'):
        read_image(planes(16))
    want = np.round(GREY * 255) / 255
    np.testing.assert_allclose(read_image(planes(8))[1], want, atol=1e-6)


def planes(bits):
    """A TIFF of three planes, red and blue being zero."""
    green = np.round(GREY * (2**bits - 1)).astype(f'<u{bits // 8}').tobytes()
    data = bytes(len(green)) + green + bytes(len(green))
    entries = [(256, 4, 1, 32), (257, 4, 1, 24), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, 0)]
    entries += [(277, 3, 1, 3), (278, 4, 1, 24), (279, 4, 3, 0), (284, 3, 1, 2)]
    extra = 8 + 2 + 12 * len(entries) + 4
    start = extra + 6 + 12 + 12
    places = {258: extra, 273: extra + 6, 279: extra + 18}
    head = b'II*\0' + struct.pack('<IH', 8, len(entries))
    for tag, kind, count, value in entries:
        head += struct.pack('<HHII', tag, kind, count, places.get(tag, value))
    values = struct.pack('<HHH', *[bits] * 3) + struct.pack('<III', *(start + i * len(green) for i in range(3)))
    return head + b'\0' * 4 + values + struct.pack('<III', *[len(green)] * 3) + data


def text_chunks(size):
    yield 'iTXt compressed', b'iTXt', b'workflow\0\1\0\0\0' + zlib.compress(b'node ' * size)
    yield 'iTXt', b'iTXt', b'workflow\0\0\0\0\0' + b'node ' * size
    yield 'zTXt', b'zTXt', b'workflow\0\0' + zlib.compress(b'node ' * size)
    yield 'tEXt', b'tEXt', b'workflow\0' + b'node ' * size
    yield 'profile', b'iCCP', b'icc\0\0' + zlib.compress(b'\0' * 5 * size)
    yield 'many', b'zTXt', b'k\0\0' + zlib.compress(b'node ' * 190_000)


def with_chunk(png, kind, body, place=33, crc=None, times=1):
    """A PNG with a further chunk behind its header, or elsewhere."""
    crc = zlib.crc32(kind + body) if crc is None else crc
    chunk = struct.pack('>I', len(body)) + kind + body + struct.pack('>I', crc)
    return png[:place] + chunk * times + png[place:]


@pytest.mark.parametrize('chunk', [*text_chunks(300_000)], ids=lambda chunk: chunk[0])
@pytest.mark.parametrize('behind', [False, True], ids=['before the pixels', 'behind them'])
def test_png_with_text_of_any_size(photos, tmp_path, chunk, behind):
    name, kind, body = chunk
    pixels = (photos[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / 'a.png', exif=exif)
    png = (tmp_path / 'a.png').read_bytes()
    if kind == b'iCCP' and behind:
        pytest.skip('a profile stands before the pixels')
    times = 100 if name == 'many' else 1
    data = with_chunk(png, kind, body, len(png) - 12 if behind else 33, times=times)
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    np.testing.assert_array_equal(read_pixels(data), np.rot90(pixels, -1))
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
    (tmp_path / 'cut.png').write_bytes(data[: len(png) // 2 + len(body) * (not behind)])
    with pytest.raises(OSError):
        read_pixels(tmp_path / 'cut.png')


def test_png_whose_orientation_stands_in_text(tmp_path):
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    Image.new('RGB', (3, 2)).save(tmp_path / 'a.png')
    png = with_chunk((tmp_path / 'a.png').read_bytes(), b'iTXt', xmp)
    for data in (png, with_chunk(png, b'zTXt', b'w\0\0' + zlib.compress(b' ' * 1_200_000))):
        assert read_image(data).shape == (3, 3, 2)


def test_broken_text_and_broken_exif_are_no_broken_image(tmp_path):
    Image.new('RGB', (3, 2), 'red').save(tmp_path / 'a.png')
    png = (tmp_path / 'a.png').read_bytes()
    gamma = [with_chunk(png, b'gAMA', b'\0'), with_chunk(png, b'gAMA', b'\0\0\0\1', crc=1)]
    exif = [with_chunk(png, b'eXIf', b'MM\0*' + b'\xff' * 9), with_chunk(png, b'eXIf', b'MM\0*', crc=1)]
    for data in (with_chunk(png, b'tEXt', b'a\0b', crc=1), *gamma, *exif):
        assert read_image(data)[:, 0, 0].tolist() == RED
    Image.new('RGB', (8, 8), 'red').save(tmp_path / 'a.jpg', exif=b'Exif\0\0II*\0\xff\xff\xff\xff')
    assert read_image(tmp_path / 'a.jpg').shape == (3, 8, 8)


# --- one result from a file, bytes, an open file and a PIL image ------------------------------------------------------


def kinds_of_images(folder):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 65536, (9, 12), dtype=np.uint16)
    rgb = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    rgba = Image.fromarray(np.dstack([rgb, rng.integers(0, 256, (9, 12), dtype=np.uint8)]))
    palette = Image.fromarray(rgb).quantize(8)
    exif = Image.Exif()
    exif[0x0112] = 8
    images = {
        '16.png': (Image.fromarray(grey), {}),
        '16.tif': (Image.fromarray(grey), {}),
        '16key.png': (Image.fromarray(grey), {'transparency': int(grey[0, 0])}),
        'white.tif': (Image.fromarray(grey), {'tiffinfo': {262: 0}}),
        'rgba.png': (rgba, {}),
        'rgba.webp': (rgba, {'lossless': True}),
        'la.png': (rgba.convert('LA'), {}),
        'p.gif': (palette, {'transparency': 3}),
        'turned.png': (Image.fromarray(rgb), {'exif': exif}),
        'float.tif': (Image.fromarray((grey / 65535).astype(np.float32)), {}),
        'cmyk.jpg': (Image.fromarray(rgb).convert('CMYK'), {}),
        '1.png': (Image.fromarray(rgb).convert('1'), {}),
    }
    for name, (image, options) in images.items():
        image.save(folder / name, **options)
        yield folder / name


def test_all_sources_give_the_same(tmp_path):
    for path in kinds_of_images(tmp_path):
        want = read_pixels(path)
        data = path.read_bytes()
        with open(path, 'rb') as file, Image.open(path) as image, open(path, 'rb') as used:
            used.read(100)
            sources = [str(path), data, bytearray(data), memoryview(data), file, used, io.BytesIO(data), image]
            for source in [*sources, Unseekable(data), Image.open(io.BytesIO(data))]:
                np.testing.assert_array_equal(read_pixels(source), want, err_msg=path.name)
            assert not file.closed


class Unseekable(io.RawIOBase):
    """As a response from a server."""

    def __init__(self, data):
        self.data = data

    def readable(self):
        return True

    def read(self, size=-1):
        data, self.data = self.data, b''
        return data


def test_images_made_in_memory():
    assert read_image(Image.new('RGBA', (2, 1), (255, 0, 0, 0)))[:, 0, 0].tolist() == WHITE
    assert read_image(Image.fromarray(np.array([[0, 65535]], np.uint16)))[0].tolist() == [[0, 1]]
    for mode in ('HSV', 'YCbCr', 'RGBa', 'La', 'RGBX', 'PA'):
        assert read_image(Image.new(mode, (2, 1))).shape == (3, 1, 2)


def test_numbers_that_may_be_of_8_or_16_bits():
    grey = Image.new('L', (3, 2), 200)
    with pytest.raises(ValueError, match=r'values in \[0, 200\]; expected 16 bits, and these may be 8'):
        read_image(grey.convert('I'))
    assert read_image(Image.new('I', (3, 2), 40_000))[0, 0, 0] == pytest.approx(40_000 / 65535)


@pytest.mark.parametrize('max_pixels', ['100', True, 1.5, 0])
def test_limits_that_are_no_limit(max_pixels):
    with pytest.raises((TypeError, ValueError), match='max_pixels='):
        read_image(Image.new('RGB', (2, 2)), max_pixels)


@pytest.mark.parametrize('source', [None, 3, ['a.png'], io.StringIO('a'), np.zeros((3, 3))])
def test_what_is_no_source(source):
    with pytest.raises(TypeError, match='expected a path, bytes, a file open in binary mode, or a PIL image'):
        read_image(source)


@pytest.mark.parametrize('name', ['a.png', 'a', 'a.tar'])
def test_an_empty_file_is_said_to_be_empty(tmp_path, name):
    (tmp_path / name).write_bytes(b'')
    for source in (tmp_path / name, b'', io.BytesIO()):
        with pytest.raises(OSError, match='the file is empty'):
            read_image(source)


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('a.tar', 'tar archive; .*score-collection'),
        ('b.TAR.GZ', 'tar archive'),
        ('a.parquet', 'Parquet file; .*score-collection'),
        ('s.csv', 'maclip-pyiqa report'),
        ('list.txt', 'score - < FILE'),
        ('v.mp4', 'a video'),
        ('x.zip', 'unpack'),
        ('x.exr', 'format that is not read'),
        ('x.png', 'not an image, or in a format'),
    ],
)
def test_what_is_no_image_is_named(tmp_path, name, said):
    (tmp_path / name).write_bytes(b'something else ' * 100)
    with pytest.raises(OSError, match=said):
        read_image(tmp_path / name)


@pytest.mark.parametrize('url', ['https://example.com/a.jpg', 's3://bucket/a.png'])
def test_urls_are_named(url):
    with pytest.raises(OSError, match='a URL; `maclip-pyiqa score-collection'):
        read_image(url)


def test_formats_of_plugins(tmp_path, photos):
    heif = pytest.importorskip('pillow_heif')
    pytest.importorskip('pillow_jxl')
    pixels = (photos[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / 'a.heic', quality=95)
    read_image(tmp_path / 'a.heic')  # registers what the next line needs
    Image.fromarray(pixels).save(tmp_path / 'a.jxl', quality=95)
    for name in ('a.heic', 'a.jxl'):
        for source in (tmp_path / name, (tmp_path / name).read_bytes()):
            assert np.abs(read_pixels(source).astype(float) - pixels).mean() < 4


# --- Pillow's globals -------------------------------------------------------------------------------------------------


def test_threads_leave_the_globals_of_pillow_alone(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    pixels = (photos[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    names = [tmp_path / f'a.{suffix}' for suffix in ('jpg', 'png', 'tif', 'webp', 'bmp')]
    for name in names:
        Image.fromarray(pixels).save(name)
        half = tmp_path / f'half{name.name}'
        half.write_bytes(name.read_bytes()[: name.stat().st_size // 2])
    flags = set()

    def work(i):
        name = names[i % len(names)]
        flags.add(ImageFile.LOAD_TRUNCATED_IMAGES)
        if i % 2:
            return read_pixels(name).shape
        try:
            read_pixels(tmp_path / f'half{name.name}')
        except OSError:
            return pixels.shape

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(work, range(100))) == {pixels.shape}
    assert flags == {True} and ImageFile.LOAD_TRUNCATED_IMAGES
    with Image.open(tmp_path / 'halfa.jpg') as image:
        image.load()  # the program's own reading is as tolerant as it asked for


def test_damaged_pixels_are_an_error_whatever_the_flag(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    photo = Image.fromarray((photos[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    for name, options in (('a.png', {}), ('a.tif', {'compression': 'tiff_lzw'}), ('a.jp2', {})):
        photo.save(tmp_path / name, **options)
        data = bytearray((tmp_path / name).read_bytes())
        data[len(data) // 2 :] = b'\xff' * (len(data) - len(data) // 2)
        with pytest.raises(OSError):
            read_image(bytes(data))


def test_large_images(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)  # of the program; Pillow would refuse 2001 pixels
    Image.new('RGB', (100, 50)).save(tmp_path / 'a.png')
    data = (tmp_path / 'a.png').read_bytes()
    assert read_image(tmp_path / 'a.png').shape == (3, 50, 100)
    assert read_image(data, max_pixels=5000).shape == read_image(data, max_pixels=None).shape == (3, 50, 100)
    for source in (tmp_path / 'a.png', data, io.BytesIO(data), Image.new('RGB', (100, 50))):
        with pytest.raises(OSError, match=r'100x50 pixels is larger than 4,999 pixels; raise max_pixels'):
            read_image(source, max_pixels=4999)
    Image.new('1', (20_000, 10_001)).save(tmp_path / 'b.png')
    with pytest.raises(OSError, match='larger than 200,000,000 pixels'):
        read_image(tmp_path / 'b.png')
    assert Image.MAX_IMAGE_PIXELS == 1000 and not recwarn.list
