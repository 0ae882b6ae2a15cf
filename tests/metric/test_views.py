"""View plans against torch.nn.Unfold, torch's interpolation of whole images, and properties that any plan has."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from maclip_pyiqa.metric import views
from maclip_pyiqa.metric.views import ViewPlan

sides = st.integers(1, 400)


@st.composite
def plans(draw, max_views=False, least_stride=1):
    """Plans of small images of any shape that is not refused."""
    window, stride = draw(st.integers(8, 64)), draw(st.integers(least_stride, 80))
    height, width = draw(sides), draw(sides)
    if min(height, width) < window and max(height, width) > 100 * min(height, width):
        width = height
    most = draw(st.none() | st.integers(1, 40)) if max_views else None
    return ViewPlan.windows(height, width, window, stride, most)


@pytest.mark.parametrize(
    ('height', 'width', 'rows', 'columns'),
    [(384, 512, 2, 3), (224, 225, 1, 1), (352, 352, 2, 2), (351, 353, 1, 2), (768, 1024, 5, 7), (3000, 4000, 22, 30)],
)
def test_counts_and_offsets(height, width, rows, columns):
    plan = ViewPlan.windows(height, width, 224, 128)
    assert plan.offsets == tuple((128 * r, 128 * c) for r in range(rows) for c in range(columns))
    assert plan.views == rows * columns + 1 and plan.enlarged_size == plan.size == (height, width)
    assert plan.shares == pytest.approx([1 / plan.views] * plan.views)


@given(plans(max_views=True))
def test_any_plan(plan):
    height, width = plan.size
    assert sum(plan.shares) == pytest.approx(1) and min(plan.shares) > 0
    assert len(plan.offsets) + 1 == len(plan.shares) == len(plan.boxes) == plan.views
    for left, top, right, bottom in plan.boxes:
        assert -1e-9 <= left < right <= width + 1e-9 and -1e-9 <= top < bottom <= height + 1e-9
    assert plan.boxes[-1] == (0, 0, width, height)
    assert [(t, b) for t, b in plan.rows for _ in plan.columns] == [box[1::2] for box in plan.boxes[:-1]]
    assert [(l, r) for _ in plan.rows for l, r in plan.columns] == [box[::2] for box in plan.boxes[:-1]]


@given(plans())
def test_windows_leave_out_less_than_a_stride(plan):
    """With a stride of at most one window, all pixels up to the last windows' ends are seen."""
    (height, width), window = plan.enlarged_size, plan.window
    if not plan.offsets:
        assert plan.size == plan.enlarged_size == (window, window)
        return
    for side, starts in ((height, {t for t, _ in plan.offsets}), (width, {l for _, l in plan.offsets})):
        starts = sorted(starts)
        steps = {b - a for a, b in pairwise(starts)}
        assert starts[0] == 0 and len(steps) <= 1
        step = steps.pop() if steps else None
        if step is not None and step <= window:
            seen = set().union(*(range(s, s + window) for s in starts))
            assert seen == set(range(starts[-1] + window))
        if step is not None:
            assert side - window - starts[-1] < step


def test_max_views():
    full = ViewPlan.windows(3000, 4000, 224, 128)
    for most in (1, 4, 9, 16, 36, 659):
        plan = ViewPlan.windows(3000, 4000, 224, 128, most)
        assert 0.7 * most <= len(plan.offsets) <= most and set(plan.offsets) <= set(full.offsets)
        assert plan.shares[-1] == pytest.approx(1 / 661)
    for most in (660, 661, 10**6):
        assert ViewPlan.windows(3000, 4000, 224, 128, most) == full
    # the mean position of the windows, weighted by their shares, is that of all windows
    plan = ViewPlan.windows(3000, 4000, 224, 128, 36)
    shares = torch.tensor(plan.shares[:-1])
    centre = (shares[:, None] * torch.tensor(plan.offsets)).sum(0) / shares.sum()
    assert (centre - torch.tensor(full.offsets).float().mean(0)).abs().max() < 128


@pytest.mark.parametrize(
    ('height', 'width', 'window', 'stride'), [(70, 103, 32, 18), (64, 64, 32, 32), (40, 33, 32, 5)]
)
def test_windows_are_those_of_unfold(height, width, window, stride):
    x = torch.rand(3, height, width)
    blocks = torch.nn.Unfold(window, stride=stride)(x[None])  # (1, 3 * w * w, L)
    want = blocks[0].T.reshape(-1, 3, window, window)
    plan = ViewPlan.windows(height, width, window, stride)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert torch.equal(plan.cut(x)[:-1], want)
            assert torch.equal(plan.cut(x, 1, 2), want[1:2])


def test_windows_with_gradient_are_slices():
    """As accelerators cut them too."""
    image = torch.rand(3, 70, 103)
    for plan in (ViewPlan.windows(70, 103, 32, 18), ViewPlan.windows(70, 103, 32, 7, 5)):
        got, want = (views._windows(x, plan.offsets, 32) for x in (image.clone().requires_grad_(), image))
        assert torch.equal(got, want) and len(got) == len(plan.offsets) > 1


@given(plans(max_views=True, least_stride=24), st.data())  # windows are copied: few of them
def test_views_in_parts_are_those_of_a_whole_enlarged_image(plan, data):
    image = torch.rand(3, *plan.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    enlarged = image
    if plan.enlarged_size != plan.size:
        enlarged = F.interpolate(image[None], plan.enlarged_size, mode='bicubic')[0]
    whole = F.interpolate(image[None], plan.global_size, mode='bilinear')
    w = plan.window
    want = torch.cat([*(enlarged[None, :, t : t + w, l : l + w] for t, l in plan.offsets), whole])
    torch.testing.assert_close(plan.cut(image), want, rtol=0, atol=1e-9)
    at = data.draw(st.integers(0, plan.views - 1))
    parts = [plan.cut(image, first, last) for first, last in ((0, at), (at, plan.views)) if first < last]
    torch.testing.assert_close(torch.cat(parts), want, rtol=0, atol=1e-9)


def test_one_window_is_one_view():
    plan = ViewPlan.windows(224, 224, 224, 128)
    image = torch.rand(3, 224, 224)
    assert plan.views == 1 and plan.shares == (1.0,) and torch.equal(plan.cut(image), image[None])
    assert ViewPlan.windows(100, 100, 224, 128).views == 2  # enlarged bicubic for the window, bilinear as a whole


def test_gradient_of_cut_is_that_of_slices():
    image = torch.rand(3, 14, 15, dtype=torch.float64, requires_grad=True)
    plan = ViewPlan.windows(14, 15, 8, 5)  # 2 x 2 windows
    weight = torch.rand(plan.views, 3, 8, 8, dtype=torch.float64)
    (got,) = torch.autograd.grad((plan.cut(image) ** 2 * weight).sum(), image)
    plain = torch.stack([image[:, t : t + 8, l : l + 8] for t, l in plan.offsets])
    whole = F.interpolate(image[None], (8, 8), mode='bilinear')
    (want,) = torch.autograd.grad((torch.cat([plain, whole]) ** 2 * weight).sum(), image)
    torch.testing.assert_close(got, want)
    assert torch.autograd.gradgradcheck(lambda x: plan.cut(x), image)


def test_gradient_of_an_enlarged_image():
    image = torch.rand(1, 5, 19, dtype=torch.float64, requires_grad=True)
    plan = ViewPlan.windows(5, 19, 8, 5)
    assert plan.enlarged_size == (8, 30)
    assert torch.autograd.gradcheck(lambda x: plan.cut(x), image)


@pytest.mark.parametrize(
    ('size', 'want'), [((30, 94), (224, 702)), ((94, 30), (702, 224)), ((1, 1), (224, 224)), ((223, 300), (224, 301))]
)
def test_small_images_are_enlarged_to_one_window(size, want):
    assert ViewPlan.windows(*size, 224, 128).enlarged_size == want


def test_long_thin_images():
    """What enlargement adds is bounded, and an image that needs none may have any shape."""
    for size in ((1, 100), (100, 1), (50, 700), (8, 800), (224, 60_000)):
        assert min(ViewPlan.windows(*size, 224, 128).enlarged_size) == 224
    for size in ((1, 101), (30_000, 1), (223, 22_301)):
        with pytest.raises(ValueError, match=f'{size[0]}x{size[1]} pixels .* 100 times as long; crop it'):
            ViewPlan.windows(*size, 224, 128)
        assert ViewPlan.resized(*size, 224).views == 1
    with pytest.raises(ValueError, match='100 times'):
        ViewPlan.full(31, 3101, 224, 32)
    assert ViewPlan.full(32, 3201, 224, 32).global_size == (32, 3201)


def test_sampled_windows():
    plan = ViewPlan.windows(384, 512, 224, 128)
    torch.manual_seed(0)
    drawn = [plan.sample(2) for _ in range(300)]
    assert all(len(set(p.offsets)) == 2 and set(p.offsets) <= set(plan.offsets) for p in drawn)
    assert all(p.shares == pytest.approx((3 / 7, 3 / 7, 1 / 7)) for p in drawn)
    counts = [sum(place in p.offsets for p in drawn) for place in plan.offsets]
    assert min(counts) > 60  # 100 expected, standard deviation 8
    assert plan.sample(6) is plan and plan.sample(9) is plan


def test_global_view_is_bilinear_without_antialiasing():
    def resized(image):
        return ViewPlan.resized(*image.shape[1:], 224).cut(image)[0]

    ramp = torch.linspace(0, 1, 512).expand(3, 384, 512)
    centres = ((torch.arange(224) + 0.5) * 512 / 224 - 0.5) / 511  # where each pixel's centre falls
    torch.testing.assert_close(resized(ramp), centres.expand(3, 224, 224), atol=1e-5, rtol=0)
    stripes = (torch.arange(448) % 2).float().expand(3, 448, 448)
    assert resized(stripes).eq(0.5).all()  # the two neighbours of each centre
    assert resized((torch.arange(672) % 3 == 1).float().expand(3, 672, 672)).eq(1).all()  # the middle one alone
