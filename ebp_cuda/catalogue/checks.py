"""Whether a file is the published one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path


def digests(path: Path, algorithms: Sequence[str]) -> dict[str, str]:
    """hashlib name -> hex digest of the file's bytes."""
    hashers = {algorithm: hashlib.new(algorithm) for algorithm in algorithms}
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            for hasher in hashers.values():
                hasher.update(chunk)
    return {algorithm: hasher.hexdigest() for algorithm, hasher in hashers.items()}


def check_file(path: Path, size: int | None, hashes: Mapping[str, str]) -> str:
    """What is wrong with a complete file: an empty string, or got and wanted."""
    got = path.stat().st_size
    if size is not None and got != size:
        return f"{got} bytes, wanted {size}"
    held = digests(path, list(hashes))
    for algorithm, published in hashes.items():
        if held[algorithm] != published:
            return f"{algorithm} {held[algorithm]}, wanted {published}"
    return ""
