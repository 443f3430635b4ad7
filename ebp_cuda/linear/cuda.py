"""Linear maps by the compiled ops, as CUDA takes them, and forward convolutions by cuDNN.

torch's own float32 convolutions round their operands to tf32 on CUDA unless the process says otherwise
(torch.backends.cudnn.allow_tf32), and that moves a contrastive map by percents. The setting belongs to the caller; here
cuDNN is asked directly: no tf32, and an algorithm that gives the same bits every time.

Everything here runs on a CPU and on meta tensors too, for tests, where cuDNN's part is torch's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .. import ops
from ..ops.kernels import contraction_kernel
from ..ops.rounding import SPLIT
from . import cpu
from .choice import Choice
from .forward_choices import FORWARD, why_library
from .part import Part
from .pending import Ratio, Term
from .window import Up, Window

Ints = Sequence[int]

_BENCHMARK, _DETERMINISTIC, _ALLOW_TF32 = False, True, False
_ONE_PIXEL = ((1, 1), (0, 0, 0, 0), (1, 1), 1)
"""The geometry of a fully connected layer as a 1 x 1 convolution, because torch.matmul may round to tf32."""


def by_cudnn(x: torch.Tensor) -> bool:
    """Whether cuDNN convolves x; never on a CPU."""
    return x.is_cuda and torch.backends.cudnn.is_acceptable(x)


def convolution(part: Part, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The forward of a convolution along one to three axes."""
    if not by_cudnn(x):
        return cpu.convolution(part, x, bias)
    window = part.geometry
    x, before = window.spatial.plane(x), window.before
    if before != window.after:
        both = [n for pair in zip(before[::-1], window.after[::-1], strict=True) for n in pair]
        x, before = F.pad(x, both), [0] * len(before)
    geometry = before, window.stride, window.dilation, window.groups
    y = torch.ops.aten.cudnn_convolution.default(
        x, window.spatial.plane(part.tensor()), *geometry, _BENCHMARK, _DETERMINISTIC, _ALLOW_TF32
    )
    return window.spatial.back(_with_bias(y, bias))


def forward_by_tensor_cores(part: Part, x: torch.Tensor) -> bool:
    """Whether the forward, too, is computed on tensor cores: of convolutions of planes whose other products round."""
    rounds = part.kind == "conv" and part.precision != "fp32" and part.geometry.rank == 2
    return rounds and x.dtype == torch.float32 and not x.is_cpu


def transposed_convolution(part: Part, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The forward of a transposed convolution along one to three axes."""
    if not by_cudnn(x):
        return cpu.transposed_convolution(part, x, bias)
    window = part.geometry
    plane, back = window.spatial.plane, window.spatial.back
    geometry = window.before, window.output_padding, window.stride, window.dilation, window.groups
    y = torch.ops.aten.cudnn_convolution_transpose.default(
        plane(x), plane(part.tensor()), *geometry, _BENCHMARK, _DETERMINISTIC, _ALLOW_TF32
    )
    return back(_with_bias(y, bias))


def _with_bias(y: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if bias is not None:
        y += bias.reshape(1, -1, *[1] * (y.dim() - 2))
    return y


class Cuda:
    """The backend of a CUDA device: every kernel of a sweep adds what came before it, and multiplies by a gate."""

    gates = True

    def forward(self, part: Part, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """A fully connected layer is torch's matrix product, which rounds to tf32 only where the process asks for it
        (torch.backends.cuda.matmul.allow_tf32, off by default)."""
        if part.kind == "linear":
            return F.linear(x, part.tensor(), bias)
        if forward_by_tensor_cores(part, x):
            return ops.conv2d_forward(x, part.tensor(), bias, *part.geometry.geometry)
        return (convolution if part.kind == "conv" else transposed_convolution)(part, x, bias)

    def gives_normalizer(self, part: Part) -> str:
        """By the table of forward_choices.py."""
        if part.kind != "conv" or part.weight.dim() != 4 or part.geometry.groups != 1:
            return f"a {part.kind} layer with a weight {list(part.weight.shape)} or groups"
        return why_library(part.geometry.kernel, part.geometry.stride, part.weight.shape[1], FORWARD)

    def forward_with_normalizer(
        self, part: Part, plus: Part, x: torch.Tensor, bias: torch.Tensor | None, *, relu: bool, as_gate: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        geometry = part.geometry.geometry
        return ops.conv2d_excitation(x, part.weight, plus.tensor(), bias, *geometry, relu=relu, as_gate=as_gate)

    def apply(self, part: Part, x: torch.Tensor) -> torch.Tensor:
        if part.kind == "conv_transpose":
            return transposed_convolution(part, x, None)
        if part.kind == "conv":
            return part.geometry.convolve(x, part.tensor(), _up(part.precision))
        if not x.is_cuda:
            return F.linear(x, part.tensor())
        planes = ops.conv2d_normalizer(_points(x), part.tensor()[:, :, None, None], *_ONE_PIXEL)
        return planes.reshape(*x.shape[:-1], -1)

    def term(self, part: Part, ratio: Ratio, shape: torch.Size) -> tuple[Term, bool]:
        return Term(part, ratio.product(), None, shape, "ops"), _takes_more(part, shape)

    def evaluate(
        self, terms: Sequence[Term], addend: torch.Tensor | None, gate: torch.Tensor | None, owned: bool
    ) -> torch.Tensor:
        for term in terms[:-1]:
            addend = _down(term, addend, None)
        return _down(terms[-1], addend, gate)

    def choice(self, part: Part, direction: str, operand: torch.Tensor, shape: Sequence[int]) -> Choice:
        forward = direction == "forward" and part.kind == "conv" and forward_by_tensor_cores(part, operand)
        if (direction == "forward" and not forward) or part.kind == "conv_transpose":
            name = "cudnn" if by_cudnn(operand) else "aten"
            return Choice("matmul" if part.kind == "linear" else name)
        size: Ints = (1, 1)
        geometry: tuple[Ints, Ints, Ints, int] = _ONE_PIXEL
        if part.kind == "linear":
            operand, weight = _points(operand), part.tensor()[:, :, None, None]
        elif part.geometry.rank == 3:
            return Choice("planes of the volume, one tap of the depth at a time")
        else:
            spatial, geometry = part.geometry.spatial, part.geometry.geometry
            operand, weight = spatial.plane(operand), spatial.plane(part.tensor())
            size = spatial.settings(shape[2:], 1)
        arch = torch.cuda.get_device_capability(operand.device) if operand.is_cuda else (9, 0)
        kernel = contraction_kernel(
            operand, weight, *geometry, in_size=size if direction == "down" else None,
            precision=SPLIT if forward else part.precision, arch=10 * arch[0] + arch[1],
        )  # fmt: skip
        return Choice(kernel.name, kernel.reasons)


def _takes_more(part: Part, shape: torch.Size) -> bool:
    """Whether the kernel of L^T r takes an addend and a gate."""
    return len(shape) == 2 if part.kind == "linear" else part.kind == "conv" and part.geometry.rank < 3


def _up(precision: str) -> Up:
    return lambda window, x, weight: ops.conv2d_normalizer(x, weight, *window.geometry, precision=precision)


def _down(term: Term, addend: torch.Tensor | None, gate: torch.Tensor | None) -> torch.Tensor:
    """(L^T r + addend) * gate, in one kernel where it takes both."""
    part = term.part
    if _takes_more(part, term.shape):
        return (_down_linear if part.kind == "linear" else _down_planes)(term, addend, gate)
    t = _down_alone(term)
    t = t if addend is None else t + addend
    return t if gate is None else ops.gate(t, gate)


def _down_linear(term: Term, addend: torch.Tensor | None, gate: torch.Tensor | None) -> torch.Tensor:
    r, weight = term.s, term.part.tensor()
    if not r.is_cuda and gate is None and addend is None:
        return r @ weight
    gate, addend = (None if t is None else t[:, :, None, None] for t in (gate, addend))
    kernel = weight[:, :, None, None]
    return ops.conv2d_sweep(_points(r), kernel, (1, 1), *_ONE_PIXEL, gate=gate, addend=addend).flatten(1)


def _down_planes(term: Term, addend: torch.Tensor | None, gate: torch.Tensor | None) -> torch.Tensor:
    plane, precision = term.part.geometry.spatial.plane, term.part.precision
    gate, addend = (None if t is None else plane(t) for t in (gate, addend))

    def on_planes(window: Window, r: torch.Tensor, weight: torch.Tensor, size: Ints) -> torch.Tensor:
        return ops.conv2d_sweep(r, weight, size, *window.geometry, gate=gate, addend=addend, precision=precision)

    return term.part.geometry.transposed(term.s, term.part.tensor(), term.shape[2:], on_planes)


def _down_alone(term: Term) -> torch.Tensor:
    """L^T r of a layer whose kernel takes nothing else."""
    part, r = term.part, term.s
    if part.kind == "linear":
        if not r.is_cuda:
            return r @ part.tensor()
        planes = ops.conv2d_sweep(_points(r), part.tensor()[:, :, None, None], (1, 1), *_ONE_PIXEL)
        return planes.reshape(*r.shape[:-1], -1)
    if part.kind == "conv_transpose":
        return cpu.narrowed(part.geometry.convolve(r, part.tensor(), _up("fp32")), term.shape)

    def on_planes(window: Window, r: torch.Tensor, weight: torch.Tensor, size: Ints) -> torch.Tensor:
        return ops.conv2d_sweep(r, weight, size, *window.geometry, precision=part.precision)

    return part.geometry.transposed(r, part.tensor(), term.shape[2:], on_planes)


def _points(x: torch.Tensor) -> torch.Tensor:
    """[..., C] as planes of one pixel."""
    return x.reshape(-1, x.shape[-1], 1, 1)
