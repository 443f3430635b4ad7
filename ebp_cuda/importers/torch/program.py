"""An exported torch program, call by call, into a graph."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.node import map_arg

from ...errors import ModelError, UnsupportedError
from ...graph import Graph
from ...rules import OPERATIONS
from . import moves, norms, pointwise, pools  # noqa: F401  (each enters its converters)
from .aten import CONVERTERS, OF_TWO, Activation, Call, Refusal, own_layer
from .lrn import LocalResponse, bound_args, local_response, op_name
from .names import Converted, finish


def read_program(program: ExportedProgram, origin: str) -> Graph:
    """The graph of a program that holds no in-place operations.

    Raises UnsupportedError that lists every ATen call without a counterpart, with the module it happened in.
    """
    return _Reader(program, origin).graph()


def first_line(error: BaseException) -> str:
    """Kind and first line of an error of torch's, whose messages run over many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


_FILLED = {"zeros": 0.0, "ones": 1.0, "full": None}
_LIKE = {
    f"{prefix}{kind}{suffix}": value
    for kind, value in _FILLED.items()
    for prefix, suffix in (("new_", ""), ("", "_like"))
}
"""What takes only shape and dtype of a tensor, and the number that it fills in; None where it is an argument."""
_BROADCAST = ("expand", *_FILLED)
"""What makes a constant that is the same for every image of a batch, whatever its size."""


class _Reader:
    """Walks an exported program once, call by call."""

    def __init__(self, program: ExportedProgram, origin: str) -> None:
        self.program, self.origin = program, origin
        self.held: dict[fx.Node, Any] = {}
        """What each node of the program stands for: Activation, constant tensor, or a tuple of them."""
        self.inputs: dict[str, tuple[int | None, ...]] = {}
        self.converted: list[Converted] = []
        self.refusals: list[tuple[str, str, str]] = []
        """(operator, module path, reason) of every call without a counterpart."""
        self.count = 0
        self.patterns: dict[fx.Node, LocalResponse] = {}
        for node in program.graph.nodes:
            if node.op == "call_function" and (found := local_response(node)):
                self.patterns[node] = found

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
            raise UnsupportedError(self._refused())
        outputs = [held.value for node in tops if isinstance(held := self.held[node], Activation)]
        if not outputs:
            raise ModelError(f"{self.origin}: no output depends on the input")
        values = {node: held.value for node in nodes if isinstance(held := self.held.get(node), Activation)}
        return finish(self.converted, values, live, self.inputs, outputs, self.origin)

    def _live(self, tops: Sequence[fx.Node]) -> set[fx.Node]:
        """Nodes that the outputs depend on; of a normalisation only what it normalises."""
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
        elif isinstance(node.meta.get("val"), (int, float, bool, torch.SymInt, torch.SymFloat, torch.SymBool)):
            return  # sizes: read off the shapes where they are used
        elif op_name(node) in _LIKE:
            self._filled(node)
        elif not any(isinstance(part, Activation) for part in self._tensors(node)):
            self._constant(node)
        else:
            self._convert(node)

    def _tensors(self, node: fx.Node) -> list[Any]:
        return [self.held.get(source) for source in node.all_input_nodes]

    def _constant(self, node: fx.Node) -> None:
        """Runs a call that no input reaches (weight normalisation, a mask made on the fly)."""
        given = (node.args, node.kwargs)
        one_for_all = op_name(node) in _BROADCAST

        def known(source: fx.Node) -> Any:
            if one_for_all and isinstance(source.meta["val"], torch.SymInt):
                return 1  # the batch: one row that all images share
            return self.held.get(source, source.meta["val"])

        args, kwargs = map_arg(given, known)
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
        convert = own_layer if "::" in name and name in OPERATIONS else CONVERTERS.get(name)
        if convert is None:
            more = " (an operator of your own: register_operation and register_rule)" if "::" in name else ""
            return self._refuse(node, f"no counterpart{more}")
        args: Any = map_arg(bound_args(node), lambda source: self.held.get(source, _number_of(source.meta["val"])))
        call = Call(name, args, outs, self._new_value)
        try:
            result = convert(call)
            made = result if isinstance(result, tuple) else (result,)
            if any(value and out and out.shape[:1] != self._batch(node) for value, out in zip(made, outs, strict=True)):
                raise Refusal("moves or mixes the batch axis")
        except Refusal as refusal:
            return self._refuse(node, str(refusal))
        self._hold(node, made, outs)
        self.converted.append(Converted(node, call.nodes))

    def _batch(self, node: fx.Node) -> tuple[Any, ...]:
        return next(part.shape[:1] for part in self._tensors(node) if isinstance(part, Activation))

    def _lrn(self, node: fx.Node, found: LocalResponse) -> None:
        outs = _described_outputs(node)
        call = Call("local_response_norm", {}, outs, self._new_value)
        attrs = {name: getattr(found, name) for name in ("size", "alpha", "beta", "k", "region")}
        self._hold(node, (call.emit("lrn", self.held[found.x].value, **attrs),), outs)
        self.converted.append(Converted(node, call.nodes))

    def _hold(self, node: fx.Node, made: Sequence[str | None], outs: Sequence[Activation | None]) -> None:
        held = [Activation(v, o.shape, o.dtype) if v and o else None for v, o in zip(made, outs, strict=True)]
        self.held[node] = tuple(held) if isinstance(node.meta.get("val"), (tuple, list)) else held[0]

    def _refuse(self, node: fx.Node, reason: str) -> None:
        """Notes the refusal and goes on, with outputs of the shape that torch found, to find the others too."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = stack[-1][0] if stack and stack[-1][0] else "the module itself"
        self.refusals.append((str(node.target), path, reason))
        outs = _described_outputs(node)
        self._hold(node, tuple(self._new_value() if out else None for out in outs), outs)

    def _refused(self) -> str:
        """Every reason once, with the modules that it was found in."""
        calls = "1 ATen call" if len(self.refusals) == 1 else f"{len(self.refusals)} ATen calls"
        found: dict[tuple[str, str], list[str]] = {}
        for target, path, reason in self.refusals:
            found.setdefault((target, reason), []).append(path)
        attends = any("attention" in target or reason is OF_TWO for target, reason in found)
        why = ": attention multiplies activations with one another, and no rule shares that" if attends else ""
        lines = [f"{self.origin}: no counterpart for {calls}{why}"]
        for (target, reason), paths in found.items():
            count = f" ({len(paths)} times)" if len(paths) > 1 else ""
            others = len(set(paths)) - 1
            more = f" and {others} more module{'s' if others > 1 else ''}" if others else ""
            lines.append(f"{target} in '{paths[0]}'{more}{count}: {reason}")
        return "\n  ".join(lines)

    def _new_value(self) -> str:
        self.count += 1
        return f"%{self.count}"


def _dims(fake: torch.Tensor) -> tuple[Any, ...]:
    """Sizes as ints; what depends on the batch as an expression that compares by value."""
    return tuple(_number_of(n) for n in fake.shape)


def _number_of(n: Any) -> Any:
    return n.node.expr if isinstance(n, torch.SymInt) else n


def _described_outputs(node: fx.Node) -> tuple[Activation | None, ...]:
    """Shape and dtype of what a call gives; None for what is no tensor."""
    fakes = node.meta.get("val")
    every = fakes if isinstance(fakes, (tuple, list)) else (fakes,)
    return tuple(Activation("", _dims(t), t.dtype) if isinstance(t, torch.Tensor) else None for t in every)
