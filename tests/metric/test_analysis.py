"""Analyses against forward, boxes against what views.py cuts, maps against a plain double loop and their properties."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from maclip_pyiqa import MACLIP, Analysis, ViewPlan
from maclip_pyiqa.metric import PROMPTS
from maclip_pyiqa.metric.cues import fuse

FIELDS = ('q', 'q_view', 'q_sim', 'q_mag', 'w_sim', 'attributes', 'boxes')
SIZES = [(64, 64), (150, 203), (64, 300), (30, 94), (94, 30), (63, 346), (5, 3), (1, 1), (1, 10)]


def analysis_of(height, width, window=64, stride=37, images=2, seed=0):
    """An analysis of random values: maps need no CLIP."""
    return analysis_by(ViewPlan.windows(height, width, window, stride), images, seed)


def analysis_by(plan, images=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(4, images, plan.views, generator=generator)
    attributes = torch.rand(images, plan.views, 2, generator=generator)
    q = (values[0] * torch.tensor(plan.shares)).sum(1, keepdim=True)
    return Analysis(q, *values, attributes, ('good', 'sharp'), plan)


def test_score_and_cues_are_those_of_the_metric(tiny_metric, photos):
    x = torch.stack(photos[:3])[..., :200, :260]
    with torch.no_grad():
        analysis = tiny_metric.analyze(x)
        assert torch.equal(analysis.q, tiny_metric(x))
    views = len(tiny_metric.features(x)[0])
    assert len(analysis) == 3 and analysis.size == (200, 260)
    assert analysis.q_view.shape == analysis.q_sim.shape == analysis.q_mag.shape == analysis.w_sim.shape == (3, views)
    assert analysis.attributes.shape == (3, views, 5) and analysis.boxes.shape == (views, 4)
    assert analysis.names == ('good', 'sharp', 'edges', 'resolution', 'noise-free')
    torch.testing.assert_close(analysis.q, analysis.q_view.mean(1, keepdim=True))
    torch.testing.assert_close(analysis.q_sim, analysis.attributes.mean(2))
    q, w_sim = fuse(analysis.q_sim, analysis.q_mag)
    torch.testing.assert_close((analysis.q_view, analysis.w_sim), (q, w_sim))
    mixed = analysis.w_sim * analysis.q_sim + (1 - analysis.w_sim) * analysis.q_mag
    torch.testing.assert_close(analysis.q_view, mixed)


def test_attributes_are_the_scores_of_one_prompt_pair(tiny, tiny_metric, photos):
    x = photos[0][None, :, :100, :100]
    analysis = tiny_metric.analyze(x)
    for i, pair in enumerate(PROMPTS):
        alone = MACLIP(backbone=tiny, prompts=[pair])
        torch.testing.assert_close(alone.analyze(x).q_sim, analysis.attributes[..., i], atol=1e-5, rtol=1e-5)


def test_names_of_other_prompts(tiny):
    net = MACLIP(backbone=tiny, prompts=[('a fine photo', 'a poor photo'), PROMPTS[1]])
    assert net.analyze(torch.rand(1, 3, 64, 64)).names == ('a fine photo', 'sharp')


def test_list_of_mixed_sizes(tiny_metric, photos):
    images = [photos[0], photos[1][:, :70, :300], photos[2][:1, :20, :31], photos[0]]
    analyses = tiny_metric.analyze(images)
    assert isinstance(analyses, list) and [a.size for a in analyses] == [(384, 512), (70, 300), (20, 31), (384, 512)]
    scores = tiny_metric(images)
    for image, analysis, score in zip(images, analyses, scores, strict=True):
        assert len(analysis) == 1
        torch.testing.assert_close(analysis.q[0], score)
        torch.testing.assert_close(analysis.q_view, tiny_metric.analyze(image[None]).q_view)
        assert analysis.quality_map().shape == (1, 1, *image.shape[1:])


@pytest.mark.parametrize('views', ['global', 'full'])
def test_one_view(tiny, photos, views):
    net = MACLIP(backbone=tiny, views=views)
    x = torch.stack(photos[:2])
    analysis = net.analyze(x)
    assert analysis.boxes.tolist() == [[0, 0, 512, 384]]
    torch.testing.assert_close(analysis.q, net(x))
    assert torch.equal(analysis.quality_map(), analysis.q_view[:, :, None, None].expand(2, 1, 384, 512))
    assert torch.equal(analysis.coverage(), torch.ones(1, 1, 384, 512))


def test_all_windows_count_where_training_samples(tiny, photos):
    x = photos[0][None, :, :200, :200].clone().requires_grad_()
    sampled, full = MACLIP(backbone=tiny, sample_views=1), MACLIP(backbone=tiny)
    assert torch.equal(sampled.analyze(x).q_view, full.analyze(x).q_view)
    assert not torch.equal(sampled(x), full(x))


@pytest.mark.parametrize(('bad', 'error'), [(torch.rand(3, 9, 9), ValueError), ('x', TypeError), ([], ValueError)])
def test_what_forward_refuses_is_refused(tiny_metric, bad, error):
    with pytest.raises(error):
        tiny_metric.analyze(bad)


def test_indexing_and_moving(tiny_metric, photos):
    analysis = tiny_metric.analyze(torch.stack(photos[:3])[..., :80, :80])
    assert [float(one.q) for one in analysis] == analysis.q[:, 0].tolist()
    for one in (analysis[1], analysis[-2], analysis[1:2], analysis[torch.tensor(1)]):
        assert len(one) == 1 and one.size == analysis.size and one.names == analysis.names
        assert torch.equal(one.q_view, analysis.q_view[1:2]) and torch.equal(one.boxes, analysis.boxes)
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            analysis[wrong]
    double = analysis.to(torch.float64)
    assert all(getattr(double, name).dtype == torch.float64 for name in FIELDS)
    assert double.quality_map().dtype == torch.float64
    for twin in (copy.deepcopy(analysis.detach()), pickle.loads(pickle.dumps(analysis.detach()))):
        assert all(torch.equal(getattr(twin, name), getattr(analysis, name)) for name in FIELDS)
    with pytest.raises(AttributeError):
        analysis.q = None


# --- boxes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', SIZES)
def test_boxes_are_where_the_windows_were_cut(size):
    """Cut windows out of an image of coordinates: what they hold is where they come from."""
    height, width = size
    rows = (torch.arange(height, dtype=torch.float64) + 0.5)[:, None].expand(height, width)
    columns = (torch.arange(width, dtype=torch.float64) + 0.5)[None].expand(height, width)
    plan = ViewPlan.windows(height, width, 64, 37)
    windows = plan.cut(torch.stack([columns, rows, rows]), 0, plan.views - 1) if plan.offsets else []
    boxes = torch.tensor(plan.boxes, dtype=torch.float64)
    assert len(boxes) == len(windows) + 1
    assert boxes[-1].tolist() == [0, 0, width, height]
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= width + 1e-5).all() and (boxes[:, 3] <= height + 1e-5).all()
    enlarged = min(size) < 64

    def close(value, want, length):
        want = min(max(want, 0.5), length - 0.5)
        # bicubic interpolation bends a ramp: a little everywhere, by up to a third of a pixel at its ends
        bend = 0.35 if min(want, length - want) < 2.5 else 0.05
        return value.item() == pytest.approx(want, abs=bend if enlarged else 1e-6)

    for (left, top, right, bottom), window in zip(boxes[:-1].tolist(), windows, strict=True):
        half = (right - left) / 128, (bottom - top) / 128  # of a pixel of the window, in pixels of the image
        assert close(window[0].amin(), left + half[0], width) and close(window[0].amax(), right - half[0], width)
        assert close(window[1].amin(), top + half[1], height) and close(window[1].amax(), bottom - half[1], height)


# --- maps --------------------------------------------------------------------------------------------------------


def test_map_is_the_documented_integral():
    """Each pixel by numerical integration of the raised cosines over it."""
    analysis = analysis_of(30, 47, window=16, stride=9)
    got = analysis.quality_map('q_sim')[:, 0]

    def weight(a, b, pixel):
        u = [pixel + (k + 0.5) / 64 for k in range(64)]
        return sum(1e-3 + 0.999 * (1 - math.cos(2 * math.pi * (v - a) / (b - a))) for v in u if a < v < b) / 64

    for y, x in [(0, 0), (3, 5), (10, 20), (24, 42), (15, 15)]:
        w = torch.tensor([weight(l, r, x) * weight(t, b, y) for l, t, r, b in analysis.boxes[:-1].tolist()])
        want = (analysis.q_sim[:, :-1] * w).sum(1) / w.sum()
        torch.testing.assert_close(got[:, y, x], want, atol=2e-3, rtol=0)


def check_map(analysis):
    size, plan = analysis.size, analysis.plan
    m, s = analysis.quality_map(), analysis.coverage().double()
    windows = slice(None, -1) if plan.offsets else slice(None)
    values = analysis.q_view[:, windows]
    assert m.shape == (2, 1, *size) and s.shape == (1, 1, *size) and (s >= 0).all()
    # the map weighted by the coverage sums back to the windows
    assert s.sum().item() == pytest.approx(len(plan.offsets) or size[0] * size[1], rel=1e-5)
    torch.testing.assert_close((s * m).mean((1, 2, 3)) / s.mean(), values.mean(1).double(), atol=1e-5, rtol=0)
    low, high = values.amin(1)[:, None, None, None], values.amax(1)[:, None, None, None]
    assert (m >= low - 1e-6).all() and (m <= high + 1e-6).all()
    # constant in, constant out
    flat = Analysis(*(torch.full_like(getattr(analysis, n), 0.3) for n in FIELDS[:6]), *_rest(analysis))
    torch.testing.assert_close(flat.quality_map('sharp'), torch.full((2, 1, *size), 0.3))


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('stride', [5, 37, 64, 90])
def test_map_properties(size, stride):
    check_map(analysis_of(*size, stride=stride))


@given(st.integers(1, 150), st.integers(1, 150), st.integers(8, 64), st.integers(3, 80), st.integers(1, 30))
def test_map_properties_of_any_plan(height, width, window, stride, max_views):
    if max(height, width) <= 100 * min(height, width):
        check_map(analysis_by(ViewPlan.windows(height, width, window, stride, max_views)))


def test_summary(tiny_metric, photos):
    one = tiny_metric.analyze(photos[0][None, :, :150, :150])
    got = one.summary()
    assert tuple(got) == tiny_metric.summary_columns
    assert tuple(got) == ('score', 'q_sim', 'q_mag', 'w_sim', *(f'attribute_{n}' for n in one.names))
    assert got['score'] == float(one.q)
    for name in ('q_sim', 'q_mag', 'w_sim'):
        assert got[name] == pytest.approx(getattr(one, name).mean().item(), abs=1e-5)
    assert got['attribute_edges'] == pytest.approx(one.attributes[0, :, 2].mean().item(), abs=1e-5)
    with pytest.raises(ValueError, match='of one image'):
        tiny_metric.analyze(torch.stack(photos[:2])).summary()


def test_summary_of_some_windows_is_weighted_as_the_score(tiny, photos):
    one = MACLIP(backbone=tiny, max_views=4).analyze(photos[0][None, :, :150, :210])
    assert len(set(one.plan.shares[:-1])) > 1
    shares = torch.tensor(one.plan.shares)
    assert one.summary()['score'] == pytest.approx((one.q_view[0] * shares).sum().item(), abs=1e-5)
    assert one.summary()['q_mag'] == pytest.approx((one.q_mag[0] * shares).sum().item(), abs=1e-5)


def _rest(analysis):
    return analysis.names, analysis.plan


def test_pixels_in_no_window_take_the_nearest_value():
    analysis = analysis_of(60, 70, window=20, stride=23)  # gaps of 3 pixels, rests at the right and the bottom
    m, s = analysis.quality_map()[:, 0], analysis.coverage()[0, 0]
    seen = torch.zeros(60, 70, dtype=torch.bool)
    for l, t, r, b in analysis.boxes[:-1].int().tolist():
        seen[t:b, l:r] = True
    assert torch.equal(s > 0, seen) and not seen.all()
    places = seen.nonzero()
    for y, x in (~seen).nonzero().tolist():
        distance = (places - torch.tensor([y, x])).square().sum(1)
        nearest = places[distance == distance.min()]
        assert any(torch.equal(m[:, y, x], m[:, a, b]) for a, b in nearest.tolist())


def test_map_of_overlapping_windows_is_smooth():
    analysis = analysis_of(64, 200, stride=37)
    values = analysis.q_view[:, :-1]
    steps = analysis.quality_map().diff(dim=-1).abs().amax()
    assert steps < 0.15 * (values.amax() - values.amin())  # plain averages jump by up to half


def test_map_of_each_field(tiny_metric, photos):
    analysis = tiny_metric.analyze(photos[0][None, :, :64, :101])  # two windows, beside each other
    known = {'q': analysis.q_view, 'q_sim': analysis.q_sim, 'q_mag': analysis.q_mag, 'w_sim': analysis.w_sim}
    known |= {name: analysis.attributes[..., i] for i, name in enumerate(analysis.names)}
    for of, values in known.items():
        m = analysis.quality_map(of)[0, 0]
        torch.testing.assert_close(m[:, 0], values[0, 0].expand(64))
        torch.testing.assert_close(m[:, -1], values[0, 1].expand(64))
    with pytest.raises(ValueError, match=r'no map of .nix.; expected one of q, .*noise-free'):
        analysis.quality_map('nix')


def test_map_differs_only_where_a_window_saw_the_change(tiny_metric, photos):
    x = photos[1][None]
    blurred = x.clone()
    blurred[..., 256:] = F.avg_pool2d(x, 9, 1, 4)[..., 256:]
    with torch.no_grad():
        before, after = tiny_metric.analyze(x), tiny_metric.analyze(blurred)
    change = (after.q_view - before.q_view)[0, :-1].abs()
    touched = before.boxes[:-1, 2] > 256
    assert touched.any() and not touched.all()
    assert (change[touched] > 1e-5).all() and (change[~touched] < 1e-6).all()
    difference = (after.quality_map() - before.quality_map()).abs()[0, 0]
    edge = int(before.boxes[:-1][touched][:, 0].min())  # left of all windows that saw the change
    assert edge > 0 and (difference[:, :edge] < 1e-6).all()
    assert (difference[:, 256:] > 1e-6).float().mean() > 0.95


def test_gradient_goes_through_the_map_to_the_windows_under_it(tiny_metric, photos):
    x = photos[0][None, :, :64, :250].clone().requires_grad_()
    analysis = tiny_metric.analyze(x)
    (grad,) = torch.autograd.grad(analysis.quality_map()[..., 0].sum(), x)  # the first column: the first window
    assert grad[..., :64].abs().sum() > 0 and not grad[..., 64:].any()
    weight = torch.rand(1, 1, 64, 250)
    (grad,) = torch.autograd.grad((tiny_metric.analyze(x).quality_map('good') * weight).mean(), x)
    assert grad.isfinite().all() and grad[..., :200].abs().sum() > 0
    assert analysis.detach().quality_map().requires_grad is False


def test_gradient_of_the_map_is_right():
    analysis = analysis_of(20, 31, window=10, stride=6, images=1).to(torch.float64)

    def score(values):
        fields = [getattr(analysis, name) for name in FIELDS[:6]]
        return Analysis(fields[0], values, *fields[2:], *_rest(analysis)).quality_map()

    assert torch.autograd.gradcheck(score, analysis.q_view.clone().requires_grad_())
