"""Records the operators of one call of the engine as an fx graph, with no choice of a processor's kernels in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from .. import ops
from ..engine.passes import Layer, Phase
from ..engine.plan import Plan
from ..engine.run import Walk, measure
from ..graph import Node
from ..linear.cuda import Cuda
from ..linear.part import Part
from ..linear.window import Window
from ..questions.question import Question
from ..targets import Choice

_aten = torch.ops.aten
_READS_NUMBERS = (_aten._local_scalar_dense, _aten.is_nonzero)
_MADE_OF_SIMPLER_ONES = (
    *(_aten.silu, _aten.leaky_relu, _aten.hardswish, _aten.hardsigmoid, _aten.hardtanh, _aten.softplus),
    *(_aten.gelu, _aten.addmm, _aten.native_batch_norm, _aten._native_batch_norm_legit_no_training),
    *(_aten._prelu_kernel, _aten.square, _aten.std, _aten.var, _aten.var_mean, _aten.unbind, _aten.roll),
)
"""torch's own definitions of these by simpler operators are recorded in their place."""


class OneByOne(Cuda):
    """A backend of the compiled operators alone, one for each step, whatever the processor would prefer."""

    gates = False

    def forward(self, part: Part, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if part.kind != "conv":
            return super().forward(part, x, bias)
        y = part.geometry.convolve(x, part.tensor(), _on_planes)
        return y if bias is None else y + bias.reshape(1, -1, *[1] * (y.dim() - 2))

    def gives_normalizer(self, part: Part) -> str:
        return "one operator after the other"


def _on_planes(window: Window, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return ops.conv2d_normalizer(x, weight, *window.geometry)


class WhereUsed(TorchDispatchMode):
    """Answers "yes" to every question about numbers, and notes which layer was the first to use an operator."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        super().__init__()
        self.nodes = nodes
        self.layer = "the seed or the read-out"
        self.first: dict[str, str] = {}
        """By operator: the layer."""

    def run(self, phase: Phase, index: int, layer: Layer) -> Sequence[Any]:
        """As an observer of the call (`engine.passes.Observer`)."""
        node = self.nodes[index]
        before, self.layer = self.layer, f"layer '{node.name}' ({node.source or node.op})"
        try:
            return layer()
        finally:
            self.layer = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.first.setdefault(func.overloadpacket.__name__, self.layer)
        if func.overloadpacket in _READS_NUMBERS:
            return True
        return func(*args, **(kwargs or {}))


class Recorder:
    """Records calls for one walk.

    Args:
        walk: the way through the network; its plan is copied, with a backend of operators.
        name: what the caller calls the layer, for messages.
    """

    def __init__(self, walk: Walk, name: str) -> None:
        plan = walk.plan
        self.plan = Plan(plan.graph, plan.rules, torch.device("cpu"), plan.dtype)
        self.plan.backend = OneByOne()
        self.walk = Walk(self.plan, walk.top, walk.values, walk.contrast, walk.negated)
        self.name = name
        self.used = WhereUsed(plan.graph.nodes)

    def record(self, shapes: Mapping[str, Sequence[int]], columns: int) -> torch.fx.GraphModule:
        """(inputs by order, targets int64 [N, K]) -> (maps, scores, mass left), for inputs of these shapes."""
        images = next(iter(shapes.values()))[0]
        tensors = [torch.rand(tuple(shape), dtype=self.plan.dtype) for shape in shapes.values()]

        def call(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
            question = Question(Choice("given", columns, given[-1]))
            inputs = dict(zip(shapes, given[:-1], strict=True))
            with self.used:
                measured = measure(self.walk, inputs, question, "maps", [self.name], self.used)
            return measured.readouts[0], measured.scores, measured.mass_left[0]

        arguments = (*tensors, torch.zeros(images, columns, dtype=torch.int64))
        call(*arguments)  # whatever is made once and kept is made here, and not while something records
        simpler: Any = torch._decomp.get_decompositions(_MADE_OF_SIMPLER_ONES)
        recorded = make_fx(functionalize(call), decomposition_table=simpler)(*arguments)
        recorded.graph.eliminate_dead_code()
        return recorded
