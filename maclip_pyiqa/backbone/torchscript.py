"""Tensors of a TorchScript archive, without a run of the code in it.

`torch.jit.load` evaluates parts of an archive's code while it reads it, such as default values of arguments, which can
write files. Here only the archive's pickle is read, by an unpickler that knows tensors and containers.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    'BFloat16Storage': torch.bfloat16,
    'BoolStorage': torch.bool,
    'ByteStorage': torch.uint8,
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'IntStorage': torch.int32,
    'LongStorage': torch.int64,
}


class _Module:
    """An object of the archive's own classes: attributes by name."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


class _Unpickler(pickle.Unpickler):
    def __init__(self, reader: Any) -> None:
        super().__init__(io.BytesIO(reader.get_record('data.pkl')))
        self.reader = reader

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith('__torch__'):
            return _Module
        if module == 'torch' and name in DTYPES:
            return DTYPES[name]
        if module == 'torch.jit._pickle':  # lists and dicts with the types of their elements
            return lambda value, *types: value
        if (module, name) == ('torch._utils', '_rebuild_tensor_v2'):
            return _tensor
        if (module, name) == ('collections', 'OrderedDict'):
            return OrderedDict
        raise pickle.UnpicklingError(f'{module}.{name} is no part of weights')

    def persistent_load(self, key: Any) -> Tensor:
        """The numbers of a storage, 1-d."""
        _, dtype, name, _, count = key
        size = count * torch.empty((), dtype=dtype).element_size()
        record = self.reader.get_storage_from_record(f'data/{name}', size, torch.UntypedStorage)
        storage = record._typed_storage()._untyped_storage
        return torch.empty(0, dtype=dtype).set_(storage, 0, (count,), (1,))


def _tensor(numbers: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(numbers, size, stride, offset)  # checks that it lies within


def read_archive(path: Path) -> dict[str, Tensor]:
    """All tensors of the archive's module, by the names of its state dict."""
    tensors: dict[str, Tensor] = {}

    def collect(module: _Module, prefix: str) -> None:
        for name, value in module.attributes.items():
            if isinstance(value, Tensor):
                tensors[prefix + name] = value
            elif isinstance(value, _Module):
                collect(value, f'{prefix}{name}.')

    collect(_Unpickler(torch._C.PyTorchFileReader(str(path))).load(), '')
    return tensors
