"""Runs exported attribution graphs: in ONNX Runtime, and in float64 by the onnx package's reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from ebp_cuda.export.model import OUTPUTS


class MaxPool(OpRun):
    """The reference's own counts the indices of padded planes from the wrong corner (onnx 1.23)."""

    def _run(self, x: np.ndarray, **attributes: Any) -> tuple[np.ndarray, np.ndarray]:
        kernel, strides, dilations = (attributes[name] for name in ("kernel_shape", "strides", "dilations"))
        top, left, bottom, right = attributes["pads"]
        numbers = np.arange(x.size, dtype=np.int64).reshape(x.shape)
        around = ((0, 0), (0, 0), (top, bottom), (left, right))
        reach = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel, strict=True)]

        def windows(plane: np.ndarray, fill: float) -> np.ndarray:
            padded = np.pad(plane, around, constant_values=fill)
            views = sliding_window_view(padded, reach, axis=(2, 3))
            views = views[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
            return views.reshape(*views.shape[:4], -1)

        values, places = windows(x, -np.inf), windows(numbers, -1)
        first = values.argmax(-1)[..., None]
        return tuple(np.take_along_axis(array, first, -1)[..., 0] for array in (values, places))


def in_float64(path: Path, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs by name, of a graph that was exported in "fp64"."""
    model = onnx.load(path)
    feeds = {value.name: array for value, array in zip(model.graph.input, inputs, strict=True)}
    return dict(zip(OUTPUTS, ReferenceEvaluator(model, new_ops=[MaxPool]).run(None, feeds), strict=True))


def in_runtime(path: Path, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs by name, of a graph that was exported in "fp32"."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {value.name: array for value, array in zip(session.get_inputs(), inputs, strict=True)}
    return dict(zip(OUTPUTS, session.run(None, feeds), strict=True))


def relative_l1(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """sum |got - wanted| / sum |wanted| of every map, [N, K]."""
    rows = [array.reshape(*wanted.shape[:2], -1).astype(np.float64) for array in (got, wanted)]
    return np.abs(rows[0] - rows[1]).sum(2) / np.abs(rows[1]).sum(2).clip(1e-300)
