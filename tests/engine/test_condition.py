"""Attribution.mass_left, and the warning where a precision cannot carry it."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import ebp_cuda
from ebp_cuda.engine.condition import ALLOWED, ERROR, PrecisionWarning, mass_left, warn_where_lost
from ebp_cuda.rules.relevance import Relevance


@pytest.fixture(scope="module")
def net() -> ebp_cuda.Net:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return ebp_cuda.from_torch(nn.Sequential(*layers, nn.Linear(8, 4)).eval(), torch.rand(1, 3, 9, 9))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp64"])
def test_it_is_the_ratio_of_masses(net: ebp_cuda.Net, dtype: str) -> None:
    x, options = torch.rand(2, 3, 9, 9), {"contrast_layer": "4", "dtype": dtype}
    found = ebp_cuda.ExcitationBackprop(net, "1", **options).run(x, [[0, 3], [1, 2]])
    masses = [
        ebp_cuda.ExcitationBackprop(net, layer, **options).relevance(x, [[0, 3], [1, 2]]).abs().sum((2, 3, 4))
        for layer in ("1", "4")
    ]
    torch.testing.assert_close(found.mass_left, masses[0] / masses[1])
    assert 0 < found.mass_left.min() < found.mass_left.max() < 1


def test_without_a_contrast_nothing_is_lost(net: ebp_cuda.Net) -> None:
    found = ebp_cuda.ExcitationBackprop(net, "1", rules="conserving").run(torch.rand(2, 3, 9, 9), "all")
    torch.testing.assert_close(found.mass_left, torch.ones(2, 4))


def test_nothing_that_began_leaves_nothing() -> None:
    assert torch.equal(mass_left(torch.zeros(2, 3, 4, 4), Relevance(torch.zeros(2, 5))), torch.zeros(2))


@pytest.mark.parametrize(("precision", "better"), [("bf16", "fp32"), ("tf32", "fp32"), ("fp32", "fp64")])
def test_a_warning_says_what_is_left(precision: str, better: str) -> None:
    edge = ERROR[precision] / ALLOWED
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not warn_where_lost(torch.tensor([[1.01 * edge, 0.0], [1.0, 1.0]]), precision, "pool2")
    with pytest.warns(PrecisionWarning, match=f"layer 'pool2': only .* dtype='{precision}' .* 4%.* dtype='{better}'"):
        assert warn_where_lost(torch.tensor([[edge / 2, 1.0]]), precision, "pool2")


def test_a_method_warns_once(net: ebp_cuda.Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ERROR, "bf16", 1.0)
    method = ebp_cuda.ExcitationBackprop(net, "1", contrast_layer="4", dtype="bf16")
    x = torch.rand(1, 3, 9, 9)
    with pytest.warns(PrecisionWarning) as caught:
        method.run(x, 0)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.attribute(x, 1)
        ebp_cuda.ExcitationBackprop(net, "1", dtype="bf16").run(x, 0)
        ebp_cuda.ExcitationBackprop(net, "1", contrast_layer="4").run(x, 0)
