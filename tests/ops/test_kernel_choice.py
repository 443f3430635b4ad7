"""Which CUDA kernel every convolution of the catalogue runs on, with the strides that the engine gives it."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest
from gpu_model import Launch
from gpu_trace import trace

import ebp_cuda
from ebp_cuda import models
from ebp_cuda.models import digits
from ebp_cuda.net import Net

NAMES = ["digits", *models.names()]
DTYPES = ["fp32", "tf32", "bf16"]
OURS = ("normalizer", "sweep", "forward and normalizer", *(f"forward {k}" for k in range(1, 12)))
SLOW = ("simt single", "pair single", "naive")


@cache
def described(name: str) -> Net:
    if name == "digits":
        return digits.load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "deploy.prototxt")
        path.write_text(models.prototxt(name))
        return ebp_cuda.load(path)


@cache
def convolutions(name: str, dtype: str) -> list[Launch]:
    """The launches of our own convolutions, up and down to the network's input, for two classes."""
    net = described(name)
    size = (112, 112) if name == "digits" else models.model(name).input_shape[2:]
    launches = trace(net, next(iter(net.graph.inputs)), None, size, 1, 2, dtype)
    return [launch for launch in launches if launch.label.startswith(OURS) and "parts" not in launch.label]


def channels(launch: Launch) -> tuple[int, int]:
    """Of the weights: above and below."""
    above, below, *_ = (int(n) for n in launch.layer.split()[1].split("x"))
    return above, below


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_only_odd_channels_are_read_element_by_element(name: str, dtype: str) -> None:
    """Below a flatten, too."""
    slow = [launch for launch in convolutions(name, dtype) if launch.kernel in SLOW]
    whole = [launch for launch in slow if all(n % 4 == 0 for n in channels(launch))]
    assert not whole, [(launch.label, launch.layer) for launch in whole]


@pytest.mark.parametrize("dtype", ["tf32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_tensor_cores_take_every_convolution_that_rounds(name: str, dtype: str) -> None:
    launches = convolutions(name, dtype)
    fed = [launch for launch in launches if all(n % 4 == 0 for n in channels(launch)) and "1x1 1x1" not in launch.layer]
    rounded = [launch for launch in fed if launch.kernel.startswith("mma")]
    linear = {node.name for node in described(name).graph.nodes if node.op == "linear"}
    # fully connected layers keep fp32: a normalizer and a sweep of each
    assert len(fed) - len(rounded) <= 2 * len(linear)
    assert {launch.kernel for launch in rounded} == {f"mma {dtype} up", f"mma {dtype} down", "mma tf32x3 up"}
    forwards = [launch for launch in launches if launch.label.startswith("forward")]
    assert len(forwards) == sum(launch.kernel == f"mma {dtype} up" for launch in rounded)  # a normalizer, a forward
