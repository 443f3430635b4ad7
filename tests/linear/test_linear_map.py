"""The linear map of a layer: its transpose is one on every backend, sums wait and join, choices have reasons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.backends import Unfused

from ebp_cuda import ShapeError, UnsupportedError, ops
from ebp_cuda.graph import Node
from ebp_cuda.linear import CPU, CUDA, LinearMap, Ratio, amx, choice, noting
from ebp_cuda.linear import map as linear_map
from ebp_cuda.linear.choice import Problem, choose
from ebp_cuda.rules import Saved, Step
from ebp_cuda.rules.relevance import Relevance, add

LAST = torch.channels_last
BACKENDS = {"CPU": CPU, "CUDA": CUDA, "CUDA, unfused": Unfused()}


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def layer(op: str, weight: torch.Tensor, **window: Any) -> Node:
    axes = weight.dim() - 2
    plain = {"stride": (1,) * axes, "padding": (0,) * axes, "dilation": (1,) * axes, "groups": 1}
    attrs = {**plain, **window} if op != "linear" else {}
    if op != "linear":
        attrs.setdefault("padding_end", attrs["padding"])
    return Node("layer", op, ("x",), ("y",), attrs, {"weight": weight})


LAYERS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "linear": ("linear", (5, 7), (7,), {}),
    "linear in a sequence": ("linear", (5, 7), (3, 7), {}),
    "1 x 1": ("conv", (6, 4, 1, 1), (4, 5, 6), {}),
    "3 x 3": ("conv", (6, 4, 3, 3), (4, 7, 6), {"padding": (1, 1)}),
    "uneven padding": ("conv", (6, 4, 3, 2), (4, 7, 6), {"padding": (1, 0), "padding_end": (2, 1)}),
    "strides and groups": ("conv", (6, 2, 3, 3), (4, 9, 8), {"stride": (2, 3), "groups": 2, "dilation": (2, 1)}),
    "wide padding": ("conv", (6, 4, 1, 1), (4, 5, 6), {"padding": (1, 1)}),
    "one axis": ("conv", (6, 4, 3), (4, 9), {"stride": (2,), "padding": (1,)}),
    "a volume": ("conv", (6, 4, 2, 3, 3), (4, 5, 6, 7), {"stride": (2, 1, 1), "padding": (1, 1, 0)}),
    "transposed": ("conv_transpose", (4, 3, 3, 3), (4, 5, 4), {"stride": (2, 2), "output_padding": (1, 0)}),
}


@pytest.mark.parametrize("sign", [None, 1, -1])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LAYERS)
def test_the_transpose_is_the_transpose(name: str, backend: str, sign: int | None) -> None:
    """<L x, r> = <x, L^T r>, and L+ - (-L)+ = L."""
    op, shape, below, window = LAYERS[name]
    torch.manual_seed(0)
    weight = torch.randn(shape, dtype=torch.float64)
    whole = LinearMap.of(layer(op, weight, **window), weight, BACKENDS[backend])
    linear = whole if sign is None else whole.positive(sign)
    x = torch.randn(2, *below, dtype=torch.float64)
    y = linear.apply(x)
    r = torch.randn_like(y)
    t = linear.transpose(r, x.shape).tensor()
    assert t.shape == x.shape
    torch.testing.assert_close((y * r).sum(), (x * t).sum())
    torch.testing.assert_close(whole.forward(x), whole.positive(1).apply(x) - whole.positive(-1).apply(x))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sum_of_several_layers_is_computed_when_it_is_read(backend: str) -> None:
    """Of a product, a kernel, an addend that is there, and gates that K columns share."""
    torch.manual_seed(1)
    x, maps, ratios = torch.rand(2, 4, 5, 6).contiguous(memory_format=LAST), [], []
    for size in (1, 3, 3):
        weight = torch.randn(6, 4, size, size)
        node = layer("conv", weight, padding=(size // 2,) * 2)
        maps.append(LinearMap.of(node, weight, BACKENDS[backend]).positive())
        ratios.append(Ratio(torch.randn(6, 6, 5, 6).contiguous(memory_format=LAST), torch.rand(2, 6, 5, 6)))
    rest = torch.randn(6, 4, 5, 6)
    alone = [linear.transpose(r, x.shape).tensor() for linear, r in zip(maps, ratios, strict=True)]
    waiting = [Relevance(linear.transpose(r, x.shape), x) for linear, r in zip(maps, ratios, strict=True)]
    total = add([*waiting, Relevance(rest, x)])
    gate = torch.rand(2, 4, 5, 6)
    wanted = (alone[0] + alone[1] + alone[2] + rest) * gate.repeat_interleave(3, 0)
    torch.testing.assert_close(total.scale_columns(gate), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(total.s, alone[0] + alone[1] + alone[2] + rest, rtol=1e-4, atol=1e-5)


PROBLEM = Problem(
    (1, 64, 14, 14), (64, 64, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1, "", True, True, has_tiles=True, has_onednn=True
)


@pytest.mark.parametrize(
    ("changed", "kernel", "reason"),
    [
        ({}, "amx", ""),
        ({"has_tiles": False}, "onednn", "amx: no matrix unit"),
        ({"for_tiles": False, "for_onednn": False}, "aten", "amx: x is not channels_last"),
        ({"unusual": "a gradient may be asked for"}, "aten", "onednn: a gradient may be asked for"),
        ({"stride": (2, 2)}, "onednn", "amx: stride (2, 2)"),
        ({"padding": (3, 1, 1, 1)}, "onednn", "amx: kernel (3, 3) with padding (3, 1, 1, 1)"),
        ({"shape": (1, 64, 5, 5)}, "onednn", "amx: 25 pixels, wanted 32"),
        ({"weight": (64, 3, 3, 3)}, "onednn", "amx: 3 to 64 channels fill less than half"),
        ({"shape": (1, 64, 1, 1), "weight": (64, 64, 1, 1), "padding": (0,) * 4}, "product", "amx: 1 pixels"),
        ({"has_tiles": False, "has_onednn": False}, "aten", "onednn: this torch has no oneDNN"),
    ],
    ids=str,
)
def test_every_choice_says_what_stands_against_the_faster_ones(
    changed: dict[str, Any], kernel: str, reason: str
) -> None:
    chosen = choose(PROBLEM._replace(**changed))
    assert chosen.kernel == kernel and reason in str(chosen)
    names = [name for name, _ in choice.KERNELS]
    assert [text.split(":")[0] for text in chosen.reasons] == names[: names.index(kernel)]


@pytest.mark.parametrize(
    ("shape", "window", "kernel", "reason"),
    [
        ((64, 64, 3, 3), {"padding": (1, 1)}, "flipped, onednn", "amx: no matrix unit"),
        ((64, 64, 1, 1), {}, "product", "amx: no matrix unit"),
        ((64, 64, 3, 3), {"stride": (2, 2)}, "aten", "flipped: stride [2, 2]"),
        ((64, 32, 3, 3), {"groups": 2}, "aten", "flipped: stride [1, 1], groups 2"),
    ],
    ids=str,
)
def test_so_does_every_choice_of_a_way_down(
    shape: tuple[int, ...], window: dict[str, Any], kernel: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amx, "available", lambda: False)
    weight = torch.randn(shape)
    linear = LinearMap.of(layer("conv", weight, **window), weight).positive()
    x = torch.rand(1, 64, 14, 14).contiguous(memory_format=LAST)
    chosen = linear.why("down", linear.apply(x), x.shape)
    assert chosen.kernel == kernel and reason in str(chosen)


def test_cuda_tells_the_kernel_of_its_own_schedule() -> None:
    weight = torch.randn(8, 8, 3, 3, device="meta").contiguous(memory_format=LAST)
    linear = LinearMap.of(layer("conv", weight, padding=(1, 1)), weight, precision="tf32").positive()
    x = torch.rand(1, 8, 14, 14, device="meta").contiguous(memory_format=LAST)
    assert linear.precision == "tf32" and linear.why("up", x, x.shape).kernel == "mma"
    plain = LinearMap.of(layer("conv", weight, padding=(1, 1)), weight).positive()
    assert plain.why("down", x, x.shape).kernel.startswith("simt") and "fp32 was asked for" in str(
        plain.why("down", x, x.shape)
    )


def test_kernels_are_noted_and_printed_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weight = torch.randn(8, 8, 1, 1)
    linear, x = LinearMap.of(layer("conv", weight), weight), torch.rand(2, 8, 3, 4)
    linear.forward(x)
    assert linear.kernels() == {} and capsys.readouterr().err == ""
    with noting():
        linear.forward(x)
        positive = linear.positive()
        positive.transpose(positive.apply(x), x.shape)
    assert set(linear.kernels()) == {"forward", "up", "down"} and capsys.readouterr().err == ""
    monkeypatch.setattr(linear_map, "_PRINTS", True)
    linear.forward(x[:1])
    linear.forward(x[:1])
    printed = capsys.readouterr().err
    assert printed.count("ebp_cuda: layer forward 1x8x3x4: ") == 1 and "amx: " in printed


def test_a_layer_names_itself_where_an_input_does_not_fit() -> None:
    weight = torch.randn(6, 4, 3, 3)
    with pytest.raises(ShapeError, match=r"layer 'layer': input has shape \[1, 5, 7, 7\], wanted \[N, 4\]"):
        LinearMap.of(layer("conv", weight), weight).forward(torch.rand(1, 5, 7, 7))
    with pytest.raises(UnsupportedError, match="layer 'layer': transposed convolution with padding"):
        odd = layer("conv_transpose", weight, padding=(1, 1), padding_end=(0, 1))
        LinearMap.of(odd, weight).forward(torch.rand(1, 6, 7, 7))
    step = Step(Node("relu1", "relu", ("x",), ("y",)), [], [], Saved(), {}, [True])
    with pytest.raises(UnsupportedError, match=r"layer 'relu1' .* has no linear map"):
        _ = step.linear


def test_names_of_before_still_work_and_say_the_new_ones() -> None:
    p, z = torch.rand(4, 3), torch.rand(2, 3)
    with pytest.warns(DeprecationWarning, match="divide_or_zero"):
        assert torch.equal(ops.share(p, z), ops.divide_or_zero(p, z))
    rel = Relevance(p, torch.rand(2, 3))
    with pytest.warns(DeprecationWarning, match="divided_by"):
        assert torch.equal(rel.over(z), rel.divided_by(z))
    with pytest.warns(DeprecationWarning, match="times"):
        assert torch.equal(rel.gated(z).p(), rel.times(z).p())
    with pytest.raises(AttributeError):
        _ = rel.nothing_of_that_name
    weight = torch.randn(5, 3)
    step = Step(layer("linear", weight), [], [], Saved(), {"weight": weight}, [True])
    with pytest.warns(DeprecationWarning, match=r"Step\.packed"):
        assert torch.equal(step.packed("weight-"), (-weight).clamp(min=0))
