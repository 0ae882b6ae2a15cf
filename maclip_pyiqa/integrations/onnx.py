"""The metric as a `torch.export` program or an ONNX file (extra `export`), to run without this package.

The same score from the same parts, with all views of a batch encoded at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._lazy import need
from .._values import integer
from ..metric import MACLIP
from ..metric.views import window_count

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ['export']

PROTOBUF_LIMIT = 2_000_000_000  # bytes of one ONNX file; what is larger gets its weights in a file beside it


def export(
    metric: MACLIP, path: str | os.PathLike | None = None, size: Sequence[int] | None = None
) -> torch.export.ExportedProgram:
    """Export a metric for batches (N, 3, H, W), RGB in [0, 1], of its dtype -> scores (N, 1). N is dynamic.

    H and W are dynamic too where `size` is None; this is not possible with `max_views`, nor with views='full' and
    `pos_embedding`. The program does not check its values, and encodes all views of a batch at once, whatever `chunk`
    is. It gives the metric's score at the sizes that it is made for, and fails at all others.

    Args:
        metric: metric on the device that the program is to run on
        path: path of the file: .pt2 (`torch.export.save`) or .onnx; None: nowhere
        size: height and width of the images, pixels; None: any from a shortest side on, which is one window with
            views='windows' (224 for the paper's), 1 with views='global', and with views='full' the backbone's shortest
            side in an ONNX file (32 for a ResNet) and twice that in a program of torch

    Returns:
        the program; `program.module()(x)` runs it

    Raises:
        TypeError: `metric` is no MACLIP
        ValueError: a size out of range, size=None where the size must be fixed, or another suffix
        OSError: the file cannot be written
        ModuleNotFoundError: ONNX without the extra `export`

    Example::

        import onnxruntime
        import torch
        from maclip_pyiqa import MACLIP
        from maclip_pyiqa.integrations.onnx import export

        export(MACLIP(), 'maclip.onnx')        # any size from 224 pixels on
        x = torch.rand(2, 3, 240, 320)
        session = onnxruntime.InferenceSession('maclip.onnx')
        (scores,) = session.run(['scores'], {'images': x.numpy()})  # (2, 1)
    """
    if not isinstance(metric, MACLIP):
        raise TypeError(f'metric is a {type(metric).__name__}; expected a MACLIP (attribute net of a metric of pyiqa)')
    suffix = '' if path is None else Path(path).suffix.lower()
    if path is not None and suffix not in ('.pt2', '.onnx'):
        raise ValueError(f'path={os.fspath(path)!r}; expected a name that ends in .pt2 or .onnx')
    if suffix == '.onnx':
        need('an ONNX file', 'onnxscript', extra='export')
    if size is not None:
        try:
            height, width = size
            size = integer('height', height), integer('width', width)
        except (TypeError, ValueError):
            raise ValueError(f'size={size!r}; expected (height, width) in pixels') from None
    if path is not None and not Path(path).parent.is_dir():
        raise FileNotFoundError(f'{os.fspath(path)}: no such folder to write to')
    if size is None and metric.options.max_views is not None and metric.options.views == 'windows':
        raise ValueError('a metric with max_views cannot be exported for any size; give size=(height, width)')
    window, mean = metric.backbone.window, metric.backbone.mean
    shortest = {'windows': window, 'global': 1, 'full': metric.backbone.min_size}[metric.options.views]
    # where the tower's last grid may have a single row, the exporter would fix its size; ONNX's operators do not
    least = 2 * shortest if metric.options.views == 'full' else shortest
    x = torch.full((2, 3, *(size or (least + window, least + window + 32))), 0.5, dtype=mean.dtype, device=mean.device)
    sides = {2: torch.export.Dim('height', min=least), 3: torch.export.Dim('width', min=least)} if size is None else {}
    with torch.no_grad():
        shapes = ({0: torch.export.Dim('batch')} | sides,)
        try:
            program = torch.export.export(_Batched(metric, size).eval(), (x,), dynamic_shapes=shapes)
        except Exception as error:
            if size is None:
                raise ValueError('this metric cannot be exported for any size; give size=(height, width)') from error
            raise
        if path is None:
            return program
        if suffix == '.pt2':
            torch.export.save(program, os.fspath(path))
        else:
            weights = sum(b.numel() * b.element_size() for b in metric.buffers())
            names: dict[str, Any] = {'input_names': ['images'], 'output_names': ['scores'], 'dynamic_shapes': shapes}
            converted = torch.onnx.export(program, (), dynamo=True, verbose=False, **names)
            assert converted is not None  # as it is not written to a file
            if size is None:
                _refuse_below(converted.model, shortest)
            converted.save(os.fspath(path), external_data=weights > PROTOBUF_LIMIT)
    return program


def _refuse_below(model: ir.Model, side: int) -> None:
    """Make an ONNX model of images (N, 3, H, W) fail where a side is shorter.

    The images are reshaped to (N, 3, max(H, side), max(W, side)): the same shape, or one of more elements, which a
    runtime has to refuse. The node's name is in onnxruntime's message.
    """
    import onnx_ir as ir

    images = model.graph.inputs[0]
    given = ir.node('Shape', [images])
    least = ir.node('Constant', [], attributes={'value': ir.tensor([0, 0, side, side], dtype=ir.DataType.INT64)})
    shape = ir.node('Max', [*given.outputs, *least.outputs])
    checked = ir.val('checked_images', type=images.type)  # of no known shape, or the check may look needless
    ir.convenience.replace_all_uses_with(images, checked)
    given.replace_input_with(0, images)
    check = ir.node('Reshape', [images, *shape.outputs], outputs=[checked], name=f'sides_are_at_least_{side}_pixels')
    model.graph.insert_before(model.graph[0], [given, least, shape, check])


class _Batched(nn.Module):
    """The score of a batch without a loop over its images and without a check of its values; by the metric's parts.

    Where the size is None, windows are placed by index arithmetic, since their number depends on the size.
    """

    def __init__(self, metric: MACLIP, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.metric, self.size = metric, size

    def forward(self, x: Tensor) -> Tensor:
        net, flat = self.metric, x.flatten(0, 1)  # (3N, H, W): one image of 3N channels
        plan = None if self.size is None else net.plan(*self.size)
        views = self._views(flat) if plan is None else plan.cut(flat)
        views = views.unflatten(1, (-1, 3))  # (V, N, 3, h, w)
        features = net.backbone(views.flatten(0, 1)).unflatten(0, views.shape[:2])  # (V, N, D)
        q = net.cues(features).q  # (V, N)
        q = q.mean(0) if plan is None else q.new_tensor(plan.shares) @ q
        return q[:, None]

    def _views(self, flat: Tensor) -> Tensor:
        """(C, H, W) of any size that needs no enlargement -> (V, C, h, w), as `ViewPlan.cut` orders them."""
        net, window = self.metric, self.metric.backbone.window
        if net.options.views == 'full':
            return flat[None]
        global_view = F.interpolate(flat[None], (window, window), mode='bilinear', align_corners=False)
        if net.options.views == 'global':
            return global_view
        rows, columns = (window_count(side, window, net.options.stride) for side in flat.shape[-2:])
        # one view more than windows, the whole image: the exporter would fix a number that may be 1
        view, span = (torch.arange(count, device=flat.device) for count in (rows * columns + 1, window))
        is_window = view < rows * columns  # (V,)
        row = view * is_window // columns
        top, left = row * net.options.stride, (view * is_window - row * columns) * net.options.stride
        windows = flat[:, (top[:, None] + span)[:, :, None], (left[:, None] + span)[:, None, :]].transpose(0, 1)
        return torch.where(is_window[:, None, None, None], windows, global_view)
