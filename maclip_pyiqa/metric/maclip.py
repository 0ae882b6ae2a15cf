"""MA-CLIP as a torch module: views -> features -> two cues -> fusion -> score.

Original: Liao et al., "Beyond Cosine Similarity: Magnitude-Aware CLIP for No-Reference Image Quality
Assessment", AAAI 2026, https://arxiv.org/abs/2511.09948
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from inspect import cleandoc
from typing import Any, overload

import torch
from torch import Tensor

from .._values import number
from ..backbone import Backbone
from ..backbone.frozen import FrozenModule
from .analysis import Analysis
from .checks import RangeCheck, as_images, wants_grad
from .chunks import encode
from .cues import DEFINITION, Cues, cosine_cue, fuse, magnitude_cue
from .head import Head
from .options import DEFAULTS, Options, describe, with_options_as_attributes
from .prompts import PROMPTS, attribute_names, summary_columns
from .views import ViewPlan


@with_options_as_attributes
class MACLIP(FrozenModule):
    """Magnitude-aware CLIP: a score of an image's quality without a reference and without training.

    Each image is seen through sliding windows and once as a whole, resized. CLIP's feature of each view gives two
    cues, which a confidence-guided fusion weighs: q = w_sim * q_sim + (1 - w_sim) * q_mag, see `Cues`. The score is the
    mean of q over the views. Higher is better; about 0 to about 1, not clamped. The defaults are the paper's (arXiv
    2511.09948); images smaller than a window, which the paper does not treat, are enlarged.

    The module has no parameters and an empty state dict, stays in eval mode, is deterministic, and gives an image
    the same score alone and in a batch. It is differentiable in its input.

    Args:
        {options}
        model_type: entry of pyiqa's default configuration, ignored

    Attributes:
        options: options as they were checked; `stride` in pixels, `prompt_weights` with a sum of 1
        backbone: CLIP's image tower with the features of the prompts, see `Backbone`
        head: head in place of the fusion, see `Head`; None: the published metric

    Raises:
        ValueError, TypeError: an option out of range, unknown or malformed
        WeightsError: weights that cannot be found, downloaded, read or used; a RuntimeError

    Example::

        import torch
        from maclip_pyiqa import MACLIP

        metric = MACLIP()                      # downloads OpenAI's RN50 once
        score = metric(torch.rand(2, 3, 384, 512))  # (2, 1)
    """

    __doc__ = cleandoc(__doc__ or '').replace('{options}', describe())  # python -OO has no docstrings

    prompt_weights: Tensor | None
    head: Head | None

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
        sample_views: int | None = None,
        quick_gelu: bool | None = None,
        prompt_weights: Sequence[float] | None = None,
        cue: str = 'both',
        head: str | os.PathLike | None = None,
        model_type: str = 'maclip',
    ) -> None:
        given = {name: value for name, value in locals().items() if name in DEFAULTS}
        super().__init__()
        o = self.options = Options(**given)
        if o.head is not None:
            Head.load(o.head)  # a wrong one is an error before weights are downloaded
        self.backbone = Backbone(o.backbone, o.pretrained, o.prompts, o.pos_embedding, o.quick_gelu)
        self._default_options = Options(stride=round(self.backbone.window * 128 / 224))
        o.stride = o.stride or self._default_options.stride
        if o.views == 'full' and not self.backbone.any_size:
            raise ValueError(f"views='full' needs a backbone that takes any image size; {backbone!r} does not")
        with torch.inference_mode(False):
            weights = None if o.prompt_weights is None else self.backbone.mean.new_tensor(o.prompt_weights)
        self.register_buffer('prompt_weights', weights, persistent=False)
        self.register_module('head', None)
        if o.head is not None:
            self.load_head(o.head)
        self._check_range = RangeCheck()
        self.eval()

    def load_head(self, path: str | os.PathLike) -> None:
        """Score by a head from now on, as with the option `head`.

        Args:
            path: path of a file that `maclip-pyiqa fit` wrote

        Raises:
            ValueError: a file that cannot be read or holds no head, or a head of another metric
        """
        head, options = Head.load(path), replace(self.options, head=path)
        head.check(self.backbone, options)
        self.head, self.options = head.to(self.backbone.mean), options

    @property
    def config(self) -> dict[str, Any]:
        """The options that rebuild this metric, as plain data. `MACLIP(**metric.config)` gives the same scores."""
        return self.options.config()

    def fingerprint(self) -> str:
        """Identity of the scores, 64 hexadecimal digits: a hash of the version of the score's definition, the weights
        as they were loaded, what tensors do not tell (architecture, input size, mean and std), the prompts' tokens, and
        those options that differ from their defaults and move scores or cues.

        Two metrics with one fingerprint give the same scores, to float rounding. It is the same on every machine, for
        every kind of weights file, and for all versions that do not change the score's definition.
        """
        options = self.options.changed(self._default_options, 'features', 'cues')
        head = [] if self.head is None else [self.head.digest]
        return self._hash(self.backbone.image_digest, self.backbone.text_digest, options, *head)

    def features_fingerprint(self) -> str:
        """Identity of `features`, likewise: shared by metrics that differ only in what is computed from features."""
        return self._hash(self.backbone.image_digest, self.options.changed(self._default_options, 'features'))

    @staticmethod
    def _hash(*parts: Any) -> str:
        return hashlib.sha256(json.dumps([DEFINITION, *parts], sort_keys=True).encode()).hexdigest()

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """A name for each prompt pair, no two alike."""
        return attribute_names(self.options.prompts)

    @property
    def summary_columns(self) -> tuple[str, ...]:
        """Keys of `Analysis.summary()`."""
        return summary_columns(self.attribute_names)

    def plan(self, height: int, width: int) -> ViewPlan:
        """What this metric sees of an image of a size.

        Args:
            height, width: height and width of the image, pixels

        Raises:
            ValueError: an image that is too long and thin, see `ViewPlan.windows`
        """
        window, options = self.backbone.window, self.options
        if options.views == 'windows':
            return ViewPlan.windows(height, width, window, options.stride, options.max_views)
        if options.views == 'global':
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
            x: RGB images in [0, 1], (N, 3, H, W), or (N, 1, H, W) for grey; or a list of N images (C, H, W)
            box_lam, base_cos, base_norm, alpha: constants in place of the constructor's

        Returns:
            (N, 1), float32 (float64 in a module of float64)

        Raises:
            TypeError: not tensors, or not of a floating dtype
            ValueError: a wrong shape, an empty batch, mixed devices, an image that is too long and thin (see
                `ViewPlan.windows`), constants beside a head, values that are not finite, or values outside [0, 1].
                Where a gradient is required, more than 1 % of them outside by more than 0.5, since an optimiser may
                step a little outside; on an accelerator that is looked at in calls 1, 2, 4, 8, ..., and under
                torch.compile never
        """
        given = {'box_lam': box_lam, 'base_cos': base_cos, 'base_norm': base_norm, 'alpha': alpha}
        constants = {name: number(name, value) for name, value in given.items() if value is not None}
        if constants and self.head is not None:
            raise ValueError(f'{", ".join(constants)}: of no effect with a head; leave them out')
        plans, features = self._encode(x)  # images checked, their views planned and encoded: (sum of V, D)
        q = self.cues(features, **constants).q  # two cues, fused: (sum of V,)
        return _mean_of_views(q, plans)

    def features(self, x: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """CLIP's features of each image's views before L2 normalisation.

        Args:
            x: images, as for `forward`, which raises the same errors

        Returns:
            N tensors (V, D), the views in the order of `plan`
        """
        plans, features = self._encode(x)
        return list(features.split([plan.views for plan in plans]))

    @overload
    def analyze(self, x: Tensor) -> Analysis: ...

    @overload
    def analyze(self, x: Sequence[Tensor]) -> list[Analysis]: ...

    def analyze(self, x: Tensor | Sequence[Tensor]) -> Analysis | list[Analysis]:
        """What the score is made of. `sample_views` has no effect here; differentiable as the score is.

        Args:
            x: images, as for `forward`, which raises the same errors

        Returns:
            for a tensor one `Analysis` of its N images, for a sequence of images a list of N of one image each
        """
        plans, features = self._encode(x, sample=False)
        cues = self.cues(features)
        scores = _mean_of_views(cues.q, plans).split(1)  # N of (1, 1)
        of_views = (cue[None].split([plan.views for plan in plans], 1) for cue in cues)  # N of (1, V) or (1, V, P)
        parts = zip(scores, (Cues(*each) for each in zip(*of_views, strict=True)), plans, strict=True)
        each = [Analysis(q, *cues, names=self.attribute_names, plan=plan) for q, cues, plan in parts]
        return Analysis.cat(each) if isinstance(x, Tensor) else each

    def cues(self, features: Tensor, **constants: float) -> Cues:
        """Both cues of features and their fusion, in float32 also under autocast.

        Args:
            features: features before L2 normalisation, (..., D), as `features` gives them
            **constants: values of box_lam, base_cos, base_norm, alpha in place of the constructor's
        """
        o = self.options
        fusion = {'base_cos': o.base_cos, 'base_norm': o.base_norm, 'alpha': o.alpha} | constants
        box_lam = fusion.pop('box_lam', o.box_lam)
        f, text, scale = features, self.backbone.text, self.backbone.scale
        with torch.autocast(f.device.type, enabled=False):
            if f.dtype in (torch.float16, torch.bfloat16):
                f = f.float()
            attributes = cosine_cue(f, text.to(f.dtype), scale.to(f.dtype))
            weights = self.prompt_weights
            q_sim = attributes.mean(-1) if weights is None else attributes @ weights.to(f.dtype)
            q_mag = magnitude_cue(f, box_lam)
            q, w_sim = fuse(q_sim, q_mag, **fusion)
            if o.cue != 'both':
                q, w_sim = (q_sim, torch.ones_like(q)) if o.cue == 'sim' else (q_mag, torch.zeros_like(q))
            if self.head is not None:
                q = self.head(f, q_sim, q_mag)
        return Cues(q, q_sim, q_mag, w_sim, attributes)

    def _encode(self, x: Tensor | Sequence[Tensor], sample: bool = True) -> tuple[list[ViewPlan], Tensor]:
        """Check images, plan their views (where gradients flow, of `sample_views` windows only) and encode these; ->
        plans and features of all views, (sum of V, D)."""
        mean, count, plans = self.backbone.mean, self.options.sample_views, []
        images = as_images(x, mean.device)
        self._check_range(images)
        images = [image.to(mean.dtype).expand(3, -1, -1) for image in images]
        for i, image in enumerate(images):
            try:
                plans.append(self.plan(*image.shape[-2:]))
            except ValueError as error:
                raise ValueError(f'image {i}: {error}') from None
        if sample and count and wants_grad(images):
            plans = [plan.sample(count) for plan in plans]
        return plans, encode(self.backbone, images, plans, self.options.chunk)


def _mean_of_views(q: Tensor, plans: list[ViewPlan]) -> Tensor:
    """Score of each image: mean of the scores of its views, (sum of V,), by their shares; -> (N, 1)."""
    parts = zip(q.split([len(plan.shares) for plan in plans]), plans, strict=True)
    return torch.stack([(part * part.new_tensor(plan.shares)).sum() for part, plan in parts])[:, None]
