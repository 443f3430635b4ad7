"""Does the check see mistakes? Changes one instruction of the PTX at a time and counts how many changes are noticed."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import contraction_cases
import problems
from cases import Failure
from contractions import Conv
from machine import Machine

PADDED = (1, 1, 1, 1)
MMA = [
    ("up", Conv(1, 20, 68, (9, 8), (3, 3), pad=PADDED), 3),
    ("down", Conv(1, 20, 68, (9, 8), (3, 3), pad=PADDED, columns=3), 3),
    ("up", Conv(1, 16, 66, (12, 12)), 1),
    ("down", Conv(1, 64, 16, (12, 12), (3, 3), (2, 2), PADDED, columns=2), 2),
]
SIMT = [
    *MMA,
    ("excite", Conv(1, 12, 66, (9, 8), (3, 3), pad=PADDED), 3),
    ("excite", Conv(2, 7, 5, (5, 4), (3, 3), groups=1), 6),
]
CASES = {"contraction_mma": MMA, "contraction": SIMT}
"""The first problems, by unit."""
HARMLESS = 4
"""Mistakes of a hundred that may go unnoticed: some change nothing, such as a border that two conditions guard."""
SIMPLE = {
    "setp.lt.s32": ("border moved", "setp.le.s32"),
    "setp.ge.s32": ("border moved", "setp.gt.s32"),
    "setp.ge.u32": ("border moved", "setp.gt.u32"),
    "or.pred": ("condition forgotten", "and.pred"),
}
ACCESSES = ("cp.async.cg", "ld.global", "st.global", "ld.shared", "st.shared")


def first_trouble(m: Machine, cases: list[tuple[str, Conv, int]], to_offset: int = 0) -> str | None:
    """What the cases find wrong first, or None; results lie so many bytes behind an aligned address."""
    m.faults()
    try:
        for way, case, seed in cases:
            for _, outcome in getattr(contraction_cases, way)(m, case, seed, to_offset=to_offset):
                counts, _ = m.faults()
                if counts:
                    return next(iter(counts))
                if not outcome.error <= outcome.limit:
                    return "wrong result"
    except Failure as failure:
        return "refused" if "launcher" in str(failure) else "wrong result"
    return next(iter(m.faults()[0]), None)


def whole_list() -> list[tuple[str, Conv, int]]:
    """The problems of run.py, for what the first ones miss."""
    return [(way, case, i) for i, case in enumerate(problems.convolutions(40)) for way in ("up", "down", "excite")]


def moved(line: str) -> str:
    """The access with an address 4 bytes further."""
    return re.sub(r"\[(%r[d]?\d+)(?:\+(-?\d+))?\]", lambda m: f"[{m[1]}+{int(m[2] or 0) + 4}]", line, count=1)


def swapped(line: str, rng: random.Random) -> str:
    """A matrix instruction with two of its registers exchanged."""
    groups = re.findall(r"\{[^}]*\}", line)
    group = groups[1] if line.strip().startswith("mma.") else groups[0]
    names = [name.strip() for name in group.strip("{}").split(",")]
    a, b = rng.sample(range(len(names)), 2)
    names[a], names[b] = names[b], names[a]
    return line.replace(group, "{" + ", ".join(names) + "}", 1)


def changed(line: str, rng: random.Random) -> tuple[str, str] | None:
    """The name of a mistake and the instruction with it, or None where none fits."""
    body, choices = line.strip(), []
    if body.startswith("bar.sync"):
        choices.append(("barrier removed", ""))
    if "wait_group" in body:
        fewer = re.sub(r"wait_group (\d+)", lambda m: f"wait_group {int(m[1]) + 1}", line)
        choices.append(("waits for fewer copies", fewer))
    if re.search(r"\band\.b32\b.*-8192", body):
        choices.append(("tf32 not cleared", line.replace("-8192", "-1")))
    if body.startswith(("mma.", "ldmatrix")):
        choices.append(("registers swapped", swapped(line, rng)))
    if "bf16x2" in body:
        choices.append(("halves swapped", re.sub(r"(%f\d+), (%f\d+);", r"\2, \1;", line)))
    if body.startswith(ACCESSES):
        choices.append(("address moved", moved(line)))
    choices += [(name, line.replace(op, other)) for op, (name, other) in SIMPLE.items() if body.startswith(op)]
    if body.startswith(("mad.lo.s32", "fma.rn.f32")):
        pattern = r"(mad.lo.s32|fma.rn.f32)(\s+%\w+, )(%\w+), (%\w+), (\S+);"
        choices.append(("factors mixed", re.sub(pattern, r"\1\2\3, \3, \5;", line)))
    return rng.choice(choices) if choices else None


def places(m: Machine, lines: list[str], count: int, rng: random.Random) -> list[int]:
    """Lines to change, of instructions that have run, all kinds of mistakes in turn."""
    ran = set()
    for name, program in m.programs.items():
        statistics = m.stats(name, True)
        ran |= {text for text, row in zip(program.texts, statistics, strict=True) if row[0] > 0}
    kinds: dict[str, list[int]] = {}
    for i, line in enumerate(lines):
        change = changed(line, rng)
        if change is not None and " ".join(line.strip().rstrip(";").split()) in ran:
            kinds.setdefault(change[0], []).append(i)
    picked: list[int] = []
    while len(picked) < count and any(kinds.values()):
        picked += [left.pop(rng.randrange(len(left))) for left in kinds.values() if left]
    return picked[:count]


def run(library: Path, arch: str, files: list[Path], count: int) -> list[str]:
    """Puts `count` mistakes into each unit; the mistakes that nobody noticed, where they are more than HARMLESS."""
    rng, tally, missed = random.Random(11), Counter[tuple[str, str]](), []
    for unit, cases in CASES.items():
        file = next(file for file in files if file.name.split(".")[0] == unit)
        others = [other for other in files if other != file]
        lines = file.read_text().split("\n")
        m = Machine(library)
        m.set(arch=int(arch))
        m.load(files)
        assert first_trouble(m, cases) is None
        for i in places(m, lines, count, rng):
            change = changed(lines[i], rng)
            assert change is not None
            if change[1] == lines[i]:
                continue
            mutant = library.with_name("mutant.ptx")
            mutant.write_text("\n".join([*lines[:i], change[1], *lines[i + 1 :]]))
            m.load([mutant, *others])
            m.complaints.clear()
            trouble = first_trouble(m, cases)
            for to_offset in (0, 4):
                if trouble is None and (late := first_trouble(m, whole_list(), to_offset)) is not None:
                    trouble = f"late: {late}"
            tally[change[0], trouble or "MISSED"] += 1
            if trouble is None:
                missed.append(f"{unit}:{i + 1}: {lines[i].strip()} -> {change[1].strip()}")
    total = sum(tally.values())
    print(f"\nmistakes put into the PTX: {total}, noticed {total - len(missed)}")
    for (name, trouble), number in sorted(tally.items()):
        print(f"  {name:24} {trouble:40} {number}")
    print(*(f"  missed: {text}" for text in missed), sep="\n", end="\n" if missed else "", flush=True)
    return missed if 100 * len(missed) > HARMLESS * total else []
