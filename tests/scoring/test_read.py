"""Reading of image files of all kinds, made with Pillow."""

import os
import socket

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from maclip_pyiqa.scoring.read import read_image

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
