"""One image costs one row, whatever it is called, holds, or asks for; a column that cannot be used is named once."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.batch_data import SMALL, files, method, photos, write_folder, write_tar

from ebp_cuda import batch
from ebp_cuda.batch.places import index_name
from ebp_cuda.batch.sources import open_source
from ebp_cuda.errors import InputError
from ebp_cuda.targets import choice_of, parse_targets

pytest_plugins = ["support.batch_fixtures"]
GOOD = photos(1)["a/000.png"]
LONG = "\u4e2d" * 80 + ".png"
"""244 bytes of UTF-8: a legal name that no longer one can be made of."""


def test_names_of_every_kind_are_rows(eb: Any, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "photos", {"a.png": GOOD, LONG: GOOD})
    os.symlink("/nowhere", os.fsencode(source) + b"/z\xff.jpg")
    summary = batch.run(source, eb, tmp_path / "out", target=3, overlays=True, **SMALL)
    assert (summary.done, summary.failed) == (3, 1)
    entries = list(batch.open(tmp_path / "out"))
    assert [entry.image for entry in entries] == ["a.png", "z\\xff.jpg", LONG]
    assert entries[1].error is not None and "z\\xff.jpg: no such file" in entries[1].error
    pictures = [name for name in files(tmp_path / "out") if name.startswith("overlays")]
    assert len(pictures) == 2 and all(len(Path(name).name.encode()) < 200 for name in pictures)


def test_index_names_are_valid_unicode() -> None:
    assert index_name("caf\udce9") == "caf\\xe9"
    assert index_name("half \ud800") == "half \\ud800"


@pytest.mark.parametrize("cell", ["9" * 5000, "top" + "9" * 5000, "-" + "9" * 30, "x" * 9000, "3,", ""])
def test_targets_of_every_kind_are_rows(cell: str, eb: Any, tmp_path: Path) -> None:
    source = write_folder(tmp_path, {"a.png": GOOD, "l.csv": f'image,t\na.png,1\na.png,"{cell}"\n'.encode()})
    summary = batch.run(source / "l.csv", eb, tmp_path / "out", target="@t", **SMALL)
    assert (summary.done, summary.failed) == (2, 1)
    (error,) = (entry.error for entry in batch.open(tmp_path / "out") if entry.error)
    assert error.startswith("target") and len(error) < 300


def test_very_long_targets_are_refused_by_name(eb: Any) -> None:
    for target in ("9" * 5000, "top" + "9" * 5000):
        with pytest.raises(InputError, match=r"\(50\d\d letters\)"):
            parse_targets(target, None, 10)
        with pytest.raises(InputError, match=r"\(50\d\d letters\)"):
            choice_of(target, 1)


def test_a_map_that_is_not_finite_is_a_row(tmp_path: Path) -> None:
    eb = method()
    run = eb.run

    def spoiled(x: Any, target: Any) -> Any:
        result = run(x, target)
        result.maps[x.amax((1, 2, 3)) > 1e3] = float("nan")
        return result

    eb.run = spoiled  # type: ignore[method-assign]
    for row in range(3):
        np.save(tmp_path / f"{row}.npy", np.full((3, 112, 112), 5e3 if row == 1 else 1.0, np.float32))
    batch.run(tmp_path, eb, tmp_path / "out", target=3, **SMALL)
    errors = [entry.error for entry in batch.open(tmp_path / "out")]
    assert errors == [None, "layer 'pool1': the map holds NaN or infinity", None]


@pytest.mark.parametrize(
    ("image", "more", "options", "message"),
    [
        ([1, 2], {}, {}, r"column 'image' holds int64; wanted encoded images"),
        ([["x"], ["y"]], {}, {}, r"column 'image' holds list<.*string>; wanted encoded images"),
        ([b"1", b"2"], {"t": [0.5, 1.5]}, {"target": "t"}, r"column 't' holds double; wanted classes"),
        ([b"1", b"2"], {"n": [b"1", b"2"]}, {"name": "n"}, r"column 'n' holds binary; wanted names"),
    ],
)
def test_columns_of_the_wrong_type_are_named_before_the_run(
    image: list[Any], more: dict[str, Any], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"image": image, **more}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / "t.parquet", **options)


def test_columns_of_numbers_lists_and_dictionaries_are_taken(tmp_path: Path) -> None:
    classes = pa.array([[1, 2], [3]])
    names = pa.array(["a", "b"]).dictionary_encode()
    pq.write_table(pa.table({"image": [b"1", b"2"], "t": classes, "n": names}), tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet", target="t", name="n")
    assert [(source[row].name, source[row].target) for row in range(2)] == [("a", "1,2"), ("b", "3")]


def test_mixed_parquet_files_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"1"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": ["x.png"]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: column 'image' holds text, and in a\.parquet encoded images"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", b"a.png\nb\0c.png\n", r"l\.txt: line 2 has a zero byte"),
        ("l.csv", b"image\na\0.png\n", r"l\.csv: line 2"),
        ("l.csv", b"image\n" + b"a" * 200_000, r"l\.csv: line 2: field larger than field limit"),
        ("l.csv", b'image\n"a\n', "line"),
        ("t.tar", b"x" * 5000, "not a readable uncompressed tar archive"),
        ("t.parquet", b"PAR1" + b"\xff" * 400 + b"PAR1", "not a readable Parquet file"),
    ],
)
def test_damaged_sources_are_named_with_their_place(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    try:
        open_source(tmp_path / name)
    except InputError as error:
        assert __import__("re").search(message, str(error)), error
    else:
        assert message == "line", "this one is a list of a file that is not there"


def test_lines_end_where_files_say_so(tmp_path: Path) -> None:
    """str.splitlines would cut a path at letters that are no ends of lines, and csv fields may hold ends of lines."""
    (tmp_path / "l.txt").write_bytes("a\u2028b\x0bc.png\r\nd.png".encode())
    assert [open_source(tmp_path / "l.txt")[row].name for row in range(2)] == ["a\u2028b\x0bc.png", "d.png"]
    (tmp_path / "l.csv").write_bytes(b'image,t\r\n"a\nb.png",1\r\n\r\nc.png,2\r\n')
    source = open_source(tmp_path / "l.csv", target="t")
    assert [source[row].name for row in range(len(source))] == ["a\nb.png", "c.png"]


def test_members_that_lie_are_named(images: dict[str, bytes], tmp_path: Path) -> None:
    data = bytearray(write_tar(tmp_path / "a.tar", dict(list(images.items())[:1]), ["3"]).read_bytes())
    data[124:136] = b"\x80" + b"\xff" * 11  # the member's size, as a number of 88 bits
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    (tmp_path / "b.tar").write_bytes(data)
    with pytest.raises(InputError, match="not a readable uncompressed tar archive"):
        open_source(tmp_path / "b.tar")
    many = dict(list(images.items())[:1])
    with pytest.raises(InputError, match=r"has 70000 bytes; classes take at most 65536"):
        open_source(write_tar(tmp_path / "c.tar", many, ["3" * 70_000]), target="cls")


def test_damaged_runs_are_named(folder: Path, eb: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch.run(folder, eb, out, target=3, **SMALL)
    shard = out / "shards" / "shard-000000.npz"
    whole = shard.read_bytes()
    head = whole.index(b"PK\x01\x02")
    encrypted, unknown = bytearray(whole), bytearray(whole)
    encrypted[head + 8] |= 1
    unknown[head + 10 : head + 12] = b"\x63\x00"  # a way of compression that nobody knows
    for damaged in (encrypted, unknown, whole[:-30], whole[: len(whole) // 2], whole.replace(b"NUMPY", b"NUMPX")):
        shard.write_bytes(damaged)
        with pytest.raises(InputError, match=r"shard-000000\.npz: "):
            list(batch.open(out))
    with zipfile.ZipFile(shard, "w") as archive:
        archive.writestr("0.npy", b"")
    with pytest.raises(InputError, match=r"shard-000000\.npz"):
        list(batch.open(out))
    shard.write_bytes(whole)
    index = out / "index" / "shard-000001.parquet"
    index.write_bytes(index.read_bytes()[:200])
    with pytest.raises(InputError, match=r"shard-000001\.parquet: the shard is damaged"):
        batch.open(out).index()
    manifest = json.loads((out / "manifest.json").read_text())
    for text in ("[" * 100_000, '{"format": 1' + "0" * 5000 + "}", "\ud800".encode("utf-8", "surrogatepass"), "[]"):
        (out / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(InputError, match=r"manifest\.json"):
            batch.open(out)
    (out / "manifest.json").unlink()
    os.mkfifo(out / "manifest.json")
    with pytest.raises(InputError, match=r"manifest\.json: not a regular file"):
        batch.open(out)
    assert manifest["format"] == "ebp_cuda batch 2"


def test_the_index_says_what_people_join_on(folder: Path, eb: Any, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    labels = [f"digit {n}, number" for n in range(10)]
    batch.run(folder, eb, tmp_path / "out", target="top2", labels=labels, **SMALL)
    table = pandas.read_parquet(tmp_path / "out" / "index")
    assert str(table["target"].dtype) == str(table["k"].dtype) == "Int32", "whole numbers, though some are missing"
    good = table[table["error"].isna()]
    assert (good["label"] == "digit " + good["target"].astype(str)).all()
    assert set(good["width"]) == set(good["height"]) == {112} and set(good["rules"]) == {"caffe"}
    assert set(good["layer"]) == {"pool1"} and set(good["contrast_layer"]) == {"pool_ave"}
    entry = next(iter(batch.open(tmp_path / "out")))
    first = good.iloc[0]
    assert entry.maps is not None
    assert entry.maps[0][int(first["peak_y"] / 4), int(first["peak_x"] / 4)] == entry.maps[0].max()
    x = np.asarray(Image.open(folder / first["image"]))
    assert x.shape == (112, 112, 3) and 0 < first["mass_left"] <= 1.05
    assert len(table[table["error"].notna()]) == 2 and table["content"].notna().all()
