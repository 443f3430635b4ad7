"""Convolution on a CPU whose matrix unit multiplies tiles of bfloat16 (AMX), in the precision of float32.

A float32 is exactly the sum of three bfloat16. Of the nine products of such parts the unit makes the six that count,
and sums them in float32: what is left out is less than what a float32 product rounds off. That takes half the time of
float32 products and, for its sums are shorter, has about half their error (docs/performance.md, docs/precision.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from ..ops.formats import is_channel_slice
from ..ops.library import build_info
from .weights import Form, LayoutCache

Ints = Sequence[int]

CPU_ONLY = frozenset(("tile_convolution", "tile_excitation"))
"""Internal ops: they implement other ops on the CPU and are not public."""
_BLOCK, _ROWS, _PARTS = 32, 16, 3
"""Channels of a block of tiles, rows of a tile, parts of a float32: as in csrc/cpu/tiles.h."""
LEAST_PIXELS = 32
"""With fewer, reading the weights is what takes the time, and three parts are more to read."""
PLAIN = Form()
_tiles = LayoutCache()


@cache
def available() -> bool:
    """Whether this processor has such a unit, and the library was built for it."""
    return bool(build_info()["cpu_isa"] == "amx")


def filled(above: int, below: int) -> bool:
    """Whether at least half of the blocks of a weight for so many channels is no padding."""
    return 2 * above * below >= (-(-above // _ROWS) * _ROWS) * (-(-below // _BLOCK) * _BLOCK)


@dataclass(frozen=True)
class Source:
    """One product of a convolution, all float32."""

    x: torch.Tensor
    """[N*K, I, H, W]."""
    weight: torch.Tensor
    """[O, I, kh, kw] in the form below."""
    form: Form = PLAIN
    """Tiles are laid out from the weight in this form, which nothing else keeps."""
    gate: torch.Tensor | None = None
    """[N, I, H, W], multiplies x as it is read; or None."""


def convolve(
    sources: Sequence[Source], padding: Ints, *, bias: torch.Tensor | None = None, addend: torch.Tensor | None = None
) -> torch.Tensor:
    """bias + addend + the sum of W (x * gate) over the sources, channels_last [N*K, O, h, w].

    All sources have weights of one [O, *, kh, kw], planes of one size, and gates, or none has one. bias [O], addend
    [N*K, O, h, w]; padding (top, left, bottom, right).
    """
    first = sources[0]
    return torch.ops.ebp_cuda.tile_convolution.default(
        [_channels_last(source.x) for source in sources],
        [_tiles_of(source.weight, source.form) for source in sources],
        bias,
        *_geometry(first, padding),
        [_channels_last(source.gate) for source in sources if source.gate is not None],
        None if addend is None else _channels_last(addend),
    )


def excite(
    x: torch.Tensor, weight: torch.Tensor, padding: Ints, *, bias: torch.Tensor | None, relu: bool, as_gate: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The result of `ops.conv2d_excitation` with max(weight, 0): x is split into parts once for both products."""
    geometry = _geometry(Source(x, weight), padding)
    return torch.ops.ebp_cuda.tile_excitation.default(
        _channels_last(x), _tiles_of(weight, PLAIN), _tiles_of(weight, Form("+")), bias, *geometry, relu, as_gate
    )


def _geometry(source: Source, padding: Ints) -> tuple[int, list[int], Ints, list[int]]:
    """Channels above, kernel, padding before, and the size of a plane above."""
    above, _, *kernel = source.form.shape(source.weight)
    size = [source.x.shape[2 + i] + padding[i] + padding[2 + i] - kernel[i] + 1 for i in (0, 1)]
    return above, kernel, padding[:2], size


def _tiles_of(weight: torch.Tensor, form: Form) -> torch.Tensor:
    return _tiles.of(weight, lambda: lay_out(form.of(weight)), form)


def _channels_last(t: torch.Tensor) -> torch.Tensor:
    return t if is_channel_slice(t) else t.contiguous(memory_format=torch.channels_last)


def lay_out(weight: torch.Tensor) -> torch.Tensor:
    """weight [O, I, kh, kw] as tiles: bfloat16 [O/32, I/32, kh*kw, part, half, pair, row, 2], with zeros where there
    are no channels. A tile holds 16 outputs (half, row) of 32 inputs (pair, 2), as the unit reads them."""
    above, below = (-(-n // _BLOCK) for n in weight.shape[:2])
    whole = weight.new_zeros(above * _BLOCK, below * _BLOCK, *weight.shape[2:])
    whole[: weight.shape[0], : weight.shape[1]] = weight
    made = []
    for _ in range(_PARTS):
        made.append(whole.to(torch.bfloat16))
        whole = whole - made[-1].to(whole.dtype)
    blocks = torch.stack(made).view(_PARTS, above, 2, _ROWS, below, _ROWS, 2, -1)
    return blocks.permute(1, 4, 7, 0, 2, 5, 3, 6).contiguous()
