"""Analyses against forward, boxes against what views.py cuts, maps against a plain double loop and their properties."""

import base64
import copy
import io
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from PIL import Image

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


# --- what a notebook shows ------------------------------------------------------------------------------------------


def table_of(element):
    """Names and values of the bars, and the lengths of these in percent."""
    rows = [[''.join(cell.itertext()) for cell in row] for row in element.iter('tr')]
    widths = [float(row[1][0].get('style').partition('width:')[2].partition('%')[0]) for row in element.iter('tr')]
    return {name: value for name, _, value in rows}, widths


def pictures(root):
    """The pictures, (h, w, 3) from 0 to 1, and their texts."""
    files = [io.BytesIO(base64.b64decode(each.get('src').partition(',')[2])) for each in root.iter('img')]
    found = [np.asarray(Image.open(file).convert('RGB')) / 255 for file in files]
    for pixels, each in zip(found, root.iter('img'), strict=True):
        assert pixels.shape[:2] == (int(each.get('height')), int(each.get('width')))
    return found, [each.get('alt') for each in root.iter('img')]


def test_repr_is_one_short_line():
    one = analysis_of(150, 203, images=1)
    assert repr(one) == f'Analysis(1 image of 150x203, 13 views, score {float(one.q):.3f})'
    low, _, high = sorted(analysis_of(64, 64, images=3).q[:, 0].tolist())
    assert repr(analysis_of(64, 64, images=3)) == f'Analysis(3 images of 64x64, 1 view, scores {low:.3f} to {high:.3f})'
    assert repr(one[0:0]) == 'Analysis(0 images of 150x203, 13 views)'


def test_a_notebook_shows_the_numbers_of_the_summary(tiny_metric, photos, read_html):
    analysis = tiny_metric.analyze(photos[0][None, :, :150, :210])
    root, want = read_html(analysis._repr_html_()), analysis.summary()
    got, widths = table_of(root)
    names = [f'cosine cue, weight {want["w_sim"]:.2f}', f'magnitude cue, weight {1 - want["w_sim"]:.2f}']
    assert list(got) == [*names, *analysis.names]
    values = [want['q_sim'], want['q_mag'], *list(want.values())[4:]]
    assert [float(value) for value in got.values()] == pytest.approx(values, abs=6e-4)
    assert widths == pytest.approx([100 * min(value, 1) for value in values], abs=0.51)
    assert f'score {want["score"]:.3f}' in [''.join(each.itertext()) for each in root.iter('p')]


@pytest.mark.parametrize('size', [(240, 180), (150, 240), (700, 1003)])
def test_the_picture_is_the_map(size, read_html):
    """In viridis as matplotlib has it, of which the picture knows ten colours; larger maps as their
    local means."""
    analysis = analysis_of(*size, window=64 * max(size) // 240, stride=37 * max(size) // 240, images=1)
    (pixels,), (alt,) = pictures(read_html(analysis._repr_html_()))
    values = F.adaptive_avg_pool2d(analysis.quality_map(), pixels.shape[:2])[0, 0].numpy()
    low, high = values.min(), values.max()
    assert max(pixels.shape) == 240
    assert [float(word.strip(',')) for word in alt.split()[3::2]] == pytest.approx([low, high], abs=6e-3)
    want = colormaps['viridis']((values - low) / (high - low))[..., :3]
    difference = np.abs(pixels - want)
    assert difference.max() < (0.07 if max(size) == 240 else 0.08) and difference.mean() < 0.015


def test_a_map_that_hardly_varies_is_not_drawn_in_all_colours(read_html):
    flat = analysis_of(240, 200, images=1)
    flat = replace(flat, q_view=0.5 + 1e-4 * flat.q_view)
    (pixels,), _ = pictures(read_html(flat._repr_html_()))
    assert np.abs(pixels - colormaps['viridis'](0.5)[:3]).max() < 0.04


def test_the_first_four_images_are_shown(read_html):
    sixteen = analysis_of(150, 203, images=16)
    root = read_html(sixteen._repr_html_())
    assert len(pictures(root)[0]) == 4 and 'and 12 more: analysis[i] shows each' in ''.join(root.itertext())
    assert 'more' not in ''.join(read_html(sixteen[:4]._repr_html_()).itertext())


def test_maps_beside_each_other_have_one_scale(read_html):
    two = analysis_of(150, 203)
    two = replace(two, q_view=two.q_view * torch.tensor([[1.0], [0.25]]))
    root = read_html(two._repr_html_())
    found, _ = pictures(root)
    low, high = (end(two.q_view[:, :-1]).item() for end in (torch.min, torch.max))
    ends = [''.join(each.itertext()) for each in root.iter('div') if 'min-width:150px' in each.get('style', '')]
    assert ends == [f'{low:.3f}{high:.3f}'] * 2
    for pixels, values in zip(found, F.interpolate(two.quality_map(), found[0].shape[:2])[:, 0].numpy(), strict=True):
        want = colormaps['viridis']((values - low) / (high - low))[..., :3]
        assert np.abs(pixels - want).mean() < 0.03


def test_names_are_escaped_and_cut(read_html):
    names = [f'<script>alert("{i}")</script> & \'<b>\n\x00\udcff' for i in range(39)] + ['x' * 10**6]
    analysis = replace(analysis_of(150, 203, images=1), names=tuple(names), attributes=torch.rand(1, 13, 40))
    html = analysis._repr_html_()
    root = read_html(html)
    assert '<script' not in html and len(html) < 80_000
    got = list(table_of(root)[0])
    assert len(got) == 14 and got[2] == '<script>alert("0")</script> & \'<b> \ufffd\ufffd'
    assert 'and 28 more attributes' in ''.join(root.itertext())
    got = list(
        table_of(read_html(replace(analysis, names=('x' * 99,), attributes=torch.rand(1, 13, 1))._repr_html_()))[0]
    )
    assert len(got[2]) == 40


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_any_dtype_and_graph_is_shown(dtype, read_html):
    analysis = analysis_of(150, 203, images=1)
    want, _ = pictures(read_html(analysis._repr_html_()))
    moved = analysis.to(dtype)._each(lambda name, tensor: tensor.clone().requires_grad_())
    assert 'score 0.' in repr(moved)
    got, _ = pictures(read_html(moved._repr_html_()))
    assert np.abs(got[0] - want[0]).max() < 0.06


def test_what_it_is_in_one_line():
    three = analysis_of(150, 203, images=3)
    three = replace(three, q=torch.tensor([[math.nan], [0.9], [0.1]]))
    assert repr(three) == 'Analysis(3 images of 150x203, 13 views, scores 0.100 to 0.900)'
    assert repr(three[1]) == 'Analysis(1 image of 150x203, 13 views, score 0.900)'
    assert repr(three[:0]) == repr(three[:0].to('meta')) == 'Analysis(0 images of 150x203, 13 views)'


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_shown(value, read_html):
    analysis = analysis_of(150, 203, images=1)
    analysis = analysis._each(lambda name, tensor: torch.full_like(tensor, value))
    text = ''.join(read_html(analysis._repr_html_()).itertext())
    assert (
        f'score {value}' in text and 'no map: some scores are not finite' in text and f'score {value}' in repr(analysis)
    )


@pytest.mark.parametrize('size', [*SIZES, (10_000, 100), (9_000, 12_000)])
def test_what_is_shown_is_small_for_any_size(size, read_html):
    html = analysis_of(*size, images=1)._repr_html_()
    found, _ = pictures(read_html(html))
    assert len(html) < 82_000 and all(max(pixels.shape) == 240 and min(pixels.shape[:2]) >= 12 for pixels in found)
    assert bool(found) == (size != (64, 64))


def test_one_view_has_no_map(read_html):
    analysis = analysis_by(ViewPlan.resized(300, 400, 64))
    assert 'one view, the whole image: no map' in ''.join(read_html(analysis._repr_html_()).itertext())
