"""Model files from strangers: any of them gives a model or an EBPError, soon and in little memory.

Random ones are tried in tests/fuzz; here are those that were thought of.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from fuzz import importers, run
from memory import growth
from support import paths
from support.caffe_nets import BLOCK, MODEL, layer, net

from ebp_cuda.errors import EBPError, ModelError
from ebp_cuda.importers import caffe
from ebp_cuda.importers.caffe import wire
from ebp_cuda.importers.onnx import load_onnx

IMAGE = (1, 3, 8, 8)


@pytest.mark.parametrize(
    "name", ["inception_block.prototxt", "inception_block.caffemodel", "inception_block.caffemodel.h5"]
)
def test_truncation_at_any_place(tmp_path: Path, name: str) -> None:
    whole = (MODEL / name).read_bytes()
    target = importers.try_prototxt if name.endswith("prototxt") else importers.try_caffemodel
    rng = random.Random(1)
    for end in [*range(24), *(rng.randrange(len(whole)) for _ in range(60)), len(whole) - 1]:
        assert run.finding(target, whole[:end], tmp_path) is None, end


HUGE = [
    layer("y", "Convolution", "convolution_param { num_output: 4000000000 kernel_size: 3 }"),
    layer("y", "InnerProduct", "inner_product_param { num_output: 2000000000 }"),
    layer("y", "Embed", "embed_param { num_output: 4000000000 input_dim: 4000000000 }"),
    layer("y", "Tile", "tile_param { axis: 1 tiles: 2000000000 }"),
    layer("y", "Interp", "interp_param { height: 2000000000 width: 2000000000 }"),
    layer("y", "Upsample", "upsample_param { upsample_h: 2147483647 upsample_w: 2147483647 }"),
    layer("y", "Convolution", "convolution_param { num_output: 4 kernel_size: 1 pad: 4294967295 }"),
    layer("y", "Deconvolution", "convolution_param { num_output: 1 kernel_size: 1 stride: 4294967295 }"),
    layer("y", "Im2col", "convolution_param { kernel_size: 2000 pad: 2000 }"),
    layer("y", "Reshape", "reshape_param { shape { dim: 9223372036854775807 dim: -1 } }"),
    layer("y", "Slice", "", tops=" ".join(f"y{i}" for i in range(9000))),
]
BROKEN = [
    net((1, 3, 1 << 40, 1 << 40), layer("y", "ReLU")),
    net((1, -3, 8, 8), layer("y", "ReLU")),
    net((1 << 62, 1 << 62), layer("y", "ReLU")),
    net(IMAGE, layer("a", "ReLU", bottoms="b", tops="a"), layer("b", "ReLU", bottoms="a", tops="b")),
    net(IMAGE, layer("a", "ReLU", bottoms="a", tops="a")),
    net(IMAGE, layer("a", "ReLU", tops="y"), layer("b", "ReLU", tops="y")),
    net(IMAGE, layer("a", "Split", tops="y y")),
    net(IMAGE, layer("a", "ReLU", bottoms="")),
    net(IMAGE, layer("a", "ReLU", bottoms="nowhere")),
    net(IMAGE, layer("a", "ReLU"), *[layer(f"l{i}", "ReLU") for i in range(100_000)]),
    net(IMAGE, layer("a", "ReLU", "x { " * 200_000)),
    net(IMAGE, layer("a", "ReLU", "relu_param { " * 200_000)),
    net(IMAGE, layer("a" * 500_000, "Z" * 400_000)),
    net(IMAGE, layer("a", "ReLU", bottoms="b" * 400_000)),
]


@pytest.mark.parametrize("text", [net(IMAGE, one) for one in HUGE] + BROKEN, ids=range(len(HUGE) + len(BROKEN)))
def test_what_says_too_much_is_refused_soon(tmp_path: Path, text: str) -> None:
    path, out = tmp_path / "net.prototxt", tmp_path / "net.onnx"
    path.write_text(text)
    start = time.process_time()

    def refused() -> None:
        with pytest.raises(EBPError) as caught:
            caffe.import_file(path, None, out)
        assert str(path) in str(caught.value)

    assert growth(refused) < 1e9
    assert time.process_time() - start < 10
    assert list(tmp_path.iterdir()) == [path]


def test_hdf5_datasets_that_name_the_same_bytes_count_by_their_sum(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "shared.caffemodel.h5"
    size = 1_000_003
    with h5py.File(path, "w") as file:
        place = file.create_dataset("data/conv/0", data=np.ones(size, np.uint8)).id.get_offset()
        for index in range(1, 200):
            file.create_dataset(f"data/conv/{index}", (size,), np.uint8)
    # a dataset that nobody has written to lies nowhere: let all of them lie where the first one does
    nowhere, tail = b"\xff" * 8, size.to_bytes(8, "little")
    path.write_bytes(path.read_bytes().replace(nowhere + tail, place.to_bytes(8, "little") + tail))

    def refused() -> None:
        with pytest.raises(ModelError, match=rf"{re.escape(str(path))}: with 'conv/\d+', .* more than 16 times"):
            caffe.read_weights(path)

    assert growth(refused) < 2e8


def test_hdf5_weights_that_compress_well_are_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "sparse.caffemodel.h5"
    draw = np.random.RandomState(0).rand(1000, 2000).astype(np.float32)
    draw[:, 100:] = 0
    with h5py.File(path, "w") as file:
        file.create_dataset("data/ip/0", data=draw, compression="gzip", chunks=(100, 2000))
    (blob,) = caffe.read_weights(path)["ip"]
    np.testing.assert_array_equal(blob.data, draw)


@pytest.mark.parametrize("dims", [(0, 1 << 62), (1 << 40, 0), (0, (1 << 64) - 1), (0, 1 << 31, 1 << 31, 1 << 31)])
def test_blobs_of_nothing_times_very_much_are_refused(tmp_path: Path, dims: tuple[int, ...]) -> None:
    def varint(value: int) -> bytes:
        return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])

    blob = wire.bytes_field(7, wire.bytes_field(1, b"".join(map(varint, dims))))
    path = tmp_path / "w.caffemodel"
    path.write_bytes(wire.bytes_field(100, wire.bytes_field(1, b"ip") + wire.bytes_field(7, blob)))
    with pytest.raises(ModelError, match="layer 'ip', blob 0"):
        caffe.read_weights(path)


@pytest.mark.slow  # 5 s and 640 MB of disk
def test_a_short_text_may_ask_for_parameters_within_bounds(tmp_path: Path) -> None:
    param = "inner_product_param { num_output: 13000 weight_filler { type: 'gaussian' std: 0.01 } }"
    (tmp_path / "net.prototxt").write_text(net((1, 12_000), layer("y", "InnerProduct", param)))
    program = """if True:
        import sys, time
        sys.path.insert(0, sys.argv[1])
        from memory import resident
        from ebp_cuda.importers.caffe import import_file
        import_file("net.prototxt", None, "net.onnx")
        print(resident("VmHWM"), time.process_time())
    """
    command = [sys.executable, "-c", program, str(paths.TOOLS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    peak, seconds = map(float, done.stdout.split())
    assert peak < 1e9 and seconds < 10
    assert (tmp_path / "net.onnx").stat().st_size == pytest.approx(4 * 13_000 * 12_001, rel=1e-3)
    (tmp_path / "net.onnx").unlink()


def test_more_parameters_than_that_are_refused_by_number(tmp_path: Path) -> None:
    small = layer("a", "InnerProduct", "inner_product_param { num_output: 10 }")
    large = layer("b", "InnerProduct", "inner_product_param { num_output: 17000000 }", "a")
    (tmp_path / "net.prototxt").write_text(net((1, 3), small, large))
    with pytest.raises(ModelError, match=r"'b' \(InnerProduct\): with it, .* 187,000,040 parameters without weights"):
        caffe.to_onnx(tmp_path / "net.prototxt")


def test_ten_thousand_layers_are_imported_in_time(tmp_path: Path) -> None:
    layers = [layer(f"l{i}", "ReLU", bottoms="x", tops="x") for i in range(9_999)]
    (tmp_path / "net.prototxt").write_text(net(IMAGE, *layers))
    start = time.process_time()
    model = caffe.to_onnx(tmp_path / "net.prototxt")
    assert time.process_time() - start < 10 and len(model.graph.node) == 9_999


def test_a_blob_that_declares_terabytes(tmp_path: Path) -> None:
    weights = caffe.NetParameter()
    blob = weights.layer.add(name="conv").blobs.add(data=[1.0, 2.0])
    blob.shape.dim.extend([1 << 20, 1 << 20, 1 << 10])
    (tmp_path / "w").write_bytes(weights.SerializeToString())
    with pytest.raises(ModelError, match=r"layer 'conv', blob 0: shape .* the file holds 2"):
        caffe.read_weights(tmp_path / "w")


@pytest.mark.parametrize("trick", ["sparse", "external", "link"])
def test_hdf5_files_that_reach_for_more(tmp_path: Path, trick: str) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        if trick == "link":
            with h5py.File(tmp_path / "other.h5", "w") as other:
                other.create_dataset("data/conv/0", data=np.zeros(3))
            file["data"] = h5py.ExternalLink("other.h5", "/data")
        elif trick == "external":
            file.create_dataset("data/conv/0", (16,), "f4", external=[(str(tmp_path / "secret"), 0, 64)])
        else:
            file.create_dataset("data/conv/0", (1 << 38,), "f4", chunks=(1 << 16,))
    with pytest.raises(ModelError, match=r"w\.h5"):
        caffe.read_weights(tmp_path / "w.h5")


def external_model(folder: Path, **place: str) -> Path:
    model = caffe.to_onnx(BLOCK, MODEL / "inception_block.caffemodel")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "inner").mkdir()
    (folder / "inner" / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "inner" / "net.onnx"


@pytest.mark.parametrize(
    "place",
    [
        {"location": "../secret"}, {"location": "absolute"}, {"location": "link"}, {"location": "linked/secret"},
        {"location": ""}, {}, {"location": "."}, {"location": "a\0b"}, {"location": "missing"},
        {"location": "own", "offset": "-4"}, {"location": "own", "offset": "99999999999999"},
        {"location": "own", "length": "1000000000000"}, {"location": "own", "offset": "x"},
    ],
)  # fmt: skip
def test_external_data_comes_from_the_models_folder_only(tmp_path: Path, place: dict[str, str]) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1 << 20))
    if place.get("location") == "absolute":
        place = {"location": str(secret)}
    path = external_model(tmp_path, **place)
    (path.parent / "own").write_bytes(bytes(1 << 20))
    (path.parent / "link").symlink_to(secret)
    (path.parent / "linked").symlink_to(tmp_path)
    with pytest.raises(ModelError, match=r"net\.onnx: initializer"):
        load_onnx(path)


def test_external_data_of_the_folder_is_read(tmp_path: Path) -> None:
    wanted = load_onnx(caffe.to_onnx(BLOCK, MODEL / "inception_block.caffemodel")).nodes[0].params["weight"]
    path = external_model(tmp_path, location="own", offset="16")
    (path.parent / "own").write_bytes(bytes(16) + wanted.numpy().tobytes())
    assert bool((load_onnx(path).nodes[0].params["weight"] == wanted).all())
    with pytest.raises(ModelError, match="was not read from one"):
        load_onnx(onnx.load(path, load_external_data=False))


def test_weights_that_are_no_numbers_are_reported(tmp_path: Path) -> None:
    text = net((1, 2), layer("y", "InnerProduct", "inner_product_param { num_output: 2 }"))
    (tmp_path / "net.prototxt").write_text(text)
    caffe.write_caffemodel(tmp_path / "w", text, {"y": [np.full((2, 2), np.nan), np.zeros(2)]})
    report = caffe.ImportReport()
    caffe.to_onnx(tmp_path / "net.prototxt", tmp_path / "w", report=report)
    assert report.not_finite == ["y/0"]
