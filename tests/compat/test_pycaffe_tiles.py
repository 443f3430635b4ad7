"""Through the pycaffe face a second run does more at once than the first, where there are matrix tiles: a convolution,
its normaliser and its in-place ReLU. Nothing of that may show."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from test_pycaffe import make

from ebp_cuda import caffe
from ebp_cuda.linear import amx

NET = """
force_backward: true
input: "data"
input_shape { dim: 2 dim: 32 dim: 9 dim: 11 }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 48 kernel_size: 3 pad: 1 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "a" type: "Convolution" bottom: "conv1" top: "a" convolution_param { num_output: 32 kernel_size: 1 } }
layer { name: "relu_a" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "Convolution" bottom: "conv1" top: "b"
        convolution_param { num_output: 16 kernel_size: 3 pad: 1 } }
layer { name: "relu_b" type: "ReLU" bottom: "b" top: "relu_b" }
layer { name: "cat" type: "Concat" bottom: "a" bottom: "relu_b" top: "cat" }
layer { name: "gap" type: "Pooling" bottom: "cat" top: "gap" pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "gap" top: "fc" inner_product_param { num_output: 5 } }
"""


@pytest.fixture(autouse=True)
def with_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(amx, "available", lambda: True)  # by AMX, or by the model of it
    caffe.set_mode_eb_cpu()
    yield
    caffe.set_mode_cpu()


def network(folder):
    net = make(folder, NET)
    net.blobs["data"].data[...] = np.abs(net.blobs["data"].data)  # maps at a signed input are ill-conditioned
    return net


def down(net):
    net.blobs["fc"].diff[...] = 0
    net.blobs["fc"].diff[:, 2] = 1
    net.backward(start="fc")
    return net.blobs["data"].diff.copy()


def test_later_runs_leave_the_same_bits(tmp_path, monkeypatch) -> None:
    net = network(tmp_path)
    made: list[tuple[bool, bool]] = []
    excite = amx.excite
    monkeypatch.setattr(amx, "excite", lambda *a, **k: made.append((k["relu"], k["as_gate"])) or excite(*a, **k))
    seen = []
    for _ in range(3):
        net.forward()
        seen.append([down(net), *(net.blobs[name].data.copy() for name in net.blobs)])
    for run in seen[1:]:
        for found, first in zip(run, seen[0], strict=True):
            assert np.array_equal(found, first)
    assert made == [(True, True), (True, True), (False, False)] * 2  # conv1, a, and b, whose ReLU has a blob of its own


def test_a_pass_that_ends_before_the_relu_shows_what_it_has_not_seen(tmp_path) -> None:
    net = network(tmp_path)
    net.forward()
    first = down(net)
    net.forward(end="conv1")
    raw = net.blobs["conv1"].data.copy()
    assert raw.min() < 0
    net.forward(start="relu1")
    assert np.array_equal(net.blobs["conv1"].data, np.maximum(raw, 0))
    assert np.array_equal(down(net), first)


def test_edits_between_the_passes_count(tmp_path, monkeypatch) -> None:
    def edited(net):
        for _ in range(2):
            net.forward()
            down(net)
        net.forward()
        net.blobs["a"].data[:, :8] *= 0.5
        net.forward(start="cat")
        maps = [down(net)]
        net.forward()
        net.params["conv1"][0].data[...] *= -1
        maps.append(down(net))
        net.forward()
        return [*maps, down(net)]

    found = edited(network(tmp_path))
    monkeypatch.setattr(amx, "available", lambda: False)
    for ours, plain in zip(found, edited(network(tmp_path)), strict=True):
        assert np.abs(ours - plain).sum() < 1e-4 * np.abs(plain).sum()
