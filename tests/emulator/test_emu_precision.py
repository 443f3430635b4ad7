"""What docs/precision.md says of tensor-core precisions, on trained networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.emu_precision import FP32, LAYERS, Precision, digits, efficientnet, errors, precision, rounded

from ebp_cuda.errors import ModelError
from ebp_cuda.rules.registry import OPERATIONS

pytestmark = pytest.mark.emu

SPLIT = {name: Precision(name, split=True, consistent=True) for name in ("tf32", "bf16")}


@pytest.fixture(scope="module")
def scenes():
    pytest.importorskip("sklearn")
    pytest.importorskip("skimage")

    def study():
        return digits(2)

    return study


@pytest.fixture(scope="module")
def photo():
    pytest.importorskip("skimage")
    try:
        efficientnet(("astronaut",))
    except ModelError as error:
        pytest.skip(str(error))
    return lambda: efficientnet(("astronaut",))


def test_formats_keep_their_digits():
    t = torch.randn(1000)
    for name, digits_kept in (("tf32", 11), ("tf32 cut", 10), ("bf16", 8)):
        error = (rounded(t, name) - t).abs() / t.abs()
        assert 2.0 ** -(digits_kept + 2) < error.max() <= 2.0**-digits_kept
    assert rounded(t, "fp32") is t


def test_unrounded_operands_change_nothing(scenes):
    """The model is the engine's own rule but for the rounding."""
    with precision(FP32):
        got = scenes().maps(True, "fp32")
    wanted = scenes().maps(True, "fp32")
    for g, w in zip(got, wanted, strict=True):
        assert (g - w).abs().sum() <= 2e-5 * w.abs().sum()
    for name in LAYERS:
        assert OPERATIONS[name].rules["caffe"].down.__module__ == "ebp_cuda.rules.contraction"


@pytest.mark.parametrize(("name", "plain", "split"), [("tf32", 1e-3, 2e-3), ("bf16", 8e-3, 1e-2)])
def test_scenes_of_digits(scenes, name, plain, split):
    """`plain` bounds MWP by single products, `split` c-MWP by two."""
    assert errors(scenes, Precision(name), False).max() < plain
    single, double = errors(scenes, Precision(name), True), errors(scenes, SPLIT[name], True)
    assert double.max() < split
    assert np.median(double) < np.median(single) / 2


@pytest.mark.parametrize(("name", "plain", "split"), [("tf32", 1e-3, 5e-4), ("bf16", 8e-3, 3e-3)])
def test_a_photo(photo, name, plain, split):
    assert errors(photo, Precision(name), False).max() < plain
    single, double = errors(photo, Precision(name), True), errors(photo, SPLIT[name], True)
    assert double.max() < split
    assert np.median(double) < np.median(single) / 3


def test_the_forward_pass_wants_fp32(scenes):
    low = Precision("tf32", split=True, consistent=True, forward="tf32")
    assert np.median(errors(scenes, low, True)) > 4 * np.median(errors(scenes, SPLIT["tf32"], True))
