"""A metric that is built, moved or copied under other defaults of torch, or inside its modes, is as any other."""

import copy
import pickle
import threading
from contextlib import ExitStack, contextmanager

import open_clip
import pytest
import torch

from maclip_pyiqa import MACLIP
from maclip_pyiqa.backbone import clip
from maclip_pyiqa.backbone.guest import plain_torch
from maclip_pyiqa.testing import TINY, save_torchscript, state_dict


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
        assert torch.get_default_device() == torch.device(device)
    finally:
        torch.set_default_device(None)


@contextmanager
def all_at_once():
    with ExitStack() as stack:
        for name in ('float64', 'inference mode', 'meta', 'autocast'):
            stack.enter_context(PLACES[name]())
        yield


PLACES = {
    'float64': lambda: default_dtype(torch.float64),
    'bfloat16': lambda: default_dtype(torch.bfloat16),
    'float16': lambda: default_dtype(torch.float16),
    'inference mode': torch.inference_mode,
    'no gradients': torch.no_grad,
    'meta': lambda: torch.device('meta'),
    'default meta': lambda: default_device('meta'),
    'autocast': lambda: torch.autocast('cpu', torch.bfloat16),
    'all at once': all_at_once,
}


@pytest.fixture(params=PLACES)
def place(request):
    return PLACES[request.param]


@pytest.fixture(
    scope='module',
    params=['demo', *(pytest.param(kind, marks=pytest.mark.slow) for kind in ('folder', 'TorchScript', 'torch.save'))],
)
def options(request, tiny, tiny_clip, tmp_path_factory):
    if request.param in ('demo', 'folder'):
        return {'backbone': 'demo' if request.param == 'demo' else tiny, 'pos_embedding': True}
    path = tmp_path_factory.mktemp('anywhere') / 'weights.pt'
    {'TorchScript': save_torchscript, 'torch.save': torch.save}[request.param](state_dict(tiny_clip), path)
    open_clip.factory._MODEL_CONFIGS['tiny'] = TINY
    request.addfinalizer(lambda: open_clip.factory._MODEL_CONFIGS.pop('tiny'))
    return {'backbone': 'tiny', 'pretrained': path}


@pytest.fixture(scope='module')
def plain(options):
    return MACLIP(**options)


@pytest.fixture
def check_same(photos):
    """Asserts that a metric is on the CPU, and has the fingerprint, the scores and the gradients of another."""
    x = torch.stack(photos[:2])[..., :100, :130]

    def results(metric):
        y = x.clone().requires_grad_()
        metric(y).sum().backward()
        with torch.no_grad():
            return metric(x), y.grad

    def check_same(metric, plain):
        assert metric.fingerprint() == plain.fingerprint()
        for buffer in metric.buffers():
            assert buffer.device.type == 'cpu' and buffer.dtype in (torch.float32, torch.int64)
            assert not buffer.is_inference()
        assert all(torch.equal(*both) for both in zip(results(metric), results(plain), strict=True))

    return check_same


def test_built(options, plain, place, check_same):
    with place():
        metric = MACLIP(**options)
    check_same(metric, plain)


def test_moved(tiny_metric, place, check_same):
    moved = copy.deepcopy(tiny_metric)
    with place():
        moved.backbone.double().float().to('cpu', memory_format=torch.channels_last)
    check_same(moved, tiny_metric)


@pytest.mark.parametrize('twin', [copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric))])
def test_copied(tiny_metric, place, check_same, twin):
    with place():
        metric = twin(tiny_metric)
    check_same(metric, tiny_metric)


@pytest.mark.parametrize('name', [name for name in PLACES if name not in ('autocast', 'all at once')])
def test_called(tiny, photos, name):
    """Images that are cut, enlarged, and drawn windows of; maps and summaries."""
    metric = MACLIP(backbone=tiny)
    for image in (photos[0][:, :100, :130], photos[1][:, :30, :40]):
        want, analysis = metric([image]), metric.analyze(image[None])
        with PLACES[name]():
            assert torch.equal(metric([image]), want)
            got = metric.analyze(image[None])
            assert got[0].summary() == analysis[0].summary()
            for make in (lambda a: a.quality_map(), lambda a: a.coverage(), lambda a: a.boxes):
                assert torch.equal(make(got), make(analysis)) and make(got).dtype == torch.float32
    whole = MACLIP(backbone=tiny, views='global').analyze(photos[0][None])
    with PLACES[name]():
        assert whole.coverage().dtype == torch.float32 and whole.coverage().device.type == 'cpu'


@pytest.mark.parametrize('name', ['float64', 'meta', 'default meta'])
def test_windows_are_drawn_on_the_cpu(tiny, photos, name):
    metric = MACLIP(backbone=tiny, sample_views=2)
    grads = []
    for place in (torch.enable_grad, PLACES[name]):
        torch.manual_seed(0)
        x = photos[0][None].clone().requires_grad_()
        with place():
            metric(x).sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


def test_on_the_default_device(monkeypatch):
    """Built on the CPU, then moved, as modules of torch are made on it."""
    moved = []
    monkeypatch.setattr(clip, 'default_device', lambda: torch.device('cuda', 0))
    monkeypatch.setattr('maclip_pyiqa.backbone.Backbone.to', lambda self, *args, **kwargs: moved.append((args, kwargs)))
    MACLIP(backbone='demo')
    assert moved == [((), {'memory_format': torch.channels_last}), ((torch.device('cuda', 0),), {})]


def test_threads_that_build_at_once():
    """The default dtype is put back by the last one, and is float32 until then."""
    inside, go, seen = threading.Event(), threading.Event(), []

    def build():
        with plain_torch():
            inside.set()
            assert go.wait(60)
            seen.append(torch.empty(0).dtype)

    with default_dtype(torch.float64):
        thread = threading.Thread(target=build)
        thread.start()
        assert inside.wait(60)
        with plain_torch():
            go.set()
            thread.join()
            seen.append(torch.empty(0).dtype)
    assert seen == [torch.float32] * 2
