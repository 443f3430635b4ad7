"""A method with nothing chosen: rules, layer and contrast from the network, and what else is taken at this door."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from support.small_net import Small, images
from torch import nn

import ebp_cuda
from ebp_cuda import ExcitationBackprop, InputError, ShareWarning, models, places
from ebp_cuda.attribution import Setting
from ebp_cuda.importers.caffe import to_onnx
from ebp_cuda.models import digits

LABELS = ["goose", "hen", "owl", "jay, bluejay", "kite"]


class Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, out, 3, stride, 1), nn.Conv2d(out, out, 3, 1, 1)
        self.short = nn.Identity() if stride == 1 else nn.Conv2d(channels, out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.two(self.one(x).relu()) + self.short(x)).relu()


@pytest.fixture(scope="module")
def residual() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [Block(4, 4), Block(4, 8, 2), Block(8, 8), Block(8, 12, 2)]
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)
    )


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(2, 3, 56, 60, generator=torch.Generator().manual_seed(1))


def test_a_module_and_nothing_else(residual: nn.Sequential, x: torch.Tensor) -> None:
    eb = ExcitationBackprop(residual)
    assert "read at the first call" in repr(eb)
    with pytest.raises(InputError, match="has not been read yet: call `attribute` first, or give an example="):
        _ = eb.plan
    found = eb.run(x)
    # 14 x 15 is the last plane of 12 pixels or more; block 3 begins there and block 4 ends it with a strided shortcut
    assert found.setting == Setting("3", "6", "conserving") and found.maps.shape == (2, 1, 14, 15)
    assert torch.equal(found.targets[:, 0], found.scores.argmax(1))
    assert "layer='3' (chosen), contrast_layer='6' (chosen), rules='conserving' (auto)" in repr(eb)
    by_hand = ExcitationBackprop(ebp_cuda.from_torch(residual, x), "3", "6", "conserving")
    assert torch.equal(by_hand.attribute(x), found.maps)
    assert torch.equal(ExcitationBackprop(residual, example=x).attribute(x), found.maps)


def test_the_result_says_what_it_is_in_two_lines(residual: nn.Sequential, x: torch.Tensor) -> None:
    lines = repr(ExcitationBackprop(residual).run(x, "top2")).splitlines()
    assert len(lines) == 2 and "maps [2, 2, 14, 15] float32" in lines[0] and "contrast at '6'" in lines[0]
    assert "targets [[" in lines[1] and "mass left" in lines[1]


def test_places_say_what_speaks_against_them(residual: nn.Sequential, x: torch.Tensor) -> None:
    found = {place.layer: place for place in ebp_cuda.from_torch(residual, x).candidates()}
    assert found["3"].good and (found["3"].plane, found["3"].channels) == ((14, 15), 8)
    assert "no overlap" in found["4"].why and not found["4"].good
    assert "less than 12" in found["5"].why and 0 < found["3"].depth < found["5"].depth < 1
    assert str(found["3"]).startswith("3: 14x15, 8 channels, depth ")


def test_a_value_that_paths_go_around_is_no_place() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
            self.last = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last((self.b(self.a(x).relu()) + self.c(x)).relu().mean((2, 3)))

    names = [place.layer for place in ebp_cuda.from_torch(Around(), torch.rand(1, 3, 16, 16)).candidates()]
    assert "a" not in names and "b" not in names and "c" not in names and len(names) == 1


@pytest.mark.parametrize("name", ["googlenet", "vgg16", "resnet50"])
def test_the_catalogue_has_the_papers_layers_also_through_onnx(name: str, tmp_path: Path) -> None:
    (tmp_path / "d.prototxt").write_text(models.prototxt(name))
    model = models.model(name)
    eb = ExcitationBackprop(ebp_cuda.load(tmp_path / "d.prototxt"))
    assert eb.setting == Setting(model.layer, model.contrast_layer, "caffe")


def test_a_network_from_caffe_keeps_its_rules_through_onnx(tmp_path: Path) -> None:
    import onnx

    onnx.save(to_onnx(digits.DEPLOY, digits.WEIGHTS), tmp_path / "n.onnx")
    net = ebp_cuda.load(tmp_path / "n.onnx")
    assert net.graph.source == "caffe" and ExcitationBackprop(net).setting.rules == "caffe"
    assert ExcitationBackprop(net, rules="conserving").setting.rules == "conserving"


def test_the_automatic_choice_points_as_well_as_the_hand_made_one() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("skimage")
    from ebp_cuda.eval import digits_game

    net = digits.load()
    hand = digits_game.methods(net)["c-MWP"]
    games = {"hand": hand, "auto": ExcitationBackprop(net).attribute}
    original = digits_game.methods
    try:
        digits_game.methods = lambda net: games  # type: ignore[assignment]
        rows = {row.method: row for row in digits_game.run(n=200, net=net)}
    finally:
        digits_game.methods = original
    assert rows["auto"].overall >= rows["hand"].overall - 0.01


def test_layers_as_modules_and_lists(residual: nn.Sequential, x: torch.Tensor) -> None:
    net = ebp_cuda.from_torch(residual, x)
    one = ExcitationBackprop(net, residual[3], residual[6], "conserving")
    assert one.setting == Setting("3", "6", "conserving")
    several = ExcitationBackprop(net, [residual[3], "2"], "6", "conserving").run(x, "top2")
    assert list(several.maps) == ["3", "2"] and list(several.mass_left) == ["3", "2"]
    assert several.setting.layer == ("3", "2") and "at ('3', '2')" in repr(several)
    torch.testing.assert_close(several.maps["3"], one.attribute(x, "top2"), rtol=1e-4, atol=1e-8)
    assert {k: tuple(v.shape) for k, v in ExcitationBackprop(net, ["3"], rules="caffe").relevance(x).items()} == {
        "3": (2, 1, 8, 14, 15)
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": -1}, "layer=-1: wanted a layer's name, or a module"),
        ({"layer": "3", "contrast_layer": True}, "contrast_layer=True: wanted a layer's name"),
        ({"layer": []}, "wanted at least one layer"),
        ({"layer": ["3", "3"]}, "wanted each layer once"),
        ({"layer": nn.ReLU()}, "this ReLU is no part of the Sequential"),
        ({"layer": "3", "top": 7}, "top=7: wanted a layer's name"),
        ({"rules": ["caffe"]}, "rules="),
    ],
)
def test_what_is_no_layer(residual: nn.Sequential, x: torch.Tensor, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExcitationBackprop(ebp_cuda.from_torch(residual, x), **options)


def test_other_objects_are_refused_by_name(residual: nn.Sequential, x: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"net is a str; wanted a Net \(ebp_cuda.load\) or a torch.nn.Module"):
        ExcitationBackprop("net.onnx")  # type: ignore[arg-type]
    net = ebp_cuda.from_torch(residual, x)
    with pytest.raises(InputError, match="x is a path"):
        ExcitationBackprop(net).run("photo.jpg")
    with pytest.raises(InputError, match="wanted an array"):
        ExcitationBackprop(residual).run("photo.jpg")


def test_a_network_of_two_inputs_takes_a_tuple() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.last((self.a(x).relu() + self.b(y).relu()).mean((2, 3)))

    module, pair = Two().eval(), (torch.rand(2, 3, 15, 15), torch.rand(2, 3, 15, 15))
    net = ebp_cuda.from_torch(module, *pair)
    maps = ExcitationBackprop(net).attribute(pair, 1)
    assert torch.equal(maps, ExcitationBackprop(net).attribute(dict(zip(net.graph.inputs, pair, strict=True)), 1))
    assert torch.equal(maps, ExcitationBackprop(module).attribute(pair, 1))


def test_one_input_may_come_in_a_tuple_too() -> None:
    x = torch.rand(2, 3)
    net = ebp_cuda.from_torch(nn.Linear(3, 2), (x,))
    (top,) = net.graph.outputs
    assert torch.equal(net.forward((x,))[top], net.forward(x)[top])
    assert torch.equal(net.forward(x[:1].tolist())[top], net.forward(x[:1])[top])


@pytest.mark.parametrize(("axes", "size"), [(1, (40,)), (3, (13, 14, 15))], ids=["sequence", "volume"])
def test_sequences_and_volumes_have_maps(axes: int, size: tuple[int, ...]) -> None:
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[axes]
    torch.manual_seed(2)
    layers = [conv(2, 4, 3, padding=1), nn.ReLU(), conv(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten(2)]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    x = torch.rand(2, 2, *size)
    eb = ExcitationBackprop(module)
    found = eb.run(x, [[0, 1], [1, 2]])
    assert found.maps.shape == (2, 2, *size) and found.setting.layer in ("1", "3")
    torch.testing.assert_close(found.maps, eb.relevance(x, [[0, 1], [1, 2]]).sum(2))


def test_class_names_are_targets() -> None:
    torch.manual_seed(3)
    net = ebp_cuda.from_torch(Small().eval(), images(2), labels=LABELS)
    eb = ExcitationBackprop(net, "features.2", rules="caffe")
    assert eb.run(images(2), "Owl").targets.tolist() == [[2], [2]]
    assert eb.run(images(2), ["bluejay", "goose"]).targets.tolist() == [[3], [0]]
    assert eb.run(images(2), ["hen", 4]).targets.tolist() == [[1], [4]]
    with pytest.raises(InputError, match="target='koala': wanted an index, 'all', 'topN' or a class name"):
        eb.run(images(2), "koala")
    other = ExcitationBackprop(net, "features.2", labels=["a", "b", "c", "d", "e"], rules="caffe")
    assert other.run(images(2), "d").targets.tolist() == [[3], [3]]


def test_the_new_default_is_told_once(
    residual: nn.Sequential, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_told", [])
    net = ebp_cuda.from_torch(residual, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ExcitationBackprop(net)  # nothing of this call meant other rules before
        ExcitationBackprop(net, "3", rules="caffe")
        ExcitationBackprop(digits.load(), digits.LAYER)
    with pytest.warns(places.RulesNotice, match="rules='caffe' gives those") as caught:
        ExcitationBackprop(net, "3")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ExcitationBackprop(net, "3")


def test_a_share_that_grows_warns_once() -> None:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 4)]
    net, x = ebp_cuda.from_torch(nn.Sequential(*layers).eval(), torch.rand(1, 3, 12, 12)), torch.randn(1, 3, 12, 12)
    eb = ExcitationBackprop(net, "1", rules="caffe")
    with pytest.warns(ShareWarning, match=r"layer '1': shares .* sum up to .*rules='conserving' keeps them below 1"):
        assert float(eb.run(x, 0).mass_left.max()) > 1.05
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eb.run(x, 1)
        ExcitationBackprop(net, "1", rules="conserving").run(x, 0)


def test_channels_that_lie_behind_are_no_plane() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm, self.two = nn.Conv2d(3, 24, 3, 2, 1), nn.LayerNorm(24), nn.Conv2d(24, 24, 3, 1, 1)
            self.head = nn.Linear(24, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(self.one(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return self.head(self.two(x).mean((2, 3)))

    net = ebp_cuda.from_torch(Last().eval(), torch.rand(1, 3, 28, 28))
    behind = [place for place in net.candidates() if place.plane == (14, 24)]
    assert behind and all("proportions" in place.why and not place.good for place in behind)
    assert ExcitationBackprop(net).run(torch.rand(1, 3, 28, 28)).maps.shape[2:] == (14, 14)
