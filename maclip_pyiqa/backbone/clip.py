"""A frozen CLIP image tower with the features of some prompts.

Original: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .frozen import FrozenModule, freeze
from .guest import GUEST, default_device, plain_torch
from .identity import image_digest, text_digest
from .loading import load
from .tower import simplify


class Backbone(FrozenModule):
    """Frozen image tower of a CLIP, with the features of some prompts.

    Its tensors are buffers that are in no state dict: nothing here is trained or saved with a model around it, and
    everything follows `.to()`. Always in eval mode. The text tower is dropped once the prompts are encoded.

    Args:
        name: option `backbone` of `MACLIP`
        pretrained, pos_embedding: options of `MACLIP`; `pretrained` is ignored where `name` brings its own weights
        prompts: pairs of prompts, (positive, negative)
        quick_gelu: QuickGELU as the activation of the transformers. None: as for the tag; for a file, as the published
            weights of this architecture were trained where they agree (OpenAI's architectures: QuickGELU)

    Attributes:
        window: side of the tower's own input, pixels
        min_size: shortest side that the tower accepts, pixels
        any_size: True where the tower accepts other sizes than its own
        text: L2-normalised prompt features, (P, 2, D)
        scale: logit scale, exp(logit_scale), ()
        image_digest: digest of all that image features are computed with
        text_digest: digest of all that the prompts' features are computed with

    Raises:
        ValueError: an unknown architecture or tag
        WeightsError: weights that cannot be found, downloaded or read, or that do not fit

    Example::

        import torch
        from maclip_pyiqa import MACLIP

        backbone = MACLIP().backbone
        backbone.window                        # 224 pixels, of RN50
        x = torch.rand(4, 3, backbone.window, backbone.window)
        features = backbone(x)                 # (4, D)
    """

    visual: nn.Module
    text: Tensor
    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        pretrained: str | os.PathLike,
        prompts: Sequence[tuple[str, str]],
        pos_embedding: bool = False,
        quick_gelu: bool | None = None,
    ) -> None:
        super().__init__()
        with GUEST, plain_torch():
            clip, mean, std, tokenizer, facts = load(name, pretrained, quick_gelu)
            clip.eval()
            size = clip.visual.image_size
            size = size if isinstance(size, tuple) else (size, size)
            if size[0] != size[1]:
                raise ValueError(f'backbone {name!r} takes images of {size[0]}x{size[1]}; expected a square input')
            self.window = size[0]
            # as open_clip sets it: threads of a tokenizer would make later forks of the process warn
            os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
            tokens = tokenizer([prompt for pair in prompts for prompt in pair])
            text = clip.encode_text(tokens, normalize=True).unflatten(0, (-1, 2))
            scale = clip.logit_scale.exp().reshape(())
            self.image_digest = image_digest(clip, facts['vision'], self.window, mean, std)
            self.text_digest = text_digest(clip, facts['text'], tokens)
            self.visual, self.min_size, self.any_size = simplify(clip.visual, self.window, pos_embedding)
            for key, value in {'text': text, 'scale': scale}.items():
                self.register_buffer(key, value.detach().clone(), persistent=False)
            for key, value in {'mean': mean, 'std': std}.items():
                self.register_buffer(key, torch.tensor(value).view(3, 1, 1), persistent=False)
            freeze(self.visual)
            self.to(memory_format=torch.channels_last)
        device = default_device()
        if device.type != 'meta':  # the weights are values, not placeholders
            self.to(device)

    def forward(self, views: Tensor) -> Tensor:
        """RGB images in [0, 1], (K, 3, H, W) -> features before L2 normalisation, (K, D)."""
        views = (views - self.mean) / self.std
        return self.visual(views.contiguous(memory_format=torch.channels_last))
