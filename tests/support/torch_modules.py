"""Small torch modules in the patterns of published networks, and the comparison of an import with its module."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ebp_cuda.graph import Graph
from ebp_cuda.importers.torch import from_module
from ebp_cuda.net import Net


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


def mobilenet() -> nn.Module:
    return classifier(nn.Sequential(Gated(3), Gated(3), nn.AdaptiveAvgPool2d(1)), 3)
