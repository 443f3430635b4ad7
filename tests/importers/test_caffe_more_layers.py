"""Every further layer type of Caffe and its forks: ONNX Runtime and the engine against Caffe's formula in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from support.caffe_layer_cases import CASES, RESIZING, SHAPE, Case, inputs_of, prototxt
from support.caffe_nets import build, layer, net, random, run

from ebp_cuda.engine import Trace, forward, sweep
from ebp_cuda.engine.plan import Plan, Route
from ebp_cuda.errors import EBPError, InputError, ShapeError, UnsupportedError
from ebp_cuda.importers import caffe
from ebp_cuda.importers.onnx import load_onnx
from ebp_cuda.net import Net
from ebp_cuda.rules.relevance import Relevance


def sizes(case: Case) -> list[Sequence[tuple[int, ...]]]:
    """The shapes as imported, and a larger plane."""
    larger = [(*shape[:2], *[n + 2 if n > 1 else n for n in shape[2:]]) for shape in case.shapes]
    return [case.shapes] if case.fixed else [case.shapes, larger]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layer_is_caffes_formula(tmp_path: Path, case: Case) -> None:
    text = prototxt(case, case.shapes)
    model = build(tmp_path, text, {"y": case.weights} if case.weights else None)
    engine = Net(load_onnx(model))
    for shapes in sizes(case):
        feeds = inputs_of(case, shapes)
        wanted = case.wanted(*feeds.values(), *case.weights)
        got = run(model, feeds, ["y"])["y"]
        assert got.shape == wanted.shape
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=case.tolerance * scale)
        np.testing.assert_allclose(engine.forward(feeds)["y"].numpy(), got, rtol=0, atol=case.tolerance * scale)
        declared = dict(zip("xzw", shapes, strict=False))
        assert caffe.infer_shapes(caffe.parse_net(text), declared)["y"] == got.shape
    support = engine.explain_support()[-1]
    assert support["conserving"] and support["type"] == case.text.split('type: "')[1].split('"')[0]


def test_arg_max_of_equal_numbers_takes_the_last(tmp_path: Path) -> None:
    x = np.zeros((1, 4, 1, 2), np.float32)
    for rest, wanted in [("top_k: 2", [7, 6]), ("axis: 1", [3, 3])]:
        model = build(tmp_path, net(x.shape, layer("y", "ArgMax", f"argmax_param {{ {rest} }}")))
        assert run(model, {"x": x}, ["y"])["y"].ravel().tolist() == wanted
        assert Net(load_onnx(model)).forward(x)["y"].ravel().tolist() == wanted


def test_a_pooling_mask_leads_its_numbers_back(tmp_path: Path) -> None:
    """SegNet's pair: what a pooling found goes back to where it was."""
    x = np.abs(random(2, 3, 7, 6)) + 0.1
    text = net(
        x.shape,
        layer("p", "Pooling", "pooling_param { kernel_size: 2 stride: 2 }", tops="p mask"),
        layer("y", "Upsample", "upsample_param { scale: 2 pad_out_h: true }", "p mask"),
    )
    model = build(tmp_path, text)
    got = run(model, {"x": x}, ["y"])["y"]
    assert np.array_equal(got[got != 0], x[got != 0]) and np.count_nonzero(got) == 2 * 3 * 4 * 3
    np.testing.assert_array_equal(Net(load_onnx(model)).forward(x)["y"].numpy(), got)


def test_batch_reindex_runs_in_onnx_and_the_engine_says_why_not(tmp_path: Path) -> None:
    text = (
        'input: "x" input: "z" input_shape { dim: 3 dim: 2 } input_shape { dim: 4 } '
        f"layer {{ {layer('y', 'BatchReindex', bottoms='x z')} }}"
    )
    model = build(tmp_path, text)
    x, index = random(3, 2), np.float32([2, 0, 0, 1])
    np.testing.assert_array_equal(run(model, {"x": x, "z": index}, ["y"])["y"], x[[2, 0, 0, 1]])
    with pytest.raises(UnsupportedError, match=r"'y' \(BatchReindex\).*images of a batch"):
        load_onnx(model)


REFUSED = [
    ("ShuffleChannel", "shuffle_channel_param { group: 3 }", "x", "group 3 does not divide 4"),
    ("Tile", "tile_param { tiles: 0 }", "x", "tiles 0"),
    ("ArgMax", "argmax_param { top_k: 200 }", "x", "top_k 200 of 120"),
    ("Permute", "permute_param { order: 1 order: 1 }", "x", "order [1, 1]"),
    ("Embed", "embed_param { num_output: 3 }", "x", "input_dim 0"),
    ("Crop", "crop_param { offset: 3 }", "x x", "reach out of"),
    ("Crop", "crop_param { offset: 3 offset: 1 offset: 1 }", "x x", "3 offsets"),
    ("Interp", "interp_param { pad_beg: 1 }", "x", "pad_beg 1"),
    ("Interp", "interp_param { height: 3 }", "x", "width 0"),
    ("Interp", "interp_param { shrink_factor: 0 }", "x", "shrink_factor 0"),
    ("Upsample", "upsample_param { scale: 0 }", "x", "scale [0, 0]"),
    ("SPP", "spp_param { pyramid_height: 9 }", "x", "reaches its kernel"),
    ("SPP", "", "x", "pyramid_height 0"),
    ("BN", "bn_param { bn_mode: LEARN }", "x", "bn_mode LEARN"),
    ("Log", "log_param { base: 1 }", "x", "base 1"),
    ("Axpy", "", "x x x", "[N, C], x and x"),
    ("Scale", "scale_param { axis: 1 }", "x x", "no part of"),
]


@pytest.mark.parametrize("kind", ["PReLU", "ArgMax", "Normalize", "LRN", "Convolution", "Softmax", "BN", "BatchNorm"])
def test_a_single_number_has_no_axes(tmp_path: Path, kind: str) -> None:
    total = layer("s", "Reduction", "reduction_param { axis: 0 }")
    rest = "convolution_param { num_output: 1 kernel_size: 1 }" if kind == "Convolution" else ""
    with pytest.raises(EBPError, match=rf"layer 'y' \({kind}\): .*shape \[\]"):
        build(tmp_path, net(SHAPE, total, layer("y", kind, rest, "s")))


@pytest.mark.parametrize(("kind", "rest", "bottoms", "message"), REFUSED)
def test_what_does_not_fit_is_named(tmp_path: Path, kind: str, rest: str, bottoms: str, message: str) -> None:
    with pytest.raises(EBPError) as caught:
        build(tmp_path, net(SHAPE, layer("y", kind, rest, bottoms)))
    assert message in str(caught.value) and f"layer 'y' ({kind})" in str(caught.value)


def test_places_outside_the_plane_are_refused(tmp_path: Path) -> None:
    case = RESIZING[-1]
    engine = Net(load_onnx(build(tmp_path, prototxt(case, case.shapes))))
    feeds = inputs_of(case, case.shapes)
    feeds["z"][0, 0, 0, 0] = 21
    with pytest.raises(ShapeError, match="places 0 to 21"):
        engine.forward(feeds)


KEPT = [case for case in CASES if "upsample_h" not in case.text and "pad_out_h" not in case.text]


@pytest.mark.parametrize("case", KEPT, ids=str)
def test_conserving_rules_lose_nothing(tmp_path: Path, case: Case) -> None:
    """What the top holds arrives at the inputs, whatever the layer; an unpooling's empty places are the exception."""
    model = build(tmp_path, prototxt(case, case.shapes), {"y": case.weights} if case.weights else None)
    net = Net(load_onnx(model))
    plan, feeds = net.plan("conserving", dtype="fp64"), inputs_of(case, case.shapes)
    inputs = net.check_inputs(feeds)
    wanted = [name for name in feeds if plan.graph.ancestors(["y"]) & plan.graph.descendants([name])]
    route = plan.route(["y"], wanted)
    trace = forward(plan, inputs, {"y", *wanted, *route.keep}, route.nodes)
    seed = torch.from_numpy(np.random.default_rng(4).random(trace.shapes["y"]))
    reached = sweep_all(plan, trace, route, seed, wanted)
    assert reached == pytest.approx(float(seed.sum()), rel=1e-9)


def sweep_all(plan: Plan, trace: Trace, route: Route, seed: torch.Tensor, wanted: list[str]) -> float:
    """The probability that arrives at all of the `wanted` values together."""
    total = 0.0
    for value in wanted:
        try:
            total += float(sweep(plan, trace, route, {"y": Relevance(seed)}, [value])[value].p().sum())
        except InputError:  # it gives a shape or a gate, and gets nothing
            continue
    return total
