"""Counts machine code: what nvdisasm prints of a cubin, per kernel the instructions of one step of its main loop."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MULTIPLIES = ("FFMA", "HMMA", "HGMMA", "DFMA")
KINDS = {
    "multiply": MULTIPLIES,
    "shared load": ("LDS", "LDSM"),
    "shared store": ("STS",),
    "global load": ("LDG", "LD"),
    "async copy": ("LDGSTS", "UBLKCP", "UTMALDG"),
    "barrier": ("BAR", "DEPBAR", "LDGDEPBAR", "SYNCS"),
}
"""Of a step; every other instruction is "other": addresses, borders, rounding."""
LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);", re.MULTILINE)
LABEL = re.compile(r"^(\.L\w+):", re.MULTILINE)


@dataclass(frozen=True)
class Code:
    """The machine code of one kernel."""

    size: int
    """Bytes."""
    step: dict[str, int]
    """Instructions of a warp in one step of the main loop, by KINDS, and "all"; empty where no loop multiplies."""


def nvdisasm() -> Path | None:
    """The disassembler: of PATH, of CUDA_HOME, or of the package nvidia-cuda-nvdisasm."""
    homes = [Path(home) / "bin" for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if home]
    spec = importlib.util.find_spec("nvidia")
    packages = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    wheels = [folder for package in packages for folder in sorted(package.glob("*/bin"))]
    found = shutil.which("nvdisasm")
    places = [Path(found)] if found else [folder / "nvdisasm" for folder in (*homes, *wheels)]
    return next((place for place in places if os.access(place, os.X_OK)), None)


def read_cubin(disassembler: Path, cubin: Path) -> dict[str, Code]:
    """Every kernel of a cubin, by its mangled name."""
    command = [str(disassembler), "-c", str(cubin)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    sections = re.split(r"^\s*\.section\s+\.text\.(\S+?),.*$", text, flags=re.MULTILINE)
    return {name: read_kernel(body) for name, body in zip(sections[1::2], sections[2::2], strict=True)}


def read_kernel(text: str) -> Code:
    """The code of one kernel from its disassembly."""
    lines = [(int(m[1], 16), m[2], m[3], m.start()) for m in LINE.finditer(text)]
    labels = {m[1]: m.start() for m in LABEL.finditer(text)}
    places = [start for *_, start in lines]

    def index_of(label: str) -> int:
        at = labels.get(label, -1)
        return next((i for i, place in enumerate(places) if place > at), len(places)) if at >= 0 else len(places)

    ops = [op.split(".")[0] for _, op, _, _ in lines]
    loops = []
    for i, (_, op, rest, _) in enumerate(lines):
        target = re.search(r"`\((\.L\w+)\)", rest)
        if op.startswith("BRA") and target and (first := index_of(target[1])) <= i:
            loops.append((first, i + 1))
    size = lines[-1][0] + 16 if lines else 0
    return Code(size, step_of(ops, loops))


def step_of(ops: list[str], loops: list[tuple[int, int]]) -> dict[str, int]:
    """The instructions of the loop that multiplies most; of several such the shortest."""
    multiplies = [sum(op in MULTIPLIES for op in ops[a:b]) for a, b in loops]
    most = max(multiplies, default=0)
    if most < 16:
        return {}
    first, end = min((loop for loop, n in zip(loops, multiplies, strict=True) if n == most), key=lambda x: x[1] - x[0])
    counts = Counter(kind_of(op) for op in ops[first:end])
    return {"all": end - first, **{kind: counts[kind] for kind in (*KINDS, "other") if counts[kind]}}


def kind_of(op: str) -> str:
    return next((kind for kind, ops in KINDS.items() if op in ops), "other")


def readable(names: Iterable[str]) -> dict[str, str]:
    """Mangled kernel names without namespace and parameters; as they are where there is no c++filt."""
    ordered = sorted(names)
    if shutil.which("c++filt") is None:
        return {name: name for name in ordered}
    done = subprocess.run(["c++filt"], input="\n".join(ordered), capture_output=True, text=True, check=True)
    short = {}
    for name, text in zip(ordered, done.stdout.splitlines(), strict=True):
        plain = text.replace("ebp::", "").removeprefix("void ").replace("(LrnPower)", "power ")
        for value, word in enumerate(("single", "terms", "columns")):
            plain = plain.replace(f"(Loads){value}", word)
        plain = re.sub(r"\(\w+\)(\d)", r"\1", plain)
        depth, end = 0, len(plain)
        for place, letter in enumerate(plain):
            depth += (letter == "<") - (letter == ">")
            if letter == "(" and depth == 0:
                end = place
                break
        short[name] = plain[:end]
    return short
