"""The linear map L of a layer. All that depends on a device, a layout or an instruction set stands here or below.

`map.py` is what rules and engine see. `part.py`, `window.py` and `weights.py` are the data, `pending.py` is the way
down while it waits for its sum. `cpu.py` (with `amx.py` and `onednn.py`) and `cuda.py` compute, `devices.py` says which
of them, and `choice.py` which kernel of a CPU runs and why no faster one.
"""

from __future__ import annotations

from .backend import Backend
from .choice import Choice
from .devices import CPU, CUDA, backend_of
from .map import KINDS, LinearMap, noting
from .pending import Pending, Ratio

__all__ = ["CPU", "CUDA", "KINDS", "Backend", "Choice", "LinearMap", "Pending", "Ratio", "backend_of", "noting"]
