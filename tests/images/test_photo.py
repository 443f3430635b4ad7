"""Photos stay as they are until they have their size: in 8 bits, within the pixel limit, by any name and format."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import paths

from ebp_cuda.batch.photos import read_input
from ebp_cuda.errors import InputError
from ebp_cuda.images import photo
from ebp_cuda.images.photo import Decoding, open_photo
from ebp_cuda.images.preprocess import Preprocess, load_array, load_image, prepare

FAST = Decoding(fast=True)
HALF = Preprocess(size=(40, 30))


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def scene(height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3], smooth, with edges."""
    y, x = np.mgrid[:height, :width]
    planes = [127 + 120 * np.sin(x / 17 + c) * np.cos(y / 23) + 8 * ((x // 40 + y // 40) % 2) for c in range(3)]
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def white_png(side: int) -> bytes:
    """A PNG of side x side pixels of one bit, some kilobytes."""
    row = b"\0" + b"\xff" * ((side + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", body) + piece(b"IEND", b"")


def test_eight_bits_are_resized_in_eight_bits() -> None:
    pixels = scene(200, 150)
    found = open_photo("x.png", encoded(pixels))
    wanted = np.asarray(Image.fromarray(pixels).resize((30, 40), Image.Resampling.BILINEAR))
    assert found.pixels((40, 30)).dtype == np.uint8 and np.array_equal(found.pixels((40, 30)), wanted)
    x = prepare(found, HALF)
    assert np.array_equal(x[0].numpy(), wanted.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    assert np.array_equal(prepare(pixels, HALF).numpy(), x.numpy()), "an array of 8 bits is the same photo"
    assert np.array_equal(prepare(load_image("x.png", encoded(pixels)), HALF).numpy(), x.numpy()), "and one of n / 255"
    in_float = prepare(pixels.astype(np.float32) / np.float32(255.001), HALF)
    assert 0 < float((in_float - x).abs().max()) <= 1.02 / 255, "Pillow rounds after each of the two axes"


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_modes_are_resized_as_their_rgb_is(mode: str) -> None:
    image = Image.fromarray(scene(64, 48))
    if mode == "I;16":
        image = Image.fromarray((np.arange(64 * 48).reshape(64, 48) * 20).astype(np.uint16))
    else:
        image = image.convert("L").convert(mode) if mode in ("LA", "1") else image.convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG")
    found = open_photo("x", file.getvalue())
    in_float = load_image("x", file.getvalue())
    assert found.pixels().shape == in_float.shape == (64, 48, 3)
    assert np.array_equal(prepare(found, HALF).numpy(), prepare(in_float, HALF).numpy())


def test_transparency_in_strips_is_transparency_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 19, 4), dtype=np.uint8)
    at_once = open_photo("x.png", encoded(pixels)).pixels()
    monkeypatch.setattr(photo, "_STRIP", 19 * 5)
    assert np.array_equal(open_photo("x.png", encoded(pixels)).pixels(), at_once)
    white = Image.alpha_composite(Image.new("RGBA", (19, 37), "white"), Image.fromarray(pixels)).convert("RGB")
    assert np.array_equal(at_once, np.asarray(white))


def test_the_pixel_limit_is_a_clear_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    data = white_png(400)
    with pytest.raises(InputError, match=r"x\.png: 400 x 400 = 160000 pixels, more than the 159999 of --max-pixels"):
        open_photo("x.png", data, decoding=Decoding(max_pixels=159_999))
    assert open_photo("x.png", data, decoding=Decoding(max_pixels=160_000)).size == (400, 400)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own limit, which a larger one of ours lifts
    assert open_photo("x.png", data).size == (400, 400)
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(InputError, match="--max-pixels"):
        open_photo("x.png", data, decoding=Decoding(max_pixels=2000))
    with pytest.raises(InputError, match="max_pixels is a positive number"):
        Decoding(max_pixels=0)


_PEAK = """
import sys
sys.path.insert(0, "../tools")
from memory import resident
from images.test_photo import HALF, read_input, white_png
data = white_png(12_000)
before = resident("VmHWM")
read_input("x.png", HALF, data=data)
print(resident("VmHWM") - before)
"""


@pytest.mark.slow
def test_a_small_file_of_many_pixels_takes_a_few_bytes_for_each() -> None:
    """About 5 s: 144 million pixels in 20 kB took 4 GB, since each pixel was three floats before it was resized."""
    command = [sys.executable, "-W", "ignore", "-c", _PEAK]
    done = subprocess.run(command, cwd=paths.TESTS, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4 * 144e6


def test_fast_decoding_is_asked_for_and_near() -> None:
    pixels = scene(1200, 900)
    data = encoded(pixels, "JPEG", quality=95)
    exact, fast = (read_input("x.jpg", HALF, data=data, decoding=how) for how in (Decoding(), FAST))
    assert fast.size == exact.size == (1200, 900), "the size is the file's, whatever was decoded"
    difference = (exact.x - fast.x).abs().max()
    assert 0 < difference < 20 / 255
    assert open_photo("x.jpg", data, decoding=FAST, size_wanted=HALF.size_of).image.width < 900
    small = encoded(scene(60, 50), "JPEG")
    assert open_photo("x.jpg", small, decoding=FAST, size_wanted=HALF.size_of).image.size == (50, 60)


def test_a_photo_on_its_side_has_its_size_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(scene(800, 400), "JPEG", exif=exif)
    for decoding in (Decoding(), FAST):
        assert open_photo("x.jpg", data, decoding=decoding, size_wanted=HALF.size_of).size == (400, 800)
    assert open_photo("x.jpg", data, upright=False).size == (800, 400)


@pytest.mark.parametrize(
    "error",
    [NotImplementedError("DDS"), RuntimeError("AVIF"), AttributeError("SPIDER"), SyntaxError("x"), MemoryError(),
     struct.error("x"), RecursionError("x"), ValueError("x"), ZeroDivisionError("x"), KeyError("x")],
)  # fmt: skip
def test_whatever_a_decoder_raises_is_an_input_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match=r"x\.png: the image cannot be read"):
        open_photo("x.png", b"")


def npy(head: bytes, body: bytes = b"") -> bytes:
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + body


@pytest.mark.parametrize(
    "head",
    [
        b"{'descr': '<f4', 'shape': (((((",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1000000, 1000000)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1180591620717411303424, 8, 8)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8, 8)}",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (3, 8, 8)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8, 8)",
        b"\xff" * 40,
        b"[" * 5000,
        b"{'descr': ('<f4', (3, 3)), 'fortran_order': False, 'shape': (3, 8, 8)}",
    ],
)
def test_heads_of_arrays_that_lie_are_refused_before_memory_is_taken(head: bytes) -> None:
    with pytest.raises(InputError, match=r"x\.npy"):
        load_array("x.npy", npy(head, bytes(64)))


def test_values_beyond_float32_are_refused_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((1, 2, 2), 1e300))
    with pytest.raises(InputError, match=r"NaN or infinity at \[n, c, y, x\] = \[0, 0, 0, 0\]"):
        load_array(tmp_path / "x.npy")


@pytest.mark.parametrize("load", [load_image, load_array])
def test_pipes_and_devices_are_refused_and_not_waited_for(load: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    for path in (tmp_path / "pipe.npy", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match="not a regular file"):
            load(path)
