"""What an ONNX graph computes from constants and shapes alone, so that its layers can be read as if written out.

Exporters write `x.view(x.size(0), -1)` as Shape, Gather, Unsqueeze, Concat and Reshape. Such values are computed twice,
for two batches and, where other sizes are free, two of each: what comes out alike is a constant; an element that does
not is the batch or another free size, which a layer copies or infers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx
import torch

from ...errors import EBPError
from ...graph import Node
from ...rules import OPERATIONS, Saved
from .constants import Constants
from .folding import can_fold, evaluate

BATCHES = (2, 3)
FREE_SIZES = ((64, 96), (128, 160), (192, 224), (256, 288), (320, 352), (384, 416))
"""Two lengths each for the free axes of the inputs. They differ, so that height and width are never taken for one
another, and are multiples of 32, so that what is halved five times meets again in a sum."""

Shapes = tuple[tuple[int, ...], ...]
"""A shape under each assumption."""


@dataclass(frozen=True)
class Probe:
    """One assumed size of the inputs, and what follows from it."""

    shapes: dict[str, tuple[int, ...]]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    """What depends on the sizes of the inputs, and on nothing else of them."""


class Sizes:
    """Constants of the graph, and values that depend on the sizes of the inputs only.

    Args:
        model: whose opsets are used.
        inputs: declared dims of the inputs by name: numbers, or names of free ones (None: a free one without a name).
            None in place of the dims where the file does not say how many there are.
        constants: filled with what turns out to be constant.
        any_batch: whether the first dim of every input is free, whatever is declared.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        inputs: Mapping[str, Sequence[int | str | None] | None],
        constants: Constants,
        any_batch: bool,
    ) -> None:
        self.opsets = [item for item in model.opset_import if item.domain in ("", "ai.onnx")]
        self.opset = max((item.version for item in self.opsets), default=1)
        self.constants = constants
        self.reasons: dict[str, str] = {}
        """Why the shape of a value cannot be told."""
        self.probes = _probes(inputs, any_batch)
        self._pending: deque[Node] = deque()

    def add(self, nodes: Sequence[Node]) -> None:
        """Layers of the graph whose shapes may be asked for."""
        self._pending.extend(nodes)

    def shapes(self, value: str) -> Shapes | None:
        """The shape of an activation under each assumption; None where it cannot be told."""
        while self._pending and value not in self.probes[0].shapes and value not in self.reasons:
            self._run(self._pending.popleft())
        if any(value not in probe.shapes for probe in self.probes):
            return None
        return tuple(probe.shapes[value] for probe in self.probes)

    def _run(self, node: Node) -> None:
        """The shapes that a layer's outputs have, from its forward on tensors without content."""
        unknown = next((value for value in node.inputs if value not in self.probes[0].shapes), None)
        if unknown is not None:
            reason = self.reasons.get(unknown, f"the file does not give the shape of '{unknown}'")
            self.reasons.update(dict.fromkeys(node.outputs, reason))
            return
        try:
            for probe in self.probes:
                xs = [torch.empty(probe.shapes[value], device="meta") for value in node.inputs]
                params = {name: torch.empty(param.shape, device="meta") for name, param in node.params.items()}
                ys = OPERATIONS[node.op].forward(node, params, xs, Saved())
                probe.shapes.update(
                    (value, tuple(y.shape)) for value, y in zip(node.outputs, ys, strict=False) if value
                )
        except (RuntimeError, EBPError, NotImplementedError, IndexError, ValueError) as error:
            self.reasons.update(dict.fromkeys(node.outputs, f"{node.name}: {str(error).splitlines()[0]}"))
            for probe in self.probes:
                for value in node.outputs:
                    probe.shapes.pop(value, None)

    def fold(self, item: onnx.NodeProto) -> bool:
        """Whether the node's outputs are constants or follow from the sizes of the inputs; they are kept then."""
        names = [name for name in item.input if name]
        if item.op_type in ("Shape", "Size") and item.domain in ("", "ai.onnx") and names[0] not in self.constants:
            return self._keep_shape(item)
        known = all(name in self.constants or name in self.probes[0].values for name in names)
        if not known or not can_fold(item, self.opset):
            return False
        if item.op_type == "Identity" and names[0] in self.constants:
            self.constants[item.output[0]] = self.constants[names[0]]
            return True
        constant = all(name in self.constants for name in names)
        results = []
        for probe in self.probes[:1] if constant else self.probes:
            feeds = {name: self.constants[name] if name in self.constants else probe.values[name] for name in names}
            results.append(evaluate(item, feeds, self.opsets, self.constants.account))
        self._keep(item, results)
        return True

    def _keep_shape(self, item: onnx.NodeProto) -> bool:
        shapes = self.shapes(item.input[0])
        if shapes is None:
            return False
        settings = {attribute.name: attribute.i for attribute in item.attribute}
        part = slice(settings.get("start"), settings.get("end"))
        counted = [np.asarray(prod(s) if item.op_type == "Size" else s[part], np.int64) for s in shapes]
        self._keep(item, [[array] for array in counted])
        return True

    def _keep(self, item: onnx.NodeProto, results: list[list[np.ndarray]]) -> None:
        for name, arrays in zip(item.output, zip(*results, strict=True), strict=False):
            if not name:
                continue
            if all(np.array_equal(array, arrays[0]) and array.dtype == arrays[0].dtype for array in arrays):
                self.constants[name] = arrays[0]
            elif _is_one_row(item, arrays):
                self.constants[name] = arrays[0][:1]
            else:
                for probe, array in zip(self.probes, arrays, strict=True):
                    probe.values[name] = array

    def elements(self, name: str) -> list[tuple[int, ...]] | None:
        """A list of sizes, each as what it is under every assumption; None where the value is none."""
        arrays = [probe.values.get(name) for probe in self.probes]
        if any(array is None or array.ndim != 1 for array in arrays):
            return None
        return list(zip(*(array.tolist() for array in arrays if array is not None), strict=True))


def _probes(inputs: Mapping[str, Sequence[int | str | None] | None], any_batch: bool) -> list[Probe]:
    """Two assumptions of the free dims; one where none is free. Dims of one name have one length."""
    lengths: dict[str, tuple[int, int]] = {}
    pairs: dict[str, list[tuple[int, int]]] = {}
    for name, dims in inputs.items():
        if dims is None:
            continue
        pairs[name] = []
        for axis, dim in enumerate(dims):
            if axis == 0 and (any_batch or not isinstance(dim, int)):
                pairs[name].append(BATCHES)
            elif isinstance(dim, int):
                pairs[name].append((dim, dim))
            else:
                key = dim or f"{name}[{axis}]" if isinstance(dim, str) else f"{name}[{axis}]"
                lengths.setdefault(key, FREE_SIZES[len(lengths) % len(FREE_SIZES)])
                pairs[name].append(lengths[key])
    count = 2 if any(a != b for sizes in pairs.values() for a, b in sizes) else 1
    return [Probe({name: tuple(pair[i] for pair in sizes) for name, sizes in pairs.items()}) for i in range(count)]


def _is_one_row(item: onnx.NodeProto, arrays: Sequence[np.ndarray]) -> bool:
    """Whether this is a constant repeated for every image of the batch."""
    if item.op_type not in ("Expand", "ConstantOfShape", "Tile"):
        return False
    return all(a.ndim and a.shape[1:] == arrays[0].shape[1:] and np.array_equal(a[:1], arrays[0][:1]) for a in arrays)
