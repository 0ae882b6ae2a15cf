"""A CLIP of open_clip with its weights: an architecture and a tag or file, a folder, or a hub repository."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .._files import one_line
from .guest import OPEN_CLIP_LOGGER, quiet_open_clip
from .identity import architecture_facts
from .names import architecture
from .weights import WeightsError, find, read

DEMO = Path(__file__).parent / 'demo'  # the folder of the demonstration backbone


def load(name: str, pretrained: str | os.PathLike, quick_gelu: bool | None = None) -> tuple[Any, ...]:
    """A CLIP with its weights; arguments and errors are those of `Backbone`.

    Returns:
        the model of open_clip on the CPU in float32, mean and standard deviation of its image normalisation, (3,) each,
        its tokenizer, and what its tensors do not tell (see `architecture_facts`)
    """
    import open_clip  # imports for seconds, so only where a backbone is built

    if name == 'demo':
        if pretrained != 'openai':  # the default
            raise ValueError(f"backbone 'demo' brings its own weights; leave out pretrained={pretrained!r}")
        name = f'local-dir:{DEMO}'
    if name.startswith(('local-dir:', 'hf-hub:')):
        published: dict[str, Any] = {}
        clip, config = _load_folder(name, quick_gelu), open_clip.get_model_config(name)
        quick_gelu = config.get('quick_gelu', False) if quick_gelu is None else quick_gelu
    else:
        name = architecture(name)
        config = open_clip.get_model_config(name)
        if config is None:
            raise ValueError(
                f'unknown backbone {name!r}; expected one of open_clip.list_models(), such as RN50 or ViT-B-32'
            )
        clip, published, quick_gelu = _load_architecture(name, config, pretrained, quick_gelu)
    mean, std = (
        _channels(published.get(key) or getattr(clip.visual, f'image_{key}'), key, name) for key in ('mean', 'std')
    )
    return clip, mean, std, _tokenizer(name, config), architecture_facts(config, quick_gelu)


def _load_architecture(
    name: str, config: dict[str, Any], pretrained: str | os.PathLike, quick_gelu: bool | None
) -> tuple[Any, dict[str, Any], bool]:
    """A model, open_clip's entry of its weights (of a file: of the architecture's first), and whether QuickGELU."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    tag = _tag(pretrained, tags)
    path = find(name, tag) if tag else Path(pretrained)
    known = [open_clip.get_pretrained_cfg(name, t) for t in ([tag] if tag else tags)]
    if quick_gelu is None:
        trained = {cfg.get('quick_gelu', False) for cfg in known}
        quick_gelu = config.get('quick_gelu', False) or True in trained
        if not config.get('quick_gelu', False) and len(trained) > 1:
            warnings.warn(
                f"{path} is read as OpenAI's {name}, with QuickGELU. Other weights, such as LAION's, have none: pass "
                'quick_gelu=False for those, or quick_gelu=True to silence this warning',
                stacklevel=5,
            )
    state = read(path)
    with _unfilled():
        clip = open_clip.create_model(
            name, force_quick_gelu=quick_gelu, pretrained_text=False, **({} if quick_gelu else {'quick_gelu': False})
        )
    _fill(clip, state, path, name)
    return clip, known[0] if known else {}, quick_gelu


def _load_folder(name: str, quick_gelu: bool | None) -> Any:
    import open_clip

    try:
        with _unfilled():
            kwargs = {} if quick_gelu is None else {'quick_gelu': quick_gelu}
            return open_clip.create_model(name, require_pretrained=True, **kwargs)
    except Exception as error:
        raise WeightsError(
            f'{name} cannot be loaded: {one_line(error, 300)}. Expected a folder or hub repository in '
            f"open_clip's layout: open_clip_config.json and open_clip_model.safetensors or open_clip_pytorch_model.bin."
        ) from None


def _channels(values: float | Sequence[float], what: str, name: str) -> tuple[float, ...]:
    """Of red, green and blue; one number is that of all three."""
    numbers = (values,) * 3 if isinstance(values, (int, float)) else tuple(values)
    if len(numbers) != 3 or not all(isinstance(number, (int, float)) for number in numbers):
        raise WeightsError(f'{name}: the {what} of the normalisation is {values!r}; expected three numbers')
    return tuple(float(number) for number in numbers)


def _tokenizer(name: str, config: dict[str, Any]) -> Callable[[list[str]], Tensor]:
    try:
        return _cached_tokenizer(name, json.dumps(config))
    except (ImportError, OSError) as error:  # SigLIP and others take one from the hub, through transformers
        raise WeightsError(
            f'the tokenizer of {name} cannot be loaded: {one_line(error, 200)}. It needs the package '
            "transformers, and a network, the tokenizer in Hugging Face's cache, or its files in a 'local-dir:' folder."
        ) from None


@cache
def _cached_tokenizer(name: str, config: str) -> Callable[[list[str]], Tensor]:
    """Making one takes longer than building a small CLIP. The configuration is that of a folder, which may change."""
    import open_clip

    with OPEN_CLIP_LOGGER:
        return open_clip.get_tokenizer(name)


def _tag(pretrained: str | os.PathLike, tags: list[str]) -> str | None:
    """The open_clip tag that `pretrained` names, or None where it is a path."""
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
    for key, value in want.items():  # scalars come as () or (1,); counters of batch norms are not used
        if key not in converted and key.endswith(('num_batches_tracked', 'logit_bias')):
            converted[key] = value
        elif key in converted and value.numel() == converted[key].numel() == 1:
            converted[key] = converted[key].reshape(value.shape)
    converted.pop('text.transformer.embeddings.position_ids', None)

    have, expected = ({k: tuple(v.shape) for k, v in tensors.items()} for tensors in (converted, want))
    problems = [
        f'{k} is {have.get(k, "missing")}, not {expected.get(k, "expected")}'
        for k in expected | have
        if have.get(k) != expected.get(k)
    ]
    if problems:
        raise WeightsError(
            f'{path} does not fit backbone {name!r}: it holds {_describe(state)}; expected {_describe(want)}. '
            f'{len(problems)} tensors differ or are in one of them only, the first: {problems[0]}.'
        )
    broken = next((k for k, v in converted.items() if v.is_floating_point() and not v.isfinite().all()), None)
    if broken:
        raise WeightsError(f'{path} holds values that are not finite (in {broken}): it is damaged; download it again.')
    clip.load_state_dict(converted)  # copies into float32


def _describe(state: dict[str, Tensor]) -> str:
    """The kind of CLIP that a state dict is of, in words."""

    def blocks(prefix: str) -> int:
        return len({k[len(prefix) :].split('.')[0] for k in state if k.startswith(prefix)})

    if 'visual.layer1.0.conv1.weight' in state:
        layers = [blocks(f'visual.layer{i}.') for i in (1, 2, 3, 4)]
        tower = f'a CLIP ResNet, layers {layers}, width {len(state["visual.layer1.0.conv1.weight"])}'
    elif 'visual.conv1.weight' in state and 'visual.class_embedding' in state:
        width, _, patch, _ = state['visual.conv1.weight'].shape
        tower = f'a CLIP ViT, patch {patch}, width {width}, {blocks("visual.transformer.resblocks.")} layers'
    elif any(k.startswith('visual.') for k in state):
        tower = 'a CLIP with another image tower'
    else:
        return f'no CLIP ({len(state)} tensors, the first: {next(iter(state))})'
    projection = state.get('text_projection', state.get('text.text_projection'))
    return tower if projection is None else f'{tower}, embedding {projection.shape[-1]}'


@contextmanager
def _unfilled() -> Iterator[None]:
    """For making a model whose weights come from a file: no warning that they are random, and no random numbers."""
    with quiet_open_clip(), torch.random.fork_rng(devices=[]), _NoInit():
        yield


class _NoInit(TorchFunctionMode):
    """torch.nn.init does nothing: a file replaces each weight right after, and random ones cost half a second."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, '__module__', None) == 'torch.nn.init':
            return kwargs['tensor'] if 'tensor' in kwargs else args[0]
        return func(*args, **kwargs)
