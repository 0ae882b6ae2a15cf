"""Rewards: every form of images, bad images, and calls as by flow_grpo."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from maclip_pyiqa import MACLIP
from maclip_pyiqa.integrations.rewards import LOWEST, MACLIPReward
from maclip_pyiqa.scoring import read_image


@pytest.fixture(scope='module')
def reward(tiny):
    return MACLIPReward(MACLIP(backbone=tiny), batch=2)


@pytest.fixture(scope='module')
def images(photos):
    """(5, 3, 100, 120), in steps of 8 bits."""
    return (torch.stack(photos[:5])[..., 100:200, 100:220] * 255).round() / 255


@pytest.fixture(scope='module')
def scores(tiny, images):
    return MACLIP(backbone=tiny)(images).numpy()[:, 0]


PROMPTS = ['a cat', 'a dog', 'a cat', 'a cat', 'a bird']


def test_every_form_of_images_gets_the_same_rewards(reward, images, scores):
    array = (images * 255).byte().movedim(1, -1).numpy()
    forms = {
        'tensor': images,
        'uint8 tensor': (images * 255).byte(),
        'with gradient': images.clone().requires_grad_(),
        'float64': images.double(),
        'array': array,
        'float array': images.movedim(1, -1).numpy(),
        'mirrored view': array[:, :, ::-1][:, :, ::-1],
        'PIL': [Image.fromarray(image) for image in array],
        'list of tensors': list(images),
        'tuple of arrays': tuple(array),
        'mixed': [images[0], array[1], Image.fromarray(array[2]), *images[3:]],
    }
    for name, form in forms.items():
        got, info = reward(form, PROMPTS, {})
        assert got.dtype == np.float32 and got.shape == (5,)
        np.testing.assert_allclose(got, scores, atol=1e-5, err_msg=name)
        assert info['scored'].all()
    assert np.ptp(scores) > 1e-3


def test_sizes_and_batches(tiny, images, scores):
    mixed = [images[0], images[1, :, :80, :90], images[2, :, :33], images[3]]
    want = MACLIP(backbone=tiny)(mixed).numpy()[:, 0]
    for batch in (1, 3, 16):
        np.testing.assert_allclose(MACLIPReward(MACLIP(backbone=tiny), batch=batch)(mixed)[0], want, atol=1e-5)
    seen = []
    metric = MACLIP(backbone=tiny)
    analyze = metric.analyze
    metric.analyze = lambda images: (seen.append((len(images), torch.is_grad_enabled())), analyze(images))[1]
    np.testing.assert_allclose(MACLIPReward(metric, batch=2)(images)[0], scores, atol=1e-5)
    assert seen == [(2, False), (2, False), (1, False)]
    assert MACLIPReward(metric)([])[0].shape == (0,)


def test_bad_images_get_the_lowest_reward_and_a_warning(reward, images, scores):
    bad = {
        'not finite': images[0] * float('nan'),
        r'image 1 has values in \[0, 2': images[0] * 2.9,
        r'shape \(4, 8, 8\)': torch.zeros(4, 8, 8),
        r'shape \(8, 8\)': np.zeros((8, 8), np.uint8),
        'image 1: an image of 1x5000 pixels': torch.zeros(3, 1, 5000),
        'a NoneType; expected a PIL image': None,
        'a str; expected a PIL image': 'photo.png',
    }
    for message, image in bad.items():
        with pytest.warns(UserWarning, match=f'image 1 gets the reward 0: .*{message}'):
            got, info = reward([images[0], image, images[1]])
        np.testing.assert_allclose(got, [scores[0], LOWEST, scores[1]], atol=1e-5)
        assert info['scored'].tolist() == [True, False, True]
    with pytest.warns(UserWarning) as caught:
        got, _ = reward(torch.full((3, 3, 70, 70), float('inf')))
    assert got.tolist() == [LOWEST] * 3
    assert [str(w.message).split(' gets')[0] for w in caught] == ['image 0', 'image 1', 'image 2']


def test_no_image_beats_others_by_being_bad(tiny, tiny_head, images):
    """With a head scores may be below 0."""
    metric = MACLIP(backbone=tiny, head=tiny_head)
    metric.head.bias -= 9
    with pytest.warns(UserWarning, match='image 1 gets the reward -'):
        got, info = MACLIPReward(metric)([images[0], images[0] * float('nan'), images[1]])
    assert got[1] == min(got) < -1 and info['scored'].tolist() == [True, False, True]


def test_errors_of_the_device_end_the_run(tiny, images):
    """Once an image fails by itself; a batch that is too large for the memory is tried again image by image."""
    metric = MACLIP(backbone=tiny)
    analyze = metric.analyze

    def small_memory(batch):
        if len(batch) > limit:
            raise RuntimeError('out of memory')
        return analyze(batch)

    metric.analyze, limit = small_memory, 1
    assert MACLIPReward(metric)(images)[1]['scored'].all()
    limit = 0
    with pytest.raises(RuntimeError, match='out of memory'):
        MACLIPReward(metric)(images)


def test_no_image_scores_below_the_lowest(reward):
    from maclip_pyiqa.testing import images_without_content

    assert (reward(list(images_without_content().values()))[0] > LOWEST).all()


def test_wrong_use_ends_the_run(reward, images):
    with pytest.raises(ValueError, match=r'shape \(3, 100, 120\); expected a tensor \(N, 3, H, W\)'):
        reward(images[0])
    with pytest.raises(TypeError, match='the images are a str'):
        reward('photo.png')
    with pytest.raises(TypeError, match='metric is a Linear; expected a MACLIP'):
        MACLIPReward(torch.nn.Linear(1, 1))
    for batch, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match='batch='):
            MACLIPReward(reward.metric, batch=batch)


def test_as_flow_grpo_calls_it(tiny, images, scores):
    """From threads, where gradients are on."""
    function = MACLIPReward(MACLIP(backbone=tiny))
    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(function, images, PROMPTS, [{}] * 5) for _ in range(8)]
    for job in jobs:
        got, info = job.result()
        assert isinstance(info, dict)
        weighted = [0.5 * score for score in got]
        np.testing.assert_allclose(torch.as_tensor(weighted).float().numpy(), 0.5 * scores, atol=1e-5)


# --- the form of a batch ----------------------------------------------------------------------------------------------


def arrays(images):
    return np.stack([image[:, :64, :64].numpy() for image in images])


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (
            lambda x: x,
            ValueError,
            r'image 0: an array of the shape \(3, 64, 64\); expected \(H, W, 3\); channels come last',
        ),
        (lambda x: list(x), ValueError, r'the shape \(3, 64, 64\); .*transpose'),
        (lambda x: torch.tensor(x).movedim(1, -1), ValueError, r'shape \(64, 64, 3\); expected .*channels come first'),
        (lambda x: torch.tensor(x) * 2 - 1, ValueError, r'looks like \[-1, 1\]: use \(x \+ 1\) / 2'),
        (lambda x: list(torch.tensor(x) * 255), ValueError, r'looks like \[0, 255\]'),
        (lambda x: x.transpose(0, 2, 3, 1) * 255, ValueError, r'looks like \[0, 255\]'),
        (lambda x: (torch.tensor(x) - 0.45) / 0.225, ValueError, 'normalised'),
        (lambda x: torch.tensor(x) * 1.2 - 0.1, ValueError, 'clamp it'),
        (lambda x: (x.transpose(0, 2, 3, 1) * 255).astype(int), TypeError, 'an array of int64; expected uint8'),
        (lambda x: (torch.tensor(x) * 255).int(), TypeError, 'torch.int32; expected floating point'),
        (lambda x: torch.tensor(x)[:, [0, 1, 2, 0]], ValueError, 'alpha'),
        (lambda x: ['a.png'] * 3, TypeError, 'image 0 is a str; expected a PIL image'),
        (lambda x: [None], TypeError, 'image 0 is a NoneType'),
    ],
)
def test_a_batch_of_a_wrong_format_is_an_error(reward, images, change, error, message):
    with pytest.raises(error, match=f'images cannot be scored; .*{message}'):
        reward(change(arrays(images)))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda a: [Image.fromarray(255 * image[..., 0]) for image in a], r'F image with values in \[0'),
        (lambda a: [torch.zeros(3, 1, 5000)] * 3, '1x5000'),
        (lambda a: 255 * with_nan(a), 'divide by 255'),
    ],
)
def test_a_batch_of_which_no_image_can_be_scored_is_an_error(reward, images, change, message):
    with pytest.raises(ValueError, match=message):
        reward(change(arrays(images).transpose(0, 2, 3, 1)))


def with_nan(a):
    a = a.copy()
    a[:, 0, 0, 0] = np.nan
    return a


def test_arrays_of_other_memory(reward, images, recwarn):
    a = arrays(images).transpose(0, 2, 3, 1)
    want, _ = reward(torch.tensor(a).movedim(-1, 1))
    readonly = a.copy()
    readonly.flags.writeable = False
    for same in (a.astype('>f4'), readonly, a.astype(np.float64), np.asfortranarray(a)):
        np.testing.assert_allclose(reward(same)[0], want, atol=1e-5)
    assert not recwarn.list


def test_few_images_of_a_wrong_format_are_warnings(reward, images, scores):
    mixed = [images[0], images[1] * 255, images[2]]
    with pytest.warns(UserWarning, match=r'image 1 gets the reward 0: image 1 has values .*divide by 255'):
        got, info = reward(mixed)
    assert info['scored'].tolist() == [True, False, True]
    np.testing.assert_allclose(got, [scores[0], LOWEST, scores[2]], atol=1e-5)
    with pytest.warns(UserWarning) as caught:
        assert reward([images[0], None])[1]['scored'].tolist() == [True, False]  # one of two may be the bad one
    assert len(caught) == 1


def test_pil_images_are_read_as_files_are(reward, tiny_metric, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', False)  # which pyiqa sets
    rng = np.random.default_rng(0)
    rgba = Image.fromarray(rng.integers(0, 256, (70, 80, 4), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        'rgba.png': (rgba, {}),
        '16.png': (Image.fromarray(rng.integers(0, 65536, (70, 80), dtype=np.uint16)), {}),
        'turned.png': (rgba.convert('RGB'), {'exif': exif}),
        'p.png': (rgba.convert('RGB').quantize(8), {'transparency': 1}),
    }
    for name, (image, options) in files.items():
        image.save(tmp_path / name, **options)
        with Image.open(tmp_path / name) as opened:
            got, _ = reward([opened, image.convert('RGB')])
        assert got[0] == pytest.approx(tiny_metric(read_image(tmp_path / name)[None]).item(), abs=1e-5)
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'rgba.png').read_bytes()[:2000])
    with Image.open(tmp_path / 'cut.png') as cut, pytest.warns(UserWarning, match='image 1: .*truncated'):
        assert reward([rgba, cut])[1]['scored'].tolist() == [True, False]
