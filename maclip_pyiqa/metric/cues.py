"""The two cues of MA-CLIP and their fusion, as pure functions of tensors.

Original: Liao et al., "Beyond Cosine Similarity: Magnitude-Aware CLIP for No-Reference Image Quality
Assessment", AAAI 2026, https://arxiv.org/abs/2511.09948
References: CLIP-IQA (Wang et al., AAAI 2023) for the antonym prompts; Box and Cox (1964) for the transform.

All of them are differentiable, work on any leading shape, and keep the dtype they are given.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Version of the score's definition: these equations, and the views that they are computed of. It is part of every
# fingerprint, so it is raised only when the same weights and options would give other scores, as they also do when the
# default of an option changes.
DEFINITION = 1


class Cues(NamedTuple):
    """What `MACLIP.cues` makes of features (..., D).

    Attributes:
        q: score of each view, fused or, where there is a head, the head's, (...)
        q_sim: cosine cue, (...)
        q_mag: magnitude cue, (...)
        w_sim: weight of the cosine cue in `q`, (...); the magnitude cue's is 1 - w_sim
        attributes: probability of the positive prompt of each pair, (..., P)

    Example::

        import torch
        from maclip_pyiqa import MACLIP

        metric = MACLIP()
        (features,) = metric.features(torch.rand(1, 3, 384, 512))  # (V, D)
        cues = metric.cues(features, alpha=0.5)
        cues.q.mean()                          # the score with this alpha, ()
    """

    q: Tensor
    q_sim: Tensor
    q_mag: Tensor
    w_sim: Tensor
    attributes: Tensor


def cosine_cue(f: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    r"""Probability of the positive prompt of each antonym pair; `q_sim` is their mean over the pairs.

    $$p_i = \mathrm{softmax}\big(s\,[\cos(f, t_i^+), \cos(f, t_i^-)]\big)_0$$

    Args:
        f: image features before normalisation, (..., D)
        text: L2-normalised prompt features, positive before negative, (P, 2, D)
        scale: CLIP's logit scale s = exp(logit_scale)

    Returns:
        (..., P), in [0, 1]

    Example:
        >>> import torch
        >>> from maclip_pyiqa.metric import cosine_cue
        >>> f, text = torch.tensor([1.0, 0.0]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> cosine_cue(f, text, scale=0.0)
        tensor([0.5000])
    """
    cos = F.normalize(f, dim=-1) @ text.flatten(0, 1).T  # (..., 2P)
    return (scale * cos).unflatten(-1, (-1, 2)).softmax(-1)[..., 0]


def standardise(f: Tensor) -> Tensor:
    r"""Absolute values of a feature in units of their standard deviation, $z = |f| / (\mathrm{std}(|f|) + 10^{-6})$.

    The standard deviation is the unbiased one over the D dimensions of one feature. z does not change when f is
    scaled: what counts is the shape of the distribution of |f|, not its length.

    Args:
        f: image features before normalisation, (..., D)

    Returns:
        (..., D), not negative

    Example:
        >>> import torch
        >>> from maclip_pyiqa.metric import standardise
        >>> standardise(torch.tensor([1.0, -2.0, 3.0]))
        tensor([1.0000, 2.0000, 3.0000])
    """
    a = f.abs()
    return a / (a.std(-1, keepdim=True) + 1e-6)


def box_cox(z: Tensor, lam: float = 0.5) -> Tensor:
    r"""Box-Cox transform of z + 1: $((z + 1)^\lambda - 1) / \lambda$, and log(z + 1) where lambda = 0.

    Args:
        z: numbers that are not negative, any shape
        lam: lambda of the transform

    Returns:
        of z's shape; `scipy.special.boxcox1p(z, lam)` is the same

    Example:
        >>> import torch
        >>> from maclip_pyiqa.metric import box_cox
        >>> box_cox(torch.tensor([0.0, 3.0]))
        tensor([0., 2.])
    """
    # log1p and expm1 are the same formula without its cancellation near lambda = 0 and z = 0
    log_z1 = torch.log1p(z)
    return log_z1 if lam == 0 else torch.expm1(lam * log_z1) / lam


def magnitude_cue(f: Tensor, box_lam: float = 0.5) -> Tensor:
    r"""Mean of the Box-Cox transform of the feature's standardised absolute values:
    $q_{mag} = \mathrm{mean}_D\,\mathrm{boxcox}_\lambda(z + 1)$.

    Args:
        f: image features before normalisation, (..., D)
        box_lam: lambda of the Box-Cox transform

    Returns:
        (...), not negative

    Example:
        >>> import torch
        >>> from maclip_pyiqa.metric import magnitude_cue
        >>> f = torch.tensor([1.0, -2.0, 3.0])
        >>> torch.allclose(magnitude_cue(f), magnitude_cue(10 * f))
        True
    """
    return box_cox(standardise(f), box_lam).mean(-1)


def fuse(
    q_sim: Tensor, q_mag: Tensor, base_cos: float = 1.0, base_norm: float = 0.6, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""Confidence-guided fusion of the two cues.

    $$d = q_{sim} - q_{mag}, \quad w = \mathrm{softmax}([b_{cos} + \alpha d,\; b_{norm} - \alpha d]), \quad
      q = w_0\,q_{sim} + w_1\,q_{mag}$$

    Args:
        q_sim, q_mag: cosine and magnitude cue, of one shape
        base_cos, base_norm: base constants of the cosine and of the magnitude cue
        alpha: factor of the cues' difference

    Returns:
        the fused score q and the weight of the cosine cue w_0, both of the cues' shape

    Example:
        >>> import torch
        >>> from maclip_pyiqa.metric import fuse
        >>> q, w_sim = fuse(torch.tensor(0.5), torch.tensor(0.5), base_cos=1.0, base_norm=1.0)
        >>> float(q), float(w_sim)
        (0.5, 0.5)
    """
    d = alpha * (q_sim - q_mag)
    w = torch.stack([base_cos + d, base_norm - d], -1).softmax(-1)  # (..., 2)
    return w[..., 0] * q_sim + w[..., 1] * q_mag, w[..., 0]
