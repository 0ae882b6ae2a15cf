"""What identifies a CLIP: hashes of its weights as they were loaded, and of what tensors do not tell.

They hold float32 values by their names in open_clip's state dict, and what differs from the defaults of open_clip's
configuration. So they are the same on every machine, for every kind of file and for every version of the libraries, and
nothing that this package does to a tower afterwards changes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

NEUTRAL = ('pretrained', 'tokenizer', 'drop', 'output_tokens')  # parts of names: loading, tokens (hashed), training
IN_SHAPES = ('layers', 'width', 'patch_size', 'image_size', 'mlp_ratio', 'vocab_size', 'context_length')


def architecture_facts(config: Mapping[str, Any], quick_gelu: bool) -> dict[str, dict[str, Any]]:
    """What tensors do not tell of a CLIP's two towers: heads, activations, norms, pooling; of towers of timm and of
    Hugging Face the name.

    Args:
        config: model configuration of open_clip
        quick_gelu: QuickGELU as the activation that the CLIP was built with, in place of the configuration's

    Returns:
        settings of 'vision' and 'text' that differ from open_clip's defaults, but for those that move no feature
    """
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    facts = {}
    for tower, defaults in {'vision': asdict(CLIPVisionCfg()), 'text': asdict(CLIPTextCfg())}.items():
        facts[tower] = {'quick_gelu': bool(quick_gelu)} | {
            name: value
            for name, value in config[f'{tower}_cfg'].items()
            if value not in (None, defaults.get(name))
            and name not in IN_SHAPES
            and not any(part in name for part in NEUTRAL)
        }
    return facts


def image_digest(clip: Any, facts: Mapping[str, Any], window: int, mean: Sequence[float], std: Sequence[float]) -> str:
    """Hash of all that image features are computed with: a CLIP as it was loaded, facts of its image tower (see
    `architecture_facts`), side of its input in pixels, and normalisation, (3,) each."""
    constants = {'image mean': torch.tensor(mean), 'image std': torch.tensor(std)}
    return digest({'window': window, **facts}, clip.visual.state_dict() | constants)


def text_digest(clip: nn.Module, facts: Mapping[str, Any], tokens: Tensor) -> str:
    """Hash of all that prompt features and the logit scale are computed with: a CLIP as it was loaded, facts of its
    text tower, and tokens of the prompts, (prompts, context length). Not of the features, whose last bits vary."""
    unused = ('visual.', 'text_decoder.', 'logit_bias')
    # open_clip has two classes of CLIP, which differ in this prefix
    tensors = {k.removeprefix('text.'): v for k, v in clip.state_dict().items() if not k.startswith(unused)}
    tensors['logit_scale'] = tensors['logit_scale'].reshape(())  # also of models that hold it as (1,)
    if 'token_embedding.weight' in tensors:  # of those tokens only: most of a small CLIP's weights are in this table
        tensors['token_embedding.weight'] = tensors['token_embedding.weight'][tokens.unique()]
    return digest({'tokens': tokens.tolist(), **facts}, tensors)


def digest(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hash of facts and of floating-point tensors by their names: 64 hexadecimal digits."""
    floating = {name: tensor for name, tensor in sorted(tensors.items()) if tensor.is_floating_point()}
    shapes = [[name, *tensor.shape] for name, tensor in floating.items()]  # counters follow from the architecture
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        values = list(pool.map(_hash, floating.values()))
    return hashlib.blake2b(json.dumps([facts, shapes, values], sort_keys=True).encode(), digest_size=32).hexdigest()


def _hash(tensor: Tensor) -> str:
    # BLAKE2b: as safe as SHA-256, and on processors without instructions for that twice as fast
    values = np.ascontiguousarray(tensor.detach().float().cpu().numpy(), '<f4')
    return hashlib.blake2b(values.data, digest_size=32).hexdigest()
