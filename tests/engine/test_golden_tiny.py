"""The small nets of the original: every forward blob and every diff, rule set "caffe", on every device there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle.ops import DEVICES
from support.golden_data import GOLDEN, difference, floor, load, under

from ebp_cuda import UnsupportedError, engine
from ebp_cuda.importers.caffe import read_net, split_blob_names, to_onnx, write_caffemodel
from ebp_cuda.importers.onnx import load_onnx
from ebp_cuda.net import Net
from ebp_cuda.rules.relevance import Relevance

NAMES = sorted(path.stem for path in (GOLDEN / "tiny").glob("*.npz"))
UNSUPPORTED = "eltwise_prod_unstable"
TOLERANCE = 2e-5


@pytest.fixture
def network(request, tmp_path):
    """(name, golden arrays, Net with the golden parameters, prototxt)."""
    name = request.param
    data, prototxt = load(f"tiny/{name}.npz"), GOLDEN / "tiny" / f"{name}.prototxt"
    layers: dict[str, list[np.ndarray]] = {}
    for key, blob in under(data, "param/").items():
        layers.setdefault(key.rsplit("/", 1)[0], []).append(blob)
    weights = tmp_path / "weights.caffemodel"
    write_caffemodel(weights, prototxt.read_text(), layers)
    return name, data, Net(load_onnx(to_onnx(prototxt, weights))), prototxt


def allowed(name: str, key: str) -> float:
    return max(TOLERANCE, 4 * floor(f"tiny/{name}.npz", key))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("network", NAMES, indirect=True)
def test_forward_blobs_are_the_originals(network, device):
    name, data, net, prototxt = network
    splits = {blob: value for value, blob in split_blob_names(read_net(prototxt)).values()}
    for blob, wanted in under(data, "fwd/").items():
        value = splits.get(blob, blob)
        got = net.forward(under(data, "in/"), outputs=[value], device=device)[value].cpu().numpy()
        assert got.shape == wanted.shape
        assert difference(got, wanted) <= allowed(name, f"fwd/{blob}"), blob


def seed(diff: np.ndarray, device: str) -> Relevance:
    return Relevance(torch.from_numpy(diff).to(device))


def swept(net: Net, data: dict[str, np.ndarray], run: str, device: str) -> tuple[dict[str, Relevance], dict]:
    """Relevance of every value under the top diffs of a run, and what each consumer handed to its inputs."""
    plan, graph = net.plan("caffe", device), net.graph
    seeds = {graph.resolve(blob)[-1]: seed(diff, device) for blob, diff in under(data, f"{run}/top_diff/").items()}
    reached = [value for node in graph.nodes for value in (*node.inputs, *node.outputs)]
    wanted = [v for v in dict.fromkeys(reached) if v not in seeds and graph.descendants([v]) & graph.ancestors(seeds)]
    route = plan.route(list(seeds), wanted)
    inputs = {k: torch.from_numpy(v) for k, v in under(data, "in/").items()}
    trace = engine.forward(plan, inputs, route.keep | set(seeds), route.nodes)
    edges: dict = {}
    found = engine.sweep(plan, trace, route, seeds, wanted, edges=edges)
    return {**seeds, **found}, edges


@pytest.mark.parametrize("network", [name for name in NAMES if name != UNSUPPORTED], indirect=True)
@pytest.mark.parametrize("run", ["A", "B"])
@pytest.mark.parametrize("device", DEVICES)
def test_diffs_are_the_originals(network, run, device):
    name, data, net, prototxt = network
    found, edges = swept(net, data, run, device)
    of_split = {blob: edge for edge, (_, blob) in split_blob_names(read_net(prototxt)).items()}
    places = {node.name: index for index, node in enumerate(net.graph.nodes)}
    compared = 0
    for blob, wanted in under(data, f"{run}/diff/").items():
        if np.all(data[f"B/diff/{blob}"] == 7.0):
            continue  # the original never writes this diff
        if blob in of_split:
            layer, position = of_split[blob]
            got = edges[places[layer], position].p()
        else:
            got = found[net.graph.resolve(blob)[0]].p()
        assert difference(got.cpu().numpy().reshape(wanted.shape), wanted) <= allowed(name, f"{run}/diff/{blob}"), blob
        compared += 1
    assert compared >= 1


@pytest.mark.parametrize("network", [UNSUPPORTED], indirect=True)
def test_product_has_no_rule_in_the_original(network):
    _, data, net, _ = network
    with pytest.raises(UnsupportedError, match=r"'caffe' rule for .*Eltwise"):
        swept(net, data, "A", "cpu")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("network", ["mini_inception", "mini_vgg"], indirect=True)
def test_contrastive_sequence_is_the_originals(network, device):
    name, data, net, _ = network
    plan, graph = net.plan("caffe", device), net.graph
    ((top, diff),) = under(data, "C/top_diff/").items()
    (second,) = graph.nodes[graph.producer[graph.resolve(top)[0]]].inputs
    contrast = next(values[0] for values in graph.names.values() if second in values)
    seeds = {graph.resolve(top)[-1]: seed(diff, device)}
    inputs = {k: torch.from_numpy(v) for k, v in under(data, "in/").items()}
    route = plan.route(list(seeds), ["data"])
    trace = engine.forward(plan, inputs, route.keep | set(seeds), route.nodes)
    upper = plan.route(list(seeds), [second])
    for half, negated in (("pos", ()), ("neg", plan.classifiers(top))):
        got = engine.sweep(plan, trace, upper, seeds, [second], negated=negated)[second].p().cpu().numpy()
        assert difference(got, data[f"C/{half}_second"]) <= allowed(name, f"C/{half}_second")
    blobs = [blob for blob in under(data, "C/diff/") if "_split_" not in blob and blob != top]
    values = {blob: graph.resolve(blob)[0] for blob in blobs}
    above = graph.ancestors([contrast])
    values = {b: v for b, v in values.items() if v == contrast or graph.descendants([v]) & above}
    assert len(values) > 3
    top_value = graph.resolve(top)[-1]
    got_all = engine.contrastive_sweep(plan, trace, top_value, seeds[top_value], contrast, list(values.values()))
    for blob, value in values.items():
        wanted = data[f"C/diff/{blob}"]
        assert difference(got_all[value].p().cpu().numpy(), wanted) <= allowed(name, f"C/diff/{blob}"), blob
