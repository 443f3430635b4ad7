"""Maps as pictures, and output files that are whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ebp_cuda.images.maps as drawing
from ebp_cuda.errors import InputError, ShapeError
from ebp_cuda.files import atomic_path, check_writable
from ebp_cuda.images.maps import Panel, figure, heat, overlay, resize_maps, save_figure, save_image


def test_bilinear_by_hand() -> None:
    # centres of 4 output pixels over 2 input pixels lie at -0.25, 0.25, 0.75 and 1.25; outside is the border's value
    out = resize_maps(torch.tensor([[-1.0, 3.0]]), (1, 4))
    assert out.tolist() == [[-1.0, 0.0, 2.0, 3.0]]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resize_keeps_leading_dims_and_is_linear(mode: str) -> None:
    maps = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    out = resize_maps(maps, (20, 21), mode)
    assert out.shape == (2, 3, 20, 21) and out.dtype == torch.float64
    torch.testing.assert_close(resize_maps(-2 * maps, (20, 21), mode), -2 * out)
    assert resize_maps(maps[:, :0], (4, 4), mode).shape == (2, 0, 4, 4)


def test_resize_refusals() -> None:
    with pytest.raises(InputError, match="bilinear, bicubic"):
        resize_maps(torch.zeros(2, 2), (4, 4), "nearest")
    with pytest.raises(InputError, match="height"):
        resize_maps(torch.zeros(2, 2), (0, 4))
    with pytest.raises(ShapeError, match=r"\[3\]"):
        resize_maps(torch.zeros(3), (4, 4))


def test_heat_clips_and_scales() -> None:
    level = heat(torch.tensor([[-4.0, -4.0, 2.0, 8.0]]), (1, 4))
    assert level[0, :2].max() == 0 and level.max() == 1
    assert heat(torch.full((2, 2), -1.0), (4, 4)).max() == 0
    with pytest.raises(ShapeError, match=r"\[1, 2, 2\]"):
        heat(torch.zeros(1, 2, 2), (4, 4))


def test_overlay_glows_where_attribution_is() -> None:
    photo = np.full((40, 60, 3), 128, np.uint8)
    spot = torch.full((4, 6), -1.0)
    spot[1, 4] = 0.003
    shown = overlay(photo, spot)
    assert shown.shape == (40, 60, 3) and shown.dtype == np.uint8
    brightness = shown.astype(int).sum(axis=2)
    y, x = np.unravel_index(brightness.argmax(), brightness.shape)
    assert 10 <= y < 20 and 40 <= x < 50
    assert brightness[:, :20].std() == 0
    same = overlay(photo.astype(np.float32) / 255, spot * 7)
    assert np.abs(same.astype(int) - shown).max() <= 1


def test_overlay_refuses_other_shapes() -> None:
    with pytest.raises(ShapeError, match=r"\[40, 60\]"):
        overlay(np.zeros((40, 60), np.uint8), torch.zeros(2, 2))


def test_figure_has_a_place_for_every_panel(tmp_path: Path) -> None:
    pictures = [np.random.RandomState(i).rand(20 + 10 * i, 40, 3) for i in range(3)]
    first = [Panel(picture, f"panel {i}") for i, picture in enumerate(pictures)]
    drawn = figure([first, [Panel(pictures[0], "below")]], title="all")
    boxes = [axes.get_position() for axes in drawn.axes]
    assert [axes.get_title() for axes in drawn.axes] == ["panel 0", "panel 1", "panel 2", "below"]
    for i, a in enumerate(boxes):
        assert 0 <= a.x0 < a.x1 <= 1 and 0 <= a.y0 < a.y1 <= 1
        for b in boxes[i + 1 :]:
            assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
    path = save_figure(drawn, tmp_path / "figure.png")
    with Image.open(path) as written:
        assert written.format == "PNG" and written.width > 1000
    with pytest.raises(ShapeError, match="panel"):
        figure([[]])


def test_save_image_round_trip(tmp_path: Path) -> None:
    image = (np.random.RandomState(0).rand(5, 6, 3) * 255).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(save_image(image, tmp_path / "a.png"))), image)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_atomic_path_leaves_the_old_file_when_the_writer_fails(tmp_path: Path) -> None:
    target = tmp_path / "out.npz"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        assert target.read_bytes() == b"old" and temporary.suffix == ".npz"
    assert target.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["out.npz"]


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        check_writable(tmp_path / "absent" / "x.npz")
    with pytest.raises(InputError, match="it is a folder"):
        check_writable(tmp_path)


def test_smoothing_keeps_the_mass_and_lowers_the_peak() -> None:
    dots = torch.zeros(1, 40, 50)
    dots[0, 20, 25] = 1
    blurred = drawing.blurred(dots, 2.0)
    assert float(blurred.max()) == pytest.approx(1 / (2 * np.pi * 4), rel=0.05) and blurred.argmax() == dots.argmax()
    assert float(blurred.sum()) == pytest.approx(1)
    assert torch.equal(drawing.blurred(dots, 0.0), dots)
    photo = np.full((40, 50, 3), 128, np.uint8)
    assert not np.array_equal(drawing.overlay(photo, dots[0]), drawing.overlay(photo, dots[0], smooth=0.05))
    with pytest.raises(InputError, match="smooth"):
        drawing.overlay(photo, dots[0], smooth=-1)


def test_a_sequence_is_a_curve_that_glows_where_its_map_is_high() -> None:
    row = torch.zeros(20)
    row[5] = 1
    picture = drawing.draw(np.zeros((1, 100), np.float32), row).astype(int)
    warmth = picture[..., 0] - picture[..., 2]
    height, width = warmth.shape
    column = warmth[height // 4, round(0.06 * width) : round(0.98 * width)].argmax() / (0.92 * width)
    assert abs(column - 5.5 / 20) < 0.02
    with pytest.raises(ShapeError, match="curve"):
        drawing.curve(np.zeros((2, 3, 4)), row)


def test_a_volume_is_a_sheet_of_its_frames() -> None:
    volume = torch.zeros(4, 6, 6)
    volume[3, 2, 2] = 1
    sheet = drawing.draw(np.full((4, 24, 24, 3), 100, np.uint8), volume)
    assert sheet.shape == (2 * 24 + 2, 2 * 24 + 2, 3)
    bright = sheet.astype(int).sum(2)
    bright[24:26], bright[:, 24:26] = 0, 0  # the white gaps
    y, x = np.unravel_index(bright.argmax(), bright.shape)
    assert y >= 26 and x >= 26  # in the last frame
    assert drawing.contact_sheet(np.zeros((40, 8, 8, 3), np.uint8), volume, most=9).shape == (28, 28, 3)
    with pytest.raises(ShapeError, match="contact_sheet"):
        drawing.contact_sheet(np.zeros((4, 24, 24)), volume)
