"""Pictures of images, and their windows' values."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from maclip_pyiqa import MACLIP, score_files
from maclip_pyiqa.report.pictures import Maps, choose, read_picture, thumbnail, window_values


def opened(jpeg):
    return Image.open(io.BytesIO(jpeg))


@pytest.mark.parametrize(
    ('size', 'want'), [((384, 512), (192, 144)), ((50, 20), (20, 50)), ((3456, 1152), (64, 192)), ((4000, 3), (1, 192))]
)
def test_thumbnails(size, want):
    pixels = np.random.default_rng(0).random((*size, 3), np.float32)
    assert opened(thumbnail(pixels)).size == want
    assert opened(thumbnail((pixels * 255).round().astype(np.uint8))).size == want


def test_a_thumbnail_looks_like_its_image(photos):
    for image in photos[:3]:
        small = torch.nn.functional.interpolate(image[None], (144, 192), mode='bilinear', antialias=True)[0]
        got = np.asarray(opened(thumbnail(image.permute(1, 2, 0).numpy())), np.float32) / 255
        assert np.abs(got - small.permute(1, 2, 0).numpy()).mean() < 0.03


def test_nothing_of_the_file_but_its_pixels_is_in_a_thumbnail(tmp_path, photo_files):
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = 'a secret', 6
    photo = Image.open(photo_files[0])
    photo.save(tmp_path / 'a.jpg', exif=exif, comment=b'a secret', icc_profile=b'a secret')
    assert b'a secret' in (tmp_path / 'a.jpg').read_bytes()
    jpeg, size = read_picture(str(tmp_path / 'a.jpg'))
    assert size == (512, 384)
    assert b'a secret' not in jpeg and not opened(jpeg).getexif()
    assert opened(jpeg).size == (144, 192)  # turned as a viewer shows it


def test_files_that_cannot_be_read_have_no_picture(tmp_path):
    (tmp_path / 'a.png').write_text('no')
    assert read_picture(str(tmp_path / 'a.png')) is None and read_picture(str(tmp_path / 'b.png')) is None


def test_window_values_are_those_of_the_analysis(analysis_of):
    analysis = analysis_of(140, 200)
    windows = window_values(analysis)
    assert windows['size'] == [140, 200] and list(windows['values']) == [
        *('score', 'q_sim', 'q_mag', 'attribute_good', 'attribute_sharp')
    ]
    boxes = [[x0, y0, x1, y1] for y0, y1 in windows['rows'] for x0, x1 in windows['columns']]
    assert boxes == [list(box) for box in analysis.plan.boxes[:-1]]
    for name, want in (('score', analysis.q_view), ('attribute_sharp', analysis.attributes[..., 1])):
        assert windows['values'][name] == (want[0, :-1] * 10_000).round().tolist()


def test_large_grids_are_averaged(analysis_of):
    analysis = analysis_of(64 + 37 * 39, 64 + 37 * 9)
    windows = window_values(analysis)
    assert (len(windows['rows']), len(windows['columns'])) == (12, 10)
    assert windows['rows'][0][0] == 0 and windows['rows'][-1][1] == 64 + 37 * 39
    grid = analysis.q_view[0, :-1].reshape(40, 10)
    assert windows['values']['score'][0] == pytest.approx(float(grid[:4, 0].mean()) * 10_000, abs=1)
    assert np.mean(windows['values']['score'][-10:]) == pytest.approx(float(grid[-3:].mean()) * 10_000, abs=1)


def test_no_windows(tiny):
    image = torch.rand(3, 70, 80)
    assert window_values(MACLIP(backbone=tiny, views='global').analyze([image])[0]) is None
    with pytest.raises(ValueError, match='of one image'):
        window_values(MACLIP(backbone=tiny).analyze(torch.rand(2, 3, 70, 80)))


def test_no_map_of_what_is_not_finite(analysis_of):
    analysis = analysis_of(140, 200)
    analysis.q_view[0, 0] = math.nan
    assert window_values(analysis) is None


def test_maps_while_scoring(tiny_metric, photo_files):
    """Hundreds of bytes an image, three thousand at most."""
    maps = Maps()
    rows = list(score_files(tiny_metric, photo_files[:3], each=maps))
    assert list(maps) == [row['path'] for row in rows] and len(maps) == 3
    for windows in maps.values():
        assert len(windows['values']['score']) == len(windows['rows']) * len(windows['columns'])


def test_maps_take_little_memory(analysis_of):
    maps = Maps()
    names = ('good', 'sharp', 'edges', 'resolution', 'noise-free')
    for i in range(1, 40, 9):
        maps({'path': str(i)}, None, analysis_of(64 + 37 * i, 64 + 37 * i, names))
    assert max(map(len, maps._packed.values())) < 3_300  # of noise, which cannot be compressed well


@pytest.mark.parametrize('count', [0, 1, 2, 3, 4, 9, 10, 500])
def test_the_worst_the_best_and_some_between_are_chosen(count):
    order = [f'{i:03}' for i in range(1000)]
    chosen = choose(order, count)
    assert len(chosen) == len(set(chosen)) == count and chosen == sorted(chosen)
    worst = math.ceil(count / 3)
    best = min(worst, count - worst)
    assert set(order[:worst]) | set(order[1000 - best :]) <= set(chosen)


def test_choosing():
    order = list(range(300))
    assert choose(order[:5], 5) == order[:5] and choose(order[:5], 500) == order[:5]
    chosen = choose(order, 30)
    assert chosen[:10] == list(range(10)) and chosen[-10:] == list(range(290, 300))
    assert np.diff(chosen[10:20]).tolist() == [28] * 9  # of 280 between
