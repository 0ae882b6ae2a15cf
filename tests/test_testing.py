"""Stand-in weights: the same from the same seed, different for different images, written and read back."""

import json

import open_clip
import pytest
import torch

from maclip_pyiqa import MACLIP, testing


@pytest.fixture
def architecture(tmp_path):
    """The tiny CLIP by a name that open_clip knows."""
    file = tmp_path / 'tiny-testing.json'
    file.write_text(json.dumps(testing.TINY))
    open_clip.add_model_config(file)
    yield file.stem
    file.unlink()
    open_clip.factory._MODEL_CONFIG_PATHS.remove(file)
    open_clip.factory._rescan_model_configs()


def test_weights_are_of_their_seed(architecture, tmp_path):
    files = [tmp_path / f'{name}.pt' for name in 'abc']
    for file, seed in zip(files, (0, 0, 1), strict=True):
        torch.save(testing.state_dict(testing.make_clip(architecture, testing.synthetic_images(), seed)), file)
    images = torch.stack(testing.synthetic_images(3, seed=5))[..., :100, :120]
    first, again, other = (MACLIP(backbone=architecture, pretrained=file)(images) for file in files)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.std() > 1e-3


def test_unknown_architecture():
    with pytest.raises(ValueError, match=r'open_clip\.list_models'):
        testing.make_clip('RN5', testing.synthetic_images(1))


def test_openais_precision(tiny_clip):
    half, whole = testing.state_dict(tiny_clip), testing.state_dict(tiny_clip, half=False)
    assert all(value.dtype == torch.float32 for value in whole.values() if value.is_floating_point())
    assert half['visual.conv1.weight'].dtype == half['text_projection'].dtype == torch.float16
    assert half['visual.bn1.weight'].dtype == half['logit_scale'].dtype == torch.float32
    assert half.keys() == whole.keys() == tiny_clip.state_dict().keys()


def test_images_without_content():
    images, again = testing.images_without_content(), testing.images_without_content()
    for name, image in images.items():
        assert image.ndim == 3 and len(image) == 3 and 0 <= image.min() <= image.max() <= 1
        assert torch.equal(image, again[name])
    assert not torch.equal(images['noise, uniform'], testing.images_without_content(1)['noise, uniform'])
