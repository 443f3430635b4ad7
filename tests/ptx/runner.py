"""Runs cases and keeps what they showed of each kernel."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from cases import Failure, Outcome, Outcomes
from machine import Machine

ENOUGH = 60
"""Problems that are told in words."""
FIRST = {"poison": 0xCDCDCDCD, "order": 0, "junk": 0x0AAA, "mma_model": 0}
REVERSED = {"poison": 0x7FC00001, "order": 1, "junk": 0x1555, "mma_model": 0}
TRUNCATING = {"poison": 0x00000003, "order": 2, "junk": 0x0001, "mma_model": 1}


@dataclass
class Record:
    """What the cases of one kernel showed."""

    cases: int = 0
    error: float = 0.0
    """The largest."""
    ratio: float = 0.0
    """The largest error over its limit."""
    loose: float = 0.0
    """The largest error from the reference that rounds nothing."""
    faults: Counter[str] = field(default_factory=Counter)


class Runner:
    """Runs cases on a machine."""

    def __init__(self, machine: Machine, thorough: bool = True) -> None:
        self.m, self.thorough = machine, thorough
        self.records: dict[str, Record] = defaultdict(Record)
        self.problems: list[str] = []

    def fault(self, kernels: list[str], kind: str, text: str, count: int = 1) -> None:
        for kernel in set(kernels) or {"?"}:
            self.records[kernel].faults[kind] += count
        if len(self.problems) < ENOUGH:
            self.problems.append(text)

    def results(self, label: str, make: Callable[[], Outcomes]) -> list[bytes]:
        """The bits of every result of one case, under the machine's settings."""
        bits = []
        self.m.launched()
        self.m.faults()
        try:
            for part, outcome in make():
                self.note(f"{label} {part}", outcome, self.m.launched())
                bits.append(outcome.bits)
        except Failure as failure:
            self.fault(self.m.launched(), "result", f"{label}: {failure}")
        counts, texts = self.m.faults()
        for kind, count in counts.items():
            self.fault([], kind, f"{label}: " + " | ".join(texts[:2]), count)
        return bits

    def note(self, label: str, outcome: Outcome, kernels: list[str]) -> None:
        """Takes down one result and the faults that its launches made."""
        counts, texts = self.m.faults()
        for kind, count in counts.items():
            guilty = [kernel for kernel in kernels if any(kernel in text for text in texts)] or kernels
            example = next((text for text in texts if text.startswith(kind)), kind)
            self.fault(guilty, kind, f"{label}: {count} x {example}", count)
        for kernel in set(kernels):
            record = self.records[kernel]
            record.cases += 1
            record.error, record.loose = max(record.error, outcome.error), max(record.loose, outcome.loose)
            ratio = outcome.error / outcome.limit if outcome.limit else float(outcome.error > 0) * 1e9
            record.ratio = max(record.ratio, ratio)
        if not outcome.error <= outcome.limit:
            text = f"{label}: error {outcome.error:.3g}, limit {outcome.limit:.3g}"
            self.fault(kernels, "wrong result", text)

    def case(self, label: str, make: Callable[[], Outcomes], repeat: bool = True) -> None:
        """One case; with `repeat` again under other poison, junk in undefined bits, and orders of warps and blocks.

        The bits must be the same; the third time, with the other model of tensor cores, the limits.
        """
        self.m.set(**FIRST)
        first = self.results(label, make)
        if repeat:
            self.m.set(**REVERSED)
            if self.results(label + " [reversed]", make) != first:
                text = f"{label}: bits differ with the order of warps, or with undefined values"
                self.fault(["?"], "not deterministic", text)
        if repeat and self.thorough:
            self.m.set(**TRUNCATING)
            self.results(label + " [shuffled, truncating mma]", make)
        self.m.set(**FIRST)
