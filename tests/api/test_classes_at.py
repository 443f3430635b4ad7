"""Which classes have their attention at a place: one transposed sweep against a sweep for every class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle.nets import agreed_values
from oracle.questions import classes_at
from support.golden_data import GOLDEN, load, under
from support.random_nets import RandomNet, random_nets
from support.small_net import Small, images, method, small
from torch import nn

import ebp_cuda
from ebp_cuda import ClassesAt, ExcitationBackprop, InputError, Net, ShapeError, UnsupportedError, models
from ebp_cuda.engine.fold import fold
from ebp_cuda.importers.caffe import to_onnx, write_caffemodel
from ebp_cuda.importers.onnx import load_onnx
from ebp_cuda.models import digits
from ebp_cuda.rules import RULE_SETS

SEVERAL = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def by_class(found: ClassesAt) -> torch.Tensor:
    """Shares [N, classes] in the order of the classes."""
    return torch.empty_like(found.share).scatter(1, found.classes, found.share)


def swept(eb: ExcitationBackprop, x: torch.Tensor, weights: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
    """What these classes leave at the place, by a column each."""
    maps = eb.attribute(x, torch.tensor([list(classes)] * len(x)))
    return (maps * weights.to(maps.dtype)).flatten(2).sum(2)


def difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


@SEVERAL
@given(st.sampled_from(RULE_SETS).flatmap(lambda rules: st.tuples(random_nets(rules), st.just(rules))), st.booleans())
def test_shares_equal_the_oracle_class_by_class(drawn: tuple[RandomNet, str], contrastive: bool) -> None:
    net, rules = drawn
    contrast = net.second if contrastive else None
    eb = ExcitationBackprop(Net(net.graph), "image", contrast, rules, dtype="fp64")
    weights = np.random.default_rng(1).random(net.image.shape[2:])
    folded = fold(net.graph) if rules == "conserving" else net.graph
    values = agreed_values(net.graph, {"image": net.image}, 1, folded)
    wanted = classes_at(net.graph, values, net.top, "image", weights, contrast, rules)
    got = by_class(eb.classes_at(torch.from_numpy(net.image), weights)).numpy()
    assert np.abs(got - wanted).max() <= 1e-7 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("contrast", [None, digits.CONTRAST_LAYER])
@pytest.mark.parametrize(("rules", "dtype"), [("caffe", "fp64"), ("caffe", "fp32"), ("conserving", "fp64")])
def test_the_digits_network(rules: str, dtype: str, contrast: str | None) -> None:
    x = 255 * torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) - 110
    eb = ExcitationBackprop(digits.load(), digits.LAYER, contrast, rules, dtype)
    weights = torch.zeros(28, 28)
    weights[5:11, 3:20] = 1
    found = eb.classes_at(x, (5, 3, 11, 20))
    assert difference(by_class(found), swept(eb, x, weights, range(10))) < (1e-12 if dtype == "fp64" else 1e-4)


@pytest.mark.parametrize("name", ["mini_inception", "mini_vgg"])
def test_golden_networks_of_the_original(name: str, tmp_path) -> None:
    data, prototxt = load(f"tiny/{name}.npz"), GOLDEN / "tiny" / f"{name}.prototxt"
    layers: dict[str, list[np.ndarray]] = {}
    for key, blob in under(data, "param/").items():
        layers.setdefault(key.rsplit("/", 1)[0], []).append(blob)
    write_caffemodel(tmp_path / "w.caffemodel", prototxt.read_text(), layers)
    net = Net(load_onnx(to_onnx(prototxt, tmp_path / "w.caffemodel")))
    x = torch.from_numpy(under(data, "in/")["data"])
    for contrast in ("auto", None):
        eb = ExcitationBackprop(net, "data", contrast, dtype="fp64")
        found = eb.classes_at(x, (2, 1))
        weights = torch.zeros(x.shape[2:])
        weights[2, 1] = 1
        assert difference(by_class(found), swept(eb, x, weights, range(found.share.shape[1]))) < 1e-12


@pytest.mark.slow  # a forward and two sweeps of GoogLeNet in double precision, and five columns to compare with
def test_all_classes_of_googlenet(tmp_path) -> None:
    (tmp_path / "deploy.prototxt").write_text(models.prototxt("googlenet"))
    net = ebp_cuda.load(tmp_path / "deploy.prototxt", allow_missing=True)
    eb = ExcitationBackprop(net, "pool2/3x3_s2", "pool5/7x7_s1", dtype="fp64")
    x = 255 * torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) - 110
    weights = torch.rand(28, 28, generator=torch.Generator().manual_seed(1))
    found, some = eb.classes_at(x, weights), [0, 5, 17, 500, 999]
    assert found.classes.shape == (1, 1000)
    assert difference(by_class(found)[:, some], swept(eb, x, weights, some)) < 1e-9


def test_they_are_ranked_by_share_and_lifted_over_their_mean() -> None:
    eb = ExcitationBackprop(small(), "features.2", None, "caffe")
    found = eb.classes_at(images(2), (2, 3))
    assert sorted(found.classes[0].tolist()) == [0, 1, 2, 3, 4] and found.scores.shape == (2, 5)
    assert bool((found.share.diff() <= 0).all())
    mean = found.share.mean(1, keepdim=True)
    torch.testing.assert_close(found.lift, found.share / mean - 1)  # no share of MWP is below 0
    assert found.setting == eb.setting and "lift" in repr(found)


def test_a_pixel_a_box_and_a_mask_say_the_same() -> None:
    eb, x = method(), images(2)
    mask = torch.zeros(6, 7)
    mask[2, 3] = 1
    pixel = eb.classes_at(x, (2, 3))
    assert torch.equal(pixel.share, eb.classes_at(x, (2, 3, 3, 4)).share)
    for same in (mask, mask.bool(), mask.numpy(), mask.repeat(2, 1, 1)):
        assert torch.equal(pixel.share, eb.classes_at(x, same).share)


def test_each_image_may_have_a_place_of_its_own() -> None:
    eb, x = method(), images(2)
    masks = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(2))
    both = eb.classes_at(x, masks)
    for index in range(2):
        alone = eb.classes_at(x[index : index + 1], masks[index])
        torch.testing.assert_close(alone.share[0], both.share[index], rtol=1e-4, atol=1e-7)


def test_arrays_come_back_in_kind() -> None:
    found = method().classes_at(images(1).numpy(), (0, 0))
    assert all(isinstance(a, np.ndarray) for a in (found.classes, found.share, found.lift, found.scores))
    assert "lift" in repr(found)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_grad_modes_do_not_matter(mode) -> None:
    wanted = method().classes_at(images(1), (1, 1))
    with mode():
        torch.manual_seed(3)
        fresh = ebp_cuda.from_torch(Small().eval(), images(2))  # packs its weights in this mode
        found = method(fresh).classes_at(images(1), (1, 1))
    assert torch.equal(found.share, wanted.share) and not found.share.requires_grad


class Plain(nn.Module):
    """A classifier of any number of axes, fully convolutional or not."""

    def __init__(self, axes: int, spatial: bool) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
        pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1]
        self.stem = nn.Sequential(conv(2, 4, 3, padding=1), nn.ReLU(), pool(2))
        self.top, self.axes = conv(4, 3, 3, padding=1), None if spatial else tuple(range(2, axes + 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.top(self.stem(x))
        return y if self.axes is None else y.mean(self.axes)


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_sequences_images_and_volumes(axes: int, spatial: bool) -> None:
    torch.manual_seed(axes)
    x = torch.rand(2, 2, *(8, 6, 4)[:axes])
    net = ebp_cuda.from_torch(Plain(axes, spatial).eval(), x)
    eb = ExcitationBackprop(net, "stem.2", "stem.2", "conserving", dtype="fp64")
    plane = [n // 2 for n in x.shape[2:]]
    weights = torch.zeros(plane)
    weights[(slice(1, 2),) * axes] = 1
    for place in ((1,) * axes, (1,) * axes + (2,) * axes, weights):
        assert difference(by_class(eb.classes_at(x, place)), swept(eb, x, weights, range(3))) < 1e-12


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ((6, 0), InputError, r"pixel=\(6, 0\): wanted one within the layer's plane \[6, 7\]"),
        ((-1, 0), InputError, r"pixel=\(-1, 0\): wanted one within"),
        ((0, 0, 7, 2), InputError, r"box=\(0, 0, 7, 2\): wanted one within"),
        ((3, 3, 3, 4), InputError, r"box=\(3, 3, 3, 4\): wanted one within"),
        ((1, 2, 3), InputError, r"wanted 2 \(pixel\) or 4 \(box\) numbers"),
        (torch.ones(5, 7), ShapeError, r"mask has shape \[5, 7\], wanted \[6, 7\]"),
        (torch.ones(3, 6, 7), ShapeError, r"place has shape \[3, 6, 7\]; wanted \[6, 7\], or \[2, 6, 7\]"),
        (torch.full((6, 7), float("nan")), InputError, "mask holds NaN"),
        ("head", InputError, "place='head': wanted numbers"),
    ],
)
def test_places_that_are_none(place, error, message) -> None:
    with pytest.raises(error, match=message):
        method().classes_at(images(2), place)


def test_layers_without_a_place_and_bad_inputs() -> None:
    net, x = small(), images(1)
    with pytest.raises(InputError, match=r"got 2 layers .*wanted one"):
        ExcitationBackprop(net, ["features.2", "features.4"], rules="caffe").classes_at(x, (0, 0))
    flat = net.graph.nodes[net.graph.producer[net.graph.resolve("head")[-1]]].inputs[0]
    with pytest.raises(ShapeError, match="has no plane with places"):
        ExcitationBackprop(net, flat, rules="caffe").classes_at(x, (0, 0))
    with pytest.raises(InputError, match="holds NaN"):
        method().classes_at(torch.full_like(x, float("nan")), (0, 0))


def test_a_rule_that_nobody_can_transpose_is_refused_by_name() -> None:
    from ebp_cuda.rules import OPERATIONS

    before = OPERATIONS["max_pool"].rules["caffe"]
    try:

        @ebp_cuda.register_rule("max_pool", "route", rule_sets=["caffe"])
        def by_numpy(step, above):
            shape = step.shapes[0][1:]
            return [ebp_cuda.Relevance(torch.from_numpy(np.ones((above[0].s.shape[0], *shape), np.float32)))]

        eb = ExcitationBackprop(small(), "features.1", rules="caffe")
        with pytest.raises(UnsupportedError, match=r"layer 'features\.2'.*its rule cannot be transposed"):
            eb.classes_at(images(1), (0, 0))
    finally:
        ebp_cuda.register_rule("max_pool", before.kind, rule_sets=["caffe"], needs=before.needs)(before.down)
    assert ExcitationBackprop(small(), "features.1", rules="caffe").classes_at(images(1), (0, 0)).share.any()
