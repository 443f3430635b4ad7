"""Prototxt text before protobuf reads it: what in it no schema knows is noted with its line, and blanked out.

So nothing that a fork added stops the parse, and everything that was added can be reported at once. The walk has a
stack of its own: text may be nested as deeply as it likes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r"""(?:[ \t\r\n\f\v]|\#[^\n]*)*
    (?:(?P<name>[A-Za-z_]\w*)|(?P<open>[{<])|(?P<close>[}>])|(?P<list>\[)|(?P<unlist>\])|(?P<mark>[:;,])
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<sign>[-+])|(?P<number>[0-9.][\w.+-]*)
    |(?P<end>\Z)|(?P<other>.))""",
    re.VERBOSE | re.DOTALL,
)

_TRAINING = frozenset((
    "param", "include", "exclude", "transform_param", "loss_param", "blobs_lr", "weight_decay", "lr_mult", "decay_mult",
    "loss_weight", "propagate_down", "need_backprop", "freeze", "forward_type", "backward_type", "forward_math",
    "backward_math", "debug", "engine", "cudnn_convolution_algo_seeker", "conv_algos_override", "lr_policy",
    "conv_algorithm", "moving_averaging_fraction", "stats_batch_size", "random_seed",
))  # fmt: skip
"""Fields, and what is in them, that say how to train or how fast to run."""


@dataclass
class Unknown:
    """A field, or the value of a field, that the schema does not have."""

    line: int
    path: str
    """The field within its layer (or within the file): "convolution_param.pad_type"."""
    value: str = ""
    """The unknown name that an enum field holds."""
    entry: int | None = None
    """Which `layer` of the file it stands in."""
    layer: str = ""

    @property
    def harmless(self) -> bool:
        """Whether it says nothing about what a layer computes."""
        parts = self.path.split(".")
        return any(part in _TRAINING or part.endswith("_filler") for part in parts)

    def __str__(self) -> str:
        return f"unknown value '{self.value}' of {self.path}" if self.value else f"unknown field {self.path}"


@dataclass
class Scan:
    """Prototxt text with everything unknown replaced by spaces, and what that was."""

    text: str = ""
    unknown: list[Unknown] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """Line of each `layer` or `layers` entry."""
    types: dict[int, str] = field(default_factory=dict)
    """Entry -> type of a V1 layer that the schema has no number for."""


class _Scanner:
    def __init__(self, text: str, most: int) -> None:
        self.text, self.most, self.result = text, most, Scan()
        self._tokens = self._all_tokens()
        self._held: tuple[str, int, int] | None = None
        self._spans: list[tuple[int, int]] = []
        self._counted = (0, 1)

    def _all_tokens(self) -> Iterator[tuple[str, int, int]]:
        for match in _TOKEN.finditer(self.text):
            kind = match.lastgroup or "end"
            yield kind, match.start(kind), match.end(kind)

    def _next(self) -> tuple[str, int, int]:
        if self._held is not None:
            token, self._held = self._held, None
            return token
        return next(self._tokens, ("end", len(self.text), len(self.text)))

    def _line(self, at: int) -> int:
        start, line = self._counted
        self._counted = at, line + self.text.count("\n", start, at)
        return self._counted[1]

    def scan(self, root: Any) -> Scan:
        """Walks the fields of a message of the type `root`; ends early where the text is malformed."""
        stack: list[tuple[Any, str]] = [(root, "")]
        while len(self.result.lines) <= self.most:
            kind, start, end = self._next()
            if kind == "close" and len(stack) > 1:
                stack.pop()
            elif kind == "name":
                inner = self._field(stack, start, end)
                if inner is None:
                    break
                if inner:
                    stack.append(inner[0])
            elif kind != "mark":
                break
        self.result.text = self._blanked()
        return self.result

    def _field(self, stack: list[tuple[Any, str]], start: int, end: int) -> list[tuple[Any, str]] | None:
        """One field behind its name: the message it opens, if it does; None where the text is malformed."""
        descriptor, path = stack[-1]
        name = self.text[start:end]
        top = len(stack) == 1
        if top and name in ("layer", "layers"):
            self.result.lines.append(self._line(start))
        known = descriptor.fields_by_name.get(name)
        place = name if top else f"{path}.{name}".lstrip(".")
        opened, value, finish = self._value(known is not None and known.message_type is not None)
        if finish < 0:
            return None
        entry = len(self.result.lines) - 1 if not top else None
        if known is None:
            self._note(Unknown(self._line(start), place, entry=entry), start, finish)
        elif opened:
            return [(known.message_type, "" if top else place)]
        elif known.enum_type is not None and value and value not in known.enum_type.values_by_name:
            if place == "type" and entry is not None:
                self.result.types[entry] = value
                self._spans.append((start, finish))
            else:
                self._note(Unknown(self._line(start), place, value, entry), start, finish)
        return []

    def _note(self, unknown: Unknown, start: int, end: int) -> None:
        self.result.unknown.append(unknown)
        self._spans.append((start, end))

    def _value(self, enter: bool) -> tuple[bool, str, int]:
        """Reads a field's value, or only its opening brace if `enter`.

        Returns whether it stands behind an opening brace, the value where it is a single name, and the end of it all
        (-1 where the text is malformed).
        """
        kind, start, end = self._next()
        if kind == "mark" and self.text[start] == ":":
            kind, start, end = self._next()
        if kind == "open" and enter:
            return True, "", end
        if kind in ("open", "list"):
            return False, "", self._skipped()
        if kind == "sign":
            kind, start, end = self._next()
        if kind == "string":
            while kind == "string":
                last = end
                kind, start, end = self._next()
            self._held = kind, start, end
            return False, "", last
        if kind not in ("name", "number"):
            return False, "", -1
        return False, self.text[start:end] if kind == "name" else "", end

    def _skipped(self) -> int:
        """The end of a message or list, whatever is in it."""
        depth = 1
        while depth:
            kind, _, end = self._next()
            if kind == "end":
                return -1
            depth += (kind in ("open", "list")) - (kind in ("close", "unlist"))
        return end

    def _blanked(self) -> str:
        parts, last = [], 0
        for start, end in self._spans:
            parts += [self.text[last:start], re.sub(r"[^\n]", " ", self.text[start:end])]
            last = end
        return "".join([*parts, self.text[last:]])


def scan(text: str, root: Any, most: int) -> Scan:
    """What in prototxt text the message type `root` (a descriptor) does not know, and the text without it.

    It ends behind `most` layers.
    """
    return _Scanner(text, most).scan(root)
