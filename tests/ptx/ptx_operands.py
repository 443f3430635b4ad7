"""The registers, constants and symbols of one kernel, each with a slot of the machine."""

from __future__ import annotations

import re
import struct

from ptx_text import WIDTHS, Function, Unsupported

SPECIAL = [
    "%tid.x",
    "%tid.y",
    "%tid.z",
    "%ntid.x",
    "%ntid.y",
    "%ntid.z",
    "%ctaid.x",
    "%ctaid.y",
    "%ctaid.z",
    "%nctaid.x",
    "%nctaid.y",
    "%nctaid.z",
    "%laneid",
    "%warpid",
]
SHARED_BASE = 1024
"""Bytes of shared memory that the driver keeps for itself."""


class Operands:
    """A register has a slot of 32 lanes; a constant has one of its own, told apart by a negative number.

    `rename` stands before the names of an inlined function's registers.
    """

    def __init__(self, function: Function, shared: dict[str, tuple[int, int]]) -> None:
        self.f = function
        self.slots: dict[str, int] = {name: i for i, name in enumerate(SPECIAL)}
        self.width: dict[str, int] = dict.fromkeys(SPECIAL, 4)
        self.constants: dict[tuple[int, int], int] = {}
        self.symbols: dict[str, int] = {}
        self.local = 0
        offset, self.params = 0, []
        for name, align, size in function.params:
            offset = (offset + align - 1) // align * align
            self.symbols[name] = offset
            self.params.append((offset, size))
            offset += size
        self.static_shared = 0
        self.shared = dict(shared)

    def declare(self, text: str, rename: str = "") -> None:
        m = re.match(r"\.reg\s+\.(\w+)\s+(.*)$", text)
        if m:
            for name in m[2].split(","):
                name = name.strip()
                r = re.match(r"(%?[\w$]+)<(\d+)>$", name)
                for one in [f"{r[1]}{i}" for i in range(int(r[2]))] if r else [name]:
                    one = rename + one
                    if one in self.slots and self.width[one] != WIDTHS[m[1]]:
                        raise Unsupported(f"{one} has two types")
                    self.slots.setdefault(one, len(self.slots))
                    self.width[one] = WIDTHS[m[1]]
            return
        if text.startswith(".pragma"):
            return
        if text.startswith(".param"):
            name = re.match(r"\.param\s+(?:\.align\s+\d+\s+)?\.(b64|b32|f64|f32)\s+([\w]+)$", text)
            if not name:
                raise Unsupported(text)
            self.slots.setdefault(rename + name[2], len(self.slots))
            self.width[rename + name[2]] = WIDTHS[name[1]]
            return
        m = re.match(r"\.(shared|local)\s+\.align\s+(\d+)\s+\.(\w+)\s+([\w$]+)\[(\d+)\]$", text)
        if m:
            size, align = WIDTHS[m[3]] * int(m[5]), int(m[2])
            if m[1] == "shared":
                self.static_shared = (self.static_shared + align - 1) // align * align
                self.shared[m[4]] = (self.static_shared, 0)
                self.static_shared += size
            else:
                self.local = (self.local + align - 1) // align * align
                self.symbols[m[4]] = self.local
                self.local += size
            return
        raise Unsupported("directive " + text)

    def constant(self, width: int, bits: int) -> int:
        key = (width, bits & ((1 << (8 * width)) - 1))
        return ~self.constants.setdefault(key, len(self.constants))

    def operand(self, text: str, width: int, rename: str = "") -> int:
        """The slot of a register or constant that must have the width (1 stands for predicates)."""
        text = text.strip()
        for name in (rename + text, text):
            if name in self.slots and (name in SPECIAL or name == rename + text):
                if self.width[name] != width and not (width == 2 and self.width[name] == 2):
                    raise Unsupported(f"{text} has {self.width[name]} bytes, wanted {width}")
                return self.slots[name]
        if width == 1:
            if re.fullmatch(r"-?\d+", text):
                return self.constant(4, -1 if int(text) else 0)
            raise Unsupported("predicate " + text)
        m = re.fullmatch(r"0[fF]([0-9a-fA-F]{8})", text)
        if m:
            bits = int(m[1], 16)
            if width == 8:
                bits = struct.unpack("<Q", struct.pack("<d", struct.unpack("<f", struct.pack("<I", bits))[0]))[0]
            return self.constant(width, bits)
        m = re.fullmatch(r"0[dD]([0-9a-fA-F]{16})", text)
        if m and width == 8:
            return self.constant(8, int(m[1], 16))
        if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", text):
            return self.constant(max(width, 4), int(text.rstrip("U"), 0) & ((1 << (8 * width)) - 1))
        m = re.fullmatch(r"([\w$]+)(?:\+(\d+))?", text)
        if m and m[1] in self.symbols:
            return self.constant(width, self.symbols[m[1]] + int(m[2] or 0))
        if m and m[1] in self.shared:
            return self.constant(width, self.shared_offset(m[1]) + int(m[2] or 0))
        raise Unsupported("operand " + text)

    def shared_offset(self, name: str) -> int:
        return SHARED_BASE + self.shared[name][0]

    def address(self, text: str, rename: str, width: int = 8) -> tuple[int, int]:
        m = re.fullmatch(r"\[\s*([%$\w]+)\s*(?:\+\s*(-?\d+))?\s*\]", text)
        if not m:
            raise Unsupported("address " + text)
        name, offset = m[1], int(m[2] or 0)
        full = rename + name
        if full in self.slots:
            if self.width[full] not in (4, 8):
                raise Unsupported("address " + text)
            return self.slots[full], offset
        if name in self.symbols:
            return self.constant(8, self.symbols[name]), offset
        if name in self.shared:
            return self.constant(8, self.shared_offset(name)), offset
        raise Unsupported("address " + text)
