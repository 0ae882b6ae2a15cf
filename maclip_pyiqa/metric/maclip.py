"""MA-CLIP as a torch module: views -> features -> two cues -> fusion -> score.

Original: Liao et al., "Beyond Cosine Similarity: Magnitude-Aware CLIP for No-Reference Image Quality
Assessment", AAAI 2026, https://arxiv.org/abs/2511.09948
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..metric.analysis import Analysis, view_boxes
from ..backbone.loading import Backbone
from ..metric.cues import cosine_cue, fuse, magnitude_cue
from ..metric.prompts import PROMPTS, attribute_names, read_prompts
from ..metric.views import cut, enlarge, resize, window_places

__all__ = ['MACLIP', 'PROMPTS']


class MACLIP(nn.Module):
    """Magnitude-aware CLIP: a score of an image's quality without a reference and without training.

    Each image is seen through sliding windows and once as a whole, resized. CLIP's feature of each view gives two
    cues, which a confidence-guided fusion weighs; the score is the mean over the views. Higher is better; about 0 to
    about 1, not clamped. The defaults are the paper's; README says what was verified.

    The module has no parameters and an empty state dict, stays in eval mode, is deterministic, and gives an image
    the same score alone and in a batch. It is differentiable in its input.

    Args:
        backbone: an open_clip architecture ('RN50', 'ViT-B-32' or OpenAI's spelling 'ViT-B/32'); a folder or hub
            repository in open_clip's layout ('local-dir:PATH', 'hf-hub:ID'), which brings its own weights; or 'demo',
            the tiny demonstration backbone in this package: it needs no download, and is not the published metric
        pretrained: an open_clip tag, or the path of a file: OpenAI's TorchScript .pt, a state dict, .safetensors
        prompts: (positive, negative) pairs; or the name of a set: 'maclip', 'clipiqa' ('Good photo.' / 'Bad photo.'),
            one attribute such as 'sharp'; or the path of a .yml file with a list of [positive, negative]
        prompt_weights: of the pairs in the cosine cue, in proportion; None: equal
        cue: 'both' (the paper's fusion), 'sim' (q_sim alone) or 'mag' (q_mag alone); the fusion's constants play no
            part in the latter two
        views: 'windows' (windows and global view, the paper), 'global' (the resized image only) or 'full' (the whole
            image once at its own size, as CLIP-IQA does)
        stride: of the windows, pixels; None: 128 for a window of 224, and in proportion for others
        pos_embedding: keep CLIP's positional embedding, interpolated where the size differs
        box_lam, base_cos, base_norm, alpha: see `cues.magnitude_cue` and `cues.fuse`
        chunk: the most views encoded at once; bounds memory, changes no score
        sample_views: for training: where gradients flow, score each image by this many of its windows, drawn anew
            at each call from torch's generator, and the global view, so that the expectation is the full score
        quick_gelu: activation of the transformers; None: as the weights were trained (see `Backbone`)
        model_type: accepted and ignored; pyiqa's default configuration passes it

    Raises:
        ValueError, TypeError: an option out of range, unknown or malformed
        WeightsError: weights that cannot be had, read or used; a RuntimeError

    Example::

        metric = MACLIP()                       # fetches OpenAI's RN50 once
        score = metric(torch.rand(2, 3, 384, 512))  # (2, 1)
    """

    def __init__(
        self,
        *,
        backbone: str = 'RN50',
        pretrained: str | os.PathLike = 'openai',
        prompts: Sequence[tuple[str, str]] | str | os.PathLike = PROMPTS,
        views: str = 'windows',
        stride: int | None = None,
        pos_embedding: bool = False,
        box_lam: float = 0.5,
        base_cos: float = 1.0,
        base_norm: float = 0.6,
        alpha: float = 1.0,
        chunk: int = 16,
        sample_views: int | None = None,
        quick_gelu: bool | None = None,
        prompt_weights: Sequence[float] | None = None,
        cue: str = 'both',
        model_type: str = 'maclip',
    ) -> None:
        super().__init__()
        if not isinstance(backbone, str):
            raise TypeError(f"backbone is a name such as 'RN50', not {backbone!r}")
        if views not in ('windows', 'global', 'full'):
            raise ValueError(f"views is 'windows', 'global' or 'full', not {views!r}")
        if cue not in ('both', 'sim', 'mag'):
            raise ValueError(f"cue is 'both', 'sim' or 'mag', not {cue!r}")
        self.prompts = read_prompts(prompts)
        weights = _check_weights(prompt_weights, len(self.prompts))
        self.register_buffer('prompt_weights', None if weights is None else torch.tensor(weights), persistent=False)
        self.cue = cue
        self.constants = _check_constants(
            {'box_lam': box_lam, 'base_cos': base_cos, 'base_norm': base_norm, 'alpha': alpha}
        )
        self.chunk = _check_count('chunk', chunk)
        self.sample_views = None if sample_views is None else _check_count('sample_views', sample_views)
        self.stride = None if stride is None else _check_count('stride', stride)
        self.views = views
        self.backbone = Backbone(backbone, pretrained, self.prompts, pos_embedding, quick_gelu)
        if self.stride is None:
            self.stride = round(self.backbone.window * 128 / 224)
        if views == 'full' and not self.backbone.any_size:
            raise ValueError(f"views='full' needs a backbone that takes any image size; {backbone!r} does not")
        self.eval()

    def train(self, mode: bool = True) -> MACLIP:
        """Stays in eval mode, also inside a model that is set to train."""
        return super().train(False)

    def forward(
        self,
        x: Tensor | Sequence[Tensor],
        box_lam: float | None = None,
        base_cos: float | None = None,
        base_norm: float | None = None,
        alpha: float | None = None,
    ) -> Tensor:
        """Score images; higher is better.

        Args:
            x: RGB in [0, 1], (N, 3, H, W), or (N, 1, H, W) for grey; or a sequence of N images (C, H, W) of any sizes
            box_lam, base_cos, base_norm, alpha: in place of the constructor's

        Returns:
            (N, 1), float32 (float64 in a module of float64)

        Raises:
            TypeError: not tensors, or not of a floating dtype
            ValueError: a wrong shape, an empty batch, mixed devices, or, where no gradient is wanted, values that are
                not finite or outside [0, 1]
        """
        given = {'box_lam': box_lam, 'base_cos': base_cos, 'base_norm': base_norm, 'alpha': alpha}
        constants = self.constants | _check_constants({k: v for k, v in given.items() if v is not None})
        features, weights = self._encode(self._images(x))
        q = self._cues(features, **constants)[0]  # (all views,)
        scores = [(part * w).sum() for part, w in zip(q.split([len(w) for w in weights]), weights, strict=True)]
        return torch.stack(scores)[:, None]

    def features(self, x: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """CLIP's features of each image's views before L2 normalisation: N tensors (V, D), windows row by row, the
        global view last."""
        features, weights = self._encode(self._images(x))
        return list(features.split([len(w) for w in weights]))

    def analyze(self, x: Tensor | Sequence[Tensor]) -> Analysis | list[Analysis]:
        """What the score is made of. All windows count, whatever `sample_views` is; differentiable as the score is.

        Args:
            x: as for `forward`

        Returns:
            for a tensor one `Analysis` of its N images, for a sequence of images a list of N of one image each

        Raises:
            as `forward`
        """
        images = self._images(x)
        features, weights = self._encode(images, sample=False)
        counts = [len(w) for w in weights]
        names = attribute_names(self.prompts)
        parts = []
        for image, w, *cues in zip(
            images, weights, *(cue.split(counts) for cue in self._cues(features, **self.constants)), strict=True
        ):
            q_view, q_sim, q_mag, w_sim, attributes = (cue[None] for cue in cues)  # (1, V), attributes (1, V, P)
            size = tuple(image.shape[-2:])
            boxes = view_boxes(*size, self.backbone.window, self.stride, self.views).to(w.device)
            q = (cues[0] * w).sum().view(1, 1)
            parts.append(Analysis(q, q_view, q_sim, q_mag, w_sim, attributes, names, boxes, size))
        return Analysis.cat(parts) if isinstance(x, Tensor) else parts

    def _cues(self, f: Tensor, box_lam: float, base_cos: float, base_norm: float, alpha: float):
        """(..., D) -> q, q_sim, q_mag, w_sim (...) and attributes (..., P), in float32 also under autocast."""
        with torch.autocast(f.device.type, enabled=False):
            text, scale = self.backbone.text, self.backbone.scale
            if f.dtype in (torch.float16, torch.bfloat16):
                f = f.float()
            attributes = cosine_cue(f, text.to(f.dtype), scale.to(f.dtype))
            weights = self.prompt_weights
            q_sim = attributes.mean(-1) if weights is None else attributes @ weights.to(f.dtype)
            q_mag = magnitude_cue(f, box_lam)
            q, w_sim = fuse(q_sim, q_mag, base_cos, base_norm, alpha)
            if self.cue != 'both':
                q, w_sim = (q_sim, torch.ones_like(q)) if self.cue == 'sim' else (q_mag, torch.zeros_like(q))
        return q, q_sim, q_mag, w_sim, attributes

    def _encode(self, images: list[Tensor], sample: bool = True) -> tuple[Tensor, list[Tensor]]:
        """-> features of all views, (sum of V, D), and for each image its views' weights in the score, (V,)."""
        window, wants_grad = self.backbone.window, torch.is_grad_enabled() and any(i.requires_grad for i in images)
        if self.views == 'full':
            return self._encode_full(images, wants_grad)
        bases, places, weights = images, [], []
        if self.views == 'windows':
            bases = [enlarge(image, window) for image in images]
        for i, base in enumerate(bases):
            mine = window_places(i, *base.shape[-2:], window, self.stride) if self.views == 'windows' else []
            total, drawn = len(mine), self.sample_views if sample else None
            if wants_grad and drawn is not None and drawn < total:
                mine = [mine[j] for j in torch.randperm(total)[:drawn].tolist()]
            w = [total / max(len(mine), 1)] * len(mine) + [1.0]  # each drawn window stands for total / drawn of them
            weights.append(base.new_tensor(w) / (total + 1))
            places += mine

        # all windows, then all global views, a chunk at a time over the whole batch; then sorted by image
        views = [*places, *((i, -1, -1) for i in range(len(images)))]

        def encode(first: int, last: int) -> Tensor:
            windows, whole = views[first : min(last, len(places))], views[max(first, len(places)) : last]
            parts = [cut(bases, windows, window)] if windows else []
            parts += [torch.stack([resize(images[i], window) for i, _, _ in whole])] if whole else []
            return self.backbone(torch.cat(parts))

        features = self._in_chunks(encode, len(views), wants_grad)
        order = sorted(range(len(views)), key=lambda v: views[v][0])
        return features[torch.tensor(order, device=features.device)], weights

    def _encode_full(self, images: list[Tensor], wants_grad: bool) -> tuple[Tensor, list[Tensor]]:
        images = [
            i if min(i.shape[-2:]) >= self.backbone.min_size else enlarge(i, self.backbone.window) for i in images
        ]
        features = []
        for _, run in groupby(images, key=lambda image: image.shape):  # images of one size after each other
            run = list(run)
            encode = lambda first, last, run=run: self.backbone(torch.stack(run[first:last]))  # noqa: E731
            features.append(self._in_chunks(encode, len(run), wants_grad))
        return torch.cat(features), [image.new_ones(1) for image in images]

    def _in_chunks(self, encode, total: int, wants_grad: bool) -> Tensor:
        """encode(first, last) over `total` views, at most `chunk` at once and evenly. Where a gradient is wanted of
        more than one chunk, each is encoded again in the backward pass, so that memory holds one chunk only."""
        parts = -(-total // self.chunk)
        edges = [total * part // parts for part in range(parts + 1)]
        chunks = list(pairwise(edges))
        if wants_grad and parts > 1:
            return torch.cat([checkpoint(encode, *c, use_reentrant=False, preserve_rng_state=False) for c in chunks])
        return torch.cat([encode(*c) for c in chunks])

    def _images(self, x: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Check what was given; -> N images (3, H, W) in the module's dtype."""
        mean = self.backbone.mean
        if isinstance(x, Tensor):
            if x.ndim != 4:
                hint = '; add the batch axis with x[None]' if x.ndim == 3 else ''
                raise ValueError(f'images are (N, 3, H, W) or (N, 1, H, W), not {tuple(x.shape)}{hint}')
            images = list(x.unbind(0))
        elif isinstance(x, (list, tuple)):
            images = list(x)
        else:
            hint = '; maclip_pyiqa.scoring.read.read_image reads a file' if isinstance(x, (str, os.PathLike)) else ''
            wanted = 'images are a tensor (N, 3, H, W) or a list of tensors (C, H, W)'
            raise TypeError(f'{wanted}, not {type(x).__name__}{hint}')
        if not images:
            raise ValueError('an empty batch has no score; at least one image is wanted')
        for i, image in enumerate(images):
            if not isinstance(image, Tensor):
                raise TypeError(f'image {i} is a {type(image).__name__}; a tensor (C, H, W) is wanted')
            if not image.is_floating_point():
                hint = '; divide by 255 (x.float() / 255)' if image.dtype == torch.uint8 else ''
                raise TypeError(f'images are floating point in [0, 1], not {image.dtype}{hint}')
            if image.ndim != 3 or image.shape[0] not in (1, 3) or 0 in image.shape:
                hint = '; drop the alpha channel or composite it' if image.ndim == 3 and image.shape[0] == 4 else ''
                if image.ndim == 3 and image.shape[0] > 4 and image.shape[2] in (1, 3, 4):
                    hint = '; channels come first: x.movedim(-1, -3)'
                raise ValueError(f'an image is (3, H, W) or (1, H, W), not {tuple(image.shape)}{hint}')
            if image.device != mean.device:
                raise ValueError(f'image {i} is on {image.device}, the metric on {mean.device}; move one with .to()')
            if not torch.compiler.is_compiling() and not (torch.is_grad_enabled() and image.requires_grad):
                low, high = (float(v) for v in image.aminmax())
                if not -1e-4 <= low <= high <= 1 + 1e-4:  # false for NaN too
                    hint = '; divide by 255' if high > 2 else '; clamp it to [0, 1]'
                    hint = hint if math.isfinite(low + high) else '; it holds values that are not finite'
                    raise ValueError(f'image {i} has values in [{low:.4g}, {high:.4g}], wanted is [0, 1]{hint}')
        return [image.to(mean.dtype).expand(3, -1, -1) for image in images]


def _check_weights(weights: Sequence[float] | None, pairs: int) -> list[float] | None:
    """-> of sum 1."""
    if weights is None:
        return None
    wanted = f'prompt_weights are {pairs} numbers, one for each pair of prompts, none negative, not all zero'
    if isinstance(weights, (str, bytes)) or not isinstance(weights, Sequence):
        raise TypeError(f'{wanted}, not {weights!r}')
    if any(isinstance(w, bool) or not isinstance(w, (int, float)) for w in weights):
        raise TypeError(f'{wanted}, not {weights!r}')
    total = sum(weights)
    if len(weights) != pairs or not (min(weights) >= 0 and 0 < total < math.inf):
        raise ValueError(f'{wanted}, not {weights!r}')
    return [w / total for w in weights]


def _check_constants(constants: dict[str, float]) -> dict[str, float]:
    for name, value in constants.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f'{name} is a number, not {value!r}')
        if not math.isfinite(value):
            raise ValueError(f'{name} is a finite number, not {value!r}')
    return constants


def _check_count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f'{name} is a whole number, not {value!r}')
    if value < 1:
        raise ValueError(f'{name} is at least 1, not {value}')
    return value
