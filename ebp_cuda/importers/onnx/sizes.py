"""What an ONNX graph computes from constants and shapes alone, so that its layers can be read as if written out.

Exporters write `x.view(x.size(0), -1)` as Shape, Gather, Unsqueeze, Concat and Reshape. Such values are computed twice,
for two batches and, where height and width are free, two sizes: what comes out alike is a constant; an element that
does not is the batch or another free size, which a layer copies or infers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from ...errors import EBPError, UnsupportedError
from ...graph import Node
from ...rules import OPERATIONS, Saved

BATCHES = (2, 3)
PLANES = (64, 96)
LIMIT = 1 << 26
"""Most elements that a computed constant may have."""

FOLDED = frozenset(
    (
        "Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Exp", "Expand",
        "Flatten", "Floor", "Gather", "Greater", "Identity", "Less", "Log", "Max", "Min", "Mod", "Mul",
        "Neg", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMin", "ReduceProd",
        "ReduceSum", "Reshape", "Round", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose",
        "Trilu", "Unsqueeze", "Where", "DequantizeLinear", "ScatterND",
    )
)  # fmt: skip
"""What may be computed at import."""


@dataclass(frozen=True)
class Probe:
    """One assumed size of the inputs, and what follows from it."""

    shapes: dict[str, tuple[int, ...]]
    values: dict[str, np.ndarray]


class Sizes:
    """Constants of the graph, and values that depend on the sizes of the inputs only."""

    def __init__(self, model: onnx.ModelProto, inputs: Mapping[str, tuple[int | None, ...]]) -> None:
        self.opsets = [item for item in model.opset_import if item.domain in ("", "ai.onnx")]
        self.probes = [
            Probe({name: _assumed(shape, batch, plane) for name, shape in inputs.items()}, {})
            for batch, plane in zip(BATCHES, PLANES, strict=True)
        ]
        self.pending: list[Node] = []
        self.broken: str | None = None

    def add(self, nodes: Sequence[Node]) -> None:
        """Layers of the graph whose shapes may be asked for."""
        self.pending.extend(nodes)

    def shapes(self, value: str) -> tuple[tuple[int, ...], ...] | None:
        """The shape of an activation under each assumption; None where it cannot be told."""
        while self.pending and value not in self.probes[0].shapes and self.broken is None:
            node = self.pending.pop(0)
            try:
                for probe in self.probes:
                    _run(node, probe)
            except (RuntimeError, EBPError, NotImplementedError) as error:
                self.broken = f"{node.name}: {str(error).splitlines()[0]}"
        found = [probe.shapes.get(value) for probe in self.probes]
        return None if any(shape is None for shape in found) else tuple(shape for shape in found if shape is not None)

    def fold(self, item: onnx.NodeProto, constants: dict[str, np.ndarray]) -> bool:
        """Whether the node's outputs are constants or sizes; they are kept then."""
        if item.domain not in ("", "ai.onnx"):
            return False
        if item.op_type in ("Shape", "Size") and item.input[0] not in constants:
            return self._shape_of(item, constants)
        known = [name in constants or name in self.probes[0].values for name in item.input if name]
        if item.op_type not in FOLDED or not all(known) or not (known or item.op_type == "Range"):
            return False
        if item.op_type == "Identity" and item.input[0] in constants:
            constants[item.output[0]] = constants[item.input[0]]
            return True
        results = []
        for probe in self.probes:
            feeds = {name: constants.get(name, probe.values.get(name)) for name in item.input if name}
            results.append(self._evaluated(item, {name: array for name, array in feeds.items() if array is not None}))
        self._keep(item, results, constants)
        return True

    def _shape_of(self, item: onnx.NodeProto, constants: dict[str, np.ndarray]) -> bool:
        shapes = self.shapes(item.input[0])
        if shapes is None:
            return False
        settings = {a.name: a.i for a in item.attribute}
        part = slice(settings.get("start"), settings.get("end"))
        counted = [np.asarray(prod(s) if item.op_type == "Size" else s[part], np.int64) for s in shapes]
        self._keep(item, [[array] for array in counted], constants)
        return True

    def _evaluated(self, item: onnx.NodeProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        count = _elements(item, feeds)
        if count > max(LIMIT, *(array.size for array in feeds.values())):
            raise UnsupportedError(f"node '{item.name}' ({item.op_type}): a constant of {count:.0f} elements")
        names = [name for name in item.output if name]
        graph = helper.make_graph(
            [item],
            "constant",
            [onnx.ValueInfoProto(name=name) for name in feeds],
            [onnx.ValueInfoProto(name=name) for name in names],
        )
        alone = helper.make_model(graph, opset_imports=self.opsets)  # a node by itself would be read as of today
        found = dict(zip(names, ReferenceEvaluator(alone).run(None, dict(feeds)), strict=True))
        return [np.asarray(found.get(name, ())) for name in item.output]

    def _keep(self, item: onnx.NodeProto, results: list[list[np.ndarray]], constants: dict[str, np.ndarray]) -> None:
        for name, arrays in zip(item.output, zip(*results, strict=True), strict=False):
            if not name:
                continue
            if all(np.array_equal(array, arrays[0]) and array.dtype == arrays[0].dtype for array in arrays):
                constants[name] = arrays[0]
            elif _is_one_row(item, arrays):
                constants[name] = arrays[0][:1]
            else:
                for probe, array in zip(self.probes, arrays, strict=True):
                    probe.values[name] = array

    def elements(self, name: str) -> list[tuple[int, ...]] | None:
        """A list of sizes, each as what it is under every assumption; None where the value is none."""
        arrays = [probe.values.get(name) for probe in self.probes]
        if any(array is None or array.ndim != 1 for array in arrays):
            return None
        return list(zip(*(array.tolist() for array in arrays if array is not None), strict=True))


def _assumed(shape: Sequence[int | None], batch: int, plane: int) -> tuple[int, ...]:
    return tuple(batch if axis == 0 else plane if n is None else n for axis, n in enumerate(shape))


def _is_one_row(item: onnx.NodeProto, arrays: Sequence[np.ndarray]) -> bool:
    """A constant repeated for every image of the batch."""
    if item.op_type not in ("Expand", "ConstantOfShape", "Tile"):
        return False
    return all(a.ndim and a.shape[1:] == arrays[0].shape[1:] and np.array_equal(a[:1], arrays[0][:1]) for a in arrays)


def _elements(item: onnx.NodeProto, feeds: Mapping[str, np.ndarray]) -> float:
    """About how many elements the node makes."""
    arrays = [feeds[name] for name in item.input if name in feeds]
    match item.op_type:
        case "Range":
            start, limit, delta = (float(array) for array in arrays)
            return (limit - start) / delta if delta else float("inf")
        case "ConstantOfShape" | "Expand":
            return float(np.prod(np.abs(arrays[-1].astype(np.float64))))
        case "Tile":
            return arrays[0].size * float(np.prod(np.abs(arrays[-1].astype(np.float64))))
        case "Concat":
            return float(sum(array.size for array in arrays))
        case "Gather":
            axis = next((a.i for a in item.attribute if a.name == "axis"), 0)
            rows = max(arrays[0].shape[axis] if arrays[0].ndim else 1, 1)
            return arrays[0].size / rows * arrays[1].size
    try:
        return float(prod(np.broadcast_shapes(*(array.shape for array in arrays))))
    except ValueError:
        return 0.0  # nothing that broadcasts


def _run(node: Node, probe: Probe) -> None:
    """The shapes that a layer's outputs have, from its forward on tensors without content."""
    xs = [torch.empty(probe.shapes[value], device="meta") for value in node.inputs]
    params = {name: torch.empty(param.shape, device="meta") for name, param in node.params.items()}
    for value, y in zip(node.outputs, OPERATIONS[node.op].forward(node, params, xs, Saved()), strict=False):
        probe.shapes[value] = tuple(y.shape)
