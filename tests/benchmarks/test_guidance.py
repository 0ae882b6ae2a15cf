"""benchmarks/guidance.py: the degradations against other libraries, and a whole small run."""

import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import guidance
from maclip_pyiqa import MACLIP
from maclip_pyiqa.testing import TINY, make_clip, save_folder, synthetic_images


@pytest.fixture
def photo(photos):
    return photos[5][None, :, 130:226, 60:188]  # an undistorted one, with edges and texture


@pytest.fixture
def photo_file(photo, tmp_path):
    path = tmp_path / 'photo.png'
    Image.fromarray((photo[0] * 255).round().byte().permute(1, 2, 0).numpy()).save(path)
    return path


def levels(image):
    """(1, 3, H, W) in [0, 1] -> the same in steps of 8 bits."""
    return image.numpy() * 255


def db(x, y):
    return 10 * math.log10(1 / np.mean((x.double().numpy() - y.double().numpy()) ** 2))


# --- degradations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('sigma', [0.0, 0.5, 2.0, 30.0])
def test_blur_is_scipys(photo, sigma):
    got = guidance.blur(photo.double(), sigma)
    want = gaussian_filter(photo.double().numpy(), (0, 0, sigma, sigma), mode='nearest', radius=math.ceil(4 * sigma))
    np.testing.assert_allclose(got.numpy(), want, atol=1e-12)


def test_blur_has_a_gradient():
    x = torch.rand(1, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: guidance.blur(x, 0.8), x)


def test_blur_lowers_high_frequencies(photo):
    def high(image):
        spectrum = np.abs(np.fft.fft2(image.numpy())) ** 2
        rows, columns = (np.abs(np.fft.fftfreq(n)) for n in image.shape[-2:])
        return spectrum[..., np.hypot(rows[:, None], columns) > 0.25].sum()

    weak, strong = (high(guidance.degrade(photo, 'blur', sigma)) for sigma in (0.7, 2.0))
    assert strong < weak < high(photo)


def test_noise_has_the_standard_deviation_asked_for_and_its_seed():
    grey = torch.full((1, 3, 200, 200), 0.5)
    noisy = guidance.degrade(grey, 'noise', 0.1, seed=3)
    assert float((noisy - grey).std()) == pytest.approx(0.1, rel=0.02)
    assert float((noisy - grey).mean()) == pytest.approx(0, abs=0.002)
    assert noisy.equal(guidance.degrade(grey, 'noise', 0.1, seed=3))
    assert not noisy.equal(guidance.degrade(grey, 'noise', 0.1, seed=4))


def test_jpeg_is_pillows_at_100_minus_strength(photo, photo_file, tmp_path):
    Image.open(photo_file).save(tmp_path / 'photo.jpg', quality=15)
    want = np.asarray(Image.open(tmp_path / 'photo.jpg'))
    got = guidance.degrade(photo, 'jpeg', 85)
    np.testing.assert_allclose(levels(got)[0].transpose(1, 2, 0), want, atol=1e-3)


@pytest.mark.parametrize(('degradation', 'strengths'), [('noise', (0.02, 0.3)), ('blur', (0.5, 5)), ('jpeg', (10, 95))])
def test_more_strength_is_further_from_the_photo(photo, degradation, strengths):
    mild, severe = (guidance.degrade(photo, degradation, strength) for strength in strengths)
    assert db(severe, photo) < db(mild, photo) < math.inf
    for image in (mild, severe):
        assert image.shape == photo.shape and image.dtype == torch.float32
        np.testing.assert_allclose(levels(image), levels(image).round(), atol=1e-3)
        assert image.min() >= 0 and image.max() <= 1


def test_psnr(photo):
    assert guidance.psnr(photo, photo) == math.inf
    assert guidance.psnr(photo * 0.5 + 0.1, photo * 0.5) == pytest.approx(20, abs=1e-4)


# --- restoring ---------------------------------------------------------------------------------------------------


def test_restore_follows_the_metric_and_the_fidelity_term(photo):
    """With the mean as metric, pixels brighten without the term; with a heavy one they stay."""
    observed = photo * 0.5
    args = {'observed': observed, 'original': photo, 'operator': lambda x: x, 'steps': 20, 'lr': 0.01}
    free = guidance.restore(torch.mean, fidelity=0.0, **args)
    held = guidance.restore(torch.mean, fidelity=1e4, **args)
    torch.testing.assert_close(free.image, observed + 0.2, atol=1e-3, rtol=0)  # Adam: lr a step where the sign stays
    assert (held.image - observed).abs().max() < 0.03
    for run in (free, held):
        assert len(run.scores) == len(run.psnrs) == 21
        assert run.scores[0] == pytest.approx(float(observed.mean()))
        assert run.scores[-1] == pytest.approx(float(run.image.mean()))
        assert run.psnrs[0] == pytest.approx(db(observed, photo), abs=1e-4)
        assert run.psnrs[-1] == pytest.approx(db(run.image, photo), abs=1e-4)


def test_fidelity_to_a_known_blur_alone_sharpens(photo):
    observed = guidance.degrade(photo, 'blur', 1.5)
    run = guidance.restore(
        lambda x: 0 * x.mean(), observed, photo, lambda x: guidance.blur(x, 1.5), fidelity=1e3, steps=30, lr=0.005
    )
    assert run.psnrs[-1] > run.psnrs[0] + 0.5


@pytest.mark.parametrize(
    ('scores', 'psnrs', 'want'),
    [
        ([0.5, 0.9, 0.8], [20.0, 25.0, 19.0], 'score rose, but PSNR did not rise: the picture is no closer'),
        ([0.5, 0.6], [20.0, 21.0], 'score rose, and PSNR rose: the picture is closer'),
        ([0.5, 0.4], [20.0, 21.0], 'score did not rise, but PSNR rose: the picture is closer'),
        ([0.5, 0.5], [20.0, 20.0], 'score did not rise, and PSNR did not rise: the picture is no closer'),
    ],
)
def test_report_says_what_happened(scores, psnrs, want):
    text = guidance.report(guidance.Run(torch.zeros(1, 3, 2, 2), scores, psnrs))
    assert want in text
    numbers = [float(number) for number in re.findall(r'\d+\.\d+', text)]
    assert numbers == [scores[0], scores[-1], psnrs[0], psnrs[-1]]


# --- the whole study ---------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def metric(tmp_path_factory):
    """The stand-in of the study, made apart from it."""
    folder = tmp_path_factory.mktemp('guidance')
    return MACLIP(backbone=save_folder(make_clip(TINY, synthetic_images()), TINY, folder))


@pytest.mark.parametrize('degradation', guidance.DEGRADATIONS)
def test_main(photo, photo_file, metric, tmp_path, capsys, degradation):
    out = tmp_path / 'out.png'
    args = ['--stand-in', '--device=cpu', '--degradation', degradation, '--steps=10', '--fidelity=3000']
    assert guidance.main([str(photo_file), *args, '--seed=1', '-o', str(out)]) == 0
    text = capsys.readouterr().out
    assert text.count('RANDOM STAND-IN WEIGHTS') == 2 and str(out) in text
    assert 'photo.png, 128x96' in text

    observed = guidance.degrade(photo, degradation, guidance.DEGRADATIONS[degradation][0], seed=1)
    operator = (lambda x: guidance.blur(x, 2.0)) if degradation == 'blur' else (lambda x: x)
    pattern = r'score (\S+) -> (\S+), PSNR to the original (\S+) -> (\S+) dB\n  The score (rose|did not rise)'
    printed = re.findall(pattern, text)
    assert len(printed) == 2
    images = []
    for (*numbers, verdict), fidelity in zip(printed, (3000, 0), strict=True):
        score, score_after, psnr, psnr_after = map(float, numbers)
        run = guidance.restore(lambda x: metric(x).mean(), observed, photo, operator, fidelity, 10, 0.005)
        images.append(run.image)
        assert score == pytest.approx(metric(observed).item(), abs=1e-3)
        assert score_after == pytest.approx(metric(run.image).item(), abs=2e-2)
        assert psnr == pytest.approx(db(observed, photo), abs=0.01)
        assert psnr_after == pytest.approx(db(run.image, photo), abs=0.05)
        assert score_after > score and verdict == 'rose'
    held, free = ((operator(image) - observed).square().mean() for image in images)
    assert held < free

    picture = np.asarray(Image.open(out).convert('RGB')).astype(int)
    assert picture.shape[0] > 800 and picture.shape[1] == 1600
    columns = np.split(picture[: picture.shape[0] // 2], 4, axis=1)  # one picture in each quarter
    assert all(column.std() > 20 for column in columns)
    banner = (np.abs(picture - (178, 34, 34)) < 8).all(-1)  # firebrick
    assert banner.sum() > 5000


def test_with_scores_that_mean_something(photo_files, tmp_path, capsys):
    """The demonstration backbone: both scores rise, but without a fidelity term the picture gets no closer."""
    args = ['--backbone', 'demo', '--device=cpu', '--steps=20', '--size=160', '-o', str(tmp_path / 'out.png')]
    assert guidance.main([str(photo_files[-1]), *args]) == 0
    text = capsys.readouterr().out
    assert 'not the published metric' in text and 'RANDOM' not in text
    held, free = re.findall(r'score (\S+) -> (\S+), PSNR to the original (\S+) -> (\S+) dB', text)
    for score, after, _, _ in (held, free):
        assert float(after) > float(score) + 0.1
    assert float(held[3]) > float(held[2]) + 0.3 and float(free[3]) < float(free[2])


def test_sampled_views_and_chunks(photo_file, metric, tmp_path, capsys):
    out = tmp_path / 'out.png'
    args = ['--stand-in', '--device=cpu', '--steps=3', '--sample-views=1', '--chunk=2', '--strength=1', '--size=64']
    assert guidance.main([str(photo_file), *args, '-o', str(out)]) == 0
    text = capsys.readouterr().out
    original, name = guidance.load(photo_file, 64)
    assert original.shape == (1, 3, 64, 85) and name == 'photo.png'
    score = metric(guidance.degrade(original, 'blur', 1.0)).item()  # from all views, though the steps see some
    assert float(re.search(r'score (\S+) ->', text).group(1)) == pytest.approx(score, abs=1e-3)


def test_default_photo_and_what_stands_in_for_it(photo_files, monkeypatch, tmp_path):
    image, name = guidance.load(None, 384)
    assert image.shape == (1, 3, 384, 512) and name in [file.name for file in photo_files]
    (tmp_path / 'site' / 'pyiqa').mkdir(parents=True)
    spec = type('Spec', (), {'origin': str(tmp_path / 'site' / 'pyiqa' / '__init__.py')})
    monkeypatch.setattr(guidance, 'find_spec', lambda name: spec)
    image, name = guidance.load(None, 96)
    assert image.shape == (1, 3, 96, 128) and name == 'generated image' and image.std() > 0.05


def test_without_weights_it_says_so(photo_file, tmp_path, capsys):
    weights, out = tmp_path / 'missing.pt', tmp_path / 'out.png'
    assert guidance.main([str(photo_file), '--pretrained', str(weights), '-o', str(out)]) == 3
    error = capsys.readouterr().err
    assert f'{weights}: no such file' in error and '--backbone demo' in error and 'Traceback' not in error
    assert not out.exists()


@pytest.mark.parametrize(
    ('args', 'want'),
    [
        (['missing.png'], 'missing.png: cannot be read as an image'),
        (['{text}'], 'cannot be read as an image'),
        (['--degradation', 'fog'], "invalid choice: 'fog'"),
        (['--strength', '-1'], "a number of at least 0 is wanted, not '-1'"),
        (['--strength', 'nan'], "a number of at least 0 is wanted, not 'nan'"),
        (['--degradation', 'noise', '--strength', '10'], 'at most 1, not 10'),
        (['--degradation', 'jpeg', '--strength', '100'], 'at most 99, not 100'),
        (['--steps', '0'], "a whole number of at least 1 is wanted, not '0'"),
        (['--steps', '2.5'], "a whole number of at least 1 is wanted, not '2.5'"),
        (['--seed', '-3'], "a whole number from 0 to 9.22337e+18 is wanted, not '-3'"),
        (['--fidelity', 'inf'], "a number of at least 0 is wanted, not 'inf'"),
        (['--stand-in', '--pretrained', 'openai'], 'leave out --pretrained'),
        (['--stand-in', '--backbone', 'RN5'], "unknown backbone 'RN5'"),
        (['--backbone', 'RN5'], "unknown backbone 'RN5'"),
        (['--stand-in', '--device', 'abacus'], '--device abacus: '),
        (['-o', 'missing/out.png'], 'a file in an existing folder is wanted'),
    ],
)
def test_bad_input_is_refused_by_name(args, want, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'text.png').write_text('no image')
    with pytest.raises(SystemExit) as exit:
        guidance.main([arg.format(text='text.png') for arg in args])
    assert exit.value.code == 2
    assert want in capsys.readouterr().err
