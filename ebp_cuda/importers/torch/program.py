"""An exported torch program, call by call, into a graph."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.node import map_arg

from ...errors import ModelError, UnsupportedError
from ...graph import Graph
from ...rules import OPERATIONS
from . import functions, moves, norms, pointwise, pools, products, recurrent, resizing  # noqa: F401  (each enters its converters)
from .aten import CONVERTERS, Activation, Call, Refusal, own_layer
from .lrn import LocalResponse, bound_args, local_response, op_name
from .messages import FROM_VALUES, first_line, line_of_call
from .names import Converted, finish
from .refusals import Refusals


def read_program(program: ExportedProgram, origin: str, one_image: bool = False) -> Graph:
    """The graph of a program that holds no in-place operations.

    Args:
        program: what torch.export gave.
        origin: what messages call the module.
        one_image: whether the user's example was a batch of one; the program was then traced with two images.

    Raises:
        UnsupportedError: lists every ATen call without a counterpart, with the module it happened in.
        ModelError: where no output depends on the input.
    """
    return _Reader(program, origin, one_image).graph()


_FILLED = {"zeros": 0.0, "ones": 1.0, "full": None}
_LIKE = {
    f"{prefix}{kind}{suffix}": value
    for kind, value in _FILLED.items()
    for prefix, suffix in (("new_", ""), ("", "_like"))
}
"""What takes only shape and dtype of a tensor, and the number that it fills in; None where it is an argument."""
_BROADCAST = ("expand", *_FILLED)
"""What makes a constant that is the same for every image of a batch, whatever its size."""
_VIEWS = frozenset(
    (
        *("alias", "detach", "expand", "narrow", "permute", "select", "slice", "split", "split_with_sizes", "squeeze"),
        *("t", "transpose", "unbind", "unfold", "unsqueeze", "view"),
    )
)
_SIZES = (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)


class _Reader:
    """Walks an exported program once, call by call."""

    def __init__(self, program: ExportedProgram, origin: str, one_image: bool) -> None:
        self.program, self.origin, self.one_image = program, origin, one_image
        self.held: dict[fx.Node, Any] = {}
        """What each node of the program stands for: Activation, constant tensor, or a tuple of them."""
        self.inputs: dict[str, tuple[int | None, ...]] = {}
        self.converted: list[Converted] = []
        self.refusals = Refusals()
        self.count = 0
        self.patterns: dict[fx.Node, LocalResponse] = {}
        for node in program.graph.nodes:
            if node.op == "call_function" and (pattern := local_response(node)):
                self.patterns[node] = pattern

    def graph(self) -> Graph:
        signature = self.program.graph_signature
        nodes = list(self.program.graph.nodes)
        by_name = {node.name: node for node in nodes}
        returned = [spec.arg for spec in signature.output_specs if spec.kind == OutputKind.USER_OUTPUT]
        tops = [by_name[arg.name] for arg in returned if arg.name in by_name]
        live = self._live(tops)
        self._placeholders(nodes)
        for node in nodes:
            if node.op == "call_function" and node in live:
                self._call(node)
        if self.refusals:
            raise UnsupportedError(self.refusals.message(self.origin))
        outputs = []
        for node in tops:
            if isinstance(held := self.held.get(node), Activation):
                self._check_dtype(held)
                outputs.append(held.value)
        if not outputs:
            raise ModelError(f"{self.origin}: no output depends on the input")
        values = {node: held.value for node in nodes if isinstance(held := self.held.get(node), Activation)}
        return finish(self.converted, values, live, self.inputs, outputs, self.origin)

    def _check_dtype(self, output: Activation) -> None:
        if not output.dtype.is_floating_point:
            raise UnsupportedError(
                f"{self.origin}: an output is {output.dtype}, and activations here are floating point"
            )

    def _live(self, tops: Sequence[fx.Node]) -> set[fx.Node]:
        """Nodes that the outputs depend on; of a local response normalization only what it normalizes."""
        live: set[fx.Node] = set()
        queue = list(tops)
        while queue:
            node = queue.pop()
            if node not in live:
                live.add(node)
                queue.extend([self.patterns[node].x] if node in self.patterns else node.all_input_nodes)
        return live

    def _placeholders(self, nodes: Sequence[fx.Node]) -> None:
        program = self.program
        specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
        for node in nodes:
            if node.op != "placeholder":
                continue
            spec = specs[node.name]
            if spec.kind == InputKind.USER_INPUT:
                fake = node.meta["val"]
                self.held[node] = Activation(node.name, _dims(fake), fake.dtype)
                self.inputs[node.name] = tuple(n if isinstance(n, int) else None for n in _dims(fake))
            elif spec.target in program.constants:
                self.held[node] = program.constants[spec.target]
            elif spec.target in program.state_dict:
                self.held[node] = program.state_dict[spec.target].detach()

    def _call(self, node: fx.Node) -> None:
        if node.target is operator.getitem:
            source, index = node.args
            self.held[node] = self.held[source][index]  # type: ignore[index]
            if self.held[node] is None:
                self._refuse(node, "uses an output besides the first, which has no counterpart")
        elif node in self.patterns:
            self._lrn(node, self.patterns[node])
        elif isinstance(node.meta.get("val"), _SIZES):
            return  # sizes: read off the shapes where they are used
        elif any(_is_from_values(source) for source in node.all_input_nodes):
            line = line_of_call(node)
            self._refuse(node, f"{line}: {FROM_VALUES}" if line else FROM_VALUES)
        elif op_name(node) in _LIKE:
            self._filled(node)
        elif not any(isinstance(part, Activation) for part in self._tensors(node)):
            self._constant(node)
        else:
            self._convert(node)

    def _tensors(self, node: fx.Node) -> list[Any]:
        return [self.held.get(source) for source in node.all_input_nodes]

    def _constant(self, node: fx.Node) -> None:
        """Runs a call that no input reaches (weight normalization, a mask made on the fly)."""
        one_for_all = op_name(node) in _BROADCAST

        def known(source: fx.Node) -> Any:
            if one_for_all and isinstance(source.meta["val"], torch.SymInt):
                return 1  # the batch: one row that all images share
            return self.held.get(source, source.meta["val"])

        args, kwargs = map_arg((node.args, node.kwargs), known)
        try:
            with torch.no_grad():
                self.held[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception as error:
            self._refuse(node, f"makes a constant that depends on the size of the batch ({first_line(error)})")

    def _filled(self, node: fx.Node) -> None:
        fake, value = node.meta["val"], _LIKE[op_name(node)]
        shape = [n if isinstance(n, int) else 1 for n in fake.shape]
        number = bound_args(node)["fill_value"] if value is None else value
        self.held[node] = torch.full(shape, number, dtype=fake.dtype)

    def _convert(self, node: fx.Node) -> None:
        outs = _described_outputs(node)
        name = op_name(node)
        if name.removesuffix("_copy") in _VIEWS:  # made as a tensor of its own
            name = name.removesuffix("_copy")
        convert = own_layer if "::" in name and name in OPERATIONS else CONVERTERS.get(name)
        if convert is None:
            more = " (an operator of your own: register_operation and register_rule)" if "::" in name else ""
            return self._refuse(node, f"no counterpart{more}")
        args: Any = map_arg(bound_args(node), lambda source: self.held.get(source, _number_of(source.meta["val"])))
        call = Call(name, args, outs, self._new_value, self._of_planes, self.one_image)
        try:
            result = convert(call)
            made = result if isinstance(result, tuple) else (result,)
            if any(value and out and out.shape[:1] != self._batch(node) for value, out in zip(made, outs, strict=True)):
                raise Refusal("moves or mixes the batch axis")
            self._refuse_other_dtype(node, outs)
        except Refusal as refusal:
            return self._refuse(node, str(refusal))
        except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
            return self._refuse(node, f"its arguments are of a kind that is not known here ({first_line(error)})")
        self._hold(node, made, outs)
        self.converted.append(Converted(node, call.nodes))

    def _refuse_other_dtype(self, node: fx.Node, outs: Sequence[Activation | None]) -> None:
        """A graph computes in one dtype; what depends on another one would come out in this."""
        kinds = {part.dtype for part in self._tensors(node) if isinstance(part, Activation)}
        floats = [dtype for dtype in kinds if dtype.is_floating_point]
        for out in outs:
            if out and floats and out.dtype.is_floating_point and out.dtype not in floats:
                raise Refusal(f"changes {floats[0]} to {out.dtype}")

    def _batch(self, node: fx.Node) -> tuple[Any, ...]:
        return next(part.shape[:1] for part in self._tensors(node) if isinstance(part, Activation))

    def _of_planes(self, sizes: tuple[Any, ...]) -> str | None:
        """A value [N, C, *sizes], if there is one."""
        held = (part for part in self.held.values() if isinstance(part, Activation))
        return next((part.value for part in held if part.shape[2:] == sizes), None)

    def _lrn(self, node: fx.Node, pattern: LocalResponse) -> None:
        outs = _described_outputs(node)
        call = Call("local_response_norm", {}, outs, self._new_value)
        attrs = {name: getattr(pattern, name) for name in ("size", "alpha", "beta", "k", "region")}
        self._hold(node, (call.emit("lrn", self.held[pattern.x].value, **attrs),), outs)
        self.converted.append(Converted(node, call.nodes))

    def _hold(self, node: fx.Node, made: Sequence[str | None], outs: Sequence[Activation | None]) -> None:
        held = [Activation(v, o.shape, o.dtype) if v and o else None for v, o in zip(made, outs, strict=True)]
        self.held[node] = tuple(held) if isinstance(node.meta.get("val"), (tuple, list)) else held[0]

    def _refuse(self, node: fx.Node, reason: str) -> None:
        """Notes the refusal and goes on, with outputs of the shape that torch says, to meet the others too."""
        self.refusals.add(node, reason)
        outs = _described_outputs(node)
        self._hold(node, tuple(self._new_value() if out else None for out in outs), outs)

    def _new_value(self) -> str:
        self.count += 1
        return f"%{self.count}"


def _is_from_values(node: fx.Node) -> bool:
    """Whether a node is a number that torch knows only once the image is there."""
    number = node.meta.get("val")
    return isinstance(number, (torch.SymInt, torch.SymFloat, torch.SymBool)) and bool(free_unbacked_symbols(number))


def _dims(fake: torch.Tensor) -> tuple[Any, ...]:
    """Sizes as ints; what depends on the batch as an expression that compares by value."""
    return tuple(_number_of(n) for n in fake.shape)


def _number_of(n: Any) -> Any:
    return n.node.expr if isinstance(n, (torch.SymInt, torch.SymFloat, torch.SymBool)) else n


def _described_outputs(node: fx.Node) -> tuple[Activation | None, ...]:
    """Shape and dtype of what a call gives; None for what is no tensor."""
    fakes = node.meta.get("val")
    every = fakes if isinstance(fakes, (tuple, list)) else (fakes,)
    return tuple(Activation("", _dims(t), t.dtype) if isinstance(t, torch.Tensor) else None for t in every)
