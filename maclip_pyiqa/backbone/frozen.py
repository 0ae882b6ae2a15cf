"""Modules that are neither trained nor saved with a model around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from typing_extensions import Self


class FrozenModule(nn.Module):
    """A module that stays in eval mode, and whose tensors can be used with gradients wherever it was made, moved,
    copied or unpickled: tensors that are made in inference mode cannot."""

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, also inside a model that is set to train."""
        return super().train(False)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        with torch.inference_mode(False):
            return super()._apply(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if torch.is_inference_mode_enabled():
            self._apply(torch.clone)


def freeze(module: nn.Module) -> None:
    """Turn all parameters and buffers into buffers that no state dict has."""
    for child in module.modules():
        for name, parameter in list(child._parameters.items()):
            if parameter is not None:
                del child._parameters[name]
                child.register_buffer(name, parameter.detach().clone(), persistent=False)
        child._non_persistent_buffers_set.update(child._buffers)
