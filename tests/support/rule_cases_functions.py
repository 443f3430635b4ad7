"""Cases of the functions, comparisons and sums along axes that Caffe has not (see rule_cases.py)."""

from __future__ import annotations

import torch
from oracle.functions import UNARY
from oracle.nets import simple, weights

from ebp_cuda.graph import Node
from support.rule_cases import IMAGES, RNG, Case, plane

SHAPE = (IMAGES, 3, 4, 5)
WITHIN = {"asin": (-0.9, 0.9), "acos": (-0.9, 0.9), "atanh": (-0.9, 0.9), "acosh": (1.1, 3.0), "tan": (-1.2, 1.2)}


def with_params(name: str, op: str, shapes: tuple, inputs: str = "a", attrs: dict | None = None, **params) -> Case:
    more = {key: params.pop(key) for key in ("positive",) if key in params}
    return Case(name, Node("n", op, tuple(inputs), ("y",), attrs or {}, params), shapes, **more)


def function_cases() -> list[Case]:
    cases = [Case(name, simple(name, "a", "y"), (SHAPE,), within=WITHIN.get(name)) for name in UNARY]
    exponent, least = torch.rand(4, 1).double() * 2 + 1, weights(RNG, 3, 1, 1)
    return [
        *cases,
        Case("shrink", simple("shrink", "a", "y", lambd=0.5, bias=0.2), (SHAPE,)),
        Case("thresholded_relu", simple("thresholded_relu", "a", "y", alpha=0.3), (SHAPE,)),
        with_params("at_least", "at_least", (SHAPE,), least=least),
        with_params("powers", "powers", (SHAPE,), exponent=exponent, positive=True),
        Case("unit_norm_2", simple("unit_norm", "a", "y", axis=1, order=2), (SHAPE,)),
        Case("unit_norm_1", simple("unit_norm", "a", "y", axis=3, order=1), (SHAPE,)),
        Case("log_softmax", simple("log_softmax", "a", "y", axis=1), plane(7, 3)),
    ]


def axis_cases() -> list[Case]:
    matrix, signed = weights(RNG, 6, 5).abs(), weights(RNG, 3, 4, zeros=0.4)
    return [
        with_params("weighted_sum_last", "weighted_sum", (SHAPE,), attrs={"axis": 3}, weight=matrix),
        with_params("weighted_sum_signed", "weighted_sum", (SHAPE,), attrs={"axis": 2}, weight=signed),
        Case("logsumexp", simple("logsumexp", "a", "y", axes=(2,)), (SHAPE,)),
        Case("logsumexp_two", simple("logsumexp", "a", "y", axes=(1, 2)), (SHAPE,)),
        Case("product", simple("product", "a", "y", axes=(2, 3)), (SHAPE,)),
    ]


def choice_cases() -> list[Case]:
    mask = (torch.rand(4, 5, generator=torch.Generator().manual_seed(1)) > 0.5).double()
    return [
        *(
            Case(kind, simple("compare", [*"ab"], "y", kind=kind), (SHAPE,) * 2)
            for kind in ("equal", "greater", "less")
        ),
        with_params("less_equal", "compare", (SHAPE,), attrs={"kind": "less_equal"}, bound=torch.tensor(0.5)),
        with_params("greater_equal", "compare", (SHAPE,), attrs={"kind": "greater_equal"}, bound=weights(RNG, 4, 1)),
        Case("where", simple("where", [*"mab"], "y"), (SHAPE,) * 3),
        with_params("where_mask", "where", (SHAPE,) * 2, "ab", mask=mask),
        with_params("where_first", "where", (SHAPE,) * 2, "mb", first=torch.tensor(0.0)),
        with_params("where_second", "where", (SHAPE,), "a", mask=mask, second=weights(RNG, 3, 1, 1)),
    ]


CASES = [*function_cases(), *axis_cases(), *choice_cases()]
