"""What makes two runs one: the digests that --resume compares.

The manifest holds what is cheap to know beforehand: the model, the settings, and names, order, sizes and targets of the
images. The content of the images is known only as they are read, and stands in the index row by row; it is compared
where the files were touched since the run began, or where that is asked for.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from ..errors import EBPError, InputError
from ..graph import Graph
from .decoding import content_digest
from .source import ImageSource

_NOT_COMPARED = ("made_with.", "source.modified")


def graph_digest(graph: Graph) -> str:
    """sha256 over a network's inputs, layers, weights, names and outputs, whatever file they came from."""
    digest = hashlib.sha256()
    names = sorted(graph.names.items())
    digest.update(repr((sorted(graph.inputs.items()), list(graph.outputs), names)).encode("utf-8", "surrogatepass"))
    for node in graph.nodes:
        facts = repr((node.name, node.op, node.inputs, node.outputs, sorted(node.attrs.items())))
        digest.update(facts.encode("utf-8", "surrogatepass"))
        for name, param in sorted(node.params.items()):
            digest.update(f"{name} {param.dtype} {list(param.shape)}".encode())
            flat = param.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two manifests, in words; who made them, and when files were touched, does not count."""
    old, new = _flat(before), _flat(now)
    keys = [key for key in dict.fromkeys([*old, *new]) if not key.startswith(_NOT_COMPARED)]
    return [f"{key} was {old.get(key)!r}, now {new.get(key)!r}" for key in keys if old.get(key) != new.get(key)]


def was_touched(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a file of the source was written to or replaced between two manifests."""
    return bool(before["source"].get("modified") != now["source"].get("modified"))


def check_contents(source: ImageSource, shards: Sequence[tuple[range, Mapping[int, str | None]]], reason: str) -> None:
    """Compares images with what a run has read of them.

    Args:
        source: the images.
        shards: rows of the source, and the digest of each by its number in the shard, None where nothing was read.
        reason: why they are compared; a warning says so, since it takes as long as reading them.

    Raises:
        InputError: an image is another one now.
    """
    count = sum(len(rows) for rows, _ in shards)
    if count:
        warnings.warn(f"{reason}: comparing {count} images with what the run has read of them", stacklevel=2)
    for rows, digests in shards:
        _check(source, rows, digests)


def _check(source: ImageSource, rows: Iterable[int], digests: Mapping[int, str | None]) -> None:
    for number, row in enumerate(rows):
        item, before = source[row], digests.get(number)
        if before is None:
            continue
        try:
            now = content_digest(item.place.read())
        except EBPError as error:
            raise InputError(f"--resume: {item.name} was read before and cannot be now: {error}") from error
        if now != before:
            raise InputError(
                f"--resume: {item.name} is another image than the run has read: its sha256 was {before}, now {now}"
            )


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return flat
