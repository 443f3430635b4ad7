"""The pycaffe face as scripts use it: edits of blobs and parameters, ranges of layers, files, the other modes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.golden_data import GOLDEN, difference

from ebp_cuda import EBPError, InputError, ModelError, caffe

SMALL = """
name: "small"
force_backward: true
input: "data"
input_shape { dim: 2 dim: 3 dim: 9 dim: 11 }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 6 kernel_size: 3 pad: 1 } }
layer { name: "bn" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "scale" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "norm" type: "LRN" bottom: "conv1" top: "norm" lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 } }
layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "a" type: "Convolution" bottom: "pool" top: "a" convolution_param { num_output: 4 kernel_size: 1 } }
layer { name: "b" type: "Convolution" bottom: "pool" top: "b"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" eltwise_param { coeff: 1 coeff: -2 } }
layer { name: "relu2" type: "ReLU" bottom: "sum" top: "sum" }
layer { name: "gap" type: "Pooling" bottom: "sum" top: "gap" pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "gap" top: "fc" inner_product_param { num_output: 5 } }
"""


@pytest.fixture(autouse=True)
def plain():
    caffe.set_mode_cpu()
    yield
    caffe.set_mode_cpu()
    caffe.set_strict(True)


def make(folder, text=SMALL, seed=0):
    (folder / "net.prototxt").write_text(text)
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
    draw = np.random.RandomState(seed)
    for name, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            if (name, index) == ("bn", 2):
                blob.data[...] = 2
            else:
                blob.data[...] = (
                    draw.uniform(0.5, 2, blob.shape) if name == "bn" else draw.normal(size=blob.shape) * 0.4
                )
    for name in net.inputs:
        net.blobs[name].data[...] = draw.normal(size=net.blobs[name].shape)
    return net


def torch_forward(net, x, relu=torch.relu):
    """The same network in torch's own operations."""
    functional = torch.nn.functional
    w = {name: [torch.from_numpy(blob.data.copy()).double() for blob in blobs] for name, blobs in net.params.items()}
    y = functional.conv2d(x, *w["conv1"], padding=1)
    y = functional.batch_norm(y, w["bn"][0] / w["bn"][2], w["bn"][1] / w["bn"][2], eps=1e-5)
    y = relu(y * w["scale"][0].reshape(1, -1, 1, 1) + w["scale"][1].reshape(1, -1, 1, 1))
    y = functional.local_response_norm(y, 3, 0.5, 0.75, 1.0)
    y = functional.avg_pool2d(y, 3, 2, ceil_mode=True)
    y = relu(functional.conv2d(y, *w["a"]) - 2 * functional.conv2d(y, *w["b"], padding=1))
    return functional.linear(y.mean((2, 3)), *w["fc"])


class Rectify(torch.autograd.Function):
    """Deconvolution's ReLU."""

    @staticmethod
    def forward(ctx, x):
        return x.relu()

    @staticmethod
    def backward(ctx, grad):
        return grad.relu()


@pytest.mark.parametrize("mode, relu", [("cpu", torch.relu), ("dc_cpu", Rectify.apply)])
def test_gradient_and_deconvolution_are_autograds(mode, relu, tmp_path):
    net = make(tmp_path)
    getattr(caffe, f"set_mode_{mode}")()
    x = torch.from_numpy(net.blobs["data"].data.copy()).double().requires_grad_()
    y = torch_forward(net, x, relu)
    seed = np.random.RandomState(3).normal(size=y.shape).astype(np.float32)
    y.backward(torch.from_numpy(seed).double())
    assert difference(net.forward()["fc"], y.detach().numpy()) < 1e-5
    found = net.backward(fc=seed)
    assert list(found) == ["data"]
    assert difference(found["data"], x.grad.numpy()) < 1e-5


def test_a_parameter_edit_is_seen_by_the_next_pass(tmp_path):
    net = make(tmp_path)
    held = net.params["conv1"][0].data
    edits = [
        lambda: held.__imul__(-1),
        lambda: net.params["bn"][0].data.__iadd__(1),
        lambda: net.params["scale"][0].data.__imul__(0.5),
        lambda: net.params["fc"][1].data.fill(3),
    ]
    for edit in edits:
        before = net.forward()["fc"].copy()
        edit()
        x = torch.from_numpy(net.blobs["data"].data).double()
        after = net.forward()["fc"]
        assert difference(after, torch_forward(net, x).numpy()) < 1e-5
        assert difference(after, before) > 1e-3


def test_flipping_the_top_layer_repacks_that_layer_alone(tmp_path, monkeypatch):
    net = make(tmp_path)

    def parts():
        plan = net._runner.plan()
        maps = {index: plan.linear(index) for index in range(len(plan.graph.nodes))}
        return {index: linear.positive().part.tensor() for index, linear in maps.items() if linear is not None}

    caffe.set_mode_eb_cpu()
    net.forward()
    net.blobs["fc"].diff[:, 1] = 1
    net.backward()
    packed = parts()
    first = net.blobs["gap"].diff.copy()
    net.params["fc"][0].data[...] *= -1
    net.backward()
    assert not np.allclose(net.blobs["gap"].diff, first)
    net.params["fc"][0].data[...] *= -1
    net.backward()
    np.testing.assert_array_equal(net.blobs["gap"].diff, first)
    (top,) = net.layer_dict["fc"].nodes[-1:]
    after = parts()
    assert {index for index in after if after[index] is not packed[index]} == {top}


def test_data_written_to_a_blob_feeds_the_layers_above(tmp_path):
    net = make(tmp_path)
    net.forward()
    pool = net.blobs["pool"].data
    kept, top = pool.copy(), net.blobs["fc"].data.copy()
    pool[...] = 2 * kept
    net.forward(start="a")
    doubled = net.blobs["fc"].data.copy()
    assert difference(doubled, top) > 1e-3
    np.testing.assert_array_equal(net.blobs["pool_pool_0_split_1"].data, 2 * kept)
    net.forward()
    np.testing.assert_array_equal(pool, kept)  # an array that is held follows the network
    np.testing.assert_array_equal(net.blobs["fc"].data, top)


def test_in_place_blobs_hold_what_the_last_layer_run_left(tmp_path):
    net = make(tmp_path)
    out = net.forward(end="scale")
    before = out["conv1"].copy()
    assert before.min() < 0
    net.forward(start="relu1", end="relu1")
    np.testing.assert_array_equal(net.blobs["conv1"].data, np.maximum(before, 0))


def test_diffs_written_are_carried_on_and_ranges_include_both_ends(tmp_path):
    caffe.set_mode_eb_cpu()
    net = make(tmp_path)
    net.forward()
    net.blobs["fc"].diff[:, 2] = 1
    whole = net.backward()["data"].copy()
    net.backward(start="fc", end="gap")
    half = net.blobs["sum"].diff.copy()
    net.blobs["sum"].diff[...] = 0
    net.blobs["data"].diff[...] = 5
    net.backward(start="relu2", end="conv1")
    assert np.abs(net.blobs["data"].diff).max() == 0
    net.blobs["sum"].diff[...] = half
    found = net.backward(diffs=["pool"], start="relu2", end="conv1")
    assert set(found) == {"conv1", "data", "pool"}
    assert difference(found["data"], whole) < 1e-6


def test_reshape_follows_the_input(tmp_path):
    net = make(tmp_path)
    net.blobs["data"].reshape(1, 3, 13, 10)
    net.reshape()
    assert net.blobs["pool"].shape == (1, 6, 6, 5) and net.blobs["fc"].diff.shape == (1, 5)
    net.blobs["data"].data[...] = np.random.RandomState(1).normal(size=(1, 3, 13, 10))
    x = torch.from_numpy(net.blobs["data"].data).double()
    assert difference(net.forward()["fc"], torch_forward(net, x).numpy()) < 1e-5
    net.blobs["data"].reshape(3, 3, 13, 10)
    assert net.forward()["fc"].shape == (3, 5)
    assert (net.blobs["data"].num, net.blobs["data"].width, net.blobs["fc"].height) == (3, 10, 1)


def test_forward_all_takes_any_number(tmp_path):
    net = make(tmp_path)
    x = np.random.RandomState(2).normal(size=(5, 3, 9, 11)).astype(np.float32)
    found = net.forward_all(blobs=["gap"], data=x)
    assert found["fc"].shape == (5, 5) and found["gap"].shape == (5, 4, 1, 1)
    assert difference(found["fc"], torch_forward(net, torch.from_numpy(x).double()).numpy()) < 1e-5


def test_saved_and_shared_parameters(tmp_path):
    net, other = make(tmp_path), make(tmp_path, seed=1)
    net.save(tmp_path / "w.caffemodel")
    again = caffe.Net(str(tmp_path / "net.prototxt"), str(tmp_path / "w.caffemodel"), caffe.TEST)
    for name, blobs in net.params.items():
        for mine, theirs in zip(blobs, again.params[name], strict=True):
            np.testing.assert_array_equal(mine.data, theirs.data)
    other.copy_from(tmp_path / "w.caffemodel")
    x = net.blobs["data"].data.copy()
    np.testing.assert_array_equal(other.forward(data=x)["fc"], net.forward()["fc"])
    third = make(tmp_path, seed=2)
    third.share_with(net)
    for name in ("conv1", "bn", "fc"):
        net.params[name][0].data[...] *= 1.5
        np.testing.assert_array_equal(third.forward(data=x)["fc"], net.forward()["fc"])


def test_parameters_as_hdf5(tmp_path):
    net, other = make(tmp_path), make(tmp_path, seed=1)
    net.save_hdf5(tmp_path / "w.h5")
    other.load_hdf5(tmp_path / "w.h5")
    for name, blobs in net.params.items():
        for mine, theirs in zip(blobs, other.params[name], strict=True):
            np.testing.assert_array_equal(mine.data, theirs.data)
    net.params["fc"][0].diff[...] = 3
    net.clear_param_diffs()
    assert not net.params["fc"][0].diff.any()


def test_layers_that_share_a_parameter_by_name(tmp_path):
    named = '{ name: "%s" type: "Convolution" bottom: "%s" top: "%s" param { name: "w" } param { name: "b" } '
    conv = "layer " + named + "convolution_param { num_output: 3 kernel_size: 3 pad: 1 } }\n"
    head = 'force_backward: true\ninput: "data"\ninput_shape { dim: 1 dim: 3 dim: 5 dim: 5 }\n'
    net = make(tmp_path, head + conv % ("one", "data", "one") + conv % ("two", "one", "two"))
    net.forward()
    for name in ("two", "one"):
        net.params[name][0].data[...] *= 0.5
        weight, bias = (torch.from_numpy(blob.data.copy()) for blob in net.params["one"])
        y = torch.from_numpy(net.blobs["data"].data)
        for _ in range(2):
            y = torch.nn.functional.conv2d(y, weight, bias, padding=1)
        assert difference(net.forward()["two"], y.numpy()) < 1e-5


def test_names_and_lists(tmp_path):
    net = make(tmp_path)
    assert list(net._layer_names)[:3] == ["input", "conv1", "bn"]
    assert net.inputs == ["data"] and net.outputs == ["fc"]
    assert net.layers[1].type == "Convolution" and len(net.layers[1].blobs) == 2
    assert net.bottom_names["a"] == ["pool_pool_0_split_0"] and net.top_names["a"] == ["a"]
    assert list(net.params) == ["conv1", "bn", "scale", "a", "b", "fc"]
    assert {"Convolution", "Data", "Input", "SoftmaxWithLoss"} <= set(caffe.layer_type_list())


def test_what_the_original_does_silently_is_an_error_unless_asked_for(tmp_path):
    net = make(tmp_path, SMALL.replace("force_backward: true", ""))
    net.forward()
    with pytest.raises(InputError, match="force_backward"):
        net.backward()
    caffe.set_strict(False)
    net.blobs["conv1"].diff[...] = 4
    net.backward()
    assert np.all(net.blobs["conv1"].diff == 4)
    caffe.set_strict(True)
    fresh = make(tmp_path)
    with pytest.raises(InputError, match="before any forward"):
        fresh.blobs["fc"].diff[...] = 1
        fresh.backward()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda net: net.forward(start="conv"), "nearest: conv1"),
        (lambda net: net.backward(end="nothing"), "no such layer"),
        (lambda net: net.forward(image=np.zeros((2, 3, 9, 11))), "wanted one for each of data"),
        (lambda net: net.forward(data=np.zeros((2, 3, 9, 12))), "wanted"),
        (lambda net: net.copy_from("missing.caffemodel"), "missing.caffemodel"),
        (lambda net: caffe.Net("missing.prototxt", caffe.TEST), "missing.prototxt"),
        (lambda net: caffe.Net("missing.prototxt", 7), "caffe.TRAIN or caffe.TEST"),
    ],
)
def test_refusals_name_what_is_wrong(call, message, tmp_path):
    with pytest.raises(EBPError, match=message):
        call(make(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_gpu_mode_without_a_gpu_changes_nothing(tmp_path):
    caffe.set_mode_dc_cpu()
    with pytest.raises(EBPError, match="CUDA"):
        caffe.set_mode_eb_gpu()
    net = make(tmp_path)
    net.forward()
    assert caffe.modes.settings.backward == "dc"
    with pytest.raises(InputError, match="-1"):
        caffe.set_device(-1)


def test_reshape_and_products_in_gradient_mode(tmp_path):
    n = caffe.NetSpec()
    n.data = caffe.layers.Input(shape={"dim": [1, 2, 4, 4]})
    n.conv = caffe.layers.Convolution(n.data, num_output=2, kernel_size=3, pad=1)
    n.up = caffe.layers.Deconvolution(n.conv, convolution_param={"num_output": 2, "kernel_size": 2, "stride": 2})
    n.crop = caffe.layers.Crop(n.up, n.data, axis=2, offset=[1, 2])
    n.product = caffe.layers.Eltwise(n.crop, n.conv, operation=caffe.params.Eltwise.PROD)
    n.folded = caffe.layers.Reshape(n.product, shape={"dim": [0, 4, -1]})
    n.fc = caffe.layers.InnerProduct(n.folded, num_output=3)
    net = make(tmp_path, "force_backward: true\n" + str(n.to_proto()))
    seed = np.array([[1.0, -2.0, 0.5]])
    net.forward()
    found = net.backward(fc=seed)["data"].copy()
    x, place, step = net.blobs["data"].data.copy(), (0, 1, 2, 1), 1e-2
    ends = []
    for sign in (1, -1):
        moved = x.copy()
        moved[place] += sign * step
        ends.append(float((net.forward(data=moved)["fc"] * seed).sum()))
    assert abs((ends[0] - ends[1]) / (2 * step) - found[place]) < 1e-3 * np.abs(found).max()
    net.blobs["data"].reshape(2, 2, 4, 4)
    assert net.forward()["fc"].shape == (2, 3)


def test_weights_that_miss_a_layer(tmp_path):
    make(tmp_path).save(tmp_path / "w.caffemodel")
    (tmp_path / "more.prototxt").write_text(SMALL.replace('name: "fc"', 'name: "fc_new"'))
    with pytest.raises(ModelError, match="fc_new"):
        caffe.Net(str(tmp_path / "more.prototxt"), str(tmp_path / "w.caffemodel"), caffe.TEST)
    caffe.set_strict(False)
    net = caffe.Net(str(tmp_path / "more.prototxt"), caffe.TEST, weights=str(tmp_path / "w.caffemodel"))
    assert net.params["fc_new"][0].shape == (5, 4)


def test_folding_negative_scales_keeps_the_scores(tmp_path):
    net = make(tmp_path)
    net.params["scale"][0].data[::2] *= -1
    before = net.forward()["fc"].copy()
    assert caffe.fold_negative_scales(net) == ["scale"]
    assert net.params["scale"][0].data.min() > 0
    assert difference(net.forward()["fc"], before) < 1e-5


def test_losses_are_left_out_and_still_ask_for_a_backward_pass(tmp_path):
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "fc" top: "loss" }'
    net = make(tmp_path, SMALL.replace("force_backward: true", "") + loss)
    assert net.outputs == ["fc"] and "loss" not in net.blobs
    net.forward()
    net.blobs["data"].diff[...] = 9
    net.backward(fc=np.ones((2, 5)))
    assert np.abs(net.blobs["conv1"].diff).max() > 0
    assert np.all(net.blobs["data"].diff == 9)  # nothing learns below conv1, so the original stops there


def test_legacy_files_load(tmp_path):
    folder = GOLDEN / "caffemodel"
    with np.load(folder / "v1.npz") as data:
        net = caffe.Net(str(folder / "v1.prototxt"), str(folder / "v1.caffemodel"), caffe.TEST)
        for name, blobs in net.params.items():
            np.testing.assert_array_equal(blobs[0].data.ravel(), data[f"param/{name}/0"].ravel())


def test_a_view_of_an_array_keeps_it_attached(tmp_path):
    net = make(tmp_path)
    row = net.blobs["pool"].data[1, 2]
    net.forward()
    np.testing.assert_array_equal(row, net.blobs["pool"].data[1, 2])
    before = net.forward(start="pool")["fc"].copy()
    row += 3
    assert difference(net.forward(start="a")["fc"], before) > 1e-3
    weights = net.params["fc"][0].data[2]
    net.forward()
    weights *= 2
    bias = net.params["fc"][1].data[2]
    assert abs(net.forward(start="fc")["fc"][1, 2] - bias - weights @ net.blobs["gap"].data[1].ravel()) < 1e-5
