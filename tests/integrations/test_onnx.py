"""Scores of exported programs against those of the module; ONNX files run in onnxruntime."""

import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maclip_pyiqa import MACLIP
from maclip_pyiqa.integrations.onnx import _refuse_below, export
from maclip_pyiqa.testing import TINY, make_clip, save_folder

pytest.importorskip('onnxscript', reason='extra `export` is not installed')
onnxruntime = pytest.importorskip('onnxruntime', reason='extra `test` is not installed')

VIT = TINY | {'vision_cfg': {'image_size': 64, 'layers': 2, 'width': 64, 'head_width': 32, 'patch_size': 16}}

pytestmark = pytest.mark.filterwarnings('ignore')  # from the exporter, about torch's internals


@pytest.fixture(scope='module')
def tiny_vit(photos, tmp_path_factory) -> str:
    return save_folder(make_clip(VIT, photos[:4]), VIT, tmp_path_factory.mktemp('vit'))


def check(metric, path, x):
    """The file's scores of another batch size than the exporter saw, to float rounding."""
    want = metric(x)
    assert want.std() > 1e-2
    if path.suffix == '.pt2':
        got = torch.export.load(path).module()(x)
    else:
        session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
        got = torch.from_numpy(session.run(['scores'], {'images': x.numpy()})[0])
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ('suffix', 'size'),
    [('.pt2', (130, 150)), ('.onnx', (40, 90))],
    ids=['large', 'enlarged'],
)
@pytest.mark.slow
def test_one_size(tiny, photos, tmp_path, size, suffix):
    metric, path = MACLIP(backbone=tiny), tmp_path / f'metric{suffix}'
    export(metric, path, size)
    check(metric, path, torch.stack(photos[:3])[..., : size[0], : size[1]])


def test_a_head(tiny, tiny_head, photos, tmp_path):
    metric = MACLIP(backbone=tiny, head=tiny_head, views='global')
    export(metric, tmp_path / 'head.pt2', (64, 64))
    x = torch.stack(photos[:3])[..., :64, :64]
    torch.testing.assert_close(torch.export.load(tmp_path / 'head.pt2').module()(x), metric(x), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_vit_with_its_options_and_a_head(tiny_vit, photos, tmp_path, save_head):
    options = {'prompts': 'sharp', 'box_lam': 0, 'alpha': 2.0, 'stride': 50, 'pos_embedding': True}
    metric = MACLIP(backbone=tiny_vit, **options)
    export(metric, tmp_path / 'vit.onnx', (100, 130))
    check(metric, tmp_path / 'vit.onnx', torch.stack(photos[:4])[..., :100, :130])
    metric.load_head(save_head(metric, tmp_path / 'head.safetensors'))
    export(metric, tmp_path / 'head.onnx', (64, 90))
    check(metric, tmp_path / 'head.onnx', torch.stack(photos[:4])[..., :64, :90])


@pytest.mark.slow
@pytest.mark.parametrize(
    ('views', 'kind'), [('windows', 'tiny'), ('windows', 'tiny_vit'), ('global', 'tiny'), ('full', 'tiny')]
)
def test_any_size(request, photos, tmp_path, views, kind):
    """One program for all sizes from a shortest side on, also as one ONNX file without weights beside it."""
    metric = MACLIP(backbone=request.getfixturevalue(kind), views=views, prompt_weights=[1, 2, 3, 4, 0])
    least = {'windows': 64, 'global': 1, 'full': 32}[views]  # the documented shortest side
    path = tmp_path / 'any.onnx'
    program = export(metric, path).module()
    assert [f.name for f in tmp_path.iterdir()] == ['any.onnx']
    session = onnxruntime.InferenceSession(path)
    shapes = [node.shape for node in (*session.get_inputs(), *session.get_outputs())]
    assert shapes == [['batch', 3, 'height', 'width'], ['batch', 1]]
    below = 2 * least if views == 'full' else least  # of the program of torch
    sides = {least, least + 1, least + 36, least + 37, 2 * least - 1, 2 * least, 150, 233}  # 37 is the stride
    sizes = [(least, side) for side in sides] + [(side, least) for side in sides] + [(150, 233), (least, 3000)]
    for size in sizes:
        x = F.interpolate(torch.stack(photos[:3]), size, mode='bilinear')
        want = metric(x)
        for n in (1, 3):
            (scores,) = session.run(['scores'], {'images': x[:n].numpy()})
            torch.testing.assert_close(torch.from_numpy(scores), want[:n], rtol=0, atol=1e-5)
        if min(size) >= below:
            torch.testing.assert_close(program(x), want, rtol=0, atol=1e-5)

    x = photos[0][None]
    for height, width in ((least - 1, 150), (150, least - 1), (least - 1, least - 1), (least // 2, least)):
        with pytest.raises(Exception, match=f'sides_are_at_least_{least}_pixels'):
            session.run(None, {'images': x[..., :height, :width].numpy()})
    for height, width in ((below - 1, 150), (150, below - 1)):
        with pytest.raises(Exception, match=rf'>= {below}|greater than 0'):
            program(x[..., :height, :width])
    grey = x[:, :1, :150, :150]
    for run in (program, lambda grey: session.run(None, {'images': grey.numpy()})):
        with pytest.raises(Exception, match=r'(?i)index: 1|size\(\)\[1\] == 3'):
            run(grey)


@pytest.mark.slow
def test_a_fixed_size_is_the_only_one(tiny, photos, tmp_path):
    metric = MACLIP(backbone=tiny)
    for size in ((130, 150), (40, 90)):
        program = export(metric, tmp_path / 'a.onnx', size).module()
        session = onnxruntime.InferenceSession(tmp_path / 'a.onnx')
        for height, width in ((1, 0), (0, 1), (-1, 0), (0, -1), (100, 100)):
            x = photos[0][None, :, : size[0] + height, : size[1] + width]
            with pytest.raises(Exception, match='INVALID_ARGUMENT'):
                session.run(None, {'images': x.numpy()})
            with pytest.raises(Exception, match='Guard failed'):
                program(x)


def test_the_check_of_sides_stays_whatever_optimises_a_model(tmp_path):
    """On a model that takes any size, with each optimiser of the libraries at hand."""
    import onnx
    from onnxscript import ir, optimizer

    graph = onnx.parser.parse_graph(
        'g (float[batch, 3, height, width] images) => (float[batch, 1, 1, 1] scores) '
        '{ scores = ReduceMean <axes: ints = [1, 2, 3]> (images) }'
    )
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=8))
    _refuse_below(model, 5)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL):
        for proto in (inferred, optimizer.optimize(inferred)):
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = level
            options.optimized_model_filepath = str(tmp_path / 'optimized.onnx')
            onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=['CPUExecutionProvider'])
            session = onnxruntime.InferenceSession(tmp_path / 'optimized.onnx', providers=['CPUExecutionProvider'])
            for height, width in ((5, 5), (5, 6), (70, 5)):
                x = torch.rand(2, 3, height, width)
                (got,) = session.run(None, {'images': x.numpy()})
                torch.testing.assert_close(torch.from_numpy(got), x.mean((1, 2, 3), keepdim=True))
            for height, width in ((4, 5), (5, 4), (4, 4), (1, 25), (25, 1), (4, 500)):
                with pytest.raises(Exception, match='sides_are_at_least_5_pixels'):
                    session.run(None, {'images': torch.rand(2, 3, height, width).numpy()})


@pytest.mark.parametrize(
    ('arguments', 'error', 'say'),
    [
        ({'size': (0, 64)}, ValueError, r'\(0, 64\)'),
        ({'size': (64,)}, ValueError, r'\(height, width\)'),
        ({'size': (64.0, 64)}, ValueError, r'\(height, width\)'),
        ({'path': 'a.pth', 'size': (64, 64)}, ValueError, r'\.pt2 or \.onnx'),
    ],
)
def test_wrong_arguments(tiny_metric, arguments, error, say):
    with pytest.raises(error, match=say):
        export(tiny_metric, **arguments)


@pytest.mark.slow
def test_what_cannot_be_exported(tiny, monkeypatch):
    with pytest.raises(TypeError, match=r'Linear.*attribute net'):
        export(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r'\(height, width\)'):
        export(MACLIP(backbone=tiny), size=100)
    with pytest.raises(FileNotFoundError, match='no such folder'):
        export(MACLIP(backbone=tiny), '/nowhere/a.pt2')
    with pytest.raises(ValueError, match='cannot be exported for any size'):
        export(MACLIP(backbone=tiny, views='full', pos_embedding=True))
    with pytest.raises(ValueError, match='max_views cannot be exported for any size'):
        export(MACLIP(backbone=tiny, max_views=2))
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(ModuleNotFoundError, match=r'maclip_pyiqa\[export\]'):
        export(MACLIP(backbone=tiny), 'a.onnx', (64, 64))


@pytest.mark.parametrize('size', [(np.int64(70), np.int32(80)), np.array([70, 80]), [70, 80]])
def test_sizes_of_numpy(tiny_metric, size):
    assert export(tiny_metric, size=size).module()(torch.rand(1, 3, 70, 80)).shape == (1, 1)


@pytest.mark.parametrize('size', [(True, 120), (0, 120), (70.0, 80), 'ab', 70, (70, 80, 3)])
def test_sizes_that_are_none(tiny_metric, size):
    with pytest.raises(ValueError, match=r'expected \(height, width\) in pixels'):
        export(tiny_metric, size=size)
