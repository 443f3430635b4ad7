"""Turns every kernel of a PTX module into the flat program that the machine runs.

Functions that a kernel calls are inlined. Branches get the instruction at which the lanes of a warp meet again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from ptx_flow import BARRIER, BRANCH, PLAIN, RET, write_meeting_points
from ptx_instructions import COLUMNS, Instructions
from ptx_text import Function, Statement, Unsupported, functions_of, split_operands, statements_of, strip_comments


@dataclass
class Program:
    name: str
    ops: list[str]
    texts: list[str]
    table: np.ndarray
    registers: int
    constants: list[tuple[int, int]]  # width, bits
    params: list[tuple[int, int]]  # offset, size
    static_shared: int
    local: int
    maxntid: int
    unsupported: dict[str, int] = field(default_factory=dict)


class Builder(Instructions):
    """Builds the program of one kernel."""

    def __init__(self, function: Function, others: dict[str, Function], shared: dict[str, tuple[int, int]]) -> None:
        super().__init__(function, shared)
        self.others = others
        self.labels: dict[str, int] = {}
        self.jumps: dict[int, str] = {}
        self.unsupported: dict[str, int] = {}
        self.inlined = 0

    def build(self) -> Program:
        self.walk(statements_of(self.f.body), "", None)
        for at, label in self.jumps.items():
            self.rows[at][2] = self.labels[label]
        write_meeting_points(self.rows)
        directive = re.search(r"\.maxntid\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", self.f.directives)
        most = 1
        for n in directive.groups() if directive else ("1024",):
            most *= int(n or 1)
        constants = [key for key, _ in sorted(self.constants.items(), key=lambda item: item[1])]
        return Program(
            self.f.name,
            self.ops,
            self.texts,
            np.array(self.rows, dtype=np.int64).reshape(-1, COLUMNS),
            len(self.slots),
            constants,
            self.params,
            self.static_shared,
            self.local,
            most,
            self.unsupported,
        )

    def walk(self, statements: list[str | Statement], rename: str, back: str | None) -> None:
        for s in statements:
            if isinstance(s, str):
                if s.endswith(":"):
                    self.labels[rename + s[:-1]] = len(self.rows)
                else:
                    self.declare(s, rename)
                continue
            try:
                self.instruction(s, rename, back)
            except Unsupported as e:
                key = f"{s.op}: {e}"
                self.unsupported[key] = self.unsupported.get(key, 0) + 1
                self.emit("unsupported", s.text, -1, PLAIN, [])
        if back is None and (not self.rows or self.rows[-1][1] != RET):
            self.emit("ret", "ret (end)", -1, RET, [])

    def guard(self, s: Statement, rename: str) -> int:
        if s.guard is None:
            return -1
        negated = s.guard.startswith("!")
        return self.operand(s.guard.lstrip("!"), 1, rename) * 2 + negated

    def instruction(self, s: Statement, rename: str, back: str | None) -> None:
        guard, parts = self.guard(s, rename), s.op.split(".")
        name, args = parts[0], s.operands
        if name == "bra":
            at = self.emit("bra", s.text, guard, BRANCH, [])
            self.jumps[at] = rename + args[0]
        elif name in ("ret", "exit"):
            if back is None:
                self.emit("ret", s.text, guard, RET, [])
            else:
                self.jumps[self.emit("bra", s.text, guard, BRANCH, [])] = back
        elif s.op in (
            "bar.sync",
            "barrier.sync",
            "bar.warp.sync",
            "barrier.sync.aligned",
            "barrier.cta.sync.aligned.all",
        ):
            if s.op == "bar.warp.sync" or args != ["0"]:
                raise Unsupported(s.text)
            self.emit("bar", s.text, guard, BARRIER, [])
        elif name == "call":
            self.inline(s, rename)
        elif name in ("ld", "st"):
            self.memory(s, parts, guard, rename)
        elif name == "cp":
            self.copy(s, guard, rename)
        elif name == "ldmatrix":
            self.ldmatrix(s, parts, guard, rename)
        elif name == "mma":
            self.mma(s, parts, guard, rename)
        elif name == "mov":
            self.mov(s, parts, guard, rename)
        elif name == "cvt":
            self.cvt(s, parts, guard, rename)
        elif name == "cvta":
            operands = [self.operand(a, 8, rename) for a in args]
            self.emit({"to": "cvta.to." + parts[2]}.get(parts[1], "cvta." + parts[1]), s.text, guard, PLAIN, operands)
        elif name == "setp":
            self.setp(s, parts, guard, rename)
        elif name == "trap":
            self.emit("trap", s.text, guard, PLAIN, [])
        else:
            self.arithmetic(s, parts, guard, rename)

    def inline(self, s: Statement, rename: str) -> None:
        returned, name, given = [t.strip("() ") for t in s.operands]
        callee = self.others.get(name)
        if callee is None or s.guard is not None:
            raise Unsupported(s.text)
        self.inlined += 1
        inner = f"{rename}#{self.inlined}#"
        for param, argument in zip(callee.params, split_operands(given), strict=True):
            self.pseudo[inner + param[0]] = self.pseudo.get(rename + argument, rename + argument)
        self.pseudo[inner + callee.returns[0]] = self.pseudo.get(rename + returned, rename + returned)
        end = inner + "end"
        self.walk(statements_of(callee.body), inner, end)
        self.labels[end] = len(self.rows)


def load(text: str) -> tuple[list[Program], list[str]]:
    """The kernels of a module, and complaints about what could not be read."""
    text = strip_comments(text)
    functions, outside = functions_of(text)
    complaints, shared = [], {}
    for line in re.split(r";|\n", outside):
        line = " ".join(line.split())
        m = re.fullmatch(r"\.extern \.shared \.align (\d+) \.b8 ([\w$]+)\[\]", line)
        if m:
            shared[m[2]] = (0, 1)
        elif line and not re.match(r"\.(version|target|address_size)\b", line):
            complaints.append("outside of functions: " + line)
    others = {f.name: f for f in functions if not f.entry}
    programs = []
    for f in functions:
        if f.entry:
            programs.append(Builder(f, others, shared).build())
    return programs, complaints
