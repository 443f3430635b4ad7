"""Every adapter asks for places, similarities and seeds as `ExcitationBackprop` does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ebp_cuda
from ebp_cuda import ExcitationBackprop, InputError
from ebp_cuda.compat import torchray
from ebp_cuda.compat.grad_cam import ExcitationBackpropCAM, PlaceTarget, SimilarityTarget
from ebp_cuda.images.maps import resize_maps


@pytest.fixture(scope="module")
def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3, padding=1)).eval()


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(1))


def method(module: nn.Module, x: torch.Tensor) -> ExcitationBackprop:
    return ExcitationBackprop(ebp_cuda.from_torch(module, x), "1", rules="conserving")


def picture(maps: torch.Tensor) -> torch.Tensor:
    """Maps [N, h, w] as a CAM scales them."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def test_captums_targets_and_seeds(dense, x) -> None:
    captum = pytest.importorskip("ebp_cuda.compat.captum", exc_type=ebp_cuda.UnsupportedError)
    layer, eb = captum.LayerExcitationBackprop(dense, dense[1], rules="conserving"), method(dense, x)
    pixel = layer.attribute(x, target=(2, 3, 4))
    torch.testing.assert_close(pixel, eb.relevance(x, 2, pixel=(3, 4))[:, 0])
    seeds = torch.randn(2, 4, 9, 8)
    torch.testing.assert_close(layer.attribute(x, seed=seeds), eb.relevance(x, seed=seeds[:, None])[:, 0])
    inputs = captum.ExcitationBackprop(dense, rules="conserving")
    torch.testing.assert_close(inputs.attribute(x, seed=seeds[0])[0], inputs.attribute(x[:1], seed=seeds[:1])[0])
    with pytest.raises(InputError, match="got target= and seed=; wanted one"):
        layer.attribute(x, target=1, seed=seeds)


@pytest.mark.parametrize(
    "place", [{"pixel": (3, 4)}, {"box": (1, 2, 5, 6)}, {"mask": torch.rand(9, 8)}], ids=lambda place: next(iter(place))
)
def test_grad_cams_targets_at_a_place(dense, x, place) -> None:
    cam = ExcitationBackpropCAM(dense, [dense[1]], rules="conserving")
    got = torch.from_numpy(cam(x, [PlaceTarget(2, **place), PlaceTarget(1, **place)]))
    maps = method(dense, x).attribute(x, [2, 1], **place)[:, 0]
    torch.testing.assert_close(got, picture(resize_maps(picture(maps), (9, 8))), rtol=1e-4, atol=1e-5)


def test_grad_cams_similarity(dense, x) -> None:
    module = nn.Sequential(*dense, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    embedding = torch.tensor([0.7, 0.3, 0.9, 1.2])
    got = ExcitationBackpropCAM(module, [module[1]], rules="conserving")(x, [SimilarityTarget(embedding)] * 2)
    maps = method(module, x).attribute(x, similarity_to=embedding)[:, 0]
    torch.testing.assert_close(torch.from_numpy(got), picture(resize_maps(picture(maps), (9, 8))), rtol=1e-4, atol=1e-5)


def test_grad_cams_targets_that_say_nothing(dense, x) -> None:
    cam = ExcitationBackpropCAM(dense, [dense[1]], rules="conserving")
    with pytest.raises(InputError, match="wanted one of pixel=, box= and mask="):
        PlaceTarget(1)
    with pytest.raises(InputError, match=r"pixel=\(9, 0\): wanted one within"):
        cam(x[:1], [PlaceTarget(1, pixel=(9, 0))])
    with pytest.raises(InputError, match=r"the embedding has shape \[3\], wanted \[4\]"):
        cam(x[:1], [SimilarityTarget(torch.ones(3))])


def test_torchrays_gradients(dense, x) -> None:
    """A tensor of the output's shape, or a function that makes one, is the seed."""
    seeds = torch.rand(2, 4, 9, 8, generator=torch.Generator().manual_seed(3))
    eb = ExcitationBackprop(ebp_cuda.from_torch(dense, x), "1", rules="caffe")
    wanted = eb.attribute(x, seed=seeds[:, None])
    torch.testing.assert_close(torchray.excitation_backprop(dense, x, seeds, "1"), wanted)
    made = torchray.excitation_backprop(dense, x, None, "1", get_backward_gradient=lambda output, _: seeds)
    torch.testing.assert_close(made, wanted)
