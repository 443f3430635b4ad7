"""GoogLeNet (COCO) and VGG16 with the original's numbers: scores, MWP, c-MWP and the contrast's halves.

A map may be as far from the original as max(1e-4, 4 x its noise floor), the floor being the original against itself
on another BLAS kernel. Two effects are outside that floor, and are judged by what they are:

* A contrast that keeps 8e-5 of the mass (VGG16) magnifies the original's own rounding. Float64 shows how far the
  original is from exact arithmetic; we may be twice as far from it.
* A near-tie in a max pool that another summation order decides differently moves the mass of one winner by a pixel:
  far by the maximum, nothing by the sum. Such a map must agree to 1e-4 in relative L1.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from oracle.ops import DEVICES
from support.golden_data import difference, floor, load, seeded_weights, under

from ebp_cuda import engine, models
from ebp_cuda.engine import Trace
from ebp_cuda.engine.plan import Plan
from ebp_cuda.importers.caffe import to_onnx, write_caffemodel
from ebp_cuda.importers.onnx import load_onnx
from ebp_cuda.net import Net
from ebp_cuda.rules.relevance import Relevance

CASES = {"googlenet_coco": ("loss3/classifier", "pool5/7x7_s1"), "vgg16": ("fc8", "fc7")}
IMAGES = {case: sorted({key.split("/")[0] for key in load(f"{case}.npz") if "/scores" in key}) for case in CASES}
RUNS = [(case, image) for case in CASES for image in IMAGES[case]]
SHIFTED_FLOOR = 1e-2
"""Above this floor the original's winners differ between its own builds, and correlation says nothing."""


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


class Run:
    """One image through one network in one dtype, and the sweeps that the original's numbers need."""

    def __init__(self, net: Net, case: str, image: str, dtype: str, device: str = "cpu") -> None:
        self.data, self.image = load(f"{case}.npz"), image
        self.plan: Plan = net.plan("caffe", device, dtype)
        graph, (top, second) = net.graph, CASES[case]
        self.top, self.contrast = graph.resolve(top)[-1], graph.resolve(second)[0]
        self.values = {layer: graph.resolve(layer)[0] for layer in self.stored_layers()}
        self.blobs = {key.rsplit("/", 1)[0] for key in under(self.data, f"{image}/fwd/")}
        self.route = self.plan.route([self.top], list(self.values.values()))
        keep = self.route.keep | {graph.resolve(blob)[-1] for blob in self.blobs} | {self.top}
        inputs = {"data": torch.from_numpy(photos()[image])}
        self.trace: Trace = engine.forward(self.plan, inputs, keep, self.route.nodes)

    def stored_layers(self) -> list[str]:
        keys = (key.split("/mwp/") for key in under(self.data, f"{self.image}/tag") if key.endswith("/map"))
        return sorted({layer.removesuffix("/map") for _, *found in keys for layer in found})

    def activation(self, blob: str) -> np.ndarray:
        return self.trace.values[self.plan.graph.resolve(blob)[-1]][0].contiguous().cpu().numpy()

    def seed(self, tag: int) -> Relevance:
        diff = torch.from_numpy(self.data[f"{self.image}/tag{tag}/top_diff"][None])
        return Relevance(diff.to(self.plan.device, self.plan.dtype))

    def halves(self, tag: int) -> dict[str, np.ndarray]:
        """{"pos_second", "neg_second"}: the contrast layer's relevance under W and under -W."""
        upper, seeds = self.plan.route([self.top], [self.contrast]), {self.top: self.seed(tag)}
        negated = {"pos_second": frozenset(), "neg_second": self.plan.classifiers(self.top)}
        found = {
            half: engine.sweep(self.plan, self.trace, upper, seeds, [self.contrast], negated=layers)
            for half, layers in negated.items()
        }
        return {half: relevance[self.contrast].p()[0].cpu().numpy() for half, relevance in found.items()}

    def relevance(self, tag: int) -> dict[str, np.ndarray]:
        """{"mwp/pool4": [C, h, w], "cmwp/pool4": ...} at every stored layer."""
        seed, wanted = self.seed(tag), list(self.values.values())
        plain = engine.sweep(self.plan, self.trace, self.route, {self.top: seed}, wanted)
        contrastive = engine.contrastive_sweep(self.plan, self.trace, self.top, seed, self.contrast, wanted)
        return {
            f"{kind}/{layer}": found[value].p()[0].contiguous().cpu().numpy()
            for kind, found in (("mwp", plain), ("cmwp", contrastive))
            for layer, value in self.values.items()
        }


def check(case: str, key: str, got: np.ndarray, exact: np.ndarray | None = None) -> None:
    wanted = load(f"{case}.npz")[key]
    got = got.reshape(wanted.shape).astype(np.float64)
    noise = floor(f"{case}.npz", key)
    allowed = max(1e-4, 4 * noise, 0 if exact is None else 2 * difference(exact.reshape(wanted.shape), wanted))
    relative_l1 = np.abs(got - wanted).sum() / np.abs(wanted).sum()
    assert difference(got, wanted) <= allowed or (exact is not None and relative_l1 <= 1e-4), key
    if exact is not None and noise < SHIFTED_FLOOR:
        assert np.corrcoef(got.reshape(-1), wanted.reshape(-1))[0, 1] > 0.9999, key


def check_blob(case: str, key: str, p: np.ndarray, exact: np.ndarray) -> None:
    """A stored map, its positive part, and up to 2000 entries of the full diff."""
    index = load(f"{case}.npz")[f"{key}/sub_idx"]
    check(case, f"{key}/map_raw", p.sum(0), exact.sum(0))
    check(case, f"{key}/map", p.sum(0).clip(min=0), exact.sum(0).clip(min=0))
    check(case, f"{key}/sub_val", p.reshape(-1)[index], exact.reshape(-1)[index])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("net", "image"), RUNS, indirect=["net"], scope="module")
def test_maps_are_the_originals(net, image, device, request):
    case = request.node.callspec.params["net"]
    run, exact = Run(net, case, image, "fp32", device), Run(net, case, image, "fp64")
    assert len(run.values) >= 3
    check(case, f"{image}/scores", run.activation(CASES[case][0]))
    for blob in run.blobs:
        key = f"{image}/fwd/{blob}"
        check(case, f"{key}/sub_val", run.activation(blob).reshape(-1)[run.data[f"{key}/sub_idx"]])
    for tag in run.data[f"{image}/tags"]:
        key = f"{image}/tag{tag}"
        for half, p in run.halves(tag).items():
            check(case, f"{key}/cmwp/{half}", p)
        found, reference = run.relevance(tag), exact.relevance(tag)
        for name, p in found.items():
            check_blob(case, f"{key}/{name}", p, reference[name])
