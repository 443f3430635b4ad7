"""`open_model`: a network by a file's name, a library's, or ours, with labels and preprocessing of its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision

import ebp_cuda
from ebp_cuda import EBPError, InputError
from ebp_cuda.images.preprocess import Preprocess
from ebp_cuda.models import digits, libraries, open_model

timm = pytest.importorskip("timm")
safetensors = pytest.importorskip("safetensors.torch")


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A network of torchvision that was trained for seven other classes, as a training script saves it."""
    torch.manual_seed(0)
    module = torchvision.models.squeezenet1_1(num_classes=7).eval()
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in module.state_dict().items()}}, path)
    return module, path


def test_a_network_of_torchvision_with_weights_of_ones_own(squeezenet: tuple[Any, Path]) -> None:
    module, path = squeezenet
    net, x = open_model("torchvision:squeezenet1_1", path), torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(net.forward(x)[net.graph.outputs[0]], module(x))
    assert net.labels is None and net.graph.origin == "torchvision:squeezenet1_1"
    assert net.preprocess is not None and net.preprocess["mean"] == [0.485, 0.456, 0.406]


def test_weights_in_the_cache_of_torchvision_bring_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match="no weights are here; give --weights FILE, or get them: ebp-cuda fetch torch"):
        open_model("torchvision:squeezenet1_1")
    url = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url
    (tmp_path / "checkpoints").mkdir()
    torch.save(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "checkpoints" / Path(url).name)
    labels = open_model("torchvision:squeezenet1_1").labels
    assert labels is not None and (len(labels), labels[281]) == (1000, "tabby")


def test_a_network_of_timm_from_safetensors_has_its_labels_and_transforms(tmp_path: Path) -> None:
    module = timm.create_model("mobilenetv3_small_050").eval()
    safetensors.save_file(module.state_dict(), tmp_path / "w.safetensors")
    net, x = open_model("timm:mobilenetv3_small_050", tmp_path / "w.safetensors"), torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(net.forward(x)[net.graph.outputs[0]], module(x), rtol=1e-4, atol=1e-5)
    assert net.labels is not None and net.labels[281] == "tabby, tabby cat"
    assert net.preprocess is not None and net.preprocess["interpolation"] == "bicubic"


def test_an_archive_of_torch_export(squeezenet: tuple[Any, Path], tmp_path: Path) -> None:
    module, x = squeezenet[0], torch.rand(1, 3, 64, 64)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "net.pt2")
    net = ebp_cuda.load(tmp_path / "net.pt2")
    torch.testing.assert_close(net.forward(x)[net.graph.outputs[0]], module(x))
    assert net.graph.source == "torch" and "features.3.squeeze" in net.graph.names
    assert ebp_cuda.ExcitationBackprop(net).run(x).setting.rules == "conserving"
    with pytest.raises(InputError, match="is complete in itself"):
        ebp_cuda.load(tmp_path / "net.pt2", "w.pth")


def test_our_own_networks() -> None:
    net = open_model("digits")
    assert net.labels == digits.LABELS and net.graph.source == "caffe"
    assert open_model(digits.DEPLOY, digits.WEIGHTS).graph.nodes[0].name == net.graph.nodes[0].name
    assert open_model(digits.DEPLOY, random=True).graph.inputs == net.graph.inputs


def test_a_network_of_the_catalogue_takes_the_weights_that_fetch_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every layer as few numbers as there are: alexnet with the shapes of its layers, all of them zero, is 240 MB,
    so that the reader of the pair is looked at in its place."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"bvlc_alexnet.caffemodel is not in this folder; .* ebp-cuda fetch alexnet"):
        open_model("alexnet")
    asked = {}

    def load(deploy: Path, weights: Path | None, **options: Any) -> Any:
        asked.update(options, weights=weights, first=deploy.read_text().splitlines()[0])
        return SimpleNamespace(graph=SimpleNamespace(meta={}))

    monkeypatch.setattr("ebp_cuda.net.load", load)
    Path("bvlc_alexnet.caffemodel").write_bytes(b"")
    assert open_model("alexnet").graph.meta == {"origin": "alexnet"}
    assert asked["weights"] == Path("bvlc_alexnet.caffemodel") and "AlexNet" in asked["first"]
    assert asked["labels"][281] == "tabby" and asked["preprocess"]["channel_order"] == "BGR"


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("vgg", None, "--model vgg: no such file or network; nearest: vgg1.*; wanted NET.onnx, DEPLOY.prototxt"),
        ("net.onnx", None, "net.onnx: no such file"),
        ("torchvision:squeezenet", None, "torchvision:squeezenet: no such network; nearest: squeezenet1_"),
        ("timm:resnet5", None, "timm:resnet5: no such network; nearest: resnet50"),
        ("timm:resnet50", None, "no weights are here"),
        ("digits", "w.pth", "digits carries its own"),
        ("torchvision:squeezenet1_1", "nowhere.pth", "nowhere.pth: no such file"),
        ("torchvision:squeezenet1_1", digits.WEIGHTS, "not a readable state dict"),
    ],
)
def test_what_cannot_be_opened(model: str, weights: Any, message: str) -> None:
    with pytest.raises(EBPError, match=message):
        open_model(model, weights)


def test_weights_are_read_without_running_anything(squeezenet: tuple[Any, Path], tmp_path: Path) -> None:
    module, _ = squeezenet
    torch.save(module, tmp_path / "whole.pth")
    with pytest.raises(EBPError, match=r"whole\.pth: not a readable state dict"):
        open_model("torchvision:squeezenet1_1", tmp_path / "whole.pth")
    torch.save(torchvision.models.squeezenet1_0().state_dict(), tmp_path / "other.pth")
    with pytest.raises(EBPError, match=r"other.pth: not weights of torchvision:squeezenet1_1: 'features.0.weight' is"):
        open_model("torchvision:squeezenet1_1", tmp_path / "other.pth")


def test_fetch_goes_through_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(torchvision.models.SqueezeNet1_1_Weights, "get_state_dict", refuse)
    with pytest.raises(EBPError, match="squeezenet1_1: the weights cannot be downloaded: no network here"):
        libraries.fetch_library_model("torchvision", "squeezenet1_1")


def test_transforms_of_the_libraries() -> None:
    weights = torchvision.models.ResNet50_Weights.DEFAULT
    how = Preprocess.from_torchvision(weights)
    assert how == Preprocess.from_torchvision(weights.transforms())
    assert (how.size, how.interpolation, how.std) == ((224, 224), "bilinear", (0.229, 0.224, 0.225))
    model = timm.create_model("mobilenetv3_small_050")
    assert Preprocess.from_timm(model) == Preprocess.from_timm(model.pretrained_cfg)
    assert Preprocess.from_timm(timm.data.resolve_model_data_config(model)).interpolation == "bicubic"
    assert Preprocess.from_timm({"input_size": (1, 28, 28), "mean": [0.5], "std": [0.5]}).channel_order == "GRAY"
    for wrong in (3, {"mean": 0}, None):
        with pytest.raises(InputError, match="wanted a timm model or its pretrained_cfg"):
            Preprocess.from_timm(wrong)
        with pytest.raises(InputError, match="wanted weights with mean and std"):
            Preprocess.from_torchvision(wrong)
