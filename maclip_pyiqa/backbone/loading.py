"""A frozen CLIP image tower and prompt features, out of open_clip.

Original: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.

The tower is open_clip's, changed only where its result stays the same: no positional embedding (as MA-CLIP and
CLIP-IQA want it), batch norms folded into the convolutions, the attention pool asked for its one query only.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..backbone.weights import WeightsError, architecture, find, read

__all__ = ['DEMO', 'Backbone']

DEMO = Path(__file__).parent / 'assets' / 'demo'  # what backbone 'demo' is


class Backbone(nn.Module):
    """Frozen image tower of a CLIP, with the features of some prompts.

    Its tensors are buffers that are in no state dict: nothing here is trained or saved with a model around it, and
    everything follows `.to()`. Always in eval mode. The text tower is gone once the prompts are encoded.

    Args:
        name: an open_clip architecture, also in OpenAI's spelling ('ViT-B/32'); or 'local-dir:PATH' / 'hf-hub:ID';
            or 'demo', the demonstration backbone in this package, which is no CLIP of anybody's
        pretrained: an open_clip tag or a path; not used where `name` brings its own weights
        prompts: (positive, negative) pairs
        pos_embedding: keep the positional embedding, interpolated (bicubic) where the size is not the tower's own
        quick_gelu: activation of the transformers. None: that of the tag; for a file, the one that the published
            weights of this architecture were trained with where they agree (OpenAI's architectures: QuickGELU)

    Attributes:
        window: side of the tower's own input, pixels
        min_size: the shortest side it can work on, pixels
        any_size: whether it works on other sizes than its own
        text: L2-normalised prompt features, (P, 2, D)
        scale: exp(logit_scale), ()

    Raises:
        ValueError: an unknown architecture or tag
        WeightsError: weights that cannot be had or do not fit
    """

    def __init__(
        self,
        name: str,
        pretrained: str | os.PathLike,
        prompts: Sequence[tuple[str, str]],
        pos_embedding: bool = False,
        quick_gelu: bool | None = None,
    ) -> None:
        super().__init__()
        clip, mean, std, tokenizer = _load(name, pretrained, quick_gelu)
        clip.eval()
        size = clip.visual.image_size
        size = size if isinstance(size, tuple) else (size, size)
        if size[0] != size[1]:
            raise ValueError(f'backbone {name!r} takes images of {size[0]}x{size[1]}; a square input is wanted')
        self.window = size[0]
        with torch.inference_mode(False), torch.no_grad():
            tokens = tokenizer([prompt for pair in prompts for prompt in pair])
            text = clip.encode_text(tokens, normalize=True).unflatten(0, (-1, 2))
            scale = clip.logit_scale.exp().reshape(())
            self.visual, self.min_size, self.any_size = _tower(clip.visual, self.window, pos_embedding)
        for key, value in {'text': text, 'scale': scale}.items():
            self.register_buffer(key, value.detach().clone(), persistent=False)
        for key, value in {'mean': mean, 'std': std}.items():
            self.register_buffer(key, torch.tensor(value).view(3, 1, 1), persistent=False)
        _freeze(self.visual)
        self.to(memory_format=torch.channels_last)

    def forward(self, views: Tensor) -> Tensor:
        """RGB images in [0, 1], (K, 3, H, W) -> features before L2 normalisation, (K, D)."""
        views = (views - self.mean) / self.std
        return self.visual(views.contiguous(memory_format=torch.channels_last))


# --- loading -----------------------------------------------------------------------------------------------------


def _load(name: str, pretrained: str | os.PathLike, quick_gelu: bool | None):
    """-> CLIP on the CPU in float32, mean, std, tokenizer."""
    import open_clip  # seconds of imports, so only where a backbone is built

    if name == 'demo':
        if pretrained != 'openai':  # the default
            raise ValueError(f"backbone 'demo' brings its own weights; leave out pretrained={pretrained!r}")
        name = f'local-dir:{DEMO}'
    if name.startswith(('local-dir:', 'hf-hub:')):
        clip = _load_folder(name, quick_gelu)
        return clip, clip.visual.image_mean, clip.visual.image_std, _tokenizer(name)

    name = architecture(name)
    config = open_clip.get_model_config(name)
    if config is None:
        raise ValueError(
            f'unknown backbone {name!r}: wanted is one of open_clip.list_models(), such as RN50 or ViT-B-32'
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    tag = _tag(pretrained, tags)
    path = find(name, tag) if tag else Path(pretrained)
    known = [open_clip.get_pretrained_cfg(name, t) for t in ([tag] if tag else tags)]
    if quick_gelu is None:
        trained = {cfg.get('quick_gelu', False) for cfg in known}
        quick_gelu = config.get('quick_gelu', False) or True in trained
        if not config.get('quick_gelu', False) and len(trained) > 1:
            warnings.warn(
                f"{path} is taken for OpenAI's {name}, with QuickGELU. Others, such as LAION's, are without: "
                'say quick_gelu=False for those, and quick_gelu=True to be rid of this warning',
                stacklevel=4,
            )
    state = read(path)
    with _quiet():
        clip = open_clip.create_model(
            name, force_quick_gelu=quick_gelu, pretrained_text=False, **({} if quick_gelu else {'quick_gelu': False})
        )
    _fill(clip, state, path, name)
    first = known[0] if known else {}
    return (
        clip,
        first.get('mean') or clip.visual.image_mean,
        first.get('std') or clip.visual.image_std,
        _tokenizer(name),
    )


def _load_folder(name: str, quick_gelu: bool | None) -> nn.Module:
    import open_clip

    try:
        with _quiet():
            kwargs = {} if quick_gelu is None else {'quick_gelu': quick_gelu}
            return open_clip.create_model(name, require_pretrained=True, **kwargs)
    except Exception as error:
        raise WeightsError(
            f'{name} cannot be loaded: {" ".join(str(error).split())[:300]}. Wanted is a folder or hub repository in '
            f"open_clip's layout: open_clip_config.json and open_clip_model.safetensors or open_clip_pytorch_model.bin."
        ) from None


def _tokenizer(name: str):
    import open_clip

    try:
        return open_clip.get_tokenizer(name)
    except (ImportError, OSError) as error:  # SigLIP and others take one from the hub, through transformers
        raise WeightsError(
            f'the tokenizer of {name} cannot be had: {" ".join(str(error).split())[:200]}. Wanted are the package '
            "transformers, and a network, the tokenizer in Hugging Face's cache, or its files in a 'local-dir:' folder."
        ) from None


def _tag(pretrained: str | os.PathLike, tags: list[str]) -> str | None:
    """The open_clip tag that is meant, or None for a path."""
    if not isinstance(pretrained, (str, os.PathLike)):
        raise TypeError(f'pretrained is a path or an open_clip tag, not {pretrained!r}')
    text = os.fspath(pretrained)
    clean = text.lower().replace('-', '_')
    if isinstance(pretrained, str) and clean in tags:
        return clean
    if os.path.splitext(text)[1] or os.path.dirname(text) or os.path.exists(os.path.expanduser(text)):
        return None
    raise ValueError(f'pretrained={text!r} is neither a file nor a tag of this backbone; its tags: {", ".join(tags)}')


def _fill(clip: nn.Module, state: dict[str, Tensor], path: Path, name: str) -> None:
    """Load a state dict, converted from the layouts that open_clip knows; every tensor must be there and fit."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    try:
        converted = convert_state_dict(clip, dict(state))
        if hasattr(clip, 'text'):
            converted = convert_to_custom_text_state_dict(converted)
    except Exception:  # the converters take the architecture for granted
        converted = dict(state)
    want = clip.state_dict()
    for key, value in want.items():  # scalars come as () or (1,); counters of batch norms are of no use here
        if key not in converted and key.endswith(('num_batches_tracked', 'logit_bias')):
            converted[key] = value
        elif key in converted and value.numel() == converted[key].numel() == 1:
            converted[key] = converted[key].reshape(value.shape)
    converted.pop('text.transformer.embeddings.position_ids', None)

    problems = [f'{k} is missing' for k in want if k not in converted]
    problems += [f'{k} is not expected' for k in converted if k not in want]
    problems += [
        f'{k} is {tuple(converted[k].shape)}, not {tuple(v.shape)}'
        for k, v in want.items()
        if k in converted and converted[k].shape != v.shape
    ]
    if problems:
        raise WeightsError(
            f'{path} does not fit backbone {name!r}: it holds {_describe(state)}; wanted is {_describe(want)}. '
            f'{len(problems)} tensors differ or are in one of them only, the first: {problems[0]}.'
        )
    broken = next((k for k, v in converted.items() if v.is_floating_point() and not v.isfinite().all()), None)
    if broken:
        raise WeightsError(f'{path} holds values that are not finite (in {broken}): it is damaged, fetch it again.')
    clip.load_state_dict(converted)  # copies into float32


def _describe(state: dict[str, Tensor]) -> str:
    """What a state dict is of, in the words people use for CLIP models."""

    def blocks(prefix: str) -> int:
        return len({k[len(prefix) :].split('.')[0] for k in state if k.startswith(prefix)})

    if 'visual.layer1.0.conv1.weight' in state:
        layers = [blocks(f'visual.layer{i}.') for i in (1, 2, 3, 4)]
        tower = f'a CLIP ResNet, layers {layers}, width {len(state["visual.layer1.0.conv1.weight"])}'
    elif 'visual.conv1.weight' in state and 'visual.class_embedding' in state:
        width, _, patch, _ = state['visual.conv1.weight'].shape
        tower = f'a CLIP ViT, patch {patch}, width {width}, {blocks("visual.transformer.resblocks.")} layers'
    elif any(k.startswith('visual.trunk.') for k in state):
        tower = 'a CLIP with a timm image tower'
    elif any(k.startswith('visual.') for k in state):
        tower = 'a CLIP with another image tower'
    else:
        return f'no CLIP ({len(state)} tensors, the first: {next(iter(state))})'
    projection = state.get('text_projection', state.get('text.text_projection'))
    return tower if projection is None else f'{tower}, embedding {projection.shape[-1]}'


@contextmanager
def _quiet():
    """open_clip warns through the root logger that a model is random before weights go in, and its random start
    would move the caller's random numbers."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with torch.random.fork_rng(devices=[]), _NoInit():
            yield
    finally:
        root.setLevel(level)


class _NoInit(TorchFunctionMode):
    """torch.nn.init does nothing: each weight comes out of a file right after, and random ones cost half a second."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, '__module__', None) == 'torch.nn.init':
            return kwargs['tensor'] if 'tensor' in kwargs else args[0]
        return func(*args, **kwargs)


# --- the tower ---------------------------------------------------------------------------------------------------


def _tower(visual: nn.Module, window: int, pos_embedding: bool) -> tuple[nn.Module, int, bool]:
    """-> the tower made ready, the shortest side it takes, whether it takes any size."""
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


def _freeze(module: nn.Module) -> None:
    """Turn all parameters and buffers into buffers that no state dict has."""
    for child in module.modules():
        for name, parameter in list(child._parameters.items()):
            if parameter is not None:
                del child._parameters[name]
                child.register_buffer(name, parameter.detach().clone(), persistent=False)
        child._non_persistent_buffers_set.update(child._buffers)


def _fold(visual: nn.Module) -> None:
    """Fold each batch norm of a CLIP ResNet into the convolution before it."""
    pairs = [(visual, f'conv{i}', f'bn{i}') for i in (1, 2, 3)]
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        for block in layer:
            pairs += [(block, f'conv{i}', f'bn{i}') for i in (1, 2, 3)]
            if block.downsample is not None:
                pairs.append((block.downsample, '0', '1'))
    for parent, conv, norm in pairs:
        _fold_pair(parent, conv, norm)


def _fold_pair(parent: nn.Module, conv: str, norm: str) -> None:
    # in float64, so that the one rounding is that of the folded weight
    fused = torch.nn.utils.fuse_conv_bn_eval(getattr(parent, conv).double(), getattr(parent, norm).double())
    setattr(parent, conv, fused.float())
    setattr(parent, norm, nn.Identity())


class AddGrid(nn.Module):
    """x + grid, the grid (C, H, W) interpolated to x's size where that differs."""

    def __init__(self, grid: Tensor) -> None:
        super().__init__()
        self.register_buffer('grid', grid.detach().clone())

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w)
        grid = self.grid
        if grid.shape[-2:] != x.shape[-2:]:
            grid = F.interpolate(grid[None], x.shape[-2:], mode='bicubic', align_corners=False)[0]
        return x + grid.to(x.dtype)


class MeanQueryPool(nn.Module):
    """CLIP's attention pool, asked only for the query whose answer is used: the mean token.

    With one query q the projections of keys and values move to the query's side, and the bias of the keys cancels
    in the softmax: u_h = W_k,h^T q_h, a_h = softmax(u_h . x / sqrt(d)), o_h = W_v,h (sum a_h x) + b_v,h. Same
    result as open_clip's AttentionPool2d, without projecting each token.
    """

    def __init__(self, pool: nn.Module, grid: int, pos_embedding: bool) -> None:
        super().__init__()
        self.heads = pool.num_heads
        for name in ('q_proj', 'k_proj', 'v_proj', 'c_proj'):
            self.add_module(name, getattr(pool, name))
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
