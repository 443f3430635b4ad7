"""torch modules become graphs: what every module of them returns is what the original returned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from support.torch_modules import Fn, PortedLRN, alexnet, assert_equal, googlenet, mobilenet, ops, resnet
from torch import nn

from ebp_cuda.api import ExcitationBackprop
from ebp_cuda.importers.torch import from_module
from ebp_cuda.net import Net

torch.set_num_threads(1)


def _in_place(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = m.conv(x)
    a, b = x.chunk(2, 1)
    a = a.clone().relu_()
    b = (b * 2).add_(a).clamp_(min=0)
    return F.hardtanh_(b, 0, 6)


def _shuffle(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def _pieces(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    a, b, c = x.split([1, 2, 3], 1)
    rows = torch.stack([c[:, 0], c[:, -1]], 1)
    parts = [*x.chunk(3, 1), a, b, x[:, 1:5:2], rows, torch.cat(x.unbind(1)[:1], 1)[:, None].expand(-1, -1, 8, 8)]
    return torch.cat(parts[:-1], 1)[..., ::1]


class Constants(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1))
        self.gain = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.mean) / 0.25
        x = 1 - x * self.gain.abs().sqrt() + torch.tensor([[[1.0]], [[0.0]], [[2.0]]])
        x = -(x / self.mean) * 1.5 + 0
        return torch.sub(3, x, alpha=2) + torch.add(x, x, alpha=-0.5)


class Affines(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.addmm(self.b, x, self.w) @ self.w.T
        return F.linear(y, self.w.t() / self.w.norm()).mm(self.w.t())


POINTWISE: list[Callable[[torch.Tensor], torch.Tensor]] = [
    *(F.relu, F.relu6, F.sigmoid, F.tanh, F.silu, F.gelu, F.hardswish, F.hardsigmoid, F.selu, F.softplus, F.mish),
    *(torch.abs, torch.exp, torch.square, lambda x: x**3, lambda x: (x.abs() + 1).sqrt().log(), lambda x: -x),
    *(lambda x: F.elu(x, 0.5), lambda x: F.leaky_relu(x, 0.1), lambda x: F.softplus(x, beta=2), lambda x: x.clamp(-1)),
    *(lambda x: 1 / (x.abs() + 1), lambda x: (x * x + 1).rsqrt(), lambda x: x.clamp(max=0.5), lambda x: x.clamp(0)),
    *(lambda x: F.threshold(x, 0, 0), lambda x: torch.maximum(x, x * 0.5), lambda x: F.log_softmax(x, 1)),
]
POOLS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    *(lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 0), (1, 2))),
    *(lambda x: F.avg_pool2d(x, 3, 2, 1, True), lambda x: F.avg_pool2d(x, 3, 2, 1, False, False)),
    *(lambda x: F.adaptive_avg_pool2d(x, 1), lambda x: F.adaptive_avg_pool2d(x, (4, 2)), lambda x: x.amax((2, 3))),
    *(
        *(lambda x: F.adaptive_avg_pool2d(x, (3, None)), lambda x: F.adaptive_max_pool2d(x, (5, 11))),
        *(lambda x: F.avg_pool2d(x, 3, 1, 1, divisor_override=5), lambda x: F.adaptive_avg_pool2d(x, 8)),
        lambda x: F.adaptive_max_pool2d(x, 1),
        lambda x: F.adaptive_max_pool2d(x, 4),
    ),
    *(
        lambda x: x.mean((2, 3)),
        lambda x: x.mean(-1, keepdim=True),
        lambda x: x.sum((2, 3)),
        lambda x: x.flatten(2).mean(2),
    ),
    *(lambda x: F.max_pool1d(x.flatten(2), 4), lambda x: F.avg_pool1d(x.flatten(2), 4, 3)),
    *(lambda x: F.max_pool2d(x, 2, return_indices=True)[0],),
]
MOVES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    *(lambda x: x.permute(0, 2, 3, 1), lambda x: x.transpose(1, -1).reshape(x.shape[0], -1), lambda x: x.flatten(1, 2)),
    *(lambda x: x.unsqueeze(1).squeeze(1), lambda x: x[:, None], lambda x: F.pad(x, (1, 2, 0, 3), value=0.5)),
    *(lambda x: x.view(-1, 6 * 64), lambda x: x.unflatten(1, (2, 3)), lambda x: x[:, 2], lambda x: x[..., 1:]),
]
SIZES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda x: F.interpolate(x, scale_factor=2),
    lambda x: F.interpolate(x, size=(7, 3)),
    lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear"),
    lambda x: F.interpolate(x, size=(9, 12), mode="bilinear", align_corners=True),
]
NORMS: list[nn.Module] = [
    *(nn.LayerNorm((6, 8, 8)), nn.LayerNorm(8), nn.GroupNorm(3, 6), nn.GroupNorm(2, 6, affine=False), nn.RMSNorm(8)),
    *(nn.InstanceNorm2d(6, affine=True), nn.InstanceNorm2d(6, track_running_stats=True)),
]
WIDTHS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    *(lambda x: x + x.mean((2, 3), keepdim=True), lambda x: x.mean(1, keepdim=True) - x, lambda x: x * x[:, :1]),
    *(lambda x: x.mean(2, keepdim=True) * x.mean(3, keepdim=True), lambda x: x[..., :1] + torch.ones(6, 1, 8)),
    *(lambda x: x.mean((2, 3), keepdim=True).expand_as(x), lambda x: x[:, :1].expand(-1, 6, -1, -1) / 3),
    *(
        lambda x: F.normalize(x, dim=1),
        lambda x: x / x.norm(1, dim=(2, 3), keepdim=True),
        lambda x: x.repeat(1, 2, 1, 1),
    ),
    *(
        lambda x: torch.addcmul(x, x, x[:, :1], value=0.5),
        lambda x: torch.addcmul(torch.ones(1), x, torch.ones(8), value=2),
    ),
    *(lambda x: torch.maximum(x, x.mean(1, keepdim=True)), lambda x: x / (x.abs().mean(1, keepdim=True) + 1)),
    *(lambda x: x.amax(1, keepdim=True).expand(-1, 2, 8, 8), lambda x: x.max(2, keepdim=True)[0].expand(-1, 6, 8, 8)),
]
COPIES: list[Callable[[torch.Tensor], torch.Tensor]] = [
    *(lambda x: F.pixel_shuffle(x[:, :4], 2), lambda x: F.pixel_unshuffle(x, 2), lambda x: F.channel_shuffle(x, 3)),
    *(lambda x: x.flip(1, 3), lambda x: x.roll((1, -2), (1, 2)), lambda x: x[:, [2, 0, 1]], lambda x: x.movedim(1, 3)),
    *(lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"), lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate")),
    *(lambda x: F.pad(x, (1, 2, 3, 0), mode="circular"), lambda x: F.pad(x, (-1, 2, 1, -3))),
    *(lambda x: torch.stack(x.unbind(2)[1:3], 2), lambda x: x.narrow(1, 2, 3), lambda x: x.index_select(3, INDEX)),
    *(
        lambda x: F.glu(x, 1),
        lambda x: F.celu(x, 0.5),
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: F.logsigmoid(x),
    ),
    lambda x: x.swapaxes(1, 2),
]
INDEX = torch.tensor([3, 3, 0])


def _coordinates(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Channels that tell where a pixel is, as CoordConv has them, and one of zeros."""
    ramp = torch.linspace(-1, 1, 8).expand(x.shape[0], 1, 8, 8)
    return torch.cat([ramp, x, x.new_zeros(x.shape[0], 2, 8, 8), x[:, :1], ramp + 1], 1)


VOLUMES = nn.Sequential(
    *(nn.Conv3d(2, 4, 3, (1, 2, 2), 1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))),
    *(
        nn.ConvTranspose3d(4, 3, 2, 2),
        nn.AvgPool3d(2, 1),
        nn.AdaptiveAvgPool3d((2, 1, 2)),
        nn.Flatten(),
        nn.Linear(12, 3),
    ),
)
CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv1d": (nn.Sequential(nn.Conv1d(4, 6, 3, 2, 1), nn.BatchNorm1d(6), nn.ReLU()), (4, 11)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), groups=2, bias=False), (4, 9, 8)),
    "conv2d same": (nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), (3, 9, 8)),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2), (4, 5, 6)),
    "linear": (Affines(), (6,)),
    "weight_norm": (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), (3, 6, 6)),
    "prelu": (nn.Sequential(nn.PReLU(3), nn.PReLU()), (3, 4, 4)),
    "constants": (Constants(), (3, 4, 5)),
    "in place": (Fn(_in_place, conv=nn.Conv2d(3, 4, 3)), (3, 6, 6)),
    "channel shuffle": (Fn(_shuffle), (6, 4, 4)),
    "pieces": (Fn(_pieces), (6, 8, 8)),
    "pointwise": (Fn(lambda m, x: torch.cat([f(x) for f in POINTWISE], 1)), (3, 4, 4)),
    "pools": (Fn(lambda m, x: torch.cat([f(x.relu()).flatten(1) for f in POOLS], 1)), (6, 8, 8)),
    "resize": (Fn(lambda m, x: torch.cat([f(x).flatten(1) for f in SIZES], 1)), (3, 5, 6)),
    "norms": (Fn(lambda m, x: torch.cat([n(x) for n in m.norms], 1), norms=nn.ModuleList(NORMS)), (6, 8, 8)),
    "widths": (Fn(lambda m, x: torch.cat([f(x).flatten(1) for f in WIDTHS], 1)), (6, 8, 8)),
    "copies": (Fn(lambda m, x: torch.cat([f(x).flatten(1) for f in COPIES], 1)), (6, 8, 8)),
    "coordinates": (Fn(_coordinates), (6, 8, 8)),
    "volumes": (VOLUMES, (2, 4, 9, 8)),
    "moves": (Fn(lambda m, x: torch.cat([f(x).flatten(1) for f in MOVES], 1)), (6, 8, 8)),
    "dropout, identity": (nn.Sequential(nn.Dropout(), nn.Identity(), nn.Dropout2d(), nn.Softmax(1)), (6, 2, 2)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch, on an even kernel
@pytest.mark.parametrize("case", CASES)
def test_every_value_equals_the_modules(case: str) -> None:
    module, shape = CASES[case]
    assert_equal(module, *shape)


@pytest.mark.parametrize(
    ("module", "size", "region", "k"),
    [
        (nn.LocalResponseNorm(5, alpha=0.5, k=2), 5, "across", 2),
        (nn.LocalResponseNorm(3, alpha=0.5, k=1), 3, "across", 1),
        (PortedLRN("across"), 5, "across", 2),
        (PortedLRN("within"), 3, "within", 2),
    ],
)
def test_local_response_norm_is_recognised(module: nn.Module, size: int, region: str, k: float) -> None:
    swallowed = ["1.average"] if isinstance(module, PortedLRN) else []
    graph = assert_equal(nn.Sequential(nn.ReLU(), module), 7, 6, 5, swallowed=swallowed)
    assert ops(graph) == ["relu", "lrn"]
    assert dict(graph.nodes[1].attrs) == {"size": size, "alpha": 0.5, "beta": 0.75, "k": k, "region": region}


def test_other_quotients_are_not_taken_for_it() -> None:
    quotients: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda x: F.local_response_norm(x, 4),  # its window is not centered
        lambda x: x / x.pow(2).mean(1, keepdim=True).add(1).sqrt(),
        lambda x: x / F.avg_pool2d(x.pow(2), 3, 1, 1, count_include_pad=False).add(1).pow(0.75),
        lambda x: x / F.avg_pool2d((2 * x).pow(2), 3, 1, 1).add(1).pow(0.75),
    ]
    graph = assert_equal(Fn(lambda m, x: torch.cat([f(x) for f in quotients], 1)), 5, 6, 6)
    assert Counter(ops(graph))["mul"] >= 4
    assert "lrn" not in ops(graph)


@pytest.mark.parametrize(
    ("module", "expected", "layer"),
    [
        (alexnet(), {"conv": 2, "relu": 3, "lrn": 1, "max_pool": 2, "avg_pool": 0, "linear": 2}, "features.3"),
        (resnet(), {"conv": 6, "batch_norm": 6, "sum": 2, "mean": 1, "relu": 6, "linear": 2}, "features.0"),
        (googlenet(), {"conv": 10, "lrn": 1, "concat": 2, "max_pool": 3, "avg_pool": 1}, "stem"),
        (mobilenet(), {"clip": 2, "hard_swish": 2, "mul": 2, "mean": 3, "sum": 2}, "features.0"),
    ],
    ids=["alexnet", "resnet", "googlenet", "mobilenet"],
)
def test_published_patterns(module: nn.Module, expected: dict[str, int], layer: str) -> None:
    graph = assert_equal(module, 3, 32, 32)
    found = Counter(ops(graph))
    assert {op: found[op] for op in expected} == expected
    maps = ExcitationBackprop(Net(graph), layer, rules="conserving").attribute(torch.randn(2, 3, 32, 32), [[0, 4]] * 2)
    assert maps.shape[:2] == (2, 2)
    assert maps.min() >= 0
    assert maps.sum((2, 3)).flatten().tolist() == pytest.approx([1] * 4, abs=1e-5)


def test_features_get_what_the_gate_does_not() -> None:
    """Whichever factor is written first, and whether the gate was repeated to full size or not."""
    conv, gate = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

    def gated(turned: bool, wide: bool) -> nn.Module:
        def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
            y = m.conv(x).relu()
            g = m.gate(y.mean((2, 3), keepdim=True)).sigmoid()
            g = g.expand_as(y) if wide else g
            return (g * y if turned else y * g).mean((2, 3))

        return Fn(forward, conv=conv, gate=gate)

    x = torch.rand(2, 3, 6, 5)
    maps = []
    for turned, wide in [(False, False), (True, False), (False, True), (True, True)]:
        net = Net(from_module(gated(turned, wide), x))
        maps.append(ExcitationBackprop(net, "conv", rules="conserving").relevance(x, [0, 2]))
        assert maps[-1][:, 0].sum((1, 2, 3)).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert all(torch.equal(p, maps[0]) for p in maps)
    assert (maps[0][0, 0].sum((1, 2)) > 0).tolist() == [True, False, False, False]  # the gate would have seen them all


def test_constants_swallow_what_reaches_them() -> None:
    module = Fn(
        lambda m, x: m.fc(torch.cat([x, torch.ones(1, 1, 4, 4).expand(x.shape[0], 1, 4, 4)], 1).flatten(1)),
        fc=nn.Linear(32, 3),
    )
    nn.init.ones_(module.fc.weight)  # type: ignore[union-attr]
    x = torch.ones(1, 1, 4, 4)
    p = ExcitationBackprop(Net(from_module(module, x)), "x_0", rules="conserving").relevance(x, 1)
    assert float(p.sum()) == pytest.approx(0.5)
