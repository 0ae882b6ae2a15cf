"""Windows against torch.nn.Unfold, resizing against Pillow's geometry and by hand."""

import pytest
import torch

from maclip_pyiqa.metric.views import cut, enlarge, resize, window_places


@pytest.mark.parametrize(
    ('height', 'width', 'rows', 'columns'),
    [(384, 512, 2, 3), (224, 224, 1, 1), (352, 352, 2, 2), (351, 353, 1, 2), (768, 1024, 5, 7), (3000, 4000, 22, 30)],
)
def test_counts_and_places(height, width, rows, columns):
    places = window_places(4, height, width, 224, 128)
    assert places == [(4, 128 * r, 128 * c) for r in range(rows) for c in range(columns)]


@pytest.mark.parametrize(
    ('height', 'width', 'window', 'stride'), [(70, 103, 32, 18), (64, 64, 32, 32), (40, 33, 32, 5)]
)
def test_windows_are_those_of_unfold(height, width, window, stride):
    x = torch.rand(2, 3, height, width)
    blocks = torch.nn.Unfold(window, stride=stride)(x)  # (N, 3 * w * w, L)
    want = blocks.transpose(1, 2).reshape(-1, 3, window, window)
    places = [p for i in range(2) for p in window_places(i, height, width, window, stride)]
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert torch.equal(cut(list(x), places, window), want)


def test_gradient_of_cut_is_that_of_slices():
    images = [torch.rand(3, 20, 30, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    places = [(2, 0, 4), (0, 5, 5), (0, 6, 6), (2, 1, 0)]  # overlapping, out of order, image 1 not seen
    weight = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    got = torch.autograd.grad((cut(images, places, 8) ** 2 * weight).sum(), images, allow_unused=True)
    plain = torch.stack([images[i][:, t : t + 8, l : l + 8] for i, t, l in places])
    want = torch.autograd.grad((plain**2 * weight).sum(), images, allow_unused=True)
    assert got[1] is None and want[1] is None
    for g, w in zip((got[0], got[2]), (want[0], want[2]), strict=True):
        torch.testing.assert_close(g, w)
    assert torch.autograd.gradgradcheck(lambda *x: cut(x, places, 8), images)


@pytest.mark.parametrize(
    ('size', 'want'), [((30, 94), (224, 702)), ((94, 30), (702, 224)), ((1, 1), (224, 224)), ((223, 300), (224, 301))]
)
def test_small_images_are_enlarged_to_one_window(size, want):
    image = torch.rand(3, *size)
    got = enlarge(image, 224)
    assert got.shape == (3, *want)
    # any bicubic interpolation keeps constants and, inside, straight ramps
    assert torch.allclose(enlarge(torch.full((3, *size), 0.3), 224), torch.tensor(0.3), atol=1e-5)


def test_large_images_are_not_touched():
    image = torch.rand(3, 224, 500)
    assert enlarge(image, 224) is image


def test_global_view_is_bilinear_without_antialiasing():
    ramp = torch.linspace(0, 1, 512).expand(3, 384, 512)
    got = resize(ramp, 224)
    centres = ((torch.arange(224) + 0.5) * 512 / 224 - 0.5) / 511  # where each pixel's centre falls
    torch.testing.assert_close(got, centres.expand(3, 224, 224), atol=1e-5, rtol=0)
    stripes = (torch.arange(448) % 2).float().expand(3, 448, 448)
    assert resize(stripes, 224).eq(0.5).all()  # the two neighbours of each centre
    assert resize((torch.arange(672) % 3 == 1).float().expand(3, 672, 672), 224).eq(1).all()  # the middle one alone
