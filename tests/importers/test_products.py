"""Products with a constant along any axes: what numpy and torch say, with the relevance of the float64 oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from oracle import sweep as oracle
from oracle.nets import distance, engine_relevance
from torch import nn

import ebp_cuda
from ebp_cuda.errors import UnsupportedError
from ebp_cuda.importers.onnx import load_onnx

RNG = np.random.default_rng(16)
N, H, W = "n", "h", "w"  # axes of any length
LENGTHS = {N: 2, H: 6, W: 7}

EQUATIONS: list[tuple[str, Sequence[int | str], Sequence[int] | None]] = [
    ("bchw,kc->bkhw", (N, 3, H, W), (5, 3)),
    ("bchw,kc->bk", (N, 3, H, W), (5, 3)),
    ("bchw,c->bchw", (N, 3, H, W), (3,)),
    ("b c h w , k c -> b k h w", (N, 3, 2, 2), (4, 3)),
    ("bchw,chw->b", (N, 3, 4, 5), (3, 4, 5)),
    ("bchw,chwo->bo", (N, 3, 4, 5), (3, 4, 5, 2)),
    ("bchw,ohw->boc", (N, 3, 4, 5), (6, 4, 5)),
    ("bchw,ckl->bkl", (N, 3, 2, 2), (3, 2, 2)),
    ("bchw,c", (N, 3, 4, 5), (3,)),
    ("bgcs,gkc->bgks", (N, 2, 3, 4), (2, 5, 3)),
    ("bgc,gc->bg", (N, 2, 3), (2, 3)),
    ("...c,ck->...k", (N, 4, 4, 3), (3, 7)),
    ("...ij,...jk->...ik", (N, 2, 4, 3), (2, 3, 5)),
    ("...ij,...jk", (N, 2, 4, 3), (1, 3, 5)),
    ("bc,k->bck", (N, 3), (4,)),
    ("bc,cc->bc", (N, 3), (3, 3)),
    ("bc,zc->bc", (N, 3), (2, 3)),
    ("nc,ce->en", (N, 6), (6, 2)),
    ("bchw->bhwc", (N, 3, 4, 5), None),
    ("bchw->bc", (N, 3, H, W), None),
]
PRODUCTS = [
    *(((N, 4, 3), (3, 5), True), ((N, 2, 4, 3), (2, 3, 5), True), ((N, 4, 3), (5, 4), False)),
    *(((N, 2, 4, 3), (2, 6, 4), False), ((N, 3), (3,), True), ((N, 4, 3), (4,), False)),
    *(((N, 2, 4, 3), (1, 1, 3, 5), True), ((N, 4, 3), (7, 1, 3, 2), True)),
]


def model(
    op: str, shape: Sequence[int | str], constant: np.ndarray | None, x_first: bool, **attrs: str
) -> onnx.ModelProto:
    operands = ["x"] if constant is None else ["x", "c"] if x_first else ["c", "x"]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, operands, ["y"], **attrs)],
        "product",
        [value("x", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, None)],
        [] if constant is None else [numpy_helper.from_array(constant, "c")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def check(proto: onnx.ModelProto, x: np.ndarray, right: np.ndarray) -> None:
    """The forward, and in "conserving" the relevance of the oracle, where every layer has a rule."""
    net = ebp_cuda.Net(load_onnx(proto))
    np.testing.assert_allclose(net.forward(x)["y"], right, rtol=1e-5, atol=1e-5)
    graph, images = net.graph, {"x": x.astype(np.float64)}
    if all(row["conserving"] for row in net.explain_support()):
        values = oracle.forward(graph, images)
        seeds = {"y": RNG.random(values["y"].shape)}
        expected = oracle.relevance(graph, values, seeds, "conserving")["x"]
        assert distance(engine_relevance(graph, images, seeds, ["x"], "conserving")["x"], expected) < 1e-9


def image(shape: Sequence[int | str]) -> np.ndarray:
    return RNG.standard_normal([n if isinstance(n, int) else LENGTHS[n] for n in shape]).astype(np.float32)


@pytest.mark.parametrize(("equation", "shape", "constant"), EQUATIONS)
@pytest.mark.parametrize("x_first", [True, False])
def test_an_equation_of_onnx_is_what_numpy_says(
    equation: str, shape: Sequence[int | str], constant: Sequence[int] | None, x_first: bool
) -> None:
    x, other = image(shape), None if constant is None else image(constant)
    if not x_first and other is not None:
        terms, arrow, result = equation.partition("->")
        equation = ",".join(terms.split(",")[::-1]) + arrow + result
    operands = [x] if other is None else [x, other] if x_first else [other, x]
    check(model("Einsum", shape, other, x_first, equation=equation), x, np.einsum(equation.replace(" ", ""), *operands))


@pytest.mark.parametrize(("shape", "constant", "x_first"), PRODUCTS)
def test_a_matrix_product_of_onnx_is_what_numpy_says(
    shape: Sequence[int | str], constant: Sequence[int], x_first: bool
) -> None:
    x, other = image(shape), image(constant)
    check(model("MatMul", shape, other, x_first), x, x @ other if x_first else other @ x)


@pytest.mark.parametrize(
    ("equation", "shape", "constant", "reason"),
    [
        ("bcc->bc", (N, 3, 3), None, "takes the diagonal of an activation"),
        ("bc,bc->bc", (2, 3), (2, 3), "the images, is multiplied with a constant or added up"),
        ("bc,cd->d", (N, 3), (3, 2), "the images, is multiplied with a constant or added up"),
        ("bc,cd->bd", (N, 3), (4, 2), "axis 'c' has length 3 in the activation and 4 in the constant"),
        ("bc,cd->be", (N, 3), (3, 2), "gives axes that no operand has, or one twice"),
        ("bc,cd->bd", (N, 3), (3, 2, 2), "for operands of [2, 3] axes"),
        ("bc->bc", (N, 3), (3, 2), "has 1 operands, wanted 2"),
    ],
)
def test_what_no_layer_computes_is_refused_by_its_equation(
    equation: str, shape: Sequence[int | str], constant: Sequence[int] | None, reason: str
) -> None:
    proto = model("Einsum", shape, None if constant is None else image(constant), True, equation=equation)
    with pytest.raises(UnsupportedError, match="Einsum, opset 17") as caught:
        load_onnx(proto)
    assert reason in str(caught.value)


class WithParameter(nn.Module):
    """f(x, weight)."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], shape: Sequence[int]) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.randn(*shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.weight)


FUNCTIONS: dict[str, tuple[Callable[..., torch.Tensor], Sequence[int], Sequence[int]]] = {
    "a 1x1 convolution and a sum": (lambda x, w: torch.einsum("bchw,kc->bk", x, w), (2, 3, 4, 4), (5, 3)),
    "the parameter first": (lambda x, w: torch.einsum("kc,bchw->bkhw", w, x), (2, 3, 4, 4), (5, 3)),
    "groups": (lambda x, w: torch.einsum("bgcs,gkc->bgks", x, w), (2, 2, 3, 4), (2, 5, 3)),
    "a factor for each channel": (lambda x, w: torch.einsum("bchw,c->bchw", x, w), (2, 3, 4, 4), (3,)),
    "a matrix for each channel": (lambda x, w: x @ w, (2, 2, 4, 3), (2, 3, 5)),
    "the same from the left": (lambda x, w: w @ x, (2, 2, 4, 3), (2, 3, 4)),
    "a vector from the left": (lambda x, w: w @ x, (2, 4, 3), (4,)),
    "one matrix for all images": (lambda x, w: torch.bmm(x, w.expand(x.shape[0], -1, -1)), (2, 4, 3), (1, 3, 4)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_product_with_a_parameter_is_what_torch_says_and_follows_it(name: str) -> None:
    function, x_shape, weight_shape = FUNCTIONS[name]
    module = WithParameter(function, weight_shape).eval()
    net = ebp_cuda.from_torch(module, torch.rand(x_shape))
    for count in (x_shape[0], 5):
        for written in (False, True):
            if written:
                module.weight.data.neg_()
            x = torch.rand(count, *x_shape[1:])
            (result,) = net.forward(x).values()
            torch.testing.assert_close(result, module(x).detach())


@pytest.mark.parametrize(
    ("function", "weight", "reason"),
    [
        (lambda x, w: torch.bmm(x, w), (2, 3, 4), "the images, is multiplied with a constant"),
        (lambda x, w: torch.einsum("bic,cd,de->bie", x, w, w), (3, 3), "3 operands, wanted one or two"),
        (lambda x, w: torch.einsum("bii,i->bi", x[:, :3] * w, w), (3,), "diagonal of an activation"),
    ],
)
def test_a_product_that_is_refused_says_the_true_reason(
    function: Callable[..., torch.Tensor], weight: Sequence[int], reason: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        ebp_cuda.from_torch(WithParameter(function, weight).eval(), torch.rand(2, 4, 3))
    assert reason in str(caught.value)
    assert "attention" not in str(caught.value)
