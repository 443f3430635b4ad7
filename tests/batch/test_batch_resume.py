"""--resume never mixes two runs: whatever decides a row is compared, or what was read is read again and compared."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.batch_data import SMALL, files

import ebp_cuda
from ebp_cuda import batch
from ebp_cuda.batch.identity import graph_digest
from ebp_cuda.batch.source import ListingDigest
from ebp_cuda.errors import InputError
from ebp_cuda.graph import Graph
from ebp_cuda.models import digits
from ebp_cuda.net import Net

pytest_plugins = ["support.batch_fixtures"]
HALF: dict[str, Any] = {**SMALL, "batch": 4, "shard_size": 4, "target": 3}


def png(seed: int) -> bytes:
    """A photo whose size in bytes is the same for every seed."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


PHOTOS = [png(seed) for seed in range(8)]


def write_folder(folder: Path, order: list[int]) -> Path:
    folder.mkdir(exist_ok=True)
    for place, seed in enumerate(order):
        (folder / f"{place}.png").write_bytes(PHOTOS[seed])
    return folder


def write_tar(path: Path, order: list[int], names: list[str] | None = None) -> Path:
    with tarfile.open(path, "w") as archive:
        for place, seed in enumerate(order):
            head = tarfile.TarInfo((names or [f"{seed}" for seed in order])[place] + ".png")
            head.size = len(PHOTOS[seed])
            archive.addfile(head, io.BytesIO(PHOTOS[seed]))
    return path


def write_parquet(path: Path, order: list[int]) -> Path:
    names = {column: [f"{column}{place}" for place in range(len(order))] for column in "ab"}
    pq.write_table(pa.table({"image": [PHOTOS[seed] for seed in order], **names}), path, compression="none")
    return path


def stop_after_one_shard(out: Path) -> None:
    """As a run that was killed leaves its folder."""
    (out / "index" / "shard-000001.parquet").unlink()
    (out / "shards" / "shard-000001.npz").unlink()


@pytest.mark.parametrize("write", [write_folder, write_tar, write_parquet])
def test_images_in_another_order_are_refused(write: Any, eb: Any, tmp_path: Path) -> None:
    suffix = {write_tar: ".tar", write_parquet: ".parquet"}.get(write, "")
    source, out = tmp_path / f"source{suffix}", tmp_path / "out"
    batch.run(write(source, list(range(8))), eb, out, **HALF)
    stop_after_one_shard(out)
    write(source, list(range(7, -1, -1)))
    with pytest.raises(InputError, match=r"is another image than the run has read|source\.digest was"):
        batch.run(source, eb, out, resume=True, **HALF)


def test_files_that_were_touched_and_hold_the_same_are_gone_on_with(eb: Any, tmp_path: Path) -> None:
    source, out = write_folder(tmp_path / "source", list(range(8))), tmp_path / "out"
    batch.run(source, eb, out, **HALF)
    before = files(out)
    stop_after_one_shard(out)
    os.utime(source / "1.png", (1, 1))
    with pytest.warns(UserWarning, match="were touched since the run began: comparing 4 images"):
        assert batch.run(source, eb, out, resume=True, **HALF).done == 4
    assert files(out) == before


def test_replaced_files_that_look_untouched_are_found_by_verify_source(
    eb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same size and same times: what no listing tells."""
    monkeypatch.setattr(ListingDigest, "times", "")
    source, out = write_folder(tmp_path / "source", list(range(8))), tmp_path / "out"
    batch.run(source, eb, out, **HALF)
    stop_after_one_shard(out)
    with pytest.warns(UserWarning, match="--verify-source: comparing 4 images"):
        assert batch.run(source, eb, out, resume=True, verify_source=True, **HALF).done == 4
    (source / "2.png").write_bytes(PHOTOS[7])
    with pytest.raises(InputError, match=r"2\.png is another image than the run has read"), pytest.warns(UserWarning):
        batch.run(source, eb, out, resume=True, verify_source=True, **HALF)
    (source / "2.png").unlink()
    with pytest.raises(InputError, match=r"source\.digest was"):
        batch.run(source, eb, out, resume=True, **HALF)


def test_names_are_part_of_a_run(eb: Any, tmp_path: Path) -> None:
    table, out = write_parquet(tmp_path / "t.parquet", list(range(8))), tmp_path / "out"
    batch.run(table, eb, out, name_column="a", **HALF)
    with pytest.raises(InputError, match=r"source\.columns\.name was 'a', now 'b'"):
        batch.run(table, eb, out, name_column="b", resume=True, **HALF)
    archive = write_tar(tmp_path / "t.tar", list(range(8)))
    batch.run(archive, eb, tmp_path / "tar", **HALF)
    write_tar(archive, list(range(8)), names=[f"x{place}" for place in range(8)])
    with pytest.raises(InputError, match=r"source\.digest was"):
        batch.run(archive, eb, tmp_path / "tar", resume=True, **HALF)


def test_decoding_and_settings_are_part_of_a_run(eb: Any, tmp_path: Path) -> None:
    source, out = write_folder(tmp_path / "source", list(range(8))), tmp_path / "out"
    batch.run(source, eb, out, **HALF)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["settings"]["decoding"] == {"max_pixels": 178_956_970, "fast": False}
    for change, message in (
        ({"fast_decoding": True}, r"settings\.decoding\.fast was False, now True"),
        ({"max_pixels": 1000}, r"settings\.decoding\.max_pixels was 178956970, now 1000"),
        ({"limit": 7}, r"source\.images was 8, now 7"),
    ):
        with pytest.raises(InputError, match=message):
            batch.run(source, eb, out, resume=True, **HALF, **change)
    old = (out / "manifest.json").read_text().replace("ebp_cuda batch 2", "ebp_cuda batch 1")
    (out / "manifest.json").write_text(old)
    assert len(list(batch.open(out))) == 8, "what an earlier version wrote is read"
    with pytest.raises(InputError, match="written as 'ebp_cuda batch 1'"):
        batch.run(source, eb, out, resume=True, **HALF)


def test_the_digest_of_a_model_holds_what_it_computes() -> None:
    graph = digits.load().graph
    before = graph_digest(graph)
    inner = graph.nodes[-1].inputs[0]
    others = {
        "outputs": Graph(graph.nodes, graph.inputs, (inner,), graph.names, graph.meta),
        "inputs": Graph(graph.nodes, dict.fromkeys(graph.inputs, (None, 3, 112, 112)), graph.outputs, graph.names),
        "weights": Graph(
            [
                dataclasses.replace(node, params={name: param * 2 for name, param in node.params.items()})
                for node in graph.nodes
            ],
            graph.inputs,
            graph.outputs,
            graph.names,
        ),
    }
    assert {name: graph_digest(other) == before for name, other in others.items()} == dict.fromkeys(others, False)
    assert graph_digest(digits.load().graph) == before


def test_a_model_with_another_output_is_refused(eb: Any, tmp_path: Path) -> None:
    source, out = write_folder(tmp_path / "source", list(range(4))), tmp_path / "out"
    graph = eb.net.graph
    other = Net(Graph(graph.nodes, graph.inputs, (graph.nodes[-1].inputs[0],), graph.names))
    batch.run(source, ebp_cuda.ExcitationBackprop(eb.net, digits.LAYER), out, **HALF)
    with pytest.raises(InputError, match=r"model\.digest was"):
        batch.run(source, ebp_cuda.ExcitationBackprop(other, digits.LAYER), out, resume=True, **HALF)


@pytest.mark.parametrize("overlays", [False, True])
def test_a_run_may_write_into_its_own_source(overlays: bool, eb: Any, tmp_path: Path) -> None:
    write_folder(tmp_path, [0, 1])
    again: dict[str, Any] = {**HALF, "overlays": overlays}
    assert batch.run(tmp_path, eb, tmp_path / "maps", **again).images == 2
    (tmp_path / "maps" / "index" / "shard-000000.parquet").unlink()
    assert batch.run(tmp_path, eb, tmp_path / "maps", resume=True, **again).done == 2
    assert batch.run(tmp_path, eb, tmp_path / "other", **again).images == 2, "what another run wrote is no image either"
