"""From the words of a phrase to classes of a network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError
from ..targets import parse_targets
from .datasets.base import need_file

_LONGEST = 4
Words = Mapping[str, Sequence[int]]
"""Word, or several with a space between, in lower case -> classes."""


def words_of_labels(labels: Sequence[str]) -> dict[str, list[int]]:
    """Every name of every class: labels may hold several with commas between."""
    classes: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        for name in label.split(","):
            classes.setdefault(" ".join(_tokens(name)), []).append(index)
    classes.pop("", None)
    return classes


def read_words(path: Path, labels: Sequence[str] | None, classes: int) -> dict[str, list[int]]:
    """A user's table: a line is a word (or words), a tab, and classes by name or index with commas between.

    Raises InputError for a line of another form and for an unknown class.
    """
    need_file(path, "--words")
    by_words: dict[str, list[int]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words, tab, names = line.partition("\t")
        if not tab or not words.strip() or not names.strip():
            raise InputError(f"{path}:{number}: {line[:60]!r}: wanted WORD, a tab, CLASSES")
        try:
            indices = parse_targets(names, labels, classes)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        if isinstance(indices, str):
            raise InputError(f"{path}:{number}: '{names}': classes by name or index were wanted")
        by_words.setdefault(" ".join(_tokens(words)), []).extend(indices)
    return by_words


def classes_of(phrase: str, words: Words) -> list[int]:
    """The classes that a phrase names, each once: the longest known run of words first, plurals as singulars."""
    tokens = _tokens(phrase)
    classes: list[int] = []
    start = 0
    while start < len(tokens):
        for count in range(min(_LONGEST, len(tokens) - start), 0, -1):
            known = _look_up(tokens[start : start + count], words)
            if known:
                classes += known
                start += count
                break
        else:
            start += 1
    return list(dict.fromkeys(classes))


def _look_up(tokens: Sequence[str], words: Words) -> Sequence[int]:
    *before, last = tokens
    for form in _singulars(last):
        if known := words.get(" ".join([*before, form])):
            return known
    return ()


def _singulars(word: str) -> list[str]:
    forms = [word]
    if word.endswith("ies"):
        forms.append(word[:-3] + "y")
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("s"):
        forms.append(word[:-1])
    return forms


def _tokens(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.casefold())
