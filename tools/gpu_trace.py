"""The launches of one call on a GPU, traced on meta tensors: shapes and strides as CUDA would have them, no numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from gpu_model import FLOAT, Launch
from torch.utils._python_dispatch import TorchDispatchMode

import ebp_cuda.engine.plan
from ebp_cuda import ExcitationBackprop, targets
from ebp_cuda.engine.run import measure
from ebp_cuda.net import Net
from ebp_cuda.ops.kernels import Kernel, contraction_kernel
from ebp_cuda.ops.rounding import SPLIT
from ebp_cuda.questions.question import Question

TILED = {
    "simt, large tiles": "simt large",
    "simt, small tiles": "simt small",
    "simt, element by element": "simt single",
}
VIEWS = frozenset(("view", "_unsafe_view", "expand", "unsqueeze", "squeeze", "t", "permute", "transpose", "select"))
VIEWS |= frozenset(("detach", "split", "split_with_sizes", "slice", "new_empty", "empty", "alias", "as_strided"))


def _cudnn_on_meta(x: torch.Tensor, weight: torch.Tensor, padding: Any, stride: Any, dilation: Any, *_: Any) -> Any:
    size = [
        (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in (0, 1)
    ]
    made = x.new_empty((x.shape[0], weight.shape[0], *size))
    return made.contiguous(memory_format=torch.channels_last)


_LIBRARY = torch.library.Library("aten", "IMPL", "Meta")
_LIBRARY.impl("cudnn_convolution", _cudnn_on_meta)


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """Meta tensors take the ways of CUDA tensors; nothing waits for a stream."""
    with (
        mock.patch.object(torch.Tensor, "is_cuda", property(lambda tensor: tensor.is_meta), create=True),
        mock.patch.object(torch.backends.cudnn, "is_acceptable", lambda tensor: True),
        mock.patch.object(ebp_cuda.engine.plan, "synchronized", lambda tensor: tensor),
        mock.patch.object(ebp_cuda.linear.part, "synchronized", lambda tensor: tensor),
    ):
        yield


class Tracer(TorchDispatchMode):
    """Keeps note of every op that launches something."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[Launch] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        name, outputs = func.overloadpacket.__name__, made if isinstance(made, (tuple, list)) else (made,)
        if name not in VIEWS:
            self.launches += launches_of(name, args, [t for t in outputs if isinstance(t, torch.Tensor)])
        return made


def launches_of(name: str, args: Sequence[Any], outputs: Sequence[torch.Tensor]) -> Iterator[Launch]:
    """What one call of an op launches."""
    moved = sum(size_of(t) for t in (*tensors(args), *outputs))
    if name in CONTRACTIONS:
        yield from CONTRACTIONS[name](args, outputs, moved)
    elif name in PRODUCTS:
        flops = PRODUCTS[name](args, outputs)
        yield Launch("library", "forward by a library", shape_text(args), moved, 0, flops, outputs[0].shape[1])
    elif name in POINTWISE:
        kernel = POINTWISE[name](args)
        yield Launch(kernel, name, shape_text(args), moved, elements=outputs[0].numel())
    else:
        yield Launch("torch", f"torch {name.strip('_')}", shape_text(args), moved)


def tensors(values: Any) -> Iterator[torch.Tensor]:
    """The tensors in arguments of an op."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors(value)


def size_of(t: torch.Tensor) -> float:
    """Bytes of a tensor's elements; those that an expanded one repeats count once."""
    own = math.prod(n for n, stride in zip(t.shape, t.stride(), strict=True) if stride != 0 or n == 1)
    return float(own * t.element_size())


def shape_text(args: Any) -> str:
    shapes = ["x".join(map(str, t.shape)) for t in tensors(args)]
    return " ".join(shapes[:2])


def normalizer(args: Sequence[Any], outputs: Sequence[torch.Tensor], moved: float) -> Iterator[Launch]:
    x, weight, *geometry = args[:6]
    precision = args[6] if len(args) > 6 else "fp32"
    kernel = contraction_kernel(x, weight, *geometry, precision=precision)
    yield from tiled("normalizer", kernel, args[:2], geometry[3], outputs[0], moved, precision, "up")


def sweep(args: Sequence[Any], outputs: Sequence[torch.Tensor], moved: float) -> Iterator[Launch]:
    r, weight, in_size, *geometry = args[:7]
    precision = args[8] if len(args) > 8 else "fp32"
    kernel = contraction_kernel(r, weight, *geometry, in_size=in_size, precision=precision)
    yield from tiled("sweep", kernel, args[:2], geometry[3], outputs[0], moved, precision, "down")


def excitation(args: Sequence[Any], outputs: Sequence[torch.Tensor], moved: float) -> Iterator[Launch]:
    x, weight, geometry = args[0], args[1], (*args[4:7], args[7])
    kernel = contraction_kernel(x, weight, *geometry, two_sums=True)
    yield from tiled("forward and normalizer", kernel, args[:2], geometry[3], outputs[0], moved, "fp32", "pair")


def forward(args: Sequence[Any], outputs: Sequence[torch.Tensor], moved: float) -> Iterator[Launch]:
    kernel = contraction_kernel(args[0], args[1], *args[3:7], precision=SPLIT)
    yield from tiled("forward", kernel, args[:2], args[6], outputs[0], moved, SPLIT, "up")


def tiled(
    label: str,
    kernel: Kernel,
    operands: Sequence[torch.Tensor],
    groups: int,
    target: torch.Tensor,
    moved: float,
    precision: str,
    way: str,
) -> Iterator[Launch]:
    """The launches of a convolution: what it rounds beforehand, the kernel, and what puts split sums together."""
    source, weight = operands
    label = f"{label} {weight.shape[2]}x{weight.shape[3]}"
    layer, launch = f"{shape_text(operands)}", kernel.launch
    pixels = (source if way == "down" else target)[0, 0].numel()
    flops = 2.0 * source.shape[0] * pixels * weight.numel()
    if precision not in ("fp32", SPLIT) and kernel.name != "mma":
        for t in (weight,) if way == "down" else operands:
            yield Launch("rounded", "rounded", layer, 2 * size_of(t), elements=t.numel())
    if launch is None:
        yield Launch(kernel.name, label, layer, moved, elements=target.numel(), flops=flops)
        return
    sums = 2 if way == "pair" else 1
    if kernel.name == "mma":
        name = f"mma {precision} {way}"
    else:
        name = TILED[kernel.name] if sums == 1 else "pair" if "small" in kernel.name else "pair single"
    l2 = launch.steps * (launch.tile[0] + sums * launch.tile[1]) * 16 * FLOAT
    partial = launch.splits * sums * size_of(target) if launch.splits > 1 else 0
    yield Launch(name, label, layer, moved + partial, 0, flops * sums, 0, launch.blocks, launch.steps, l2)
    if launch.splits > 1:
        yield Launch("split_end", f"{label}, sums of parts", layer, partial + size_of(target), target.numel())


def convolution_flops(args: Sequence[Any], outputs: Sequence[torch.Tensor]) -> float:
    return 2.0 * outputs[0].numel() * args[1][0].numel()


def product_flops(args: Sequence[Any], outputs: Sequence[torch.Tensor]) -> float:
    return 2.0 * outputs[0].numel() * args[-2].shape[-1]


def window(args: Sequence[Any]) -> str:
    """max_pool2d(x, kernel, stride, ...)."""
    return f"max_pool {args[1][0]}x{args[1][1]}"


def route(args: Sequence[Any]) -> str:
    """max_pool2d_route(p, winner, in_size, kernel, stride, ...)."""
    return f"max_route {args[3][0]}x{args[3][1]} stride {args[4][0]}"


Count = Callable[[Sequence[Any], Sequence[torch.Tensor]], float]
CONTRACTIONS: Mapping[str, Callable[[Sequence[Any], Sequence[torch.Tensor], float], Iterator[Launch]]] = {
    "conv2d_normalizer": normalizer,
    "conv2d_sweep": sweep,
    "conv2d_excitation": excitation,
    "conv2d_forward": forward,
}
PRODUCTS: Mapping[str, Count] = {
    "cudnn_convolution": convolution_flops,
    "addmm": product_flops,
    "mm": product_flops,
}
POINTWISE: Mapping[str, Callable[[Sequence[Any]], str]] = {
    "max_pool2d": window,
    "max_pool2d_route": route,
    **{name: lambda args, name=name: name for name in ("gate", "share", "lrn", "rounded", "max_winner")},  # type: ignore[misc]
    **dict.fromkeys(("window_sum", "window_spread", "avg_pool2d"), lambda args: "window"),
}


def trace(
    net: Net, layer: str, contrast: str | None, size: tuple[int, int], images: int, classes: int, dtype: str
) -> list[Launch]:
    """The launches of one recorded call for images [images, channels, *size], in order."""
    tracer = Tracer()
    watch(tracer, net, layer, contrast, size, images, classes, dtype)
    return tracer.launches


def watch(
    mode: TorchDispatchMode,
    net: Net,
    layer: str,
    contrast: str | None,
    size: tuple[int, int],
    images: int,
    classes: int,
    dtype: str,
) -> None:
    """Shows every op of one recorded call to `mode`."""
    eb = ExcitationBackprop(net, layer, contrast, device="meta", dtype=dtype)
    channels = next(iter(net.graph.inputs.values()))[1]
    x = torch.empty(images, channels, *size, device="meta").contiguous(memory_format=torch.channels_last)
    asked = Question(targets.choice_of(torch.zeros(images, classes, dtype=torch.int64, device="meta"), images))
    with as_on_cuda(), torch.no_grad():
        inputs = {next(iter(net.graph.inputs)): eb.plan.place(x)}
        measure(eb.calls.walk, inputs, asked, "maps", [layer])  # packs the weights
        with mode:
            measure(eb.calls.walk, inputs, asked, "maps", [layer])


def merged(launches: Sequence[Launch]) -> list[Launch]:
    """The distinct launches with how often each comes, in the order in which they come first."""
    return [replace(launch, count=count) for launch, count in Counter(launches).items()]
