"""The pointing game on cases small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ebp_cuda.errors import InputError, ShapeError
from ebp_cuda.eval.pointing import PointingGame, boxes_mask, is_hit, maximum

SIZE = (20, 30)


def peak(row: int, column: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    values = np.zeros(size, dtype=np.float32)
    values[row, column] = 1
    return values


def pixels(*places: tuple[int, int], size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    for row, column in places:
        mask[row, column] = True
    return mask


@pytest.mark.parametrize("place", [(0, 0), (19, 29), (0, 29), (7, 3)])
def test_maximum_is_row_and_column(place: tuple[int, int]) -> None:
    assert maximum(peak(*place)) == place
    assert maximum(torch.from_numpy(peak(*place))) == place


def test_the_first_of_equal_maxima_in_row_major_order() -> None:
    values = np.zeros(SIZE, dtype=np.float32)
    values[5, 2] = values[4, 20] = values[4, 25] = 3
    assert maximum(values) == (4, 20)


def test_a_map_of_one_value_points_at_the_corner() -> None:
    assert maximum(np.zeros(SIZE)) == (0, 0)
    assert maximum(torch.full(SIZE, -2.0)) == (0, 0)


def test_negative_maps_point_at_their_least_negative_pixel() -> None:
    assert maximum(peak(3, 4) - 2) == (3, 4)


@pytest.mark.parametrize(
    ("offset", "tolerance", "hit"),
    [
        ((0, 0), 0, True),
        ((0, 1), 0, False),
        ((0, 5), 5, True),
        ((3, 4), 5, True),  # 3-4-5: exactly on the circle
        ((4, 4), 5, False),  # sqrt(32) > 5: a square of half-side 5 would have taken it
        ((-3, -4), 4.99, False),
    ],
)
def test_the_tolerance_is_a_closed_disc(offset: tuple[int, int], tolerance: float, hit: bool) -> None:
    assert is_hit((10, 10), pixels((10 + offset[0], 10 + offset[1])), tolerance) is hit


def test_the_disc_about_a_border_maximum_does_not_wrap() -> None:
    assert is_hit((0, 0), pixels((2, 2)), 3)
    assert not is_hit((0, 0), pixels((19, 29), (19, 0), (0, 29)), 3)


def test_any_instance_counts() -> None:
    game = PointingGame(tolerance=2)
    truth = boxes_mask([(1, 1, 4, 4), (20, 10, 25, 15)], SIZE)
    assert game.add(7, peak(11, 27), truth) is False  # 3 pixels right of the second box's last column, 24
    assert game.add(7, peak(11, 26), truth) is True
    assert game.add(7, peak(5, 3), truth) is True
    assert game.accuracy() == {7: pytest.approx(2 / 3)}


def test_an_all_zero_map_hits_only_what_lies_in_the_corner() -> None:
    game = PointingGame(tolerance=3)
    assert game.add(0, np.zeros(SIZE), pixels((10, 10))) is False
    assert game.add(0, np.zeros(SIZE), pixels((3, 0))) is True


def test_class_mean_and_overall_differ_when_classes_are_not_equally_frequent() -> None:
    game = PointingGame(tolerance=0)
    for _ in range(3):
        game.add(1, peak(2, 2), pixels((2, 2)))
    game.add(4, peak(2, 2), pixels((9, 9)))
    assert game.trials == 4
    assert game.accuracy() == {1: 1.0, 4: 0.0}
    assert game.mean_accuracy() == 0.5
    assert game.overall_accuracy() == 0.75


def test_no_trial_has_no_accuracy() -> None:
    game = PointingGame()
    assert game.tolerance == 15
    assert math.isnan(game.mean_accuracy()) and math.isnan(game.overall_accuracy())


def test_boxes_cover_the_pixels_they_touch_and_are_cut_at_the_border() -> None:
    mask = boxes_mask([(-5, 18.5, 1.2, 40)], SIZE)
    assert mask.sum() == 4 and mask[18:, :2].all()
    assert not boxes_mask([(-9, -9, -3, -3)], SIZE).any()
    with pytest.raises(InputError, match="x0 < x1"):
        boxes_mask([(4, 4, 4, 8)], SIZE)


def test_bad_input_is_named() -> None:
    game = PointingGame()
    with pytest.raises(InputError, match=r"class 3.*none of it"):
        game.add(3, peak(0, 0), np.zeros(SIZE, dtype=bool))
    with pytest.raises(ShapeError, match=r"\[14, 14\].*\[20, 30\]"):
        game.add(3, np.zeros((14, 14)), pixels((1, 1)))
    with pytest.raises(InputError, match="1 of 600 values are NaN"):
        game.add(3, np.where(peak(1, 1) > 0, np.nan, 0), pixels((1, 1)))
    with pytest.raises(ShapeError, match=r"\[1, 20, 30\]"):
        maximum(torch.zeros(1, 20, 30))
    with pytest.raises(InputError, match="tolerance -1"):
        PointingGame(-1)
    assert game.trials == 0
