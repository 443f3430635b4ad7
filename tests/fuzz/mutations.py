"""Changes to a file that know its format: blocks, numbers and names of a text; fields and lengths of bytes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

NUMBERS = [
    b"0", b"-1", b"1", b"2", b"3", b"7", b"255", b"65536", b"2147483647", b"2147483648", b"4294967295",
    b"9223372036854775807", b"-9223372036854775808", b"18446744073709551616", b"1e38", b"-1e39", b"nan", b"inf", b"0.5",
]  # fmt: skip
WORDS = [
    b"Scale", b"Reshape", b"Deconvolution", b"Tile", b"Crop", b"SPP", b"ArgMax", b"Interp", b"Upsample", b"BN", b"MVN",
    b"Normalize", b"Embed", b"Im2col", b"Permute", b"Slice", b"Eltwise", b"Reduction", b"Axpy", b"Split", b"Python",
    b"Squeeze", b"Reorg", b"BatchNorm", b"OwnLoss", b"MemoryData",
]  # fmt: skip


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
