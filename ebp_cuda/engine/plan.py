"""What stays constant over many images: parameters on one device in one dtype, linear maps, the way down.

A plan belongs to one graph, rule set, device, dtype and precision. It holds no activation, so threads may share it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError, UnsupportedError
from ..graph import Graph, Node
from ..linear import KINDS as LINEAR
from ..linear import LinearMap, backend_of
from ..linear.weights import Stamp, stamp_of
from ..ops import require_device
from ..ops.host_sync import synchronized
from ..ops.operands import with_index
from ..rules import OPERATIONS, Forward, Operation, Rule, check_rule_set, registrations, rule_of
from ..vocabulary import operations
from .fusion import Fusion
from .signs import non_negative_values

DTYPES = {
    "fp32": (torch.float32, "fp32"),
    "tf32": (torch.float32, "tf32"),
    "bf16": (torch.float32, "bf16"),
    "fp64": (torch.float64, "fp32"),
}
"""name -> (dtype of tensors, precision of the factors of products in the sweep's convolutions)."""


def dtype_of(dtype: str | torch.dtype) -> tuple[torch.dtype, str]:
    """The torch dtype and the precision (see Plan) for a name of DTYPES, or for torch.float32 or torch.float64.

    Raises UnsupportedError for others.
    """
    exact = {torch.float32: "fp32", torch.float64: "fp64"}
    name = dtype if isinstance(dtype, str) else exact.get(dtype)
    if name not in DTYPES:
        raise UnsupportedError(f"dtype={dtype!r}: wanted one of {', '.join(DTYPES)}")
    return DTYPES[name]


def device_of(device: str | torch.device) -> torch.device:
    """The torch device, with its index. Raises InputError for a wrong name, UnsupportedError where there is none."""
    try:
        named = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device={device!r}: {error}") from None
    require_device(named)
    return with_index(named)  # a plan stays where it was made


@dataclass(frozen=True)
class Route:
    """The layers that a sweep visits, from the tops down to the wanted values."""

    nodes: tuple[int, ...]
    """Indices into Graph.nodes, last first."""
    keep: frozenset[str]
    """Values whose activations the rules on the way read."""


@dataclass(frozen=True)
class Stage:
    """One layer of a forward pass, with what the pass may forget once it has run."""

    index: int
    node: Node
    forward: Forward
    overwrites: bool
    """Whether the layer writes over its first input."""
    done: tuple[str, ...]
    """Values that nobody reads any more."""
    saves: bool
    """Whether a sweep will read what the forward saves (winner codes)."""


class Plan:
    """Parameters and linear maps of one graph for one rule set, device and dtype.

    precision: "fp32", or "tf32" or "bf16" for a float32 plan whose sweep may round the factors of the products in
    convolutions to that, which tensor cores multiply faster (docs/precision.md). The forward pass stays float32.
    """

    def __init__(
        self, graph: Graph, rules: str, device: torch.device, dtype: torch.dtype, precision: str = "fp32"
    ) -> None:
        self.graph, self.rules, self.device, self.dtype = graph, check_rule_set(rules), device, dtype
        self.precision = precision
        self.backend = backend_of(device)
        """What computes linear maps there; tests set another one."""
        self._placed: dict[tuple[int, str], tuple[Stamp, torch.Tensor]] = {}
        self._linear: dict[int, LinearMap] = {}
        self._routes: dict[tuple[tuple[str, ...], tuple[str, ...]], Route] = {}
        self._stages: dict[tuple[frozenset[str], frozenset[int], frozenset[int] | None], tuple[Stage, ...]] = {}
        self._known = registrations()
        self._classifiers: dict[str, frozenset[int]] = {}
        self.non_negative = non_negative_values(graph)

    def params(self, index: int) -> dict[str, torch.Tensor]:
        """The parameters of node `index` on this device in this dtype; copied again when they were written to."""
        return {name: self._param(index, name) for name in self.graph.nodes[index].params}

    def _param(self, index: int, name: str) -> torch.Tensor:
        source = self.graph.nodes[index].params[name]
        held = self._placed.get((index, name))
        if held is None or held[0] != stamp_of(source):
            held = self._placed[index, name] = (stamp_of(source), synchronized(self.place(source)))
        return held[1]

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` on this device in this dtype, laid out as its ops want it; no copy where that changes nothing."""
        placed = tensor.detach().to(self.device, self.dtype)
        return placed.contiguous(memory_format=torch.channels_last) if placed.dim() == 4 else placed.contiguous()

    def linear(self, index: int) -> LinearMap | None:
        """The linear map of node `index`, where its operation is one; made again when its weight was written to."""
        node = self.graph.nodes[index]
        if node.op not in LINEAR:
            return None
        weight, held = self._param(index, "weight"), self._linear.get(index)
        if held is None or held.weight is not weight or held.backend is not self.backend:
            held = self._linear[index] = LinearMap.of(node, weight, self.backend, self.precision)
        return held

    def rule(self, node: Node) -> Rule | None:
        """The rule by which this plan's rule set carries relevance through `node`, if there is one."""
        return rule_of(node, self.rules)

    def watch(self, nodes: Iterable[int]) -> Callable[[], tuple[object, ...]]:
        """A function whose result is another one once weights of `nodes` were written to, or their rules replaced."""
        layers = [self.graph.nodes[index] for index in nodes]
        params = [node.params for node in layers if node.params]
        kinds = sorted({node.op for node in layers})

        def state() -> tuple[object, ...]:
            stamps = [stamp_of(tensor) for group in params for tensor in group.values()]
            entries = [OPERATIONS[op] for op in kinds]
            return (*stamps, *[(entry.forward, entry.rules.get(self.rules)) for entry in entries])

        return state

    def _refresh(self) -> None:
        """Routes and stages hold until another rule or forward is registered, which may read other values."""
        if self._known != registrations():
            self._routes, self._stages, self._known = {}, {}, registrations()

    def route(self, tops: Sequence[str], wanted: Iterable[str]) -> Route:
        """The way from `tops` down to the `wanted` values. Raises InputError where no way leads there, and
        UnsupportedError that lists every layer on the way without a rule."""
        key = tuple(tops), tuple(wanted)
        self._refresh()
        routes = self._routes
        if key not in routes:
            routes[key] = self._find_route(*key)
        return routes[key]

    def _find_route(self, tops: tuple[str, ...], wanted: tuple[str, ...]) -> Route:
        above, below = self.graph.ancestors(tops), self.graph.descendants(wanted)
        for value in wanted:
            if value not in tops and not above & self.graph.descendants([value]):
                raise InputError(f"{self.graph.origin}: '{value}' does not lie below {', '.join(map(repr, tops))}")
        visited = sorted(above & below, reverse=True)
        missing = [self.graph.nodes[i] for i in visited if self.rule(self.graph.nodes[i]) is None]
        if missing:
            names = ", ".join(f"'{node.name}' ({node.source or node.op})" for node in missing)
            other = "; rules='conserving' may have one" if self.rules == "caffe" else ""
            raise UnsupportedError(f"{self.graph.origin}: no '{self.rules}' rule for {names}{other}")
        keep: set[str] = set()
        for index in visited:
            node, rule = self.graph.nodes[index], self.rule(self.graph.nodes[index])
            assert rule is not None
            keep.update(node.inputs if "x" in rule.needs else ())
            keep.update(node.outputs if "y" in rule.needs else ())
        return Route(tuple(visited), frozenset(keep))

    def classifiers(self, top: str) -> frozenset[int]:
        """The first layers with weights under `top`: those that the contrast negates."""
        if top not in self._classifiers:
            self._classifiers[top] = self._find_classifiers(top)
        return self._classifiers[top]

    def _find_classifiers(self, top: str) -> frozenset[int]:
        visited: set[int] = set()
        queue = [top]
        while queue:
            index = self.graph.producer.get(queue.pop())
            if index is None:
                continue
            node = self.graph.nodes[index]
            if operation_of(self.graph, node).is_contraction:
                visited.add(index)
            else:
                queue.extend(node.inputs)
        return frozenset(visited)

    def stages(
        self, keep: Iterable[str], visited: Iterable[int], divided: Iterable[int] | None = None
    ) -> tuple[Stage, ...]:
        """The layers of a forward pass that computes `keep`, and saves for a sweep over the nodes `visited`.

        divided: the nodes whose normalizers may be computed beside their outputs, whether a ReLU follows or not; where
        not given, those of `visited` that a ReLU follows.
        """
        key = frozenset(keep), frozenset(visited), None if divided is None else frozenset(divided)
        self._refresh()
        stages = self._stages
        if key not in stages:
            stages[key] = tuple(self._find_stages(*key))
        return stages[key]

    def _find_stages(
        self, keep: frozenset[str], visited: frozenset[int], divided: frozenset[int] | None
    ) -> Iterator[Stage]:
        needed = sorted(self.graph.ancestors(keep))
        readers = Counter(value for index in needed for value in self.graph.nodes[index].inputs)
        left = Counter(readers)
        float32 = (self.dtype, self.precision) == (torch.float32, "fp32")  # a rounded normalizer is a sum of its own
        fusion = Fusion(self.graph, self.non_negative, self.rule, self.linear)
        together = fusion.forwards(needed, keep, visited, divided) if float32 else {}
        for index in needed:
            node = self.graph.nodes[index]
            entry = operation_of(self.graph, node)
            forward = together.get(index, entry.forward)
            left.subtract(node.inputs)
            alone = bool(node.inputs) and readers[node.inputs[0]] == 1 and node.inputs[0] not in keep
            done = tuple(value for value in set(node.inputs) if left[value] == 0 and value not in keep)
            overwrites = entry.overwrites and alone and self._made_afresh(node.inputs[0])
            yield Stage(index, node, forward, overwrites, done, index in visited)

    def _made_afresh(self, value: str) -> bool:
        """Whether the memory of a value is its producer's own (a view of it would be another reader of the value)."""
        producer = self.graph.producer.get(value)
        return producer is not None and self.graph.nodes[producer].op in _OWN_OUTPUT


_OWN_OUTPUT = operations("conv", "conv_transpose", "linear", "batch_norm", "sum")


def operation_of(graph: Graph, node: Node) -> Operation:
    """The table's entry for a node; raises UnsupportedError that names the layer and its type."""
    entry = OPERATIONS.get(node.op)
    if entry is None:
        raise UnsupportedError(f"{graph.origin}: layer '{node.name}' of type '{node.source or node.op}' has no forward")
    return entry
