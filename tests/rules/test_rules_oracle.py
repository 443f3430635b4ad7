"""The oracle itself against what the original measured: if it is right, so is what agrees with it."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import sweep as oracle
from support.golden_data import GOLDEN, difference, floor, load, under

from ebp_cuda.graph import Graph
from ebp_cuda.importers.caffe import to_onnx, write_caffemodel
from ebp_cuda.importers.onnx import load_onnx

NAMES = sorted(path.stem for path in (GOLDEN / "tiny").glob("*.npz") if path.stem != "eltwise_prod_unstable")
TOLERANCE = 2e-5


@pytest.fixture
def measured(request, tmp_path) -> tuple[str, dict[str, np.ndarray], Graph]:
    name = request.param
    data, prototxt = load(f"tiny/{name}.npz"), GOLDEN / "tiny" / f"{name}.prototxt"
    layers: dict[str, list[np.ndarray]] = {}
    for key, blob in under(data, "param/").items():
        layers.setdefault(key.rsplit("/", 1)[0], []).append(blob)
    write_caffemodel(tmp_path / "w.caffemodel", prototxt.read_text(), layers)
    return name, data, load_onnx(to_onnx(prototxt, tmp_path / "w.caffemodel"))


def check(name: str, key: str, got: np.ndarray, wanted: np.ndarray) -> None:
    allowed = max(TOLERANCE, 4 * floor(f"tiny/{name}.npz", key))
    assert difference(got.reshape(wanted.shape), wanted) <= allowed, key


@pytest.mark.parametrize("measured", NAMES, indirect=True)
def test_oracle_gives_the_originals_blobs_and_diffs(measured) -> None:
    name, data, graph = measured
    values = oracle.forward(graph, under(data, "in/"))
    blobs = [blob for blob in under(data, "fwd/") if blob in graph.names or blob in values]
    for blob in blobs:
        check(name, f"fwd/{blob}", values[graph.resolve(blob)[-1]], data[f"fwd/{blob}"])
    for run in "AB":
        seeds = {graph.resolve(blob)[-1]: diff.astype(float) for blob, diff in under(data, f"{run}/top_diff/").items()}
        ps = oracle.relevance(graph, values, seeds)
        written = [blob for blob in blobs if not np.all(data[f"B/diff/{blob}"] == 7.0)]
        assert len(written) >= 2
        for blob in written:
            check(name, f"{run}/diff/{blob}", ps[graph.resolve(blob)[0]], data[f"{run}/diff/{blob}"])


@pytest.mark.parametrize("measured", ["mini_inception", "mini_vgg"], indirect=True)
def test_oracle_gives_the_originals_contrast(measured) -> None:
    name, data, graph = measured
    ((top, seed),) = under(data, "C/top_diff/").items()
    value = graph.resolve(top)[-1]
    second = graph.nodes[graph.producer[value]].inputs[0]
    values = oracle.forward(graph, under(data, "in/"))
    assert difference(oracle.one_hot(values[value], [int(data["C/tag"])]), seed) < 1e-6
    for blob in ("data", "c0" if name == "mini_inception" else "c1"):
        got = oracle.attribute(graph, values, value, seed.astype(float), graph.resolve(blob)[0], second)
        check(name, f"C/diff/{blob}", got, data[f"C/diff/{blob}"])
