"""Photos, arrays, lists, archives, tables and runs: what is tried on their readers, and the seeds of it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ebp_cuda import batch
from ebp_cuda.batch.index import index_schema
from ebp_cuda.batch.output import FORMAT
from ebp_cuda.batch.photos import read_input
from ebp_cuda.batch.sources import open_source
from ebp_cuda.images.photo import Decoding
from ebp_cuda.images.preprocess import Preprocess, load_array
from fuzz.mutations import mutate_binary, mutate_text

_HOW = Preprocess(size=(16, 16))
_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX", "DDS", "SGI", "JPEG2000", "AVIF")


def photo_seeds() -> list[bytes]:
    """A small photo in every format that this Pillow writes."""
    seeds = []
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    for form in _FORMATS:
        file = io.BytesIO()
        try:
            Image.fromarray(pixels).save(file, form)
        except (KeyError, OSError):
            continue
        seeds.append(file.getvalue())
    for mode in ("P", "LA", "I;16", "1"):
        file = io.BytesIO()
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200) if mode == "I;16" else Image.fromarray(pixels)
        (image if mode == "I;16" else image.convert("L").convert(mode)).save(file, "PNG")
        seeds.append(file.getvalue())
    return seeds


def array_seeds() -> list[bytes]:
    """.npy files of several types."""
    seeds = []
    for array in (np.zeros((3, 4, 4), np.float32), np.ones((1, 3, 4, 4), np.uint8), np.asfortranarray(np.eye(4)[None])):
        file = io.BytesIO()
        np.save(file, array)
        seeds.append(file.getvalue())
    return seeds


def tar_seeds() -> list[bytes]:
    """Archives in every format that tarfile writes, with a photo and its class."""
    seeds = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as archive:
            for name, data in (("a" * 90 + ".png", photo_seeds()[0]), ("a" * 90 + ".cls", b"3")):
                head = tarfile.TarInfo(name)
                head.size = len(data)
                archive.addfile(head, io.BytesIO(data))
        seeds.append(file.getvalue())
    return seeds


def parquet_seeds() -> list[bytes]:
    """Tables of bytes, structs and paths."""
    seeds = []
    structs = [{"bytes": b"x", "path": "a"}]
    for column in ([photo_seeds()[0]], structs, ["a.png"], [None]):
        file = io.BytesIO()
        pq.write_table(pa.table({"image": column, "cls": [[1, 2]], "name": ["a"]}), file)
        seeds.append(file.getvalue())
    return seeds


def _write_run(folder: Path) -> dict[str, bytes]:
    """A run of one image; the bytes of its three files."""
    for part in ("index", "shards"):
        (folder / part).mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, "settings": {"target": "3"}}))
    row = {"image": "a", "target": 3, "score": 1.0, "row": 0, "k": 0, "digest": "0", "shard": "s"}
    pq.write_table(pa.Table.from_pylist([row], schema=index_schema()), folder / "index" / "s.parquet")
    np.savez(folder / "shards" / "s.npz", **{"0": np.zeros((1, 2, 2), np.float32)})
    return {name: (folder / name).read_bytes() for name in ("manifest.json", "index/s.parquet", "shards/s.npz")}


def run_seeds(name: str) -> list[bytes]:
    """One file of a run."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return [_write_run(Path(folder))[name]]


def try_photo(data: bytes, folder: Path) -> None:
    read_input("photo.png", _HOW, data=data, decoding=Decoding(max_pixels=20_000_000, fast=len(data) % 2 == 0))


def try_array(data: bytes, folder: Path) -> None:
    load_array("x.npy", data)


def _try_source(suffix: str, data: bytes, folder: Path, **columns: str) -> None:
    path = folder / f"source{suffix}"
    path.write_bytes(data)
    source = open_source(path, **columns)
    for row in range(min(len(source), 3)):
        item = source[row]
        item.name.encode()  # the index takes valid Unicode only
        item.place.read()


def try_list(data: bytes, folder: Path) -> None:
    _try_source(".txt", data, folder)


def try_csv(data: bytes, folder: Path) -> None:
    _try_source(".csv", data, folder, target="t")


def try_tar(data: bytes, folder: Path) -> None:
    _try_source(".tar", data, folder, target="cls")


def try_parquet(data: bytes, folder: Path) -> None:
    _try_source(".parquet", data, folder, target="cls")


def _try_run(name: str, data: bytes, folder: Path) -> None:
    _write_run(folder)
    (folder / name).write_bytes(data)
    reader = batch.open(folder, verify=False)
    reader.index()
    list(reader)


def try_manifest(data: bytes, folder: Path) -> None:
    _try_run("manifest.json", data, folder)


def try_index(data: bytes, folder: Path) -> None:
    _try_run("index/s.parquet", data, folder)


def try_maps(data: bytes, folder: Path) -> None:
    _try_run("shards/s.npz", data, folder)


TARGETS = {
    "photo": (photo_seeds, mutate_binary, try_photo),
    "array": (array_seeds, mutate_binary, try_array),
    "list": (lambda: [b"a.png\n# b\nc d.png\r\n\xff.png\n"], mutate_text, try_list),
    "csv": (lambda: [b'image,t\na.png,1\n"b,c.png","2,3"\n'], mutate_text, try_csv),
    "tar": (tar_seeds, mutate_binary, try_tar),
    "parquet": (parquet_seeds, mutate_binary, try_parquet),
    "manifest": (lambda: run_seeds("manifest.json"), mutate_text, try_manifest),
    "index": (lambda: run_seeds("index/s.parquet"), mutate_binary, try_index),
    "maps": (lambda: run_seeds("shards/s.npz"), mutate_binary, try_maps),
}
