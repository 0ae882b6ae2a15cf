"""Cues and fusion against scipy and NumPy."""

import numpy as np
import pytest
import torch
from scipy.special import boxcox1p, expit, softmax

from maclip_pyiqa.metric.cues import cosine_cue, fuse, magnitude_cue


@pytest.fixture
def f():
    return torch.randn(3, 5, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def text():
    t = torch.randn(4, 2, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return t / t.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize('lam', [0.5, 0.0, 1.0, 0.25, 2.0, -1.0, 1e-9])
def test_magnitude_is_boxcox_of_standardised_magnitude(f, lam):
    a = np.abs(f.numpy())
    z = a / (a.std(-1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(magnitude_cue(f, lam).numpy(), boxcox1p(z, lam).mean(-1), rtol=1e-12)


def test_magnitude_in_float32_is_continuous_at_lambda_zero(f):
    f = f.float()
    torch.testing.assert_close(magnitude_cue(f, 1e-7), magnitude_cue(f, 0), rtol=1e-6, atol=0)


def test_magnitude_ignores_scale_and_sign(f):
    torch.testing.assert_close(magnitude_cue(100 * f), magnitude_cue(f), rtol=1e-5, atol=0)
    torch.testing.assert_close(magnitude_cue(-f), magnitude_cue(f), rtol=0, atol=0)


def test_cosine_cue(f, text):
    got = cosine_cue(f, text, 100.0)
    assert got.shape == (3, 5, 4)
    unit = f.numpy() / np.linalg.norm(f.numpy(), axis=-1, keepdims=True)
    for pair in range(4):
        logits = 100 * unit @ text[pair].numpy().T
        np.testing.assert_allclose(got[..., pair].numpy(), softmax(logits, -1)[..., 0], atol=1e-12)


@pytest.mark.parametrize(('base_cos', 'base_norm', 'alpha'), [(1.0, 0.6, 1.0), (1.0, 1.0, 0.0), (0.2, 3.0, -2.0)])
def test_fusion_weight_is_a_sigmoid(base_cos, base_norm, alpha):
    q_sim, q_mag = torch.rand(2, 50, dtype=torch.float64)
    q, w = fuse(q_sim, q_mag, base_cos, base_norm, alpha)
    want = expit(base_cos - base_norm + 2 * alpha * (q_sim - q_mag).numpy())
    np.testing.assert_allclose(w.numpy(), want, rtol=1e-12)
    np.testing.assert_allclose(q.numpy(), want * q_sim.numpy() + (1 - want) * q_mag.numpy(), rtol=1e-12)


@pytest.mark.parametrize('lam', [0.5, 0.0, 1.0])
def test_gradcheck(f, text, lam):
    f = f[0, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: magnitude_cue(f, lam), f)
    assert torch.autograd.gradcheck(lambda f: cosine_cue(f, text, 5.0), f)
    q = torch.rand(2, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q: fuse(q[0], q[1]), q)
    assert torch.autograd.gradgradcheck(lambda f: magnitude_cue(f, lam), f)


@pytest.mark.parametrize('value', [0.0, 1.0])
def test_constant_feature_has_finite_cues_and_gradients(value, text):
    f = torch.full((64,), value, dtype=torch.float64, requires_grad=True)
    q, _ = fuse(cosine_cue(f, text, 100.0).mean(-1), magnitude_cue(f))
    q.backward()
    assert q.isfinite() and f.grad.isfinite().all()
