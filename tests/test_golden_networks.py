"""GoogLeNet (COCO) and VGG16 with the original's numbers: scores, MWP, c-MWP and the contrast's halves."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from golden_data import difference, floor, load, seeded_weights, under

from ebp_cuda import engine, models
from ebp_cuda.importers.caffe import to_onnx, write_caffemodel
from ebp_cuda.importers.onnx import load_onnx
from ebp_cuda.net import Net
from ebp_cuda.relevance import Relevance

CASES = {"googlenet_coco": ("loss3/classifier", "pool5/7x7_s1"), "vgg16": ("fc8", "fc7")}
IMAGES = {case: sorted({key.split("/")[0] for key in load(f"{case}.npz") if "/scores" in key}) for case in CASES}
RUNS = [(case, image) for case in CASES for image in IMAGES[case]]


@pytest.fixture(scope="module")
def net(request, tmp_path_factory):
    case = request.param
    folder = tmp_path_factory.mktemp(case)
    (folder / "deploy.prototxt").write_text(models.prototxt(case))
    write_caffemodel(folder / "w.caffemodel", models.prototxt(case), seeded_weights(case))
    return Net(load_onnx(to_onnx(folder / "deploy.prototxt", folder / "w.caffemodel")))


@cache
def photos() -> dict[str, np.ndarray]:
    return load("inputs.npz")


def check(case: str, key: str, got: np.ndarray) -> None:
    wanted = load(f"{case}.npz")[key]
    allowed = max(1e-4, 4 * floor(f"{case}.npz", key))
    assert difference(got.reshape(wanted.shape), wanted) <= allowed, key
    if got.size > 2 and wanted.std() > 0:
        assert np.corrcoef(got.reshape(-1), wanted.reshape(-1))[0, 1] > 0.9999 or allowed > 1e-2, key


def check_blob(case: str, key: str, p: np.ndarray) -> None:
    """A stored map and up to 2000 entries of the full diff."""
    check(case, f"{key}/map_raw", p.sum(0))
    check(case, f"{key}/map", np.maximum(p.sum(0), 0))
    check(case, f"{key}/sub_val", p.reshape(-1)[load(f"{case}.npz")[f"{key}/sub_idx"]])


def stored_layers(data: dict[str, np.ndarray], image: str) -> list[str]:
    """The layers at which the original's maps were kept."""
    keys = (key.split("/mwp/") for key in under(data, f"{image}/tag") if "/mwp/" in key and key.endswith("/map"))
    return sorted({layer.removesuffix("/map") for _, layer in keys})


@pytest.mark.parametrize(("net", "image"), RUNS, indirect=["net"], scope="module")
def test_maps_are_the_originals(net, image, request):
    case = request.node.callspec.params["net"]
    data, (top, second) = load(f"{case}.npz"), CASES[case]
    plan, graph = net.plan("caffe"), net.graph
    values = {layer: graph.resolve(layer)[0] for layer in stored_layers(data, image)}
    contrast, top_value = graph.resolve(second)[0], graph.resolve(top)[-1]
    route = plan.route([top_value], list(values.values()))
    kept = {key.rsplit("/", 1)[0] for key in under(data, f"{image}/fwd/")}
    keep = route.keep | {graph.resolve(blob)[-1] for blob in kept} | {top_value}
    trace = engine.forward(plan, {"data": torch.from_numpy(photos()[image])}, keep, route.nodes)
    check(case, f"{image}/scores", trace.values[top_value][0].numpy())
    for blob in kept:
        got = trace.values[graph.resolve(blob)[-1]][0].contiguous().numpy().reshape(-1)
        check(case, f"{image}/fwd/{blob}/sub_val", got[data[f"{image}/fwd/{blob}/sub_idx"]])
    for tag in data[f"{image}/tags"]:
        key = f"{image}/tag{tag}"
        seed = Relevance(torch.from_numpy(data[f"{key}/top_diff"][None]))
        found = engine.sweep(plan, trace, route, {top_value: seed}, list(values.values()))
        for layer, value in values.items():
            check_blob(case, f"{key}/mwp/{layer}", found[value].p()[0].contiguous().numpy())
        upper = plan.route([top_value], [contrast])
        for half, negated in (("pos", ()), ("neg", plan.classifiers(top_value))):
            got = engine.sweep(plan, trace, upper, {top_value: seed}, [contrast], negated=negated)[contrast]
            check(case, f"{key}/cmwp/{half}_second", got.p()[0].numpy())
        found = engine.contrastive_sweep(plan, trace, top_value, seed, contrast, list(values.values()))
        for layer, value in values.items():
            check_blob(case, f"{key}/cmwp/{layer}", found[value].p()[0].contiguous().numpy())
