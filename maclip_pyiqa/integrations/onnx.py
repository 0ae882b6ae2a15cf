"""The metric as a `torch.export` program or an ONNX file (extra `export`), to run without this package.

What is exported is the same score from the same parts, with all views of a batch encoded at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ..metric.maclip import MACLIP
from ..metric.views import enlarge, resize

__all__ = ['export']

PROTOBUF_LIMIT = 2_000_000_000  # bytes of one ONNX file; what is larger gets its weights in a file beside it


def export(
    metric: MACLIP, path: str | os.PathLike | None = None, size: tuple[int, int] | None = None
) -> torch.export.ExportedProgram:
    """Export a metric for batches (N, 3, H, W), RGB in [0, 1], of its dtype -> scores (N, 1). N is dynamic.

    H and W are dynamic too where `size` is None; not so with views='full' where the positional embedding is kept. The
    program does not check its values, and encodes all views of a batch at once, whatever `chunk` is. Of a size that it
    was not made for, a program of torch's raises. An ONNX file may not: it fails below one window only.

    Args:
        metric: on the device that the program is to run on
        path: where to write: .pt2 (`torch.export.save`) or .onnx; None: nowhere
        size: height and width of the images, pixels; None: any from a shortest side on, which is one window and one
            stride with views='windows' (352 for the paper's 224 and 128), 2 with views='global', and twice the
            backbone's shortest side with views='full' (64 for a ResNet)

    Returns:
        the program; `program.module()(x)` runs it

    Raises:
        TypeError: `metric` is no MACLIP
        ValueError: a size that cannot be, size=None where the size must be fixed, or another suffix
        OSError: the file cannot be written
        ModuleNotFoundError: ONNX without the extra `export`

    Example::

        export(MACLIP(), 'maclip.onnx')                    # any size from 352 pixels on
        export(MACLIP(), 'small.onnx', size=(240, 320))
    """
    if not isinstance(metric, MACLIP):
        raise TypeError(f'a MACLIP is exported, not {type(metric).__name__}; of a metric of pyiqa, it is `.net`')
    suffix = None if path is None else Path(path).suffix.lower()
    if suffix not in (None, '.pt2', '.onnx'):
        raise ValueError(f'path ends in .pt2 or .onnx, not {os.fspath(path)!r}')
    if suffix == '.onnx' and find_spec('onnxscript') is None:
        raise ModuleNotFoundError("ONNX files need pip install 'maclip_pyiqa[export]'", name='onnxscript')
    if size is not None and not (
        isinstance(size, Sequence) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    ):
        raise ValueError(f'size is (height, width) in pixels, not {size!r}')

    if path is not None and not Path(path).parent.is_dir():
        raise FileNotFoundError(f'{os.fspath(path)}: no such folder to write to')

    window, mean = metric.backbone.window, metric.backbone.mean
    # dynamic sides start where nothing has a single row, windows or the tower's steps: the exporter would fix it
    least = {'windows': window + metric.stride, 'global': 2, 'full': 2 * metric.backbone.min_size}[metric.views]
    x = torch.full((2, 3, *(size or (least + window, least + window + 32))), 0.5, dtype=mean.dtype, device=mean.device)
    sides = {2: torch.export.Dim('height', min=least), 3: torch.export.Dim('width', min=least)} if size is None else {}
    with torch.no_grad():
        shapes = ({0: torch.export.Dim('batch')} | sides,)
        try:
            program = torch.export.export(_Batched(metric).eval(), (x,), dynamic_shapes=shapes)
        except Exception as error:
            if size is None:
                raise ValueError('this metric cannot be exported for any size; give size=(height, width)') from error
            raise
        if suffix == '.pt2':
            torch.export.save(program, path)
        elif suffix == '.onnx':
            weights = sum(b.numel() * b.element_size() for b in metric.buffers())
            names = {'input_names': ['images'], 'output_names': ['scores']}
            torch.onnx.export(
                program,
                (),
                path,
                dynamo=True,
                dynamic_shapes=shapes,  # for their names
                external_data=weights > PROTOBUF_LIMIT,
                verbose=False,
                **names,
            )
    return program


class _Batched(nn.Module):
    """The score of a batch without a loop over its images and without a check of its values."""

    def __init__(self, metric: MACLIP) -> None:
        super().__init__()
        self.metric = metric

    def forward(self, x: Tensor) -> Tensor:
        net, flat = self.metric, x.flatten(0, 1)  # (3N, H, W): one image to the functions of views.py
        views = (self._large_enough(flat) if net.views == 'full' else resize(flat, net.backbone.window))[None]
        if net.views == 'windows':
            views = torch.cat([self._windows(flat), views])
        views = views.unflatten(1, (-1, 3))  # (V, N, 3, h, w)
        features = net.backbone(views.flatten(0, 1)).unflatten(0, views.shape[:2])  # (V, N, D)
        q = net._cues(features, **net.constants)[0]  # (V, N)
        return q.mean(0)[:, None]

    def _windows(self, flat: Tensor) -> Tensor:
        """(C, H, W) -> (windows, C, window, window), by indices, so that their number may hang on a dynamic size."""
        window, stride = self.metric.backbone.window, self.metric.stride
        flat = enlarge(flat, window)
        rows, columns = (
            torch.arange((side - window) // stride + 1, device=flat.device)[:, None] * stride
            + torch.arange(window, device=flat.device)
            for side in flat.shape[-2:]
        )  # each (windows along it, window)
        return flat[:, rows][..., columns].permute(1, 3, 0, 2, 4).flatten(0, 1)

    def _large_enough(self, flat: Tensor) -> Tensor:
        backbone = self.metric.backbone
        small = min(flat.shape[-2:]) < backbone.min_size
        return enlarge(flat, backbone.window) if small else flat
