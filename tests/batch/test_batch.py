"""Runs over many images: what they read, what they write, and what broken images, files and settings do to them."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.batch_data import BROKEN, COUNT, SMALL, digests, files, photos, write_folder

import ebp_cuda
from ebp_cuda import batch, cli
from ebp_cuda.batch.writing import ShardWriter
from ebp_cuda.errors import InputError, UnsupportedError
from ebp_cuda.images.preprocess import load_image, prepare
from ebp_cuda.models import digits

pytest_plugins = ["support.batch_fixtures"]


def test_maps_are_those_of_attribute(whole: Path, folder: Path, images: dict[str, bytes], eb: Any) -> None:
    entries = list(batch.open(whole, verify=True))
    assert [entry.image for entry in entries] == list(images)
    broken = [row for row, data in enumerate(images.values()) if data in BROKEN.values()]
    assert [row for row, entry in enumerate(entries) if entry.error] == broken
    assert "not an image" in entries[broken[0]].error and entries[broken[0]].maps is None
    good = [row for row in range(8) if row not in broken][:4]  # the first batch of the first shard
    x = prepare([load_image(folder / entries[row].image) for row in good], digits.PREPROCESS)
    found = eb.run(x, "top2")
    for row, maps, targets, scores in zip(good, found.maps, found.targets, found.scores, strict=True):
        assert np.array_equal(entries[row].maps, maps.numpy())
        assert entries[row].targets == targets.tolist()
        assert entries[row].scores == scores[targets].tolist()


def test_index_and_manifest(whole: Path) -> None:
    rows = batch.open(whole).index().to_pylist()
    assert len(rows) == 2 * (COUNT - 2) + 2
    first = rows[0]
    assert (first["shard"], first["row"], first["k"], first["layer"]) == ("shard-000000", 0, 0, "pool1")
    assert first["shape"] == [28, 28] and first["error"] is None
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["source"]["images"] == COUNT and manifest["settings"]["target"] == "top2"
    with np.load(whole / "shards" / "shard-000002.npz") as arrays:
        assert {arrays[name].shape for name in arrays.files} == {(2, 28, 28)}


def test_processes_change_nothing(whole: Path, folder: Path, eb: Any, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    settings = {**SMALL, "workers": 2}
    out = tmp_path / "out"
    summary = batch.run(folder, eb, out, target="top2", progress=lambda *now: told.append(now), **settings)
    assert files(out) == files(whole)
    assert (summary.images, summary.done, summary.failed) == (COUNT, COUNT, 2)
    assert told[0] == (0, COUNT, 0) and told[-1] == (COUNT, COUNT, 2)


def test_images_of_many_shapes(folder: Path, tmp_path: Path) -> None:
    """Aspect ratio kept: groups of one shape; an image too small for the network is a row with its error."""
    net = ebp_cuda.load(
        digits.DEPLOY, digits.WEIGHTS, preprocess=digits.PREPROCESS, input_shapes={"data": (1, 3, 150, 112)}
    )
    net.graph.inputs["data"] = (None, 3, None, None)
    eb = ebp_cuda.ExcitationBackprop(net, digits.LAYER, digits.CONTRAST_LAYER)
    random = np.random.default_rng(0)
    shapes = [(112, 112 + 8 * (row % 5)) for row in range(18)]
    for row, shape in enumerate([*shapes, (30, 30)]):
        np.save(tmp_path / f"{row:02d}.npy", random.random((3, *shape)).astype(np.float32) * 255)
    batch.run(tmp_path, eb, tmp_path.parent / "out", target=3, batch=2, shard_size=10, workers=0)
    entries = list(batch.open(tmp_path.parent / "out", verify=True))
    assert "pool_ave" in entries[18].error
    for row in (0, 4, 11, 17):
        alone = eb.attribute(np.load(tmp_path / f"{row:02d}.npy")[None], 3)[0]
        assert entries[row].maps.shape == alone.shape == (1, 28, 28 + 2 * (row % 5))
        assert np.abs(entries[row].maps - alone).max() <= 1e-6 * np.abs(alone).max()


def test_resume_wants_the_same_run(whole: Path, folder: Path, eb: Any, tmp_path: Path) -> None:
    before = files(whole)
    again = {**SMALL, "target": "top2"}
    with pytest.raises(InputError, match="not empty; --resume goes on"):
        batch.run(folder, eb, whole, **again)
    with pytest.raises(InputError, match=r"settings\.target was 'top2', now '3'; settings\.batch was 4, now 5"):
        batch.run(folder, eb, whole, resume=True, **{**again, "target": 3, "batch": 5})
    other = ebp_cuda.ExcitationBackprop(eb.net, "pool2", digits.CONTRAST_LAYER)
    with pytest.raises(InputError, match=r"settings\.layer was 'pool1', now 'pool2'"):
        batch.run(folder, other, whole, resume=True, **again)
    (tmp_path / "more").mkdir()
    write_folder(tmp_path / "more", dict(list(photos().items())[:20]))
    with pytest.raises(InputError, match=r"source\.images was 21, now 20"):
        batch.run(tmp_path / "more", eb, whole, resume=True, **again)
    assert batch.run(folder, eb, whole, resume=True, **again).done == 0
    assert files(whole) == before


def test_resume_does_damaged_shards_again(whole: Path, folder: Path, eb: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    again = {**SMALL, "target": "top2", "resume": True}
    batch.run(folder, eb, out, **again)  # nothing there yet: it begins
    (out / "shards" / "shard-000001.npz").write_bytes(b"PK")
    (out / "index" / "shard-000002.parquet").write_bytes(b"PAR1")
    (out / "shards" / ".shard-000002.1234abcd.npz").write_bytes(b"left by a kill")
    assert batch.run(folder, eb, out, **again).done == 8 + 5
    assert files(out) == files(whole)


@pytest.mark.parametrize("stop", [1, 9, 14])
def test_interrupt_drops_one_shard(stop: int, whole: Path, folder: Path, eb: Any, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, failed: int) -> None:
        if done >= stop:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        batch.run(folder, eb, out, target="top2", progress=interrupt, **SMALL)
    there = files(out)
    assert len(there) == 2 * (stop // 8) and all(files(whole)[name] == data for name, data in there.items())
    batch.run(folder, eb, out, target="top2", resume=True, **SMALL)
    assert files(out) == files(whole)


def test_full_disk_leaves_no_shard(folder: Path, eb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, stored = ShardWriter._store, []

    def full(self: ShardWriter, row: int, maps: Any) -> None:
        stored.append(row)
        if len(stored) == 10:
            raise OSError(28, "No space left on device")
        store(self, row, maps)

    monkeypatch.setattr(ShardWriter, "_store", full)
    with pytest.raises(InputError, match=r"shard-000001\.npz: No space left on device"):
        batch.run(folder, eb, tmp_path / "out", target="top2", **SMALL)
    assert sorted(files(tmp_path / "out")) == ["index/shard-000000.parquet", "shards/shard-000000.npz"]


def test_reader_sees_damage(whole: Path, folder: Path, eb: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch.run(folder, eb, out, target="top2", **SMALL)
    path = out / "shards" / "shard-000001.npz"
    with zipfile.ZipFile(path) as archive:
        members = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    members["1.npy"][-1] ^= 1
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, bytes(data))
    assert len(list(batch.open(out))) == COUNT
    with pytest.raises(InputError, match=r"row 1 .*are not those that were written"):
        list(batch.open(out, verify=True))
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match="the shard is damaged"):
        list(batch.open(out))
    with pytest.raises(InputError, match=r"no manifest\.json"):
        batch.open(folder)


def test_overlays(folder: Path, eb: Any, tmp_path: Path) -> None:
    batch.run(folder, eb, tmp_path / "out", target="7,1", overlays=True, **SMALL)
    pictures = sorted(path.name for path in (tmp_path / "out" / "overlays" / "shard-000000").iterdir())
    assert len(pictures) == 2 * 7 and pictures[:2] == ["000000_000_1_1.png", "000000_000_7_7.png"]
    assert load_image(tmp_path / "out" / "overlays" / "shard-000001" / "000000_016_7_7.png").shape == (112, 112, 3)


def test_run_refuses(folder: Path, eb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="the model has classes 0 to 9"):
        batch.run(folder, eb, out, target=10)
    with pytest.raises(InputError, match="3 names for a model of 10 classes"):
        batch.run(folder, eb, out, labels=["a", "b", "c"])
    with pytest.raises(InputError, match="batch, shard_size and timeout are positive"):
        batch.run(folder, eb, out, batch=0)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UnsupportedError, match=r"needs pyarrow: pip install 'ebp_cuda\[batch\]'"):
        batch.run(folder, eb, out)
    assert not out.exists()


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["ebp-cuda", "batch", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_command_line(whole: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    out = tmp_path / "out"
    flags = ["--model", digits.DEPLOY, "--weights", digits.WEIGHTS, "--layer", "pool1", "--contrast-layer", "pool_ave"]
    flags += ["--size", 112, "--mean", "104,117,123", "--raw-scale", 255, "--channel-order", "bgr"]
    flags += ["--out", out, "--batch", 4, "--shard-size", 8, "--workers", 0, "--target"]
    assert call(monkeypatch, folder, *flags, "top2") == 0
    printed = capsys.readouterr()
    assert f"{out}: {COUNT} images, " in printed.out and "2 images failed" in printed.err
    assert digests(out) == digests(whole)
    assert call(monkeypatch, folder, *flags, "top2", "--engine", "spark") == 2
    assert call(monkeypatch, folder, *flags, "top2", "--ray-workers", 2) == 2
    assert (
        "--engine spark: wanted local or ray" in (said := capsys.readouterr().err) and "belong to --engine ray" in said
    )
    assert call(monkeypatch, folder, *flags, "top3", "--resume") == 2
    assert "settings.target was 'top2', now 'top3'" in capsys.readouterr().err
    assert call(monkeypatch, folder, *flags, "top2", "--resume") == 0
    assert f"0 images; {COUNT} were there already" in capsys.readouterr().out
    monkeypatch.setattr(batch, "run", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert call(monkeypatch, folder, *flags, "top2", "--resume") == 130
    assert "the same command with --resume goes on" in capsys.readouterr().err


def test_command_line_all_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    write_folder(tmp_path / "photos", {"a.png": b"x", "b.png": b"y"})
    flags = ["--model", digits.DEPLOY, "--weights", digits.WEIGHTS, "--layer", "pool1", "--workers", 0]
    assert call(monkeypatch, tmp_path / "photos", *flags, "--target", 3, "--out", tmp_path / "out") == 1
