"""Which factor of a product is the gate.

The rules give all of p to the first factor of the product's size: in x * sigmoid(g) that is x, the features, and the
gate gets nothing. Where a network multiplies the other way round, the importers exchange the factors.
"""

from __future__ import annotations

from dataclasses import replace

from ..graph import Graph, Node
from ..vocabulary import operations

GATES = operations("sigmoid", "hard_sigmoid", "softmax", "tanh", "erf")
_THROUGH = operations(
    "affine", "expand", "tile", "reshape", "flatten", "squeeze", "unsqueeze", "transpose", "slice", "split", "identity"
)


def gates_last(graph: Graph) -> Graph:
    """The graph with every product of two in which only the first factor is a gate turned round."""

    def is_gate(value: str) -> bool:
        while (index := graph.producer.get(value)) is not None:
            node = graph.nodes[index]
            if node.op in GATES:
                return True
            if node.op not in _THROUGH:
                return False
            value = node.inputs[0]
        return False

    def turned(node: Node) -> Node:
        if node.op != "mul" or len(node.inputs) != 2 or not is_gate(node.inputs[0]) or is_gate(node.inputs[1]):
            return node
        return replace(node, inputs=node.inputs[::-1])

    return replace(graph, nodes=[turned(node) for node in graph.nodes])
