"""What a call takes of memory: growth of this process's resident memory to its peak, by the kernel's account."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process: VmRSS now, VmHWM at the peak since it was last set back. Linux only."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


def growth(call: Callable[[], Any]) -> int:
    """Bytes that `call` takes at its worst moment above what lies there before it."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the peak back to what lies there now
    call()
    return resident("VmHWM") - before
