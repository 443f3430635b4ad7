"""The Triton example without a Triton: its config.pbtxt, held to the graph that fills the repository and to a run."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.exported import in_runtime
from support.paths import EXAMPLES

TRITON = EXAMPLES / "triton_server"
KINDS = {"TYPE_FP32": onnx.TensorProto.FLOAT, "TYPE_INT64": onnx.TensorProto.INT64}
TENSOR = re.compile(r'\{ name: "(\w+)" data_type: (\w+) dims: \[ ([\d, ]+) \] \}')


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("make_repository", TRITON / "make_repository.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.main(tmp_path_factory.mktemp("repository"))


def described(part: str) -> dict[str, tuple[int, list[int]]]:
    """By name: the dtype and the sizes without the batch, as config.pbtxt has them."""
    text = (TRITON / "attribution" / "config.pbtxt").read_text()
    block = re.search(rf"^{part} \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    return {name: (KINDS[kind], [int(n) for n in dims.split(",")]) for name, kind, dims in TENSOR.findall(block[1])}


def declared(values: list[onnx.ValueInfoProto]) -> dict[str, tuple[int, list[int]]]:
    """The same of a graph's inputs or outputs, whose first axis is the batch."""
    for value in values:
        assert value.type.tensor_type.shape.dim[0].dim_param == "N"
    types = {value.name: value.type.tensor_type for value in values}
    return {name: (kind.elem_type, [d.dim_value for d in kind.shape.dim[1:]]) for name, kind in types.items()}


def test_the_configuration_describes_the_graph(model_file: Path) -> None:
    assert model_file.relative_to(model_file.parents[2]).as_posix() == "attribution/1/model.onnx"
    assert (model_file.parents[1] / "config.pbtxt").is_file()
    graph = onnx.load(model_file).graph
    assert described("input") == declared(list(graph.input))
    assert described("output") == declared(list(graph.output))


def test_a_batch_that_the_server_joined_gives_what_its_requests_would(model_file: Path) -> None:
    x, targets = np.random.default_rng(0).random((3, 3, 112, 112), np.float32), np.array([[3], [8], [0]])
    together = in_runtime(model_file, x, targets)
    alone = [in_runtime(model_file, x[i : i + 1], targets[i : i + 1]) for i in range(3)]
    for name, (_, dims) in described("output").items():
        assert together[name].shape == (3, *dims)
        np.testing.assert_allclose(together[name], np.concatenate([one[name] for one in alone]), rtol=1e-3, atol=1e-4)
