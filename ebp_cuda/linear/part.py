"""One signed part of a layer's linear map, as data: what every backend computes with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..ops.host_sync import synchronized
from .weights import Form, LayoutCache
from .window import Window

_tensors = LayoutCache()


@dataclass(frozen=True, eq=False)
class Part:
    """L, L+ or (-L)+ of a layer: its geometry, its weight and the part of that which counts."""

    name: str
    """The layer's name."""
    kind: str
    """"conv", "linear" or "conv_transpose"."""
    weight: torch.Tensor
    """The layer's weight: [O, I/groups, *kernel], [O, I], or for a transposed convolution [I, O/groups, *kernel]."""
    window: Window | None
    """None for a fully connected layer."""
    sign: str = ""
    """See `weights.Form`."""
    precision: str = "fp32"
    """To what the factors of products are rounded on the way up for z and on the way down: "fp32" (as they are), "tf32"
    or "bf16"."""

    def form(self, flipped: bool = False) -> Form:
        """The form of the weight that this part multiplies by."""
        return Form(self.sign, flipped)

    def tensor(self, flipped: bool = False) -> torch.Tensor:
        """The weight in that form, made once; the weight itself where it is that."""
        form = self.form(flipped)
        if form == ("", False):
            return self.weight
        return _tensors.of(self.weight, lambda: _laid_out(form.of(self.weight)), form)

    @property
    def geometry(self) -> Window:
        """The window of a layer that has one."""
        assert self.window is not None, f"layer '{self.name}' ({self.kind}) has no window"
        return self.window


def _laid_out(part: torch.Tensor) -> torch.Tensor:
    """As the engine lays parameters out: the channels of a plane's pixel side by side."""
    last = torch.channels_last if part.dim() == 4 else torch.contiguous_format
    return synchronized(part.contiguous(memory_format=last))
