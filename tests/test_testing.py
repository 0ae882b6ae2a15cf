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


def test_command_writes_weights_that_load(architecture, tmp_path, capsys):
    files = [tmp_path / f'{name}.pt' for name in 'abc']
    for file, seed in zip(files, '001', strict=True):
        assert testing.main([str(file), '--backbone', architecture, '--seed', seed]) == 0
    assert 'scores from them mean nothing' in capsys.readouterr().out
    images = torch.stack(testing.synthetic_images(3, seed=5))[..., :100, :120]
    first, again, other = (MACLIP(backbone=architecture, pretrained=file)(images) for file in files)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.std() > 1e-3


def test_command_refuses(architecture, tmp_path, capsys):
    unknown, missing = (tmp_path / 'a.pt', 'RN5'), (tmp_path / 'none' / 'a.pt', architecture)
    for (file, backbone), say in ((unknown, 'open_clip.list_models'), (missing, str(tmp_path / 'none'))):
        with pytest.raises(SystemExit, match='2'):
            testing.main([str(file), '--backbone', backbone])
        assert say in capsys.readouterr().err


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
