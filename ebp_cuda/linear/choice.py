"""Which kernel computes a convolution on a CPU, and why none of the faster ones: one list each way, fastest first.

Every predicate says in words what its kernel cannot take, "" where it takes the problem; `csrc/cuda/schedule.h` does
the same for CUDA. A question of shapes and types alone, so that one call takes the same way as the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

from ..ops.formats import memory_format
from . import amx, onednn
from .part import Part

FEW = 8
"""Input channels below which tensor cores and matrix tiles stay empty: those of images, mostly."""
FEW_CHANNELS = "too few channels to fill tiles"
NO_TILES = "no matrix unit here"


class Choice(NamedTuple):
    """The kernel that runs."""

    kernel: str
    """"amx" (tiles of the CPU's matrix unit), "product" (one matrix product), "onednn" (a weight laid out once), "aten"
    (torch's own), "flipped" (the way down as a convolution with the flipped kernel, by one of those), or what
    `ops.kernels.contraction_kernel` names on CUDA."""
    reasons: tuple[str, ...] = ()
    """What stands against the faster ones, "kernel: reason"."""

    def __str__(self) -> str:
        return "; ".join((self.kernel, *self.reasons))


class Problem(NamedTuple):
    """What is asked about a convolution of planes x with a weight."""

    shape: tuple[int, ...]
    """[N, I, H, W] of x."""
    weight: tuple[int, ...]
    """[O, I/groups, kh, kw], as the convolution reads it."""
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    """(top, left, bottom, right)."""
    dilation: tuple[int, ...]
    groups: int
    unusual: str
    """What is unusual about the operands: another dtype than float32, a gradient; "" if nothing."""
    for_tiles: bool
    """Whether x is stored as tiles read it: channels_last, or a slice of such channels."""
    for_onednn: bool
    """Whether x is one block of channels_last memory."""
    has_tiles: bool
    has_onednn: bool


def problem_of(
    x: torch.Tensor,
    weight: torch.Tensor,
    shape: Sequence[int],
    geometry: tuple[Sequence[int], Sequence[int], Sequence[int], int],
    *,
    copied: bool = False,
) -> Problem:
    """The problem of convolving x with a weight of that shape (another form of `weight` may have another).

    copied: whether x may be copied into the layout that a kernel wants.
    """
    stride, padding, dilation, groups = geometry
    return Problem(
        tuple(x.shape), tuple(shape), tuple(stride), tuple(padding), tuple(dilation), groups,
        unusual(x, weight),
        copied or memory_format(x) == torch.channels_last,
        x.is_contiguous(memory_format=torch.channels_last),
        amx.available(),
        onednn.available(),
    )  # fmt: skip


def unusual(x: torch.Tensor, weight: torch.Tensor) -> str:
    """What keeps two operands from kernels that know no autograd and no other tensors than float32 on a CPU."""
    if type(x) is not torch.Tensor or type(weight) is not torch.Tensor:
        return "an operand is no plain torch.Tensor"
    if not x.is_cpu:
        return f"x is on {x.device}"
    if not x.dtype == weight.dtype == torch.float32:
        return f"x is {x.dtype}, the weight {weight.dtype}"
    return "a gradient may be asked for" if torch.is_grad_enabled() else ""


def amx_refuses(p: Problem) -> str:
    """Why the tiles of the CPU's matrix unit cannot take it, or are not worth it."""
    if not p.has_tiles:
        return NO_TILES
    if p.unusual:
        return p.unusual
    if not p.for_tiles:
        return "x is not channels_last"
    if (*p.stride, *p.dilation, p.groups) != (1, 1, 1, 1, 1):
        return f"stride {p.stride}, dilation {p.dilation}, groups {p.groups}; wanted 1"
    kernel = p.weight[2:]
    if not all(pad < k <= 255 for pad, k in zip(p.padding, (*kernel, *kernel), strict=True)):
        return f"kernel {kernel} with padding {p.padding}"
    images, _, height, width = p.shape
    if images * height * width < amx.LEAST_PIXELS:
        return f"{images * height * width} pixels, wanted {amx.LEAST_PIXELS}: reading the weight is what takes the time"
    return "" if amx.filled(*p.weight[:2]) else f"{p.weight[1]} to {p.weight[0]} channels fill less than half the tiles"


def pixel_refuses(p: Problem) -> str:
    """Why it is no fully connected layer, which needs no other layout of its weight."""
    one = p.shape[2:] == p.weight[2:] == (1, 1) and p.groups == 1 and not any(p.padding)
    return "" if one else "more than one pixel"


def onednn_refuses(p: Problem) -> str:
    """Why a layout of the weight that was made once cannot serve."""
    if not p.has_onednn:
        return "this torch has no oneDNN, or it is switched off"
    return p.unusual or ("" if p.for_onednn else "x is not channels_last")


KERNELS: tuple[tuple[str, Callable[[Problem], str]], ...] = (
    ("amx", amx_refuses),
    ("product", pixel_refuses),
    ("onednn", onednn_refuses),
    ("aten", lambda problem: ""),
)
"""For convolutions, by speed: each takes what it does not refuse, the last one everything."""


@lru_cache(4096)  # a network asks the same few questions at every call
def choose(p: Problem) -> Choice:
    """The kernel for a convolution."""
    return _first((name, refuses(p)) for name, refuses in KERNELS)


def _first(answers: Iterable[tuple[str, str]]) -> Choice:
    """The first kernel that refuses nothing; no predicate is asked behind it."""
    reasons: list[str] = []
    for kernel, reason in answers:
        if not reason:
            return Choice(kernel, tuple(reasons))
        reasons.append(f"{kernel}: {reason}")
    raise AssertionError("the last kernel refuses nothing")


def product_refuses(part: Part) -> str:
    """Why the way down is not one matrix product for all pixels, which can add into a sum: a 1 x 1 convolution's is."""
    window = part.geometry
    if part.precision != "fp32":
        return f"factors are rounded to {part.precision}"
    if part.weight.dim() != 4 or window.kernel != [1, 1] or window.groups != 1:
        return f"kernel {window.kernel}, groups {window.groups}"
    plain = window.stride == [1, 1] and not any(window.pads)
    return "" if plain else f"stride {window.stride}, padding {window.pads}"


def amx_refuses_down(part: Part, r: torch.Tensor) -> str:
    """Why the tiles cannot take the way down."""
    if not amx.available():
        return NO_TILES
    if part.geometry.no_flip:
        return part.geometry.no_flip
    if part.precision != "fp32":
        return f"factors are rounded to {part.precision}"
    shape, flipped = part.form(flipped=True).shape(part.weight), part.geometry.flipped
    return amx_refuses(problem_of(r, part.weight, shape, flipped.geometry, copied=True))


KERNELS_DOWN: tuple[tuple[str, Callable[[Part, torch.Tensor], str]], ...] = (
    ("amx", amx_refuses_down),
    ("product", lambda part, r: product_refuses(part)),
    ("flipped", lambda part, r: part.geometry.no_flip),
    ("aten", lambda part, r: ""),
)
"""The same for the way down of a convolution; "flipped" is a convolution again, for one of the kernels above."""


def choose_down(part: Part, r: torch.Tensor) -> Choice:
    """The kernel for L^T r of a convolution, r [N*K, O, ...]."""
    return _first((name, refuses(part, r)) for name, refuses in KERNELS_DOWN)


def gives_normalizer(part: Part) -> str:
    """Why z (or the gate y / z) beside the forward's output would cost as much as by itself; "" where it costs less."""
    if part.weight.shape[1] < FEW:
        return FEW_CHANNELS
    if not amx.available():
        return "only matrix tiles split x once for both products"
    if part.kind != "conv" or part.weight.dim() != 4 or part.weight.dtype != torch.float32:
        return f"a {part.kind} layer with a {part.weight.dtype} weight {list(part.weight.shape)}"
    window = part.geometry
    if window.groups != 1 or max(window.stride) > 1:
        return f"stride {window.stride}, groups {window.groups}; wanted 1"
    return "" if amx.filled(*part.weight.shape[:2]) else FEW_CHANNELS
