"""Runs on a local Ray: the same files as without, also where a worker is killed on the way. About 60 s in all,
most of it workers that start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import paths
from support.batch_data import SMALL, KillingSource, files, method, photos

from ebp_cuda import batch
from ebp_cuda.batch import ray as distributed
from ebp_cuda.batch.output import Output
from ebp_cuda.batch.photos import preprocess_of
from ebp_cuda.batch.ray import Cluster, attribute_dataset, run_on_ray
from ebp_cuda.batch.running import BatchRun, RunSettings
from ebp_cuda.errors import InputError, UnsupportedError
from ebp_cuda.models import digits

pytest_plugins = ["support.batch_fixtures"]
pytestmark = pytest.mark.slow
TWO = Cluster(workers=2)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    found = pytest.importorskip("ray", reason="ray is not installed: pip install 'ebp_cuda[ray]'")
    pytest.importorskip("ray.data", reason="ray has no ray.data: pip install 'ebp_cuda[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(paths.TESTS), os.environ.get("PYTHONPATH", "")]))
        found.init(num_cpus=3, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
        yield found
        found.shutdown()


def test_same_files_though_a_worker_is_killed(ray: Any, whole: Path, folder: Path, tmp_path: Path) -> None:
    eb, marker = method(), tmp_path / "killed"
    source = KillingSource(folder, sorted(photos()), row=10, marker=marker)
    settings = RunSettings("top2", preprocess_of(eb.net, {}), batch=4, shard_size=8, workers=0)
    batch_run = BatchRun(eb, source, Output(tmp_path / "out"), settings, eb.net.labels)
    told: list[tuple[int, int, int]] = []
    summary = run_on_ray(batch_run, batch_run.begin(False), TWO, lambda *now: told.append(now))
    assert marker.exists(), "no worker was killed"
    assert files(tmp_path / "out") == files(whole)
    assert summary.done == 21 and told[-1][:2] == (21, 21)
    (tmp_path / "out" / "index" / "shard-000001.parquet").unlink()
    again: dict[str, Any] = {**SMALL, "target": "top2", "resume": True, "cluster": TWO}
    assert distributed.run(folder, eb, tmp_path / "out", **again).done == 8
    assert files(tmp_path / "out") == files(whole)
    assert distributed.run(folder, eb, tmp_path / "out", **again).done == 0


@pytest.mark.parametrize("kind", ["bytes", "pixels"])
def test_dataset(kind: str, ray: Any, whole: Path, folder: Path, tmp_path: Path) -> None:
    data, image = ray.data, None
    if kind == "bytes":
        dataset = data.read_binary_files(str(folder), include_paths=True, override_num_blocks=3)
    else:
        good = [str(folder / name) for row, name in enumerate(photos()) if row not in (3, 13)]
        dataset, image = data.read_images(good, include_paths=True, override_num_blocks=2), "image"
    options: dict[str, Any] = {"contrast_layer": digits.CONTRAST_LAYER, "target": "top2", "cluster": TWO}
    options |= {"batch": 1, "shard_size": 8, "image_column": image}
    summary = attribute_dataset(dataset, method().net, digits.LAYER, tmp_path / "out", **options)
    found = {Path(entry.image).name: entry for entry in batch.open(tmp_path / "out", verify=True)}
    assert summary.done == len(found) == (19 if kind == "pixels" else 21)
    for entry in batch.open(whole):
        same = found.get(Path(entry.image).name)
        assert same is not None or (kind == "pixels" and entry.error)
        if same is not None and entry.maps is not None:
            assert same.maps is not None and same.targets == entry.targets
            assert abs(same.maps - entry.maps).max() <= 1e-6
        elif same is not None:
            assert same.error


def test_refusals(ray: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ray.data.from_items([{"pixels": 1}])
    with pytest.raises(InputError, match="which column holds the images"):
        attribute_dataset(dataset, method().net, digits.LAYER, tmp_path / "out", cluster=TWO)
    with pytest.raises(InputError, match="1 CPUs and 4 GPUs fits nowhere"):
        distributed.run(folder, method(), tmp_path / "gpus", cluster=Cluster(gpus=4), **SMALL)
    monkeypatch.setitem(__import__("sys").modules, "ray.data", None)
    with pytest.raises(UnsupportedError, match=r"needs ray: pip install 'ebp_cuda\[ray\]'"):
        distributed.run(folder, method(), tmp_path / "other", cluster=TWO, **SMALL)
