"""What a score is made of: both cues of each view, and maps of them over the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from .. import _html
from .prompts import summary_columns
from .views import ViewPlan

FLOOR = 1e-3  # share of a window's weight that is even: thin slivers of pixels at its rim stay above rounding errors
SHOWN, LONGEST, BARS = 4, 240, 12  # in a notebook: images, pixels of a map's longer side, and attributes, at most


@dataclass(frozen=True, eq=False)
class Analysis:
    """Scores, cues and attributes of N images of one size, each seen in V views. Indexable by image.

    The views are the windows row by row, then the whole image, resized; a metric with views='global' or 'full' has
    one view, the whole image.

    Attributes:
        q: score, as the metric's forward gives it, (N, 1)
        q_view: score of each view, fused or, where there is a head, the head's, (N, V); `q` is their mean, weighted by
            `plan.shares` (equal, unless the metric has `max_views`)
        q_sim, q_mag: cosine and magnitude cue, (N, V)
        w_sim: weight of the cosine cue in `q_view`, (N, V); the magnitude cue weighs 1 - w_sim
        attributes: probability of the positive prompt of each pair, (N, V, P); `q_sim` is their mean, weighted by
            the metric's prompt_weights where it has some
        names: names of the P attributes
        plan: positions of the views, and their shares in the score

    Example::

        import torch
        from maclip_pyiqa import MACLIP

        analysis = MACLIP().analyze(torch.rand(2, 3, 384, 512))
        analysis.q                             # scores, (2, 1)
        analysis.quality_map()                 # (2, 1, 384, 512)
        analysis[0].quality_map('sharp')       # (1, 1, 384, 512)
        rows = [image.summary() for image in analysis]  # {'score': ..., 'q_sim': ..., 'attribute_sharp': ...}

    A notebook shows it with scores, cues, attributes and maps, those of a batch's first four images.
    """

    q: Tensor
    q_view: Tensor
    q_sim: Tensor
    q_mag: Tensor
    w_sim: Tensor
    attributes: Tensor
    names: tuple[str, ...]
    plan: ViewPlan

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, pixels."""
        return self.plan.size

    @property
    def boxes(self) -> Tensor:
        """What each view sees, (left, top, right, bottom) in pixels of the image as it is given, (V, 4)."""
        return self.q.new_tensor(self.plan.boxes)

    def summary(self) -> dict[str, float]:
        """One image as a row of a table: score, cues and attributes, means over the views weighted by their shares.

        Returns:
            'score', 'q_sim', 'q_mag', 'w_sim', and 'attribute_NAME' for each attribute

        Raises:
            ValueError: the analysis is of several images
        """
        if len(self) != 1:
            raise ValueError(f'a summary is of one image; pick one of these {len(self)} with analysis[i]')
        shares = self.q_view.new_tensor(self.plan.shares)
        cues = [float((cue[0] * shares).sum()) for cue in (self.q_sim, self.q_mag, self.w_sim)]
        values = [float(self.q), *cues, *(shares @ self.attributes[0]).tolist()]
        return dict(zip(summary_columns(self.names), values, strict=True))

    def __len__(self) -> int:
        """Number of images, N."""
        return len(self.q)

    def __repr__(self) -> str:
        height, width = self.size
        views = f'{self.plan.views} view{"s" * (self.plan.views != 1)}'
        scores = [] if self.q.is_meta else self.q.detach().flatten().tolist()
        known = [score for score in scores if math.isfinite(score)] or scores
        ends = ' to '.join(map(_html.number, [min(known), max(known)][: len(scores)])) if known else ''
        found = f', score{"s" * (len(scores) > 1)} {ends}' * bool(known)
        return f'Analysis({len(self)} image{"s" * (len(self) != 1)} of {height}x{width}, {views}{found})'

    def _repr_html_(self) -> str:
        """What a notebook shows: some 15 kB an image, at most 80, whatever its size and the number of prompts."""
        shown = self[:SHOWN].detach().to('cpu').to(torch.float64)
        windows = shown.q_view[:, :-1]
        known = windows[windows.isfinite()]
        ends = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)  # one scale for all maps
        parts = [
            _html.paragraph(f'<b>{_html.text(repr(self), 100)}</b>'),
            *(shown[i]._image_html(*ends) for i in range(len(shown))),
        ]
        if len(self) > SHOWN:
            parts.append(_html.paragraph(f'and {len(self) - SHOWN:,} more: analysis[i] shows each'))
        return f'<div>{"".join(parts)}</div>'

    def _image_html(self, low: float, high: float) -> str:
        means = list(self.summary().values())
        score, q_sim, q_mag, w_sim = means[:4]
        rows = [(f'cosine cue, weight {w_sim:.2f}', q_sim), (f'magnitude cue, weight {1 - w_sim:.2f}', q_mag)]
        rows += list(zip(self.names, means[4:], strict=True))
        bars = _html.bars((name, value, _html.number(value)) for name, value in rows[: 2 + BARS])
        more = _html.paragraph(f'and {len(rows) - 2 - BARS} more attributes') if len(rows) > 2 + BARS else ''
        return _html.block(
            self._map_html(low, high), _html.paragraph(f'score <b>{_html.number(score)}</b>') + bars + more
        )

    def _map_html(self, low: float, high: float) -> str:
        if not self.plan.offsets:
            return _html.paragraph('one view, the whole image: no map')
        scale = LONGEST / max(self.size)
        # a strip of at least 12 pixels, though the aspect ratio of a very long image is not kept then
        height, width = (max(round(scale * side), 12) for side in self.size)
        values = self._map(self.q_view, (height, width))[0, 0]
        if not values.isfinite().all():
            return _html.paragraph('no map: some scores are not finite')
        middle, half = (low + high) / 2, max((high - low) / 2, 0.005)  # so that no noise is drawn in full colours
        shares = ((values - middle) / half / 2 + 0.5).clamp(0, 1)
        lowest, highest = (_html.number(float(end)) for end in (values.min(), values.max()))
        alt = f'quality map: lowest {lowest}, highest {highest}'
        return _html.picture(shares.tolist(), _html.number(middle - half), _html.number(middle + half), alt)

    def __getitem__(self, index: int | slice) -> Analysis:
        """analysis[i]: the analysis of image i alone (N = 1); a slice gives that of several.

        Raises:
            IndexError: no such image
        """
        if not isinstance(index, slice):
            image = range(len(self))[index]
            index = slice(image, image + 1)
        return self._each(lambda name, tensor: tensor[index])

    @staticmethod
    def cat(parts: list[Analysis]) -> Analysis:
        """Analyses of images of one size, by one metric, as one."""
        return parts[0]._each(lambda name, _: torch.cat([getattr(part, name) for part in parts]))

    def to(self, *args, **kwargs) -> Analysis:
        """The same with all tensors moved or cast as `Tensor.to` does."""
        return self._each(lambda name, tensor: tensor.to(*args, **kwargs))

    def detach(self) -> Analysis:
        """The same, detached from the graph."""
        return self._each(lambda name, tensor: tensor.detach())

    def quality_map(self, of: str = 'q') -> Tensor:
        r"""The windows' values laid back onto the image; overlapping windows fade smoothly into each other.

        $$m(p) = \frac{\sum_v w_v(p)\, q_v}{S(p)}, \qquad S(p) = \sum_v w_v(p)$$

        where $w_v(p)$ is the integral, over pixel p, of a raised cosine (Hann window) that spans window v and has
        integral 1. A pixel in no window (the rest at the right and at the bottom) takes the value of the nearest one
        that is; there S = 0. As each window has weight 1 in all, the map weighted by S sums back to the windows:
        mean of $S(p)\,m(p)$ / mean of S(p) = mean of $q_v$ (see `coverage`).

        The view of the whole image says nothing about places and is not used; where it is the only one, the map is
        constant. Differentiable.

        Args:
            of: name of the value: 'q' (the fused score), 'q_sim', 'q_mag', 'w_sim' or an attribute

        Returns:
            (N, 1, H, W), between the windows' least and greatest value

        Raises:
            ValueError: `of` is none of these
        """
        return self._map(self._values(of), self.size)

    def _map(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """The map of values (N, V) of the views at any height and width of its own: (N, 1, h, w)."""
        if values.shape[1] == 1:
            return values[..., None, None].expand(-1, -1, *size).clone()
        weights = (_nearest(w / w.sum(0).clamp_min(1e-300)).to(values) for w in self._window_weights(size))
        rows, columns = weights  # (R, H), (C, W)
        grid = values[:, :-1].unflatten(1, (len(rows), len(columns)))  # (N, R, C)
        return (rows.T @ grid @ columns)[:, None]

    def coverage(self) -> Tensor:
        """S(p) of `quality_map`: how much weight of windows falls on each pixel, (1, 1, H, W), with sum V - 1, the
        number of windows. All ones where the whole image is the only view."""
        if self.plan.views == 1:
            return torch.ones(1, 1, *self.size, dtype=torch.float32, device=self.q.device)
        rows, columns = (w.sum(0).float().to(self.q.device) for w in self._window_weights(self.size))
        return torch.outer(rows, columns)[None, None]

    def _values(self, of: str) -> Tensor:
        known = {'q': self.q_view, 'q_sim': self.q_sim, 'q_mag': self.q_mag, 'w_sim': self.w_sim}
        if of in known:
            return known[of]
        if of in self.names:
            return self.attributes[..., self.names.index(of)]
        raise ValueError(f'no map of {of!r}; expected one of {", ".join([*known, *self.names])}')

    def _window_weights(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Windows lie on a grid, so the weights are products: of rows, (R, h), and of columns, (C, w), for a map of
        h x w."""
        spans = zip((self.plan.rows, self.plan.columns), self.size, size, strict=True)
        rows, columns = (_weights(each, side, length) for each, side, length in spans)
        return rows, columns

    def _each(self, change: Callable[[str, Tensor], Tensor]) -> Analysis:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ('names', 'plan')}
        changed: dict[str, Any] = {name: change(name, tensor) for name, tensor in tensors.items()}
        return replace(self, **changed)


def _weights(spans: Sequence[tuple[float, float]], side: int, length: int) -> Tensor:
    """A raised cosine over each span (start, end) of a side, integrated over each of `length` equal parts of the side:
    (K, length), rows of sum 1."""
    start, end = torch.tensor(spans, dtype=torch.float64, device='cpu').unbind(1)
    edges = torch.arange(length + 1, dtype=torch.float64, device='cpu') * (side / length)
    t = ((edges - start[:, None]) / (end - start)[:, None]).clamp(0, 1)
    return (FLOOR * t + (1 - FLOOR) * (t - torch.sin(2 * math.pi * t) / (2 * math.pi))).diff()


def _nearest(weights: Tensor) -> Tensor:
    """(K, L) with the columns without any weight replaced by the nearest that has some."""
    seen = weights.sum(0).nonzero()[:, 0]
    pixel = torch.arange(weights.shape[1], device=weights.device)
    after = torch.searchsorted(seen, pixel).clamp(max=len(seen) - 1)
    before = (after - 1).clamp(min=0)
    nearer = torch.where((pixel - seen[before]).abs() <= (seen[after] - pixel).abs(), before, after)
    return weights[:, seen[nearer]]
