"""EfficientNet-Lite0 with its published weights: known classes on known photos, through the torch importer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

import ebp_cuda
from ebp_cuda import models
from ebp_cuda.errors import ModelError
from ebp_cuda.images.preprocess import Preprocess, prepare
from ebp_cuda.models import efficientnet_lite0

torch.set_num_threads(1)

try:
    efficientnet_lite0.packaged_weights()
    reason = ""
except ModelError as error:
    reason = str(error)
needs_weights = pytest.mark.skipif(bool(reason), reason=reason)

EXPECTED = {  # photo: (short side 224 and both a multiple of 32), first class, its probability, second class
    "chelsea": ((224, 352), 285, 0.33, 281),
    "coffee": ((224, 352), 967, 0.54, 968),
    "rocket": ((224, 320), 540, 0.15, 657),
    "astronaut": ((224, 224), 422, 0.14, 542),
}


def photo(name: str) -> torch.Tensor:
    how = Preprocess.from_dict(efficientnet_lite0.PREPROCESS).override(size=EXPECTED[name][0])
    return prepare(getattr(data, name)().astype(np.float32) / np.float32(255), how)


@pytest.fixture(scope="module")
def trained() -> efficientnet_lite0.EfficientNetLite0:
    return efficientnet_lite0.load()


@pytest.fixture(scope="module")
def net(trained: efficientnet_lite0.EfficientNetLite0) -> ebp_cuda.Net:
    meta = {"labels": models.labels("imagenet"), "preprocess": efficientnet_lite0.PREPROCESS}
    return ebp_cuda.from_torch(trained, photo("rocket"), **meta)


@needs_weights
@pytest.mark.parametrize("name", EXPECTED)
def test_photos_get_their_classes(trained: torch.nn.Module, name: str) -> None:
    with torch.no_grad():
        scores, order = trained(photo(name))[0].softmax(0).sort(descending=True)
    _, first, probability, second = EXPECTED[name]
    assert order[:2].tolist() == [first, second]
    assert float(scores[0]) == pytest.approx(probability, abs=0.01)


@needs_weights
def test_the_imported_network_computes_the_same(trained: torch.nn.Module, net: ebp_cuda.Net) -> None:
    x = photo("rocket")
    seen: dict[str, torch.Tensor] = {}
    layers = ["stem.act", "blocks.0", "blocks.4.expand", "blocks.8.depthwise.conv", "blocks.15", "head", "pool"]
    hooks = [
        trained.get_submodule(path).register_forward_hook(lambda m, i, o, path=path: seen.update({path: o}))
        for path in layers
    ]
    with torch.no_grad():
        wanted = trained(x)
    for hook in hooks:
        hook.remove()
    got = net.forward(x, outputs=[*layers, *net.graph.outputs])
    for name, value in {**seen, net.graph.outputs[0]: wanted}.items():
        assert (got[name] - value).abs().max() <= 1e-4 * value.abs().max(), name
    assert net.labels is not None
    assert net.labels[int(got[net.graph.outputs[0]].argmax())] == "drilling platform"
    assert [node.op for node in net.graph.nodes].count("pad") == 5  # the strided layers, on even sizes


@needs_weights
def test_its_maps_lose_nothing_and_point_at_the_class(net: ebp_cuda.Net) -> None:
    x = photo("rocket")
    whole = ebp_cuda.ExcitationBackprop(net, "blocks.4", rules="conserving").attribute(x, [[657, 540]])
    assert whole.sum((2, 3)).flatten().tolist() == pytest.approx([1, 1], abs=1e-4)
    contrast = ebp_cuda.ExcitationBackprop(net, "blocks.4", "pool", rules="conserving").attribute(x, [[657, 540]])[0]
    assert contrast.sum((1, 2)).tolist() == pytest.approx([0, 0], abs=1e-4)
    middle = contrast.clamp(min=0)[:, :, 14:30].sum((1, 2)) / contrast.clamp(min=0).sum((1, 2))
    assert middle[0] > 0.9  # the missile is the rocket, in the middle of the photo
    assert middle[1] < 0.1  # the drilling platforms are the towers at its sides


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (10, 5, 2), (11, 5, 2), (7, 5, 1), (6, 1, 1)]
)
def test_same_padding_is_that_of_tensorflow(size: int, kernel: int, stride: int) -> None:
    conv = efficientnet_lite0.SameConv2d(1, 1, kernel, stride).requires_grad_(False)
    x = torch.rand(1, 1, size, size + 1)
    got = conv(x)[0, 0]
    assert got.shape == (-(-size // stride), -(-(size + 1) // stride))
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    rows = [row * stride - total // 2 for row in range(got.shape[0])]  # where each window starts
    columns = max((got.shape[1] - 1) * stride + kernel - size - 1, 0) // 2
    for row, start in enumerate(rows):
        taps = [
            float(conv.weight[0, 0, i, j] * x[0, 0, start + i, j - columns])
            for i in range(kernel)
            for j in range(kernel)
            if 0 <= start + i < size and j >= columns
        ]
        assert float(got[row, 0]) == pytest.approx(sum(taps), abs=1e-5)


def test_shapes_of_the_published_network() -> None:
    module = efficientnet_lite0.EfficientNetLite0()
    assert sum(p.numel() for p in module.parameters()) == 4_652_008
    assert len(module.blocks) == 16
    assert [float(m.eps) for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)] == [1e-3] * 49
    with torch.no_grad():
        assert module.eval().blocks[:5](torch.rand(1, 32, 112, 112)).shape == (1, 40, 28, 28)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        efficientnet_lite0.load(tmp_path / "none.pth")
    state = efficientnet_lite0.EfficientNetLite0(classes=10).state_dict()
    torch.save(state, tmp_path / "ten.pth")
    with pytest.raises(ModelError, match=r"'classifier.weight' is \[1000, 1280\], got \[10, 1280\]"):
        efficientnet_lite0.load(tmp_path / "ten.pth")
    whole = (tmp_path / "ten.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"cut.pth: not a readable state dict"):
        efficientnet_lite0.load(tmp_path / "cut.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="holds list"):
        efficientnet_lite0.load(tmp_path / "list.pth")
