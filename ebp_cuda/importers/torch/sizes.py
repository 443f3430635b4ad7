"""What a traced program takes for granted about the sizes of its inputs.

torch.export follows one branch of every `if x.shape[2] > 5`, and notes the condition. A network for other sizes than
the example's is the module's only while these conditions hold: Net checks them at every call.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType

import sympy  # type: ignore[import-untyped]
import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._sympy.functions import FloorDiv, Mod, PythonMod
from torch.utils._sympy.printers import PythonPrinter


@dataclass(frozen=True)
class SizeCondition:
    """A condition on sizes, such as "s53 > 5"."""

    text: str
    """A Python expression of the symbols."""
    symbols: Mapping[str, tuple[str, int]]
    """Symbol -> (input, axis)."""

    def holds(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Whether inputs of these shapes, by name, meet the condition."""
        sizes = {symbol: shapes[name][axis] for symbol, (name, axis) in self.symbols.items()}
        return bool(eval(_compiled(self.text), {"__builtins__": {}, "max": max, "min": min}, sizes))

    def __str__(self) -> str:
        axes = ", ".join(f"{symbol} = {name}.shape[{axis}]" for symbol, (name, axis) in self.symbols.items())
        return f"{self.text} ({axes})"


@lru_cache(maxsize=1024)
def _compiled(text: str) -> CodeType:
    return compile(text, "<condition on sizes>", "eval")


def size_conditions(program: ExportedProgram, features: Container[int]) -> list[SizeCondition]:
    """The conditions that a program was traced under, apart from two kinds.

    That an axis is longer than 1 is torch's own for every free axis, whatever the module asks. That the flattened
    sizes are as many as a linear layer's features, that layer says itself.

    Args:
        program: what torch.export gave.
        features: how many features the linear layers take.
    """
    symbols = _symbols(program)
    conditions: dict[str, SizeCondition] = {}
    for expression in _guards(program):
        if isinstance(expression, sympy.Ne) and any(side in (0, 1) for side in expression.args):
            continue
        if isinstance(expression, sympy.Eq) and any(
            side.is_Integer and int(side) in features for side in expression.args
        ):
            continue
        names = sorted(str(symbol) for symbol in expression.free_symbols)
        if names and all(name in symbols for name in names):
            text = PythonPrinter().doprint(expression)
            conditions[text] = SizeCondition(text, {name: symbols[name] for name in names})
    return list(conditions.values())


def ties_sizes(program: ExportedProgram) -> str:
    """An equation of rounded sizes ("(s53//2) == 4"), which leaves them free in name only; "" where there is none."""
    equations = (guard for guard in _guards(program) if isinstance(guard, sympy.Eq) and guard.free_symbols)
    tied = next((equation for equation in equations if equation.has(FloorDiv, Mod, PythonMod)), None)
    return "" if tied is None else PythonPrinter().doprint(tied)


def _guards(program: ExportedProgram) -> list[sympy.Basic]:
    for node in _inputs(program).values():
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None and mode.shape_env is not None:
            return [guard.expr for guard in mode.shape_env.guards]
    return []


def _inputs(program: ExportedProgram) -> dict[str, fx.Node]:
    specs = program.graph_signature.input_specs
    names = {spec.arg.name for spec in specs if spec.kind == InputKind.USER_INPUT and hasattr(spec.arg, "name")}
    return {node.name: node for node in program.graph.nodes if node.op == "placeholder" and node.name in names}


def _symbols(program: ExportedProgram) -> dict[str, tuple[str, int]]:
    """Symbol -> the input and axis whose size it is."""
    places: dict[str, tuple[str, int]] = {}
    for name, node in _inputs(program).items():
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                places.setdefault(str(size.node.expr), (name, axis))
    return places
