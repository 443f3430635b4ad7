"""The linear map of a layer, as the rules see it: no device, no layout, no kernel."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property

import torch

from ..errors import ShapeError, UnsupportedError
from ..graph import Node
from ..ops.adjoint import linear
from .backend import Backend
from .choice import Choice
from .devices import backend_of
from .part import Part
from .pending import Pending, Ratio
from .window import Window

KINDS = ("conv", "linear", "conv_transpose")
"""Operations of graph.py that are one linear map with a weight, and perhaps a bias."""


_PRINTS = os.environ.get("EBP_PRINT_KERNELS", "0") not in ("", "0")
_noting: ContextVar[bool] = ContextVar("noting", default=False)


class LinearMap:
    """L of a layer y = L x + b, or a signed part of it, on one device in one dtype.

    Throughout x is [N, I, ...], y and z are [N, O, ...], and r is [N*K, O, ...], image-major; for a fully connected
    layer the features are the last axis.
    """

    def __init__(self, part: Part, backend: Backend) -> None:
        self.part, self.backend = part, backend
        self.chosen: dict[str, tuple[torch.Size, Choice]] = {}
        """By "forward", "up" or "down": the shape of the operand met last and the kernel that ran; see `noting`."""
        self._positive: dict[int, LinearMap] = {}

    @classmethod
    def of(cls, node: Node, weight: torch.Tensor, backend: Backend | None = None, precision: str = "fp32") -> LinearMap:
        """The map of a layer with the given weight.

        Args:
            node: one of `KINDS`; its attributes are the geometry.
            weight: as in graph.py, on the device and in the dtype of the activations.
            backend: what computes; by default that of the weight's device.
            precision: to what the factors of the products on the way up for z and on the way down may be rounded.

        Raises:
            UnsupportedError: another number of spatial axes than 1, 2 or 3.
        """
        window = None if node.op == "linear" else Window(node, weight)
        precision = precision if _rounds(node, weight) else "fp32"
        part = Part(node.name, node.op, weight, window, precision=precision)
        return cls(part, backend or backend_of(weight.device))

    @property
    def weight(self) -> torch.Tensor:
        """The layer's weight, whichever part of it this map is."""
        return self.part.weight

    @property
    def precision(self) -> str:
        """To what activations and weights are rounded in `apply` and `transpose`: "fp32" (as they are), "tf32" or
        "bf16"."""
        return self.part.precision

    def positive(self, sign: int = 1) -> LinearMap:
        """L+ with the weight max(W, 0), for sign 1; (-L)+ with max(-W, 0), for sign -1."""
        if sign not in self._positive:
            part = self.part
            self._positive[sign] = self._like(part.weight, "+" if sign > 0 else "-", part.precision)
        return self._positive[sign]

    def with_weight(self, weight: torch.Tensor) -> LinearMap:
        """A map of the same geometry, unrounded, with another weight of the same shape."""
        return self._like(weight, "", "fp32")

    @cached_property
    def uniform(self) -> LinearMap:
        """The map whose weights are all 1, unrounded."""
        return self.with_weight(torch.ones_like(self.weight))

    def _like(self, weight: torch.Tensor, sign: str, precision: str) -> LinearMap:
        part = self.part
        return LinearMap(Part(part.name, part.kind, weight, part.window, sign, precision), self.backend)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """y = L x + b, unrounded. Raises ShapeError that names the layer where x has other channels or axes."""
        self._check(x)
        self._note("forward", x, x.shape)
        return self.backend.forward(self.part, x, bias)

    @property
    def why_no_normalizer(self) -> str:
        """Why `forward_with_normalizer` would cost as much as `forward` and `apply`; "" where it costs less."""
        return self.backend.gives_normalizer(self.part)

    def forward_with_normalizer(
        self, x: torch.Tensor, bias: torch.Tensor | None, *, relu: bool, as_gate: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """y = L x + b, through a ReLU where `relu`, and beside it z = L+ x, or the gate y / z (0 where z is 0) where
        `as_gate`. Only for convolutions of planes, and unrounded."""
        self._check(x)
        self._note("forward", x, x.shape)
        plus = self.positive().part
        return self.backend.forward_with_normalizer(self.part, plus, x, bias, relu=relu, as_gate=as_gate)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """z = L x, in the map's precision."""
        self._note("up", x, x.shape)
        return self.backend.apply(self.part, x)

    def transpose(self, r: torch.Tensor | Ratio, shape: torch.Size) -> Pending:
        """L^T r for a layer whose input has that shape, in the map's precision; computed when it is read.

        Where autograd follows r, as in the transposed sweep, it is computed at once, and `apply` is the way back up.
        """
        ratio = r if isinstance(r, Ratio) else Ratio(r)
        if ratio.is_followed:
            t = linear(ratio.product(), lambda r: self.transpose(r, shape).tensor(), self.apply)
            return Pending.made(self.backend, t, self.precision)
        term, waits = self.backend.term(self.part, ratio, shape)
        self._note("down", term.s, shape)
        pending = Pending(self.backend, [term])
        if not waits:
            pending.tensor()
        return pending

    def kernels(self) -> dict[str, Choice]:
        """The kernels noted last, by direction: of this map, and of its positive part."""
        maps = (self, *self._positive.values())
        return {direction: choice for each in maps for direction, (_, choice) in each.chosen.items()}

    def why(self, direction: str, operand: torch.Tensor, shape: torch.Size) -> Choice:
        """The kernel that runs, and why none of the faster ones.

        Args:
            direction: "forward", "up" (`apply`) or "down" (`transpose`).
            operand: x, or r where it is "down"; its values are not read.
            shape: of the layer's input.
        """
        return self.backend.choice(self.part, direction, operand, shape)

    def _note(self, direction: str, operand: torch.Tensor, shape: torch.Size) -> None:
        if not (_PRINTS or _noting.get()):
            return
        met = self.chosen.get(direction)
        if met is None or met[0] != operand.shape:
            choice = self.why(direction, operand, shape)
            self.chosen[direction] = operand.shape, choice
            if _PRINTS:
                sizes = "x".join(map(str, operand.shape))
                print(f"ebp_cuda: {self.part.name} {direction} {sizes}: {choice}", file=sys.stderr)

    def _check(self, x: torch.Tensor) -> None:
        part, weight = self.part, self.weight
        if part.window is None:
            if x.shape[-1] != weight.shape[1]:
                wanted = f"{weight.shape[1]} features on the last axis"
                raise ShapeError(f"layer '{part.name}': input has shape {list(x.shape)}, wanted {wanted}")
            return
        window = part.window
        if part.kind == "conv_transpose":
            if window.before != window.after:
                raise UnsupportedError(
                    f"layer '{part.name}': transposed convolution with padding {window.before} to {window.after}, "
                    "wanted the same on both sides"
                )
        elif x.dim() != window.rank + 2 or x.shape[1] != weight.shape[1] * window.groups:
            wanted = f"[N, {weight.shape[1] * window.groups}] and {window.rank} spatial axes"
            raise ShapeError(f"layer '{part.name}': input has shape {list(x.shape)}, wanted {wanted}")


def _rounds(node: Node, weight: torch.Tensor) -> bool:
    """Whether a layer's products may be rounded: tensor cores can take the channels on the way up and down."""
    if node.op != "conv":
        return False
    above, below = weight.shape[:2]
    return bool(below % 4 == 0 and above // node.attrs["groups"] % 4 == 0)


@contextmanager
def noting() -> Iterator[None]:
    """Within, maps note in `chosen` which kernels run, as they do where EBP_PRINT_KERNELS=1 prints it."""
    before = _noting.set(True)
    try:
        yield
    finally:
        _noting.reset(before)
