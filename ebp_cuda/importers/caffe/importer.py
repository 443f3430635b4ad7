"""prototxt + caffemodel -> ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ...errors import ModelError
from ...files import check_writable
from .checking import check, takes_batch_statistics
from .data_layers import stated_preprocess
from .layers import LAYER_TYPES
from .net import CaffeNet, listing, read_net
from .parameters import ImportReport, parameters
from .reading import read_weights
from .saving import EXTERNAL_LIMIT, save
from .shapes import Shapes, context_of, free_axes, infer_shapes
from .text import Unknown
from .writer import Dims, OnnxWriter, fill_in


@dataclass(frozen=True)
class ImportOptions:
    """How a Caffe network is imported."""

    phase: str = "TEST"
    """"TEST" or "TRAIN". It decides which layers the include and exclude rules keep, and what BatchNorm layers take
    that do not say; dropout is the identity in both."""
    input_shapes: Mapping[str, Sequence[int]] | None = None
    """Input blob -> shape, over what the file declares."""
    labels: Sequence[str] | None = None
    """Class names, stored as metadata "ebp_cuda.labels"."""
    preprocess: Mapping[str, Any] | None = None
    """Stored as metadata "ebp_cuda.preprocess". None: what the data layer of a training prototxt says about mean, scale
    and crop."""
    outputs: Sequence[str] | None = None
    """Names of blobs or layers; only what they depend on is imported. They become the model's outputs, in place of
    everything that nothing reads."""
    ignore_unknown: bool = False
    """Import layers with fields that the schema does not know as if these were not there. Such a field may change what
    a layer computes; by default it is a refusal. Fields about training are never one."""
    allow_missing: bool = False
    """Let layers without weights in the file keep filler values, instead of refusing."""
    stored_statistics: bool = False
    """BatchNorm layers that ask for the statistics of the batch, which makes its images depend on one another, take
    their stored ones; by default they are a refusal."""
    seed: int = 0
    """Of the fillers that make up parameters without weights."""


@dataclass(frozen=True)
class Imported:
    """A network as ONNX."""

    model: onnx.ModelProto
    """Its initializers have names, types and shapes, and no numbers."""
    tensors: dict[str, np.ndarray]
    """The numbers of the initializers by name, many of them views of the weights file."""
    report: ImportReport
    """What was left out, unknown, missing, unused or shared."""

    def whole(self) -> onnx.ModelProto:
        """The model with its numbers, which leave `tensors`: a second copy of the weights while it is made."""
        return fill_in(self.model, self.tensors)


def import_net(
    prototxt: str | Path,
    caffemodel: str | Path | None = None,
    options: ImportOptions | None = None,
    *,
    done: Callable[[float], None] | None = None,
) -> Imported:
    """The network of a Caffe prototxt, with its weights, as an ONNX model.

    Every blob is a value of its name; what an in-place layer overwrites is BLOB@LAYER with the layer that wrote it. The
    batch is a free axis of every input, and so are height and width unless a parameter's shape depends on them.

    Args:
        prototxt: the description; any format that Caffe has had.
        caffemodel: binary or HDF5 weights; None fills the parameters by the prototxt's fillers (a weight without one is
            drawn as "msra" does, a BatchNorm starts as mean 0 and variance 1).
        options: see `ImportOptions`.
        done: called with the part of the work that a step was, 1 in all.

    Raises:
        ModelError: unreadable or inconsistent files, weights that do not fit: the first such layer is named.
        ShapeError: shapes that do not fit together.
        InputError: outputs that there are not.
        UnsupportedError: settings without a translation; layer types and fields that are unknown, all of them with
            their lines.
    """
    return _imported(prototxt, caffemodel, options or ImportOptions(), ImportReport(), done)


def to_onnx(
    prototxt: str | Path,
    caffemodel: str | Path | None = None,
    *,
    report: ImportReport | None = None,
    done: Callable[[float], None] | None = None,
    **options: Any,
) -> onnx.ModelProto:
    """`import_net` as one message that holds its numbers. options: the fields of `ImportOptions`.

    report: filled as far as the import comes, which helps where it is refused.
    """
    given = ImportOptions(**options)
    return _imported(prototxt, caffemodel, given, ImportReport() if report is None else report, done).whole()


def import_file(
    prototxt: str | Path,
    caffemodel: str | Path | None,
    out_path: str | Path,
    *,
    external_limit: int = EXTERNAL_LIMIT,
    report: ImportReport | None = None,
    done: Callable[[float], None] | None = None,
    **options: Any,
) -> ImportReport:
    """`import_net` into a file, which appears under its name only when it is complete.

    With more than `external_limit` bytes of weights they go into OUT_PATH + ".data" beside it. report, done, options:
    as for `to_onnx`. Raises what `import_net` raises, and InputError where `out_path` cannot be written.
    """
    check_writable(out_path)
    report = ImportReport() if report is None else report
    imported = _imported(prototxt, caffemodel, ImportOptions(**options), report, done)
    save(imported.model, imported.tensors, out_path, external_limit)
    return report


def _imported(
    prototxt: str | Path,
    caffemodel: str | Path | None,
    options: ImportOptions,
    report: ImportReport,
    done: Callable[[float], None] | None,
) -> Imported:
    net = read_net(prototxt, options.phase)
    report.dropped += [layer.name for layer in net.layers if layer.dropped]
    report.unknown += [_unknown(net, item) for item in net.unknown]
    if options.outputs:
        net.restrict(options.outputs)
    report.batch_statistics += [layer.name for layer in net.kept() if takes_batch_statistics(layer, net.phase)]
    check(net, options.ignore_unknown, options.stored_statistics)
    weights = read_weights(caffemodel, may_be_empty=True) if caffemodel is not None else None
    inputs = _input_shapes(net, options.input_shapes)
    shapes = infer_shapes(net, inputs)
    free = free_axes(net, inputs)
    writer = OnnxWriter({*shapes})
    arrays = parameters(net, shapes, caffemodel, options.allow_missing, options.seed, report, weights)
    for layer, blobs in arrays:
        LAYER_TYPES[layer.type].emit(context_of(net, layer, shapes), writer, blobs)
        if done is not None:
            done(1 / len(net.kept()))
    model = writer.model(
        net.name,
        _input_dims(inputs, free),
        {value: _output_dims(shapes[value], free[value], next(iter(inputs.values()))[0]) for value in net.outputs()},
        _metadata(net, inputs, options.labels, options.preprocess),
    )
    return Imported(model, writer.tensors, report)


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
                f"{net.origin}: input '{value}' has {got}; wanted one: input_shapes={{'{value}': [1, 3, 224, 224]}} "
                f"(--input-shape {value}=1,3,224,224)"
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


def _unknown(net: CaffeNet, item: Unknown) -> str:
    layer = f" layer '{item.layer}':" if item.entry is not None else ""
    return f"{net.where_line(item.line)}:{layer} {item}"


def _metadata(
    net: CaffeNet, inputs: Shapes, labels: Sequence[str] | None, preprocess: Mapping[str, Any] | None
) -> dict[str, Any]:
    layers = [layer for layer in net.layers if not layer.dropped and (not layer.brings_data or layer.type == "Input")]
    computed = {value for layer in net.kept() for value in layer.outputs} | set(net.inputs)
    stated = stated_preprocess(layer.proto for layer in net.layers if not layer.dropped)
    names = {blob: values for blob, values in net.versions.items() if not computed.isdisjoint(values)}
    for layer in net.kept():
        names.setdefault(layer.name, layer.outputs[:1])
    return {
        "ebp_cuda.names": names,
        "ebp_cuda.source": "caffe",
        "ebp_cuda.layers": listing(layers),
        "ebp_cuda.phase": net.phase,
        "ebp_cuda.example_shapes": {value: list(shape) for value, shape in inputs.items()},
        "ebp_cuda.labels": None if labels is None else list(labels),
        "ebp_cuda.preprocess": stated if preprocess is None else dict(preprocess),
    }
