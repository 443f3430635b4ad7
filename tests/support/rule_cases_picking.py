"""Cases of the layers that copy, pick or normalize (see rule_cases.py)."""

from __future__ import annotations

from oracle.nets import simple, weights

from ebp_cuda.graph import Node
from support.rule_cases import IMAGES, RNG, Case, plane

SHAPE = (IMAGES, 3, 4, 5)
TWO = (IMAGES, 3, 2, 3)


def picking_cases() -> list[Case]:
    embedding = {"weight": weights(RNG, 6, 4), "bias": weights(RNG, 4)}
    corners = {"mode": "linear", "align_corners": True}
    return [
        Case("select", simple("select", "a", "y", axis=1, indices=(2, 0, 0)), (SHAPE,)),
        Case("tile", simple("tile", "a", "y", repeats=(1, 2, 1, 3)), (SHAPE,)),
        Case("expand", simple("expand", [*"ab"], "y"), ((IMAGES, 3, 1, 1), SHAPE)),
        Case("expand_none", simple("expand", [*"ab"], "y"), (SHAPE, SHAPE)),
        Case("crop", simple("crop", [*"ab"], "y", axis=2, offsets=(1, 2)), (SHAPE, TWO)),
        Case("crop_channels", simple("crop", [*"ab"], "y", axis=1, offsets=(0, 2, 0)), (SHAPE, (IMAGES, 2, 2, 3))),
        Case("embed", Node("n", "embed", ("a",), ("y",), {}, embedding), plane(5), indices={"a": 6}),
        Case("arg_max_all", simple("arg_max", "a", "y", axis=None, k=3, gives="both"), (SHAPE,)),
        Case("arg_max_indices", simple("arg_max", "a", "y", axis=2, k=2, gives="indices"), (SHAPE,)),
        Case("arg_max_values", simple("arg_max", "a", "y", axis=1, k=1, gives="values"), (SHAPE,)),
        Case(
            "unpool", simple("unpool", [*"ab"], "y", size=None, scale=(2, 3), less=(1, 0)), (TWO, TWO),
            indices={"b": 27},
        ),
        Case(
            "unpool_size", simple("unpool", [*"ab"], "y", size=(4, 2), scale=None, less=None), (TWO, TWO),
            indices={"b": 8},
        ),
        Case("resize_zoom", simple("resize", "a", "y", **corners, zoom=3, shrink=2), (SHAPE,)),
        Case("resize_like", simple("resize", [*"ab"], "y", **corners), (TWO, (IMAGES, 1, 5, 7))),
    ]  # fmt: skip


def statistics_cases() -> list[Case]:
    sums = [("sum", (2, 3), 0.5), ("mean", (1, 2), 2.0), ("asum", (3,), 1.0), ("sumsq", (2, 3), 3.0)]
    cases = [
        Case(f"reduce_{kind}", simple("reduce", "a", "y", kind=kind, axes=axes, coefficient=c), (SHAPE,))
        for kind, axes, c in sums
    ]
    cases += [
        Case(f"mvn_{name}", simple("mvn", "a", "y", axes=axes, eps=eps), (SHAPE,))
        for name, axes, eps in [("plane", (2, 3), 0.01), ("all", (1, 2, 3), 0.1), ("mean", (2, 3), None)]
    ]
    for name, axes, scale in [("all", (1, 2, 3), weights(RNG, 1)), ("channels", (1,), weights(RNG, 3, 1, 1))]:
        node = Node("n", "normalize", ("a",), ("y",), {"axes": axes, "eps": 0.01}, {"scale": scale})
        cases.append(Case(f"normalize_{name}", node, (SHAPE,)))
    for name, size, shape in [
        ("several", (3, 2), (7, 5)), ("more", (6, 7), (2, 4)), ("rows", (None, 1), (4, 5)), ("1d", (4,), (6,)),
        ("3d", (2, 1, 3), (3, 2, 4)),
    ]:  # fmt: skip
        for kind in ("avg", "max"):
            node = simple(f"adaptive_{kind}_pool", "a", "y", size=size)
            cases.append(Case(f"adaptive_{kind}_{name}", node, plane(2, *shape)))
    for name, attrs in {
        "layer": {"axes": (2, 3)}, "last": {"axes": (-1,)}, "group": {"axes": (), "groups": 3},
    }.items():  # fmt: skip
        cases.append(Case(f"standardize_{name}", simple("standardize", "a", "y", **attrs, eps=1e-3), plane(6, 3, 4)))
    return [
        *cases,
        Case("gelu_tanh", simple("gelu", "a", "y", tanh=True), (SHAPE,)),
        Case("threshold", simple("threshold", "a", "y", threshold=0.25), (SHAPE,)),
        Case("silu_beta", simple("silu", "a", "y", beta=1.7), (SHAPE,)),
        Case("exp_line", simple("exp", "a", "y", scale=0.5, shift=-1.0), (SHAPE,)),
        Case("log_line", simple("log", "a", "y", scale=2.0, shift=0.5, factor=1.5), (SHAPE,), positive=True),
    ]


CASES = [*picking_cases(), *statistics_cases()]
