"""The precisions of tensor cores through the engine on the emulated kernels: contrastive maps of the digits network."""

from __future__ import annotations

import numpy as np
import pytest
from test_emu_networks import used  # noqa: F401  (a fixture that sends every op to the emulated kernels)

import ebp_cuda
from ebp_cuda.images.preprocess import prepare
from ebp_cuda.models import digits

pytestmark = [pytest.mark.emu, pytest.mark.slow]

# Relative L1 error of the map against float64, at most; it was 2e-7, 7e-5 and 6e-4.
MOST = {"fp32": 2e-6, "tf32": 4e-4, "bf16": 2e-3}


@pytest.mark.parametrize("precision", MOST)
def test_the_kernels_give_the_map_of_the_cpu(used, precision, monkeypatch):  # noqa: F811
    """The CPU imitates the rounding, so that the two differ by their sums alone."""
    pytest.importorskip("sklearn")
    pytest.importorskip("skimage")
    net, scene = digits.load(), digits.scenes.make_scene("test", seed=0, index=0)
    x = prepare([scene.image / np.float32(255)], net.preprocess)

    def attributed(dtype):
        explanation = ebp_cuda.ExcitationBackprop(net, digits.LAYER, contrast_layer=digits.CONTRAST_LAYER, dtype=dtype)
        return explanation.attribute(x, scene.labels[0]).double()

    emulated = attributed(precision)
    assert "conv2d_sweep" in used
    monkeypatch.undo()
    by_cpu, exact = attributed(precision), attributed("fp64")
    total = exact.abs().sum()
    assert (emulated - exact).abs().sum() < MOST[precision] * total
    assert (emulated - by_cpu).abs().sum() < 1e-5 * total
