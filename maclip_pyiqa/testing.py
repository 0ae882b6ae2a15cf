"""Stand-in CLIP weights for tests: random, but their scores differ between images.

A freshly initialised CLIP gives every image the same score to 1e-5, so a test on it would pass whatever the code does.
Here the batch norms take their statistics from images, and the image features are centred. Scores from such weights
say nothing about quality; they show whether two programs compute the same thing, and how fast.

Example::

    from pathlib import Path

    from maclip_pyiqa import MACLIP
    from maclip_pyiqa.testing import TINY, make_clip, save_folder, synthetic_images

    backbone = save_folder(make_clip(TINY, synthetic_images()), TINY, Path('tiny'))
    metric = MACLIP(backbone=backbone)  # builds in a fraction of a second, with windows of 64 pixels
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

__all__ = [
    *('TINY', 'images_without_content', 'make_clip', 'save_folder', 'save_torchscript', 'state_dict'),
    'synthetic_images',
]

#: open_clip's configuration of the smallest CLIP in OpenAI's layout, see `make_clip`: a ResNet with a window of 64
#: pixels and features of 64 numbers.
#:
#: Example::
#:
#:     from maclip_pyiqa.testing import TINY, make_clip, synthetic_images
#:
#:     clip = make_clip(TINY | {'embed_dim': 32}, synthetic_images(1))
TINY = {  # the text tower has width / 64 heads
    'embed_dim': 64,
    'quick_gelu': True,
    'vision_cfg': {'image_size': 64, 'layers': [1, 1, 1, 1], 'width': 8, 'head_width': 64},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 64, 'heads': 1, 'layers': 1},
}


def make_clip(config: dict | str, images: list[Tensor], seed: int = 0) -> nn.Module:
    """A CLIP of random weights whose features differ between images, on the CPU in eval mode.

    Args:
        config: open_clip model configuration such as `TINY`, or the name of an architecture such as 'RN50'
        images: one or more RGB images in [0, 1], (3, H, W) each; the batch norms' statistics are taken from them
        seed: seed of the weights

    Returns:
        a CLIP of open_clip

    Raises:
        ValueError: open_clip knows no architecture of that name

    Example::

        import torch
        from maclip_pyiqa.testing import TINY, make_clip, synthetic_images

        clip = make_clip(TINY, synthetic_images())
        features = clip.encode_image(torch.rand(2, 3, 64, 64))  # (2, 64)
    """
    model = open_clip.get_model_config(config) if isinstance(config, str) else config
    if model is None:
        raise ValueError(f'unknown backbone {config!r}; expected one of open_clip.list_models(), such as RN50')
    if config == 'RN50':
        model = model | {'quick_gelu': True}
    model = {k: v for k, v in model.items() if k != 'custom_text'}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        clip = open_clip.model.CLIP(**model).eval()
        clip.logit_scale.fill_(100.0**0.5).log_().mul_(2)  # log(100), as in all of OpenAI's models
        for name, parameter in clip.named_parameters():
            if name.endswith('bn3.weight'):  # initialised to zero, which switches the residual branches off
                parameter.uniform_(0.3, 0.8)
        for embedding in (clip.positional_embedding, clip.token_embedding.weight):
            embedding.mul_(10)  # otherwise all prompts have nearly the same features

        size = clip.visual.image_size
        size = size if isinstance(size, int) else size[0]
        crops = (torch.cat([_crops(image, size) for image in images]) - 0.45) / 0.27
        norms = [m for m in clip.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.train().momentum = None
        clip.visual(crops)
        clip.eval()
        mean = clip.visual(crops).mean(0)
        if hasattr(clip.visual, 'attnpool'):
            clip.visual.attnpool.c_proj.bias -= mean
    return clip


def _crops(image: Tensor, size: int) -> Tensor:
    """The whole image, resized, and its four corners, (5, 3, size, size)."""
    image = F.interpolate(image[None], scale_factor=max(1, 2 * size / min(image.shape[-2:])), mode='bilinear')
    height, width = image.shape[-2:]
    corners = [(t, l) for t in (0, height - size) for l in (0, width - size)]
    resized = F.interpolate(image, (size, size), mode='bilinear')
    return torch.cat([resized, *(image[..., t : t + size, l : l + size] for t, l in corners)])


def state_dict(clip: nn.Module, half: bool = True) -> dict[str, Tensor]:
    """State dict of a CLIP in OpenAI's precision.

    Args:
        clip: CLIP of open_clip
        half: half precision for the weights of convolutions, linear layers and projections, as OpenAI stores them

    Returns:
        copies of its tensors by name

    Example::

        import torch
        from maclip_pyiqa.testing import TINY, make_clip, state_dict, synthetic_images

        state = state_dict(make_clip(TINY, synthetic_images()))
        torch.save(state, 'tiny.pt')
    """
    state = {k: v.clone() for k, v in clip.state_dict().items()}
    full = ('bn', 'ln_', 'positional_embedding', 'class_embedding', 'token_embedding', 'logit_scale', 'downsample.1')
    halved = {k for k, v in state.items() if half and v.is_floating_point() and not any(name in k for name in full)}
    return {k: v.half() if k in halved else v for k, v in state.items()}


def save_torchscript(state: dict[str, Tensor], path: Path) -> None:
    """Write a state dict as OpenAI publishes it: a TorchScript archive, with the three integers that it also holds.

    Args:
        state: state dict of a CLIP, see `state_dict`
        path: path of the file, .pt

    Raises:
        RuntimeError: the file cannot be written

    Example::

        from pathlib import Path

        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.testing import make_clip, save_torchscript, state_dict, synthetic_images

        save_torchscript(state_dict(make_clip('RN50', synthetic_images(1))), Path('RN50.pt'))
        metric = MACLIP(backbone='RN50', pretrained='RN50.pt')
    """

    class Tree(nn.Module):
        def forward(self):
            return None

    root = Tree()
    integers = {'input_resolution': 224, 'context_length': 77, 'vocab_size': 49408}
    for name, tensor in (state | {name: torch.tensor(value) for name, value in integers.items()}).items():
        *parents, leaf = name.split('.')
        node = root
        for parent in parents:
            if not hasattr(node, parent):
                node.add_module(parent, Tree())
            node = getattr(node, parent)
        node.register_buffer(leaf, tensor)
    with warnings.catch_warnings():  # torch deprecates TorchScript, but OpenAI's files are in it
        warnings.simplefilter('ignore')
        torch.jit.script(root).save(str(path))


def save_folder(clip: nn.Module, config: dict, folder: Path) -> str:
    """Write a folder in open_clip's layout.

    Args:
        clip: CLIP of open_clip
        config: its open_clip model configuration
        folder: folder to write to, created if it does not exist

    Returns:
        name that loads it, as MACLIP(backbone=name)

    Raises:
        OSError: the folder cannot be written

    Example::

        from pathlib import Path

        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.testing import TINY, make_clip, save_folder, synthetic_images

        backbone = save_folder(make_clip(TINY, synthetic_images()), TINY, Path('tiny'))
        metric = MACLIP(backbone=backbone)
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'open_clip_config.json').write_text(json.dumps({'model_cfg': config, 'preprocess_cfg': {}}))
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, folder / 'open_clip_model.safetensors')
    return f'local-dir:{folder}'


def synthetic_images(count: int = 4, seed: int = 0) -> list[Tensor]:
    """Smooth colour noise with edges, each (3, 384, 512) in [0, 1]; enough for `make_clip` without photos.

    Args:
        count: number of images
        seed: seed of the noise

    Example:
        >>> from maclip_pyiqa.testing import synthetic_images
        >>> [tuple(image.shape) for image in synthetic_images(2)]
        [(3, 384, 512), (3, 384, 512)]
    """
    generator = torch.Generator().manual_seed(seed)
    images = []
    for _ in range(count):
        layers = [
            F.interpolate(torch.rand(1, 3, 3 * 2**k, 4 * 2**k, generator=generator), (384, 512), mode='bilinear')
            for k in range(0, 8, 2)
        ]
        image = sum(layer / 2**k for k, layer in enumerate(layers))
        image = torch.where(layers[1].mean(1, keepdim=True) > 0.5, image, image.flip(1))
        images.append(((image - image.amin()) / (image.amax() - image.amin()))[0])
    return images


def images_without_content(seed: int = 0) -> dict[str, Tensor]:
    """Flat images, patterns, noise and tiny images by name, each (3, H, W) in [0, 1].

    No-reference metrics have surprises on these; it is good to know which before a metric is used as a filter.

    Args:
        seed: seed of the noise

    Example::

        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.testing import images_without_content

        metric = MACLIP(views='global')
        for name, image in images_without_content().items():
            print(name, metric([image]).item())
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(3, 384, 512, generator=generator)
    checks = ((torch.arange(384)[:, None] // 8 + torch.arange(512) // 8) % 2).float().expand(3, -1, -1)
    return {
        'black': torch.zeros(3, 384, 512),
        'grey': torch.full((3, 384, 512), 0.5),
        'white': torch.ones(3, 384, 512),
        'ramp': torch.linspace(0, 1, 512).expand(3, 384, 512),
        'checkerboard, 8 pixels': checks,
        'noise, standard deviation 0.1': (0.5 + 0.1 * noise).clamp(0, 1),
        'noise, uniform': torch.rand(3, 384, 512, generator=generator),
        'noise, black and white': torch.rand(1, 384, 512, generator=generator).round().expand(3, -1, -1),
        'grey, 1x1': torch.full((3, 1, 1), 0.5),
        'noise, uniform, 8x8': torch.rand(3, 8, 8, generator=generator),
        'noise, uniform, 32x32': torch.rand(3, 32, 32, generator=generator),
    }
