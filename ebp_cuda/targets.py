"""Classes as people write them: indices, names, topN, all."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .errors import InputError, nearest_names


def parse_targets(text: str, labels: Sequence[str] | None, classes: int) -> list[int] | str:
    """Class indices of a comma-separated list of indices and names, in the order given; "topN" comes back as it is.

    "all" is every class. A name matches without regard to case, either the whole label or one of its
    comma-separated synonyms ("drum" of "drum, membranophone"); a label that holds commas may be given whole.
    Raises InputError for an index out of range, an unknown name (with the nearest ones) and an ambiguous one.
    """
    text = text.strip()
    if text == "all":
        return list(range(classes))
    if top := re.fullmatch(r"top(\d+)", text):
        if not 1 <= int(top[1]) <= classes:
            raise InputError(f"target '{text}': the model has {classes} classes")
        return text
    if labels and text.casefold() in (label.casefold() for label in labels):
        return [_by_name(text, labels)]
    tokens = [token.strip() for token in text.split(",")]
    if not all(tokens):
        raise InputError(f"target '{text}': an empty entry; wanted such as 281, 281,282, top5, all or a class name")
    return [_index(token, labels, classes) for token in tokens]


def class_name(index: int, labels: Sequence[str] | None) -> str:
    """The short name of a class for tables and titles: its label up to the first comma, or "class 3"."""
    return labels[index].split(",")[0] if labels and index < len(labels) else f"class {index}"


def _index(token: str, labels: Sequence[str] | None, classes: int) -> int:
    if re.fullmatch(r"[+-]?\d+", token):
        index = int(token)
        if not 0 <= index < classes:
            raise InputError(f"target {index}: the model has classes 0 to {classes - 1}")
        return index
    if not labels:
        raise InputError(f"target '{token}': the model has no class names; give an index from 0 to {classes - 1}")
    return _by_name(token, labels)


def _by_name(name: str, labels: Sequence[str]) -> int:
    wanted = name.casefold()
    found = [i for i, label in enumerate(labels) if label.casefold() == wanted]
    if not found:
        synonyms = [[part.strip().casefold() for part in label.split(",")] for label in labels]
        found = [i for i, names in enumerate(synonyms) if wanted in names]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"target '{name}' names several classes; give an index: {', '.join(map(str, found))}")
    known = {part.strip().casefold(): part.strip() for label in labels for part in label.split(",")}
    raise InputError(f"target '{name}': no such class{nearest_names(wanted, known)}")
