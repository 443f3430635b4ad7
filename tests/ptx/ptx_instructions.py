"""The rows that instructions become: operands in their slots, sizes and modes beside them."""

from __future__ import annotations

import re

from ptx_flow import PLAIN
from ptx_operands import SPECIAL, Operands
from ptx_text import WIDTHS, Function, Statement, Unsupported, split_operands

COLUMNS = 32
"""Of a row: guard, kind, target, meeting point, two numbers, 18 slots, 8 sizes and modes."""
SPACES = {"generic": 0, "global": 1, "shared": 2, "param": 3, "local": 4, "const": 5}
NOTHING = -(1 << 30)
"""The slot of a result that nobody reads."""


class Instructions(Operands):
    """Emits one row per instruction; raises Unsupported for what the machine does not know."""

    def __init__(self, function: Function, shared: dict[str, tuple[int, int]]) -> None:
        super().__init__(function, shared)
        self.rows: list[list[int]] = []
        self.ops: list[str] = []
        self.texts: list[str] = []
        self.pseudo: dict[str, str] = {}

    def emit(
        self,
        op: str,
        text: str,
        guard: int,
        kind: int,
        operands: list[int],
        imm0: int = 0,
        imm1: int = 0,
        extra: tuple[int, ...] = (),
    ) -> int:
        row = [0] * COLUMNS
        row[0], row[1], row[2], row[3], row[4], row[5] = guard, kind, -1, -1, imm0, imm1
        row[6 : 6 + len(operands)] = operands
        row[24 : 24 + len(extra)] = extra
        self.rows.append(row)
        self.ops.append(op)
        self.texts.append(text)
        return len(self.rows) - 1

    def arithmetic(self, s: Statement, parts: list[str], guard: int, rename: str) -> None:
        name, kind = parts[0], parts[-1]
        if kind not in WIDTHS:
            raise Unsupported(s.text)
        w, args = WIDTHS[kind], s.operands
        widths = [w] * len(args)
        if name in ("mul", "mad") and parts[1] == "wide":
            widths[0] = 2 * w
            if name == "mad":
                widths[3] = 2 * w
        elif name in ("shl", "shr"):
            widths[2] = 4
        elif name == "selp":
            widths[3] = 1
        elif name in ("popc", "clz", "bfind"):
            widths[0] = 4
        elif name == "bfe":
            widths[2] = widths[3] = 4
        elif name == "bfi":
            widths[3] = widths[4] = 4
        elif name == "lop3":
            widths[4] = 4
        elif name == "prmt":
            pass
        op = s.op.replace(".ftz", ".ftz")
        self.emit(op, s.text, guard, PLAIN, [self.operand(a, x, rename) for a, x in zip(args, widths, strict=True)])

    def setp(self, s: Statement, parts: list[str], guard: int, rename: str) -> None:
        w, args = WIDTHS[parts[-1]], s.operands
        both = [d.strip() for d in args[0].split("|")]
        operands = [self.operand(both[0], 1, rename), self.operand(both[1], 1, rename) if len(both) > 1 else NOTHING]
        operands += [self.operand(a, w, rename) for a in args[1:3]]
        combine = {"and": 1, "or": 2, "xor": 3}.get(parts[2], 0) if len(parts) > 3 else 0
        negated = 0
        if combine:
            negated = int(args[3].startswith("!"))
            operands.append(self.operand(args[3].lstrip("!"), 1, rename))
        rest = [p for p in parts[2:-1] if p not in ("and", "or", "xor", "ftz")]
        if rest or "ftz" in parts:
            raise Unsupported(s.text)
        self.emit(f"setp.{parts[1]}.{parts[-1]}", s.text, guard, PLAIN, operands, extra=(combine, negated))

    def mov(self, s: Statement, parts: list[str], guard: int, rename: str) -> None:
        to, source = s.operands
        if parts[1] == "pred":
            self.emit("mov.pred", s.text, guard, PLAIN, [self.operand(to, 1, rename), self.operand(source, 1, rename)])
            return
        w = WIDTHS[parts[1]]
        if to.startswith("{"):
            names = split_operands(to.strip("{} "))
            operands = [self.operand(n, w // len(names), rename) if n != "_" else NOTHING for n in names]
            self.emit(f"unpack.{w}.{len(names)}", s.text, guard, PLAIN, [*operands, self.operand(source, w, rename)])
        elif source.startswith("{"):
            names = split_operands(source.strip("{} "))
            operands = [self.operand(n, w // len(names), rename) for n in names]
            self.emit(f"pack.{w}.{len(names)}", s.text, guard, PLAIN, [self.operand(to, w, rename), *operands])
        else:
            self.emit(
                "mov.b64" if w == 8 else "mov.b32",
                s.text,
                guard,
                PLAIN,
                [self.operand(to, w, rename), self.operand(source, w, rename)],
            )

    def register_width(self, text: str, rename: str) -> int:
        name = text.strip() if text.strip() in SPECIAL else rename + text.strip()
        return self.width.get(name, 0)

    def cvt(self, s: Statement, parts: list[str], guard: int, rename: str) -> None:
        args = s.operands
        if parts[-1] not in WIDTHS:
            raise Unsupported(s.text)
        if parts[-2] in ("bf16x2", "tf32", "f16x2"):
            self.emit(s.op, s.text, guard, PLAIN, [self.operand(a, 4, rename) for a in args])
            return
        to = self.register_width(args[0], rename)
        source = self.register_width(args[1], rename) or max(4, WIDTHS[parts[-1]])
        if to < WIDTHS[parts[-2]] or source < WIDTHS[parts[-1]]:
            raise Unsupported(s.text)
        # Lanes of up to 4 bytes are held in 4.
        self.emit(
            f"{s.op}>{8 if to == 8 else 4}<{8 if source == 8 else 4}",
            s.text,
            guard,
            PLAIN,
            [self.operand(args[0], to, rename), self.operand(args[1], source, rename)],
        )

    def memory(self, s: Statement, parts: list[str], guard: int, rename: str) -> None:
        kind, modifiers = parts[-1], parts[1:-1]
        space, vector = "generic", 1
        for m in modifiers:
            if m in SPACES:
                space = m
            elif m in ("v2", "v4"):
                vector = int(m[1])
            elif m in ("nc",):
                pass
            else:
                raise Unsupported(s.text)
        data, where = (s.operands[0], s.operands[1]) if parts[0] == "ld" else (s.operands[1], s.operands[0])
        pseudo = re.fullmatch(r"\[\s*([\w$]+)\s*(?:\+\s*0)?\s*\]", where)
        if (
            space == "param"
            and pseudo
            and (alias := self.pseudo.get(rename + pseudo[1], rename + pseudo[1])) in self.slots
        ):
            w = self.width[alias]
            place, value = self.slots[alias], self.operand(data, w, rename)
            op = "mov.b64" if w == 8 else "mov.b32"
            self.emit(op, s.text, guard, PLAIN, [value, place] if parts[0] == "ld" else [place, value])
            return
        names = split_operands(data.strip("{} ")) if data.startswith("{") else [data]
        if len(names) != vector:
            raise Unsupported(s.text)
        size = WIDTHS[kind]
        widths = [self.register_width(n, rename) or max(size, 4) for n in names]
        if min(widths) < size or len(set(widths)) != 1:
            raise Unsupported(s.text)
        slot, offset = self.address(where, rename)
        wide = 8
        if slot >= 0:
            m = re.match(r"\[\s*([%$\w]+)", where)
            wide = self.width[rename + m[1]]
        operands = (
            [self.operand(n, w, rename) for n, w in zip(names, widths, strict=True)] + [0] * (4 - vector) + [slot]
        )
        lane = 8 if widths[0] == 8 else 4
        signed = int(kind.startswith("s") and parts[0] == "ld")
        self.emit(
            parts[0],
            s.text,
            guard,
            PLAIN,
            operands,
            offset,
            extra=(size, vector, signed, lane, SPACES[space], wide, widths[0]),
        )

    def copy(self, s: Statement, guard: int, rename: str) -> None:
        op = re.sub(r"\.L2::\w+", "", s.op)
        if op == "cp.async.commit_group":
            self.emit(op, s.text, guard, PLAIN, [])
        elif op == "cp.async.wait_group":
            self.emit(op, s.text, guard, PLAIN, [], int(s.operands[0]))
        elif op == "cp.async.wait_all":
            self.emit(op, s.text, guard, PLAIN, [])
        elif op in ("cp.async.cg.shared.global", "cp.async.ca.shared.global"):
            (to, at), (source, off) = self.address(s.operands[0], rename), self.address(s.operands[1], rename)
            size = int(s.operands[2])
            if size not in ((16,) if ".cg." in op else (4, 8, 16)):
                raise Unsupported(s.text)
            width = [
                8 if x < 0 else self.register_width(re.match(r"\[\s*([%$\w]+)", t)[1], rename)
                for x, t in ((to, s.operands[0]), (source, s.operands[1]))
            ]
            filled = self.operand(s.operands[3], 4, rename) if len(s.operands) > 3 else self.constant(4, size)
            self.emit("cp.async", s.text, guard, PLAIN, [to, source, filled], at, off, extra=(size, width[0], width[1]))
        else:
            raise Unsupported(s.text)

    def ldmatrix(self, s: Statement, parts: list[str], guard: int, rename: str) -> None:
        m = re.fullmatch(r"ldmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared(?:::cta)?\.b16", s.op)
        if not m:
            raise Unsupported(s.text)
        names = split_operands(s.operands[0].strip("{} "))
        slot, offset = self.address(s.operands[1], rename)
        width = 8 if slot < 0 else self.register_width(re.match(r"\[\s*([%$\w]+)", s.operands[1])[1], rename)
        operands = [self.operand(n, 4, rename) for n in names] + [0] * (4 - len(names)) + [slot]
        self.emit("ldmatrix", s.text, guard, PLAIN, operands, offset, extra=(int(m[1]), int(bool(m[2])), width))

    def mma(self, s: Statement, parts: list[str], guard: int, rename: str) -> None:
        shape = {
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32": (4, 4, 2, 4),
            "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32": (4, 2, 1, 4),
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32": (4, 4, 2, 4),
            "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32": (4, 2, 1, 4),
        }.get(s.op)
        if shape is None:
            raise Unsupported(s.text)
        operands = []
        for text, count in zip(s.operands, shape, strict=True):
            names = split_operands(text.strip("{} "))
            if len(names) != count:
                raise Unsupported(s.text)
            operands += [self.operand(n, 4, rename) for n in names]
        self.emit(s.op, s.text, guard, PLAIN, operands)
