"""export_onnx: the recorded call as a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import helper

from ..errors import InputError, UnsupportedError
from ..files import check_writable
from ..importers.caffe.saving import save
from .lowering import TYPES, Lowering, key_of
from .operators import TABLE
from .tracing import Recorder

if TYPE_CHECKING:
    from ..api import ExcitationBackprop
    from ..engine.plan import Plan

OPSET = 18
"""The first whose reductions take their axes as inputs and whose ScatterElements adds up (from 16 on)."""
IR_VERSION = 8
TARGET = "target"
OUTPUTS = ("maps", "scores", "mass_left")
METADATA_PREFIX = "ebp_cuda.attribution."
_TRIED = (2, 3)
"""Batch sizes that must give one graph."""


def export_onnx(
    eb: ExcitationBackprop,
    path: str | Path,
    *,
    classes: int = 1,
    shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    batch: int | None = None,
) -> Path:
    """Writes what `eb.attribute` computes, forward pass and sweep, as one ONNX graph of standard operators (opset 18).

    Its inputs are the network's and `target`, int64 [N, classes]. Its outputs are `maps` [N, classes, h, w], `scores`
    [N, number of classes] and `mass_left` [N, classes], as in `Attribution`. Its metadata says the layer, the contrast
    layer and the rules, and holds labels and preprocessing where the network has them. Weights stand in it once: the
    parts max(W, 0) are computed from them, which runtimes do when they load the model.

    Args:
        eb: the method, at one layer, in "fp32" or "fp64".
        path: the file; weights of more than 1.9 GB go to PATH.data beside it.
        classes: K, the columns of `target`.
        shape: of the input [N, C, H, W] (a dict by name, where there are several), if the network leaves any of C, H
            and W open; N counts for nothing.
        batch: the number of images, fixed. None: any number.

    Returns:
        The path.

    Raises:
        UnsupportedError: what ONNX has no form for, with its layer; several layers, rounded precisions; a network that
            computes otherwise for other numbers of images, without `batch`.
        InputError: sizes that are not known, or a file that cannot be written.
    """
    path = check_writable(path)
    if classes < 1 or (batch is not None and batch < 1):
        raise InputError(f"export_onnx(classes={classes}, batch={batch}): wanted at least 1")
    plan, walk = eb.plan, eb.calls.walk
    if len(walk.values) != 1:
        raise UnsupportedError(f"export_onnx: {len(walk.values)} layers; wanted one, and a file for each")
    if plan.precision != "fp32":
        raise UnsupportedError(f"export_onnx: dtype='{plan.precision}'; wanted 'fp32' or 'fp64'")
    sizes = _sizes(plan, shape)
    recorder = Recorder(walk, eb.layer)
    lowered = [_lowered(recorder, sizes, images, classes) for images in ((batch,) if batch else _TRIED)]
    if not batch and lowered[0][0].outline != lowered[1][0].outline:
        raise UnsupportedError(
            f"export_onnx: {plan.graph.origin} computes otherwise for {_TRIED[1]} images than for {_TRIED[0]}; "
            "wanted batch=, a fixed number"
        )
    lowering, results = lowered[0]
    model = _model(eb, lowering, results, sizes, "N" if batch is None else batch, classes)
    save(model, lowering.constants, path)
    return path


def _sizes(plan: Plan, shape: Any) -> dict[str, tuple[int, ...]]:
    """By input: its shape without the number of images. Raises InputError where that is not known."""
    declared = plan.graph.inputs
    if isinstance(shape, Mapping) and set(shape) - set(declared):
        raise InputError(f"export_onnx: shapes for {', '.join(shape)}; the inputs are {', '.join(declared)}")
    given = shape if isinstance(shape, Mapping) else {} if shape is None else {next(iter(declared)): shape}
    sizes = {}
    for name, known in declared.items():
        wanted = tuple(given.get(name, known))
        fits = len(wanted) == len(known) and all(
            n is None or n == m for n, m in zip(known[1:], wanted[1:], strict=True)
        )
        if not fits or any(n is None or n < 1 for n in wanted[1:]):
            shown = ["N", *("?" if n is None else n for n in known[1:])]
            raise InputError(f"export_onnx: input '{name}' is {shown}, shape={given.get(name)}; wanted every size")
        sizes[name] = tuple(int(n) for n in wanted[1:] if n is not None)
    return sizes


def _lowered(
    recorder: Recorder, sizes: Mapping[str, tuple[int, ...]], images: int, classes: int
) -> tuple[Lowering, tuple[Any, ...]]:
    recorded = recorder.record({name: (images, *size) for name, size in sizes.items()}, classes)
    lowering = Lowering(TABLE, recorder.used.first, dict(_positive_parts(recorder.plan)))
    return lowering, lowering.run(recorded, [*sizes, TARGET])


def _positive_parts(plan: Plan) -> Iterator[tuple[tuple[Any, ...], tuple[str, torch.Tensor]]]:
    """The tensors max(W, 0) and max(-W, 0) of every layer, and how they come from W."""
    for index in range(len(plan.graph.nodes)):
        linear = plan.linear(index)
        if linear is not None:
            for sign, ops in ((1, "Relu"), (-1, "Neg Relu")):
                yield key_of(linear.positive(sign).part.tensor()), (ops, linear.weight)


def _model(
    eb: ExcitationBackprop,
    lowering: Lowering,
    results: Sequence[Any],
    sizes: Mapping[str, tuple[int, ...]],
    images: int | str,
    classes: int,
) -> onnx.ModelProto:
    kind = TYPES[eb.plan.dtype]
    inputs = [helper.make_tensor_value_info(name, kind, [images, *size]) for name, size in sizes.items()]
    inputs.append(helper.make_tensor_value_info(TARGET, TYPES[torch.int64], [images, classes]))
    outputs = []
    for name, result in zip(OUTPUTS, results, strict=True):
        lowering.nodes.append(helper.make_node("Identity", [lowering.name(result)], [name], name))
        outputs.append(helper.make_tensor_value_info(name, TYPES[result.dtype], [images, *result.shape[1:]]))
    initializers = [
        onnx.TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        for name, array in lowering.constants.items()
    ]
    graph = helper.make_graph(lowering.nodes, "attribution", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ebp_cuda")
    helper.set_model_props(model, _metadata(eb))
    return model


def _metadata(eb: ExcitationBackprop) -> dict[str, str]:
    """By name, as JSON."""
    setting = eb.setting
    described = {
        "layer": setting.layer,
        "contrast_layer": setting.contrast_layer,
        "rules": setting.rules,
        "labels": eb.net.labels,
        "preprocess": eb.net.preprocess,
    }
    return {METADATA_PREFIX + key: json.dumps(value) for key, value in described.items() if value is not None}
