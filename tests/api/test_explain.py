"""`ebp_cuda.explain`: a network and a photo are enough, and what comes back shows itself."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_net import Small
from torch import nn

import ebp_cuda
from ebp_cuda import EBPError, ExcitationBackprop, InputError
from ebp_cuda.images.preprocess import Preprocess, prepare
from ebp_cuda.models import open_model

PIXELS = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)


@pytest.fixture(scope="module")
def digits() -> Any:
    return open_model("digits")


def test_every_kind_of_photo_gives_the_maps_of_the_method(digits: Any, tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    x = prepare(PIXELS, digits.preprocess)
    right = ExcitationBackprop(digits).run(x, "top2")
    for photo in (tmp_path / "a.png", str(tmp_path / "a.png"), PIXELS, Image.fromarray(PIXELS), x, x.numpy(), [PIXELS]):
        explained = ebp_cuda.explain(digits, photo, "top2")
        np.testing.assert_array_equal(np.asarray(explained.maps), right.maps.numpy())
        assert explained.setting == right.setting
    assert explained.names == [[str(int(index)) for index in right.targets[0]]]
    assert np.array_equal(explained.pictures[0], PIXELS)


def test_its_picture_says_by_what_it_was_computed(digits: Any, tmp_path: Path) -> None:
    explained = ebp_cuda.explain(digits, [PIXELS, PIXELS], "top3")
    shown = Image.open(io.BytesIO(explained._repr_png_()))
    saved = Image.open(explained.save(tmp_path / "x.png", smooth=0.01))
    assert shown.size == saved.size and shown.width > shown.height  # a row of four panels for each image
    words = {"layer": "inception_a/output", "contrast_layer": "pool_ave", "rules": "caffe"}
    assert saved.text.items() >= words.items() and "deploy.prototxt" in saved.text["model"]
    assert "layer inception_a/output, contrast pool_ave, rules caffe" in repr(explained)
    with pytest.raises(InputError, match="no folder"):
        explained.save(tmp_path / "nowhere" / "x.png")


def test_a_method_explains_many_photos_without_reading_anew() -> None:
    eb = ExcitationBackprop(Small().eval(), "features.2", None, "caffe", example=torch.rand(1, 3, 15, 19))
    how = Preprocess(size=(15, 19))
    first = ebp_cuda.explain(eb, PIXELS, 1, preprocess=how)
    assert first.setting.layer == "features.2"
    assert torch.equal(
        ebp_cuda.explain(eb, [PIXELS, PIXELS], 1, preprocess=how).maps[:1].round(decimals=5),
        first.maps.round(decimals=5),
    )
    with pytest.raises(InputError, match="got rules, which an ExcitationBackprop has of its own"):
        ebp_cuda.explain(eb, PIXELS, rules="caffe")


def test_layers_in_a_list_stand_beside_one_another(digits: Any) -> None:
    explained = ebp_cuda.explain(digits, PIXELS, "top2", layer=["pool1", "pool2"])
    assert list(explained.maps) == ["pool1", "pool2"] and len(explained.overlays()[0]) == 4
    assert explained.setting.contrast_layer == "pool_ave"
    assert explained._repr_png_().startswith(b"\x89PNG")


def test_a_module_that_says_nothing_of_photos_warns() -> None:
    class Config(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(
                nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    module = Config().eval()
    with pytest.warns(UserWarning, match="Config does not say how photos become its input") as caught:
        ebp_cuda.explain(module, PIXELS)
    assert caught[0].filename == __file__
    module.pretrained_cfg = {"input_size": (3, 20, 24), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explained = ebp_cuda.explain(module, PIXELS, labels=["a", "b", "c"])
    assert explained.maps.shape == (1, 1, 18, 22) and explained.names[0][0] in "abc"


@pytest.mark.parametrize(("axes", "size"), [(1, (60,)), (3, (5, 13, 14))], ids=["sequence", "volume"])
def test_sequences_and_volumes_are_shown(axes: int, size: tuple[int, ...]) -> None:
    conv, pool = {1: (nn.Conv1d, nn.AdaptiveAvgPool1d), 3: (nn.Conv3d, nn.AdaptiveAvgPool3d)}[axes]
    layers = [conv(3, 4, 3, padding=1), nn.ReLU(), conv(4, 4, 3, padding=1), nn.ReLU(), pool(1), nn.Flatten()]
    explained = ebp_cuda.explain(nn.Sequential(*layers, nn.Linear(4, 3)).eval(), torch.rand(2, 3, *size), "top2")
    assert explained.maps.shape == (2, 2, *size) and explained._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("network", "photo", "message"),
    [
        ("nix", PIXELS, "no such file or network"),
        (3, PIXELS, "network is a int; wanted a Net, a torch module or a path"),
        ("digits", "nowhere.jpg", "nowhere.jpg: no such file"),
        ("digits", None, "photo is a NoneType; wanted a path"),
        ("digits", [PIXELS, 3], "wanted"),
        ("digits", [], "wanted"),
        ("digits", {"a": 1}, "photo is a dict"),
        ("digits", torch.zeros(3), r"photo has shape \[3\]"),
        ("digits", torch.zeros(1, 3, 112, 112, dtype=torch.int64), "photo has dtype torch.int64"),
    ],
)
def test_what_is_no_network_or_photo(network: Any, photo: Any, message: str) -> None:
    with pytest.raises(EBPError, match=message):
        ebp_cuda.explain(network, photo)
