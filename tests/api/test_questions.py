"""What may be asked besides a class, against the float64 oracle: places of the top, embeddings, seeds, contrasts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import questions as oracle
from oracle.sweep import attribute, forward, relevance
from support.small_net import images, method
from torch import nn

import ebp_cuda
from ebp_cuda import ExcitationBackprop, InputError, Net, ShapeError

pytest_plugins = ["support.recorder_stand_in"]

CLASSES = 4
PLANES = {1: (8,), 2: (6, 7), 3: (4, 3, 4)}


class Dense(nn.Module):
    """A fully convolutional network of 1, 2 or 3 axes: a class for every position, as of a segmentation."""

    def __init__(self, axes: int, classes: int = CLASSES) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        self.stem = nn.Sequential(conv(2, 5, 3, padding=1), nn.ReLU())
        self.middle = nn.Sequential(conv(5, 6, 3, padding=1), nn.ReLU())
        self.head = conv(6, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.stem(x)))


class Embedding(nn.Module):
    """An image to a signed vector, as of a face or a photo to be found again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x).mean((2, 3)))


def dense(axes: int) -> tuple[Net, torch.Tensor]:
    torch.manual_seed(axes)
    x = torch.rand(2, 2, *PLANES[axes], dtype=torch.float64)
    return ebp_cuda.from_torch(Dense(axes).eval(), x.float()), x


class Asked:
    """A network with the oracle's activations, at one layer."""

    def __init__(self, net: Net, x: torch.Tensor, layer: str, contrast: str | None = None) -> None:
        self.eb = ExcitationBackprop(net, layer, contrast, "conserving", dtype="fp64")
        self.x, self.graph = x, net.graph
        self.layer = net.graph.resolve(layer)[0]
        self.contrast = None if contrast is None else net.graph.resolve(contrast)[0]
        self.top = net.default_top()
        self.values = forward(net.graph, {next(iter(net.graph.inputs)): x.double().numpy()})

    @property
    def top_values(self) -> np.ndarray:
        return self.values[self.top]

    def wanted(self, seed: np.ndarray, *, negated: bool = False) -> np.ndarray:
        """p of every unit of the layer, [N, C, ...]; negated: less what the negated weights excite."""
        if negated:
            return attribute(self.graph, self.values, self.top, seed, self.layer, self.contrast, "conserving")
        return relevance(self.graph, self.values, {self.top: seed}, "conserving")[self.layer]


def assert_close(got: torch.Tensor, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())


def places(axes: int) -> dict[str, dict]:
    rng = np.random.default_rng(3)
    return {
        "pixel": {"pixel": (1,) * axes},
        "box": {"box": (1,) * axes + (3,) * axes},
        "mask": {"mask": rng.random(PLANES[axes])},
    }


@pytest.mark.parametrize("kind", ["pixel", "box", "mask"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_place_of_the_top_is_where_the_probability_starts(axes: int, kind: str) -> None:
    net, x = dense(axes)
    asked, place = Asked(net, x, "stem.1"), places(axes)[kind]
    share = oracle.place_share(PLANES[axes], **place)
    got = asked.eb.relevance(x, [2, 1], **place)
    for image, index in enumerate([2, 1]):
        wanted = asked.wanted(oracle.class_seed(asked.top_values, index, share))[image]
        assert_close(got[image, 0], wanted)
    maps = asked.eb.attribute(x, [2, 1], **place)
    torch.testing.assert_close(maps, got.sum(2))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_place_works_with_the_papers_contrast(axes: int) -> None:
    net, x = dense(axes)
    asked, place = Asked(net, x, "stem.1", "middle.1"), {"box": (0,) * axes + (2,) * axes}
    share = oracle.place_share(PLANES[axes], **place)
    wanted = asked.wanted(oracle.class_seed(asked.top_values, 3, share), negated=True)
    assert_close(asked.eb.relevance(x, 3, **place)[:, 0], wanted)


def test_several_places_are_columns_of_one_sweep() -> None:
    net, x = dense(2)
    eb = Asked(net, x, "stem.1").eb
    both = eb.attribute(x, 1, pixel=[(0, 0), (3, 4)])
    assert both.shape[:2] == (2, 2)
    for column, pixel in enumerate([(0, 0), (3, 4)]):
        torch.testing.assert_close(both[:, column], eb.attribute(x, 1, pixel=pixel)[:, 0])
    each = eb.attribute(x, [0, 2], pixel=[[(0, 0)], [(5, 6)]])
    torch.testing.assert_close(each[1, 0], eb.attribute(x, 2, pixel=(5, 6))[1, 0])
    classes = eb.attribute(x, torch.tensor([[0, 3]] * 2), pixel=[(1, 1), (2, 2)])
    torch.testing.assert_close(classes[:, 1], eb.attribute(x, 3, pixel=(2, 2))[:, 0])


def test_the_highest_classes_are_those_at_the_place() -> None:
    net, x = dense(2)
    asked = Asked(net, x, "stem.1")
    result = asked.eb.run(x, "top2", pixel=(4, 5))
    there = torch.from_numpy(asked.top_values[:, :, 4, 5])
    assert result.targets.tolist() == there.topk(2).indices.tolist()
    torch.testing.assert_close(result.scores, there.float())


@pytest.mark.parametrize("contrast", [None, "stem.1"])
def test_a_similarity_starts_from_the_features_that_make_it(contrast: str | None) -> None:
    torch.manual_seed(4)
    x, rng = torch.rand(2, 3, 9, 8, dtype=torch.float64), np.random.default_rng(5)
    net = ebp_cuda.from_torch(Embedding().eval(), x.float())
    asked, embeddings = Asked(net, x, "stem.0", contrast), rng.normal(size=(2, 5))
    result = asked.eb.relevance(x, similarity_to=embeddings)
    assert result.shape[:2] == (2, 2) and asked.eb.run(x, similarity_to=embeddings).targets.tolist() == [[-1, -1]] * 2
    for column, embedding in enumerate(embeddings):
        seed = oracle.similarity_seed(asked.top_values, embedding)
        assert_close(result[:, column], asked.wanted(seed, negated=contrast is not None))


def test_a_similarity_at_a_place_of_a_map_of_features() -> None:
    net, x = dense(2)
    asked, embedding = Asked(net, x, "stem.1"), np.array([0.7, 0.3, 0.9, 1.2])
    share = oracle.place_share(PLANES[2], box=(1, 1, 4, 5))
    seed = oracle.similarity_seed(asked.top_values, embedding, share)
    assert_close(asked.eb.relevance(x, similarity_to=embedding, box=(1, 1, 4, 5))[:, 0], asked.wanted(seed))
    seed = oracle.similarity_seed(asked.top_values, embedding)
    assert_close(asked.eb.relevance(x, similarity_to=embedding)[:, 0], asked.wanted(seed))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_seed_of_any_sign_is_taken_as_it_is(axes: int) -> None:
    net, x = dense(axes)
    asked = Asked(net, x, "stem.1")
    seeds = np.random.default_rng(7).normal(size=(2, 3, CLASSES, *PLANES[axes]))
    got = asked.eb.relevance(x, seed=seeds)
    assert got.shape[:2] == (2, 3)
    for column in range(3):
        assert_close(got[:, column], asked.wanted(seeds[:, column]))
    torch.testing.assert_close(asked.eb.relevance(x, seed=seeds[0]).select(0, 0), got[0])
    torch.testing.assert_close(asked.eb.relevance(x, seed=seeds[0, 1])[0, 0], got[0, 1])


def test_a_regression_output_is_asked_by_its_place() -> None:
    torch.manual_seed(8)
    x = torch.rand(2, 2, 6, 7)
    one = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 1))
    eb = ExcitationBackprop(ebp_cuda.from_torch(one.eval(), x), "1", rules="conserving")
    torch.testing.assert_close(eb.attribute(x, 0), eb.attribute(x, seed=[1.0]))


@pytest.mark.parametrize("contrast", [None, "middle.1"])
def test_versus_is_the_difference_of_two_classes(contrast: str | None) -> None:
    net, x = dense(2)
    asked = Asked(net, x, "stem.1", contrast)
    seeds = [oracle.class_seed(asked.top_values, index) for index in range(CLASSES)]
    got = asked.eb.relevance(x, torch.tensor([[0, 2]] * 2), contrast="versus", other=3)
    for column, index in enumerate([0, 2]):
        assert_close(got[:, column], asked.wanted(seeds[index] - seeds[3]))
    several = asked.eb.relevance(x, 1, contrast="versus", other=torch.tensor([[0, 2], [3, 0]]))
    assert_close(several[0, 1], asked.wanted(seeds[1] - seeds[2])[0])
    assert_close(several[1, 0], asked.wanted(seeds[1] - seeds[3])[1])


def test_versus_another_embedding_and_another_seed() -> None:
    torch.manual_seed(4)
    x, rng = torch.rand(2, 3, 9, 8, dtype=torch.float64), np.random.default_rng(9)
    net = ebp_cuda.from_torch(Embedding().eval(), x.float())
    asked, (mate, nonmate) = Asked(net, x, "stem.0"), rng.normal(size=(2, 5))
    seeds = [oracle.similarity_seed(asked.top_values, embedding) for embedding in (mate, nonmate)]
    wanted = asked.wanted(seeds[0] - seeds[1])
    assert_close(asked.eb.relevance(x, similarity_to=mate, contrast="versus", other=nonmate)[:, 0], wanted)
    by_seed = asked.eb.relevance(x, seed=seeds[0][:, None], contrast="versus", other=seeds[1][:, None])
    assert_close(by_seed[:, 0], wanted)


@pytest.mark.parametrize("place", [{}, {"pixel": (2, 3)}])
def test_the_mean_of_the_other_classes(place: dict) -> None:
    net, x = dense(2)
    asked = Asked(net, x, "stem.1", "middle.1")
    share = oracle.place_share(PLANES[2], **place) if place else None
    seeds = [oracle.class_seed(asked.top_values, index, share) for index in range(CLASSES)]
    got = asked.eb.relevance(x, "all", contrast="mean", **place)
    for index in range(CLASSES):
        assert_close(got[:, index], asked.wanted(oracle.less_the_mean_of_the_others(seeds, index)))


@pytest.mark.parametrize("percentile", [0, 20, 60.5])
def test_truncated_keeps_the_largest_relevance_only(percentile: float) -> None:
    net, x = dense(2)
    asked = Asked(net, x, "stem.1")
    units = [asked.wanted(oracle.class_seed(asked.top_values, index)) for index in range(CLASSES)]
    target = torch.tensor([[0, 2]] * 2)
    got = asked.eb.relevance(x, target, contrast="truncated", other=3, percentile=percentile)
    result = asked.eb.run(x, target, contrast="truncated", other=3, percentile=percentile)
    for image in range(2):
        for column, index in enumerate([0, 2]):
            wanted = oracle.truncated(units[index][image], units[3][image], percentile)
            assert_close(got[image, column], wanted)
            assert float(result.mass_left[image, column]) == pytest.approx(wanted.sum())
    torch.testing.assert_close(result.maps, got.sum(2))


def test_everything_else_is_the_default_with_a_contrast_layer() -> None:
    eb, x = method(), images(2)
    assert torch.equal(eb.attribute(x, 1, contrast="everything else"), eb.attribute(x, 1))
    assert not torch.allclose(eb.attribute(x, 1, contrast="mean"), eb.attribute(x, 1))


QUESTIONS = {
    "pixel": {"pixel": [(0, 0), (3, 4), (1, 2)]},
    "versus": {"contrast": "versus", "other": torch.tensor([[0, 1, 2], [1, 2, 0]])},
    "mean": {"contrast": "mean", "box": (1, 1, 3, 3)},
    "truncated": {"contrast": "truncated", "other": 0},
    "similarity": {"similarity_to": np.random.default_rng(1).normal(size=(3, CLASSES))},
    "seed": {"seed": np.random.default_rng(1).normal(size=(2, 3, CLASSES, 6, 7))},
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_parts_of_a_call_give_what_the_whole_gives(question: str) -> None:
    net, x = dense(2)
    target = torch.tensor([[3, 2, 1]] * 2)
    whole, parts = (ExcitationBackprop(net, "stem.1", "middle.1", "conserving", max_memory=m) for m in (None, 50_000))
    assert parts.chunks(x.shape, 3).images == 1 and parts.chunks(x.shape, 3).classes < 3
    wanted, got = (eb.run(x, target, **QUESTIONS[question]) for eb in (whole, parts))
    torch.testing.assert_close(got.maps, wanted.maps, rtol=1e-4, atol=1e-6)
    assert torch.equal(got.targets, wanted.targets)
    torch.testing.assert_close(got.scores, wanted.scores)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_replay_answers_for_other_numbers(question: str, stand_in) -> None:
    net, x = dense(2)
    plain = ExcitationBackprop(net, "stem.1", "middle.1", "caffe", graphs=False)
    recorded = ExcitationBackprop(net, "stem.1", "middle.1", "caffe", graphs=True)
    target, asked = torch.tensor([[3, 2, 1]] * 2), QUESTIONS[question]
    recorded.run(x, target, **asked)
    other, turned = x.flip(0), target.flip(1)
    torch.testing.assert_close(recorded.run(other, turned, **asked).maps, plain.run(other, turned, **asked).maps)
    assert stand_in.replayed == 1


REFUSED = [
    ({"pixels": (1, 1)}, InputError, "got pixels=; wanted one of pixel, box"),
    ({"pixel": (1, 1), "box": (0, 0, 1, 1)}, InputError, "got pixel= and box=; wanted one of"),
    ({"pixel": (6, 0)}, InputError, r"pixel=\(6, 0\): wanted one within the layer's plane \[6, 7\]"),
    ({"pixel": (1, 1, 1)}, ShapeError, r"pixel of 3 numbers, wanted 2 for the layer's plane \[6, 7\]"),
    ({"pixel": (1.5, 2)}, InputError, "pixel is torch.float.*, wanted whole numbers"),
    ({"pixel": [(0, 0), (1, 1)]}, InputError, "got 2 places for top1; wanted one place"),
    ({"mask": np.zeros((6, 7))}, InputError, "mask: wanted weights that are not below 0, and one above it"),
    ({"mask": -np.ones((6, 7))}, InputError, "mask: wanted weights that are not below 0"),
    ({"mask": np.ones((7, 6))}, ShapeError, r"mask has shape \[7, 6\], wanted \[6, 7\]"),
    (
        {"similarity_to": np.ones(3)},
        ShapeError,
        r"similarity_to has shape \[3\], wanted one of \[4\], \[K, 4\], \[2, K, 4\]",
    ),
    ({"similarity_to": "cat"}, InputError, "similarity_to is a str; wanted an array of numbers"),
    ({"similarity_to": np.full(4, np.nan)}, InputError, "similarity_to holds NaN"),
    ({"similarity_to": np.zeros(4)}, InputError, "a column has nothing to start from"),
    ({"similarity_to": np.ones(4), "seed": np.ones((4, 6, 7))}, InputError, "similarity_to= and seed=; wanted one"),
    ({"seed": np.ones((4, 7, 6))}, ShapeError, r"seed has shape \[4, 7, 6\], wanted one of \[4, 6, 7\]"),
    ({"seed": np.zeros((4, 6, 7))}, InputError, "a column has nothing to start from"),
    ({"seed": np.ones((3, 1, 4, 6, 7))}, ShapeError, "seed is for 3 images"),
    ({"seed": np.ones((4, 6, 7)), "pixel": (1, 1)}, InputError, "wanted no pixel=, box= or mask= beside it"),
    ({"contrast": "dual"}, InputError, "contrast='dual': wanted one of 'everything else', 'versus'"),
    ({"contrast": "everything else"}, InputError, "the method has no contrast_layer"),
    ({"contrast": "versus"}, InputError, "contrast='versus': wanted other="),
    ({"other": 1}, InputError, "other= belongs to 'versus' and 'truncated'"),
    ({"contrast": "versus", "other": 9}, InputError, "target 9: the model has classes 0 to 3"),
    ({"contrast": "versus", "other": "all"}, InputError, "other='all': wanted classes, one for all columns"),
    ({"contrast": "mean", "seed": np.ones((4, 6, 7))}, InputError, "contrast='mean' is that of the other classes"),
    ({"contrast": "mean", "percentile": 3}, InputError, "percentile= belongs to 'truncated'"),
    ({"contrast": "truncated", "other": 1, "percentile": 100}, InputError, "percentile=100: wanted a number from 0"),
]


@pytest.mark.parametrize(("asked", "error", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_asked_is_refused_by_name(asked: dict, error: type, message: str) -> None:
    net, x = dense(2)
    eb = ExcitationBackprop(net, "stem.1", rules="conserving")
    with pytest.raises(error, match=message):
        eb.attribute(x, **asked)


def test_a_top_without_positions_has_no_pixel() -> None:
    with pytest.raises(ShapeError, match="pixel: the top has no positions"):
        method().attribute(images(1), 0, pixel=(0, 0))
