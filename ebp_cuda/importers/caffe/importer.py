"""prototxt + caffemodel -> ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ...errors import ModelError, UnsupportedError, nearest_names
from ...files import check_writable
from .layers import KINDS
from .net import DATA_TYPES, CaffeNet, listing, read_net, stated_preprocess
from .parameters import ImportReport, parameters
from .saving import EXTERNAL_LIMIT, save
from .shapes import Shapes, free_axes, infer_shapes, site
from .writer import Dims, OnnxWriter


def to_onnx(
    prototxt: str | Path,
    caffemodel: str | Path | None = None,
    *,
    phase: str = "TEST",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    labels: Sequence[str] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    allow_missing: bool = False,
    seed: int = 0,
    report: ImportReport | None = None,
) -> onnx.ModelProto:
    """The network of a Caffe prototxt, with its weights, as an ONNX model.

    caffemodel: binary or HDF5 weights; None fills the parameters by the prototxt's fillers from `seed` (a weight
        without one is drawn as "msra" does, a BatchNorm starts as mean 0 and variance 1).
    phase: "TEST" or "TRAIN". It decides which layers the include and exclude rules keep, and nothing else: dropout
        is the identity and BatchNorm uses its stored statistics in both.
    input_shapes: input blob -> shape, over what the file declares.
    labels, preprocess: stored as metadata "ebp_cuda.labels" and "ebp_cuda.preprocess". Without `preprocess`, what
        the data layer of a training prototxt says about mean, scale and crop is stored.
    allow_missing: let layers without weights in the file keep filler values, instead of refusing.
    report: filled with what was left out, missing, unused or shared.

    Every blob is a value of its name; what an in-place layer overwrites is BLOB@LAYER with the layer that wrote it. The
    batch is a free axis of every input, and so are height and width unless a parameter's shape depends on them.

    Raises ModelError (unreadable or inconsistent files, weights that do not fit: the first such layer is named),
    ShapeError (shapes that do not fit together), UnsupportedError (a layer type or setting without a translation).
    """
    net = read_net(prototxt, phase)
    _check_types(net)
    report = ImportReport() if report is None else report
    report.dropped += [layer.name for layer in net.layers if layer.dropped]
    inputs = _input_shapes(net, input_shapes)
    shapes = infer_shapes(net, inputs)
    free = free_axes(net, inputs)
    writer = OnnxWriter({*shapes})
    _emit(net, shapes, parameters(net, shapes, caffemodel, allow_missing, seed, report), writer)
    return writer.model(
        net.name,
        _input_dims(inputs, free),
        {value: _output_dims(shapes[value], free[value], next(iter(inputs.values()))[0]) for value in net.outputs()},
        _metadata(net, labels, preprocess),
    )


def import_file(
    prototxt: str | Path,
    caffemodel: str | Path | None,
    out_path: str | Path,
    *,
    external_limit: int = EXTERNAL_LIMIT,
    **options: Any,
) -> ImportReport:
    """`to_onnx` into a file, which appears under its name only when it is complete.

    With more than `external_limit` bytes of weights they go into OUT_PATH + ".data" beside it. `options` as in
    `to_onnx`. Raises what `to_onnx` raises, and InputError where `out_path` cannot be written.
    """
    check_writable(out_path)
    report = options.pop("report", None) or ImportReport()
    save(to_onnx(prototxt, caffemodel, report=report, **options), out_path, external_limit)
    return report


def _check_types(net: CaffeNet) -> None:
    unknown = [layer for layer in net.kept() if layer.type not in KINDS]
    if unknown:
        listed = ", ".join(f"'{layer.name}' ({layer.type})" for layer in unknown)
        raise UnsupportedError(f"{net.origin}: no translation for {listed}{nearest_names(unknown[0].type, KINDS)}")
    for layer in net.kept():
        kind = KINDS[layer.type]
        for what, names, (least, most) in (("bottom", layer.bottoms, kind.bottoms), ("top", layer.tops, kind.tops)):
            if len(names) < least:
                raise ModelError(f"{net.where(layer)}: {len(names)} {what}s; wanted at least {least}")
            if len(names) > most:
                raise ModelError(f"{net.where(layer)}: {len(names)} {what}s; wanted at most {most}")
    if not net.kept():
        raise ModelError(f"{net.origin}: no layer is left in phase {net.phase}")


def _input_shapes(net: CaffeNet, given: Mapping[str, Sequence[int]] | None) -> Shapes:
    given = dict(given or {})
    for name in given:
        if name not in net.inputs:
            raise ModelError(f"{net.origin}: input_shapes names '{name}'; inputs are {', '.join(net.inputs) or 'none'}")
    if not net.inputs:
        raise ModelError(f"{net.origin}: the network has no input in phase {net.phase}")
    shapes: Shapes = {}
    for value, declared in net.inputs.items():
        shape = given.get(value, declared)
        if not shape or min(shape) < 1:
            got = "no shape" if shape is None else f"shape {list(shape)}"
            raise ModelError(
                f"{net.origin}: input '{value}' has {got}; wanted one: input_shapes={{'{value}': [1, 3, 224, 224]}}"
            )
        shapes[value] = tuple(int(n) for n in shape)
    return shapes


def _input_dims(inputs: Shapes, free: Mapping[str, set[int]]) -> dict[str, Dims]:
    """Declared dims of the inputs. Open ones are N, H, W; an input of another size has symbols of its own."""
    symbols: dict[tuple[int, int], str] = {}
    found: dict[str, Dims] = {}
    for value, shape in inputs.items():
        dims: list[int | str | None] = []
        for axis, length in enumerate(shape):
            letter = {0: "N", 2: "H", 3: "W"}.get(axis, f"D{axis}")
            known = any(other == axis for other, _ in symbols)
            if axis in free[value]:
                dims.append(symbols.setdefault((axis, length), f"{letter}_{value}" if known else letter))
            else:
                dims.append(length)
        found[value] = dims
    return found


def _output_dims(shape: tuple[int, ...], free: set[int], batch: int) -> Dims:
    """Declared dims of an output: the batch is N, other open axes have no name."""
    dims: list[int | str | None] = [None if axis in free else length for axis, length in enumerate(shape)]
    return ["N", *dims[1:]] if 0 in free and shape[0] == batch else dims


def _emit(net: CaffeNet, shapes: Shapes, arrays: dict[int, list[np.ndarray]], writer: OnnxWriter) -> None:
    for layer in net.kept():
        KINDS[layer.type].emit(site(net, layer, shapes), writer, arrays.get(layer.index, []))


def _metadata(net: CaffeNet, labels: Sequence[str] | None, preprocess: Mapping[str, Any] | None) -> dict[str, Any]:
    layers = [layer for layer in net.layers if not layer.dropped and layer.type not in DATA_TYPES]
    names = {blob: values for blob, values in net.versions.items() if _computed(net, values)}
    for layer in net.kept():
        names.setdefault(layer.name, layer.outputs[:1])
    return {
        "ebp_cuda.names": names,
        "ebp_cuda.layers": listing(layers),
        "ebp_cuda.phase": net.phase,
        "ebp_cuda.labels": None if labels is None else list(labels),
        "ebp_cuda.preprocess": stated_preprocess(net) if preprocess is None else dict(preprocess),
    }


def _computed(net: CaffeNet, values: Sequence[str]) -> bool:
    kept = {value for layer in net.kept() for value in layer.outputs}
    return any(value in kept or value in net.inputs for value in values)
