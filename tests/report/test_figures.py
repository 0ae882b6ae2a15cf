"""Figures: everything is on them, at every size and aspect ratio, without pyplot."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from maclip_pyiqa import Analysis, ViewPlan
from maclip_pyiqa.report.figures import plot_analysis


def analysis_of(height, width, names=('good', 'sharp', 'edges', 'resolution', 'noise-free'), images=1):
    plan = ViewPlan.windows(height, width, 64, 37)
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(4, images, plan.views, generator=generator)
    attributes = torch.rand(images, plan.views, len(names), generator=generator)
    return Analysis(values[0].mean(1, keepdim=True), *values, attributes, names, plan)


def draw(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


@pytest.mark.parametrize('size', [(96, 128), (200, 90), (400, 65), (70, 300), (65, 900), (12, 18), (1, 1), (1, 40)])
def test_everything_is_inside_the_figure(size):
    figure = plot_analysis(torch.rand(3, *size), analysis_of(*size))
    pixels = draw(figure)
    for part in (np.vsplit, np.hsplit):  # something in each quarter, nothing at the rim
        assert all(quarter.std() > 5 for quarter in part(pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2], 2))
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (rim == 255).all()

    first, second, bar, left, right = figure.get_axes()
    renderer, area = figure.canvas.get_renderer(), figure.bbox
    boxes = [axes.get_tightbbox(renderer) for axes in (first, second, bar, left, right)]
    for box in boxes:
        assert box.x0 >= area.x0 - 1 and box.x1 <= area.x1 + 1 and box.y0 >= area.y0 - 1 and box.y1 <= area.y1 + 1
    for i, a in enumerate(boxes):  # nothing is drawn over anything else
        for b in boxes[:i]:
            assert min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1
    assert first.get_window_extent().height > 20 and bar.get_window_extent().height > 20


def test_what_is_shown():
    analysis = analysis_of(96, 128)
    image = torch.rand(3, 96, 128)
    figure = plot_analysis(image, analysis, of='sharp')
    draw(figure)
    first, second, bar, left, right = figure.get_axes()
    np.testing.assert_allclose(first.images[0].get_array(), image.permute(1, 2, 0), atol=1e-6)
    want = analysis.quality_map('sharp')[0, 0]
    np.testing.assert_allclose(second.images[-1].get_array(), want)
    assert second.get_title() == 'sharp map' and first.get_title() == 'image, 128 \u00d7 96'
    assert bar.get_ylim() == pytest.approx((float(want.min()), float(want.max())))
    lengths = [patch.get_width() for patch in left.patches]
    assert lengths == pytest.approx(analysis.attributes[0].mean(0).tolist())
    assert [label.get_text() for label in left.get_yticklabels()] == list(analysis.names)
    tops = [patch.get_y() for patch in left.patches]
    assert tops == sorted(tops) and left.yaxis_inverted()  # the first attribute on top
    cues = [analysis.q, analysis.q_sim.mean(), analysis.q_mag.mean()]
    assert [patch.get_width() for patch in right.patches] == pytest.approx([float(cue) for cue in cues])
    weight = float(analysis.w_sim.mean())
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert f'{weight:.2f}' in labels[1] and f'{1 - weight:.2f}' in labels[2]


def test_grey_batched_and_tracked_images(tiny_metric):
    x = torch.rand(1, 1, 70, 80, requires_grad=True)
    assert draw(plot_analysis(x, tiny_metric.analyze(x))).std() > 5


def test_names_of_any_kind():
    names = ('a photo that costs $5 and not $6', 'x_y^z \\alpha', 'a' * 200, 'ü', *(f'p{i}' for i in range(10)))
    pixels = draw(plot_analysis(torch.rand(3, 96, 128), analysis_of(96, 128, names)))
    assert pixels.std() > 5


@pytest.mark.parametrize(('size', 'interpolation'), [((90, 99), 'nearest'), ((90, 100), 'antialiased')])
def test_interpolation_is_one_that_all_versions_of_matplotlib_know(size, interpolation):
    first, second, *_ = plot_analysis(torch.rand(3, *size), analysis_of(*size)).get_axes()
    # matplotlib 3.8 has no 'auto', the name that 3.10 gave to 'antialiased'
    shown = [image.get_interpolation() for image in (*first.images, second.images[0])]
    assert shown == [interpolation] * 2


def test_one_view_gives_a_constant_map(tiny):
    from maclip_pyiqa import MACLIP

    x = torch.rand(1, 3, 70, 80)
    figure = plot_analysis(x[0], MACLIP(backbone=tiny, views='global').analyze(x))
    draw(figure)
    low, high = figure.get_axes()[2].get_ylim()
    assert high - low > 0.01


def test_a_note():
    image = torch.rand(3, 96, 128)
    figure = plot_analysis(image, analysis_of(96, 128), note='from other weights')
    assert [part.get_supxlabel() for part in figure.subfigs] == ['', 'from other weights']
    figure.canvas.draw()
    assert not any(part.get_supxlabel() for part in plot_analysis(image, analysis_of(96, 128)).subfigs)


@pytest.mark.parametrize('shape', [(3, 96, 127), (4, 96, 128), (96, 128), (2, 3, 96, 128)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match=r'\(3, 96, 128\)'):
        plot_analysis(torch.rand(shape), analysis_of(96, 128))


def test_several_images_and_unknown_maps_are_refused():
    with pytest.raises(ValueError, match='of 2 images'):
        plot_analysis(torch.rand(3, 96, 128), analysis_of(96, 128, images=2))
    with pytest.raises(ValueError, match='nix'):
        plot_analysis(torch.rand(3, 96, 128), analysis_of(96, 128), of='nix')


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with pytest.raises(ImportError, match=r'maclip_pyiqa\[plot\]'):
        plot_analysis(torch.rand(3, 96, 128), analysis_of(96, 128))


@pytest.mark.slow
def test_no_pyplot_and_no_matplotlib_before_it_is_needed(tmp_path):
    code = """if True:
        import sys, torch
        from maclip_pyiqa import Analysis, ViewPlan
        from maclip_pyiqa.report.figures import plot_analysis
        assert 'matplotlib.figure' not in sys.modules
        v = torch.rand(1, 3)
        a = Analysis(v[:, :1], v, v, v, v, torch.rand(1, 3, 1), ('good',), ViewPlan.windows(64, 101, 64, 37))
        plot_analysis(torch.rand(3, 64, 101), a).savefig(sys.argv[1])
        assert 'matplotlib.pyplot' not in sys.modules
    """
    subprocess.run([sys.executable, '-c', code, str(tmp_path / 'a.png')], check=True)
