"""What kernels do together on CUDA, on the CPU: maps are those of the plain way, and fewer things are launched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import nn

import ebp_cuda
from ebp_cuda import ops
from ebp_cuda.linear import CPU, CUDA
from ebp_cuda.linear.part import Part
from ebp_cuda.linear.pending import Pending, Term
from ebp_cuda.rules.relevance import Relevance, add


class Inception(nn.Module):
    """Branches of 1 x 1 convolutions over one input, a strided one, a residual sum, pools, and a normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.reduce = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
        self.three, self.pooled = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 1, bias=False)
        self.norm, self.down, self.point = nn.LocalResponseNorm(3), nn.Conv2d(20, 8, 3, stride=2), nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        pooled = nn.functional.max_pool2d(x, 3, 1, 1)
        x = torch.cat([self.one(x).relu(), self.three(self.reduce(x).relu()).relu(), self.pooled(pooled).relu()], 1)
        x = self.norm(self.down(nn.functional.max_pool2d(x, 2)).relu())
        x = x + self.point(x).relu()
        return self.last(x.mean((2, 3)))


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(5)
    return Inception().eval()


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often every op that multiplies was called."""
    calls: Counter[str] = Counter()
    for name in ("gate", "divide_or_zero", "conv2d_normalizer", "conv2d_sweep", "conv2d_excitation"):
        original = getattr(ops, name)

        def call(*args, op=original, name=name, **options):
            calls[name] += 1
            calls[name + " gated"] += options.get("gate") is not None
            calls[name + " onto"] += options.get("addend") is not None
            return op(*args, **options)

        monkeypatch.setattr(ops, name, call)
    yield calls


def method(module: nn.Module, fused: bool, rules: str, dtype: str, contrast: str | None) -> ebp_cuda.ExcitationBackprop:
    net = ebp_cuda.from_torch(module, torch.rand(2, 3, 13, 11))
    net.plan(rules, "cpu", dtype).backend = CUDA if fused else CPU
    return ebp_cuda.ExcitationBackprop(net, "stem", contrast_layer=contrast, rules=rules, dtype=dtype)


@pytest.mark.parametrize("contrast", [None, "point"])
@pytest.mark.parametrize("dtype", ["fp32", "tf32", "bf16", "fp64"])
@pytest.mark.parametrize("rules", ["caffe", "conserving"])
def test_maps_are_those_of_the_plain_way(module: nn.Module, rules: str, dtype: str, contrast: str | None) -> None:
    x = torch.rand(2, 3, 13, 11)
    plain, fused = (method(module, on, rules, dtype, contrast).run(x, "all") for on in (False, True))
    most = {"fp32": 2e-5, "fp64": 1e-12, "tf32": 1e-3, "bf16": 1e-2}[dtype]  # a last bit may round to another bf16
    assert (plain.maps - fused.maps).abs().sum() < most * plain.maps.abs().sum()
    assert (plain.scores - fused.scores).abs().max() < 1e-5


def test_what_is_saved(module: nn.Module, launched: Counter[str]) -> None:
    x = torch.rand(1, 3, 13, 11)
    method(module, False, "caffe", "fp32", None).attribute(x, 1)
    plain = Counter(launched)
    launched.clear()
    method(module, True, "caffe", "fp32", None).attribute(x, 1)
    assert launched["conv2d_excitation"] == 5  # one, reduce, pooled, down, point
    assert launched["conv2d_normalizer"] == 1 and launched["divide_or_zero"] < plain["divide_or_zero"]
    assert launched["gate"] == plain["gate"] - 2 and launched["conv2d_sweep gated"] == 2
    assert launched["conv2d_sweep"] == 6 and launched["conv2d_sweep onto"] == 3


def test_fp64_and_rounded_layers_have_no_fused_forward(module: nn.Module, launched: Counter[str]) -> None:
    for dtype, count in (("fp64", 0), ("bf16", 0)):
        method(module, True, "caffe", dtype, None).attribute(torch.rand(1, 3, 13, 11), 1)
        assert launched["conv2d_excitation"] == count


def test_a_contrast_is_subtracted_in_the_kernel(launched: Counter[str]) -> None:
    torch.manual_seed(6)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 7), nn.ReLU(), nn.Linear(7, 5)]
    net, x, maps = ebp_cuda.from_torch(nn.Sequential(*layers), torch.rand(2, 3, 5, 5)), torch.rand(2, 3, 5, 5), []
    for fused in (False, True):
        net.plan("caffe", "cpu", "fp32").backend = CUDA if fused else CPU
        launched.clear()
        maps.append(ebp_cuda.ExcitationBackprop(net, "1", "4", "caffe").attribute(x, "all"))
        assert launched["conv2d_sweep onto"] == (1 if fused else 0)
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-4, atol=1e-6)


def test_nothing_is_read_back(module: nn.Module) -> None:
    """So that it can be recorded as a CUDA graph."""
    from ebp_cuda import engine
    from ebp_cuda.ops.host_sync import ForbidHostSync

    explain, x = method(module, True, "caffe", "tf32", "point"), torch.rand(1, 3, 13, 11)
    explain.run(x, 1)
    plan, graph = explain.plan, explain.plan.graph
    top, wanted = graph.outputs[0], graph.resolve("stem")[0]
    route = plan.route([top], [wanted])
    inputs = {next(iter(graph.inputs)): plan.place(x)}
    seed = torch.eye(5)[:1]
    with ForbidHostSync():
        trace = engine.forward(plan, inputs, route.keep | {top}, route.nodes)
        engine.contrastive_sweep(plan, trace, top, Relevance(seed), graph.resolve("point")[0], [wanted])[wanted].p()


class Sweeps:
    """A backend whose every term is t, and that keeps note of what was asked of it."""

    gates = True

    def __init__(self, t: torch.Tensor) -> None:
        self.t, self.asked = t, list[tuple[bool, bool]]()

    def evaluate(
        self, terms: Sequence[Term], addend: torch.Tensor | None, gate: torch.Tensor | None, owned: bool
    ) -> torch.Tensor:
        for last in [False] * (len(terms) - 1) + [True]:
            self.asked.append((last and gate is not None, addend is not None))
            addend = self.t if addend is None else self.t + addend
        assert addend is not None
        return addend if gate is None else ops.gate(addend, gate)


def test_a_sweep_waits_for_what_multiplies_it() -> None:
    t, x, gate = torch.rand(4, 2, 3, 3), torch.rand(2, 2, 3, 3), torch.rand(2, 2, 3, 3)
    backend, part = Sweeps(t), Part("layer", "linear", torch.ones(1, 1), None)

    def waiting() -> Relevance:
        return Relevance(Pending(backend, [Term(part, t, None, x.shape, "ops")]), x)

    one = waiting()
    assert not backend.asked
    torch.testing.assert_close(one.p(), Relevance(t, x).p())
    torch.testing.assert_close(one.divided_by(gate), Relevance(t, x).divided_by(gate))
    assert backend.asked == [(True, False)] * 2
    assert torch.equal(one.s, t) and torch.equal(one.scale_columns(gate), ops.gate(t, gate)) and len(backend.asked) == 3
    backend.asked.clear()
    total = add([waiting(), Relevance(t, x), waiting()])
    torch.testing.assert_close(total.p(), Relevance(3 * t, x).p())
    assert backend.asked == [(False, True), (True, True)]
