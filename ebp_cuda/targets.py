"""Classes as people write them: indices, names, topN, all; as tensors; and as what a sweep starts from."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .errors import InputError, nearest_names
from .interop import to_tensor
from .ops.host_sync import minmax

_DIGITS = 9
"""Of an index, and of N in topN: Python refuses to read very many."""
_TOP = rf"top(\d{{1,{_DIGITS}}})"

Target = int | str | Sequence[int] | torch.Tensor | Any


@dataclass(frozen=True)
class Choice:
    """The classes asked for of every image of a batch, read as far as that goes without the scores."""

    kind: str
    """"given", "top" (the highest scores) or "all"."""
    count: int
    """K; 0 for "all"."""
    given: torch.Tensor | None = None
    """int64 [N, K], wherever the caller has it."""
    lowest: float = 0
    highest: float = 0
    """Of the given classes, where the host has them; those on a GPU are in the call's status."""

    def check(self, classes: int) -> None:
        """Raises InputError where the host knows that the model has too few classes for the choice."""
        if self.kind == "top" and not 1 <= self.count <= classes:
            raise InputError(f"target='top{self.count}': wanted an index, 'all' or 'top1' to 'top{classes}'")
        if self.lowest < 0 or self.highest >= classes:
            bad = self.lowest if self.lowest < 0 else self.highest
            raise InputError(f"target {bad:.0f}: the model has classes 0 to {classes - 1}")

    def of(self, scores: torch.Tensor) -> torch.Tensor:
        """The classes, int64 [N, K] on the device of the scores [N, classes]; `check` comes first."""
        if self.kind == "top":
            return scores.topk(self.count, dim=1).indices
        if self.given is None:
            images, classes = scores.shape
            return torch.arange(classes, device=scores.device).expand(images, classes)
        return self.given.to(scores.device)


def choice_of(target: Target, images: int, labels: Sequence[str] | None = None) -> Choice:
    """A target as ExcitationBackprop.attribute takes it, for a batch of `images`. Raises InputError.

    labels: the names of the classes, which are targets too where they are known.
    """
    if isinstance(target, str):
        if target == "all":
            return Choice("all", 0)
        if match := re.fullmatch(_TOP, target):
            return Choice("top", int(match[1]))
        target = _indices_of([target], labels)[0]
    elif isinstance(target, (list, tuple)) and any(isinstance(name, str) for name in target):
        target = _indices_of(target, labels)
    try:
        indices = to_tensor(target) if hasattr(target, "__dlpack__") else torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError, BufferError):
        raise InputError(f"target={target!r}: wanted class indices") from None
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise InputError(f"target has dtype {indices.dtype}, wanted integers")
    if indices.dim() == 0:
        indices = indices.expand(images)
    if indices.dim() > 2 or indices.shape[0] != images or indices.numel() == 0:
        raise InputError(f"target has shape {list(indices.shape)}, wanted a class, [{images}] or [{images}, K]")
    indices = indices.to(torch.int64).reshape(images, -1)
    return Choice("given", indices.shape[1], indices, *((minmax(indices) if indices.is_cpu else None) or (0, 0)))


def _indices_of(names: Sequence[Any], labels: Sequence[str] | None) -> list[int]:
    """The classes of these names; of numbers among them, the numbers."""
    if labels is None:
        first = next(name for name in names if isinstance(name, str))
        raise InputError(
            f"target='{_shown(first)}': wanted an index, 'all' or 'topN'; the model has no class names (labels=)"
        )
    indices = []
    for name in names:
        try:
            indices.append(_by_name(name, labels) if isinstance(name, str) else operator.index(name))
        except InputError as error:
            raise InputError(
                f"target='{_shown(name)}': wanted an index, 'all', 'topN' or a class name: {error}"
            ) from None
        except (TypeError, ValueError):
            raise InputError(f"target={names!r}: wanted class names or indices") from None
    return indices


def class_seed(top: torch.Tensor, targets: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
    """The distribution that a sweep starts from: probability 1 on each target.

    A spatial top (fully convolutional network) shares it over positions by a softmax of the class's scores, as the
    original's demo does. A top with one number for each image has that one class.

    Args:
        top: activation [N, classes, ...] or [N].
        targets: int64 [N, K].
        positions: [N, 1 or K, ...], the share of every position in place of the softmax.

    Returns:
        [N*K, classes, ...] or [N*K], as the top.
    """
    images, count = targets.shape
    if top.dim() == 1:
        return top.new_ones(images * count)
    classes = torch.arange(top.shape[1], device=top.device)
    chosen = (targets.unsqueeze(2) == classes).reshape(images, count, -1, *[1] * (top.dim() - 2))
    share = class_share(top).unsqueeze(1) if positions is None else positions.to(top.dtype).unsqueeze(2)
    return torch.where(chosen, share, share.new_zeros(1)).flatten(0, 1)


def class_share(scores: torch.Tensor) -> torch.Tensor:
    """How probability 1 on a class lies over the positions of scores [N, classes, ...]: a softmax over them."""
    if scores.dim() < 3:
        return torch.ones_like(scores)
    return scores.flatten(2).softmax(2).reshape(scores.shape)


def parse_targets(text: str, labels: Sequence[str] | None, classes: int) -> list[int] | str:
    """Class indices of a comma-separated list of indices and names, in the order given; "topN" comes back as it is.

    "all" is every class. A name matches without regard to case, either the whole label or one of its
    comma-separated synonyms ("drum" of "drum, membranophone"); a label that holds commas may be given whole.
    Raises InputError for an index out of range, an unknown name (with the nearest ones) and an ambiguous one.
    """
    text = text.strip()
    if text == "all":
        return list(range(classes))
    if top := re.fullmatch(_TOP, text):
        if not 1 <= int(top[1]) <= classes:
            raise InputError(f"target '{text}': the model has {classes} classes")
        return text
    if labels and text.casefold() in (label.casefold() for label in labels):
        return [_by_name(text, labels)]
    tokens = [token.strip() for token in text.split(",")]
    if not all(tokens):
        examples = "such as 281, 281,282, top5, all or a class name"
        raise InputError(f"target '{_shown(text)}': an empty entry; wanted {examples}")
    return [_index(token, labels, classes) for token in tokens]


def _shown(text: str) -> str:
    """The beginning of a target, for an error message."""
    return text if len(text) <= 60 else f"{text[:60]}... ({len(text)} letters)"


def class_name(index: int, labels: Sequence[str] | None) -> str:
    """The short name of a class for tables and titles: its label up to the first comma, or "class 3"."""
    return labels[index].split(",")[0] if labels and index < len(labels) else f"class {index}"


def _index(token: str, labels: Sequence[str] | None, classes: int) -> int:
    if re.fullmatch(r"[+-]?\d+", token):
        if len(token) > _DIGITS or not 0 <= int(token) < classes:
            raise InputError(f"target {_shown(token)}: the model has classes 0 to {classes - 1}")
        return int(token)
    if not labels:
        range_text = f"an index from 0 to {classes - 1}"
        raise InputError(f"target '{_shown(token)}': the model has no class names; give {range_text}")
    return _by_name(token, labels)


def _by_name(name: str, labels: Sequence[str]) -> int:
    folded = name.casefold()
    matches = [i for i, label in enumerate(labels) if label.casefold() == folded]
    if not matches:
        synonyms = [[part.strip().casefold() for part in label.split(",")] for label in labels]
        matches = [i for i, names in enumerate(synonyms) if folded in names]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise InputError(f"target '{name}' names several classes; give an index: {', '.join(map(str, matches))}")
    known = {part.strip().casefold(): part.strip() for label in labels for part in label.split(",")}
    raise InputError(f"target '{_shown(name)}': no such class{nearest_names(folded, known)}")
