"""Linear maps on a CPU, and the CPU side of the compiled convolutions: torch.ops.ebp_cuda.conv2d_*.

Which kernel runs is decided in choice.py. Where a precision is asked for, tensor cores are imitated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .. import ops
from ..ops.formats import conv_format, memory_format
from ..ops.modes import in_full_precision
from ..ops.operands import dense
from ..ops.rounding import rounded, split
from . import amx, choice, onednn
from .choice import Choice
from .part import Part
from .pending import Ratio, Term
from .weights import Form
from .window import Window

Ints = Sequence[int]


def convolution_cpu(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> torch.Tensor:
    """torch.conv2d of x [N, I, H, W] with weight [O, I/groups, kh, kw] and bias [O]; ATen's own where gradients may be
    asked for."""
    around = (*padding, *padding)
    kernel = choice.choose(choice.problem_of(x, weight, weight.shape, (stride, around, dilation, groups))).kernel
    if kernel == "amx":
        return amx.convolve([amx.Source(x, weight)], around, bias=bias)
    if kernel == "product":
        return F.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
    function = onednn.convolve if kernel == "onednn" else torch.conv2d
    return function(x, weight, bias, stride, padding, dilation, groups)


def convolution(part: Part, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The forward of a convolution along one to three axes."""
    window = part.geometry
    rank, weight = window.rank, part.tensor()
    stride, before, after, dilation = (
        values[:rank] for values in (window.stride, window.before, window.after, window.dilation)
    )
    if before != after:
        both = [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]
        x, before = F.pad(x, both), [0] * rank
    function = (F.conv1d, convolution_cpu, F.conv3d)[rank - 1]
    return function(x, weight, bias, stride, before, dilation, window.groups)


def transposed_convolution(part: Part, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The forward of a transposed convolution along one to three axes."""
    window = part.geometry
    rank = window.rank
    stride, before, extra, dilation = (
        values[:rank] for values in (window.stride, window.before, window.output_padding, window.dilation)
    )
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    return function(x, part.tensor(), bias, stride, before, extra, window.groups, dilation)


@in_full_precision
def normalizer_cpu(
    x: torch.Tensor,
    w_plus: torch.Tensor,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    precision: str = "fp32",
) -> torch.Tensor:
    """The CPU side of `ops.conv2d_normalizer`."""
    x, w_plus = rounded(x, precision), rounded(w_plus, precision)
    top, left, bottom, right = padding
    if top != bottom or left != right:
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    z = convolution_cpu(x, w_plus, None, stride, (top, left), dilation, groups)
    return z.contiguous(memory_format=conv_format(x, w_plus))


@in_full_precision
def sweep_cpu(
    r: torch.Tensor,
    w_plus: torch.Tensor,
    in_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    gate: torch.Tensor | None = None,
    precision: str = "fp32",
    addend: torch.Tensor | None = None,
) -> torch.Tensor:
    """The CPU side of `ops.conv2d_sweep`: ATen's transposed convolution, then the addend and the gate."""
    r, w_plus = split(r, precision), rounded(w_plus, precision)
    before, after = tuple(padding[:2]), tuple(padding[2:])
    crop = before if before == after else (0, 0)  # ATen takes off as much at both ends
    reached = [(r.shape[2 + i] - 1) * stride[i] + dilation[i] * (w_plus.shape[2 + i] - 1) + 1 for i in (0, 1)]
    beyond = [max(0, in_size[i] + before[i] + crop[i] - reached[i]) for i in (0, 1)]  # rows that no window read
    t = torch.conv_transpose2d(r, w_plus, None, stride, crop, beyond, groups, dilation)
    if crop != before or crop != after:
        top, left = before[0] - crop[0], before[1] - crop[1]
        t = t[:, :, top : top + in_size[0], left : left + in_size[1]]
    t = t.contiguous(memory_format=conv_format(r, w_plus))
    if addend is not None:
        t += addend
    if gate is None:
        return t
    gated: torch.Tensor = torch.ops.ebp_cuda.gate.default(t, gate.contiguous(memory_format=memory_format(t)))
    return gated


def forward_cpu(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
) -> torch.Tensor:
    """The CPU side of `ops.conv2d_forward`, which rounds nothing."""
    y = normalizer_cpu(x, w, stride, padding, dilation, groups)
    if bias is not None:
        y += bias.view(-1, 1, 1)
    return y


def excitation_cpu(
    x: torch.Tensor,
    w: torch.Tensor,
    w_plus: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    relu: bool,
    as_gate: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The CPU side of `ops.conv2d_excitation`: two convolutions."""
    y = forward_cpu(x, w, bias, stride, padding, dilation, groups)
    y = y.relu_() if relu else y
    z = normalizer_cpu(x, w_plus, stride, padding, dilation, groups)
    return y, torch.ops.ebp_cuda.share.default(y, z) if as_gate else z


_CPU = torch.library.Library("ebp_cuda", "IMPL", "CPU")
_CPU.impl("conv2d_excitation", excitation_cpu)
_CPU.impl("conv2d_forward", forward_cpu)
_CPU.impl("conv2d_normalizer", normalizer_cpu)
_CPU.impl("conv2d_sweep", sweep_cpu)


class Cpu:
    """The backend of a CPU: matrix tiles where the processor has them, otherwise oneDNN, otherwise ATen."""

    gates = False

    def forward(self, part: Part, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if part.kind == "linear":
            return F.linear(x, part.tensor(), bias)
        return (convolution if part.kind == "conv" else transposed_convolution)(part, x, bias)

    def gives_normalizer(self, part: Part) -> str:
        return choice.gives_normalizer(part)

    def forward_with_normalizer(
        self, part: Part, plus: Part, x: torch.Tensor, bias: torch.Tensor | None, *, relu: bool, as_gate: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        window, weight = part.geometry, part.weight
        problem = choice.problem_of(x, weight, weight.shape, window.geometry, copied=True)
        if not choice.amx_refuses(problem):
            return amx.excite(x, weight, window.pads, bias=bias, relu=relu, as_gate=as_gate)
        return excitation_cpu(dense(x), weight, plus.tensor(), bias, *window.geometry, relu, as_gate)

    def apply(self, part: Part, x: torch.Tensor) -> torch.Tensor:
        if part.kind == "linear":
            return F.linear(x, part.tensor())
        if part.kind == "conv_transpose":
            return transposed_convolution(part, x, None)
        if self._reads_tiles(part, x):  # from the weight itself: no other kernel needs the part as a tensor
            return amx.convolve([amx.Source(x, part.weight, part.form())], part.geometry.pads)

        def on_planes(window: Window, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return normalizer_cpu(dense(x), weight, *window.geometry, part.precision)

        return part.geometry.convolve(x, part.tensor(), on_planes)

    def term(self, part: Part, ratio: Ratio, shape: torch.Size) -> tuple[Term, bool]:
        s, gate = ratio.factors()
        kernel = "aten" if part.kind != "conv" else choice.choose_down(part, s).kernel
        if kernel == "amx":  # tiles multiply the gate in as they read
            return Term(part, s, gate, shape, kernel), True
        return Term(part, ratio.product(), None, shape, kernel), kernel == "product"

    def evaluate(
        self, terms: Sequence[Term], addend: torch.Tensor | None, gate: torch.Tensor | None, owned: bool
    ) -> torch.Tensor:
        for group in _joined(terms):
            addend, owned = _sum(group, addend, owned), True
        assert addend is not None
        return addend if gate is None else ops.gate(addend, gate)

    def choice(self, part: Part, direction: str, operand: torch.Tensor, shape: Sequence[int]) -> Choice:
        if part.kind == "linear":
            return Choice("product")
        if part.kind == "conv_transpose" or part.geometry.rank != 2:
            return Choice("aten", (f"others: {part.kind} along {part.geometry.rank} axes",))
        weight, geometry = part.weight, part.geometry.geometry
        if direction == "down":
            way_down = choice.choose_down(part, operand)
            if way_down.kernel != "flipped":
                return way_down
            weight, geometry = part.tensor(flipped=True), part.geometry.flipped.geometry
            inner = choice.choose(choice.problem_of(operand, weight, weight.shape, geometry))
            return Choice(f"flipped, {inner.kernel}", (*way_down.reasons, *inner.reasons))
        return choice.choose(choice.problem_of(operand, weight, weight.shape, geometry))

    @staticmethod
    def _reads_tiles(part: Part, x: torch.Tensor) -> bool:
        if part.precision != "fp32" or part.weight.dim() != 4 or not amx.available():
            return False
        problem = choice.problem_of(x, part.weight, part.weight.shape, part.geometry.geometry)
        return not choice.amx_refuses(problem)


def _joined(terms: Sequence[Term]) -> list[list[Term]]:
    """The terms in groups that one call can sum, in the order in which each group begins."""
    groups: dict[object, list[Term]] = {}
    for place, term in enumerate(terms):
        window = term.part.geometry.flipped if term.kernel == "amx" else None
        key = place if window is None else (tuple(window.pads), tuple(window.kernel), term.gate is None)
        groups.setdefault(key, []).append(term)
    return list(groups.values())


def _sum(group: Sequence[Term], addend: torch.Tensor | None, owned: bool) -> torch.Tensor:
    """The sum of a group and the addend."""
    first = group[0]
    if first.kernel == "amx":
        sources = [amx.Source(t.s, t.part.weight, Form(t.part.sign, True), t.gate) for t in group]
        return amx.convolve(sources, first.part.geometry.flipped.pads, addend=addend)
    if first.kernel == "product":
        return onednn.add_product(addend, first.s, first.part.tensor().flatten(1), owned=owned)
    t = _down(first)
    return t if addend is None else t.add_(addend)


def _down(term: Term) -> torch.Tensor:
    """L^T r of one term, in memory of its own."""
    part, r, precision = term.part, term.s, term.part.precision
    if part.kind == "linear":
        return r @ part.tensor()
    window = part.geometry
    if part.kind == "conv_transpose":
        t = window.convolve(r, part.tensor(), lambda w, r, weight: normalizer_cpu(dense(r), weight, *w.geometry))
        return narrowed(t, term.shape)
    if term.kernel == "flipped":
        weight = rounded(part.tensor(flipped=True), precision)
        return normalizer_cpu(dense(split(r, precision)), weight, *window.flipped.geometry)

    def on_planes(window: Window, r: torch.Tensor, weight: torch.Tensor, size: Ints) -> torch.Tensor:
        return sweep_cpu(dense(r), weight, size, *window.geometry, None, precision)

    return window.transposed(r, part.tensor(), term.shape[2:], on_planes)


def narrowed(t: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """t less the rows that output_padding added behind the input, which it never saw."""
    for axis, n in enumerate(shape[2:], start=2):
        t = t.narrow(axis, 0, n)
    return t
