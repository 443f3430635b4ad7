"""The fast contraction kernels through the emulator: torch tensors in and out, and which schedule computes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from support.emu_build import emulator
from support.emu_ops import conv_out_size, conv_problem, empty, memory

Tensor = torch.Tensor
Geometry = tuple[Sequence[int], Sequence[int], Sequence[int], int]
"""stride, padding (top, left, bottom, right), dilation, groups."""


def _strides(t: Tensor) -> Any:
    return emulator().Strides(*t.stride())


def upward(x: Tensor, w: Tensor, geometry: Geometry) -> tuple[Any, Tensor]:
    """The contraction W x, and an empty tensor for its result."""
    size = conv_out_size(x.shape[2:], w.shape[2:], *geometry[:3])
    above = empty((x.shape[0], w.shape[0], *size), x)
    return emulator().contraction_up(conv_problem(x, above, w, *geometry), _strides(w)), above


def downward(r: Tensor, w: Tensor, size: Sequence[int], geometry: Geometry) -> tuple[Any, Tensor]:
    """The contraction W^T r, and an empty tensor for its result."""
    below = empty((r.shape[0], w.shape[1] * geometry[3], *size), r)
    return emulator().contraction_down(conv_problem(below, r, w, *geometry), _strides(w)), below


def partial_of(problem: Any, schedule: Any, sums: int) -> Any:
    total = emulator().partial_total(problem, schedule, sums)
    return np.empty(total, np.float32) if total else None


def contract(
    problem: Any,
    to: Tensor,
    schedule: Any,
    source: Tensor,
    w: Tensor,
    gate: Tensor | None = None,
    addend: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """W source (plus a bias per channel and an addend, times the gate of the row's image), in a tensor like `to`."""
    result = torch.empty_like(to)
    args = {"source": memory(source), "weight": memory(w), "to": memory(result)}
    if bias is not None:
        args["bias"] = memory(bias)
    if addend is not None:
        args["addend"] = memory(addend)
    if gate is not None:
        args |= {"gate": memory(gate), "gate_at": _strides(gate), "columns": to.shape[0] // gate.shape[0]}
    emulator().contraction(problem, schedule, {**args, "partial": partial_of(problem, schedule, 1)})
    return result


def excite(
    problem: Any,
    to: Tensor,
    schedule: Any,
    tensors: tuple[Tensor, Tensor, Tensor, Tensor | None],
    relu: bool,
    gates: bool,
) -> tuple[Tensor, Tensor]:
    """y = W x + bias, through a ReLU or not, and its normalizer z = W+ x, or the gate y / z."""
    x, w, w_plus, bias = tensors
    y, side = torch.empty_like(to), torch.empty_like(to)
    args = {
        "source": memory(x),
        "weight": memory(w),
        "weight_plus": memory(w_plus),
        "bias": None if bias is None else memory(bias),
        "relu": relu,
        "side_is_gate": gates,
        "to": memory(y),
        "side": memory(side),
        "partial": partial_of(problem, schedule, 2),
    }
    emulator().excitation(problem, schedule, args)
    return y, side


def schedules(problem: Any, sums: int, splits: Sequence[int] = (1, 3)) -> Iterator[Any]:
    """Every schedule of fp32 sums that a contraction admits."""
    emu = emulator()
    chosen = emu.schedule_of(problem, sums, emu.Precision.fp32, False, 90)
    if chosen.method == emu.Method.depthwise:
        yield chosen
        chosen = emu.Schedule(emu.Method.simt, emu.Loads.single, False, 1)
    for count in splits:
        yield emu.Schedule(emu.Method.simt, emu.Loads.single, False, count)
        if chosen.loads != emu.Loads.single:
            yield emu.Schedule(emu.Method.simt, chosen.loads, False, count)
            if count == splits[0] and sums == 1:
                yield emu.Schedule(emu.Method.simt, chosen.loads, True, count)
