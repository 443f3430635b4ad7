"""Arguments of ops: checks that name op and argument, and tensors copied into a memory format that the op takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

import torch

from ..errors import ShapeError, UnsupportedError
from .driver import driver_refuses
from .formats import is_channel_slice, is_channels_last, memory_format
from .library import build_info
from .rounding import PRECISIONS

Tensor = torch.Tensor
Ints = Sequence[int]

_HAS_CUDA: bool = build_info()["cuda"]
_FLOATS = (torch.float32, torch.float64)
_MAX_ELEMENTS = 2**31 - 1


@cache  # asked at every call on CUDA; a refusal is not kept
def require_device(device: torch.device) -> None:
    """Raises UnsupportedError unless the ops run on this device."""
    if device.type == "cuda" and not _HAS_CUDA:
        raise UnsupportedError(
            "device='cuda': this build of ebp_cuda holds no CUDA kernels, because no nvcc was found when it was built. "
            "With the CUDA toolkit installed (CUDA_HOME or PATH), from the root of the repository: "
            "pip install --no-build-isolation --force-reinstall --no-deps ."
        )
    if device.type not in ("cpu", "cuda", "meta"):
        raise UnsupportedError(f"device='{device}': got a device of type {device.type}, wanted cpu or cuda")
    if device.type == "cuda" and (reason := driver_refuses()):
        raise UnsupportedError(f"device='{device}': {reason}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UnsupportedError(f"device='{device}': torch finds no CUDA device")
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UnsupportedError(f"device='{device}': torch finds {count} CUDA devices, from cuda:0 on")


def with_index(device: torch.device) -> torch.device:
    """The device, "cuda" with the index of the current one."""
    unnumbered = device.type == "cuda" and device.index is None
    return torch.device("cuda", torch.cuda.current_device()) if unnumbered else device


def kind(t: Tensor) -> str:
    return f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)} on {t.device}"


def indexable(op: str, name: str, elements: int) -> None:
    if elements > _MAX_ELEMENTS:
        raise ShapeError(f"{op}: {name} has {elements} elements, wanted at most 2**31 - 1")


def strided(op: str, name: str, t: Tensor) -> None:
    if not isinstance(t, Tensor):
        raise ShapeError(f"{op}: {name} is a {type(t).__name__}, wanted a torch.Tensor")
    if t.layout != torch.strided:
        raise ShapeError(f"{op}: {name} is {t.layout}, wanted torch.strided")


def checked(op: str, name: str, t: Tensor) -> Tensor:
    strided(op, name, t)
    if t.dtype not in _FLOATS:
        raise ShapeError(f"{op}: {name} is {t.dtype}, wanted torch.float32 or torch.float64")
    if t.device.type != "cpu":
        require_device(t.device)
    indexable(op, name, t.numel())
    return t


def dense(t: Tensor) -> Tensor:
    """t, or a copy in the format that its strides come closest to."""
    if t.is_contiguous() or is_channels_last(t):
        return t
    last = t.dim() == 4 and t.stride(1) == 1
    return t.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def in_layout_of(a: Tensor, b: Tensor) -> Tensor:
    """b, copied into the memory format of a where it has another one."""
    return b.contiguous(memory_format=memory_format(a))


def as_channels_last_as(a: Tensor, b: Tensor) -> Tensor:
    """a, copied into channels_last where b is that and a is not.

    Relevance that comes out of a flatten lies channel by channel. Here it goes back to how the activations, weights and
    winners of the layers below lie: kernels read four channels of a pixel at once, and results lie as their operands.
    """
    last = torch.channels_last
    turned = a.dim() == 4 and a.shape[1] > 1 and memory_format(b) == last != memory_format(a)
    return a.contiguous(memory_format=last) if turned else a


def check_columns(op: str, name: str, a: Tensor, other: str, b: Tensor) -> None:
    strided(op, other, b)
    if a.dim() == 0 or a.shape[1:] != b.shape[1:] or a.dim() != b.dim():
        raise ShapeError(f"{op}: {name} is {kind(a)}, {other} is {kind(b)}; only the first axis may differ")
    rows, images = a.shape[0], b.shape[0]
    if rows % images if images else rows:
        raise ShapeError(f"{op}: {name} has {rows} rows, wanted a multiple of the {images} rows of {other}")
    if a.device != b.device:
        raise ShapeError(f"{op}: {name} is on {a.device}, {other} on {b.device}; they must be on one device")


def columns(op: str, name: str, a: Tensor, other: str, b: Tensor) -> tuple[Tensor, Tensor]:
    checked(op, name, a)
    check_columns(op, name, a, other, b)
    if a.dtype != b.dtype:
        raise ShapeError(f"{op}: {name} is {a.dtype}, {other} is {b.dtype}; they must be of one dtype")
    if not is_channel_slice(a):
        a = as_channels_last_as(dense(a), b)
    return a, b if memory_format(a) == torch.channels_last and is_channel_slice(b) else in_layout_of(a, b)


def check_precision(op: str, name: str, t: Tensor, precision: str, known: Sequence[str] = PRECISIONS) -> None:
    if precision not in known:
        raise ShapeError(f"{op}: precision='{precision}', wanted one of {', '.join(known)}")
    if precision != "fp32" and t.dtype != torch.float32:
        raise ShapeError(f"{op}: precision='{precision}' is one of float32 tensors, {name} is {kind(t)}")


def plane(op: str, name: str, t: Tensor) -> Tensor:
    if checked(op, name, t).dim() != 4:
        raise ShapeError(f"{op}: {name} is {kind(t)}, wanted [N, C, H, W]")
    return dense(t)


def geometry(op: str, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, size: Ints) -> None:
    check_geometry(op, tuple(kernel), tuple(stride), tuple(padding), tuple(dilation), tuple(size))


@lru_cache(4096)  # a network asks the same few questions at every call
def check_geometry(op: str, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, size: Ints) -> None:
    named = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding, "size": size}
    for name, values in named.items():
        least = 0 if name in ("padding", "size") else 1
        if len(values) != 2 or min(values) < least:
            raise ShapeError(f"{op}: got {name}={list(values)}, wanted two numbers of at least {least}")


def weights(op: str, w_plus: Tensor, beside: Tensor, groups: int) -> Tensor:
    strided(op, "w_plus", w_plus)
    if w_plus.dim() != 4 or w_plus.dtype != beside.dtype or w_plus.device != beside.device:
        raise ShapeError(f"{op}: w_plus is {kind(w_plus)}, wanted [O, I/groups, kh, kw] beside {kind(beside)}")
    if groups < 1 or w_plus.shape[0] % groups:
        raise ShapeError(f"{op}: w_plus has {w_plus.shape[0]} rows, wanted a multiple of groups={groups}")
    return dense(w_plus) if w_plus.is_cuda else w_plus


def check_bias(op: str, bias: Tensor, w: Tensor, x: Tensor) -> None:
    strided(op, "bias", bias)
    if bias.shape != w.shape[:1] or bias.dtype != x.dtype or bias.device != x.device:
        raise ShapeError(f"{op}: bias is {kind(bias)}, wanted [{w.shape[0]}] beside {kind(x)}")


@lru_cache(4096)
def conv_size(op: str, size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> tuple[int, ...]:
    if len(padding) != 4:
        raise ShapeError(f"{op}: got padding={list(padding)}, wanted (top, left, bottom, right)")
    check_geometry(op, kernel, stride, padding[:2], dilation, size)
    check_geometry(op, kernel, stride, padding[2:], dilation, size)
    room = [size[i] + padding[i] + padding[2 + i] - dilation[i] * (kernel[i] - 1) - 1 for i in (0, 1)]
    if min(room) < 0:
        raise ShapeError(
            f"{op}: kernel {list(kernel)} with padding {list(padding)} does not fit planes of {list(size)}"
        )
    return tuple(room[i] // stride[i] + 1 for i in (0, 1))
