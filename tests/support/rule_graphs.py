"""All layers that the rules are tried on, with inputs, alone and between other layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from oracle import sweep as oracle
from oracle.nets import linear, simple

from ebp_cuda.graph import Graph, Node
from ebp_cuda.rules import RULE_SETS
from support.rule_cases import CASES as COMMON
from support.rule_cases import Case
from support.rule_cases_functions import CASES as FUNCTIONS
from support.rule_cases_picking import CASES as PICKING

CASES = [*COMMON, *PICKING, *FUNCTIONS]
NOT_IN_CAFFE = (
    "mul",
    "resize",
    "embed",
    "arg_max",
    "unpool",
    "normalize",
    "threshold",
    "weighted_sum",
    "unit_norm",
    "product",
)
GIVEN = ("signed", "integers", "linear", "scaled", "relu linear", "relu scaled")
RULED = [
    pytest.param(case, rules, id=f"{case}-{rules}")
    for case in CASES
    for rules in RULE_SETS
    if rules == "conserving" or case.node.op not in NOT_IN_CAFFE
]
"""Every case with every rule set that has a rule for it."""


def inputs_of(case: Case, given: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    names = list(dict.fromkeys(case.node.inputs))
    xs = {}
    for name, shape in zip(names, case.shapes, strict=True):
        x = rng.normal(size=shape)
        x = x if given == "signed" else np.round(1.2 * x)
        xs[name] = np.abs(x) + 0.5 if case.positive else x
        if case.within is not None:
            low, high = case.within
            xs[name] = low + (high - low) * (1 + np.tanh(x)) / 2
        if name in case.indices:
            size = int(np.prod(shape[2:])) if len(shape) > 2 else shape[1]
            drawn = [rng.permutation(case.indices[name])[:size] for _ in range(int(np.prod(shape)) // size)]
            xs[name] = np.array(drawn, float).reshape(shape)
    return xs


def graph_around(case: Case, given: str, rng: np.random.Generator) -> Graph:
    """The layer alone, or below linear layers that read it as it is or scaled, behind ReLUs or not."""
    node = case.node
    names = list(dict.fromkeys(node.inputs))
    inputs = dict.fromkeys(names, ())
    alone = Graph([node], inputs, node.outputs)
    if given in ("signed", "integers"):
        return alone
    values = oracle.forward(alone, inputs_of(case, given, rng))
    below, above = [], []
    if "relu" in given:
        below = [simple("relu", name, f"relu_{name}") for name in names]
        node = replace(node, inputs=tuple(f"relu_{name}" for name in node.inputs))
    for value in node.outputs:
        read = value
        if "scaled" in given:
            read = f"scaled_{value}"
            above.append(Node(read, "affine", (value,), (read,), {}, {"scale": torch.tensor(2.5)}))
        above.append(linear(rng, read, f"top_{value}", values[value].shape[-1], 4))
    return Graph([*below, node, *above], inputs, tuple(f"top_{value}" for value in node.outputs))
