"""The vocabulary: a node fits its operation or cannot be made; no list of operations has one that is not there."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
import torch
from support import paths, vocabulary_table

import ebp_cuda
from ebp_cuda.graph import Node
from ebp_cuda.rules import OPERATIONS
from ebp_cuda.vocabulary import INT, SIGNATURES, Attribute, Parameter, operations

WINDOW = dict.fromkeys(("stride", "padding", "padding_end", "dilation"), (1, 1))
WEIGHT = torch.ones(4, 3, 2, 2)


def test_every_operation_of_the_table_runs_and_no_other_does() -> None:
    assert {name for name in OPERATIONS if "::" not in name} == {name for name in SIGNATURES if "::" not in name}


def test_the_table_in_the_docs_is_that_of_the_code() -> None:
    assert vocabulary_table.table() in vocabulary_table.PAGE.read_text()


def node(op: str, attrs: dict | None = None, params: dict | None = None, inputs: int = 1, outputs: int = 1) -> Node:
    names = [f"v{i}" for i in range(inputs + outputs)]
    return Node("n", op, tuple(names[:inputs]), tuple(names[inputs:]), attrs or {}, params or {}, "Source")


def test_defaults_are_filled_in() -> None:
    assert node("silu").attrs == {"beta": 1.0}
    assert node("conv", WINDOW, {"weight": WEIGHT}).attrs["groups"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"op": "dropout"}, "no operation 'dropout'"),
        ({"op": "softmax"}, "layer 'n' .Source.: 'softmax' needs the attribute axis: int"),
        ({"op": "softmax", "attrs": {"axis": 1, "axes": 2}}, "no attribute 'axes'; nearest: axis"),
        ({"op": "softmax", "attrs": {"axis": 1.0}}, "attribute axis is 1.0; wanted int"),
        ({"op": "softmax", "attrs": {"axis": True}}, "attribute axis is True; wanted int"),
        ({"op": "squeeze", "attrs": {"axes": [1]}}, r"axes is \[1\]; wanted tuple of int"),
        ({"op": "resize", "attrs": {"mode": "bicubic"}}, 'mode is \'bicubic\'; wanted "nearest" or "linear"'),
        ({"op": "max_pool", "attrs": {"kernel": (2, 2)}}, "with kernel needs the attribute stride"),
        ({"op": "relu", "params": {"weight": WEIGHT}}, "'relu' has no parameter 'weight'"),
        ({"op": "conv", "attrs": WINDOW}, "needs the parameter weight"),
        (
            {"op": "conv", "attrs": WINDOW, "params": {"weight": WEIGHT, "bias": torch.ones(3)}},
            r"bias has shape \[3\]; wanted \[O\] with O = 4",
        ),
        ({"op": "linear", "params": {"weight": WEIGHT}}, r"weight has shape \[4, 3, 2, 2\]; wanted \[O, I\]"),
        ({"op": "sum"}, "1 inputs; 'sum' has 2 or more"),
        ({"op": "relu", "outputs": 2}, "2 outputs; 'relu' has 1"),
        ({"op": "max_pool", "attrs": {"kernel": None}, "outputs": 3}, "3 outputs; 'max_pool' has 1 to 2"),
    ],
)
def test_a_node_that_does_not_fit_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ebp_cuda.ModelError, match=message):
        node(**arguments)


def test_a_set_of_operations_holds_none_that_is_not_there() -> None:
    assert operations("conv", "relu") == {"conv", "relu"}
    with pytest.raises(ebp_cuda.ModelError, match="no operation 'drop_out'"):
        operations("conv", "drop_out")


def test_a_forward_for_an_operation_that_is_not_there_is_refused() -> None:
    from ebp_cuda.rules import operation

    with pytest.raises(ebp_cuda.ModelError, match="no operation 'reluu'; nearest: relu"):
        operation("reluu")


@pytest.fixture
def own_operation(tables_as_before: None) -> str:
    name = "ebp_tests::scaled"

    @ebp_cuda.register_operation(name, attributes=[Attribute("k", INT, 2)], parameters=[Parameter("gain", ("C",))])
    def forward(node, params, inputs, saved):
        return [inputs[0] * params["gain"] * node.attrs["k"]]

    return name


def test_a_users_operation_is_checked_by_what_it_declares(own_operation: str) -> None:
    assert node(own_operation, params={"gain": torch.ones(3)}).attrs == {"k": 2}
    with pytest.raises(ebp_cuda.ModelError, match="attribute k is 'two'; wanted int"):
        node(own_operation, {"k": "two"}, {"gain": torch.ones(3)})
    with pytest.raises(ebp_cuda.ModelError, match="needs the parameter gain"):
        node(own_operation)


def _compared_with_an_op(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Strings that the code compares with a node's `op`: (line, string)."""
    for comparison in ast.walk(tree):
        if not isinstance(comparison, ast.Compare):
            continue
        sides = [comparison.left, *comparison.comparators]
        if any(isinstance(side, ast.Attribute) and side.attr == "op" and _is_node(side.value) for side in sides):
            for part in (constant for side in sides for constant in ast.walk(side)):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def _is_node(owner: ast.AST) -> bool:
    """torch's calls have an `op` too; in the package they are never called so."""
    return not (isinstance(owner, ast.Name) and owner.id in ("c", "call", "self"))


def test_code_compares_with_operations_that_are_there() -> None:
    torch_fx = {"call_function", "placeholder", "output", "get_attr", "call_module"}
    unknown = [
        f"{path.relative_to(paths.ROOT)}:{line}: {name}"
        for path in sorted((paths.ROOT / "ebp_cuda").rglob("*.py"))
        for line, name in _compared_with_an_op(ast.parse(path.read_text()))
        if name not in SIGNATURES and name not in torch_fx
    ]
    assert not unknown
