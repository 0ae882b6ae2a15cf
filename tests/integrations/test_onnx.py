"""Scores of exported programs against those of the module; ONNX files run in onnxruntime."""

import sys

import pytest
import torch
import torch.nn.functional as F

from maclip_pyiqa import MACLIP
from maclip_pyiqa.integrations.onnx import export
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
    [('.pt2', (130, 150)), pytest.param('.onnx', (40, 90), marks=pytest.mark.slow)],
    ids=['large', 'enlarged'],
)
def test_one_size(tiny, photos, tmp_path, size, suffix):
    metric, path = MACLIP(backbone=tiny), tmp_path / f'metric{suffix}'
    export(metric, path, size)
    check(metric, path, torch.stack(photos[:3])[..., : size[0], : size[1]])


@pytest.mark.slow
def test_vit_with_its_options(tiny_vit, photos, tmp_path):
    options = {'prompts': 'sharp', 'box_lam': 0, 'alpha': 2.0, 'stride': 50, 'pos_embedding': True}
    metric = MACLIP(backbone=tiny_vit, **options)
    export(metric, tmp_path / 'vit.onnx', (100, 130))
    check(metric, tmp_path / 'vit.onnx', torch.stack(photos[:4])[..., :100, :130])


@pytest.mark.slow
@pytest.mark.parametrize(
    ('views', 'kind'), [('windows', 'tiny'), ('windows', 'tiny_vit'), ('global', 'tiny'), ('full', 'tiny')]
)
def test_any_size(request, photos, tmp_path, views, kind):
    """One program for several sizes, also as one ONNX file without weights beside it."""
    metric = MACLIP(backbone=request.getfixturevalue(kind), views=views, prompt_weights=[1, 2, 3, 4, 0])
    least = {'windows': 64 + 37, 'global': 2, 'full': 64}[views]  # the documented shortest side
    path = tmp_path / 'any.onnx'
    program = export(metric, path).module()
    assert [f.name for f in tmp_path.iterdir()] == ['any.onnx']
    session = onnxruntime.InferenceSession(path)
    shapes = [node.shape for node in (*session.get_inputs(), *session.get_outputs())]
    assert shapes == [['batch', 3, 'height', 'width'], ['batch', 1]]
    for size in ((least, least + 17), (233, least), (150, 150)):
        x = F.interpolate(torch.stack(photos[:3]), size, mode='bilinear')
        check(metric, path, x)
        torch.testing.assert_close(program(x), metric(x), rtol=0, atol=1e-5)
    if views == 'windows':
        with pytest.raises(Exception, match='101'):  # a program refuses what is too small
            program(photos[0][None, :, :100, :150])


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
