"""The onnx package's own tests: what is imported computes the specification's values, and all else is refused by name.

A sample by a fixed seed is part of every run; `make test-onnx` runs the whole (tests marked "whole").
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import defs, version_converter
from oracle import sweep as oracle
from oracle.nets import distance, engine_relevance
from support import onnx_suite, onnx_table
from support.onnx_suite import Case

import ebp_cuda
from ebp_cuda.graph import Graph
from ebp_cuda.importers.onnx import load_onnx
from ebp_cuda.rules import rule_of

SEED, SAMPLE = 16, 400
LEAST_EQUAL = 950


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return onnx_suite.cases()


def _bad(cases: list[Case], tally: onnx_table.Tally | None = None) -> tuple[Counter, list[str]]:
    """How many cases went which way, and those that are wrong, crashed, or refused without the opset in the reason."""
    counts: Counter[str] = Counter()
    bad = []
    for case in cases:
        result = onnx_suite.run(case)
        counts[result.verdict] += 1
        if tally is not None:
            tally.add(case, result.verdict)
        nameless = result.verdict == "refused" and "node '" in result.reason and "opset" not in result.reason
        if result.verdict in ("wrong", "crashed") or nameless:
            bad.append(f"{case}: {result.verdict}: {result.reason}")
    return counts, bad


def test_a_sample_is_right_or_refused_by_name(cases: list[Case]) -> None:
    counts, bad = _bad(random.Random(SEED).sample(cases, SAMPLE))
    assert not bad
    assert counts["equal"] >= 0.9 * SAMPLE * LEAST_EQUAL / len(cases)


@pytest.mark.whole
def test_the_whole_is_right_or_refused_by_name(cases: list[Case]) -> None:
    tally = onnx_table.Tally()
    counts, bad = _bad(cases, tally)
    assert not bad
    assert counts["equal"] >= LEAST_EQUAL
    assert onnx_table.table(tally.by_operator) in onnx_table.PAGE.read_text()


def test_the_table_in_the_docs_is_that_of_the_converters() -> None:
    page = onnx_table.PAGE.read_text()
    lines = page[page.index(onnx_table.START) : page.index(onnx_table.END)].splitlines()
    rows = [" |".join(line.split(" |")[:3]) + " |" for line in lines if line.startswith("| ")][1:]
    assert rows == [onnx_table.row(entry) for entry in onnx_table.entries()]


CHANGED_IN_13 = {"Softmax", "LogSoftmax", "Hardmax"}
"""Until opset 12 they flatten; the converter hands them down as they are, so today's values are not the older ones'.
Their own older values stand in test_onnx_opsets.py."""

OLDER = (6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 21)


def _in_older_opsets(case: Case) -> Iterator[Case]:
    """The case as the oldest opset of the same operators has it, and converted to older ones."""
    model, xs, ys = case.read()
    if len(model.opset_import) != 1 or model.opset_import[0].domain or "_expanded" in case.name:
        return
    if CHANGED_IN_13 & case.operators:
        return
    now = model.opset_import[0].version
    try:
        oldest = max(defs.get_schema(item.op_type, now, "").since_version for item in model.graph.node)
    except defs.SchemaError:
        return
    models = [onnx.ModelProto.FromString(model.SerializeToString())]
    models[0].opset_import[0].version = oldest
    for opset in (opset for opset in OLDER if opset < oldest):
        try:
            models.append(version_converter.convert_version(model, opset))
        except Exception:  # the converter knows no way
            continue
    for older in models:
        name = f"{case.name}-opset{older.opset_import[0].version}"
        yield replace(case, name=name, read=lambda older=older: (older, xs, ys))


@pytest.mark.parametrize("share", [60, pytest.param(None, marks=pytest.mark.whole)])
def test_older_opsets_are_right_or_refused_by_name(cases: list[Case], share: int | None) -> None:
    chosen = cases if share is None else random.Random(SEED).sample(cases, share)
    counts, bad = _bad([older for case in chosen for older in _in_older_opsets(case)])
    assert not bad
    assert counts["equal"] > len(chosen) / 4


LARGEST_MATRIX = 50_000_000
"""Elements: the oracle writes a linear layer as one matrix, inputs times outputs."""


def _relevance_agrees(graph: Graph, inputs: dict[str, np.ndarray]) -> bool:
    """Whether "conserving" gives the oracle's relevance.

    False where nothing is compared: a layer has no rule, the matrix is too large, or there is no batch axis.
    """
    if not all(rule_of(item, "conserving") for item in graph.nodes):
        return False
    images = {name: np.asarray(x, np.float64) for name, x in inputs.items()}
    if max(x.size for x in images.values()) ** 2 > LARGEST_MATRIX or min(x.ndim for x in images.values()) < 2:
        return False
    values = oracle.forward(graph, images)
    rng = np.random.default_rng(SEED)
    seeds = {value: rng.random(values[value].shape) for value in graph.outputs}
    if not all(np.isfinite(values[value]).all() for value in values):
        return False
    expected = oracle.relevance(graph, values, seeds, "conserving")
    reached = [name for name in images if np.any(expected.get(name, 0))]
    result = engine_relevance(graph, images, seeds, reached, "conserving")
    for name in reached:
        assert distance(result[name], expected[name]) < 1e-6, name
    return bool(reached)


@pytest.mark.parametrize("share", [80, pytest.param(None, marks=pytest.mark.whole)])
def test_relevance_is_the_oracles_at_these_attributes(cases: list[Case], share: int | None) -> None:
    chosen = cases if share is None else random.Random(SEED).sample(cases, share)
    compared, different = 0, []
    for case in chosen:
        if onnx_suite.run(case).verdict != "equal":
            continue
        model, inputs, _ = case.parts
        try:
            compared += _relevance_agrees(load_onnx(model), inputs)
        except AssertionError as error:
            different.append(f"{case}: {error}")
    assert not different
    assert compared > len(chosen) / 10


LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))


@pytest.mark.whole
@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_models_of_the_zoo_agree_with_onnxruntime(path: Path) -> None:
    net = ebp_cuda.load(path)
    ((name, shape),) = net.graph.inputs.items()
    x = np.random.default_rng(0).random([n or 1 for n in shape], np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        net.forward(x)[net.graph.outputs[0]], session.run(None, {name: x})[0], rtol=1e-4, atol=1e-6
    )
