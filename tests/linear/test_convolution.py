"""The forward convolutions that CUDA takes: the call that cuDNN gets must mean the same as torch's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ebp_cuda.graph import Node
from ebp_cuda.linear import CUDA, LinearMap
from ebp_cuda.linear import cuda as module

WINDOWS: list[dict[str, Any]] = [
    {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 1},
    {"stride": (1, 3), "padding": (0, 2), "dilation": (2, 1), "groups": 2},
    {"stride": (2,), "padding": (3,), "dilation": (2,), "groups": 2},
]
asked: list[tuple[bool, bool, bool]] = []


@pytest.fixture(scope="module")
def stand_ins() -> Iterator[None]:
    """cuDNN's two operators on the CPU, with torch's schema and ATen's arithmetic."""
    library = torch.library.Library("aten", "IMPL")

    def forward(x, weight, padding, stride, dilation, groups, *settings):
        asked.append(settings)
        return F.conv2d(x, weight, None, stride, padding, dilation, groups)

    def transposed(x, weight, padding, output_padding, stride, dilation, groups, *settings):
        asked.append(settings)
        return F.conv_transpose2d(x, weight, None, stride, padding, output_padding, groups, dilation)

    library.impl("cudnn_convolution", forward, "CPU")
    library.impl("cudnn_convolution_transpose", transposed, "CPU")
    yield
    library._destroy()


@pytest.fixture
def cudnn(stand_ins, monkeypatch) -> None:
    asked.clear()
    monkeypatch.setattr(module, "by_cudnn", lambda x: True)


def operands(window: dict[str, Any], transposed: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rank = len(window["stride"])
    channels = (4, 6 // window["groups"]) if transposed else (6, 4 // window["groups"])
    return torch.randn(2, 4, *(13, 11)[:rank]), torch.randn(*channels, *(3, 2)[:rank]), torch.randn(6)


def forward(op: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, **window: Any) -> torch.Tensor:
    attrs = {**window, "padding_end": window["padding"]}
    node = Node("layer", op, ("x",), ("y",), attrs, {"weight": weight})
    return LinearMap.of(node, weight, CUDA).forward(x, bias)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("biased", [True, False])
def test_cudnn_is_asked_for_torchs_convolution(window, biased, cudnn) -> None:
    x, weight, bias = operands(window, False)
    got = forward("conv", x, weight, bias if biased else None, **window)
    plain = F.conv1d if x.dim() == 3 else F.conv2d
    wanted = plain(
        x, weight, bias if biased else None, *(window[k] for k in ("stride", "padding", "dilation", "groups"))
    )
    torch.testing.assert_close(got, wanted)
    assert asked == [(False, True, False)]  # no benchmark, deterministic, no tf32


@pytest.mark.parametrize("window", WINDOWS)
def test_cudnn_is_asked_for_torchs_transposed_convolution(window, cudnn) -> None:
    x, weight, bias = operands(window, True)
    extra = (1,) if x.dim() == 3 else (1, 0) if window["stride"] == (2, 1) else (0, 1)
    got = forward("conv_transpose", x, weight, bias, output_padding=extra, **window)
    plain = F.conv_transpose1d if x.dim() == 3 else F.conv_transpose2d
    wanted = plain(x, weight, bias, window["stride"], window["padding"], extra, window["groups"], window["dilation"])
    torch.testing.assert_close(got, wanted)
    assert asked == [(False, True, False)]


@pytest.mark.gpu
@pytest.mark.parametrize("window", WINDOWS)
def test_float32_stays_float32_on_cuda(window, monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    x, weight, bias = operands(window, False)
    wanted = forward("conv", x.double(), weight.double(), bias.double(), **window)
    got = forward("conv", x.cuda(), weight.cuda(), bias.cuda(), **window).cpu()
    assert float((got - wanted).norm() / wanted.norm()) < 1e-6  # tf32 would be near 3e-4
    again = forward("conv", x.cuda(), weight.cuda(), bias.cuda(), **window).cpu()
    assert torch.equal(got, again)
