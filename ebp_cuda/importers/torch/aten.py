"""ATen calls of an exported torch module, one small converter each, into the vocabulary of graph.py.

A converter takes a `Call` and returns the value it made, or a tuple with None for the outputs of a call that have no
counterpart. What it cannot express it refuses, with the reason; the importer collects all refusals into one message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from ...engine.shared_weights import own_view
from ...graph import Node


class Refusal(Exception):
    """Why one call cannot be converted."""


@dataclass(frozen=True)
class Activation:
    """A value of the graph under construction. A dim that follows the batch is no int but an expression."""

    value: str
    shape: tuple[Any, ...]
    dtype: torch.dtype = torch.float32


Result: TypeAlias = "str | tuple[str | None, ...]"


@dataclass
class Call:
    """One ATen call: its arguments by schema name, the shapes that torch found, and the nodes made of it."""

    op: str
    """Name without namespace and overload: "conv2d"."""
    args: Mapping[str, Any]
    """Activation for what depends on the input, a tensor for what does not, plain Python for the rest."""
    outs: tuple[Activation | None, ...]
    """Shape and dtype of each output; the value names are empty."""
    new_value: Callable[[], str]
    of_planes: Callable[[tuple[Any, ...]], str | None] = lambda sizes: None
    """(sizes) -> the name of a value [N, C, *sizes], if there is one: what a size that varies can be read off."""
    one_image: bool = False
    """Whether the user's example was a batch of one."""
    nodes: list[Node] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    @property
    def out(self) -> Activation:
        found = self.outs[0]
        assert found is not None
        return found

    def activation(self, name: str) -> Activation:
        found = self.args[name]
        if not isinstance(found, Activation):
            raise Refusal(f"its '{name}' does not depend on the input")
        return found

    def param(self, name: str) -> torch.Tensor | None:
        found = self.args.get(name)
        if isinstance(found, Activation):
            raise Refusal(f"its '{name}' is computed from the input")
        return found

    def number(self, name: str) -> float:
        found = self.args[name]
        if isinstance(found, torch.Tensor) and found.numel() == 1:
            found = found.item()
        if not isinstance(found, (int, float)):
            raise Refusal(f"its '{name}' is not a number that is known beforehand")
        return float(found)

    def ints(self, name: str, count: int) -> tuple[int, ...]:
        """An int or int list of the schema, one entry per spatial axis."""
        found = self.args[name]
        found = [found] if not isinstance(found, (list, tuple)) else found
        if not all(isinstance(n, int) for n in found):
            raise Refusal(f"its '{name}' depends on the size of the batch")
        return tuple(found) * count if len(found) == 1 else tuple(found)

    def axis(self, name: str, rank: int) -> int:
        return int(self.args[name]) % rank

    def emit(self, op: str, *inputs: str, params: Mapping[str, Any] | None = None, **attrs: Any) -> str:
        """Adds a node with one output and returns that; parameters that are None are left out."""
        return self.emit_many(op, 1, *inputs, params=params, **attrs)[0]

    def emit_many(
        self, op: str, count: int, *inputs: str, params: Mapping[str, Any] | None = None, **attrs: Any
    ) -> tuple[str, ...]:
        """As `emit`, for a node with `count` outputs.

        Raises:
            Refusal: where an attribute varies with the size of the input, which no graph can say.
        """
        for name, value in attrs.items():
            if not _is_plain(value):
                raise Refusal(f"its {name} depends on the size of the input")
        held = {name: own_view(tensor.detach()) for name, tensor in (params or {}).items() if tensor is not None}
        values = tuple(self.new_value() for _ in range(count))
        source = self.op.replace("::", ".") if "::" in self.op else f"aten.{self.op}"
        self.nodes.append(Node("", op, inputs, values, attrs, held, source))
        return values

    def reshape(self, x: Activation, shape: Sequence[Any]) -> str:
        """`x` with the dims `shape`: by a flatten where that does it, by nothing where they are its own."""
        shape = tuple(shape)
        if shape == x.shape:
            return x.value
        kept = len(shape) - 1
        if kept >= 1 and shape[:kept] == x.shape[:kept] and len(x.shape) > kept:
            return self.emit("flatten", x.value, axis=kept)
        sizes = [0 if i < len(x.shape) and x.shape[i] == n else n for i, n in enumerate(shape)]
        free = [i for i, n in enumerate(sizes) if not isinstance(n, int)]
        if len(free) > 1 or (free and free[0] == 0):
            raise Refusal(f"reshapes {list(x.shape)} to {list(shape)}, which mixes the images of a batch")
        return self.emit("reshape", x.value, shape=tuple(n if isinstance(n, int) else -1 for n in sizes))


def _is_plain(value: Any) -> bool:
    """Whether an attribute is made of Python's own numbers and strings."""
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, torch.dtype))


Converter = Callable[[Call], Result]
CONVERTERS: dict[str, Converter] = {}


def converts(*ops: str) -> Callable[[Converter], Converter]:
    """Decorator that enters a converter for the ATen operations `ops` (all their overloads)."""

    def enter(converter: Converter) -> Converter:
        CONVERTERS.update(dict.fromkeys(ops, converter))
        return converter

    return enter


def spatial(x: Activation, rank: int | None = None) -> int:
    """Number of spatial axes of [N, C, ...]; `rank` is what the layer needs."""
    axes = len(x.shape) - 2
    if axes < 1 or (rank is not None and axes != rank):
        raise Refusal(f"its input has {len(x.shape)} dims, wanted a batch [N, C, ...]")
    return axes


def rank_in_name(op: str) -> int:
    """Number of spatial axes that an operation's name tells: 2 for "adaptive_avg_pool2d"."""
    return int(re.findall(r"(\d)d", op)[-1])


def own_layer(c: Call) -> Result:
    """A call of a user's operator: a node named like it (see rules.register_operation)."""
    inputs: list[str] = []
    params: dict[str, torch.Tensor] = {}
    attrs: dict[str, Any] = {}
    for name, given in c.args.items():
        parts = given if isinstance(given, (list, tuple)) else [given]
        if parts and all(isinstance(part, Activation) for part in parts):
            inputs.extend(part.value for part in parts)
        elif isinstance(given, torch.Tensor):
            params[name] = given
        elif given is not None:
            attrs[name] = given
    return c.emit_many(c.op, len(c.outs), *inputs, params=params, **attrs)


# Layers with weights


@converts("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(c: Call) -> Result:
    x, weight = c.activation("input"), c.param("weight")
    assert weight is not None
    rank = spatial(x, weight.dim() - 2)
    transposed = c.op.startswith("conv_transpose") or bool(c.args.get("transposed"))
    dilation = c.ints("dilation", rank)
    before = after = (0,) * rank
    if isinstance(c["padding"], str):
        if c["padding"] == "same":
            total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
            before, after = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
    else:
        before = after = c.ints("padding", rank)
    attrs: dict[str, Any] = {
        "stride": c.ints("stride", rank),
        "padding": before,
        "padding_end": after,
        "dilation": dilation,
        "groups": int(c["groups"]),
    }
    if transposed:
        attrs["output_padding"] = c.ints("output_padding", rank)
    params = {"weight": weight, "bias": c.param("bias")}
    return c.emit("conv_transpose" if transposed else "conv", x.value, params=params, **attrs)


@converts("linear")
def linear(c: Call) -> Result:
    params = {"weight": c.param("weight"), "bias": c.param("bias")}
    return c.emit("linear", c.activation("input").value, params=params)


@converts("addmm")
def addmm(c: Call) -> Result:
    bias, weight = c.param("self"), c.param("mat2")
    if bias is None or bias.dim() != 1 or weight is None or float(c["alpha"]) != 1:
        raise Refusal("its added matrix is no bias of one entry per output")
    return c.emit("linear", c.activation("mat1").value, params={"weight": weight.t(), "bias": bias * c["beta"]})


@converts("batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "native_batch_norm")
def batch_norm(c: Call) -> Result:
    if c.args.get("training"):
        raise Refusal("normalizes by the statistics of its input, not by stored ones")
    names = {"mean": "running_mean", "var": "running_var", "weight": "weight", "bias": "bias"}
    params = {ours: c.param(theirs) for ours, theirs in names.items()}
    value = c.emit("batch_norm", c.activation("input").value, params=params, eps=float(c["eps"]))
    return value if len(c.outs) == 1 else (value, *[None] * (len(c.outs) - 1))
