"""What the precisions of tensor cores cost: contrastive maps of the trained digits network, against float64.

The convolutions' normalisers and sweeps run on the emulated kernels; fully connected layers stay in fp32.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from emu_build import emulator

import ebp_cuda
from ebp_cuda import ops
from ebp_cuda.models import digits
from ebp_cuda.preprocess import prepare
from ebp_cuda.relevance import Relevance
from ebp_cuda.rounding import rounded
from ebp_cuda.rules import contraction

pytestmark = [pytest.mark.emu, pytest.mark.slow]

IMAGES = 1
# Relative L1 error of the map, at most. Over two images fp32 had 1.9e-7, tf32 1.1e-4 and bf16 5.6e-4. `plain` rounds
# the relevance instead of splitting it and leaves x as it is where it multiplies: tf32 had 2.0e-4 and bf16 2.2e-3.
MOST = {"fp32": 2e-6, "tf32": 4e-4, "bf16": 2e-3}


@pytest.fixture(scope="module")
def scenes():
    """Images [N, ...], a class for each, and the maps in float64."""
    pytest.importorskip("sklearn")
    pytest.importorskip("skimage")
    net = digits.load()
    found = [digits.scenes.make_scene("test", seed=0, index=i) for i in range(IMAGES)]
    x = prepare([scene.image / np.float32(255) for scene in found], net.preprocess)
    classes = [scene.labels[0] for scene in found]
    return x, classes, explanation(net, "fp64").attribute(x, classes)


def explanation(net, dtype):
    return ebp_cuda.ExcitationBackprop(net, digits.LAYER, contrast_layer=digits.CONTRAST_LAYER, dtype=dtype)


def on_emulated_kernels(monkeypatch, precision, plain):
    """Sends the convolutions of the rules to the emulated CUDA ops, in a precision."""
    emulated = torch.ops.ebp_emulated
    rounds: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # keeps x alive, and one rounding of each

    def shared(s, x=None):
        if x is None or plain:
            return Relevance(s, x)
        return Relevance(s, rounds.setdefault(id(x), (x, rounded(x, precision)))[1])

    def normalizer(x, w_plus, *geometry):
        return emulated.conv2d_normalizer(x, w_plus, *geometry, precision)

    def sweep(r, w_plus, in_size, *geometry):
        return emulated.conv2d_sweep(rounded(r, precision) if plain else r, w_plus, in_size, *geometry, None, precision)

    emulator()
    monkeypatch.setattr(ops, "conv2d_normalizer", normalizer)
    monkeypatch.setattr(ops, "conv2d_sweep", sweep)
    monkeypatch.setattr(contraction, "Relevance", shared)
    monkeypatch.setattr(contraction.Window, "flips", False)


def error_of(monkeypatch, scenes, precision, plain=False):
    x, classes, wanted = scenes
    with monkeypatch.context() as patched:
        on_emulated_kernels(patched, precision, plain)
        got = explanation(digits.load(), "fp32").attribute(x, classes)
    return ((got - wanted).abs().sum() / wanted.abs().sum()).item()


def test_split_relevance_keeps_the_small_difference(monkeypatch, scenes):
    error = {precision: error_of(monkeypatch, scenes, precision) for precision in MOST}
    plain = {precision: error_of(monkeypatch, scenes, precision, plain=True) for precision in ("tf32", "bf16")}
    assert all(error[precision] < most for precision, most in MOST.items())
    assert plain["tf32"] > 1.3 * error["tf32"] and plain["bf16"] > 2 * error["bf16"]
