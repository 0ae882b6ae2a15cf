"""An image tower of open_clip, changed only where its result stays the same.

No positional embedding unless asked for (as in MA-CLIP and CLIP-IQA), batch norms folded into the convolutions, and
the attention pool computed for the one query that is used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def simplify(visual: Any, window: int, pos_embedding: bool) -> tuple[nn.Module, int, bool]:
    """The same tower with less work.

    Args:
        visual: image tower of open_clip, changed in place
        window: side of the tower's own input, pixels
        pos_embedding: use of the positional embedding

    Returns:
        the tower, the shortest side that it accepts (pixels), and whether it accepts any size
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, ModifiedResNet):
        visual.attnpool = MeanQueryPool(visual.attnpool, window // 32, pos_embedding)
        _fold(visual)
        return visual, 32, True
    if isinstance(visual, VisionTransformer):
        visual.output_tokens = False
        embedding = visual.positional_embedding.detach()
        if pos_embedding:  # the patches' part goes behind the patch convolution, where their grid is known
            grid = embedding[1:].T.unflatten(1, visual.grid_size)
            visual.conv1 = nn.Sequential(visual.conv1, AddGrid(grid))
            visual.class_embedding = nn.Parameter(visual.class_embedding + embedding[0])
        visual.positional_embedding = nn.Parameter(torch.zeros_like(embedding[:1]))
        return visual, max(visual.patch_size), True
    if isinstance(visual, TimmModel):
        embeddings = [p for name, p in visual.named_parameters() if name.rpartition('.')[2] == 'pos_embed']
        if not pos_embedding:
            for embedding in embeddings:
                embedding.zero_()
        return visual, 32, not embeddings and not hasattr(visual.trunk, 'patch_embed')
    return visual, window, False


def _fold(visual: Any) -> None:
    """Fold each batch norm of a CLIP ResNet into the convolution before it."""
    blocks = [*visual.layer1, *visual.layer2, *visual.layer3, *visual.layer4]
    pairs = [(parent, f'conv{i}', f'bn{i}') for parent in (visual, *blocks) for i in (1, 2, 3)]
    pairs += [(block.downsample, '0', '1') for block in blocks if block.downsample is not None]
    for parent, conv, norm in pairs:  # in float64, so that the one rounding is that of the folded weight
        fused = torch.nn.utils.fuse_conv_bn_eval(getattr(parent, conv).double(), getattr(parent, norm).double())
        setattr(parent, conv, fused.float())
        setattr(parent, norm, nn.Identity())


class AddGrid(nn.Module):
    """x + grid, the grid (C, H, W) interpolated to x's size where that differs."""

    grid: Tensor

    def __init__(self, grid: Tensor) -> None:
        super().__init__()
        self.register_buffer('grid', grid.detach().clone())

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        grid = self.grid
        if grid.shape[-2:] != x.shape[-2:]:
            grid = F.interpolate(grid[None], x.shape[-2:], mode='bicubic', align_corners=False)[0]
        return x + grid.to(x.dtype)


class MeanQueryPool(nn.Module):
    """CLIP's attention pool for the one query whose answer is used: the mean token.

    With one query q, the projections of keys and values move to the query's side, and the keys' bias cancels in the
    softmax: u_h = W_k,h^T q_h, a_h = softmax(u_h . x / sqrt(d)), o_h = W_v,h (sum a_h x) + b_v,h. Same
    result as open_clip's AttentionPool2d, without projecting each token.
    """

    def __init__(self, pool: Any, grid: int, pos_embedding: bool) -> None:
        super().__init__()
        self.heads: int = pool.num_heads
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj
        embedding = pool.positional_embedding.detach()
        self.pos_mean = nn.Parameter(embedding[0].clone()) if pos_embedding else None
        self.pos_grid = AddGrid(embedding[1:].T.unflatten(1, (grid, grid))) if pos_embedding else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        mean = x.mean((2, 3))  # (B, C)
        if self.pos_mean is not None:
            mean = mean + self.pos_mean.to(mean.dtype)
        x = torch.cat([mean[:, None], self.pos_grid(x).flatten(2).mT], 1)  # (B, 1 + hw, C)
        wk, wv = (proj.weight.unflatten(0, (self.heads, -1)) for proj in (self.k_proj, self.v_proj))  # (h, d, C)
        q = self.q_proj(mean).unflatten(1, (self.heads, -1)) * wk.shape[1] ** -0.5  # (B, h, d)
        # the small operand of each product contiguous: several times faster than a batched product on strides
        u = (q.transpose(0, 1).contiguous() @ wk).transpose(0, 1).contiguous()  # (B, h, C)
        y = (u @ x.mT).softmax(-1).to(x.dtype) @ x  # (B, h, C)
        o = (wv @ y.permute(1, 2, 0).contiguous()).permute(2, 0, 1).flatten(1) + self.v_proj.bias  # (B, h * d)
        return self.c_proj(o)
