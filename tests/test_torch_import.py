"""torch modules become graphs: every value equals the module's own, and the module is left alone."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ebp_cuda.errors import InputError, UnsupportedError
from ebp_cuda.graph import Graph
from ebp_cuda.importers.torch import from_module
from ebp_cuda.net import Net

torch.set_num_threads(1)


class Fn(nn.Module):
    """A module from a function of the input and the module's children, which keyword arguments name."""

    def __init__(self, function: Callable[..., Any], **children: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, *x: torch.Tensor) -> Any:
        return self.function(self, *x)


def randomised(module: nn.Module) -> nn.Module:
    """The module with running statistics and weights that make every layer's effect visible."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
    return module


def recorded(module: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What every module of an evaluation-mode copy returned, by path ("path#2": its second call); "" for the whole."""
    twin, calls, found = copy.deepcopy(module).eval(), Counter[str](), {}

    def record(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            calls[path] += 1
            if isinstance(output, torch.Tensor):
                found[path if calls[path] == 1 else f"{path}#{calls[path]}"] = output.clone()

        return hook

    for path, part in twin.named_modules():
        if "parametrizations" in path:
            continue  # makes weights, no activations
        part.register_forward_hook(record(path))
    with torch.no_grad():
        twin(x.clone())
    return found


def assert_equal(module: nn.Module, *shape: int, swallowed: Collection[str] = ()) -> Graph:
    """Imports with one image, then compares every module's output on one and on three images.

    swallowed: paths of modules that became part of another module's node.
    """
    generator = torch.Generator().manual_seed(1)
    randomised(module)
    graph = from_module(module, torch.randn(1, *shape, generator=generator))
    net = Net(graph)
    for count in (1, 3):
        x = torch.randn(count, *shape, generator=generator)
        wanted = recorded(module, x)
        whole = wanted.pop("")
        for path in swallowed:
            del wanted[path]
        assert set(graph.names) == set(wanted)
        got = net.forward(x, outputs=[*graph.names, *graph.outputs])
        for name, value in [*wanted.items(), (graph.outputs[0], whole)]:
            assert got[name].shape == value.shape, name
            assert (got[name] - value).abs().max() <= 1e-5 * value.abs().max().clamp(min=1e-3), name
    return graph


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


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
    *(F.relu, F.relu6, F.sigmoid, F.tanh, F.silu, F.gelu, F.hardswish, F.hardsigmoid, F.selu, F.softplus),
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
        lambda x: F.adaptive_avg_pool2d(x, 8),
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
    "moves": (Fn(lambda m, x: torch.cat([f(x).flatten(1) for f in MOVES], 1)), (6, 8, 8)),
    "dropout, identity": (nn.Sequential(nn.Dropout(), nn.Identity(), nn.Dropout2d(), nn.Softmax(1)), (6, 2, 2)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch, on an even kernel
@pytest.mark.parametrize("case", CASES)
def test_every_value_equals_the_modules(case: str) -> None:
    module, shape = CASES[case]
    assert_equal(module, *shape)


class PortedLRN(nn.Module):
    """The form that ports of Caffe networks use, with everything the other way round than torch's."""

    def __init__(self, region: str) -> None:
        super().__init__()
        across = region == "across"
        self.average = nn.AvgPool3d((5, 1, 1), 1, (2, 0, 0)) if across else nn.AvgPool2d(3, 1, 1)
        self.across = across

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squares = x.pow(2).unsqueeze(1) if self.across else x.pow(2)
        average = self.average(squares).squeeze(1) if self.across else self.average(squares)
        return x * (2 + 0.5 * average).pow(-0.75)


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
        lambda x: F.local_response_norm(x, 4),  # its window is not centred
        lambda x: x / x.pow(2).mean(1, keepdim=True).add(1).sqrt(),
        lambda x: x / F.avg_pool2d(x.pow(2), 3, 1, 1, count_include_pad=False).add(1).pow(0.75),
        lambda x: x / F.avg_pool2d((2 * x).pow(2), 3, 1, 1).add(1).pow(0.75),
    ]
    with pytest.raises(UnsupportedError, match="4 ATen calls") as caught:
        from_module(Fn(lambda m, x: [f(x) for f in quotients]), torch.rand(1, 4, 6, 6))
    assert str(caught.value).count("no local response norm") == 4


class Residual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride), nn.BatchNorm2d(out)) if stride > 1 else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class Inception(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, 2, 1)
        self.three = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(), nn.Conv2d(2, 4, 3, padding=1))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(channels, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(torch.cat([self.one(x), self.three(x), self.pool(x)], 1), inplace=True)


class Gated(nn.Module):
    """Inverted residual with squeeze-excite, as MobileNetV3 has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.depth = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Hardswish())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
        self.project = nn.Conv2d(8, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depth(self.expand(x))
        return x + self.project(y * self.gate(y))


def classifier(features: nn.Module, count: int) -> nn.Module:
    fc = nn.Sequential(nn.Dropout(), nn.Linear(count, 8), nn.ReLU(True), nn.Linear(8, 5))
    return Fn(lambda m, x: m.classifier(torch.flatten(m.features(x), 1)), features=features, classifier=fc)


def alexnet() -> nn.Module:
    return classifier(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(inplace=True), nn.LocalResponseNorm(5, 1e-2), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True)),
            nn.AdaptiveAvgPool2d((3, 3)),
        ),
        72,
    )


def resnet() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(True), nn.MaxPool2d(3, 2, 1))
    blocks = nn.Sequential(Residual(4, 4, 1), Residual(4, 8, 2))
    return classifier(nn.Sequential(stem, blocks, nn.AdaptiveAvgPool2d((1, 1))), 8)


def googlenet() -> nn.Module:
    stem = nn.Sequential(
        nn.Conv2d(3, 4, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5)
    )
    blocks = nn.Sequential(Inception(4), Inception(8), nn.AvgPool2d(7, 1))
    return Fn(lambda m, x: m.top(m.blocks(m.stem(x))), stem=stem, blocks=blocks, top=nn.Conv2d(8, 5, 1))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (alexnet(), {"conv": 2, "relu": 3, "lrn": 1, "max_pool": 2, "avg_pool": 0, "linear": 2}),
        (resnet(), {"conv": 6, "batch_norm": 6, "sum": 2, "mean": 1, "relu": 6, "linear": 2}),
        (googlenet(), {"conv": 10, "lrn": 1, "concat": 2, "max_pool": 3, "avg_pool": 1}),
        (nn.Sequential(Gated(3), Gated(3)), {"clip": 2, "hard_swish": 2, "mul": 2, "mean": 2, "sum": 2}),
    ],
    ids=["alexnet", "resnet", "googlenet", "mobilenet"],
)
def test_published_patterns(module: nn.Module, expected: dict[str, int]) -> None:
    graph = assert_equal(module, 3, 32, 32)
    found = Counter(ops(graph))
    assert {op: found[op] for op in expected} == expected


def test_modules_are_named_by_their_paths() -> None:
    module = Fn(lambda m, x: m.tail(m.block(m.block(x))), block=Residual(4, 4, 1), tail=nn.Sequential(nn.ReLU()))
    graph = from_module(module, torch.rand(2, 4, 6, 6))
    names = [node.name for node in graph.nodes]
    assert names[:7] == [f"block.{name}" for name in ("conv1", "bn1", "relu", "conv2", "bn2", "sum", "relu#2")]
    assert names[7:11] == ["block.conv1#2", "block.bn1#2", "block.relu#3", "block.conv2#2"]
    assert names[11:14] == ["block.bn2#2", "block#2.sum", "block.relu#4"]
    assert graph.resolve("block") == ("block.relu#2",)
    assert graph.resolve("block#2") == ("block.relu#4",)
    assert graph.resolve("tail") == graph.resolve("tail.0") == ("tail.0",)
    assert list(graph.inputs.values()) == [(None, 4, 6, 6)]
    assert graph.nodes[0].source == "aten.conv2d"


def test_the_module_is_left_alone_and_its_memory_is_used() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True), nn.Identity())
    module[0].bias.requires_grad_(False)  # type: ignore[union-attr]
    module[1].eval()
    module[3].register_forward_hook(lambda m, i, o: None)
    x = torch.rand(1, 3, 8, 8, requires_grad=True)

    def state() -> list[Any]:
        tensors = [*module.parameters(), *module.buffers(), x]
        flags = [(type(m), m.training, len(m._forward_hooks), set(m.__dict__)) for m in module.modules()]
        return [flags, [(id(t), t.data_ptr(), t._version, t.requires_grad, t.grad is None, t.sum()) for t in tensors]]

    before, grad = state(), torch.is_grad_enabled()
    graph = from_module(module, x)
    assert state() == before
    assert torch.is_grad_enabled() == grad
    weight = graph.nodes[0].params["weight"]
    assert weight.data_ptr() == module[0].weight.data_ptr()  # type: ignore[union-attr]
    assert not weight.requires_grad


def test_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def forward(self, image: torch.Tensor, depth: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"b": image + 1, "a": image + depth}

    x = {"depth": torch.rand(2, 3, 4, 4), "image": torch.rand(2, 3, 4, 4)}
    for example in (x, (x["image"], x["depth"])):
        graph = from_module(Two(), example)
        got = Net(graph).forward(x)
        assert set(graph.inputs) == {"image", "depth"}
        assert torch.equal(got[graph.outputs[0]], x["image"] + 1)
        assert torch.equal(got[graph.outputs[1]], x["image"] + x["depth"])


def test_labels_and_preprocess_are_kept() -> None:
    graph = from_module(nn.Linear(2, 2), torch.rand(1, 2), labels=["cat", "dog"], preprocess={"raw_scale": 1})
    assert graph.meta["labels"] == ["cat", "dog"]
    assert graph.meta["preprocess"] == {"raw_scale": 1}
    assert "Linear" in graph.origin


def test_all_unsupported_calls_are_listed_with_their_modules() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Sequential(nn.LayerNorm(6), nn.PixelShuffle(2))
    )
    with pytest.raises(UnsupportedError) as caught:
        from_module(module, torch.rand(1, 3, 6, 6))
    text = str(caught.value)
    assert "3 ATen calls" in text
    for part in ("group_norm", "'1'", "layer_norm", "'3.0'", "pixel_shuffle", "'3.1'"):
        assert part in text


def test_refusals_say_why() -> None:
    refused: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "its 'other' is computed from the input": lambda x: x @ x.transpose(2, 3),
        "statistics of its input": lambda x: F.batch_norm(x, None, None, training=True),
        "windows of several sizes": lambda x: F.adaptive_avg_pool2d(x, 4),
        "adds activations of different shapes": lambda x: x + x.mean((2, 3), keepdim=True),
        "takes a part of the batch": lambda x: x[:1] * 1.0,
        "moves or mixes the batch axis": lambda x: x.transpose(0, 1),
        "mixes the images of a batch": lambda x: x.flatten(),
        "by a constant": lambda x: x.mean((2, 3), keepdim=True) + torch.ones(3, 6, 6),
        "pads by 'reflect'": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
        "'tanh' approximation": lambda x: F.gelu(x, approximate="tanh"),
        "besides the first": lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
        "float32 to torch.float16": lambda x: x.half(),
    }
    with pytest.raises(UnsupportedError) as caught:
        from_module(Fn(lambda m, x: [f(x) for f in refused.values()]), torch.rand(2, 3, 6, 6))
    lines = str(caught.value).splitlines()[1:]
    for reason in refused:
        assert sum(reason in line for line in lines) == 1, reason
    assert len(lines) == len(refused)


def test_a_module_that_needs_its_batch_keeps_it() -> None:
    module = Fn(lambda m, x: m.fc(x.view(2, -1)), fc=nn.Linear(12, 3))
    with pytest.warns(UserWarning, match=r"batch size is fixed \(x.*: \[2, 3, 2, 2\]\)"):
        graph = from_module(module, torch.rand(2, 3, 2, 2))
    assert next(iter(graph.inputs.values())) == (2, 3, 2, 2)


@pytest.mark.parametrize(
    ("module", "example", "error", "words"),
    [
        (nn.Linear(3, 2), torch.rand(1, 4), InputError, r"does not run on the example input \[1, 4\]"),
        (nn.Linear(3, 2), "photo.jpg", InputError, "is str, wanted a tensor"),
        (nn.Linear(3, 2), [], InputError, "no tensor"),
        (torch.relu, torch.rand(1, 4), InputError, "wanted a torch.nn.Module"),
        (Fn(lambda m, x: x if x.sum() > 0 else -x), torch.rand(1, 4), UnsupportedError, "cannot trace"),
    ],
)
def test_what_cannot_be_imported(module: Any, example: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        from_module(module, example)
