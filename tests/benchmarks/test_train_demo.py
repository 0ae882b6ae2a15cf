"""Training of the demonstration backbone: its data, its losses, and a folder that loads."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special, stats

from maclip_pyiqa import MACLIP
from maclip_pyiqa.demo import PHOTO


@pytest.fixture(scope='module')
def crops(script):
    return script.Crops(seed=3, steps=5, crops=6)


def test_crops_come_in_fours(crops):
    images, faults = crops[2]
    assert images.shape == (24, 3, 96, 96) and faults.shape == (24, 5)
    assert images.min() >= 0 and images.max() <= 1 and faults.min() >= 0 and faults.max() <= 1
    clean, weak, strong, mixed = faults.unflatten(0, (-1, 4)).unbind(1)
    assert (clean == 0).all() and (weak > 0).all() and (strong > weak).all() and (mixed > 0).all()
    error = (images.unflatten(0, (-1, 4)) - images[::4, None]).square().mean((2, 3, 4))
    assert (error[:, 1:] > 0).all() and (error[:, 2] > error[:, 1]).all()
    assert all(image.std() > 0.02 for image in images[::4])  # content


def test_an_item_is_its_seed_and_index(script, crops):
    again, other = script.Crops(3, 5, 6), script.Crops(4, 5, 6)
    assert torch.equal(again[4][0], crops[4][0]) and torch.equal(crops[4][0], crops[4][0])
    assert not torch.equal(other[4][0], crops[4][0]) and not torch.equal(crops[3][0], crops[4][0])


def test_held_out_photos_are_not_read(script):
    """Neither pyiqa's photos, which the report uses, nor that of the demo command."""
    assert set(script.PHOTOS) == {'skimage', 'sklearn', 'matplotlib'}
    assert PHOTO.stem not in {name for package in script.PHOTOS.values() for name in package}


def test_losses_are_as_written(script):
    options = {'generator': torch.Generator().manual_seed(0), 'dtype': torch.float64}
    f, t = torch.randn(8, 16, **options), F.normalize(torch.randn(7, 2, 16, **options), dim=-1)
    faults, scale = torch.rand(8, 5, **options), torch.tensor(9.0, dtype=torch.float64)
    column, main = torch.tensor([0, 0, 1, 2, 3, 4, 4]), torch.tensor([0, 2, 3, 4, 5])
    got = {name: float(term) for name, term in script.losses(f, t, scale, faults, column, main).items()}

    x, y, target = f.numpy(), t.numpy(), 0.95 - 0.9 * faults.numpy()
    p = special.expit(9 * np.einsum('bd,pd->bp', x / np.linalg.norm(x, axis=1, keepdims=True), y[:, 0] - y[:, 1]))
    entropy = -(target[:, column] * np.log(p) + (1 - target[:, column]) * np.log(1 - p)).mean()
    q_sim = p[:, main].mean(1)
    z = np.abs(x) / (np.abs(x).std(1, ddof=1, keepdims=True) + 1e-6)
    q_mag = stats.boxcox(z.ravel() + 1, 0.5).reshape(z.shape).mean(1)

    def order(q):
        return sum(np.logaddexp(0, 0.5 - 20 * (q[a::4] - q[b::4])).mean() for a, b in ((0, 1), (1, 2), (1, 3)))

    level = 5 * np.square(q_mag - 0.3 - 0.6 * target[:, 0]).mean()
    want = {'prompts': entropy, 'q_sim': 0.3 * order(q_sim), 'q_mag': 0.3 * order(q_mag), 'level': level}
    assert got == pytest.approx(want, rel=1e-9)


def test_a_short_training(script, tmp_path, monkeypatch, photos):
    """Seeded; the loss falls; and what is written loads as any folder does."""
    first, again = (script.train(seed=3, steps=3, crops=2, lr=2e-3, workers=0).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    monkeypatch.setattr('sys.argv', ['train_demo', str(tmp_path / 'a'), '--steps', '3', '--crops', '2', '--seed', '3'])
    assert script.main() == 0
    names = sorted(path.name for path in (tmp_path / 'a').iterdir())
    assert names == ['open_clip_config.json', 'open_clip_model.safetensors']
    assert sum(path.stat().st_size for path in (tmp_path / 'a').iterdir()) < 7e6
    metric = MACLIP(backbone=f'local-dir:{tmp_path / "a"}')
    assert metric.backbone.window == 96 and metric(photos[0][None]).isfinite().all()
    np.testing.assert_allclose(metric.backbone.visual.conv2.weight.shape, first['visual.conv2.weight'].shape)
    assert not first['visual.attnpool.positional_embedding'].any()
    used = first['token_embedding.weight'].abs().sum(1) > 0
    assert 20 < used.sum() < 100  # rows of tokens in no prompt are zero, and pack to nothing


def test_every_degradation_is_trained(script):
    shares = [share for share, _ in script.KINDS.values()]
    assert sum(shares) == pytest.approx(1) and set(script.KINDS) == set(script.DEGRADATIONS)
