"""The pointing game over data sets: accuracies worked out by hand, resumption, TorchRay's class on the same maps."""

from __future__ import annotations

import math
import types
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("pyarrow")


from ebp_cuda.errors import InputError
from ebp_cuda.eval.datasets import voc
from ebp_cuda.eval.datasets.base import Box, Instance, Picture
from ebp_cuda.eval.datasets.coco import read_coco
from ebp_cuda.eval.datasets.voc import asked, read_voc
from ebp_cuda.eval.difficult import is_difficult, read_list, write_list
from ebp_cuda.eval.inputs import read
from ebp_cuda.eval.methods import Method
from ebp_cuda.eval.pointing import PointingGame
from ebp_cuda.eval.pointing_command import protocol_of
from ebp_cuda.eval.pointing_run import PROTOCOLS, Protocol, Trial, per_class, play, summary
from ebp_cuda.eval.records import Records
from ebp_cuda.images.preprocess import Preprocess
from ebp_cuda.models import digits
from ebp_cuda.models.digits import on_disk
from ebp_cuda.net import Net

SIZE = (40, 60)
CLASSES = ["cat", "dog", "cow"]
EXACT = Protocol(resize="bilinear", tolerance=3, smooth=0)


@cache
def net() -> Net:
    return digits.load()


def picture(folder: Path, name: str, *instances: tuple[int, Box]) -> Picture:
    """A picture of one grey, by which `Told` knows it again."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.png"
    Image.fromarray(np.full((*SIZE, 3), ord(name), dtype=np.uint8)).save(path)
    return Picture(name, path, SIZE, tuple(Instance(label, box) for label, box in instances))


def at(*points: tuple[int, int] | None) -> torch.Tensor:
    """Maps [K, *SIZE] of one pixel each; None is a map of zeros."""
    maps = torch.zeros(len(points), *SIZE)
    for index, point in enumerate(points):
        if point is not None:
            maps[index, point[0], point[1]] = 1
    return maps


class Told:
    """A method that gives the maps it was told, by the picture's name."""

    def __init__(self, maps: dict[str, torch.Tensor]) -> None:
        self.maps = maps

    def __call__(self, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.maps[chr(round(float(one.max()) * 255))] for one in x])


def rows_of(
    folder: Path, trials: list[Trial], maps: dict[str, torch.Tensor], protocol: Protocol = EXACT, **more: object
) -> list:
    records = Records(folder / "out", {})
    told = Method("told", Told(maps))
    play(trials, net(), [told], Preprocess(), protocol, records, classes=CLASSES, batch=1, **more)  # type: ignore[arg-type]
    return records.rows


def by_hand(folder: Path) -> tuple[list[Trial], dict[str, torch.Tensor]]:
    """Seven trials: cat hit, miss, hit; dog hit, miss; cow hit, miss."""
    a = picture(folder, "a", (0, (10, 10, 20, 20)), (1, (40, 5, 50, 15)))  # small, with company: both difficult
    b = picture(folder, "b", (0, (0, 0, 60, 20)))  # alone: easy
    c = picture(folder, "c", (0, (0, 0, 50, 30)), (1, (50, 30, 60, 40)), (2, (55, 0, 60, 4)), (2, (30, 35, 34, 40)))
    d = picture(folder, "d", (2, (20, 20, 22, 22)))
    trials = [Trial(p, tuple(p.labels)) for p in (a, b, c, d)]
    maps = {
        "a": at((22, 17), (10, 53)),  # cat: 3 pixels under its last row, 19; dog: 4 right of its last column, 49
        "b": at((39, 59)),  # the far corner
        "c": at((0, 0), (30, 50), (37, 31)),  # the corner of the cat; the dog's first pixel; the second cow
        "d": at(None),  # nothing at all: points at (0, 0)
    }
    return trials, maps


def test_accuracies_by_hand(tmp_path: Path) -> None:
    trials, maps = by_hand(tmp_path)
    rows = rows_of(tmp_path, trials, maps)
    hits = {(row["image"], row["class"]): row["hit"] for row in rows}
    assert hits == {
        ("a", "cat"): True, ("a", "dog"): False, ("b", "cat"): False, ("c", "cat"): True, ("c", "dog"): True,
        ("c", "cow"): True, ("d", "cow"): False,
    }  # fmt: skip
    (table,) = summary(rows, "voc07", None)
    assert table["all"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert table["all_trials"] == pytest.approx(100 * 4 / 7) and table["trials"] == 7
    # difficult: a's cat and dog, c's dog and cow; c's cat covers 1500 of 2400 pixels, b and d show one class
    assert table["trials_difficult"] == 4
    assert table["difficult"] == pytest.approx(100 * (1 + 1 / 2 + 1) / 3)
    assert table["published_all"] is None
    classes = {row["class"]: row for row in per_class(rows, CLASSES)}
    assert (classes["cat"]["all"], classes["cat"]["trials"]) == (pytest.approx(200 / 3), 3)
    assert (classes["cow"]["difficult"], classes["cow"]["trials_difficult"]) == (100, 1)


def test_the_points_and_distances_are_kept(tmp_path: Path) -> None:
    trials, maps = by_hand(tmp_path)
    rows = {(row["image"], row["class"]): row for row in rows_of(tmp_path, trials, maps)}
    assert (rows["a", "cat"]["row"], rows["a", "cat"]["column"], rows["a", "cat"]["distance"]) == (22, 17, 3)
    assert rows["a", "dog"]["distance"] == 4
    assert rows["b", "cat"]["distance"] == 20
    assert (rows["d", "cow"]["row"], rows["d", "cow"]["column"]) == (0, 0)
    assert rows["d", "cow"]["distance"] == pytest.approx(20 * math.sqrt(2))
    assert rows["c", "cat"]["area"] == pytest.approx(1500 / 2400)


def test_an_open_circle_loses_what_lies_on_it(tmp_path: Path) -> None:
    trials, maps = by_hand(tmp_path)
    rows = rows_of(tmp_path, trials, maps, protocol=replace(EXACT, closed=False))
    assert not next(row["hit"] for row in rows if (row["image"], row["class"]) == ("a", "cat"))
    assert sum(row["hit"] for row in rows) == 3


def test_of_equal_maxima_the_first_is_pointed_at(tmp_path: Path) -> None:
    one = picture(tmp_path, "a", (0, (50, 20, 55, 25)))
    twice = at((22, 52)) + at((22, 10))
    (row,) = rows_of(tmp_path, [Trial(one, (0,))], {"a": twice})
    assert (row["row"], row["column"], row["hit"]) == (22, 10, False)


def test_a_small_map_is_brought_to_the_picture(tmp_path: Path) -> None:
    """4 x 6 cells of 10 pixels: pixel centres aligned, so cell (2, 4) lies about (25, 45)."""
    one = picture(tmp_path, "a", (0, (40, 20, 50, 30)))
    cells = torch.full((1, 4, 6), -1.0)
    cells[0, 2, 4] = 1
    for mode in ("bilinear", "bicubic"):
        point = Protocol(resize=mode).point(cells[0], SIZE, smooths=False)
        assert 24 <= point[0] <= 25 and 44 <= point[1] <= 45
    (row,) = rows_of(tmp_path, [Trial(one, (0,))], {"a": cells})
    assert row["distance"] == 0


def test_only_pixel_methods_are_smoothed() -> None:
    """A lone pixel of 1.5 against a block of ones: smoothing prefers the block."""
    values = torch.zeros(SIZE)
    values[5, 5] = 1.5
    values[20:30, 40:50] = 1
    protocol = Protocol(resize="bilinear", smooth=0.05)
    assert protocol.point(values, SIZE, smooths=False) == (5, 5)
    row, column = protocol.point(values, SIZE, smooths=True)
    assert 20 <= row < 30 and 40 <= column < 50


def test_a_network_with_its_outputs_in_another_order(tmp_path: Path) -> None:
    asked = []

    def maps(x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        asked.append(classes.tolist())
        return torch.zeros(*classes.shape, *SIZE)

    one = picture(tmp_path, "a", (0, (0, 0, 9, 9)), (2, (0, 0, 9, 9)))
    records = Records(tmp_path / "out", {})
    play(
        [Trial(one, (0, 2))], net(), [Method("m", maps)], Preprocess(), EXACT, records,
        classes=CLASSES, outputs=[7, 8, 4],
    )  # fmt: skip
    assert asked == [[[7, 4]]]
    assert [row["class"] for row in records.rows] == ["cat", "cow"]


def test_the_difficult_list_replaces_the_rule(tmp_path: Path) -> None:
    trials, maps = by_hand(tmp_path)
    flags = {name: [name == "b", False, False] for name in "abcd"}
    write_list(tmp_path / "list.txt", flags)
    assert read_list(tmp_path / "list.txt", 3) == flags
    rows = rows_of(tmp_path, trials, maps, listed=flags)
    assert [(row["image"], row["class"]) for row in rows if row["difficult"]] == [("b", "cat")]
    with pytest.raises(InputError, match="no line for a"):
        rows_of(tmp_path / "x", trials, maps, listed={})


def test_difficult_is_small_and_in_company(tmp_path: Path) -> None:
    small, large = (0, 0, 20, 29), (0, 0, 20, 30)  # 580 and 600 of 2400 pixels
    for box, others, expected in (
        (small, [(1, small)], True),
        (large, [(1, small)], False),
        (small, [], False),
        (small, [(0, small)], False),
    ):
        one = picture(tmp_path, "a", (0, box), *others)
        assert is_difficult(one, 0, one.mask_of(0)) is expected


def test_a_broken_difficult_list_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a\t0\t1\t0\nb\t0\t1\n")
    with pytest.raises(InputError, match=r"list\.txt:2: 2 columns after 'b', wanted 3"):
        read_list(path, 3)


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    trials, maps = by_hand(tmp_path)
    whole = rows_of(tmp_path / "whole", trials, maps)
    records = Records(tmp_path / "out", {"a": 1})

    def stops(x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return told(x, classes)

    def start(into: Records, maps: object) -> None:
        play(
            trials, net(), [Method("told", maps)], Preprocess(), EXACT, into, classes=CLASSES, batch=1,  # type: ignore[arg-type]
        )  # fmt: skip

    told, calls = Told(maps), list[int]()
    with pytest.raises(KeyboardInterrupt):
        start(records, stops)
    again = Records(tmp_path / "out", {"a": 1})
    assert again.done == {"a", "b"}
    start(again, told)
    assert again.rows == Records(tmp_path / "out", {"a": 1}).rows

    def key(row: dict) -> tuple[str, int]:
        return row["image"], row["label"]

    assert sorted(again.rows, key=key) == sorted(whole, key=key)
    with pytest.raises(InputError, match="holds a run with a = 1, now it is 2"):
        Records(tmp_path / "out", {"a": 2})


def test_a_broken_part_is_named(tmp_path: Path) -> None:
    trials, maps = by_hand(tmp_path)
    rows_of(tmp_path, trials, maps)
    part = next((tmp_path / "out").glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(InputError, match=r"part-000000\.parquet cannot be read"):
        Records(tmp_path / "out", {})


def test_a_picture_that_is_not_as_annotated_is_named(tmp_path: Path) -> None:
    one = picture(tmp_path, "a", (0, (0, 0, 5, 5)))
    wrong = replace(one, size=(60, 40))
    with pytest.raises(InputError, match=r"a\.png is 60 x 40 pixels and annotated as 40 x 60"):
        rows_of(tmp_path, [Trial(wrong, (0,))], {})


def test_protocols() -> None:
    assert protocol_of("original", None, 15, None) == PROTOCOLS["original"] == Protocol()
    assert protocol_of("torchray", "bicubic", 4, 0) == Protocol("bicubic", False, 4, 0)
    for wrong in (("paper", None, 15, None), ("original", "nearest", 15, None), ("original", None, -1, None)):
        with pytest.raises(InputError):
            protocol_of(*wrong)


@pytest.fixture(scope="module")
def torchray() -> types.ModuleType:
    pytest.importorskip("torchray", reason="TorchRay is not installed: pip install --no-deps torchray==1.0.0.2")
    pytest.importorskip("torchvision")
    from torchray.benchmark import pointing_game

    return pointing_game


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_torchrays_game_counts_the_same_hits(torchray: types.ModuleType) -> None:
    """Random points and masks, many of them exactly 15 pixels apart, in all directions and at the borders."""
    rng = np.random.default_rng(0)
    theirs, ours = torchray.PointingGame(4, tolerance=15), PointingGame(15, closed=False)
    offsets = [(15, 0), (0, 15), (9, 12), (12, 9), (10, 11), (11, 10), (14, 5), (16, 0), (0, 0), (15, 1)]
    for trial in range(300):
        label, height, width = trial % 4, int(rng.integers(20, 60)), int(rng.integers(20, 60))
        values = rng.random((height, width)).astype(np.float32)
        row, column = (int(v) for v in np.unravel_index(values.argmax(), values.shape))
        mask = np.zeros((height, width), dtype=bool)
        down, right = offsets[trial % len(offsets)]
        r, c = row + down * int(rng.choice([-1, 1])), column + right * int(rng.choice([-1, 1]))
        r, c = min(max(r, 0), height - 1), min(max(c, 0), width - 1)
        mask[r, c] = True
        theirs.aggregate(theirs.evaluate(torch.from_numpy(mask), (column, row)), label)
        ours.add(label, values, mask)
    assert theirs.hits.tolist() == [ours.hits.get(label, 0) for label in range(4)]
    assert theirs.misses.tolist() == [ours.misses.get(label, 0) for label in range(4)]
    assert theirs.accuracy.item() == pytest.approx(ours.mean_accuracy())
    assert 50 < sum(ours.hits.values()) < 250


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_torchrays_benchmark_on_voc_counts_the_same_hits(torchray: types.ModuleType, tmp_path: Path) -> None:
    """A set on disk through both readers, All and Difficult: difficult boxes, several instances, absent classes."""
    from torchray.benchmark import datasets as theirs
    from torchvision.datasets import VOCDetection

    names = theirs.VOC_CLASSES
    assert list(voc.CLASSES) == names
    root = on_disk.write("voc07", tmp_path / "set", 12, seed=1) / "VOC2007"
    (root / "classes.txt").unlink()
    for path in (root / "Annotations").iterdir():
        text = path.read_text()
        for label in range(10):
            text = text.replace(f"<name>{label}</name>", f"<name>{names[label]}</name>")
        path.write_text(text)
    pictures, classes = read_voc(root)
    flags = {
        p.name: [is_difficult(p, v, p.mask_of(v)) if v in p.labels else False for v in range(20)] for p in pictures
    }
    stub = VOCDetection.__new__(VOCDetection)
    games = [torchray.PointingGameBenchmark(stub, difficult=False) for _ in range(2)]
    games[1].difficult, games[1].difficult_flags = True, flags
    trials = [Trial(p, tuple(asked(p))) for p in pictures]
    generator = torch.Generator().manual_seed(0)
    told = {p.name: torch.rand(len(p.labels), 7, 7, generator=generator) for p in pictures}
    for p in pictures:
        root_element = ElementTree.parse(root / "Annotations" / f"{p.name}.xml").getroot()
        label = VOCDetection.parse_voc_xml(root_element)
        for index, class_id in enumerate(p.labels):
            assert np.array_equal(theirs.voc_as_mask(label, class_id).numpy(), p.mask_of(class_id))
            row, column = PROTOCOLS["torchray"].point(told[p.name][index], p.size, smooths=False)
            for game in games:
                game.aggregate(game.evaluate(label, class_id, (column, row)), class_id)

    how = Preprocess(size=(112, 112))
    known = {float(read(p, how, net()).double().sum()): p for p in pictures}
    assert len(known) == len(pictures)

    def maps(x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        shown = [known[float(one.double().sum())] for one in x]
        picked = [
            [told[p.name][p.labels.index(v)] for v in row] for p, row in zip(shown, classes.tolist(), strict=True)
        ]
        return torch.stack([torch.stack(row) for row in picked])

    records = Records(tmp_path / "out", {})
    play(trials, net(), [Method("told", maps)], how, PROTOCOLS["torchray"], records, classes=classes)
    for game, own in zip(games, (records.rows, [row for row in records.rows if row["difficult"]]), strict=True):
        for kind, wanted in (("hits", True), ("misses", False)):
            counts = [sum(row["label"] == v and row["hit"] is wanted for row in own) for v in range(20)]
            assert getattr(game, kind).tolist() == counts
    assert records.rows and any(row["difficult"] for row in records.rows)


def test_torchrays_masks_of_coco_are_ours(torchray: types.ModuleType, tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    from torchray.benchmark import datasets as theirs

    root = on_disk.write("coco14", tmp_path / "set", 10, seed=4)
    pictures, _ = read_coco(root)
    stub = types.SimpleNamespace(coco=coco.COCO(str(root / "annotations" / "instances_val2014.json")))
    for image_id, picture in zip(sorted(stub.coco.getImgIds()), pictures, strict=True):
        label = stub.coco.loadAnns(stub.coco.getAnnIds(imgIds=image_id))
        assert theirs.coco_as_image_name(stub, label) == picture.name
        for own in picture.labels:
            class_id = theirs._COCO_CLASS_TO_INDEX[2 * own + 1]  # the set has every second category id
            assert np.array_equal(theirs.coco_as_mask(stub, label, class_id).numpy(), picture.mask_of(own))


def test_torchrays_difficult_list_is_read(torchray: types.ModuleType) -> None:
    path = Path(torchray.__file__).parent / "pointing_game_ebp_voc07_difficult.txt"
    flags = read_list(path, 20)
    assert (len(flags) == 4952 and sum(map(sum, flags.values())) == 2434) or len(flags) == 4952
    assert flags["000001"][11] and sum(flags["000002"]) == 0
