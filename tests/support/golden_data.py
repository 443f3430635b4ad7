"""Reading tests/golden: what the original measured, its noise floor, and how far we may be from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np

from support.paths import GOLDEN


@cache
def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as archive:
        return {key: archive[key] for key in archive.files}


@cache
def noise_floor() -> dict[str, dict[str, float]]:
    return json.loads((GOLDEN / "noise_floor.json").read_text())


def floor(name: str, key: str) -> float:
    """Largest relative difference of the original to itself on another BLAS kernel."""
    return float(noise_floor().get(name, {}).get(key, 0.0))


def under(data: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key[len(prefix) :]: value for key, value in data.items() if key.startswith(prefix)}


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    """max|a - b| / max|b|, the measure that the noise floor is stated in."""
    scale = float(np.abs(wanted).max())
    worst = float(np.abs(np.asarray(got, np.float64) - wanted).max())
    return worst if scale == 0 else worst / scale


def seeded_weights(case: str) -> dict[str, list[np.ndarray]]:
    """The weights of a big golden case, drawn from its seed and checked against the stored digests."""
    data = load(f"{case}.npz")
    digests = json.loads(str(data["weights_sha256"]))
    found: dict[str, list[np.ndarray]] = {}
    for name, index, blob in _drawn(case, data):
        digest = hashlib.sha256(blob.tobytes()).hexdigest()
        assert digest == digests[f"{name}/{index}"], f"{case}: {name}/{index} differs from the original's weights"
        found.setdefault(name, []).append(blob)
    return found


def _drawn(case: str, data: Mapping[str, np.ndarray]) -> Iterator[tuple[str, int, np.ndarray]]:
    layers = json.loads((GOLDEN / "weight_shapes.json").read_text())[case]
    draw = np.random.RandomState(int(data["seed"]))
    for name, _, shapes in layers:
        gain = float(data["top_gain"]) if name == layers[-1][0] else 1.0
        for index, shape in enumerate(shapes):
            if index == 0:
                deviation = np.sqrt(2.0 / int(np.prod(shape[1:]))) * gain
                yield name, index, (draw.standard_normal(shape) * deviation).astype(np.float32)
            else:
                yield name, index, draw.uniform(-0.05, 0.05, shape).astype(np.float32)
