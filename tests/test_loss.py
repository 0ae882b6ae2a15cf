"""MACLIPLoss: its value and gradient, both forms, and the registries of training frameworks."""

import copy
import sys

import pyiqa.losses
import pytest
import torch
import torchvision
from pyiqa.utils.registry import LOSS_REGISTRY

import maclip_pyiqa
from maclip_pyiqa import MACLIP, MACLIPLoss


@pytest.fixture(scope='module')
def sharp(photos):
    return torch.stack(photos[:3])[..., 100:200, 100:220]


@pytest.fixture(scope='module')
def blurred(sharp):
    return torchvision.transforms.functional.gaussian_blur(sharp, 9, 2.0)


@pytest.fixture(scope='module')
def scores(tiny, sharp, blurred):
    """Of the sharp and of the blurred images, (3, 1) each. Stand-in weights: either may be higher."""
    metric = MACLIP(backbone=tiny)
    return metric(sharp), metric(blurred)


def test_value_is_one_minus_the_score(tiny, sharp, blurred, scores):
    want = 1 - scores[1]
    for reduction, value in {'mean': want.mean(), 'sum': want.sum(), 'none': want}.items():
        loss = MACLIPLoss(0.5, reduction, backbone=tiny)
        got = loss(blurred)
        assert got.shape == value.shape
        torch.testing.assert_close(got, 0.5 * value)
        assert got.equal(loss(blurred, sharp, weight=None))  # the target and all else are ignored
    mixed = [blurred[0], blurred[1, :, :80]]
    torch.testing.assert_close(MACLIPLoss(reduction='none', backbone=tiny)(mixed), 1 - MACLIP(backbone=tiny)(mixed))


def test_paired_stops_at_the_target(tiny, sharp, blurred, scores):
    difference = scores[0] - scores[1]
    loss = MACLIPLoss(reduction='none', paired=True, backbone=tiny)
    torch.testing.assert_close(loss(blurred, sharp), difference.clamp(min=0))
    torch.testing.assert_close(loss(sharp, blurred), (-difference).clamp(min=0))
    assert difference.abs().min() > 1e-4  # so that one of both is zero for each image

    for x, target, gain in ((blurred, sharp, difference), (sharp, blurred, -difference)):
        x, target = x.clone().requires_grad_(), target.clone().requires_grad_()
        loss(x, target).sum().backward()
        assert target.grad is None
        assert torch.equal(x.grad.flatten(1).norm(dim=1) > 0, gain[:, 0] > 0)
    assert not loss(sharp, sharp).any()


def test_gradient_is_that_of_the_metric_and_leads_down(tiny, blurred, close_gradients):
    loss, metric = MACLIPLoss(2.0, 'sum', backbone=tiny), MACLIP(backbone=tiny)
    x = blurred.clone().requires_grad_()
    value = loss(x)
    value.backward()
    y = blurred.clone().requires_grad_()
    metric(y).sum().backward()
    close_gradients(x.grad, -2 * y.grad)
    step = blurred - 1e-4 * x.grad / x.grad.abs().max()
    assert loss(step) < value


def test_values_outside_the_range_are_clamped(tiny, blurred):
    loss = MACLIPLoss(backbone=tiny)
    x = (blurred * 1.5 - 0.25).requires_grad_()
    outside = (x < 0) | (x > 1)
    assert outside.any() and not outside.all()
    with torch.no_grad():
        want = loss(x.clamp(0, 1))
        torch.testing.assert_close(loss(x), want)  # also without gradient, where the metric itself refuses them
    got = loss(x)
    torch.testing.assert_close(got, want)
    got.backward()
    assert not x.grad[outside].any() and x.grad[~outside].any()


def test_sampled_views_are_the_same_of_image_and_target(tiny, photos):
    x = torch.stack(photos[:2])[..., :160, :200]
    loss = MACLIPLoss(reduction='none', paired=True, backbone=tiny, sample_views=2)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    # of an image and itself: zero, although other windows of it have other scores
    assert loss(x.clone().requires_grad_(), x).abs().max() < 1e-6
    torch.manual_seed(3)
    first = loss.metric(x.clone().requires_grad_())
    second = loss.metric(x.clone().requires_grad_())
    assert (first - second).abs().max() > 1e-4

    # the generator has moved as by one call of the metric
    torch.set_rng_state(state)
    loss(x.clone().requires_grad_(), x)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    loss.metric(x.clone().requires_grad_())
    assert after.equal(torch.get_rng_state())

    # without gradient all views count, of both
    worse = x.flip(1)
    full = MACLIP(backbone=tiny)
    torch.testing.assert_close(loss(x, worse), (full(worse) - full(x)).clamp(min=0))


def test_it_is_no_part_of_the_model(tiny, blurred):
    model = torch.nn.ModuleDict({'net': torch.nn.Conv2d(3, 3, 1), 'loss': MACLIPLoss(backbone=tiny)})
    assert list(model.state_dict()) == ['net.weight', 'net.bias'] and not list(model['loss'].parameters())
    model.train().double().to(memory_format=torch.channels_last)
    assert not model['loss'].metric.training
    assert model['loss'](blurred.double()).dtype == torch.float64
    assert copy.deepcopy(model['loss']).float()(blurred).dtype == torch.float32
    assert model['loss'].to('meta').metric.backbone.mean.device.type == 'meta'
    assert 'paired=True' in repr(MACLIPLoss(paired=True, backbone=tiny))


@pytest.mark.parametrize(
    ('options', 'error', 'want'),
    [
        ({'loss_weight': '1'}, TypeError, "loss_weight='1'; expected a number"),
        ({'loss_weight': True}, TypeError, 'loss_weight=True; expected a number'),
        ({'loss_weight': -1}, ValueError, 'loss_weight=-1; expected a finite number of at least 0'),
        ({'loss_weight': float('nan')}, ValueError, 'loss_weight=nan; expected a finite'),
        ({'reduction': 'median'}, ValueError, "reduction='median'; expected 'mean', 'sum' or 'none'"),
        ({'paired': 1}, TypeError, 'paired=1; expected True or False'),
        ({'views': 'some'}, ValueError, "views='some'"),
        ({'weight': 1}, TypeError, 'weight'),
    ],
)
def test_wrong_options(tiny, options, error, want):
    with pytest.raises(error, match=want):
        MACLIPLoss(**{'backbone': tiny} | options)


def test_wrong_images(tiny, sharp):
    loss = MACLIPLoss(paired=True, backbone=tiny)
    with pytest.raises(ValueError, match='paired=True without a target; pass the reference images'):
        loss(sharp)
    with pytest.raises(ValueError, match=r'the target has the shapes .*\(3, 100, 120\)\], x has .*\(3, 50, 120\)'):
        loss(sharp[..., :50, :], sharp)
    with pytest.raises(ValueError, match='expected the same'):
        loss(sharp, sharp[:1])
    with pytest.raises(ValueError, match='divide by 255'):
        loss(sharp, sharp * 255)
    for x in ('photo.png', None, 3):
        with pytest.raises(TypeError, match='expected a tensor'):
            MACLIPLoss(backbone=tiny)(x)
    with pytest.raises(ValueError, match='not finite'):
        MACLIPLoss(backbone=tiny)(sharp * float('nan'))


# --- registries --------------------------------------------------------------------------------------------------


def test_pyiqas_registry(tiny, blurred, scores):
    options = {'type': 'MACLIPLoss', 'loss_weight': 0.1, 'backbone': tiny}
    loss = pyiqa.losses.build_loss(options)
    assert type(loss) is MACLIPLoss is maclip_pyiqa.MACLIPLoss and options['type'] == 'MACLIPLoss'
    torch.testing.assert_close(loss(blurred), 0.1 * (1 - scores[1]).mean())
    assert 'L1Loss' in LOSS_REGISTRY


def test_a_registry_of_basicsrs_interface(tiny, blurred, scores):
    """`register(cls)` and `get(name)(**options)`, as in BasicSR; traiNNer-redux looks names up in lower case."""

    class Registry(dict):
        def register(self, cls):
            self[cls.__name__.lower()] = cls

        def get(self, name):
            return self[name.lower()]

    registry = Registry()
    registry.register(MACLIPLoss)
    loss = registry.get('MACLIPLoss')(loss_weight=2.0, reduction='sum', backbone=tiny)
    total = torch.tensor(0.0)
    total += loss(blurred, blurred)  # in place, as traiNNer-redux adds its losses up
    torch.testing.assert_close(total, 2 * (1 - scores[1]).sum())


def test_basicsr(tiny, blurred, scores, monkeypatch):
    # BasicSR 1.4.2 imports a module that torchvision has since renamed
    monkeypatch.setitem(sys.modules, 'torchvision.transforms.functional_tensor', torchvision.transforms.functional)
    losses = pytest.importorskip('basicsr.losses')
    if 'MACLIPLoss' not in losses.LOSS_REGISTRY:
        losses.LOSS_REGISTRY.register(MACLIPLoss)
    loss = losses.build_loss({'type': 'MACLIPLoss', 'loss_weight': 0.1, 'backbone': tiny})
    torch.testing.assert_close(loss(blurred, blurred), 0.1 * (1 - scores[1]).mean())
