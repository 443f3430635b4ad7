"""The table of kernels by class of shape: what stands in it is what runs."""

from __future__ import annotations

import pytest
import torch

from ebp_cuda.errors import UnsupportedError
from ebp_cuda.ops.choices import Row, choices, other_choices
from ebp_cuda.ops.kernels import Kernel, contraction_kernel

SAME = ((1, 1), (1, 1, 1, 1), (1, 1))


def kernel(batch: int, precision: str = "fp32", **options: object) -> Kernel:
    """Of a 3 x 3 convolution of 32 to 64 channels on planes of 14 x 14: 18 steps a tile."""
    source, weight = (
        torch.empty(shape, device="meta").contiguous(memory_format=torch.channels_last)
        for shape in ((batch, 32, 14, 14), (64, 32, 3, 3))
    )
    return contraction_kernel(source, weight, *SAME, 1, precision=precision, **options)


def changed(old: Row, **values: object) -> list[Row]:
    assert old in choices()
    return [row._replace(**values) if row == old else row for row in choices()]


def row_of(way: str, factors: str, tiles: int) -> Row:
    return next(row for row in choices() if (row.way, row.factors, row.tiles) == (way, factors, tiles))


def test_the_project_says_how_it_chooses_today() -> None:
    assert row_of("up", "fp32", 128) == ("up", "fp32", 128, 128, 0, True, 396)
    assert kernel(84).name == "simt, large tiles" and kernel(82).name == "simt, small tiles"  # 129 and 126 tiles


def test_an_entry_changes_the_tile() -> None:
    assert kernel(1).name == "simt, small tiles"
    with other_choices(changed(row_of("up", "fp32", 0), large=True)):
        assert kernel(1).name == "simt, large tiles"
    assert kernel(1).name == "simt, small tiles"


@pytest.mark.parametrize(("blocks", "splits"), [(1, 1), (4, 2), (6, 3), (256, 4)])
def test_an_entry_changes_the_splits(blocks: int, splits: int) -> None:
    """196 pixels are 2 tiles of 128; no part has less than 4 of the 18 steps."""
    with other_choices(changed(row_of("up", "tf32", 0), blocks=blocks)):
        launch = kernel(1, "tf32").launch
        assert launch is not None and (launch.splits, launch.blocks) == (splits, 2 * splits)
        other = kernel(1, "bf16").launch
    assert other is not None and other.splits == 4


def test_a_row_is_for_its_class_only() -> None:
    """From 18 steps on: the same pixels with a 1 x 1 kernel, of 2 steps, keep the tile."""
    wide = Row("up", "fp32", 0, 0, 18, True, 256)
    with other_choices([wide, *choices()]):
        assert kernel(1).name == "simt, large tiles"
        source, weight = (
            torch.empty(shape, device="meta").contiguous(memory_format=torch.channels_last)
            for shape in ((1, 32, 14, 14), (64, 32, 1, 1))
        )
        thin = contraction_kernel(source, weight, (1, 1), (0, 0, 0, 0), (1, 1), 1)
        assert thin.name == "simt, small tiles"
        above = torch.empty(1, 64, 14, 14, device="meta").contiguous(memory_format=torch.channels_last)
        weight = weight.new_empty(64, 32, 3, 3).contiguous(memory_format=torch.channels_last)
        down = contraction_kernel(above, weight, *SAME, 1, in_size=(14, 14))
        assert down.name == "simt, small tiles"


def test_few_pixels_take_the_small_tile() -> None:
    """A fully connected layer of 20 rows, whose channels alone are 128 tiles and more: a large one would stay empty."""
    for rows, name in ((20, "simt, small tiles"), (128, "simt, large tiles")):
        r, weight = torch.empty(rows, 64, 1, 1, device="meta"), torch.empty(64, 64 * 128, 1, 1, device="meta")
        down = contraction_kernel(r, weight, (1, 1), (0, 0, 0, 0), (1, 1), 1, in_size=(1, 1))
        assert down.name == name


def test_rows_are_written_as_the_header_has_them() -> None:
    assert str(row_of("up", "fp32", 128)) == "{Way::up, Precision::fp32, 128, 128, 0, true, 396},"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no row takes the smallest problems of a way"),
        ([row for row in choices() if row.way != "pair"], "no row takes the smallest problems of a pair"),
        ([Row("pair", "fp32", 0, 0, 0, True, 256)], "two sums at once"),
        ([Row("up", "tf32", 0, 0, 0, False, 256)], "tensor cores have tiles of 128 x 64 only"),
        ([Row("up", "fp32", 0, 0, 0, False, 0)], "for no blocks"),
    ],
)
def test_a_table_that_no_kernel_can_follow_is_refused(rows: list[Row], reason: str) -> None:
    before = choices()
    with pytest.raises(UnsupportedError, match=f"choices of kernels: .*{reason}"), other_choices(rows):
        pass
    assert choices() == before
