"""The onnx package's own tests as cases for the importer: node tests and the small models that come with it.

Every case is one model with the inputs and outputs that the specification's reference gives. It is tried twice: with
every input but the first as a constant of the graph (as layers have their weights), and with all of them as inputs of
the network. A case counts where its first input is a float tensor: this package explains images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import ebp_cuda
from ebp_cuda.importers.onnx import load_onnx

FLOATS = (np.float16, np.float32, np.float64)
MODELS = ("simple", "pytorch-operator", "pytorch-converted")


@dataclass(frozen=True)
class Case:
    """One model with its inputs and the outputs that are right; `constants`: inputs but the first become constants."""

    name: str
    constants: bool
    read: Callable[[], tuple[onnx.ModelProto, list[Any], list[Any]]]
    rtol: float
    atol: float

    def __str__(self) -> str:
        return f"{self.name}{'-constants' if self.constants else ''}"

    @cached_property
    def parts(self) -> tuple[onnx.ModelProto, dict[str, Any], dict[str, Any]]:
        """The model, its inputs by name and its outputs by name."""
        model, xs, ys = self.read()
        model = onnx.ModelProto.FromString(model.SerializeToString())
        graph = model.graph
        stored = {tensor.name for tensor in graph.initializer}
        names = [value.name for value in graph.input if value.name not in stored]
        inputs = dict(zip(names, xs, strict=False))
        if self.constants:
            for name in names[1:]:
                graph.initializer.append(numpy_helper.from_array(np.asarray(inputs.pop(name)), name))
            kept = [value for value in graph.input if value.name == names[0]]
            del graph.input[:]
            graph.input.extend(kept)
        outputs = [np.asarray(y) if isinstance(y, np.generic) else y for y in ys]
        return model, inputs, dict(zip([value.name for value in graph.output], outputs, strict=True))

    @property
    def operators(self) -> set[str]:
        return {node.op_type for node in self.read()[0].graph.node}


@dataclass(frozen=True)
class Result:
    """How a case went: "equal", "refused", "wrong" or "crashed", and why."""

    verdict: str
    reason: str = ""


def cases() -> list[Case]:
    """All cases whose first input is a float tensor, sorted by name."""
    found = {}
    for name, read, rtol, atol in [*_node_tests(), *_model_tests()]:
        try:
            model, xs, _ = read()
        except (OSError, ValueError, TypeError):
            continue
        if not xs or not isinstance(xs[0], np.ndarray) or xs[0].dtype not in FLOATS or not model.graph.node:
            continue
        stored = {tensor.name for tensor in model.graph.initializer}
        names = [value.name for value in model.graph.input if value.name not in stored]
        found[name, False] = Case(name, False, read, rtol, atol)
        if len(names) > 1 and all(isinstance(x, np.ndarray) for x in xs):
            found[name, True] = Case(name, True, read, rtol, atol)
    return [found[key] for key in sorted(found)]


def _node_tests() -> Iterator[tuple[str, Callable[[], Any], float, float]]:
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        xs, ys = case.data_sets[0]
        yield case.name, lambda case=case, xs=xs, ys=ys: (case.model, list(xs), list(ys)), case.rtol, case.atol


def _model_tests() -> Iterator[tuple[str, Callable[[], Any], float, float]]:
    from onnx.backend.test.loader import load_model_tests

    for kind in MODELS:
        for case in load_model_tests(kind=kind):
            if case.model_dir:
                yield case.name, lambda folder=Path(case.model_dir): _from_folder(folder), case.rtol, case.atol


def _from_folder(folder: Path) -> tuple[onnx.ModelProto, list[Any], list[Any]]:
    model = onnx.load(folder / "model.onnx")
    data = sorted(folder.glob("test_data_set_*"))[0]

    def arrays(kind: str) -> list[np.ndarray]:
        count = len(list(data.glob(f"{kind}_*.pb")))
        return [numpy_helper.to_array(onnx.load_tensor(data / f"{kind}_{i}.pb")) for i in range(count)]

    return model, arrays("input"), arrays("output")


def run(case: Case) -> Result:
    """Imports the case's model, runs it forward and compares every output."""
    try:
        model, inputs, wanted = case.parts
    except Exception as error:  # what the onnx package cannot write as a constant (sequences, optionals)
        return Result("skipped", f"{type(error).__name__}: {error}")
    try:
        net = ebp_cuda.Net(load_onnx(model))
        outputs = net.forward(dict(inputs), list(wanted))
    except ebp_cuda.EBPError as error:
        return Result("refused", f"{type(error).__name__}: {error}")
    except Exception as error:
        return Result("crashed", f"{type(error).__name__}: {error}")
    for name, array in wanted.items():
        difference = _difference(np.asarray(outputs[name]), array, case)
        if difference:
            return Result("wrong", f"output '{name}': {difference}")
    return Result("equal")


def _difference(got: np.ndarray, wanted: Any, case: Case) -> str:
    if not isinstance(wanted, np.ndarray):
        return f"a {type(wanted).__name__}"
    if got.shape != wanted.shape:
        return f"shape {list(got.shape)}, wanted {list(wanted.shape)}"
    if wanted.dtype.kind not in "fiub":
        return f"dtype {wanted.dtype}"
    close = np.isclose(
        got, wanted.astype(np.float64), rtol=max(case.rtol, 1e-3), atol=max(case.atol, 1e-5), equal_nan=True
    )
    return "" if close.all() else f"{int((~close).sum())} of {close.size} elements differ"
