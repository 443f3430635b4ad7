"""Torch modules for the tests of the adapters, and a record of everything about a module that nobody may touch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def plain_net(classes: int = 7, *, bias: bool = True) -> nn.Sequential:
    """A small classifier for [N, 3, 16, 16] of the layers that every library knows: "4" is a layer to read, "9" the
    one below the classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1, bias=bias),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.Conv2d(12, 10, 3, bias=bias),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(10, classes, bias=bias),
    )


class FullyConvolutional(nn.Module):
    """A classifier of any image size whose output is a plane of scores."""

    def __init__(self, classes: int = 20) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU()
        )
        self.classifier = nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, classes, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


class TwoHeads(nn.Module):
    """A classifier with two outputs: five scores, and three probabilities above a softmax."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.kind, self.size = nn.Linear(32, 5), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shared = self.features(x)
        return self.kind(shared), self.size(shared).softmax(1)


def images(count: int = 2, size: int = 16, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


def state_of(module: nn.Module) -> list[Any]:
    """Hooks, settings, flags, and where the weights lie and what is in them."""
    found: list[Any] = []
    for name, part in module.named_modules():
        hooks = {key: len(value) for key, value in part.__dict__.items() if key.endswith("hooks")}
        plain = {key: value for key, value in part.__dict__.items() if isinstance(value, (int, float, str, tuple))}
        found.append((name, type(part), part.forward.__func__, hooks, plain))
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        numbers = tensor.detach().double().sum().item(), tensor._version
        found.append((name, tensor.data_ptr(), tensor.requires_grad, tensor.grad is None, *numbers))
    return found


def tensors_alive() -> int:
    gc.collect()
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())


def assert_keeps_nothing(call: Callable[[torch.Tensor], object], count: int = 1000) -> None:
    """1,000 images through an adapter leave as many tensors behind as ten do."""
    for _ in range(10):
        call(images(1))
    before = tensors_alive()
    for _ in range(count):
        call(images(1))
    assert tensors_alive() <= before
