"""A head fitted to ratings, in place of the fusion. A metric with one is not MA-CLIP as published."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._files import one_line, replacing
from ..backbone.frozen import FrozenModule
from ..backbone.identity import digest
from .options import Options, rounded

if TYPE_CHECKING:
    from ..backbone import Backbone

KEY = 'maclip_pyiqa_head'  # of the file's metadata
ABOUT = {'config', 'image_digest', 'text_digest', 'ratings', 'fitted_on'}  # what a head needs to say
NEEDED = ('pos_embedding', 'box_lam', 'prompt_weights')  # options that move what a head is computed from


class Head(FrozenModule):
    r"""The score of a view as a linear function of its feature f and its two cues:

    $$q = w \cdot f / |f| + a\,q_{sim} + b\,q_{mag} + c$$

    Its scores are about 0 for the worst and about 1 for the best of the ratings that it was fitted to.
    `maclip-pyiqa fit` makes one, and `MACLIP(head='FILE.safetensors')` uses it.

    Args:
        weight: w, (D,)
        cues: a and b, (2,)
        bias: c, ()
        about: plain data: `config` of the metric that it was fitted to; `image_digest` and `text_digest` of its
            backbone; `ratings` of score 0 and of score 1; `fitted_on`, data set, protocol and numbers of images and
            groups; `held_out`, SRCC on images that it was not fitted to, that of the unfitted metric, and the 95 %
            interval of the gain, null if there is none; `licence` of the ratings, as it was given; `versions`; `date`

    Attributes:
        digest: hash of its numbers, 64 hexadecimal digits

    Example::

        import torch
        from maclip_pyiqa import MACLIP

        metric = MACLIP(head='head.safetensors')  # which `maclip-pyiqa fit` wrote
        score = metric(torch.rand(1, 3, 384, 512))  # (1, 1)
        rating = metric.head.ratings(score)    # (1, 1), in the unit of the ratings
        print(metric.head.about['fitted_on'])
    """

    weight: Tensor
    cues: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, cues: Tensor, bias: Tensor, about: Mapping[str, Any]) -> None:
        super().__init__()
        tensors = {'weight': weight, 'cues': cues, 'bias': bias}
        with torch.inference_mode(False):
            for name, tensor in tensors.items():
                self.register_buffer(name, tensor.detach().float().clone(), persistent=False)
        self.about = dict(about)
        self.digest = digest({}, dict(self.named_buffers()))
        self.eval()

    def forward(self, f: Tensor, q_sim: Tensor, q_mag: Tensor) -> Tensor:
        """Features before L2 normalisation, (..., D), and their cues, (...) each -> scores, (...)."""
        weight, (a, b), bias = self.weight.to(f.dtype), self.cues.to(f.dtype), self.bias.to(f.dtype)
        return F.normalize(f, dim=-1) @ weight + a * q_sim + b * q_mag + bias

    def ratings(self, scores: Tensor) -> Tensor:
        """Scores in the unit of the ratings that the head was fitted to, of the scores' shape."""
        worst, best = self.about['ratings']
        return worst + scores * (best - worst)

    def save(self, path: str | os.PathLike) -> None:
        """Write a .safetensors file of a few kilobytes.

        Raises:
            OSError: the file cannot be written
        """
        from safetensors.torch import save

        data = save({name: tensor.cpu() for name, tensor in self.named_buffers()}, {KEY: json.dumps(self.about)})
        with replacing(path) as part, open(part, 'wb') as file:
            file.write(data)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Head:
        """The head of a file, on the CPU.

        Raises:
            ValueError: a file that cannot be read, or holds no head
        """
        from safetensors import SafetensorError, safe_open

        path = os.path.expanduser(os.fspath(path))
        wrote = "expected a file that `maclip-pyiqa fit` wrote. A CLIP's own weights are the option `pretrained`"
        try:
            with safe_open(path, 'pt') as file:
                about = json.loads((file.metadata() or {}).get(KEY, '{}'))
                tensors = {name: file.get_tensor(name) for name in ('weight', 'cues', 'bias')} if about else {}
        except (OSError, SafetensorError, ValueError, RecursionError) as error:
            raise ValueError(f'head {path} cannot be read: {one_line(error)}; {wrote}') from error
        shapes = [tuple(tensor.shape) for tensor in tensors.values()]
        says = isinstance(about, dict) and about.keys() >= ABOUT and isinstance(about['config'], dict)
        if shapes[1:] != [(2,), ()] or len(shapes[0]) != 1 or not says:
            raise ValueError(f'{path} holds no head; {wrote}')
        if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError(f'head {path} has numbers that are not finite; fit it again')
        return cls(**tensors, about=about)

    def check(self, backbone: Backbone, options: Options) -> None:
        """Check that the head was fitted to a metric of this backbone and these options.

        Raises:
            ValueError: it was not
        """
        before, now = (
            {name: _plain(value) for name, value in c.items()} for c in (self.about['config'], options.config())
        )
        same = {name: before.get(name) == now[name] for name in NEEDED}
        size = len(self.weight) == backbone.text.shape[-1]
        same |= {'backbone': size and self.about['image_digest'] == backbone.image_digest}
        same |= {'prompts': self.about['text_digest'] == backbone.text_digest}
        for name in (name for name, is_same in same.items() if not is_same):
            differ = f'it has {name}={before.get(name)!r}, this metric {now[name]!r}'
            raise ValueError(
                f'head {now["head"]} was fitted to another metric: '
                + ('its backbone has other weights' if before.get(name) == now[name] else differ)
                + '. Expected the options that it was fitted with, or fit a head to this metric'
            )

    def extra_repr(self) -> str:
        return f'fitted on {self.about["fitted_on"]}, not the published metric'


def _plain(value: Any) -> Any:
    """An option as it is compared: shares to six digits."""
    return [rounded(x) if isinstance(x, float) else x for x in value] if isinstance(value, list) else value
