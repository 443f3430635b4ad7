"""The time that a launch should take on a GPU, from what it must do and what the machine can: a model.

A launch takes as long as the slowest of five: its instructions at the rate that the resident warps can issue them, its
wavefronts of shared memory, its products on tensor cores, its bytes from the L2 cache, its bytes of device memory.
Blocks come in whole waves. What a kernel executes is counted (kernel_costs.json); what the machine does in a second
stands in `Machine`. The constants are frozen: a change of one needs a measurement or a source, written beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

COSTS = Path(__file__).with_name("kernel_costs.json")
FLOAT = 4


@dataclass(frozen=True)
class Machine:
    """Rates of a GPU, per second; by default an H200's."""

    processors: int = 132  # NVIDIA H200 data sheet: 132 streaming multiprocessors
    schedulers: int = 4  # of a processor, one warp instruction a cycle each (CUDA programming guide, 9.0)
    clock: float = 1.755e9  # boost under load; no measurement: the H200's data sheet gives 1.98e9 as the most
    l2: float = 5.5e12  # bytes; published microbenchmarks of the H100, not measured here
    memory: float = 4.3e12  # bytes; copies reached this on an H200 (4.8e12 by the data sheet)
    fp32: float = 67e12  # FLOP; H100 SXM data sheet, as are the next two (494.7 and 989.4)
    tf32: float = 494e12
    bf16: float = 989e12
    mma: float = 0.62  # of the tensor cores' rate through mma.sync; published for the H100, not measured here
    launch: float = 1.5e-6  # seconds between two kernels of a replayed graph; a guess
    shortest: float = 1.5e-6  # seconds that the smallest kernel takes; a guess
    library: float = 0.62  # of fp32's rate in cuDNN's and cuBLAS's products; a guess
    library_start: float = 4e-6  # seconds that a small one of those takes longer than its rate says; a guess
    library_columns: int = 64  # channels that a tile of theirs computes; a guess
    pointwise: float = 0.7  # of the issue rate in kernels of one thread an element; a guess
    torch: float = 0.8  # of the copy rate in torch's pointwise kernels; a guess

    def issue(self, warps: int) -> float:
        """Instructions that a processor issues in a cycle with so many resident warps.

        The three efficiencies are a guess; more than 0.85 was published for no kernel of ordinary multiplications.
        """
        each = warps / self.schedulers
        return self.schedulers * (0.5 if each < 2 else 0.72 if each < 3 else 0.85)


H200 = Machine()


@dataclass(frozen=True)
class TiledCost:
    """What one block of a tiled kernel executes; counted from sm_90 machine code and addresses."""

    warps: int
    resident: int
    """Blocks that a processor holds."""
    before: int
    """Instructions of a warp before its first step."""
    step: int
    """Of a step of 16 terms."""
    ending: int
    """Behind the last step."""
    shared: int
    """Cycles in which a step of a block keeps the shared memory busy."""
    tensor: float = 0.0
    """Cycles in which it would keep the tensor cores busy at the rate of the data sheet."""


@cache
def costs() -> Mapping[str, Any]:
    """kernel_costs.json."""
    loaded: Mapping[str, Any] = json.loads(COSTS.read_text())
    return loaded


def tiled_seconds(cost: TiledCost, blocks: int, steps: int, machine: Machine) -> float:
    """What the blocks of a tiled kernel take, when nothing but their instructions and the shared memory counts."""
    each = steps / blocks

    def wave(resident: int) -> float:
        instructions = resident * cost.warps * (cost.before + each * cost.step + cost.ending)
        tensor = cost.tensor / machine.mma
        cycles = max(
            instructions / machine.issue(resident * cost.warps), resident * each * cost.shared, resident * each * tensor
        )
        return cycles / machine.clock

    whole, rest = divmod(blocks, cost.resident * machine.processors)
    last = wave(math.ceil(rest / machine.processors)) if rest else 0.0
    return whole * wave(cost.resident) + last


@dataclass(frozen=True)
class Launch:
    """One launch, or several alike, of the trace."""

    kernel: str
    """A name of kernel_costs.json; "library" for a product of cuDNN or cuBLAS, "torch" for a pointwise one of torch."""
    label: str
    """What it is for, such as "sweep 3x3"."""
    layer: str
    """Its sizes."""
    bytes: float
    """Read and written, every tensor once."""
    elements: float = 0
    flops: float = 0
    """Of products, each counted once: what the floor needs, and what a library's product is timed by."""
    channels: int = 0
    """Of a library's result."""
    blocks: int = 0
    steps: int = 0
    l2_bytes: float = 0
    count: int = 1


def seconds(launch: Launch, machine: Machine = H200, counted: Mapping[str, Any] | None = None) -> float:
    """The time that one of these launches should take."""
    counted = costs() if counted is None else counted
    least = max(launch.bytes / machine.memory, launch.l2_bytes / machine.l2)
    if launch.kernel == "library":
        columns = machine.library_columns
        filled = launch.channels / (columns * math.ceil(launch.channels / columns))
        least = machine.library_start + max(least, launch.flops / (filled * machine.library * machine.fp32))
    elif launch.kernel in counted["tiled"]:
        cost = TiledCost(**counted["tiled"][launch.kernel])
        least = max(least, tiled_seconds(cost, launch.blocks, launch.steps, machine))
    elif launch.kernel in counted["pointwise"]:
        rate = machine.processors * machine.schedulers * 32 * machine.clock * machine.pointwise
        least = max(least, launch.elements * counted["pointwise"][launch.kernel] / rate)
    elif launch.kernel == "torch":
        least /= machine.torch
    else:
        raise KeyError(f"{launch.kernel} stands neither in {COSTS.name} nor for a library")
    return max(least, machine.shortest) + machine.launch
