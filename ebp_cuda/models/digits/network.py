"""The digits network: one description, read by the prototxt writer and by its differentiable twin in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import _prototxt
from . import scenes

_LRN_SIZE, _LRN_ALPHA, _LRN_BETA = 5, 0.1, 0.75


class Builder(Protocol):
    """What a description needs; `models._prototxt.PrototxtWriter` and `Twin` both have it."""

    def conv(self, name: str, bottom: str, outputs: int, *, kernel: int, stride: int = 1, pad: int = 0) -> str: ...
    def relu(self, name: str, bottom: str) -> str: ...
    def max_pool(self, name: str, bottom: str, *, kernel: int, stride: int = 1, pad: int = 0) -> str: ...
    def ave_pool(self, name: str, bottom: str, *, kernel: int, stride: int = 1, pad: int = 0) -> str: ...
    def lrn(self, name: str, bottom: str, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> str: ...
    def concat(self, name: str, bottoms: Sequence[str]) -> str: ...


def describe(net: Builder, data: str) -> str:
    """Adds every layer above the blob `data` [N, 3, 112, 112]; returns the top's name, scores [N, 10, 1, 1].

    A larger image gives a plane of scores: the classifier is a 1x1 convolution.
    """
    x = _conv(net, "conv1", data, 24, kernel=5, stride=2, pad=2)
    x = net.max_pool("pool1", x, kernel=3, stride=2)
    x = net.lrn("norm1", x, size=_LRN_SIZE, alpha=_LRN_ALPHA, beta=_LRN_BETA)
    x = _conv(net, "conv2/reduce", x, 24, kernel=1)
    x = _conv(net, "conv2", x, 64, kernel=3, pad=1)
    x = net.lrn("norm2", x, size=_LRN_SIZE, alpha=_LRN_ALPHA, beta=_LRN_BETA)
    x = net.max_pool("pool2", x, kernel=3, stride=2)
    x = _inception(net, "inception_a", x, 32, (32, 48), (8, 16), 16)
    x = _inception(net, "inception_b", x, 48, (48, 64), (12, 24), 24)
    x = net.max_pool("pool3", x, kernel=3, stride=2)
    x = _inception(net, "inception_c", x, 64, (64, 96), (16, 32), 32)
    x = net.ave_pool("pool_ave", x, kernel=7)
    return net.conv("classifier", x, scenes.CLASSES, kernel=1)


def _conv(
    net: Builder, name: str, bottom: str, outputs: int, *, kernel: int, stride: int = 1, pad: int = 0
) -> str:  # fmt: skip
    relu = f"{name.replace('/', '/relu_', 1) if '/' in name else 'relu_' + name}"
    return net.relu(relu, net.conv(name, bottom, outputs, kernel=kernel, stride=stride, pad=pad))


def _inception(
    net: Builder, name: str, bottom: str, ones: int, threes: tuple[int, int], fives: tuple[int, int], pooled: int
) -> str:
    """Four branches side by side; the pairs are (channels of the 1x1 reduction, channels of the convolution)."""
    three = _conv(net, f"{name}/3x3_reduce", bottom, threes[0], kernel=1)
    five = _conv(net, f"{name}/5x5_reduce", bottom, fives[0], kernel=1)
    pool = net.max_pool(f"{name}/pool", bottom, kernel=3, pad=1)
    branches = [
        _conv(net, f"{name}/1x1", bottom, ones, kernel=1),
        _conv(net, f"{name}/3x3", three, threes[1], kernel=3, pad=1),
        _conv(net, f"{name}/5x5", five, fives[1], kernel=5, pad=2),
        _conv(net, f"{name}/pool_proj", pool, pooled, kernel=1),
    ]
    return net.concat(f"{name}/output", branches)


def prototxt() -> str:
    """The text of deploy.prototxt."""
    net = _prototxt.PrototxtWriter("digits")
    describe(net, net.input("data", (1, 3, scenes.SIZE, scenes.SIZE)))
    return net.text()


class Twin(nn.Module):
    """The same network as a torch module, for training and for gradients by autograd.

    batch_norm: normalize behind every convolution but the classifier, as training does; `weights` folds that into
    the convolutions, and the Caffe network has no such layers.
    """

    def __init__(self, batch_norm: bool = False) -> None:
        super().__init__()
        self.convs, self.norms = nn.ModuleDict(), nn.ModuleDict()
        self._steps: list[tuple[Callable[..., torch.Tensor], tuple[str, ...], str]] = []
        self._channels = {"data": 3}
        self._top = describe(self, "data")
        if batch_norm:
            self.norms.update({n: nn.BatchNorm2d(self._channels[n]) for n in self.convs if n != self._top})

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """data: [N, 3, H, W], BGR, 0..255 less the mean -> scores [N, 10, h, w]."""
        blobs = {"data": data}
        for apply, bottoms, top in self._steps:
            blobs[top] = apply(*(blobs[name] for name in bottoms))
        return blobs[self._top]

    def weights(self) -> dict[str, list[np.ndarray]]:
        """Layer -> [weight, bias], float32, with batch normalization folded in."""
        folded: dict[str, list[np.ndarray]] = {}
        for name, module in self.convs.items():
            conv = cast(nn.Conv2d, module)
            assert conv.bias is not None
            weight, bias = conv.weight.detach().double(), conv.bias.detach().double()
            if name in self.norms:
                norm = cast(nn.BatchNorm2d, self.norms[name])
                assert norm.running_mean is not None and norm.running_var is not None
                factor = norm.weight.detach() / (norm.running_var.double() + norm.eps).sqrt()
                weight, bias = weight * factor[:, None, None, None], (bias - norm.running_mean) * factor + norm.bias
            folded[name] = [array.detach().float().numpy() for array in (weight, bias)]
        return folded

    def load_weights(self, weights: dict[str, list[np.ndarray]]) -> None:
        """Takes what `weights` or a caffemodel gives. Only for a twin without batch normalization."""
        with torch.no_grad():
            for name, module in self.convs.items():
                conv = cast(nn.Conv2d, module)
                assert conv.bias is not None
                conv.weight.copy_(torch.from_numpy(weights[name][0]))
                conv.bias.copy_(torch.from_numpy(weights[name][1]))

    def _add(self, name: str, apply: Callable[..., torch.Tensor], bottoms: Sequence[str], channels: int) -> str:
        self._steps.append((apply, tuple(bottoms), name))
        self._channels[name] = channels
        return name

    def conv(self, name: str, bottom: str, outputs: int, *, kernel: int, stride: int = 1, pad: int = 0) -> str:
        conv = nn.Conv2d(self._channels[bottom], outputs, kernel, stride, pad)
        nn.init.kaiming_normal_(conv.weight)
        nn.init.zeros_(cast(torch.Tensor, conv.bias))
        self.convs[name] = conv

        def apply(x: torch.Tensor) -> torch.Tensor:
            x = conv(x)
            return self.norms[name](x) if name in self.norms else x

        return self._add(name, apply, [bottom], outputs)

    def relu(self, name: str, bottom: str) -> str:
        return self._add(bottom, F.relu, [bottom], self._channels[bottom])

    def max_pool(self, name: str, bottom: str, *, kernel: int, stride: int = 1, pad: int = 0) -> str:
        def apply(x: torch.Tensor) -> torch.Tensor:
            return F.max_pool2d(x, kernel, stride, pad, ceil_mode=True)

        return self._add(name, apply, [bottom], self._channels[bottom])

    def ave_pool(self, name: str, bottom: str, *, kernel: int, stride: int = 1, pad: int = 0) -> str:
        def apply(x: torch.Tensor) -> torch.Tensor:
            window = min(kernel, *x.shape[2:])  # the small scenes that training begins with are averaged whole
            return F.avg_pool2d(x, window, stride, pad, ceil_mode=True)

        return self._add(name, apply, [bottom], self._channels[bottom])

    def lrn(self, name: str, bottom: str, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> str:
        channels = self._channels[bottom]
        distance = (torch.arange(channels)[:, None] - torch.arange(channels)).abs()
        window = (distance <= size // 2).float()[:, :, None, None]

        def apply(x: torch.Tensor) -> torch.Tensor:
            # a 1x1 convolution sums over the window: torch's local_response_norm is as slow as all the rest together
            energy = F.conv2d(x * x, window.to(x.dtype))
            return x * torch.exp(-beta * torch.log1p(alpha / size * energy))

        return self._add(name, apply, [bottom], channels)

    def concat(self, name: str, bottoms: Sequence[str]) -> str:
        def apply(*parts: torch.Tensor) -> torch.Tensor:
            return torch.cat(parts, 1)

        return self._add(name, apply, bottoms, sum(self._channels[blob] for blob in bottoms))
