"""Every op on small ragged shapes: the device's answer against the CPU's. What compute-sanitizer watches.

    python tools/gpu_ops.py [cuda | cpu] [--quick] [--family pointwise|pools|convolutions|roundings]

--quick takes two of the numbers of channels. --family: these ops only, in a process of their own, so that what one of
them does to the device hides nothing of the others.

Exit code 1 where an answer is wrong, 2 where an op of csrc/bindings/schema.cpp has no case here, or a kernel of
convolutions is never reached (`ops.kernels.contraction_kernel` says which are).
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ebp_cuda import ops  # noqa: E402
from ebp_cuda.linear.amx import CPU_ONLY  # noqa: E402
from ebp_cuda.ops.kernels import contraction_kernel  # noqa: E402
from ebp_cuda.ops.rounding import SPLIT  # noqa: E402

CHANNELS = (1, 3, 20, 4, 17, 33, 64)
"""Multiples of 4 reach the fast kernels; --quick takes the second and the third."""
VARIANTS = {
    *((f"mma, {way}", precision) for way in ("up", "down") for precision in ("tf32", "bf16")),
    *((f"simt, {kind}, {way}", "fp32") for way in ("up", "down") for kind in ("element by element", "small tiles")),
    *((f"simt, {kind}, up", "fp32, two sums") for kind in ("element by element", "small tiles")),
    ("mma, up", SPLIT),
    ("simt, large tiles, up", "fp32"),
    ("simt, large tiles, down", "fp32"),
    ("depthwise, up", "fp32"),
    ("depthwise, down", "fp32"),
}
"""Kernels that the cases must reach, with the precision asked for."""
PRECISIONS = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2}
"""How far, in relative norm, a result in float32 may be from float64 where its operands are rounded to that."""
CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1},
    {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1},
    {"kernel": (5, 3), "stride": (2, 1), "padding": (2, 0, 1, 1), "dilation": (1, 2), "groups": 1},
    {"kernel": (7, 7), "stride": (2, 2), "padding": (3, 3, 3, 3), "dilation": (1, 1), "groups": 1},
    {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 0},  # depthwise
]


@dataclass(frozen=True)
class Case:
    """One call of one op: `call` takes the tensors, wherever they lie, and gives one or two."""

    op: str
    call: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]
    precision: str = "fp32"


def numbers(*shape: int) -> torch.Tensor:
    """Standard normal numbers, not negative in three cases of four, so that some normalisers are zero."""
    x = torch.randn(shape)
    return torch.where(torch.rand(shape) < 0.25, x, x.abs()) * (torch.rand(shape) < 0.9)


def pointwise(channels: int) -> Iterator[Case]:
    for columns in (1, 3):
        p, z = numbers(2 * columns, channels, 5, 6), numbers(2, channels, 5, 6)
        yield Case("share", ops.divide_or_zero, (p, z))
        yield Case("gate", ops.gate, (p, z))
    yield Case("max_winner", lambda *xs: ops.max_winner(xs), tuple(numbers(2, channels, 5, 6) for _ in range(3)))
    yield Case("lrn", lambda x: ops.lrn(x, 5, 1e-4, 0.75, 1.0), (numbers(2, channels, 5, 6),))


def pools(channels: int) -> Iterator[Case]:
    x = numbers(2, channels, 9, 8)
    for kernel, stride, padding, out in (((3, 3), (2, 2), (0, 0), (4, 4)), ((3, 2), (1, 2), (1, 1), (9, 5))):
        dilated = (kernel, stride, padding, (1, 1))
        yield Case("max_pool2d", lambda x, d=dilated, o=out: ops.max_pool2d(x, *d, o), (x,))
        winner = ops.max_pool2d(x, *dilated, out)[1]
        down = lambda p, w, d=dilated: ops.max_pool2d_route(p, w, (9, 8), *d)  # noqa: E731
        yield Case("max_pool2d_route", down, (numbers(6, channels, *out), winner))
        window = (kernel, stride, padding)
        yield Case("window_sum", lambda x, w=window, o=out: ops.window_sum(x, *w, o), (x,))
        yield Case("window_spread", lambda r, w=window: ops.window_spread(r, (9, 8), *w), (numbers(6, channels, *out),))
        yield Case("avg_pool2d", lambda x, w=window, o=out: ops.avg_pool2d(x, *w, o, True), (x,))


def convolutions(channels: int, precisions: Sequence[str]) -> Iterator[Case]:
    for window, precision in itertools.product(CONVOLUTIONS, precisions):
        groups = window["groups"] or channels
        outs = channels if groups > 1 else 2 * channels + (channels % 4 != 0)
        rest = (window["stride"], window["padding"], window["dilation"], groups)
        x, w = numbers(2, channels, 9, 11), torch.randn(outs, channels // groups, *window["kernel"]).clamp(min=0)

        def up(x: torch.Tensor, w: torch.Tensor, rest: Any = rest, **more: Any) -> torch.Tensor:
            return ops.conv2d_normalizer(x, w, *rest, **more)

        def down(r: torch.Tensor, w: torch.Tensor, *gate: torch.Tensor, rest: Any = rest, **more: Any) -> torch.Tensor:
            return ops.conv2d_sweep(r, w, (9, 11), *rest, gate=gate[0] if gate else None, **more)

        r = torch.randn(6, *up(x, w).shape[1:])
        yield Case("conv2d_normalizer", up, (x, w), precision)
        yield Case("conv2d_sweep", down, (r, w), precision)
        yield Case("conv2d_sweep", down, (r, w, x), precision)
        if precision == "fp32":
            yield from excitations(x.abs(), w - 0.5, rest)
            yield Case("conv2d_forward", partial(forward, rest=rest), (x, w - 0.5, torch.randn(w.shape[0])))


def forward(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor, rest: tuple[Any, ...]) -> torch.Tensor:
    return ops.conv2d_forward(x, w, bias, *rest)


def excitations(x: torch.Tensor, w: torch.Tensor, rest: tuple[Any, ...]) -> Iterator[Case]:
    """Not with negative x: y / z would be ill-conditioned where contributions to z cancel."""
    for biased, relu, as_gate in itertools.product((True, False), repeat=3):

        def call(x: torch.Tensor, w: torch.Tensor, *bias: torch.Tensor, do: Any = (relu, as_gate)) -> Any:
            taken = bias[0] if bias else None
            return ops.conv2d_excitation(x, w, w.clamp(min=0), taken, *rest, relu=do[0], as_gate=do[1])

        yield Case("conv2d_excitation", call, (x, w, *([torch.randn(w.shape[0])] if biased else [])))


def roundings(channels: int, precisions: Sequence[str]) -> Iterator[Case]:
    for precision in precisions:
        yield Case(
            "rounded",
            lambda x, precision="fp32": ops.rounded(x, precision),
            (torch.randn(2, channels, 5, 3),),
            precision,
        )


def large_tiles(precisions: Sequence[str]) -> Iterator[Case]:
    """Enough pixels for the large tiles: 128 of them."""
    rest = (1, 1), (1, 1, 1, 1), (1, 1), 1
    x, w = numbers(8, 72, 32, 33), torch.randn(72, 72, 3, 3).clamp(min=0)
    for precision in precisions:
        yield Case(
            "conv2d_normalizer", lambda x, w, **more: ops.conv2d_normalizer(x, w, *rest, **more), (x, w), precision
        )
        yield Case(
            "conv2d_sweep",
            lambda r, w, **more: ops.conv2d_sweep(r, w, (32, 33), *rest, **more),
            (torch.randn(8, 72, 32, 33), w),
            precision,
        )


Family = Callable[[int, Sequence[str]], Iterator[Case]]
FAMILIES: dict[str, Family] = {
    "pointwise": lambda channels, precisions: pointwise(channels),
    "pools": lambda channels, precisions: pools(channels),
    "convolutions": convolutions,
    "roundings": roundings,
}


def cases(precisions: Sequence[str], quick: bool = False, family: str | None = None) -> Iterator[Case]:
    torch.manual_seed(0)
    for channels in CHANNELS[1:3] if quick else CHANNELS:
        for name, make in FAMILIES.items():
            if family in (None, name):
                yield from make(channels, precisions)
    if not quick and family in (None, "convolutions"):
        yield from large_tiles(precisions)


def reached() -> set[tuple[str, str]]:
    """The kernels that the convolutions reach, channels_last, with the precision asked for."""
    met = set()
    shapes = [((2, c, 9, 11), window) for c in CHANNELS for window in CONVOLUTIONS]
    shapes.append(((8, 72, 32, 33), CONVOLUTIONS[1]))
    last = torch.channels_last
    for (batch, channels, *size), window in shapes:
        groups = window["groups"] or channels
        outs = channels if groups > 1 else 2 * channels + (channels % 4 != 0)
        rest = (window["stride"], window["padding"], window["dilation"], groups)
        x = torch.empty(batch, channels, *size, device="meta").contiguous(memory_format=last)
        w = torch.empty(outs, channels // groups, *window["kernel"], device="meta").contiguous(memory_format=last)
        r = ops.conv2d_normalizer(x, w, *rest)
        for precision in PRECISIONS:
            met.add((f"{contraction_kernel(x, w, *rest, precision=precision).name}, up", precision))
            if precision == "fp32":
                met.add((f"{contraction_kernel(x, w, *rest, precision=SPLIT).name}, up", SPLIT))
            met.add((f"{contraction_kernel(r, w, *rest, in_size=size, precision=precision).name}, down", precision))
        met.add((f"{contraction_kernel(x, w, *rest, two_sums=True).name}, up", "fp32, two sums"))
    return met


def distance(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative norm of the difference; infinite where NaN are not where they should be. Codes must be equal."""
    got, wanted = got.cpu().double(), wanted.cpu().double()
    if got.shape != wanted.shape or not torch.equal(got.isnan(), wanted.isnan()):
        return float("inf")
    scale = float(wanted.nan_to_num().norm())
    return float((got - wanted).nan_to_num().norm()) / (scale or 1.0)


def check(case: Case, device: str, form: torch.memory_format) -> str | None:
    """What is wrong with the device's answer, against the CPU's in float64; None if nothing is."""
    wide = [t.double() if t.is_floating_point() else t for t in case.tensors]
    try:
        placed = [t.to(device).contiguous(memory_format=form) if t.dim() == 4 else t.to(device) for t in case.tensors]
        more = {} if case.precision == "fp32" else {"precision": case.precision}
        got, wanted = case.call(*placed, **more), case.call(*wide)
        pairs = zip(*((found,) if isinstance(found, torch.Tensor) else found for found in (got, wanted)), strict=True)
        worst = max(distance(a, b) for a, b in pairs)
    except Exception as error:  # one op that refuses must not hide the others
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    allowed = PRECISIONS[case.precision]
    return None if worst <= allowed else f"{case.precision}: relative error {worst:.1e}, allowed {allowed:.0e}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Every op on the device against the CPU.")
    parser.add_argument("device", nargs="?", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="two of the numbers of channels")
    parser.add_argument("--family", choices=tuple(FAMILIES), help="these ops only")
    args = parser.parse_args()
    ops.require_device(torch.device(args.device))
    schema = (ROOT / "csrc" / "bindings" / "schema.cpp").read_text()
    computes_nothing = {"contraction_kernel"}
    known = set(re.findall(r'm\.def\(\s*"(\w+)', schema)) - CPU_ONLY - computes_nothing
    seen: set[str] = set()
    wrong = count = 0
    precisions = list(PRECISIONS) if args.device != "cpu" else ["fp32"]
    forms = (torch.contiguous_format, torch.channels_last)
    for case, form in itertools.product(cases(precisions, args.quick, args.family), forms):
        seen.add(case.op)
        count += 1
        trouble = check(case, args.device, form)
        if trouble:
            wrong += 1
            shapes = ", ".join(str(list(t.shape)) for t in case.tensors)
            print(f"{case.op} on {shapes} as {str(form).removeprefix('torch.')}: {trouble}", flush=True)
            if "CUDA error" in trouble:
                sys.exit("after that the device takes no call of this process")
    print(f"{count} calls of {len(seen)} ops on {args.device}: {wrong} wrong")
    missing = [f"no case for {op}" for op in sorted(known - seen) if args.family is None]
    if args.family in (None, "convolutions"):
        missing += [f"never reached: {name} ({precision})" for name, precision in sorted(VARIANTS - reached())]
    print(*missing, sep="\n", end="\n" if missing else "")
    return 1 if wrong else 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
