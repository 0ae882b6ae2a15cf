"""Stand-in CLIP weights, for machines without the real ones: random, but they tell images apart.

A freshly initialised CLIP gives every image the same score to 1e-5, so nothing measured on it means anything. Here
the batch norms get their statistics from images, and the image features are centred. Scores from such weights say
nothing about quality; they only show whether two programs compute the same thing, and how fast.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

TINY = {  # OpenAI's layout, as small as it goes: text heads are width / 64 there
    'embed_dim': 64,
    'quick_gelu': True,
    'vision_cfg': {'image_size': 64, 'layers': [1, 1, 1, 1], 'width': 8, 'head_width': 64},
    'text_cfg': {'context_length': 77, 'vocab_size': 49408, 'width': 64, 'heads': 1, 'layers': 1},
}


def make_clip(config: dict | str, images: list[Tensor], seed: int = 0) -> nn.Module:
    """A CLIP of random weights that tells the images (3, H, W) apart, on the CPU in eval mode.

    Args:
        config: an open_clip model configuration, or the name of one
        images: RGB in [0, 1]
    """
    if isinstance(config, str):
        config = open_clip.get_model_config(config) | ({'quick_gelu': True} if config == 'RN50' else {})
    config = {k: v for k, v in config.items() if k != 'custom_text'}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        clip = open_clip.model.CLIP(**config).eval()
        clip.logit_scale.fill_(100.0**0.5).log_().mul_(2)  # 100, as all of OpenAI's models have it
        for name, parameter in clip.named_parameters():
            if name.endswith('bn3.weight'):  # zero at the start, so that no residual branch would count
                parameter.uniform_(0.3, 0.8)
        for embedding in (clip.positional_embedding, clip.token_embedding.weight):
            embedding.mul_(10)  # else all prompts come out nearly the same

        size = clip.visual.image_size
        size = size if isinstance(size, int) else size[0]
        crops = torch.cat([_crops(image, size) for image in images])
        crops = (crops - 0.45) / 0.27
        norms = [m for m in clip.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None
            norm.train()
        clip.visual(crops)
        for norm in norms:
            norm.eval()
        mean = clip.visual(crops).mean(0)
        if hasattr(clip.visual, 'attnpool'):
            clip.visual.attnpool.c_proj.bias -= mean
    return clip


def _crops(image: Tensor, size: int) -> Tensor:
    """Some crops of an image and the whole, resized, (5, 3, size, size)."""
    image = F.interpolate(image[None], scale_factor=max(1, 2 * size / min(image.shape[-2:])), mode='bilinear')
    height, width = image.shape[-2:]
    corners = [(t, l) for t in (0, height - size) for l in (0, width - size)]
    whole = F.interpolate(image, (size, size), mode='bilinear')
    return torch.cat([whole, *(image[..., t : t + size, l : l + size] for t, l in corners)])


def state_dict(clip: nn.Module, half: bool = True) -> dict[str, Tensor]:
    """Its state dict as OpenAI's are: weights of convolutions, linear layers and projections in half precision."""
    state = {k: v.clone() for k, v in clip.state_dict().items()}
    if not half:
        return state
    full = ('bn', 'ln_', 'positional_embedding', 'class_embedding', 'token_embedding', 'logit_scale', 'downsample.1')
    return {k: v if any(f in k for f in full) or not v.is_floating_point() else v.half() for k, v in state.items()}


def save_torchscript(state: dict[str, Tensor], path: Path) -> None:
    """Write a state dict as a TorchScript archive with OpenAI's names, three numbers of theirs among them."""

    class Tree(nn.Module):
        def forward(self):
            return None

    root = Tree()
    extra = {'input_resolution': 224, 'context_length': 77, 'vocab_size': 49408}
    for name, tensor in (state | {k: torch.tensor(v) for k, v in extra.items()}).items():
        *parents, leaf = name.split('.')
        node = root
        for parent in parents:
            if not hasattr(node, parent):
                node.add_module(parent, Tree())
            node = getattr(node, parent)
        node.register_buffer(leaf, tensor)
    with warnings.catch_warnings():  # torch announces TorchScript's end; OpenAI's files stay what they are
        warnings.simplefilter('ignore')
        torch.jit.script(root).save(str(path))


def save_folder(clip: nn.Module, config: dict, folder: Path) -> str:
    """Write an open_clip folder; -> the name that loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'open_clip_config.json').write_text(json.dumps({'model_cfg': config, 'preprocess_cfg': {}}))
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, folder / 'open_clip_model.safetensors')
    return f'local-dir:{folder}'


def synthetic_images(count: int = 4, seed: int = 0) -> list[Tensor]:
    """Smooth colour noise with edges, (3, 384, 512): enough for statistics where no photo is at hand."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', type=Path, help='where to write the state dict (.pt)')
    parser.add_argument('--backbone', default='RN50', help='an open_clip architecture (default: RN50)')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    args = parser.parse_args()
    torch.save(state_dict(make_clip(args.backbone, synthetic_images(), args.seed)), args.file)
    print(f'{args.file}: stand-in weights for {args.backbone}; scores from them mean nothing')


if __name__ == '__main__':
    main()
