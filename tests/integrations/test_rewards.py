"""Rewards: every form of images, bad images, differences within a prompt, and what the frameworks call."""

import sys
from abc import ABC
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from inspect import signature
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from maclip_pyiqa import MACLIP
from maclip_pyiqa.integrations.rewards import LOWEST, MACLIPReward, maclip_score, paired_deltas
from maclip_pyiqa.scoring import read_image


@pytest.fixture(scope='module')
def reward(tiny):
    return MACLIPReward(backbone=tiny, batch=2)


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
        np.testing.assert_array_equal(info['score'], got)
        assert info['scored'].all()
    assert np.ptp(scores) > 1e-3


def test_sizes_and_batches(tiny, images, scores):
    mixed = [images[0], images[1, :, :80, :90], images[2, :, :33], images[3]]
    want = MACLIP(backbone=tiny)(mixed).numpy()[:, 0]
    for batch in (1, 3, 16):
        np.testing.assert_allclose(MACLIPReward(backbone=tiny, batch=batch)(mixed)[0], want, atol=1e-5)
    seen = []
    metric = MACLIP(backbone=tiny)
    metric.register_forward_pre_hook(lambda module, args: seen.append((len(args[0]), torch.is_grad_enabled())))
    np.testing.assert_allclose(MACLIPReward(metric, batch=2)(images)[0], scores, atol=1e-5)
    assert seen == [(2, False), (2, False), (1, False)]
    assert MACLIPReward(metric)([])[0].shape == (0,) and MACLIPReward(metric, deltas=True)([], [])[0].shape == (0,)


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


def test_no_image_scores_below_the_lowest(reward):
    from maclip_pyiqa.testing import images_without_content

    assert (reward(list(images_without_content().values()))[0] > LOWEST).all()


def test_deltas(tiny, images, scores):
    got, info = MACLIPReward(backbone=tiny, deltas=True)(images, PROMPTS)
    cats = scores[[0, 2, 3]]
    np.testing.assert_allclose(got[[0, 2, 3]], cats - cats.mean(), atol=1e-5)
    assert got[[1, 4]].tolist() == [0, 0]
    np.testing.assert_allclose(info['score'], scores, atol=1e-5)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 3)), max_size=20))
def test_paired_deltas(pairs):
    scores, prompts = [score for score, _ in pairs], [str(prompt) for _, prompt in pairs]
    got = paired_deltas(scores, prompts)
    assert got.dtype == np.float32 and got.shape == (len(pairs),)
    for prompt in set(prompts):
        of = [i for i, p in enumerate(prompts) if p == prompt]
        assert abs(got[of].sum()) < 1e-5
        for i in of:  # differences within the prompt stay
            assert got[i] - got[of[0]] == pytest.approx(scores[i] - scores[of[0]], abs=1e-5)


def test_wrong_use_ends_the_run(reward, tiny, images):
    with pytest.raises(ValueError, match='5 images and 2 prompts'):
        reward(images, ['a', 'b'])
    with pytest.raises(ValueError, match=r'shape \(3, 100, 120\); expected a tensor \(N, 3, H, W\)'):
        reward(images[0])
    with pytest.raises(TypeError, match='the images are a str'):
        reward('photo.png')
    with pytest.raises(ValueError, match='deltas=True without prompts'):
        MACLIPReward(backbone=tiny, deltas=True)(images)
    with pytest.raises(ValueError, match=r'shape \(2,\) and 3 prompts'):
        paired_deltas([0.1, 0.2], 'abc')
    with pytest.raises(TypeError, match='metric is a Linear; expected a MACLIP'):
        MACLIPReward(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match='a ready metric together with its options chunk'):
        MACLIPReward(reward.metric, chunk=3)
    for batch in (0, 1.5, True):
        with pytest.raises(ValueError, match='batch='):
            MACLIPReward(reward.metric, batch=batch)


def test_as_flow_grpo_calls_it(tiny, images, scores):
    """Made of a device where the function's code has that name; called from threads, where gradients are on."""
    assert 'device' in maclip_score.__code__.co_varnames
    function = maclip_score('cpu', backbone=tiny)
    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(function, images, PROMPTS, [{}] * 5) for _ in range(8)]
    for job in jobs:
        got, info = job.result()
        assert isinstance(info, dict)
        weighted = [0.5 * score for score in got]
        np.testing.assert_allclose(torch.as_tensor(weighted).float().numpy(), 0.5 * scores, atol=1e-5)


# --- Flow-Factory, by a stand-in of its interface ----------------------------------------------------------------


@dataclass
class Output:
    rewards: object
    extra_info: object = None


class Pointwise(ABC):  # noqa: B024
    """Sets what Flow-Factory's base class sets."""

    def __init__(self, config, accelerator):
        self.config, self.accelerator = config, accelerator
        self.device = accelerator.device if config.device == torch.device('cuda') else config.device
        self.dtype, self.model = config.dtype, None


@dataclass
class Config:
    device: torch.device
    dtype: torch.dtype = torch.bfloat16
    batch_size: int = 4
    extra_kwargs: dict = field(default_factory=dict)


@pytest.fixture
def flow_factory(monkeypatch):
    """Our module, imported with the stand-in and forgotten afterwards."""
    name = 'maclip_pyiqa.integrations.flow_factory'
    package, rewards = ModuleType('flow_factory'), ModuleType('flow_factory.rewards')
    rewards.PointwiseRewardModel, rewards.RewardModelOutput = Pointwise, Output
    monkeypatch.setitem(sys.modules, 'flow_factory', package)
    monkeypatch.setitem(sys.modules, 'flow_factory.rewards', rewards)
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield __import__(name, fromlist=['MACLIPRewardModel'])
    sys.modules.pop(name, None)


def test_flow_factorys_pointwise_reward(flow_factory, tiny, images, scores):
    accelerator = SimpleNamespace(device=torch.device('cpu'))
    config = Config(torch.device('cuda'), extra_kwargs={'backbone': tiny, 'chunk': 3})
    model = flow_factory.MACLIPRewardModel(config, accelerator)
    assert isinstance(model, Pointwise) and model.use_tensor_inputs and model.model.chunk == 3
    # the framework passes those fields of a sample that the signature names
    assert set(signature(model.__call__).parameters) == {'prompt', 'image'}
    for form in (images, list(images)):
        output = model(prompt=PROMPTS, image=form)
        got = torch.as_tensor(output.rewards, device='cpu', dtype=torch.float32)
        np.testing.assert_allclose(got.numpy(), scores, atol=1e-5)
    with pytest.raises(ValueError, match='no image; videos are not scored'):
        model(prompt=PROMPTS)
    with pytest.raises(TypeError, match='deltas'):
        flow_factory.MACLIPRewardModel(Config(torch.device('cpu'), extra_kwargs={'deltas': True}), accelerator)


def test_flow_factory_is_needed_for_its_class_alone(monkeypatch):
    # a failed import for doctests leaves the module here
    monkeypatch.delitem(sys.modules, 'maclip_pyiqa.integrations.flow_factory', raising=False)
    with pytest.raises(ModuleNotFoundError, match='Flow-Factory is not installed'):
        __import__('maclip_pyiqa.integrations.flow_factory')


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


def test_prompts_are_compared_by_value(tiny, images):
    reward = MACLIPReward(backbone=tiny, deltas=True)
    numbers = [0, 1, 0, 0, 2]
    want, _ = reward(images, numbers)
    for same in (torch.tensor(numbers), np.array(numbers), iter(numbers)):
        np.testing.assert_array_equal(reward(images, same)[0], want)
    for wrong in ('a cat', b'a cat', [['a']] * 5, 3):
        with pytest.raises(TypeError, match='prompts'):
            reward(images, wrong)


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
