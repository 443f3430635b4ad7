"""Whole networks through the CUDA side of every op: its checks, its choice of kernels, and the kernels, emulated.

The backend is that of CUDA, with all that its kernels do together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from engine import test_fusion as fusion
from engine import test_golden_tiny as golden
from engine.test_golden_tiny import network  # noqa: F401  (a fixture)
from support.emu_build import emulator

import ebp_cuda
from ebp_cuda import ops
from ebp_cuda.engine import plan
from ebp_cuda.images.preprocess import prepare
from ebp_cuda.linear import CUDA, cuda
from ebp_cuda.models import digits

pytestmark = pytest.mark.emu


class EmulatedOps:
    """Stands in for torch.ops.ebp_cuda."""

    def __init__(self, used: set[str]) -> None:
        self.used = used

    def __getattr__(self, name: str) -> Any:
        op = getattr(torch.ops.ebp_emulated, name).default

        def call(*args: Any) -> Any:
            self.used.add(name)
            places = {"conv2d_normalizer": (1,), "conv2d_sweep": (1,), "conv2d_excitation": (1, 2)}.get(name, ())
            weights_as_cuda_wants = (a.contiguous() if i in places else a for i, a in enumerate(args))
            return op(*weights_as_cuda_wants)

        call.default = call  # type: ignore[attr-defined]
        return call


@pytest.fixture(autouse=True)
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The ops that were called. New memory is filled with NaN, so that what no kernel writes shows."""
    emulator()
    names: set[str] = set()
    emulated = EmulatedOps(names)
    monkeypatch.setattr(ops, "_ops", emulated)
    monkeypatch.setattr(plan, "backend_of", lambda device: CUDA)
    torch.use_deterministic_algorithms(True)
    yield names
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("network", [name for name in golden.NAMES if name != golden.UNSUPPORTED], indirect=True)
@pytest.mark.parametrize("run", ["A", "B"])
def test_diffs_are_the_originals(network: Any, run: str) -> None:  # noqa: F811
    golden.test_diffs_are_the_originals(network, run, "cpu")


def test_a_trained_network_gives_the_map_of_the_cpu(used: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Contrastive maps, a small difference of big numbers: within 1e-4 of the mass."""
    pytest.importorskip("sklearn")
    pytest.importorskip("skimage")
    net, scene = digits.load(), digits.scenes.make_scene("test", seed=0, index=0)
    explanation = ebp_cuda.ExcitationBackprop(net, layer=digits.LAYER, contrast_layer=digits.CONTRAST_LAYER)
    x = prepare([scene.image / np.float32(255)], net.preprocess)
    emulated = explanation.attribute(x, [[scene.labels[0], 9]])
    assert {"conv2d_normalizer", "conv2d_sweep", "max_pool2d", "max_pool2d_route", "share"} <= used
    monkeypatch.undo()
    wanted = explanation.attribute(x, [[scene.labels[0], 9]])
    assert (emulated - wanted).abs().sum() <= 1e-4 * wanted.abs().sum()


@pytest.mark.parametrize("dtype", ["fp32", "tf32"])
def test_what_kernels_do_together(used: set[str], dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates and sums in sweeps, normalizers beside forward convolutions: see test_fusion.py.

    In tf32 the forward, too, is on the emulated tensor cores, as on a GPU.
    """
    monkeypatch.setattr(cuda, "forward_by_tensor_cores", lambda part, x: part.precision != "fp32")
    torch.manual_seed(5)
    module, x = fusion.Inception().eval(), torch.rand(2, 3, 13, 11)
    emulated = fusion.method(module, True, "caffe", dtype, "point").run(x, [[0, 3], [1, 4]])
    assert ("conv2d_excitation" in used) == (dtype == "fp32") and "conv2d_sweep" in used
    assert ("conv2d_forward" in used) == (dtype == "tf32")
    monkeypatch.undo()
    wanted = fusion.method(module, False, "caffe", dtype, "point").run(x, [[0, 3], [1, 4]])
    assert (emulated.maps - wanted.maps).abs().sum() < 1e-4 * wanted.maps.abs().sum()
