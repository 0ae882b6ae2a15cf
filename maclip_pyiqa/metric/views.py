"""What CLIP sees of an image: sliding windows, and the whole image once, resized.

An image here is (3, H, W). Windows are named by their places: (image's index, top, left), in pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['Place', 'cut', 'enlarge', 'resize', 'window_places']

Place = tuple[int, int, int]


def window_places(index: int, height: int, width: int, window: int, stride: int) -> list[Place]:
    """Places of all windows that fit into an image, row by row from the top left.

    What is left over at the right and at the bottom is in no window.

    Example:
        >>> window_places(0, 384, 512, 224, 128)
        [(0, 0, 0), (0, 0, 128), (0, 0, 256), (0, 128, 0), (0, 128, 128), (0, 128, 256)]
    """
    tops = range(0, height - window + 1, stride)
    lefts = range(0, width - window + 1, stride)
    return [(index, top, left) for top in tops for left in lefts]


def enlarge(image: Tensor, window: int) -> Tensor:
    """(3, H, W) -> the image itself, or, where its shorter side is below one window, bicubic to one window.

    The aspect ratio is kept: the shorter side becomes `window`, the longer one is rounded to a pixel.
    """
    short = min(image.shape[-2:])
    if short >= window:
        return image
    height, width = (round(side * window / short) for side in image.shape[-2:])
    return F.interpolate(image[None], (height, width), mode='bicubic', align_corners=False)[0]


def resize(image: Tensor, window: int) -> Tensor:
    """(3, H, W) -> (3, window, window): bilinear, no antialiasing, aspect ratio not kept, as the authors do."""
    return F.interpolate(image[None], (window, window), mode='bilinear', align_corners=False)[0]


def cut(images: list[Tensor], places: list[Place], window: int) -> Tensor:
    """Windows of the images, (K, 3, window, window), differentiable any number of times."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return _slices(images, places, window)
    used = sorted({index for index, _, _ in places})
    position = {index: p for p, index in enumerate(used)}
    places = [(position[index], top, left) for index, top, left in places]
    return _Cut.apply(places, window, *(images[index] for index in used))


def _slices(images, places: list[Place], window: int) -> Tensor:
    return torch.stack([images[i][:, t : t + window, l : l + window] for i, t, l in places])


# Slices alone have the same gradient, but their backward makes a zero image for each window: quadratic in the number
# of windows. This pair of adjoints adds each window where it came from. (Compiled code takes the plain slices, which
# the compiler fuses, since it cannot follow these.)


class _Cut(torch.autograd.Function):
    @staticmethod
    def forward(places, window, *images):
        return _slices(images, places, window)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.places, ctx.window, *images = inputs
        ctx.sizes = [image.shape for image in images]

    @staticmethod
    def backward(ctx, grad):
        return None, None, *_Paste.apply(ctx.places, ctx.window, ctx.sizes, grad)


class _Paste(torch.autograd.Function):
    @staticmethod
    def forward(places, window, sizes, views):
        images = [views.new_zeros(size) for size in sizes]
        for (i, t, l), view in zip(places, views.unbind(0), strict=True):
            images[i][:, t : t + window, l : l + window] += view
        return tuple(images)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.places, ctx.window, *_ = inputs

    @staticmethod
    def backward(ctx, *grads):
        return None, None, None, _Cut.apply(ctx.places, ctx.window, *grads)
