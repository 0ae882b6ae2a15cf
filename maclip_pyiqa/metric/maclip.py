"""MA-CLIP as a torch module: views -> features -> two cues -> fusion -> score.

Original: Liao et al., "Beyond Cosine Similarity: Magnitude-Aware CLIP for No-Reference Image Quality
Assessment", AAAI 2026, https://arxiv.org/abs/2511.09948
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..backbone import Backbone
from .analysis import Analysis
from .checks import RangeCheck, as_images, flag, numbers, rounded, shares, wants_grad, whole
from .cues import DEFINITION, Cues, cosine_cue, fuse, magnitude_cue
from .prompts import PROMPTS, attribute_names, read_prompts, summary_columns
from .views import ViewPlan, whole_views

__all__ = ['MACLIP', 'PROMPTS']

# Options that move no score, or whose part in it is hashed as what they stand for: weights, architecture, tokens.
NEUTRAL = ('backbone', 'pretrained', 'quick_gelu', 'prompts', 'chunk', 'compile', 'sample_views')
AFTER_FEATURES = ('prompt_weights', 'cue', 'box_lam', 'base_cos', 'base_norm', 'alpha')  # that move no feature


class MACLIP(nn.Module):
    """Magnitude-aware CLIP: a score of an image's quality without a reference and without training.

    Each image is seen through sliding windows and once as a whole, resized. CLIP's feature of each view gives two
    cues, which a confidence-guided fusion weighs: q = w_sim * q_sim + (1 - w_sim) * q_mag, see `Cues`. The score is the
    mean of q over the views. Higher is better; about 0 to about 1, not clamped. The defaults are the paper's (arXiv
    2511.09948); images smaller than a window, which the paper does not treat, are enlarged.

    The module has no parameters and an empty state dict, stays in eval mode, is deterministic, and gives an image
    the same score alone and in a batch. It is differentiable in its input.

    Args:
        backbone: an open_clip architecture ('RN50', 'ViT-B-32' or OpenAI's spelling 'ViT-B/32'); a folder or hub
            repository in open_clip's layout ('local-dir:PATH', 'hf-hub:ID'), which brings its own weights; or 'demo',
            the tiny demonstration backbone in this package: it needs no download, and is not the published metric
        pretrained: an open_clip tag, or the path of a file: OpenAI's TorchScript .pt, a state dict, .safetensors
        prompts: (positive, negative) pairs; or the name of a set: 'maclip', 'clipiqa' ('Good photo.' / 'Bad photo.'),
            one attribute such as 'sharp'; or the path of a .yml file with a list of [positive, negative]
        prompt_weights: weights of the pairs in the cosine cue, in proportion; None: equal
        cue: 'both' (the paper's fusion), 'sim' (q_sim alone) or 'mag' (q_mag alone); the fusion's constants play no
            part in the latter two
        views: 'windows' (windows and global view, the paper), 'global' (the resized image only) or 'full' (the whole
            image once at its own size, as CLIP-IQA does)
        stride: stride of the windows, pixels; None: 128 for a window of 224, and in proportion for others
        pos_embedding: keep CLIP's positional embedding, interpolated where the size differs
        box_lam, base_cos, base_norm, alpha: see `cues.magnitude_cue` and `cues.fuse`
        max_views: score at most this many windows, spread evenly, and the global view: an estimate of the score, for
            large photos, and not the published metric; None: all windows
        chunk: the most views encoded at once; bounds memory, changes no score
        compile: encode with a program that torch.compile makes on the first calls, which take up to a few minutes;
            pays for thousands of images, not for views='full', whose sizes differ
        sample_views: number of windows in training: where gradients flow, each image is scored by so many of its
            windows, drawn again at each call from torch's generator, and the global view, so that the expectation is
            the full score
        quick_gelu: activation of the transformers; None: as the weights were trained (see `Backbone`)
        model_type: accepted and ignored; pyiqa's default configuration passes it

    Raises:
        ValueError, TypeError: an option out of range, unknown or malformed
        WeightsError: weights that cannot be found, downloaded, read or used; a RuntimeError

    Example::

        metric = MACLIP()                       # downloads OpenAI's RN50 once
        score = metric(torch.rand(2, 3, 384, 512))  # (2, 1)
    """

    prompt_weights: Tensor | None
    stride: int

    def __init__(
        self,
        *,
        backbone: str = 'RN50',
        pretrained: str | os.PathLike = 'openai',
        prompts: Sequence[tuple[str, str]] | str | os.PathLike = PROMPTS,
        views: str = 'windows',
        stride: int | None = None,
        max_views: int | None = None,
        pos_embedding: bool = False,
        box_lam: float = 0.5,
        base_cos: float = 1.0,
        base_norm: float = 0.6,
        alpha: float = 1.0,
        chunk: int = 16,
        compile: bool = False,
        sample_views: int | None = None,
        quick_gelu: bool | None = None,
        prompt_weights: Sequence[float] | None = None,
        cue: str = 'both',
        model_type: str = 'maclip',
    ) -> None:
        super().__init__()
        if not isinstance(backbone, str):
            raise TypeError(f"backbone={backbone!r}; expected a name such as 'RN50'")
        if views not in ('windows', 'global', 'full'):
            raise ValueError(f"views={views!r}; expected 'windows', 'global' or 'full'")
        if cue not in ('both', 'sim', 'mag'):
            raise ValueError(f"cue={cue!r}; expected 'both', 'sim' or 'mag'")
        self.prompts = read_prompts(prompts)
        self._weights = shares(prompt_weights, len(self.prompts))
        self.cue = cue
        self.constants = numbers({'box_lam': box_lam, 'base_cos': base_cos, 'base_norm': base_norm, 'alpha': alpha})
        self.chunk = whole('chunk', chunk)
        self.sample_views = None if sample_views is None else whole('sample_views', sample_views)
        self.max_views = None if max_views is None else whole('max_views', max_views)
        stride = None if stride is None else whole('stride', stride)
        pos_embedding = flag('pos_embedding', pos_embedding)
        quick_gelu = None if quick_gelu is None else flag('quick_gelu', quick_gelu)
        compile = flag('compile', compile)
        self._check_range = RangeCheck()
        self.views = views
        self.backbone = Backbone(backbone, pretrained, self.prompts, pos_embedding, quick_gelu)
        with torch.inference_mode(False):
            weights = None if self._weights is None else self.backbone.mean.new_tensor(self._weights)
        self.register_buffer('prompt_weights', weights, persistent=False)
        self._source: dict[str, Any] = {  # what `config` repeats of the backbone
            'backbone': backbone,
            'pretrained': os.fspath(pretrained),
            'pos_embedding': pos_embedding,
            'quick_gelu': quick_gelu,
        }
        self.stride = self._stride(stride)
        if views == 'full' and not self.backbone.any_size:
            raise ValueError(f"views='full' needs a backbone that takes any image size; {backbone!r} does not")
        if compile:
            self.backbone.compile_encoding()
        self._source['compile'] = compile
        self.eval()

    def train(self, mode: bool = True) -> MACLIP:
        """Stays in eval mode, also inside a model that is set to train."""
        return super().train(False)

    def _apply(self, *args: Any, **kwargs: Any) -> MACLIP:
        with torch.inference_mode(False):  # its tensors can be used with gradients wherever it is moved
            return super()._apply(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if torch.is_inference_mode_enabled():  # a copy, or what was unpickled: its own tensors too
            self._apply(torch.clone)

    @property
    def config(self) -> dict[str, Any]:
        """The options that rebuild this metric, as plain data: `MACLIP(**metric.config)` gives the same scores."""
        return {
            **self._source,
            'prompts': [list(pair) for pair in self.prompts],
            'prompt_weights': None if self._weights is None else list(self._weights),
            'cue': self.cue,
            'views': self.views,
            'stride': self.stride,
            'max_views': self.max_views,
            **self.constants,
            'chunk': self.chunk,
            'sample_views': self.sample_views,
        }

    def fingerprint(self) -> str:
        """Identity of the scores, 64 hexadecimal digits: a hash of the version of the score's definition, the weights
        as they were loaded, what tensors do not tell (architecture, input size, mean and std), the tokens of the
        prompts, and those options that differ from their defaults and move scores or cues.

        Two metrics with one fingerprint give the same scores, to float rounding. It is the same on every machine, for
        every kind of file with the same values, and for every version of the libraries and of this package that does
        not change the score's definition.
        """
        return self._hash(self.backbone.image_digest, self.backbone.text_digest, self._changed_options())

    def features_fingerprint(self) -> str:
        """Identity of `features`, likewise: metrics that differ in prompts or in options that act on features share it.
        An option counts unless it is known to move no feature."""
        options = {name: value for name, value in self._changed_options().items() if name not in AFTER_FEATURES}
        return self._hash(self.backbone.image_digest, options)

    @staticmethod
    def _hash(*parts: Any) -> str:
        return hashlib.sha256(json.dumps([DEFINITION, *parts], sort_keys=True).encode()).hexdigest()

    def _changed_options(self) -> dict[str, Any]:
        """Of `config`, what differs from the defaults and moves scores or cues."""
        defaults = {**(MACLIP.__init__.__kwdefaults__ or {}), 'stride': self._stride(None)}
        moot = set(NEUTRAL)
        if self.views != 'windows':
            moot |= {'stride', 'max_views'}
        if self.cue != 'both':
            moot |= {'base_cos', 'base_norm', 'alpha'}
        changed = {n: v for n, v in self.config.items() if n not in moot and not (n in defaults and v == defaults[n])}
        if 'prompt_weights' in changed:
            changed['prompt_weights'] = [rounded(weight) for weight in changed['prompt_weights']]
        return changed

    def _stride(self, stride: int | None) -> int:
        return round(self.backbone.window * 128 / 224) if stride is None else stride

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """A name for each prompt pair, no two alike."""
        return attribute_names(self.prompts)

    @property
    def summary_columns(self) -> tuple[str, ...]:
        """Keys of `Analysis.summary()`."""
        return summary_columns(self.attribute_names)

    def plan(self, height: int, width: int) -> ViewPlan:
        """What this metric sees of an image of a size, pixels.

        Raises:
            ValueError: an image that is too long and thin, see `ViewPlan.windows`
        """
        window = self.backbone.window
        if self.views == 'windows':
            return ViewPlan.windows(height, width, window, self.stride, self.max_views)
        if self.views == 'global':
            return ViewPlan.resized(height, width, window)
        return ViewPlan.full(height, width, window, self.backbone.min_size)

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
            ValueError: a wrong shape, an empty batch, mixed devices, an image that is too long and thin (see
                `ViewPlan.windows`), values that are not finite, or values outside [0, 1]. Where a gradient is required,
                more than 1 % of them outside by more than 0.5, since an optimiser may step a little outside; on an
                accelerator that is looked at in calls 1, 2, 4, 8, ..., and under torch.compile never
        """
        given = {'box_lam': box_lam, 'base_cos': base_cos, 'base_norm': base_norm, 'alpha': alpha}
        constants = numbers({name: value for name, value in given.items() if value is not None})
        images, plans = self._see(x)
        q = self.cues(self._encode(images, plans), **constants).q  # (all views,)
        parts = zip(q.split([len(plan.shares) for plan in plans]), plans, strict=True)
        return torch.stack([(part * part.new_tensor(plan.shares)).sum() for part, plan in parts])[:, None]

    def features(self, x: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """CLIP's features of each image's views before L2 normalisation: N tensors (V, D), in the order of the views
        of `plan`: windows row by row, the whole image last."""
        images, plans = self._see(x)
        return list(self._encode(images, plans).split([plan.views for plan in plans]))

    @overload
    def analyze(self, x: Tensor) -> Analysis: ...

    @overload
    def analyze(self, x: Sequence[Tensor]) -> list[Analysis]: ...

    def analyze(self, x: Tensor | Sequence[Tensor]) -> Analysis | list[Analysis]:
        """What the score is made of. `sample_views` has no effect here; differentiable as the score is.

        Args:
            x: see `forward`

        Returns:
            for a tensor one `Analysis` of its N images, for a sequence of images a list of N of one image each

        Raises:
            as `forward`
        """
        images, plans = self._see(x, sample=False)
        cues = self.cues(self._encode(images, plans))
        counts = [plan.views for plan in plans]
        names, parts = self.attribute_names, []
        for plan, *image in zip(plans, *(cue.split(counts) for cue in cues), strict=True):
            q_view, q_sim, q_mag, w_sim, attributes = (cue[None] for cue in image)  # (1, V), attributes (1, V, P)
            q = (q_view * q_view.new_tensor(plan.shares)).sum().view(1, 1)
            parts.append(Analysis(q, q_view, q_sim, q_mag, w_sim, attributes, names, plan))
        return Analysis.cat(parts) if isinstance(x, Tensor) else parts

    def cues(self, features: Tensor, **constants: float) -> Cues:
        """Both cues of features and their fusion, in float32 also under autocast.

        Args:
            features: before L2 normalisation, (..., D), as `features` gives them
            **constants: box_lam, base_cos, base_norm, alpha in place of the constructor's
        """
        constants = self.constants | constants
        f, text, scale = features, self.backbone.text, self.backbone.scale
        with torch.autocast(f.device.type, enabled=False):
            if f.dtype in (torch.float16, torch.bfloat16):
                f = f.float()
            attributes = cosine_cue(f, text.to(f.dtype), scale.to(f.dtype))
            weights = self.prompt_weights
            q_sim = attributes.mean(-1) if weights is None else attributes @ weights.to(f.dtype)
            q_mag = magnitude_cue(f, constants.pop('box_lam'))
            q, w_sim = fuse(q_sim, q_mag, **constants)
            if self.cue != 'both':
                q, w_sim = (q_sim, torch.ones_like(q)) if self.cue == 'sim' else (q_mag, torch.zeros_like(q))
        return Cues(q, q_sim, q_mag, w_sim, attributes)

    def _see(self, x: Tensor | Sequence[Tensor], sample: bool = True) -> tuple[list[Tensor], list[ViewPlan]]:
        """Check what was given; -> images (3, H, W) in the module's dtype, and a plan for each."""
        images, plans = self._images(x), []
        for i, image in enumerate(images):
            try:
                plans.append(self.plan(*image.shape[-2:]))
            except ValueError as error:
                raise ValueError(f'image {i}: {error}') from None
        if sample and self.sample_views is not None and wants_grad(images):
            plans = [plan.sample(self.sample_views) for plan in plans]
        return images, plans

    def _encode(self, images: list[Tensor], plans: list[ViewPlan]) -> Tensor:
        """-> features of all views, image by image, (sum of V, D), at most `chunk` views at once.

        Where a gradient is required of more than one chunk, each is encoded again in the backward pass, so that memory
        holds one chunk only.
        """

        def encode(pieces: list[tuple[int, int, int]]) -> Tensor:
            parts = [plans[i].cut(images[i], first, last, wholes[i]) for i, first, last in pieces]
            return self.backbone(torch.cat(parts) if len(parts) > 1 else parts[0])

        wholes = whole_views(images, plans)
        chunks = _chunks(plans, self.chunk)
        if len(chunks) > 1 and wants_grad(images):
            features = [checkpoint(encode, c, use_reentrant=False, preserve_rng_state=False) for c in chunks]
        else:
            features = [encode(c) for c in chunks]
        return torch.cat(features) if len(features) > 1 else features[0]

    def _images(self, x: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Check what was given; -> N images (3, H, W) in the module's dtype."""
        mean = self.backbone.mean
        images = as_images(x, mean.device)
        self._check_range(images)
        return [image.to(mean.dtype).expand(3, -1, -1) for image in images]


def _chunks(plans: list[ViewPlan], most: int) -> list[list[tuple[int, int, int]]]:
    """All views in chunks of at most `most` and of even size, views of different pixel sizes apart: of each chunk the
    images and their first and last (exclusive) view."""
    chunks, begin = [], 0
    while begin < len(plans):
        end = begin + 1
        while end < len(plans) and plans[end].whole == plans[begin].whole:
            end += 1
        # len(shares), not the property `views`, here and in what follows: torch.compile of torch 2.6 trips over it
        views = [(i, view) for i in range(begin, end) for view in range(len(plans[i].shares))]
        parts = -(-len(views) // most)
        for part in range(parts):
            pieces: dict[int, tuple[int, int]] = {}
            for i, view in views[len(views) * part // parts : len(views) * (part + 1) // parts]:
                pieces[i] = (pieces[i][0] if i in pieces else view, view + 1)
            chunks.append([(i, first, last) for i, (first, last) in pieces.items()])
        begin = end
    return chunks
