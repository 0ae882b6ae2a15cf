"""benchmarks/guidance.py: the degradations against other libraries, and a whole small run."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from maclip_pyiqa import MACLIP
from maclip_pyiqa.demo import PHOTO
from maclip_pyiqa.testing import TINY, make_clip, save_folder, synthetic_images


@pytest.fixture
def photo(photos):
    return photos[5][None, :, 130:226, 60:188]  # with edges and texture


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
def test_blur_is_scipys(script, photo, sigma):
    got = script.blur(photo.double(), sigma)
    radius = [0, 0, *(min(math.ceil(4 * sigma), side - 1) for side in photo.shape[-2:])]
    want = gaussian_filter(photo.double().numpy(), (0, 0, sigma, sigma), mode='mirror', radius=radius)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-12)


def test_blur_has_a_gradient(script):
    x = torch.rand(1, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: script.blur(x, 0.8), x)


def test_blur_lowers_high_frequencies(script, photo):
    def high(image):
        spectrum = np.abs(np.fft.fft2(image.numpy())) ** 2
        rows, columns = (np.abs(np.fft.fftfreq(n)) for n in image.shape[-2:])
        return spectrum[..., np.hypot(rows[:, None], columns) > 0.25].sum()

    weak, strong = (high(script.degrade(photo, 'blur', sigma)) for sigma in (0.7, 2.0))
    assert strong < weak < high(photo)


def test_noise_has_the_standard_deviation_asked_for_and_its_seed(script):
    grey = torch.full((1, 3, 200, 200), 0.5)
    noisy = script.degrade(grey, 'noise', 0.1, seed=3)
    assert float((noisy - grey).std()) == pytest.approx(0.1, rel=0.02)
    assert float((noisy - grey).mean()) == pytest.approx(0, abs=0.002)
    assert noisy.equal(script.degrade(grey, 'noise', 0.1, seed=3))
    assert not noisy.equal(script.degrade(grey, 'noise', 0.1, seed=4))


def test_jpeg_is_pillows_at_100_minus_strength(script, photo, photo_file, tmp_path):
    Image.open(photo_file).save(tmp_path / 'photo.jpg', quality=15)
    want = np.asarray(Image.open(tmp_path / 'photo.jpg'))
    got = script.degrade(photo, 'jpeg', 85)
    np.testing.assert_allclose(levels(got)[0].transpose(1, 2, 0), want, atol=1e-3)


@pytest.mark.parametrize(('degradation', 'strengths'), [('noise', (0.02, 0.3)), ('blur', (0.5, 5)), ('jpeg', (10, 95))])
def test_more_strength_is_further_from_the_photo(script, photo, degradation, strengths):
    mild, severe = (script.degrade(photo, degradation, strength) for strength in strengths)
    assert db(severe, photo) < db(mild, photo) < math.inf
    for image in (mild, severe):
        assert image.shape == photo.shape and image.dtype == torch.float32
        np.testing.assert_allclose(levels(image), levels(image).round(), atol=1e-3)
        assert image.min() >= 0 and image.max() <= 1


def test_psnr(script, photo):
    assert script.psnr(photo, photo) == math.inf
    assert script.psnr(photo * 0.5 + 0.1, photo * 0.5) == pytest.approx(20, abs=1e-4)


# --- restoring ---------------------------------------------------------------------------------------------------


def brightness(x):
    return x.mean((1, 2, 3))[:, None]


def test_restore_follows_the_metric_and_the_fidelity_term(script, photo):
    """With the mean as metric, pixels brighten without the term; with a heavy one they stay."""
    observed = photo * 0.5
    args = {'observed': observed, 'original': photo, 'operator': lambda x: x, 'steps': 20, 'lr': 0.01}
    free = script.restore(brightness, **args)
    held = script.restore(brightness, fidelity=1e4, **args)
    torch.testing.assert_close(free.image, observed + 0.2, atol=1e-3, rtol=0)  # Adam: lr a step where the sign stays
    assert (held.image - observed).abs().max() < 0.03
    for run in (free, held):
        assert len(run.scores) == len(run.psnrs) == 21
        assert run.scores[0] == pytest.approx(float(observed.mean()))
        assert run.scores[-1] == pytest.approx(float(run.image.mean()))
        assert run.psnrs[0] == pytest.approx(db(observed, photo), abs=1e-4)
        assert run.psnrs[-1] == pytest.approx(db(run.image, photo), abs=1e-4)


def test_restore_stops_at_the_target_and_at_the_cutoff(script, photo):
    observed = photo * 0.5
    args = {'observed': observed, 'original': photo, 'operator': lambda x: x, 'steps': 20, 'lr': 0.01}
    start = float(observed.mean())
    paired = script.restore(brightness, target=start + 0.055, **args)
    cut = script.restore(brightness, cutoff=0.4, **args)
    torch.testing.assert_close(paired.image, observed + 0.06, atol=1e-3, rtol=0)
    torch.testing.assert_close(cut.image, observed + 0.08, atol=1e-3, rtol=0)
    assert len(paired.scores) == len(cut.scores) == 21


def test_fidelity_to_a_known_blur_alone_sharpens(script, photo):
    observed = script.degrade(photo, 'blur', 1.5)
    run = script.restore(
        brightness, observed, photo, lambda x: script.blur(x, 1.5), steps=30, lr=0.005, weight=0.0, fidelity=1e3
    )
    assert run.psnrs[-1] > run.psnrs[0] + 0.5


def test_ways(script):
    ways = script.ways(fidelity=5.0, target=0.8, cutoff=0.25)
    assert ways['score alone'] == {} and ways['paired'] == {'target': 0.8}
    assert ways['all of them'] == {'fidelity': 5.0, 'target': 0.8, 'cutoff': 0.25}
    assert ways['fidelity term alone'] == {'fidelity': 5.0, 'weight': 0.0}


# --- judging -----------------------------------------------------------------------------------------------------


def test_rows_of_the_table(script):
    rows = [[0.5, 20.0, math.nan, 10.0, 30.0], [0.7, 22.0, math.nan, 30.0, 31.0]]
    assert script.line('x', rows) == '| x | 0.600 | 21.00 | not available | 20.0 | 30.5 |'
    assert script.line('x', [[0.5, math.inf, 1, 1, 1]]) == '| x | 0.500 | inf | 1.00 | 1.0 | 1.0 |'


def test_judges(script, photo, monkeypatch):
    """PIQE comes with pyiqa and needs no weights; NIQE needs a block of 96 pixels."""
    real = script.pyiqa_metric
    known = {'niqe': lambda x: torch.tensor([4.0]), 'brisque': None}
    monkeypatch.setattr(script, 'pyiqa_metric', lambda name, **options: known[name] if name in known else real(name))
    by = script.judges(brightness)
    assert list(by) == list(script.COLUMNS)
    noisy = script.degrade(photo, 'noise', 0.2)
    score, db_, niqe, brisque, piqe = script.judge(noisy, photo, by)
    assert score == pytest.approx(float(noisy.mean())) and db_ == pytest.approx(db(noisy, photo), abs=1e-4)
    assert niqe == 4 and math.isnan(brisque)
    assert piqe > script.judge(photo, photo, by)[4]
    assert math.isnan(script.judge(noisy[..., :95], photo[..., :95], by)[2])


def test_niqe_with_the_parameters_in_basicsrs_wheel(script, tmp_path, monkeypatch):
    from scipy.io import loadmat

    given = {'mu_pris_param': np.arange(36.0)[None], 'cov_pris_param': np.eye(36)}
    (tmp_path / 'basicsr' / 'metrics').mkdir(parents=True)
    (tmp_path / 'basicsr' / '__init__.py').write_text("raise ImportError('is not imported')")
    np.savez(tmp_path / 'basicsr' / 'metrics' / 'niqe_pris_params.npz', **given)
    monkeypatch.syspath_prepend(tmp_path)
    written = loadmat(script.basicsr_niqe(tmp_path)['pretrained_model_path'])
    np.testing.assert_array_equal(written['mu_prisparam'], given['mu_pris_param'])
    np.testing.assert_array_equal(written['cov_prisparam'], given['cov_pris_param'])


def test_a_judge_that_is_not_available_is_said(script, monkeypatch, capsys):
    import pyiqa

    def offline(*args, **options):
        raise OSError('no network')

    monkeypatch.setattr(pyiqa, 'create_metric', offline)
    assert script.pyiqa_metric('niqe') is None
    assert 'niqe: not available (OSError)' in capsys.readouterr().err


# --- the whole study ---------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def metric(tmp_path_factory):
    """The stand-in of the study, made apart from it."""
    folder = tmp_path_factory.mktemp('guidance')
    return MACLIP(backbone=save_folder(make_clip(TINY, synthetic_images()), TINY, folder))


@pytest.fixture
def offline(script, monkeypatch):
    monkeypatch.setattr(script, 'pyiqa_metric', lambda name, **options: None)  # no look for weights on the network


def table(text):
    lines = [line[2:-2].split(' | ') for line in text.splitlines() if line.startswith('| ') and '---' not in line]
    return {name: dict(zip(lines[0][1:], cells, strict=True)) for name, *cells in lines[1:]}


@pytest.mark.parametrize(
    'degradation', ['noise', *(pytest.param(name, marks=pytest.mark.slow) for name in ('blur', 'jpeg'))]
)
def test_main(script, offline, photo, photo_file, metric, tmp_path, capsys, degradation):
    out = tmp_path / 'out.png'
    args = ['--stand-in', '--device=cpu', '--degradation', degradation, '--steps=10', '--fidelity=3000']
    assert script.main([str(photo_file), *args, '--seed=1', '-o', str(out)]) == 0
    text = capsys.readouterr().out
    assert text.count('RANDOM STAND-IN WEIGHTS') == 2 and str(out) in text
    assert 'photo.png, 128x96' in text

    observed = script.degrade(photo, degradation, script.DEGRADATIONS[degradation][0], seed=1)
    operator = (lambda x: script.blur(x, 2.0)) if degradation == 'blur' else (lambda x: x)
    rows = table(text)
    assert float(rows['degraded']['score']) == pytest.approx(metric(observed).item(), abs=1e-3)
    assert rows['original']['PSNR, dB'] == 'inf'
    ways = script.ways(3000.0, metric(photo).item(), 0.2)
    assert list(rows) == ['degraded', *ways, 'original']
    assert {row['NIQE'] for row in rows.values()} == {'not available'}
    images = {}
    for name in ('score alone', 'with fidelity term', 'all of them'):
        images[name] = script.restore(metric, observed, photo, operator, 10, 0.005, seed=1, **ways[name]).image
        score, psnr = (float(rows[name][column]) for column in ('score', 'PSNR, dB'))
        assert score == pytest.approx(metric(images[name]).item(), abs=2e-2)
        assert psnr == pytest.approx(db(images[name], photo), abs=0.05)
    free, held = ((operator(images[name]) - observed).square().mean() for name in list(images)[:2])
    assert held < free
    scores = {name: float(row['score']) for name, row in rows.items()}
    assert scores['score alone'] > scores['early cutoff'] > scores['degraded']

    picture = np.asarray(Image.open(out).convert('RGB')).astype(int)
    assert picture.shape == (1150, 1600, 3)
    cells = [cell for row in np.split(picture[60:760], 2) for cell in np.split(row, 5, axis=1)]  # a picture in each
    assert all(cell.std() > 20 for cell in cells[:9]) and cells[9].std() < 1
    banner = (np.abs(picture - (178, 34, 34)) < 8).all(-1)  # firebrick
    assert banner.sum() > 5000


def test_with_scores_that_mean_something(script, offline, photo_file, tmp_path, capsys):
    """The demonstration backbone on two photos: every guided score rises; alone it spoils the picture."""
    args = ['--backbone', 'demo', '--device=cpu', '--steps=20', '--size=128', '-o', str(tmp_path / 'out.png')]
    assert script.main([str(PHOTO), str(photo_file), *args]) == 0
    text = capsys.readouterr().out
    assert 'not the published metric' in text and 'RANDOM' not in text
    assert 'astronaut.jpg, 171x128' in text and 'photo.png, 128x96' in text
    rows = table(text)
    score, psnr = ({name: float(row[column]) for name, row in rows.items()} for column in ('score', 'PSNR, dB'))
    guided = [name for name in script.ways(1.0, 1.0, 1.0) if name != 'fidelity term alone']
    assert all(score[name] > score['degraded'] + 0.1 for name in guided)
    assert psnr['score alone'] < psnr['degraded'] < psnr['with fidelity term'] - 0.3
    assert psnr['paired'] > psnr['score alone'] and psnr['early cutoff'] > psnr['score alone']
    assert score['original'] < score['score alone']


def test_sampled_views_and_chunks(script, offline, photo_file, metric, tmp_path, capsys):
    out = tmp_path / 'out.png'
    args = ['--stand-in', '--device=cpu', '--steps=3', '--sample-views=1', '--chunk=2', '--strength=1', '--size=64']
    assert script.main([str(photo_file), *args, '-o', str(out)]) == 0
    text = capsys.readouterr().out
    original = script.load(photo_file, 64)
    assert original.shape == (1, 3, 64, 85)
    score = metric(script.degrade(original, 'blur', 1.0)).item()  # from all views, though the steps see some
    assert float(table(text)['degraded']['score']) == pytest.approx(score, abs=1e-3)


def test_default_photo(script, offline, tmp_path, capsys):
    """The one in the package, which is found without any other package's files."""
    out = tmp_path / 'out.png'
    assert script.main(['--stand-in', '--device=cpu', '--steps=1', '--size=64', '-o', str(out)]) == 0
    assert f'{PHOTO.name}, 85x64\nblur of strength 2' in capsys.readouterr().out


def test_sizes(script, photo_file):
    assert script.load(PHOTO, 1000).shape == (1, 3, 384, 512)  # never enlarged
    assert script.load(PHOTO, 96).shape == (1, 3, 96, 128)
    np.testing.assert_array_equal(
        levels(script.load(photo_file, 96)).round()[0].transpose(1, 2, 0), Image.open(photo_file)
    )


def test_without_weights_it_says_so(script, photo_file, tmp_path, capsys):
    weights, out = tmp_path / 'missing.pt', tmp_path / 'out.png'
    assert script.main([str(photo_file), '--pretrained', str(weights), '-o', str(out)]) == 3
    error = capsys.readouterr().err
    assert f'{weights}: no such file' in error and '--backbone demo' in error and 'Traceback' not in error
    assert not out.exists()


@pytest.mark.parametrize(
    ('args', 'want'),
    [
        (['missing.png'], 'missing.png: [Errno 2] No such file'),
        (['text.png'], 'text.png: not an image'),
        (['--degradation', 'fog'], "invalid choice: 'fog'"),
        (['--strength', '-1'], "invalid value '-1'; expected a number of at least 0"),
        (['--strength', 'nan'], "invalid value 'nan'; expected a number of at least 0"),
        (['--degradation', 'noise', '--strength', '10'], '--strength 10; expected at most 1 for noise'),
        (['--degradation', 'jpeg', '--strength', '100'], '--strength 100; expected at most 99 for jpeg'),
        (['--cutoff', '1.5'], "invalid value '1.5'; expected a number from 0 to 1"),
        (['--steps', '0'], "invalid value '0'; expected a whole number of at least 1"),
        (['--steps', '2.5'], "invalid value '2.5'; expected a whole number of at least 1"),
        (['--seed', '-3'], "invalid value '-3'; expected a whole number from 0 to 9.22337e+18"),
        (['--fidelity', 'inf'], "invalid value 'inf'; expected a number of at least 0"),
        (['--stand-in', '--pretrained', 'openai'], 'leave out --pretrained'),
        (['--stand-in', '--backbone', 'RN5'], "unknown backbone 'RN5'"),
        (['--backbone', 'RN5'], "unknown backbone 'RN5'"),
        (['--stand-in', '--device', 'abacus'], '--device abacus: '),
        (['-o', 'missing/out.png'], '-o missing/out.png: expected a file in an existing folder'),
    ],
)
def test_bad_input_is_refused_by_name(script, args, want, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'text.png').write_text('no image')
    with pytest.raises(SystemExit) as exit:
        script.main(args)
    assert exit.value.code == 2
    assert want in capsys.readouterr().err
