"""Checks of images: ranges of their values."""

import re

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from maclip_pyiqa import MACLIP, MACLIPLoss
from maclip_pyiqa.metric.checks import OVERSHOOT, RangeCheck, check_range


@pytest.fixture
def photo(photos):
    return photos[0][:, :96, :128]


FORMATS = {  # what people pass instead of [0, 1], and what the message says about it
    '[-1, 1]': (lambda x: 2 * x - 1, r'looks like \[-1, 1\]: use \(x \+ 1\) / 2$'),
    '[0, 255]': (lambda x: 255 * x, r'looks like \[0, 255\]: divide by 255$'),
    '16 bits': (lambda x: 65535 * x, 'divide by the largest value of its format, such as 65535 for 16 bits$'),
    'normalised': (lambda x: (x - 0.45) / 0.225, r'looks normalised .*x \* std \+ mean$'),
    'overshoot of [0, 255]': (lambda x: 255 * (1.1 * x - 0.05), 'divide by 255$'),
}


@pytest.mark.parametrize('form', FORMATS)
def test_other_ranges_are_refused_with_gradient_as_without(tiny_metric, tiny, photo, form):
    change, hint = FORMATS[form]
    x = change((photo - photo.min()) / (photo.max() - photo.min()))[None]
    loss = MACLIPLoss(backbone=tiny)
    for call in (tiny_metric, tiny_metric.analyze, tiny_metric.features, loss, lambda x: loss([x[0]])):
        for image in (x, x.clone().requires_grad_(), 1 * x.clone().requires_grad_()):
            with pytest.raises(ValueError, match=rf'image 0 has values in .*; expected \[0, 1\]; .*{hint}'):
                call(image)
    with pytest.raises(ValueError, match='image 1 has'):
        tiny_metric([photo, x[0].requires_grad_()])
    paired = MACLIPLoss(backbone=tiny, paired=True)
    with pytest.raises(ValueError, match=hint):
        paired(photo[None].clone().requires_grad_(), x)


@pytest.mark.parametrize('by', [0.01, 0.2, OVERSHOOT])
def test_a_step_of_an_optimiser_may_leave_the_range(tiny_metric, tiny, photo, by):
    x = (photo * (1 + 2 * by) - by)[None].requires_grad_()
    assert tiny_metric(x).isfinite().all()
    MACLIPLoss(backbone=tiny)(x).backward()
    assert x.grad.abs().sum() > 0
    with pytest.raises(ValueError, match='clamp it' if by < 0.5 else 'x \\+ 1'):
        tiny_metric(x.detach())
    with torch.no_grad():
        MACLIPLoss(backbone=tiny)(x)  # as in the validation of a training


def test_overflow_goes_through_with_gradient(tiny_metric, photo):
    """Mixed precision skips steps by it."""
    for value in (float('nan'), float('inf')):
        x = photo[None].clone()
        x[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match='not finite'):
            tiny_metric(x)
        assert not tiny_metric(x.requires_grad_()).isfinite().all()


class OnAnAccelerator:
    """An image that counts how often its values are looked at, each of which would wait for the device."""

    device, is_meta = torch.device('cuda'), False
    looks = 0

    def __init__(self, high=1.0, requires_grad=True):
        self.high, self.requires_grad = high, requires_grad

    def __gt__(self, limit):
        return torch.full((3, 2, 2), self.high > limit)

    def __lt__(self, limit):
        return torch.full((3, 2, 2), limit > 0)

    def detach(self):
        return self

    def aminmax(self):
        OnAnAccelerator.looks += 1
        return torch.tensor(0.0), torch.tensor(self.high)


def test_training_on_an_accelerator_waits_a_few_times():
    check = RangeCheck()
    for _ in range(1000):
        check([OnAnAccelerator()])
    assert OnAnAccelerator.looks == 10  # at calls 1, 2, 4, ..., 512
    for _ in range(3):
        check([OnAnAccelerator(requires_grad=False)])  # scoring waits for its result anyway
    assert OnAnAccelerator.looks == 13
    with pytest.raises(ValueError, match='divide by 255'):
        RangeCheck()([OnAnAccelerator(255.0)])


def test_a_few_values_far_outside_end_no_training(tiny_metric, tiny, photo):
    loss = MACLIPLoss(backbone=tiny)
    x = photo[None].clone(memory_format=torch.contiguous_format)
    x.view(-1)[: x.numel() // 200] = 40
    for call in (tiny_metric, loss):
        call(x.clone().requires_grad_()).sum().backward()
    loss(x)  # in a validation
    with pytest.raises(ValueError, match='values in'):
        tiny_metric(x)
    x.view(-1)[: x.numel() // 50] = 40
    for call in (tiny_metric, loss):
        with pytest.raises(ValueError, match='values in'):
            call(x.clone().requires_grad_())


def test_values_that_do_not_exist(photo):
    """As estimators of memory and operations use them."""
    metric = MACLIP(backbone='demo')
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert metric(mode.from_tensor(photo[None]).requires_grad_()).shape == (1, 1)


def test_the_loss_checks_form_first(tiny, photo):
    loss = MACLIPLoss(backbone=tiny)
    with pytest.raises(TypeError, match=r'x.float\(\) / 255'):
        loss((photo[None] * 255).byte())
    with pytest.raises(ValueError, match=r'x\[None\]'):
        loss(photo * 255)
    with pytest.raises(ValueError, match='shape'):
        loss(torch.empty(1, 3, 0, 96))


def test_functional_transforms(tiny, photo):
    metric = MACLIP(backbone=tiny, views='global')
    score = lambda image: metric(image[None]).sum()  # noqa: E731
    x = photo.clone().requires_grad_()
    (want,) = torch.autograd.grad(score(x), x)
    torch.testing.assert_close(torch.func.grad(score)(photo), want)


@pytest.mark.parametrize(
    ('low', 'high', 'hint'),
    [
        (-0.1, 1.1, r'^clamp it to \[0, 1\]$'),
        (-0.3, 1, r'x \+ 1\) / 2, or clamp it'),
        (-1.1, 1.2, r'\(x \+ 1\) / 2$'),
        (-2.1, 0.4, 'mean'),
        (-1.8, 2.6, 'mean'),
        (-20, 280, '255'),
        (-127, 127, '^scale or clamp'),
        (0, 3, '^scale or clamp'),
        (0, float('inf'), 'not finite'),
        (0, 4095, '65535 for 16 bits$'),
        (0, 15, '^scale or clamp'),
    ],
)
def test_hints(low, high, hint):
    with pytest.raises(ValueError, match=r'expected \[0, 1\]') as error:
        check_range(0, low, high)
    assert re.search(hint, str(error.value).split('; ', 2)[2])
