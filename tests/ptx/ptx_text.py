"""Reads the text of a PTX module: functions, and of each the labels, directives and instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass

WIDTHS = {
    "pred": 1,
    "b8": 1,
    "u8": 1,
    "s8": 1,
    "b16": 2,
    "u16": 2,
    "s16": 2,
    "f16": 2,
    "bf16": 2,
    "b32": 4,
    "u32": 4,
    "s32": 4,
    "f32": 4,
    "b64": 8,
    "u64": 8,
    "s64": 8,
    "f64": 8,
}


class Unsupported(Exception):
    pass


@dataclass
class Statement:
    text: str
    guard: str | None
    op: str
    operands: list[str]


@dataclass
class Function:
    name: str
    entry: bool
    params: list[tuple[str, int, int]]  # name, alignment, size
    returns: list[str]
    body: str
    directives: str


def strip_comments(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def matching(text: str, at: int, opening: str, closing: str) -> int:
    depth = 0
    for i in range(at, len(text)):
        if text[i] == opening:
            depth += 1
        elif text[i] == closing:
            depth -= 1
            if depth == 0:
                return i
    raise ValueError("unbalanced " + opening)


def parse_param(text: str) -> tuple[str, int, int]:
    m = re.match(
        r"\s*\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(?:\.ptr\S*\s+(?:\.\w+\s+)*(?:\.align\s+\d+\s+)?)?([\w$%.]+)(?:\[(\d+)\])?\s*$",
        text,
    )
    if not m:
        raise Unsupported("parameter " + text.strip())
    width = WIDTHS[m[2]]
    return m[3], int(m[1] or width), width * int(m[4] or 1)


def functions_of(text: str) -> tuple[list[Function], str]:
    """The functions with a body, and what stands outside of functions."""
    found, outside, at = [], [], 0
    head = re.compile(r"(?:\.(?:visible|weak|extern)\s+)*\.(entry|func)\b")
    while True:
        m = head.search(text, at)
        if not m:
            outside.append(text[at:])
            return found, "".join(outside)
        outside.append(text[at : m.start()])
        at, returns = m.end(), []
        rest = re.compile(r"\s*").match(text, at).end()
        if text[rest] == "(":
            end = matching(text, rest, "(", ")")
            returns = [parse_param(text[rest + 1 : end])[0]]
            at = end + 1
        name = re.compile(r"\s*([\w$]+)\s*").match(text, at)
        at, params = name.end(), []
        if text[at] == "(":
            end = matching(text, at, "(", ")")
            inner = text[at + 1 : end].strip()
            params = [parse_param(p) for p in inner.split(",")] if inner else []
            at = end + 1
        stop = re.compile(r"[;{]").search(text, at)
        if text[stop.start()] == ";":
            at = stop.end()
            continue
        end = matching(text, stop.start(), "{", "}")
        found.append(
            Function(name[1], m[1] == "entry", params, returns, text[stop.end() : end], text[at : stop.start()])
        )
        at = end + 1


def split_operands(text: str) -> list[str]:
    parts, depth, last = [], 0, 0
    for i, c in enumerate(text):
        if c in "{[(":
            depth += 1
        elif c in "}])":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[last:i].strip())
            last = i + 1
    tail = text[last:].strip()
    return [*parts, tail] if tail else parts


def statements_of(body: str) -> list[str | Statement]:
    """Labels (as strings with a colon), directives (as strings with a dot) and instructions, in order."""
    out: list[str | Statement] = []
    at, label, space = 0, re.compile(r"([$%\w]+)\s*:(?!:)"), re.compile(r"[\s{}]*")
    while True:
        at = space.match(body, at).end()
        if at >= len(body):
            return out
        m = label.match(body, at)
        if m:
            out.append(m[1] + ":")
            at = m.end()
            continue
        end = body.index(";", at)
        text = " ".join(body[at:end].split())
        at = end + 1
        if text.startswith("."):
            out.append(text)
            continue
        m = re.match(r"(?:@(!?%[\w]+)\s+)?([\w.:]+)\s*(.*)$", text, re.S)
        if not m:
            raise Unsupported(text)
        out.append(Statement(text, m[1], m[2], split_operands(m[3])))
