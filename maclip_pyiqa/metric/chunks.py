"""Views encoded in chunks, whatever the number of images: as many at once as memory is to hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .checks import wants_grad
from .views import ViewPlan

Part = tuple[int, int, int]  # views of one image: its number, the first view, and the one after the last


def encode(
    backbone: Callable[[Tensor], Tensor], images: Sequence[Tensor], plans: Sequence[ViewPlan], most: int
) -> Tensor:
    """Features of all views, image by image, (sum of V, D).

    Where a gradient is required of more than one chunk, each is encoded again in the backward pass, so that memory
    holds one chunk only.

    Args:
        backbone: function of views, (K, 3, h, w) -> features, (K, D)
        images: images, (3, H, W) each
        plans: plan of each image
        most: largest number of views in a chunk
    """

    def encode_chunk(chunk: list[Part]) -> Tensor:
        views = [plans[i].cut(images[i], first, last) for i, first, last in chunk]
        return backbone(torch.cat(views) if len(views) > 1 else views[0])

    parts = chunks(plans, most)
    if len(parts) > 1 and wants_grad(images):
        features = [checkpoint(encode_chunk, part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    else:
        features = [encode_chunk(part) for part in parts]
    return torch.cat(features) if len(features) > 1 else features[0]


def chunks(plans: Sequence[ViewPlan], most: int) -> list[list[Part]]:
    """All views of images, in order, in chunks of even size, at most `most`; views of different sizes apart."""
    found, begin = [], 0
    while begin < len(plans):
        end = begin + 1
        while end < len(plans) and plans[end].global_size == plans[begin].global_size:
            end += 1
        # len(shares), not the property `views`, here and in what follows: torch.compile of torch 2.6 trips over it
        views = [(i, view) for i in range(begin, end) for view in range(len(plans[i].shares))]
        count = -(-len(views) // most)
        for chunk in range(count):
            spans: dict[int, tuple[int, int]] = {}
            for i, view in views[len(views) * chunk // count : len(views) * (chunk + 1) // count]:
                spans[i] = (spans[i][0] if i in spans else view, view + 1)
            found.append([(i, first, last) for i, (first, last) in spans.items()])
        begin = end
    return found
