"""The grid pointing game: cells and errors by hand, fair mosaics, and the command on the digits network."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ebp_cuda.cli import main
from ebp_cuda.errors import InputError
from ebp_cuda.eval.grid import Mosaic, Tile, draw_mosaics, place, standard_error
from ebp_cuda.eval.grid_photos import LabeledPhoto, crops, cut_tiles, read_photos, shipped_photos
from ebp_cuda.models import digits


def tile(photo: str, label: int, side: int = 4) -> Tile:
    return Tile(photo, label, np.full((side, side, 3), label / 10, np.float32))


def test_the_image_of_a_mosaic_has_its_tiles_row_by_row() -> None:
    image = Mosaic("m", 2, tuple(tile(f"p{label}", label) for label in range(4))).image
    assert image.shape == (8, 8, 3)
    assert image[0, 0, 0] == 0 and image[0, 7, 0] == np.float32(0.1) and image[7, 0, 0] == np.float32(0.2)


def test_the_mass_is_the_share_of_the_positive_map_in_the_cell() -> None:
    attribution = torch.zeros(4, 4)
    attribution[0, 0], attribution[3, 3], attribution[0, 3] = 3, 1, -5
    left, right = place(attribution, 0, 2, 4), place(attribution, 3, 2, 4)
    assert (left.mass, left.hit, left.row, left.column) == (0.75, True, 0, 0)
    assert (right.mass, right.hit) == (0.25, False)
    assert place(attribution, 1, 2, 4).mass == 0


def test_a_map_without_a_positive_part_has_the_mass_of_chance_and_is_a_miss() -> None:
    nothing = place(-torch.ones(2, 2), 0, 3, 6)
    assert nothing.mass == pytest.approx(1 / 9) and not nothing.hit


def test_the_standard_error_counts_groups_and_not_values() -> None:
    values = [1.0, 1.0, 0.0, 0.0]
    alone = standard_error(values, [0, 1, 2, 3])
    assert alone == pytest.approx(np.std(values, ddof=1) / 2)
    assert standard_error(values, ["a", "a", "b", "b"]) == pytest.approx(np.std([1.0, 0.0], ddof=1) / math.sqrt(2))
    assert math.isnan(standard_error(values, ["a"] * 4))


def test_mosaics_show_every_class_as_often_and_no_photo_twice() -> None:
    tiles = [tile(f"photo {label}", label) for label in range(6) for _ in range(3)]
    mosaics = list(draw_mosaics(tiles, 2, 30, seed=1))
    shown = [label for mosaic in mosaics for label in mosaic.labels]
    assert {shown.count(label) for label in range(6)} == {20}
    assert all(len(set(mosaic.labels)) == 4 for mosaic in mosaics)
    again = draw_mosaics(tiles, 2, 30, seed=1)
    assert [mosaic.labels for mosaic in again] == [mosaic.labels for mosaic in mosaics]
    assert [m.labels for m in draw_mosaics(tiles, 2, 30, seed=2)] != [m.labels for m in mosaics]


def test_tiles_of_one_photo_never_meet() -> None:
    tiles = [tile("the same", label) for label in range(2)] + [tile(f"p{label}", label) for label in range(2, 5)]
    for mosaic in draw_mosaics(tiles, 2, 10, seed=0):
        photos = [one.photo for one in mosaic.tiles]
        assert len(set(photos)) == 4


def test_too_few_classes_are_refused_with_their_number() -> None:
    with pytest.raises(InputError, match=r"give 3 classes.*2 x 2 needs 4"):
        list(draw_mosaics([tile(f"p{label}", label) for label in range(3)], 2, 1, seed=0))
    with pytest.raises(InputError, match="only 1 tiles of different photos"):
        list(draw_mosaics([tile("same", label) for label in range(4)], 2, 1, seed=0))


def test_crops_are_of_the_size_asked_for_and_the_same_for_a_seed() -> None:
    photo = np.random.default_rng(0).random((40, 60, 3), np.float32)
    first, second = (list(crops(photo, 16, 5, np.random.default_rng(3))) for _ in range(2))
    assert all(crop.shape == (16, 16, 3) and crop.min() >= 0 and crop.max() <= 1 for crop in first)
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_at_least_sixteen_photos_are_installed() -> None:
    pytest.importorskip("skimage")
    photos = shipped_photos()
    assert len(photos) >= 16 and all(photo.path.is_file() for photo in photos)


def test_photos_of_ones_own_come_from_folders_or_a_list(tmp_path) -> None:
    for name in ("cat/1.png", "dog/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    labels = ["dog, hound", "Cat"]
    assert [photo.label for photo in read_photos(tmp_path, labels)] == [1, 0]
    listed = tmp_path / "list.csv"
    listed.write_text("image,label\ncat/1.png,cat\ndog/2.png,0\n")
    assert [photo.label for photo in read_photos(listed, labels)] == [1, 0]
    listed.write_text("image,label\ncat/1.png,horse\n")
    with pytest.raises(InputError, match=r"1\.png: the network has no class 'horse'"):
        read_photos(listed, labels)
    listed.write_text("image\ncat/1.png\n")
    with pytest.raises(InputError, match="line 2: wanted the columns image and label"):
        read_photos(listed, labels)


def test_only_crops_of_a_photos_own_class_become_tiles(tmp_path) -> None:
    pytest.importorskip("sklearn")
    scene = digits.scenes.make_scene("test", seed=0, index=3, count=1)
    path = tmp_path / "scene.png"
    Image.fromarray(scene.image).save(path)
    net, (label,) = digits.load(), scene.labels
    how = {"confidence": 0.0, "per_photo": 6}
    from ebp_cuda.images.preprocess import Preprocess

    pre = Preprocess.from_dict(digits.PREPROCESS)
    any_class = cut_tiles([LabeledPhoto("a", path)], net, pre, digits.scenes.SIZE, **how)
    assert any_class and len({one.label for one in any_class}) == 1
    other = cut_tiles([LabeledPhoto("a", path, (label + 1) % 10)], net, pre, digits.scenes.SIZE, **how)
    assert {one.label for one in other} <= {(label + 1) % 10}


@pytest.mark.slow  # about 20 s: 6 mosaics by four methods, and again from the record
def test_the_command_writes_a_table_with_errors_and_resumes(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("captum")
    pytest.importorskip("pyarrow")
    out = tmp_path / "grid"
    arguments = ["eval", "grid", "--model", "digits", "--mosaics", "6", "--out", str(out), "--examples", "2"]
    monkeypatch.setattr("sys.argv", ["ebp-cuda", *arguments, "--method", "c-mwp,mwp,gradient", "--layers", "pool2"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    with (out / "summary.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["c-mwp", "mwp", "gradient"]
    assert {row["pairs"] for row in rows.values()} == {"24"}
    assert float(rows["c-mwp"]["mass"]) > 0.8 > float(rows["mwp"]["mass"]) > 0.3
    assert float(rows["c-mwp"]["maximum"]) >= 0.9
    assert 0 < float(rows["c-mwp"]["mass_se"]) < 0.1
    assert (out / "examples.png").stat().st_size > 5000
    first = (out / "summary.csv").read_bytes()
    with pytest.raises(SystemExit):
        main()
    assert (out / "summary.csv").read_bytes() == first


def test_a_network_that_does_not_fit_is_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["ebp-cuda", "eval", "grid", "--model", "digits", "--cells", "3"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "digits takes 112 x 112 pixels, not 168" in capsys.readouterr().err
