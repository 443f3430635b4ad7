"""The compared methods: the torch module made of a graph, and every baseline against a second way to compute it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from support.golden_data import GOLDEN, load, under
from torch import nn

pytest.importorskip("captum")

import ebp_cuda
from ebp_cuda import caffe, models
from ebp_cuda.errors import InputError, UnsupportedError
from ebp_cuda.eval import baselines
from ebp_cuda.eval.graph_module import GraphModule
from ebp_cuda.eval.methods import METHODS, Layers, build_methods, centre, last_plane, method_names
from ebp_cuda.importers.caffe import to_onnx, write_caffemodel
from ebp_cuda.importers.onnx import load_onnx
from ebp_cuda.models import digits
from ebp_cuda.models.digits import benchmark
from ebp_cuda.net import Net

TINY = sorted(path.stem for path in (GOLDEN / "tiny").glob("*.npz"))


@cache
def net() -> Net:
    return digits.load()


@cache
def scenes() -> tuple[torch.Tensor, torch.Tensor]:
    some = list(digits.scenes.held_out_scenes(3, seed=3))
    return benchmark.as_input(some), benchmark.classes_of(some)


def flat(scores: torch.Tensor) -> torch.Tensor:
    return scores if scores.dim() == 2 else scores.flatten(2).logsumexp(2)


def tiny(name: str, folder: Path) -> tuple[Net, dict[str, np.ndarray]]:
    data, prototxt = load(f"tiny/{name}.npz"), GOLDEN / "tiny" / f"{name}.prototxt"
    layers: dict[str, list[np.ndarray]] = {}
    for key, blob in under(data, "param/").items():
        layers.setdefault(key.rsplit("/", 1)[0], []).append(blob)
    write_caffemodel(folder / "w.caffemodel", prototxt.read_text(), layers)
    return Net(load_onnx(to_onnx(prototxt, folder / "w.caffemodel"))), under(data, "in/")


def test_a_graph_as_a_module_computes_the_same_and_has_its_gradient(tmp_path: Path) -> None:
    """Over the original's small nets: ceil and clipped pools, both LRNs, in-place layers, slices, several branches."""
    compared = 0
    for name in TINY:
        (tmp_path / name).mkdir()
        tested, inputs = tiny(name, tmp_path / name)
        if len(inputs) != 1:
            continue
        top = tested.graph.outputs[0]
        try:
            module = GraphModule(tested.graph, top).double()
        except UnsupportedError:
            continue
        x = torch.from_numpy(next(iter(inputs.values()))).double().requires_grad_()
        wanted = tested.forward(x.detach(), [top], dtype="fp64")[top]
        got = module(x)
        assert got.dim() == 2 and got.requires_grad, name
        torch.testing.assert_close(got, flat(wanted) if wanted.dim() > 1 else wanted, rtol=1e-9, atol=1e-9, msg=name)
        compared += 1
    assert compared >= 40


@pytest.mark.parametrize("for_relevance", [False, True])
def test_the_modules_of_published_networks(for_relevance: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(models.prototxt("googlenet_coco", input_shape=(1, 3, 224, 260)))
    loaded = ebp_cuda.load(path)
    x = torch.randn(1, 3, 224, 260, generator=torch.Generator().manual_seed(0)) * 50
    top = loaded.default_top()
    module = GraphModule(loaded.graph, top, for_relevance=for_relevance)
    wanted = flat(loaded.forward(x, [top])[top])
    torch.testing.assert_close(module(x), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_the_modules_weights_are_copies() -> None:
    module = GraphModule(net().graph, net().default_top())
    conv = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
    before = net().graph.nodes[0].params["weight"].clone()
    with torch.no_grad():
        conv.weight.zero_()
    assert torch.equal(net().graph.nodes[0].params["weight"], before)


def test_layers_without_a_gradient_are_refused_by_name() -> None:
    graph = ebp_cuda.from_torch(nn.Sequential(nn.ConvTranspose2d(3, 4, 3)), torch.zeros(1, 3, 8, 8)).graph
    with pytest.raises(UnsupportedError, match=r"conv_transpose"):
        GraphModule(graph, graph.outputs[0])


@pytest.mark.parametrize(("method", "mode"), [("gradient", "set_mode_cpu"), ("deconv", "set_mode_dc_cpu")])
def test_gradient_and_deconvolution_are_those_of_the_pycaffe_face(method: str, mode: str) -> None:
    x, classes = scenes()
    module = GraphModule(net().graph, net().default_top())
    built = baselines.gradient(module) if method == "gradient" else baselines.deconvolution(module)
    maps = built(x, classes)
    runner = caffe.Net(str(digits.DEPLOY), str(digits.WEIGHTS), caffe.TEST)
    getattr(caffe, mode)()
    try:
        for index in range(len(x)):
            runner.blobs["data"].data[...] = x[index].numpy()
            runner.forward()
            for column, label in enumerate(classes[index].tolist()):
                runner.blobs["classifier"].diff[...] = 0
                runner.blobs["classifier"].diff[0, label] = 1
                caffe.set_strict(False)
                runner.backward(start="classifier", end="conv1")
                wanted = np.abs(runner.blobs["data"].diff[0]).max(0)
                assert wanted.any()
                got = maps[index, column].numpy()
                assert np.abs(got - wanted).max() <= 1e-4 * wanted.max()
    finally:
        caffe.set_mode_cpu()
        caffe.set_strict(True)


@pytest.mark.parametrize("rectifier", [nn.ReLU(), nn.ReLU6()], ids=["relu", "relu6"])
def test_guided_backprop_passes_what_is_positive_both_ways(rectifier: nn.Module) -> None:
    """Two layers by hand: a signal through a ReLU survives where its input and itself are positive."""
    w1 = torch.tensor([[1.0, -1.0, 0.5], [2.0, 1.0, -3.0], [-1.0, 2.0, 1.0]])
    w2 = torch.tensor([[1.0, -2.0, 3.0], [-1.0, 1.0, 1.0]])
    module = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), rectifier, nn.Conv2d(3, 2, 1, bias=False))
    module[0].weight.data = w1[:, :, None, None]
    module[2].weight.data = w2[:, :, None, None]
    x = torch.tensor([2.0, 1.0, 0.5]).reshape(1, 3, 1, 1)
    hidden = w1 @ x.flatten()
    graph = ebp_cuda.from_torch(module, x).graph
    twin = GraphModule(graph, graph.outputs[0])
    for label in (0, 1):
        for explain, gate in (
            (baselines.gradient, hidden > 0),
            (baselines.deconvolution, w2[label] > 0),
            (baselines.guided_backprop, (hidden > 0) & (w2[label] > 0)),
        ):
            wanted = ((w2[label] * gate) @ w1).abs().max()
            assert explain(twin)(x, torch.tensor([[label]])).item() == pytest.approx(wanted.item())


def test_methods_that_change_relus_want_some() -> None:
    x = torch.rand(1, 3, 4, 4)
    graph = ebp_cuda.from_torch(nn.Sequential(nn.Conv2d(3, 2, 1), nn.SiLU()), x).graph
    for method in (baselines.guided_backprop, baselines.deconvolution):
        with pytest.raises(ebp_cuda.UnsupportedError, match="at ReLUs, and the network has none"):
            method(GraphModule(graph, graph.outputs[0]))


def test_cam_and_grad_cam_by_hand() -> None:
    x, classes = scenes()
    graph, value = net().graph, last_plane(net(), Layers(digits.LAYER, digits.CONTRAST_LAYER))
    assert value == "inception_c/output"
    module = GraphModule(graph, net().default_top())
    plane = net().forward(x, [value])[value]
    weights = next(node.params["weight"] for node in graph.nodes if node.name == "classifier")[:, :, 0, 0]
    wanted = torch.einsum("nchw,nkc->nkhw", plane, weights[classes]) / plane[0, 0].numel()
    scale = float(wanted.abs().max())
    cam = baselines.class_activation_map(module, graph, value)(x, classes)
    torch.testing.assert_close(cam, wanted, rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(
        baselines.grad_cam(module, value)(x, classes), wanted.clamp(min=0), rtol=1e-4, atol=1e-5 * scale
    )


def test_cam_is_refused_where_the_top_is_no_average() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 6), nn.ReLU(), nn.Linear(6, 2)
    )
    loaded = ebp_cuda.from_torch(module, torch.zeros(1, 3, 8, 8))
    methods, refused = build_methods(loaded, ["cam", "grad-cam", "c-mwp"], Layers("1"))
    assert [method.name for method in methods] == ["grad-cam"]
    assert "linear, relu, linear" in refused["cam"] and "--contrast-layer" in refused["c-mwp"]


def test_relevance_by_hand() -> None:
    """Without biases LRP-epsilon is x * W^T (R / z) layer by layer, and its sum is the score."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 5, 1, bias=False), nn.ReLU(), nn.Conv2d(5, 2, 1, bias=False)).double()
    x = torch.rand(1, 3, 1, 1, dtype=torch.float64)
    graph = ebp_cuda.from_torch(module, x).graph
    w1, w2 = (module[i].weight.detach()[:, :, 0, 0] for i in (0, 2))
    z1 = w1 @ x.flatten()
    h = z1.clamp(min=0)
    z2 = w2 @ h
    for label in (0, 1):
        r1 = h * w2[label]  # the score is the relevance of the top
        r0 = x.flatten() * (w1.T @ (r1 / z1))
        got = baselines.lrp(graph, graph.outputs[0], "epsilon")(x, torch.tensor([[label]]))
        assert got.item() == pytest.approx(r0.sum().item(), rel=1e-6) == pytest.approx(z2[label].item(), rel=1e-6)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(i, 6, 3, padding=1, bias=False) for i in (3, 6))
        self.norm, self.relu, self.out = nn.BatchNorm2d(6), nn.ReLU(), nn.Linear(6, 2, bias=False)
        self.norm.weight.data.uniform_(-1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.relu(self.first(x))
        return self.out(self.relu(h + self.norm(self.second(h))).mean((2, 3)))


def test_relevance_is_kept_through_batch_norm_sums_and_averages() -> None:
    """No layer has an offset, so all of the score arrives at the input."""
    torch.manual_seed(0)
    module, x = Residual().double().eval(), torch.rand(2, 3, 7, 9, dtype=torch.float64)
    graph = ebp_cuda.from_torch(module, x).graph
    found = baselines.lrp(graph, graph.outputs[0], "epsilon")(x, torch.tensor([[0, 1], [0, 1]]))
    torch.testing.assert_close(found.sum((2, 3)), module(x).detach(), rtol=1e-6, atol=1e-9)


def test_relevance_through_a_layer_that_captum_does_not_know_is_refused() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Conv2d(4, 2, 1))
    loaded = ebp_cuda.from_torch(module, torch.zeros(1, 3, 4, 4))
    _, refused = build_methods(loaded, ["lrp-epsilon", "gradient"], Layers("0"))
    assert list(refused) == ["lrp-epsilon"] and "sigmoid" in refused["lrp-epsilon"]


def test_a_baseline_gives_the_same_maps_twice_and_leaves_no_hooks() -> None:
    x, classes = scenes()
    methods, refused = build_methods(net(), METHODS, Layers(digits.LAYER, digits.CONTRAST_LAYER))
    assert not refused and [method.name for method in methods] == list(METHODS)
    for method in methods:
        first, again = method.maps(x, classes), method.maps(x, classes)
        assert torch.equal(first, again), method.name
        assert first.shape[:2] == classes.shape and bool(torch.isfinite(first).all()), method.name
        assert method.smooths == (first.shape[-1] == 112 and method.name != "center"), method.name
    single = {method.name: method.maps(x[1:2], classes[1:2, :1]) for method in methods}
    for method in methods:
        wanted = method.maps(x, classes)[1, 0]
        torch.testing.assert_close(single[method.name][0, 0], wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_the_centre_is_in_the_middle() -> None:
    maps = centre(torch.zeros(1, 3, 7, 10), torch.tensor([[4, 5]]))
    assert maps.shape == (1, 2, 7, 10) and maps.sum() == 2 and maps[0, 1, 3, 5] == 1


def test_methods_by_name() -> None:
    assert method_names("all") == list(METHODS)
    assert method_names("lrp, mwp,lrp") == ["lrp-epsilon", "mwp"]
    with pytest.raises(InputError, match=r"gradcam.*nearest: grad-cam"):
        method_names("gradcam")
