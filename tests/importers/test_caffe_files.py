"""What an imported Caffe network carries and how it gets into a file; and what is refused, with which words."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from support import paths
from support.caffe_nets import BLOCK, MODEL, build, dims, layer, metadata, net, ort, random, run
from support.golden_data import difference, load

import ebp_cuda
from ebp_cuda.errors import InputError, ModelError, ShapeError, UnsupportedError
from ebp_cuda.importers import caffe


def test_nodes_values_and_metadata_carry_the_caffe_names(tmp_path: Path) -> None:
    text = net(
        (1, 3, 8, 8),
        layer("conv", "Convolution", "convolution_param { num_output: 4 kernel_size: 3 }", tops="c"),
        layer("bn", "BatchNorm", bottoms="c", tops="c"),
        layer("sc", "Scale", "scale_param { bias_term: true }", "c", "c"),
        layer("relu", "ReLU", bottoms="c", tops="c"),
        layer("fc", "InnerProduct", "inner_product_param { num_output: 5 }", "c"),
        layer("loss", "EuclideanLoss", bottoms="fc fc", tops="loss"),
    )
    report = caffe.ImportReport()
    preprocess = {"size": [8, 8], "shortest_side": None, "mean": [1, 2, 3], "std": [1, 1, 1]}
    model = build(tmp_path, text, labels=["a", "é"], preprocess=preprocess, report=report)
    graph, meta = model.graph, metadata(model)
    assert [(n.name, n.op_type, n.output[0]) for n in graph.node] == [
        ("conv", "Conv", "c@conv"),
        ("bn", "BatchNormalization", "c@bn"),
        ("sc", "Scale", "c@sc"),
        ("relu", "Relu", "c"),
        ("fc/flatten", "Flatten", "fc/flatten"),
        ("fc", "Gemm", "fc"),
    ]
    assert {"conv/0", "conv/1", "sc/0", "sc/1", "fc/0", "fc/1"} <= {t.name for t in graph.initializer}
    assert meta["ebp_cuda.names"]["c"] == ["c@conv", "c@bn", "c@sc", "c"]
    assert (meta["ebp_cuda.names"]["bn"], meta["ebp_cuda.names"]["fc"]) == (["c@bn"], ["fc"])
    assert [x["type"] for x in meta["ebp_cuda.layers"]][:3] == ["Input", "Convolution", "BatchNorm"]
    assert (meta["ebp_cuda.labels"], meta["ebp_cuda.preprocess"]) == (["a", "é"], preprocess)
    assert meta["ebp_cuda.phase"] == "TEST" and "loss" not in meta["ebp_cuda.names"]
    assert report.dropped == ["loss"]


def test_two_layers_of_one_name_share_the_stored_weights(tmp_path: Path) -> None:
    conv = "convolution_param { num_output: 3 kernel_size: 1 bias_term: false }"
    text = net((1, 3, 4, 4), layer("c", "Convolution", conv, tops="a"), layer("c", "Convolution", conv, "a", "b"))
    weight, x = random(3, 3, 1, 1), random(1, 3, 4, 4)
    (tmp_path / "net.prototxt").write_text(text)
    caffe.write_caffemodel(tmp_path / "w", net((1, 3, 4, 4), layer("c", "Convolution", conv)), {"c": [weight]})
    model = caffe.to_onnx(tmp_path / "net.prototxt", tmp_path / "w")
    got = run(model, {"x": x})["b"]
    np.testing.assert_allclose(got, np.einsum("ik,kj,njhw->nihw", weight[..., 0, 0], weight[..., 0, 0], x), atol=1e-5)
    assert len({node.name for node in model.graph.node}) == 2


def test_a_training_file_states_its_preprocessing(tmp_path: Path) -> None:
    data = """name: "data" type: "Data" top: "data" top: "label"
        transform_param { crop_size: 16 mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.5 }"""
    layers = [data, layer("y", "ReLU", bottoms="data"), layer("l", "SoftmaxWithLoss", bottoms="y label")]
    meta = metadata(build(tmp_path, "\n".join(f"layer {{ {x} }}" for x in layers)))
    stated = meta["ebp_cuda.preprocess"]
    assert (stated["size"], stated["mean"], stated["std"]) == ([16, 16], [104, 117, 123], [2, 2, 2])
    assert (stated["channel_order"], stated["raw_scale"]) == ("BGR", 255)


def test_parameters_shared_by_name(tmp_path: Path) -> None:
    conv = 'param { name: "w" } convolution_param { num_output: 3 kernel_size: 1 bias_term: false }'
    text = net((1, 3, 4, 4), layer("a", "Convolution", conv), layer("b", "Convolution", conv, "a"))
    weight, x, report = random(3, 3, 1, 1), random(1, 3, 4, 4), caffe.ImportReport()
    got = run(build(tmp_path, text, {"a": [weight], "b": [weight * 5]}, report=report), {"x": x})["b"]
    matrix = weight[:, :, 0, 0]
    np.testing.assert_allclose(got, np.einsum("ij,njhw->nihw", matrix @ matrix, x), atol=1e-5)
    assert report.shared == {"b/0": "a/0"}


def test_fillers_draw_the_same_numbers_from_the_same_seed(tmp_path: Path) -> None:
    def weights(seed: int) -> dict[str, np.ndarray]:
        fillers = {
            "xavier": "", "msra": "variance_norm: FAN_OUT", "gaussian": "mean: 3 std: 0.1", "uniform": "min: 2 max: 4",
            "constant": "value: 7", "positive_unitball": "",
        }  # fmt: skip
        layers = [
            layer(name, "Convolution", "convolution_param { num_output: 64 kernel_size: 3 bias_term: false "
                  f'weight_filler {{ type: "{name}" {rest} }} }}')
            for name, rest in fillers.items()
        ]  # fmt: skip
        up = 'convolution_param { num_output: 1 kernel_size: 4 bias_term: false weight_filler { type: "bilinear" } }'
        model = build(tmp_path, net((1, 32, 8, 8), *layers, layer("up", "Deconvolution", up)), seed=seed)
        return {t.name[:-2]: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}

    first, again, other = weights(0), weights(0), weights(1)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["xavier"], other["xavier"])
    assert first["xavier"].std() == pytest.approx(np.sqrt(1 / 288), rel=0.03)
    assert first["msra"].std() == pytest.approx(np.sqrt(2 / 576), rel=0.03)
    assert first["gaussian"].mean() == pytest.approx(3, abs=0.01)
    assert 2 <= first["uniform"].min() < 2.1 and 3.9 < first["uniform"].max() <= 4
    np.testing.assert_array_equal(first["constant"], 7)
    np.testing.assert_allclose(first["positive_unitball"].sum((1, 2, 3)), 1, rtol=1e-5)
    np.testing.assert_allclose(first["up"][0, 0, 1], np.outer([0.75], [0.25, 0.75, 0.75, 0.25])[0])


@pytest.mark.parametrize("kind", ["xavier", "msra", "gaussian", "uniform", "constant"])
def test_a_single_number_may_have_any_filler(tmp_path: Path, kind: str) -> None:
    param = f"prelu_param {{ channel_shared: true filler {{ type: '{kind}' }} }}"
    build(tmp_path, net(IMAGE, layer("y", "PReLU", param)))


def test_a_file_appears_whole(tmp_path: Path) -> None:
    report = caffe.import_file(BLOCK, MODEL / "inception_block.caffemodel", tmp_path / "net.onnx")
    assert (report.missing, report.unused, report.dropped) == ([], [], [])
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert onnx.load(tmp_path / "net.onnx") == caffe.to_onnx(BLOCK, MODEL / "inception_block.caffemodel")


def test_big_weights_go_beside_the_model(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    caffe.import_file(BLOCK, MODEL / "inception_block.caffemodel", path, external_limit=1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    onnx.checker.check_model(path, full_check=True)
    data = load("caffemodel/inception_block.npz")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert difference(session.run(["fc"], {"data": data["in/data"]})[0], data["fwd/fc"]) <= 2e-5
    got = ebp_cuda.load(path).forward(data["in/data"], outputs=["fc"])["fc"]
    assert difference(got.numpy(), data["fwd/fc"]) <= 2e-5
    assert onnx.load(path).graph.initializer[0].HasField("raw_data")  # moved in by onnx.load, as by other tools


def test_nothing_is_left_of_a_failed_import(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        caffe.import_file(BLOCK, MODEL / "v1.caffemodel", tmp_path / "net.onnx")
    with pytest.raises(InputError, match="no folder"):
        caffe.import_file(BLOCK, MODEL / "inception_block.caffemodel", tmp_path / "none" / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_memory_stays_near_the_size_of_the_weights(tmp_path: Path) -> None:
    """Peak of a whole import, the mapped weights file counted in, over the weights' size."""
    param = "inner_product_param { num_output: 1800 bias_term: false }"
    names = ["x", *"abcdef"]
    layers = [layer(b, "InnerProduct", param, a) for a, b in pairwise(names)]
    text, weight = net((1, 1800), *layers), random(1800, 1800)
    (tmp_path / "net.prototxt").write_text(text)
    caffe.write_caffemodel(tmp_path / "net.caffemodel", text, {name: [weight] for name in names[1:]})
    program = """if True:
        import sys
        sys.path.insert(0, sys.argv[1])
        from memory import growth
        from ebp_cuda.importers.caffe import import_file
        print(growth(lambda: import_file("net.prototxt", "net.caffemodel", "net.onnx")))
    """
    command = [sys.executable, "-c", program, str(paths.TOOLS)]
    grown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(grown.stdout) < 1.5 * 6 * weight.nbytes


def test_the_script_imports_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = paths.TOOLS / "caffe_to_onnx.py"
    for weights, out in (("inception_block", "net.onnx"), ("v1", "two.onnx")):
        argv = [str(script), str(BLOCK), str(MODEL / f"{weights}.caffemodel"), str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(script), run_name="__main__")
        text = capsys.readouterr()
        if weights == "v1":
            assert done.value.code == 2 and text.err.startswith("error: ") and not Path(argv[3]).exists()
        else:
            assert done.value.code == 0 and text.out.strip() == argv[3] and Path(argv[3]).exists()


def test_weights_of_another_network_name_the_first_layer_that_differs(tmp_path: Path) -> None:
    text = BLOCK.read_text().replace("num_output: 16 kernel_size: 5", "num_output: 17 kernel_size: 5")
    path = tmp_path / "other.prototxt"
    path.write_text(text)
    with pytest.raises(ModelError) as error:
        caffe.to_onnx(path, MODEL / "inception_block.caffemodel")
    for part in (
        "inception_block.caffemodel",
        "other.prototxt",
        "'b3' (Convolution)",
        "[16, 2, 5, 5]",
        "[17, 2, 5, 5]",
    ):
        assert part in str(error.value)


def test_a_missing_bias_is_a_misfit(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(BLOCK.read_text().replace("num_output: 6", "num_output: 6 bias_term: false"))
    with pytest.raises(ModelError, match=r"'fc' \(Convolution\): got 2 parameter blobs, wanted 1"):
        caffe.to_onnx(tmp_path / "net.prototxt", MODEL / "inception_block.caffemodel")


def test_missing_and_unused_layers(tmp_path: Path) -> None:
    path, report = tmp_path / "net.prototxt", caffe.ImportReport()
    path.write_text(BLOCK.read_text().replace('name: "fc"', 'name: "fc_new"'))
    with pytest.raises(ModelError, match=r"no parameters for layer 'fc_new' of .* nearest: fc"):
        caffe.to_onnx(path, MODEL / "inception_block.caffemodel")
    model = caffe.to_onnx(path, MODEL / "inception_block.caffemodel", allow_missing=True, report=report)
    assert (report.missing, report.unused) == (["fc_new"], ["fc"])
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert weights["fc_new/0"].std() > 0
    np.testing.assert_array_equal(weights["b3/1"], load("caffemodel/inception_block.npz")["param/b3/1"])


IMAGE = (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (net(IMAGE, layer("y", "Convolutio")), UnsupportedError, "'y' (Convolutio): no translation"),
        (net(IMAGE, layer("y", "Convolutio")), UnsupportedError, "nearest: Convolution"),
        (net(IMAGE, layer("y", "Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }")), UnsupportedError, "s"),
        (net(IMAGE, layer("y", "Pooling", "pooling_param { kernel_size: 2 pad: 2 }")), ModelError, "pad [2, 2]"),
        (net(IMAGE, layer("y", "Pooling", "pooling_param { kernel_h: 2 }")), ModelError, "both kernel_h and kernel_w"),
        (net(IMAGE, layer("y", "Pooling")), ModelError, "kernel_size [0, 0]"),
        (net((1, 3), layer("y", "Pooling", "pooling_param { kernel_size: 2 }")), ShapeError, "[1, 3]; wanted 4 axes"),
        (net(IMAGE, layer("y", "Convolution", "convolution_param { kernel_size: 3 }")), ModelError, "num_output 0"),
        (
            net(IMAGE, layer("y", "Convolution", "convolution_param { num_output: 4 kernel_size: 9 }")),
            ModelError,
            "does not fit",
        ),
        (net(IMAGE, layer("y", "Convolution", "convolution_param { num_output: 4 }")), ModelError, "kernel_size []"),
        (
            net(IMAGE, layer("y", "Convolution", "convolution_param { num_output: 4 kernel_size: 3 group: 2 }")),
            ModelError,
            "group 2 do not divide",
        ),
        (
            net(IMAGE, layer("y", "Convolution", "convolution_param { num_output: 4 kernel_size: 3 group: 0 }")),
            ModelError,
            "group 0 do not divide",
        ),
        (net(IMAGE, layer("y", "InnerProduct", "inner_product_param { num_output: 3 axis: 4 }")), ModelError, "axis 4"),
        (net(IMAGE, layer("y", "LRN", "lrn_param { local_size: 4 }")), ModelError, "local_size 4"),
        (net(IMAGE, layer("y", "Concat", bottoms="x z")), ModelError, "reads blob 'z'"),
        (net(IMAGE, layer("y", "ReLU", bottoms="x x")), ModelError, "2 bottoms; wanted at most 1"),
        (net(IMAGE, layer("y", "Eltwise")), ModelError, "1 bottoms; wanted at least 2"),
        (net(IMAGE, layer("y", "Slice", "slice_param { slice_point: 5 }", tops="y z")), ModelError, "do not divide 3"),
        (net(IMAGE, layer("y", "Reshape", "reshape_param { shape { dim: 7 } }")), ModelError, "192 numbers"),
        (net((1, 3, 0, 8), layer("y", "ReLU")), ModelError, "shape [1, 3, 0, 8]"),
        (f"layer {{ {layer('y', 'ReLU', tops='x', bottoms='')} }}", ModelError, "0 bottoms"),
        (
            net(IMAGE, layer("p", "Pooling", "pooling_param { kernel_size: 2 }"), layer("y", "Eltwise", bottoms="x p")),
            ShapeError,
            "bottom 'p' has shape [1, 3, 7, 7]; wanted [1, 3, 8, 8]",
        ),
        (
            net(IMAGE, layer("p", "Pooling", "pooling_param { kernel_size: 2 }"), layer("y", "Concat", bottoms="x p")),
            ShapeError,
            "bottom 'p' has shape [1, 3, 7, 7]; wanted [1, 3, 8, 8] but for axis 1",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_says_why(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    with pytest.raises(error, match=re.escape(message)) as caught:
        caffe.to_onnx(path)
    assert str(path) in str(caught.value)


def test_an_input_without_a_shape_wants_one(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(f'layer {{ name: "d" type: "Data" top: "x" }} layer {{ {layer("y", "ReLU")} }}')
    with pytest.raises(ModelError, match="input 'x' has no shape; wanted one: input_shapes="):
        caffe.to_onnx(path)
    with pytest.raises(ModelError, match="input_shapes names 'z'; inputs are x"):
        caffe.to_onnx(path, input_shapes={"z": (1, 2)})
    assert dims(caffe.to_onnx(path, input_shapes={"x": (1, 3, 9, 9)}).graph.input) == {"x": ["N", 3, "H", "W"]}


def test_an_import_is_a_model_its_tensors_and_a_report(tmp_path: Path) -> None:
    got = caffe.import_net(BLOCK, MODEL / "inception_block.caffemodel", caffe.ImportOptions(labels=["a", "b"]))
    assert all(not tensor.raw_data for tensor in got.model.graph.initializer)
    assert [tensor.name for tensor in got.model.graph.initializer] == list(got.tensors)
    assert not got.report.missing and metadata(got.model)["ebp_cuda.labels"] == ["a", "b"]
    whole = caffe.to_onnx(BLOCK, MODEL / "inception_block.caffemodel", labels=["a", "b"])
    assert got.whole().SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)
    assert not got.tensors, "they have gone into the model"
