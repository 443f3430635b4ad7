"""Pictures that explain themselves: what stands about a map, the negative part, colors that all eyes tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.serving import scene

from ebp_cuda import cli
from ebp_cuda.errors import InputError
from ebp_cuda.images.annotation import COLORS, Look
from ebp_cuda.images.maps import Panel, overlay

PHOTO = np.full((40, 60, 3), 128, np.uint8)
SIGNED = np.array([[1.0, 0.0], [0.0, -2.0]], dtype=np.float32)


def corner(image: np.ndarray, row: int, column: int) -> np.ndarray:
    return image[row * 39, column * 59].astype(int)


def test_the_negative_part_is_blue_and_on_one_scale_with_the_positive() -> None:
    plain, signed = overlay(PHOTO, SIGNED), overlay(PHOTO, SIGNED, negative=True)
    red, _, blue = corner(signed, 1, 1)
    assert blue > red + 100
    assert np.abs(corner(plain, 1, 1) - corner(plain, 0, 1)).max() < 5  # without it, as dark as a 0
    # the largest number is -2, so 1 glows at half of the scale
    assert corner(plain, 0, 0).sum() > corner(signed, 0, 0).sum()
    assert corner(overlay(PHOTO, -SIGNED, negative=True), 0, 0)[2] > corner(signed, 0, 0)[2]


def test_without_negative_numbers_nothing_changes() -> None:
    positive = SIGNED.clip(0)
    assert np.abs(overlay(PHOTO, positive).astype(int) - overlay(PHOTO, positive, negative=True)).max() <= 1


@pytest.mark.parametrize("colors", COLORS)
def test_lightness_rises_all_the_way(colors: str) -> None:
    ramp = np.linspace(0, 1, 60, dtype=np.float32)[None].repeat(40, 0)
    shown = overlay(np.zeros_like(PHOTO), ramp, colormap=colors, strength=1.0).astype(float)
    lightness = shown[20, 2:-2] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -1).all()
    assert lightness[-1] > lightness[0] + 80


def test_a_color_map_that_misleads_is_refused() -> None:
    with pytest.raises(InputError, match="colors='jet': wanted one of inferno, cividis"):
        Look(colors="jet")


@pytest.mark.parametrize(("negative", "ticks"), [(False, ["0", "0.5"]), (True, ["-0.5", "0.5"])])
def test_the_bar_of_one_map_says_its_numbers(negative: bool, ticks: list[str]) -> None:
    drawn = Look(negative=negative).panels([Panel(PHOTO, "cat  7.1\npool2")], 0.5)
    assert drawn.axes[0].get_title() == "cat  7.1\npool2"
    assert [label.get_text() for label in drawn.axes[-1].get_xticklabels()] == ticks


def test_the_bar_of_several_maps_has_no_numbers() -> None:
    drawn = Look().panels([Panel(PHOTO, "a"), Panel(PHOTO, "b")], 0.5, title="model")
    assert [label.get_text() for label in drawn.axes[-1].get_xticklabels()] == ["0", "largest"]


def test_the_command_annotates_and_lays_classes_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scene.png").write_bytes(scene(3))
    line = ["ebp-cuda", "attribute", str(tmp_path / "scene.png"), "--model", "digits", "--target", "top3", "--annotate"]
    line += ["--sheet", "--negative", "--colors", "cividis", "--overlay", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 4
    assert names[-1] == "scene_sheet.png"
    sheet, one = (Image.open(tmp_path / "out" / name) for name in (names[-1], names[0]))
    assert sheet.width > 3 * one.width
    assert one.text["layer"] == sheet.text["layer"]
    assert one.size != (112, 112)
