"""The digits network: its scenes, its files, the twin that trained it, and that its maps point at digits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("sklearn")
pytest.importorskip("skimage")

from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score

from ebp_cuda.errors import InputError
from ebp_cuda.eval import digits_game
from ebp_cuda.importers.caffe import read_weights
from ebp_cuda.models import digits
from ebp_cuda.models.digits import network, scenes, train
from ebp_cuda.net import Net


@cache
def trained() -> Net:
    return digits.load()


@cache
def held_out(n: int) -> tuple[scenes.Scene, ...]:
    return tuple(scenes.held_out_scenes(n, seed=3))


def test_a_scene_depends_on_its_split_seed_and_index_alone() -> None:
    first = scenes.make_scene("test", 3, 5)
    scenes.make_scene("train", 0, 0)
    again = list(scenes.held_out_scenes(6, seed=3))[5]
    assert np.array_equal(first.image, again.image)
    assert [digit.box for digit in first.digits] == [digit.box for digit in again.digits]
    for other in (("test", 3, 6), ("test", 4, 5), ("train", 3, 5)):
        assert not np.array_equal(first.image, scenes.make_scene(*other).image)


def test_no_digit_and_no_photo_is_in_both_splits() -> None:
    train_digits, test_digits = (set(scenes.digit_indices(split)) for split in ("train", "test"))
    assert not train_digits & test_digits
    assert train_digits | test_digits == set(range(len(load_digits().target)))
    assert not set(scenes.PHOTOS["train"]) & set(scenes.PHOTOS["test"])
    assert {digit.source for scene in held_out(60) for digit in scene.digits} <= test_digits
    assert {d.source for index in range(60) for d in scenes.make_scene("train", 0, index).digits} <= train_digits


def test_labels_boxes_and_masks_say_where_the_digits_are() -> None:
    target = load_digits().target
    counts = set()
    for scene in held_out(60):
        assert scene.image.shape == (scenes.SIZE, scenes.SIZE, 3) and scene.image.dtype == np.uint8
        counts.add(len(scene.digits))
        assert np.sum([digit.mask for digit in scene.digits], axis=0).max() == 1
        for digit in scene.digits:
            x0, y0, x1, y1 = digit.box
            assert digit.label == target[digit.source]
            assert 0 <= x0 < x1 <= scenes.SIZE and 0 <= y0 < y1 <= scenes.SIZE
            assert digit.mask.sum() == digit.mask[y0:y1, x0:x1].sum() > 20
    assert counts == {1, 2, 3, 4, 5}


def test_the_mask_of_a_class_joins_its_digits() -> None:
    scene = next(s for s in held_out(60) if len(s.labels) < len(s.digits))
    label = next(v for v in scene.labels if sum(d.label == v for d in scene.digits) > 1)
    parts = [digit.mask.sum() for digit in scene.digits if digit.label == label]
    assert scene.mask_of(label).sum() == sum(parts)
    absent = next(v for v in range(10) if v not in scene.labels)
    assert not scene.mask_of(absent).any()


def test_bad_scenes_are_refused() -> None:
    with pytest.raises(InputError, match="split 'val'"):
        scenes.make_scene("val", 0, 0)
    with pytest.raises(InputError, match="40 pixels"):
        scenes.make_scene("test", 0, 0, size=40)


def test_deploy_prototxt_is_what_the_description_says() -> None:
    assert digits.DEPLOY.read_text() == network.prototxt()


def test_the_weights_file_is_small_and_fits() -> None:
    assert digits.WEIGHTS.stat().st_size < 2_000_000
    weights = trained().graph
    shapes = {node.name: list(node.params["weight"].shape) for node in weights.nodes if node.op == "conv"}
    assert shapes == {name: list(arrays[0].shape) for name, arrays in network.Twin().weights().items()}
    assert trained().labels == [str(digit) for digit in range(10)]


def test_the_twin_computes_what_the_imported_network_does() -> None:
    x = digits_game.as_input(held_out(60)[:3])
    ours = trained().forward(x, [digits.TOP])[digits.TOP]
    with torch.no_grad():
        theirs = digits_game.twin_of(trained())(x)
    assert ours.shape == (3, 10, 1, 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_a_larger_image_gives_a_plane_of_scores() -> None:
    x = torch.zeros(1, 3, 144, 176)
    assert trained().forward(x, [digits.TOP])[digits.TOP].shape == (1, 10, 3, 5)
    assert digits_game.twin_of(trained())(x).shape == (1, 10, 3, 5)


def test_the_twins_normalisation_is_that_of_torch() -> None:
    twin = network.Twin()
    apply = next(step for step, _, top in twin._steps if top == "norm1")
    x = torch.randn(2, 24, 5, 5)
    torch.testing.assert_close(apply(x), F.local_response_norm(x, 5, 0.1, 0.75, k=1.0))


def test_batch_normalisation_folds_into_the_weights() -> None:
    torch.manual_seed(0)
    trainee = network.Twin(batch_norm=True)
    x = torch.randn(4, 3, 112, 112) * 50
    for _ in range(3):
        trainee(x)
    trainee.eval()
    plain = network.Twin()
    plain.load_weights(trainee.weights())
    with torch.no_grad():
        torch.testing.assert_close(plain(x), trainee(x), rtol=1e-3, atol=1e-4)


def test_it_recognises_held_out_digits() -> None:
    some = held_out(60)[:50]
    x = digits_game.as_input(some)
    scores = trained().forward(x, [digits.TOP])[digits.TOP].flatten(1).numpy()
    present = train.as_targets(list(some)).numpy()
    assert average_precision_score(present, scores, average="micro") > 0.9
    best = scores.argmax(1)
    assert np.mean([label in scene.labels for label, scene in zip(best, some, strict=True)]) > 0.9


def test_contrastive_maps_point_at_the_digit_asked_for() -> None:
    seen = []
    rows = digits_game.run(40, seed=3, net=trained(), progress=lambda done, n: seen.append((done, n)))
    by_name = {row.method: row for row in rows}
    assert seen == [(20, 40), (40, 40)]
    assert by_name["c-MWP"].trials == sum(len(scene.labels) for scene in held_out(60)[:40])
    assert by_name["c-MWP"].trials_many == sum(len(s.labels) for s in held_out(60)[:40] if len(s.digits) >= 3)
    assert by_name["c-MWP"].overall > 0.9
    for other, margin in (("MWP", 0.0), ("gradient", 0.05), ("centre", 0.6)):
        assert by_name["c-MWP"].overall > by_name[other].overall + margin
        assert by_name["c-MWP"].many > by_name[other].many + margin


def test_a_gradient_map_is_the_largest_slope_over_the_colours() -> None:
    twin = digits_game.twin_of(trained()).double()
    x = digits_game.as_input(held_out(60)[:2]).double()
    maps = digits_game.gradient(twin, x, torch.tensor([[4, 7], [1, 2]]))
    assert maps.shape == (2, 2, scenes.SIZE, scenes.SIZE)
    row, column = divmod(int(maps[0, 1].argmax()), scenes.SIZE)
    slopes = []
    for color in range(3):
        step = torch.zeros_like(x)
        step[0, color, row, column] = 1e-5
        with torch.no_grad():
            slopes.append(abs(float((twin(x + step) - twin(x - step))[0, 7, 0, 0])) / 2e-5)
    assert max(slopes) == pytest.approx(float(maps[0, 1, row, column]), rel=1e-3)


@pytest.fixture
def torch_settings() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_the_training_script_writes_both_files(tmp_path: Path, torch_settings: None) -> None:
    train.main(folder=tmp_path, seed=1, scale=0.008)
    assert (tmp_path / "deploy.prototxt").read_text() == network.prototxt()
    stored = read_weights(tmp_path / "digits.caffemodel")
    weights = {name: [blob.shape for blob in blobs] for name, blobs in stored.items() if blobs}
    assert weights == {name: [array.shape for array in arrays] for name, arrays in network.Twin().weights().items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deploy.prototxt", "digits.caffemodel"]
