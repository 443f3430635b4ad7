"""Small Caffe networks for tests: written in a line, imported, checked, and run by onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ebp_cuda.importers import caffe
from support.golden_data import GOLDEN

ort = pytest.importorskip("onnxruntime")

MODEL = GOLDEN / "caffemodel"
BLOCK = MODEL / "inception_block.prototxt"
Arrays = dict[str, np.ndarray]


def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], values: Sequence[str] | None = None) -> Arrays:
    """Every value that a node writes (or the named ones), as onnxruntime computes them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if values is None:
        values = [value for node in model.graph.node for value in node.output]
    known = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=value) for value in values if value not in known)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(values, session.run(list(values), dict(feeds)), strict=True))


def weights_of(params: Mapping[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for key, array in params.items():
        found.setdefault(key.rsplit("/", 1)[0], []).append(array)
    return found


def build(
    folder: Path, text: str, weights: Mapping[str, Sequence[Any]] | None = None, **options: Any
) -> onnx.ModelProto:
    """The checked ONNX model of prototxt text and weights."""
    prototxt, caffemodel = folder / "net.prototxt", None
    prototxt.write_text(text)
    if weights is not None:
        caffemodel = folder / "net.caffemodel"
        caffe.write_caffemodel(caffemodel, text, weights)
    model = caffe.to_onnx(prototxt, caffemodel, **options)
    onnx.checker.check_model(model, full_check=True)
    return model


def net(shape: Sequence[int], *layers: str) -> str:
    """Prototxt text: an input x of `shape`, then each layer in a line."""
    dims = " ".join(f"dim: {n}" for n in shape)
    return "\n".join([f'input: "x" input_shape {{ {dims} }}', *(f"layer {{ {layer} }}" for layer in layers)])


def layer(name: str, kind: str, rest: str = "", bottoms: str = "x", tops: str | None = None) -> str:
    ends = "".join(f' bottom: "{b}"' for b in bottoms.split()) + "".join(f' top: "{t}"' for t in (tops or name).split())
    return f'name: "{name}" type: "{kind}"{ends} {rest}'


def dims(values: Sequence[onnx.ValueInfoProto]) -> dict[str, list[int | str]]:
    return {v.name: [d.dim_param or d.dim_value or "" for d in v.type.tensor_type.shape.dim] for v in values}


def metadata(model: onnx.ModelProto) -> dict[str, Any]:
    return {item.key: json.loads(item.value) for item in model.metadata_props}


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
