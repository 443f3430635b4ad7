"""Localization and phrases: boxes, overlaps, rankings and recalls worked out by hand, then over digit scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")
pytest.importorskip("scipy")
pytest.importorskip("sklearn")

from ebp_cuda.errors import InputError
from ebp_cuda.eval.boxes import overlaps
from ebp_cuda.eval.localization import ALPHAS, box_of, run_localization, summary
from ebp_cuda.eval.methods import Layers, Method, build_methods
from ebp_cuda.eval.phrases import Ranking, run_phrases
from ebp_cuda.eval.phrases import summary as phrase_summary
from ebp_cuda.eval.proposals import best, grid, read_proposals, scores
from ebp_cuda.eval.subject import EvaluatedModel
from ebp_cuda.eval.words import classes_of, read_words, words_of_labels
from ebp_cuda.images.preprocess import Preprocess
from ebp_cuda.models import digits
from ebp_cuda.models.digits import on_disk


def subject() -> EvaluatedModel:
    net = digits.load()
    return EvaluatedModel(net, Preprocess.from_dict(net.preprocess), Layers(digits.LAYER, digits.CONTRAST_LAYER), None)


def test_the_box_is_about_the_largest_region() -> None:
    values = np.zeros((10, 10))
    values[1, 1] = 9  # the peak, alone
    values[4:6, 3:7] = 1  # 8 pixels
    values[6, 7] = 1  # touches the block at a corner only: a region of its own
    assert box_of(values, 1.0) == (3, 4, 7, 6)
    assert box_of(values, 8.0) == (1, 1, 2, 2)  # the mean is 0.18: only the peak is above 1.44
    assert box_of(values, 60.0) is None
    assert box_of(np.zeros((4, 4)), 0.0) is None


def test_negative_parts_do_not_lower_the_cut() -> None:
    values = np.full((4, 4), -5.0)
    values[0, 0], values[3, 3] = 1.0, 0.2
    assert box_of(values, 4.0) == (0, 0, 1, 1)  # the mean of the positive part is 0.075


def test_equal_regions_give_the_first() -> None:
    values = np.zeros((3, 5))
    values[2, 0] = values[0, 4] = 1
    assert box_of(values, 1.0) == (4, 0, 5, 1)


def test_overlaps_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [20, 20, 30, 30], [2, 2, 4, 4.0]])
    assert overlaps(boxes, (0, 0, 10, 10)) == pytest.approx([1, 25 / 175, 0, 4 / 100])


def test_alpha_is_chosen_on_the_held_out_part() -> None:
    def row(image: str, right: set[int]) -> dict:
        found = [0.5 if index in right else 0.49 for index in range(len(ALPHAS))]
        return {"image": image, "method": "m", "overlaps": found}

    rows = [row("a", {3, 4}), row("b", {4, 5}), row("c", {5}), row("d", {4}), row("e", {5}), row("f", {5})]
    (table,) = summary(rows, ["a", "b"])
    assert (table["alpha"], table["error_held_out"], table["error"]) == (2.0, 0, 75)
    assert table["pictures"] == 4
    with pytest.raises(InputError, match="both need some"):
        summary(rows, [])


def test_localisation_over_digit_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ebp_cuda.eval.datasets.imagenet import read_imagenet

    pictures, wnids = read_imagenet(on_disk.write("imagenet", tmp_path / "set", 16, seed=2))
    asked = subject()
    methods, _ = build_methods(asked.net, ["c-mwp", "center"], asked.layers)
    table = run_localization(asked, methods, pictures, wnids, tmp_path / "out", {}, held_out=6)
    errors = {row["method"]: row["error"] for row in table}
    assert errors["center"] == 100 and errors["c-mwp"] < 50
    assert "c-mwp" in capsys.readouterr().out
    again = run_localization(asked, methods, pictures, wnids, tmp_path / "out", {}, held_out=6)
    assert again == table
    with pytest.raises(InputError, match="--held-out 16"):
        run_localization(asked, methods, pictures, wnids, tmp_path / "out", {}, held_out=16)


def test_words_name_classes() -> None:
    labels = ["person, man, human", "hot dog", "dog, hound", "berry", "bus"]
    words = words_of_labels(labels)
    assert classes_of("Two men eat a hot dog", words) == [1]
    assert classes_of("a MAN with his dogs", words) == [0, 2]
    assert classes_of("berries on buses, and berries", words) == [3, 4]
    assert classes_of("the dog-house", words) == []
    assert classes_of("hot hot dogs", words) == [1]


def test_a_table_of_words(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# mine\nmen\tperson\nSki jacket\tcoat, 0\n\nmen\t1\n")
    assert read_words(path, ["person", "coat"], 2) == {"men": [0, 1], "ski jacket": [1, 0]}
    assert classes_of("men in ski jackets", read_words(path, ["person", "coat"], 2)) == [0, 1]
    for content, says in (("men person\n", r"words\.txt:1.*WORD, a tab"), ("a\t0\nb\t7\n", r"words\.txt:2.*target 7")):
        path.write_text(content)
        with pytest.raises(InputError, match=says):
            read_words(path, None, 2)


def test_scores_are_sums_over_area() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 17))
    boxes = np.array([[0, 0, 17, 12], [3, 2, 9, 11], [-4, 5.4, 2.6, 30], [16, 11, 17, 12], [5, 5, 5.2, 5.2]])
    found = scores(values, boxes, gamma=0.7)
    for score, (x0, y0, x1, y1) in zip(
        found[:4], [(0, 0, 17, 12), (3, 2, 9, 11), (0, 5, 3, 12), (16, 11, 17, 12)], strict=True
    ):
        area = (x1 - x0) * (y1 - y0)
        assert score == pytest.approx(np.maximum(values, 0)[y0:y1, x0:x1].sum() / area**0.7)
    assert found[4] == 0


def test_ranked_boxes_keep_apart() -> None:
    values = np.zeros((20, 20))
    values[2:6, 2:6] = 2
    values[12:16, 12:16] = 1
    boxes = np.array([[12, 12, 16, 16], [2, 2, 6, 6], [2, 2, 6, 7], [0, 0, 20, 20.0]])
    ranked = best(values, boxes, gamma=1, count=3, apart=0.7)
    assert ranked.tolist() == [[2, 2, 6, 6], [12, 12, 16, 16], [0, 0, 20, 20]]
    assert best(values, boxes, gamma=1, count=2, apart=1).tolist() == [[2, 2, 6, 6], [2, 2, 6, 7]]


def test_the_grid_holds_a_right_box_for_most_objects() -> None:
    boxes = grid((100, 150))
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 150).all() and (boxes[:, 3] <= 100).all()
    assert len(boxes) == len(np.unique(boxes, axis=0)) < 3000
    rng = np.random.default_rng(0)
    right = 0
    for _ in range(200):
        w, h = rng.uniform(20, 150), rng.uniform(15, 100)
        x, y = rng.uniform(0, 150 - w), rng.uniform(0, 100 - h)
        right += overlaps(boxes, (x, y, x + w, y + h)).max() >= 0.5
    assert right > 180


def test_proposals_of_a_user(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", a=np.array([[0, 0, 4, 5]]))
    (tmp_path / "p.json").write_text(json.dumps({"a": [[0, 0, 4, 5]]}))
    for name in ("p.npz", "p.json"):
        assert read_proposals(tmp_path / name)["a"].tolist() == [[0, 0, 4, 5]]
    (tmp_path / "p.json").write_text(json.dumps({"a": [[4, 0, 0, 5]]}))
    with pytest.raises(InputError, match=r"'a' has shape \[1, 4\]; wanted"):
        read_proposals(tmp_path / "p.json")
    (tmp_path / "p.json").write_text("[1, 2")
    with pytest.raises(InputError, match=r"neither \.npz nor \.json"):
        read_proposals(tmp_path / "p.json")


def test_recalls_by_hand() -> None:
    def row(rank: int, hit: bool, known: bool = True) -> dict:
        return {"method": "m", "type": "x", "rank": rank, "hit": hit, "known": known, "found": True}

    (table,) = phrase_summary([row(1, True), row(5, False), row(6, True), row(0, False, False)])
    assert (table["recall_at_1"], table["recall_at_5"], table["recall_at_10"]) == (25, 50, 75)
    assert (table["pointing"], table["known"], table["phrases"]) == (50, 75, 4)


def test_phrases_over_digit_scenes(tmp_path: Path) -> None:
    from ebp_cuda.eval.datasets.flickr30k import read_flickr30k

    captioned = read_flickr30k(on_disk.write("flickr30k", tmp_path / "set", 12, seed=2))
    asked = subject()
    words = read_words(tmp_path / "set" / "words.txt", None, 10)
    methods, _ = build_methods(asked.net, ["c-mwp", "center"], asked.layers)
    ranking = Ranking(tolerance=4)
    table = {row["method"]: row for row in run_phrases(asked, methods, captioned, words, tmp_path / "out", {}, ranking)}
    assert table["c-mwp"]["pointing"] > 85 and table["c-mwp"]["recall_at_10"] > 60
    assert table["center"]["recall_at_1"] < 20
    assert table["c-mwp"]["known"] == 100 and table["c-mwp"]["phrases"] == sum(len(c.phrases) for c in captioned)
    right = {c.picture.name: np.array([p.box for p in c.phrases] + [(0.0, 0.0, 112.0, 112.0)]) for c in captioned}
    better = run_phrases(asked, methods[:1], captioned, words, tmp_path / "given", {}, ranking, proposals=right)
    assert better[0]["best_possible"] == 100 and better[0]["recall_at_1"] > table["c-mwp"]["recall_at_1"]
    with pytest.raises(InputError, match="no boxes for"):
        run_phrases(asked, methods, captioned, words, tmp_path / "none", {}, ranking, proposals={})


def test_phrases_without_a_known_word_are_misses(tmp_path: Path) -> None:
    from ebp_cuda.eval.datasets.flickr30k import read_flickr30k

    captioned = read_flickr30k(on_disk.write("flickr30k", tmp_path / "set", 3, seed=2))
    told = Method("told", lambda x, classes: torch.ones(*classes.shape, 4, 4))
    (table,) = run_phrases(subject(), [told], captioned, {"unicorn": [1]}, tmp_path / "out", {}, Ranking())
    assert (table["known"], table["recall_at_10"], table["pointing"]) == (0, 0, 0) and table["best_possible"] > 0
