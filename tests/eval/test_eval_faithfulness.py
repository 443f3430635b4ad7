"""Deletion, insertion, randomised weights and agreement of layers, where the answer is known."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("pyarrow")
pytest.importorskip("scipy")
pytest.importorskip("captum")

from ebp_cuda.errors import InputError
from ebp_cuda.eval.faithfulness import (
    area,
    cascade,
    curves,
    layers_by_size,
    pixel_order,
    probabilities,
    randomised,
    rank_correlation,
    weighted_layers,
)
from ebp_cuda.eval.faithfulness_run import RANDOM, FaithfulnessSettings, pictures_in, run_faithfulness, summaries
from ebp_cuda.eval.methods import Layers, build_methods
from ebp_cuda.eval.subject import EvaluatedModel
from ebp_cuda.images.preprocess import Preprocess
from ebp_cuda.models import digits
from ebp_cuda.net import Net


@cache
def net() -> Net:
    return digits.load()


def subject() -> EvaluatedModel:
    layers = Layers(digits.LAYER, digits.CONTRAST_LAYER)
    return EvaluatedModel(net(), Preprocess.from_dict(net().preprocess), layers, None)


def bright_corner(x: torch.Tensor) -> torch.Tensor:
    """A "network" whose probability of class 1 is the mean of the upper left 2 x 2 pixels."""
    p = x[:, 0, :2, :2].mean((1, 2))
    return torch.stack([1 - p, p], 1)


def test_areas_by_hand() -> None:
    assert area(np.array([1.0, 1.0, 1.0])) == 1
    assert area(np.array([1.0, 0.0])) == 0.5
    assert area(np.array([0.0, 1.0, 0.0, 1.0, 0.0])) == 0.5


def test_deleting_what_matters_first_costs_most() -> None:
    x = torch.zeros(1, 3, 8, 8)
    x[:, :, :2, :2] = 1
    right, wrong = torch.zeros(8, 8), torch.zeros(8, 8)
    right[:2, :2] = 1
    wrong[4:, 4:] = 1
    wrong[:2, :2] = -1
    mean = 4 / 64
    found = {name: curves(x, m, 1, bright_corner, steps=16) for name, m in (("right", right), ("wrong", wrong))}
    deletion, insertion = found["right"]
    assert deletion[0] == pytest.approx(1) and deletion[1] == pytest.approx(mean) == pytest.approx(deletion[-1])
    assert insertion[1] == pytest.approx(1) == pytest.approx(insertion[-1]) and insertion[0] < 1
    assert found["wrong"][0][-2] == pytest.approx(1) and found["wrong"][1][-2] < 1
    assert area(found["right"][0]) < 0.1 < 0.9 < area(found["wrong"][0])
    assert area(found["right"][1]) > area(found["wrong"][1])


def test_the_order_of_equal_pixels_is_not_the_reading_order() -> None:
    order = pixel_order(torch.zeros(1, 1), (8, 8))
    assert sorted(order.tolist()) == list(range(64)) != order.tolist()
    assert torch.equal(order, pixel_order(torch.full((2, 2), 5.0), (8, 8)))


def test_random_weights_replace_only_the_nodes_named() -> None:
    top = net().default_top()
    layers = weighted_layers(net().graph, top)
    assert net().graph.nodes[layers[0]].name == "classifier" and net().graph.nodes[layers[-1]].name == "conv1"
    before = [dict(node.params) for node in net().graph.nodes]
    other = randomised(net(), layers[:2], seed=3)
    for index, (old, new) in enumerate(zip(net().graph.nodes, other.graph.nodes, strict=True)):
        if index in layers[:2]:
            weight, fresh = old.params["weight"], new.params["weight"]
            assert not torch.equal(weight, fresh) and float(fresh.std() / weight.std()) == pytest.approx(1, abs=0.15)
            assert torch.equal(old.params["bias"], new.params["bias"])
        else:
            assert new is old
    for node, params in zip(net().graph.nodes, before, strict=True):
        assert all(node.params[name] is tensor for name, tensor in params.items())
    again = randomised(net(), layers[:2], seed=3)
    assert torch.equal(again.graph.nodes[layers[1]].params["weight"], other.graph.nodes[layers[1]].params["weight"])


def test_the_cascade_goes_from_the_classifier_to_the_first_layer() -> None:
    stages = cascade(net(), net().default_top(), 4)
    assert stages[0][0] == "classifier" and stages[-1][0] == "conv1"
    with pytest.raises(InputError, match="--stages 99"):
        cascade(net(), net().default_top(), 99)


def test_rank_correlations() -> None:
    one = torch.arange(12.0).reshape(3, 4)
    assert rank_correlation(one, one**3) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert np.isnan(rank_correlation(one, torch.zeros(3, 4)))
    assert rank_correlation(
        one, torch.nn.functional.interpolate(one[None, None], size=(6, 8), mode="bilinear")[0, 0]
    ) == (pytest.approx(1))


def test_probabilities_are_the_softmax_of_the_scores() -> None:
    x = torch.zeros(2, 3, 112, 112)
    found = probabilities(net())(x)
    scores = net().forward(x, ["classifier"])["classifier"].flatten(1)
    torch.testing.assert_close(found, scores.softmax(1))


def test_a_plane_of_every_size_is_compared() -> None:
    shapes = net().shapes()
    sizes = [tuple(shapes[value][2:]) for value in layers_by_size(net(), net().default_top())]
    assert sizes == sorted(set(sizes), reverse=True) == [(56, 56), (28, 28), (14, 14), (7, 7)]


def test_over_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, scene in enumerate(digits.scenes.held_out_scenes(3, seed=3)):
        Image.fromarray(scene.image).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("not a photo")
    asked, out = subject(), tmp_path / "out"
    methods, _ = build_methods(asked.net, ["c-mwp", "gradient", "center"], asked.layers)
    settings = FaithfulnessSettings(steps=8, stages=2, layers=("pool1", "inception_c/output"))

    def run(count: int) -> dict:
        return run_faithfulness(asked, methods, pictures_in(folder)[:count], out, {}, settings)

    run(2)
    tables = run(3)  # goes on where it was
    by_method = {row["method"]: row for row in tables["faithfulness"]}
    assert set(by_method) == {"c-mwp", "gradient", "center", RANDOM}
    assert by_method["c-mwp"]["deletion"] < by_method[RANDOM]["deletion"]
    assert by_method["c-mwp"]["insertion"] > by_method[RANDOM]["insertion"]
    random = {row["method"]: row for row in tables["randomised"]}
    assert random["center"]["conv1"] == pytest.approx(1)  # the centre does not look at the network
    assert random["c-mwp"]["conv1"] < 0.6 and random["gradient"]["conv1"] < 0.8
    (pair,) = tables["layers"]
    assert (pair["method"], pair["layer"], pair["other_layer"]) == ("c-mwp", "pool1", "inception_c/output")
    assert 0.2 < pair["correlation"] < 1
    assert {path.name for path in out.glob("*.csv")} == {"faithfulness.csv", "randomised.csv", "layers.csv"}


def test_summaries_leave_out_what_is_not_a_number() -> None:
    rows = [
        {"method": "m", "measure": "deletion", "layer": "", "other_layer": "", "value": value}
        for value in (0.5, float("nan"), 0.25)
    ]
    tables = summaries(rows)
    assert tables["faithfulness"][0]["deletion"] == 0.375 and tables["faithfulness"][0]["insertion"] is None
    assert tables["randomised"] == [] == tables["layers"]


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no photo in it"):
        pictures_in(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        pictures_in(tmp_path / "nowhere")
