"""dtype="tf32" and "bf16" through the public API: how far maps are from fp32, and that no probability is lost.

On the CPU the rounding of tensor cores is imitated (tests/emulator/test_emu_mma_digits.py compares the kernels with
that).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from support.emu_precision import Study, digits, efficientnet
from torch import nn

import ebp_cuda
from ebp_cuda import ShapeError, ops
from ebp_cuda.errors import ModelError
from ebp_cuda.linear import LinearMap
from ebp_cuda.ops.rounding import rounded, split

PRECISIONS = ("tf32", "bf16")
UNIT = {"tf32": 2.0**-11, "bf16": 2.0**-8}


@pytest.fixture(scope="module", params=["digits", "EfficientNet-Lite0"])
def study(request: pytest.FixtureRequest) -> Study:
    pytest.importorskip("skimage")
    if request.param == "digits":
        pytest.importorskip("sklearn")
        return digits(2)
    try:
        return efficientnet(("astronaut",))
    except ModelError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("precision", "most"), [("tf32", 3e-4), ("bf16", 2.5e-3)])
def test_maps_of_trained_networks(study: Study, precision: str, most: float) -> None:
    """The table of docs/precision.md: every map, contrastive or not, is as near to fp32 as that."""
    for contrast in (False, True):
        exact = study.maps(contrast, "fp32")
        for got, wanted in zip(study.maps(contrast, precision), exact, strict=True):
            error = (got - wanted).abs().sum((1, 2)) / wanted.abs().sum((1, 2))
            assert 1e-7 < error.max() < most


class Everything(nn.Module):
    """Convolutions that tensor cores take and others, one activation shared by several of them, and layers between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 1)
        self.left, self.right = nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(12, 4, 5, padding=2)
        self.depth, self.group = nn.Conv2d(12, 12, 3, groups=12, padding=1), nn.Conv2d(12, 24, 3, stride=2, groups=3)
        self.last = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(self.first(x).relu()).relu()
        x = x + torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        x = nn.functional.max_pool2d(self.depth(x).relu(), 2)
        return self.last(self.group(x).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> ebp_cuda.Net:
    torch.manual_seed(0)
    return ebp_cuda.from_torch(Everything().eval(), torch.rand(2, 3, 12, 12))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_goes_in_comes_out(net: ebp_cuda.Net, precision: str) -> None:
    x = torch.rand(2, 3, 12, 12)
    explain = ebp_cuda.ExcitationBackprop(net, "first", rules="conserving", dtype=precision)
    p = explain.relevance(x, "all")
    assert torch.allclose(p.sum((2, 3, 4)), torch.ones(2, 5), atol=1e-5)
    exact = ebp_cuda.ExcitationBackprop(net, "first", rules="conserving").relevance(x, "all")
    error = ((p - exact).abs().sum() / exact.abs().sum()).item()
    assert UNIT[precision] / 100 < error < 2 * UNIT[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rules", ["caffe", "conserving"])
def test_which_layers_round(net: ebp_cuda.Net, rules: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tensor cores cannot take, and what is fully connected, is in float32 altogether."""
    asked: dict[str, str] = {}
    apply = LinearMap.apply

    def note(self: LinearMap, x: torch.Tensor) -> torch.Tensor:
        if self.part.sign:  # not the map of ones by which what nobody excites is spread
            asked[self.part.name] = self.precision
        return apply(self, x)

    monkeypatch.setattr(LinearMap, "apply", note)
    ebp_cuda.ExcitationBackprop(net, net.graph.nodes[0].inputs[0], rules=rules, dtype=precision).relevance(
        torch.rand(1, 3, 12, 12), 0
    )
    rounding = {name.split(".")[-1] for name, how in asked.items() if how == precision}
    assert rounding == {"one", "left", "right", "group"}


def test_fp32_and_fp64_are_untouched(net: ebp_cuda.Net) -> None:
    plans = [net.plan("caffe", "cpu", dtype) for dtype in ("fp32", "tf32", "bf16", "fp64", torch.float32)]
    assert [plan.dtype for plan in plans] == [torch.float32] * 3 + [torch.float64, torch.float32]
    assert [plan.precision for plan in plans] == ["fp32", "tf32", "bf16", "fp32", "fp32"]
    assert plans[0] is plans[4] and len(set(map(id, plans))) == 4


def test_the_forward_pass_is_float32(net: ebp_cuda.Net) -> None:
    x = torch.rand(2, 3, 12, 12)
    methods = [ebp_cuda.ExcitationBackprop(net, "one", None, "caffe", dtype) for dtype in ("fp32", "bf16")]
    scores = [method.run(x, 0).scores for method in methods]
    assert torch.equal(*scores)


def _numbers() -> Iterator[torch.Tensor]:
    torch.manual_seed(1)
    yield torch.randn(4000)
    yield torch.randn(4000) * 1e-20


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_summands_keep_a_number(precision: str) -> None:
    for r in _numbers():
        both = split(r, precision)
        high = rounded(r, precision)
        low = both - high
        assert torch.equal(rounded(low, precision), low)  # the sum was exact
        assert ((both - r).abs() / r.abs()).max() <= UNIT[precision] ** 2


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
def test_cuda_rounds_as_the_cpu_imitates(net: ebp_cuda.Net, precision: str) -> None:
    torch.manual_seed(2)
    x = torch.cat([torch.randn(4000), torch.tensor([1 + 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-11])])
    assert torch.equal(ops.rounded(x.cuda(), precision).cpu(), rounded(x, precision))
    photo = torch.rand(2, 3, 12, 12)
    maps = [
        ebp_cuda.ExcitationBackprop(net, "first", rules="conserving", dtype=precision, device=device)
        .attribute(photo, "all")
        .cpu()
        for device in ("cpu", "cuda")
    ]
    assert (maps[0] - maps[1]).abs().sum() < 1e-4 * maps[0].abs().sum()


def test_what_an_op_refuses() -> None:
    x, w, geometry = torch.rand(1, 4, 4, 4), torch.rand(4, 4, 3, 3), ((1, 1), (0, 0, 0, 0), (1, 1), 1)
    with pytest.raises(ShapeError, match="precision='fp8', wanted one of fp32, tf32, bf16"):
        ops.conv2d_normalizer(x, w, *geometry, precision="fp8")
    with pytest.raises(ShapeError, match="conv2d_sweep: precision='tf32' is one of float32 tensors, r is float64"):
        ops.conv2d_sweep(x.double()[:, :, :2, :2], w.double(), (4, 4), *geometry, precision="tf32")
