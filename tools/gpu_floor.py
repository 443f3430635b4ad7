"""How fast a contrastive map could be: the arithmetic and the bytes that it needs, over what the device can do.

Counted per layer: the forward pass of every layer under the top; above the map's layer also the normaliser W+ x
(sharing the forward's read of x), and one sweep through W+^T for each of the K columns, two between the top and the
contrast layer. A tensor is read or written once by a layer; ReLU, dropout and concatenation cost nothing. A layer takes
the longer of its arithmetic and its bytes, and the floor is their sum: launches, latencies and reuse between layers
are left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ebp_cuda.net import Net

FLOAT = 4
FORWARD, NORMALIZER, SWEEP = range(3)
PRODUCTS = {
    "fp32": {FORWARD: {"fp32": 1}, NORMALIZER: {"fp32": 1}, SWEEP: {"fp32": 1}},
    "tf32": {FORWARD: {"fp32": 1, "tf32": 3}, NORMALIZER: {"tf32": 1}, SWEEP: {"tf32": 2}},
    "bf16": {FORWARD: {"fp32": 1, "tf32": 3}, NORMALIZER: {"bf16": 1}, SWEEP: {"bf16": 2}},
}
"""Products per multiplication by unit, the quickest counts: the signed sweep splits its operand in two, and a forward
pass in tf32 both of its operands."""


@dataclass(frozen=True)
class Work:
    """What one layer must do in one phase, for a whole batch."""

    phase: int
    flops: float
    bytes: float


@dataclass(frozen=True)
class Ceilings:
    """What the device was measured to do: FLOP/s of a large matrix product by precision, bytes/s of a large copy."""

    flops: dict[str, float]
    bandwidth: float


def work(net: Net, size: tuple[int, int], layer: str, contrast: str, images: int, columns: int) -> Iterator[Work]:
    """The work of c-MWP maps [images, columns, h, w] at `layer` for images of `size`; names are values of the graph."""
    graph, shapes = net.graph, net.shapes(dict.fromkeys(net.graph.inputs, (1, 3, *size)))
    top = net.default_top()
    above = {value: graph.descendants([value]) & graph.ancestors([top]) for value in (layer, contrast)}
    for index in sorted(graph.ancestors([top])):
        node = graph.nodes[index]
        read, written = (math.prod(shapes[values[0]][1:]) for values in (node.inputs, node.outputs))
        weight = node.params["weight"] if node.op in ("conv", "linear") else None
        if weight is None and node.op not in ("max_pool", "avg_pool", "lrn"):
            continue
        weights = 0 if weight is None else weight.numel()
        flops = 0 if weight is None else 2 * written * weight[0].numel()
        yield Work(FORWARD, images * flops, FLOAT * (images * (read + written) + weights))
        if index not in above[layer]:
            continue
        rows = images * columns * (2 if index in above[contrast] else 1)
        if weight is not None:
            yield Work(NORMALIZER, images * flops, FLOAT * images * written)
        gates = images * written if node.op != "lrn" else 0
        moved = rows * (read + written) if node.op != "lrn" else 0
        yield Work(SWEEP, rows * flops, FLOAT * (moved + gates + weights))


def floor_seconds(parts: list[Work], dtype: str, ceilings: Ceilings) -> float:
    """The least time for the work in that precision."""
    total = 0.0
    for part in parts:
        ways = PRODUCTS[dtype][part.phase].items()
        arithmetic = min(part.flops * products / ceilings.flops[unit] for unit, products in ways)
        total += max(arithmetic, part.bytes / ceilings.bandwidth)
    return total


def seconds(case: Callable[[], object], device: torch.device) -> float:
    """Time of one call, by events of the device where it has them."""
    if device.type == "cpu":
        start = time.perf_counter()
        case()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    case()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def timings(case: Callable[[], object], device: torch.device, budget: float, least: int = 5) -> list[float]:
    """Seconds of every timed call: at least `least`, then more for `budget` seconds; three calls before go untimed."""
    for _ in range(3):
        case()
    times: list[float] = []
    stop = time.perf_counter() + budget
    while len(times) < least or (time.perf_counter() < stop and len(times) < 200):
        times.append(seconds(case, device))
    return times


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """torch's own matrix products and convolutions with or without tf32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def measure_ceilings(device: torch.device) -> Ceilings:
    """What large products and copies reach on this device."""
    size, length = (8192, 1 << 28) if device.type == "cuda" else (256, 1 << 20)
    found = {}
    for name in PRODUCTS:
        dtype = torch.bfloat16 if name == "bf16" else torch.float32
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        with tf32(name == "tf32"):
            times = timings(lambda a=a, b=b: a @ b, device, 0.3)  # type: ignore[misc]
        found[name] = 2 * size**3 / sorted(times)[len(times) // 2]
    source = torch.randn(length, device=device)
    target = torch.empty_like(source)
    times = timings(lambda: target.copy_(source), device, 0.3)
    return Ceilings(found, 2 * FLOAT * length / sorted(times)[len(times) // 2])
