"""benchmarks/loss.py: training, judging, and a whole small run without any weights but the package's."""

import math

import pytest
import torch
from torch.nn.functional import l1_loss

from maclip_pyiqa import WeightsError


class Bar:
    steps = 0

    def update(self):
        self.steps += 1


def trained(script, loss, images, steps=80, seed=0):
    torch.manual_seed(seed)
    net, bar = script.network(width=8, depth=3), Bar()
    script.train(net, loss, images, 0.1, steps, 2e-3, seed, bar)
    assert bar.steps == steps
    return net


def test_training_removes_noise_and_repeats(script, photos):
    def l1(x, y, progress):
        return l1_loss(x, y)

    clean = photos[0][None]
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
    nets = [trained(script, l1, photos[2:4], seed=seed) for seed in (0, 0, 1)]
    with torch.no_grad():
        first, again, other = (l1_loss(net(noisy), clean) for net in nets)
    assert first < 0.95 * l1_loss(noisy, clean)
    assert first == again != other


def test_patches_are_of_the_photos(script, photos):
    generator = torch.Generator().manual_seed(0)
    got = script.patches([torch.full_like(photos[0], 0.25), torch.full_like(photos[0], 0.75)], generator)
    assert got.shape == (script.BATCH, 3, script.PATCH, script.PATCH)
    assert set(got.unique().tolist()) <= {0.25, 0.75}
    again = script.patches(photos[:2], torch.Generator().manual_seed(1))
    assert again.equal(script.patches(photos[:2], torch.Generator().manual_seed(1)))


def test_photos_are_not_both_trained_on_and_held_out(script):
    training, held_out = script.photos()
    assert len(training) == 6 and set(held_out) == {'astronaut', 'coffee', 'flower'}
    for photo in held_out.values():
        assert all(photo.shape != other.shape or not photo.equal(other) for other in training.values())


def test_losses(script, photos, monkeypatch):
    monkeypatch.setattr(script, 'pyiqa_metric', lambda name, **options: None)
    rows = script.losses({'backbone': 'demo'}, 0.5)
    clean = torch.stack(photos[:2])[..., :96, :96]
    worse = (clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    l1, alone = rows['L1'](worse, clean, 0.0), rows['MACLIPLoss alone'](worse, clean, 0.0)
    assert l1 == l1_loss(worse, clean) and 0 < alone < 0.5
    assert rows['L1 + MACLIPLoss'](worse, clean, 0.9) == l1 + alone
    half = rows['L1 + MACLIPLoss in the first half']
    assert half(worse, clean, 0.4) == l1 + alone and half(worse, clean, 0.5) == l1
    paired = rows['L1 + MACLIPLoss, paired']
    assert paired(clean, clean, 0.0) == 0 and paired(worse, clean, 0.0) > l1
    assert rows['L1 + LPIPS'] is None


def test_rows_of_the_table(script):
    values = [[20.0, 0.5, math.nan, 10.0, 0.5], [22.0, 0.7, math.nan, 30.0, 0.5]]
    want = '| x | 21.00 ± 1.41 | 0.600 ± 0.141 | not available | 20.0 ± 14.1 | 0.500 ± 0.000 |'
    assert script.line('x', values) == want
    assert script.line('x', values[:1]) == '| x | 20.00 | 0.500 | not available | 10.0 | 0.500 |'
    assert script.line('x', []).count('not available') == 5


def test_a_metric_that_cannot_be_had_is_said(script, monkeypatch, capsys):
    import pyiqa

    def offline(*args, **options):
        raise OSError('no network')

    monkeypatch.setattr(pyiqa, 'create_metric', offline)
    assert script.pyiqa_metric('niqe') is None
    assert 'niqe: not available (OSError)' in capsys.readouterr().err


@pytest.mark.slow
def test_quick_run(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, 'pyiqa_metric', lambda name, **options: None)  # no look for weights on the network
    out = tmp_path / 'loss.png'
    assert script.main(['--quick', '-o', str(out)]) == 0
    text = capsys.readouterr().out
    assert 'demonstration backbone: not CLIP, and not the published metric' in text
    table = [line[2:-2].split(' | ') for line in text.splitlines() if line.startswith('| ')]
    rows = {name: cells for name, *cells in table if name != '---'}
    assert list(rows) == [
        'loss', 'noisy', 'L1', 'L1 + MACLIPLoss', 'L1 + MACLIPLoss in the first half', 'L1 + MACLIPLoss, paired',
        'L1 + LPIPS', 'MACLIPLoss alone', 'clean',
    ]  # fmt: skip
    assert ' ± ' in rows['L1'][0] and set(rows['L1 + LPIPS']) == {'not available'}
    assert rows['clean'][0] == 'inf' and float(rows['clean'][4]) > float(rows['noisy'][4])
    assert out.read_bytes().startswith(b'\x89PNG')


def test_without_weights(script, monkeypatch, capsys):
    monkeypatch.setattr('maclip_pyiqa.MACLIP', lambda **options: (_ for _ in ()).throw(WeightsError('no weights')))
    assert script.main(['--backbone', 'RN50', '--quick']) == 3
    assert 'no weights' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('args', 'want'),
    [
        (['--steps', '0'], '--steps 0; expected at least 1'),
        (['--first-steps', '-1'], '--first-steps -1; expected at least 1'),
        (['--seeds', '0'], '--seeds 0; expected at least 1'),
        (['--weight', 'nan'], '--weight nan; expected a finite number of at least 0'),
        (['--noise', '2'], '--noise 2; expected from 0 to 1'),
        (['-o', 'missing/out.png'], '-o missing/out.png: expected a file in an existing folder'),
        (['--backbone', 'RN5', '--quick'], "unknown backbone 'RN5'"),
    ],
)
def test_bad_input_is_refused_by_name(script, args, want, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        script.main(args)
    assert exit.value.code == 2 and want in capsys.readouterr().err
