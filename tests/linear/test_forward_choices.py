"""The table that says who computes a forward convolution on CUDA: what stands in it holds."""

from __future__ import annotations

import pytest
import torch

from ebp_cuda.graph import Node
from ebp_cuda.linear import cuda
from ebp_cuda.linear.forward_choices import FORWARD, HALF, OURS, ForwardRow, why_library
from ebp_cuda.linear.map import LinearMap


@pytest.mark.parametrize(
    ("kernel", "stride", "channels", "library"),
    [
        ((1, 1), (1, 1), 64, OURS),
        ((3, 3), (1, 1), 64, HALF),
        ((1, 7), (1, 1), 64, HALF),
        ((3, 3), (2, 2), 64, OURS),
        ((7, 7), (2, 2), 3, "too few channels to fill tiles"),
        ((1, 1), (1, 1), 3, "too few channels to fill tiles"),
    ],
)
def test_who_computes_what_today(kernel, stride, channels, library) -> None:
    assert why_library(kernel, stride, channels, FORWARD) == library


def test_an_entry_changes_the_choice(monkeypatch) -> None:
    settings = {"padding": (1, 1), "padding_end": (1, 1), "stride": (1, 1), "dilation": (1, 1), "groups": 1}
    node = Node("c", "conv", ("x",), ("y",), settings, {"weight": torch.ones(16, 8, 3, 3)})
    linear = LinearMap.of(node, node.params["weight"], cuda.Cuda())
    assert linear.why_no_normalizer == HALF
    monkeypatch.setattr(cuda, "FORWARD", (ForwardRow(9, 1, 8, OURS), *FORWARD))
    assert linear.why_no_normalizer == ""
    monkeypatch.setattr(cuda, "FORWARD", (ForwardRow(10, 1, 8, OURS), *FORWARD))
    assert linear.why_no_normalizer == HALF
