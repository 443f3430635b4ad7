"""What a run reads: folders, lists, archives and Parquet files with the same images, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from support.batch_data import COUNT, SMALL, digests, photos, write_folder, write_parquet, write_tar

from ebp_cuda import batch
from ebp_cuda.batch.source import ListingDigest
from ebp_cuda.batch.sources import open_source
from ebp_cuda.errors import InputError
from ebp_cuda.images.preprocess import load_image, prepare
from ebp_cuda.models import digits

pytest_plugins = ["support.batch_fixtures"]
CLASSES = [str(row % 10) for row in range(COUNT)]


@pytest.mark.parametrize("kind", ["list", "csv", "tar", "bytes", "struct", "paths"])
def test_every_source_gives_the_same_maps(
    kind: str, whole: Path, folder: Path, images: dict[str, bytes], eb: Any, tmp_path: Path
) -> None:
    names = [str(folder / name) for name in images]
    if kind == "list":
        source = tmp_path / "list.txt"
        source.write_text("# photos\n\n" + "\n".join(names))
    elif kind == "csv":
        source = tmp_path / "list.csv"
        source.write_text("image,other\n" + "".join(f'"{name}",1\n' for name in names))
    elif kind == "tar":
        source = write_tar(tmp_path / "part.tar", images, CLASSES).parent
    else:
        structs = [{"bytes": data, "path": name} for name, data in images.items()]
        column: list[Any] = {"bytes": list(images.values()), "struct": structs, "paths": names}[kind]
        source = write_parquet(tmp_path / "table.parquet", images, column)
    batch.run(source, eb, tmp_path / "out", target="top2", **SMALL)
    assert digests(tmp_path / "out") == digests(whole)


@pytest.mark.parametrize("kind", ["csv", "tar", "parquet"])
def test_targets_of_the_source(kind: str, folder: Path, images: dict[str, bytes], eb: Any, tmp_path: Path) -> None:
    wanted: list[Any] = [*CLASSES]
    wanted[1], wanted[2] = "3,4", "no such class"
    if kind == "csv":
        source = tmp_path / "list.csv"
        rows = [f'{folder / name},"{target}"' for name, target in zip(images, wanted, strict=True)]
        source.write_text("\n".join(["image,cls", *rows]))
    elif kind == "tar":
        source = write_tar(tmp_path / "part.tar", images, wanted)
    else:
        lists = [[3, 4] if row == 1 else target for row, target in enumerate(wanted)]
        column = [[t] if isinstance(t, str) else [str(i) for i in t] for t in lists]
        source = write_parquet(tmp_path / "t.parquet", images, list(images.values()), cls=column)
    batch.run(source, eb, tmp_path / "out", target="@cls", **SMALL)
    entries = list(batch.open(tmp_path / "out"))
    assert "no such class" in entries[2].error
    assert entries[1].targets == [3, 4] and entries[1].maps.shape == (2, 28, 28)
    good = [row for row, entry in enumerate(entries) if entry.error is None and row != 1]
    assert [entries[row].targets for row in good] == [[int(wanted[row])] for row in good]
    alone = eb.attribute(prepare(load_image(folder / next(iter(images))), digits.PREPROCESS), [0])
    assert torch.allclose(torch.from_numpy(entries[0].maps), alone[0], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda at: at / "absent", "no such folder or file"),
        (lambda at: at, "found none"),
        (lambda at: write_folder(at, {"a.png": b"", "b.tar": b""}), "found 1 of kind folder, 1 of kind archive"),
        (lambda at: write_folder(at, {"a.tar": b"nonsense"}), "not a readable uncompressed tar archive"),
        (lambda at: write_folder(at, {"a.tar.gz": b""}) / "a.tar.gz", "only from an uncompressed archive"),
        (lambda at: write_folder(at, {"a.png": b""}) / "a.png", "`ebp-cuda attribute` takes single images"),
        (lambda at: write_folder(at, {"a.txt": b"\n"}) / "a.txt", "lists no image"),
        (lambda at: write_folder(at, {"a.csv": b"path\nx.png\n"}) / "a.csv", "no column 'image'; there are path"),
        (lambda at: write_folder(at, {"a.csv": b"image,b\nx.png\n"}) / "a.csv", "line 2 has 1 fields, the head line 2"),
        (lambda at: write_folder(at, {"a.parquet": b"PAR1"}), "not a readable Parquet file"),
        (lambda at: write_parquet(at / "a.parquet", {"a": b""}, [b""]).rename(at / "b.pdf"), "not a source of images"),
    ],
)
def test_sources_refuse(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        open_source(make(tmp_path))


def test_source_columns_refuse(folder: Path, images: dict[str, bytes], tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "a.parquet", images, list(images.values()))
    with pytest.raises(InputError, match="no column 'pixels'; there are name, image"):
        open_source(table, image="pixels")
    with pytest.raises(InputError, match="a folder says nothing of targets"):
        open_source(folder, target="cls")
    with pytest.raises(InputError, match=r"only \.csv and \.parquet sources have columns"):
        open_source(folder, image="image")
    archive = write_tar(tmp_path / "a.tar", images, CLASSES)
    with pytest.raises(InputError, match=r"has an image and no member \.label"):
        open_source(archive, target="label")
    assert open_source(table, name="name")[3].name == list(images)[3]
    assert open_source(table)[3].name == "a.parquet#3"


def test_names_that_are_not_unicode(eb: Any, tmp_path: Path) -> None:
    name = tmp_path / "photos" / b"caf\xe9.png".decode("utf-8", "surrogateescape")
    write_folder(tmp_path, {f"photos/{name.name}": photos(1)["a/000.png"]})
    batch.run(tmp_path / "photos", eb, tmp_path / "out", target=3, **SMALL)
    (entry,) = batch.open(tmp_path / "out")
    assert entry.image == "caf\\xe9.png" and entry.error is None


def test_a_listing_says_the_same_in_another_process() -> None:
    listing = ListingDigest()
    listing.add("a.jpg", 3)
    assert pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(listing)))).rows == listing.rows
