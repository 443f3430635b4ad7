"""Fuzzing of the importers: `python tools/fuzz_import.py prototxt|caffemodel|hdf5|onnx [--seconds 60] [--seed 0]`.

Seeds are the test data; mutations know the format (blocks, numbers, names; fields, lengths). Whatever is no EBPError, a
model that onnx.checker refuses, an input that takes over 10 s or memory that grows by over 1 GB is a finding: it is
written to --out and the run ends with exit code 1. With --atheris, the mutations are guided by coverage.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import onnx
from memory import growth

from ebp_cuda.errors import EBPError

if "--atheris" in sys.argv:  # it watches the coverage of what is imported in here
    import atheris

    with atheris.instrument_imports(include=["ebp_cuda.importers"]):
        from ebp_cuda.importers import caffe
        from ebp_cuda.importers.onnx import load_onnx
else:
    from ebp_cuda.importers import caffe
    from ebp_cuda.importers.onnx import load_onnx


GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
BLOCK = GOLDEN / "caffemodel" / "inception_block"
SECONDS, MEGABYTES = 10.0, 1000
NUMBERS = [
    b"0", b"-1", b"1", b"2", b"3", b"7", b"255", b"65536", b"2147483647", b"2147483648", b"4294967295",
    b"9223372036854775807", b"-9223372036854775808", b"18446744073709551616", b"1e38", b"-1e39", b"nan", b"inf", b"0.5",
]  # fmt: skip
WORDS = [
    b"Scale", b"Reshape", b"Deconvolution", b"Tile", b"Crop", b"SPP", b"ArgMax", b"Interp", b"Upsample", b"BN", b"MVN",
    b"Normalize", b"Embed", b"Im2col", b"Permute", b"Slice", b"Eltwise", b"Reduction", b"Axpy", b"Split", b"Python",
    b"Squeeze", b"Reorg", b"BatchNorm", b"OwnLoss", b"MemoryData",
]  # fmt: skip
EXTRA = b"""
input: "x" input_shape { dim: 1 dim: 4 dim: 8 dim: 8 }
layer { name: "a" type: "Interp" bottom: "x" top: "a" interp_param { zoom_factor: 2 pad_beg: -1 } }
layer { name: "b" type: "Crop" bottom: "a" bottom: "x" top: "b" crop_param { offset: 1 offset: 2 } }
layer { name: "c" type: "Tile" bottom: "b" top: "c" tile_param { axis: 1 tiles: 2 } }
layer { name: "d" type: "ShuffleChannel" bottom: "c" top: "d" shuffle_channel_param { group: 4 } }
layer { name: "e" type: "SPP" bottom: "d" top: "e" spp_param { pyramid_height: 2 pool: AVE } }
layer { name: "f" type: "ArgMax" bottom: "d" top: "f" argmax_param { top_k: 2 axis: 1 out_max_val: true } }
layer { name: "g" type: "Reshape" bottom: "c" top: "g" reshape_param { shape { dim: 0 dim: -1 } axis: 0 num_axes: -1 } }
layer { name: "h" type: "Embed" bottom: "f" top: "h" embed_param { num_output: 3 input_dim: 9 } }
layer { name: "i" type: "BN" bottom: "d" top: "i" bn_param { frozen: true } }
layer { name: "j" type: "Im2col" bottom: "x" top: "j" convolution_param { kernel_size: 3 } }
layer { name: "k" type: "Slice" bottom: "x" top: "k" top: "l" slice_param { axis: 1 slice_point: 1 } }
layer { name: "m" type: "Pooling" bottom: "x" top: "m" top: "n" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "o" type: "Upsample" bottom: "m" bottom: "n" top: "o" upsample_param { scale: 2 } }
layer { name: "p" type: "Reorg" bottom: "x" top: "p" reorg_param { stride: 2 reverse: true } }
layer { name: "q" type: "BatchNorm" bottom: "p" top: "q" batch_norm_param { scale_bias: true filler {} } }
layer { name: "r" type: "Pooling" bottom: "q" top: "r" pooling_param { pool: AVE_EXC_PAD kernel_size: 3 ceil_mode: false
    pad_t: 1 pad_b: 1 pad_l: 0 pad_r: 1 } }
layer { name: "s" type: "Convolution" bottom: "x" top: "s" convolution_param { num_output: 2 kernel_size: 3 pad_b: 1 } }
layer { name: "t" type: "Slice" bottom: "s" top: "t" slice_param { axis: 0 } }
layer { name: "u" type: "Squeeze" bottom: "t" top: "u" squeeze_param { axis: 0 } }
layer { name: "v" type: "Reduction" bottom: "u" top: "v" reduction_param { axis: 0 } }
"""
VERSION_0 = b"""
layers { layer { name: "d" type: "data" batchsize: 1 cropsize: 8 } top: "d" top: "l" }
layers { layer { name: "p" type: "padding" pad: 1 } bottom: "d" top: "p" }
layers { layer { name: "c" type: "conv" num_output: 2 kernelsize: 3 } bottom: "p" top: "c" }
layers { layer { name: "i" type: "innerproduct" num_output: 2 } bottom: "c" top: "i" }
"""


def prototxt_seeds() -> list[bytes]:
    files = [*(GOLDEN / "tiny").glob("*.prototxt"), *(GOLDEN / "caffemodel").glob("*.prototxt")]
    return [EXTRA, VERSION_0, *(path.read_bytes() for path in sorted(files))]


def mutate_text(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        data = rng.choice(TEXT_MUTATIONS)(data, rng, others)
    return data[: 1 << 20]


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    """A block in braces, from its name to its end."""
    starts = [match.start() for match in re.finditer(rb"\w+\s*\{", data)]
    if not starts:
        return 0, len(data)
    start = rng.choice(starts)
    depth, at = 0, start
    while at < len(data):
        depth += (data[at : at + 1] == b"{") - (data[at : at + 1] == b"}")
        at += 1
        if depth == 0 and data[at - 1 : at] == b"}":
            break
    return start, at


def _swap(pattern: bytes, choices: list[bytes]) -> Callable[[bytes, random.Random, list[bytes]], bytes]:
    def swapped(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
        found = list(re.finditer(pattern, data))
        if not found:
            return data
        start, end = rng.choice(found).span(1)
        with_what = choices or [match.group(1) for match in found]
        return data[:start] + rng.choice(with_what) + data[end:]

    return swapped


def _delete_block(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _repeat_block(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + b"\n" + data[start:end] * rng.choice((1, 1, 2, 50)) + data[end:]


def _borrow_block(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    other = rng.choice(others)
    start, end = _span(other, rng)
    at = rng.choice([match.end() for match in re.finditer(rb"[{}\n]", data)] or [0])
    return data[:at] + other[start:end] + data[at:]


def _bytes(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    junk = rng.choice((*(bytes([byte]) for byte in b'{}<["\\\0:#-'), b"\xff\xfe", b"\xed\xa0\x80", b"{" * 500))
    return data[:at] + junk + data[at + rng.choice((0, 1, 5)) :]


def _truncate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


TEXT_MUTATIONS = [
    _swap(rb":\s*(-?[0-9][\w.+-]*)", NUMBERS), _swap(rb":\s*(-?[0-9][\w.+-]*)", NUMBERS),
    _swap(rb'"([^"\n]*)"', []), _swap(rb'type:\s*"([^"\n]*)"', WORDS), _swap(rb"(\w+)\s*[:{]", []),
    _delete_block, _repeat_block, _borrow_block, _bytes, _truncate,
]  # fmt: skip


def mutate_binary(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        # headers stand near one another and before the weights: most of the changes go there
        limit = rng.choice((64, 512, 4096, len(changed)))
        at = rng.randrange(min(len(changed), limit) or 1)
        match rng.randrange(6):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + 1] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 9))))
            case 2:
                changed[at : at + 1] = b"\xff" * rng.choice((1, 4, 8, 9)) + bytes([rng.choice((0, 1, 127))])
            case 3:
                del changed[at : at + rng.choice((1, 4, 100))]
            case 4:
                del changed[rng.randrange(len(changed) + 1) :]
            case _:
                start = rng.randrange(len(changed) + 1)
                changed[at:at] = changed[start : start + rng.choice((1, 20, 300))]
    return bytes(changed)


def try_prototxt(data: bytes, folder: Path) -> None:
    path = folder / "net.prototxt"
    path.write_bytes(data)
    onnx.checker.check_model(caffe.to_onnx(path))


def try_caffemodel(data: bytes, folder: Path) -> None:
    path = folder / "net.caffemodel"
    path.write_bytes(data)
    caffe.read_weights(path)
    caffe.to_onnx(f"{BLOCK}.prototxt", path)


def try_onnx(data: bytes, folder: Path) -> None:
    path = folder / "net.onnx"
    path.write_bytes(data)
    load_onnx(path)


def onnx_seeds() -> list[bytes]:
    found = [caffe.to_onnx(f"{BLOCK}.prototxt", f"{BLOCK}.caffemodel").SerializeToString()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.prototxt"
        path.write_bytes(EXTRA)
        return [*found, caffe.to_onnx(path).SerializeToString()]


TARGETS = {
    "prototxt": (prototxt_seeds, mutate_text, try_prototxt),
    "caffemodel": (
        lambda: [p.read_bytes() for p in sorted(BLOCK.parent.glob("*.caffemodel"))], mutate_binary, try_caffemodel,
    ),
    "hdf5": (lambda: [p.read_bytes() for p in sorted(BLOCK.parent.glob("*.h5"))], mutate_binary, try_caffemodel),
    "onnx": (onnx_seeds, mutate_binary, try_onnx),
}  # fmt: skip


def finding(target: Callable[[bytes, Path], None], data: bytes, folder: Path) -> str | None:
    """What is wrong with how an input was taken; None where it was imported or refused as promised."""
    start = time.process_time()

    def taken() -> None:
        with contextlib.suppress(EBPError):
            target(data, folder)

    try:
        grown = growth(taken) / 1e6
    except Exception:
        return traceback.format_exc()
    seconds = time.process_time() - start
    if seconds > SECONDS or grown > MEGABYTES:
        return f"{seconds:.1f} s, {grown:.0f} MB"
    return None


def with_atheris(name: str, seconds: float) -> None:
    """Guided by the coverage of the importers."""
    seeds, mutate, target = TARGETS[name]
    known = seeds()
    folder = Path(tempfile.mkdtemp())
    for index, seed in enumerate(known):
        (folder / f"seed{index}").write_bytes(seed)

    def change(data: bytes, size: int, seed: int) -> bytes:
        return mutate(data or known[0], random.Random(seed), known)[:size]

    def test(data: bytes) -> None:
        problem = finding(target, data, folder)
        if problem:
            raise RuntimeError(problem)

    options = [f"-max_total_time={int(seconds)}", "-timeout=10", "-rss_limit_mb=2000", "-max_len=1000000"]
    atheris.Setup([sys.argv[0], *options, str(folder)], test, custom_mutator=change)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("findings"))
    parser.add_argument("--atheris", action="store_true")
    options = parser.parse_args()
    if options.atheris:
        with_atheris(options.target, options.seconds)
    seeds, mutate, target = TARGETS[options.target]
    known, rng = seeds(), random.Random(options.seed)
    seen: dict[str, int] = {}
    count, end = 0, time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            data = mutate(rng.choice(known), rng, known)
            (Path(folder) / "last").write_bytes(data)
            problem = finding(target, data, Path(folder))
            count += 1
            if problem:
                key = problem.strip().splitlines()[-1][:80]
                seen[key] = seen.get(key, 0) + 1
                if seen[key] == 1:
                    options.out.mkdir(exist_ok=True)
                    (options.out / f"{options.target}-{options.seed}-{count}").write_bytes(data)
                    print(problem)
    print(f"{options.target}: {count} inputs, {sum(seen.values())} findings of {len(seen)} kinds")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
