"""Caffe networks as ONNX give the same blobs in onnxruntime as the original computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.caffe_nets import MODEL, build, run, weights_of
from support.golden_data import GOLDEN, difference, floor, load, seeded_weights, under

from ebp_cuda.importers import caffe

TINY = sorted(path.stem for path in (GOLDEN / "tiny").glob("*.prototxt"))


@pytest.mark.parametrize("name", TINY)
def test_tiny_nets_give_the_original_blobs(tmp_path: Path, name: str) -> None:
    golden = load(f"tiny/{name}.npz")
    prototxt = GOLDEN / "tiny" / f"{name}.prototxt"
    model = build(tmp_path, prototxt.read_text(), weights_of(under(golden, "param/")))
    feeds = under(golden, "in/")
    got = {**run(model, feeds), **feeds}
    splits = {blob: value for value, blob in caffe.split_blob_names(caffe.read_net(prototxt)).values()}
    for blob, wanted in under(golden, "fwd/").items():
        value = got[splits.get(blob, blob)]
        assert value.shape == wanted.shape, blob
        assert difference(value, wanted) <= 2e-5, blob


@pytest.mark.parametrize(
    ("prototxt", "weights", "golden"),
    [
        ("inception_block", "inception_block.caffemodel", "inception_block"),
        ("inception_block", "inception_block.caffemodel.h5", "inception_block"),
        ("v1", "v1.caffemodel", "v1"),
        ("v1", "v1_upgraded.caffemodel", "v1"),
    ],
)
def test_files_that_caffe_wrote_give_its_blobs(prototxt: str, weights: str, golden: str) -> None:
    data = load(f"caffemodel/{golden}.npz")
    model = caffe.to_onnx(MODEL / f"{prototxt}.prototxt", MODEL / weights)
    onnx.checker.check_model(model, full_check=True)
    got = run(model, {"data": data["in/data"]})
    compared = [blob for blob in under(data, "fwd/") if blob in got]
    assert (
        len(compared) == len({t for x in caffe.network_layers(MODEL / f"{prototxt}.prototxt") for t in x["tops"]}) - 1
    )
    for blob in compared:
        assert difference(got[blob], data[f"fwd/{blob}"]) <= 2e-5, blob


def check_big(case: str, folder: Path) -> None:
    models = pytest.importorskip("ebp_cuda.models")
    text, golden, photos = models.prototxt(case), load(f"{case}.npz"), load("inputs.npz")
    (folder / "net.prototxt").write_text(text)
    caffe.write_caffemodel(folder / "net.caffemodel", text, seeded_weights(case))
    caffe.import_file(folder / "net.prototxt", folder / "net.caffemodel", folder / "net.onnx")
    onnx.checker.check_model(folder / "net.onnx", full_check=True)
    model = onnx.load(folder / "net.onnx")
    keys = [key for key in golden if "/fwd/" in key and key.endswith("/sub_val")]
    for image in sorted({key.split("/", 1)[0] for key in keys}):
        start, end = f"{image}/fwd/", "/sub_val"
        blobs = [key[len(start) : -len(end)] for key in keys if key.startswith(start)]
        got = run(model, {"data": photos[image]}, blobs)
        assert len(blobs) >= 5
        for blob in blobs:
            wanted, place = golden[f"{start}{blob}{end}"], golden[f"{start}{blob}/sub_idx"]
            worst = difference(got[blob].ravel()[place], wanted)
            assert worst <= max(2e-5, 4 * floor(f"{case}.npz", f"{start}{blob}{end}")), (image, blob)
            norm = float(np.linalg.norm(got[blob].ravel().astype(np.float64)))
            assert norm == pytest.approx(golden[f"{start}{blob}/stats"][4], rel=1e-5)


def test_googlenet_gives_the_original_blobs(tmp_path: Path) -> None:
    check_big("googlenet_coco", tmp_path)


@pytest.mark.slow
def test_vgg16_gives_the_original_blobs(tmp_path: Path) -> None:
    check_big("vgg16", tmp_path)
