"""`explain_func` in the metrics of the Quantus package, and against the package's own method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ebp_cuda
from ebp_cuda import ExcitationBackprop, InputError
from ebp_cuda.compat.quantus import explain_func
from ebp_cuda.images.maps import resize_maps


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    stem = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*stem, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((4, 3, 16, 14), np.float32), np.array([0, 3, 1, 4])


def test_it_is_the_map_of_the_method(model, batch) -> None:
    x, y = batch
    net = ebp_cuda.from_torch(model, torch.from_numpy(x))
    wanted = ExcitationBackprop(net, "2", "5", "conserving").attribute(torch.from_numpy(x), torch.from_numpy(y))
    got = explain_func(model, x, y, layer="2", contrast_layer="5", device="cpu")
    np.testing.assert_allclose(got, resize_maps(wanted, (16, 14)).numpy(), rtol=1e-4, atol=1e-6)


def test_relevance_of_the_inputs_is_of_their_shape(model, batch) -> None:
    x, y = batch
    got = explain_func(model, torch.from_numpy(x), y)
    assert got.shape == x.shape and got.dtype == np.float32
    np.testing.assert_allclose(got.sum((1, 2, 3)), 1, rtol=1e-4)
    assert explain_func(model, x.astype(np.float64), 2).dtype == np.float64


@pytest.mark.parametrize("layer", ["", "2"])
def test_quantus_takes_it(model, batch, layer: str) -> None:
    quantus = pytest.importorskip("quantus", reason="quantus is not installed")
    x, y = batch
    call = {"model": model, "x_batch": x, "y_batch": y, "explain_func": explain_func, "device": "cpu"}
    kwargs = {"layer": layer, "contrast_layer": "5"}
    sparse = quantus.Sparseness(disable_warnings=True)(**call, explain_func_kwargs=kwargs)
    given = quantus.Sparseness(disable_warnings=True)(**call, a_batch=explain_func(model, x, y, **kwargs))
    assert len(sparse) == 4 and all(np.isfinite(sparse)) and np.allclose(sparse, given)
    names = {"nr_runs": 3, "subset_size": 20, "disable_warnings": True, "return_aggregate": False}
    faithful = quantus.FaithfulnessCorrelation(**names)(**call, explain_func_kwargs=kwargs)
    assert len(faithful) == 4 and all(np.isfinite(faithful))


def test_what_is_wrong_is_refused_by_name(model, batch) -> None:
    x, y = batch
    with pytest.raises(InputError, match="target 5: the model has classes 0 to 4"):
        explain_func(model, x, np.array([0, 1, 2, 5]))
    with pytest.raises(InputError, match="layer='nowhere'"):
        explain_func(model, x, y, layer="nowhere")
    with pytest.raises(InputError, match=r"layer: relevance of shape \[4, 8\] has no plane"):
        explain_func(model, x, y, layer="6")
