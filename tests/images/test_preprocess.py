"""Photos and arrays on their way into a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ebp_cuda.errors import InputError, ShapeError
from ebp_cuda.images.preprocess import Preprocess, load_array, load_image, prepare

CAFFE = Preprocess(channel_order="BGR", raw_scale=255, mean=(103.939, 116.779, 123.68))


def noise(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.RandomState(0).rand(height, width, 3).astype(np.float32)


def test_caffe_convention_by_hand() -> None:
    image = noise()
    x = prepare(image, CAFFE)
    assert x.shape == (1, 3, 6, 9) and x.dtype == torch.float32
    for channel, (source, mean) in enumerate([(2, 103.939), (1, 116.779), (0, 123.68)]):
        np.testing.assert_allclose(x[0, channel].numpy(), image[..., source] * 255 - mean, atol=2e-5)


def test_torchvision_convention_by_hand() -> None:
    image = noise()
    how = {"size": None, "channel_order": "RGB", "raw_scale": 1, "mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.4]}
    x = prepare([image, image], how)
    assert x.shape == (2, 3, 6, 9)
    np.testing.assert_allclose(x[1, 2].numpy(), (image[..., 2] - 0.6) / 0.4, atol=1e-6)


def test_grey_network_gets_luma() -> None:
    image = np.zeros((2, 2, 3), np.float32)
    image[..., 1] = 1.0
    x = prepare(image, Preprocess(channel_order="GRAY", raw_scale=255))
    assert x.shape == (1, 1, 2, 2)
    assert x.unique().item() == pytest.approx(0.587 * 255, rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [({}, (300, 451)), ({"shortest_side": 224}, (224, 337)), ({"size": (200, 100)}, (200, 100))],
)
def test_resizing(fields: dict, wanted: tuple[int, int]) -> None:
    x = prepare(np.full((300, 451, 3), 0.25, np.float32), Preprocess(**fields))
    assert tuple(x.shape[2:]) == wanted
    assert torch.allclose(x, torch.full_like(x, 0.25), atol=1e-6)


def test_picture_undoes_normalize() -> None:
    image = noise()
    for how in (CAFFE, Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))):
        np.testing.assert_allclose(how.picture(how.normalize(image)), image, atol=1e-6)
    with pytest.raises(ShapeError, match=r"\[3, H, W\]"):
        CAFFE.picture(np.zeros((1, 4, 4), np.float32))


def test_dict_round_trip_is_json_shaped() -> None:
    described = CAFFE.override(size=(224, 224)).to_dict()
    assert described["size"] == [224, 224] and described["std"] == [1.0, 1.0, 1.0]
    assert Preprocess.from_dict(described).to_dict() == described
    assert Preprocess.from_dict(None) == Preprocess()


def test_override_replaces_the_other_size() -> None:
    how = Preprocess(shortest_side=224).override(size=(10, 20))
    assert how.size == (10, 20) and how.shortest_side is None
    assert how.override(shortest_side=5).size is None
    assert how.override(mean=None, size=None) == how
    assert Preprocess().override(channel_order="GRAY").mean == (0.0,)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"channel_order": "RBG"}, "channel_order"),
        ({"mean": (1.0, 2.0)}, "mean"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"mean": (float("nan"),)}, "mean"),
        ({"size": (0, 4)}, "size"),
        ({"size": (3, 4), "shortest_side": 4}, "size or shortest_side"),
        ({"raw_scale": 0}, "raw_scale"),
    ],
)
def test_bad_fields_are_named(fields: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Preprocess(**fields)


def test_unknown_key_suggests() -> None:
    with pytest.raises(InputError, match="nearest: mean"):
        Preprocess.from_dict({"means": [0, 0, 0]})


def test_prepare_refuses_other_shapes_and_mixed_sizes() -> None:
    with pytest.raises(ShapeError, match="image 0"):
        prepare(np.zeros((4, 4), np.float32)[None], Preprocess())
    with pytest.raises(ShapeError, match="image 1 comes out at 4x6"):
        prepare([noise(4, 4), noise(4, 6)], Preprocess())
    with pytest.raises(ShapeError, match="no image"):
        prepare([], Preprocess())


def test_load_image_modes(tmp_path: Path) -> None:
    rgb = (noise() * 255).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(load_image(tmp_path / "rgb.png"), rgb.astype(np.float32) / np.float32(255))
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    grey = load_image(tmp_path / "grey.png")
    assert grey.shape == (6, 9, 3) and (grey[..., 0] == grey[..., 2]).all()
    clear = np.zeros((6, 9, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert (load_image(tmp_path / "clear.png") == 1).all()
    deep = np.full((4, 4), 32768, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert load_image(tmp_path / "deep.png")[0, 0, 0] == pytest.approx(32768 / 65535)


def test_load_image_turns_by_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray((noise(4, 8) * 255).astype(np.uint8)).save(tmp_path / "side.jpg", exif=exif)
    assert load_image(tmp_path / "side.jpg").shape == (8, 4, 3)


def test_load_image_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_image(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(InputError, match="not an image"):
        load_image(tmp_path / "text.png")
    Image.fromarray((noise(64, 64) * 255).astype(np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:4000])
    with pytest.raises(InputError, match=r"cut\.png"):
        load_image(tmp_path / "cut.png")


def test_load_array(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(24, dtype=np.int64).reshape(2, 3, 4))
    x = load_array(tmp_path / "x.npy")
    assert x.shape == (1, 2, 3, 4) and x.dtype == np.float32 and x[0, 1, 2, 3] == 23


@pytest.mark.parametrize(
    ("array", "kind", "named"),
    [
        (np.zeros((3, 4)), ShapeError, r"\[3, 4\]"),
        (np.zeros((1, 0, 2, 2)), ShapeError, r"\[1, 0, 2, 2\]"),
        (np.array([[["a"]]]), InputError, "real numbers"),
        (np.array([[[1.0, np.nan]]]), InputError, r"\[0, 0, 0, 1\]"),
    ],
)
def test_load_array_refusals(tmp_path: Path, array: np.ndarray, kind: type[Exception], named: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(kind, match=named):
        load_array(tmp_path / "x.npy")


def test_load_array_truncated_or_pickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:200])
    np.save(tmp_path / "objects.npy", np.array([{}, None], dtype=object))
    for name in ("cut.npy", "objects.npy"):
        with pytest.raises(InputError, match=name):
            load_array(tmp_path / name)


def test_uint8_images_are_scaled_and_other_integers_refused():
    photo = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    expected = prepare(photo.astype(np.float32) / np.float32(255), None)
    assert torch.equal(prepare(photo, None), expected)
    with pytest.raises(ShapeError, match="dtype int64"):
        prepare(photo.astype(np.int64), None)
