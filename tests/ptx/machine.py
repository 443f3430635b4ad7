"""The executor from Python: loads programs into it and calls the project's launchers with arrays."""

from __future__ import annotations

import ctypes as C
from pathlib import Path
from typing import Any

import numpy as np
import ptx_program
from structs import MIRRORS, OPAQUE, Memory, pointer_to


class Machine:
    """The executor's library, with the kernels of one architecture in it."""

    def __init__(self, library: Path) -> None:
        self.lib = C.CDLL(str(library))
        sizes = (C.c_int * (len(MIRRORS) + len(OPAQUE)))()
        self.lib.sizes_of(sizes)
        mirrored, opaque = list(sizes)[: len(MIRRORS)], list(sizes)[len(MIRRORS) :]
        mirrors = [C.sizeof(mirror) for mirror in MIRRORS]
        if mirrored != mirrors:
            raise SystemExit(f"structs of the project have sizes {mirrored}, their mirrors {mirrors}")
        if any(size > C.sizeof(room) for size, room in zip(opaque, OPAQUE, strict=True)):
            raise SystemExit(f"structs of the project have sizes {opaque}, more than structs.py has room for")
        self.sizes = {room.__name__: size for size, room in zip(opaque, OPAQUE, strict=True)}
        self.lib.partial_of.restype = C.c_int64
        self.lib.px_unwritten.restype = C.c_uint64
        self.settings = {"poison": 0xCDCDCDCD, "order": 0, "mma_model": 0, "junk": 0x0AAA, "arch": 90}
        self.programs: dict[str, ptx_program.Program] = {}
        self.complaints: list[str] = []

    def set(self, **changes: int) -> None:
        self.settings |= changes
        s = self.settings
        self.lib.px_set(C.c_uint(s["poison"]), s["order"], s["mma_model"], C.c_uint(s["junk"]), s["arch"])

    def load(self, modules: list[Path]) -> None:
        self.lib.px_unload()
        self.programs.clear()
        for module in modules:
            programs, complaints = ptx_program.load(module.read_text())
            self.complaints += complaints
            for p in programs:
                self.programs[p.name] = p
                widths = np.array([w for w, _ in p.constants] or [4], np.int64)
                bits = np.array([b for _, b in p.constants] or [0], np.uint64)
                params = np.array(p.params, np.int64).reshape(-1)
                missing = C.create_string_buffer(10000)
                table = np.ascontiguousarray(p.table)
                unknown = self.lib.px_load(
                    p.name.encode(),
                    ("\n".join(p.ops) + "\n").encode(),
                    ("\n".join(p.texts) + "\n").encode(),
                    table.ctypes.data_as(C.c_void_p),
                    len(p.ops),
                    p.registers,
                    widths.ctypes.data_as(C.c_void_p),
                    bits.ctypes.data_as(C.c_void_p),
                    len(p.constants),
                    params.ctypes.data_as(C.c_void_p),
                    len(p.params),
                    C.c_int64(p.static_shared),
                    C.c_int64(p.local),
                    p.maxntid,
                    missing,
                    len(missing),
                )
                if unknown:
                    for op in missing.value.decode().split():
                        p.unsupported[op] = p.unsupported.get(op, 0) + 1

    def kernel_names(self) -> list[str]:
        out = C.create_string_buffer(1 << 20)
        self.lib.px_kernel_names(out, len(out))
        return out.value.decode().split()

    def launched(self) -> list[str]:
        out = C.create_string_buffer(1 << 22)
        self.lib.px_launched(out, len(out))
        return out.value.decode().split()

    def faults(self) -> tuple[dict[str, int], list[str]]:
        out = C.create_string_buffer(1 << 16)
        self.lib.px_faults(out, len(out))
        self.lib.px_faults_clear()
        head, _, tail = out.value.decode(errors="replace").partition("--\n")
        counts = {line.split("\t")[0]: int(line.split("\t")[1]) for line in head.splitlines()}
        return counts, tail.splitlines()

    def stats(self, name: str, clear: bool) -> np.ndarray:
        n = len(self.programs[name].ops)
        out = np.zeros((n, 8), np.uint64)
        self.lib.px_stats(name.encode(), out.ctypes.data_as(C.c_void_p), n, int(clear))
        return out

    def call(self, name: str, *args: Any) -> str | None:
        """Calls a launcher: nullptr as None, or what went wrong.

        Memory among the arguments becomes device buffers for the call; an access outside of all of them is a fault.
        """
        self.lib.px_buffers_clear()
        memories = [one for a in args for one in (a if isinstance(a, list) else [a]) if isinstance(one, Memory)]
        for memory in {id(memory): memory for memory in memories}.values():
            size = C.c_uint64(memory.array.nbytes)
            self.lib.px_buffer(pointer_to(memory), size, int(memory.writable), b"buffer")
        function = getattr(self.lib, name)
        function.restype = C.c_char_p
        error = function(*map(converted, args))
        for memory in memories:
            if memory.writable:
                memory.unwritten = self.lib.px_unwritten(pointer_to(memory))
        return None if error is None else error.decode()


def converted(argument: Any) -> Any:
    """An argument as ctypes wants it."""
    if argument is None or isinstance(argument, Memory):
        return pointer_to(argument)
    if isinstance(argument, list):
        return (C.c_void_p * len(argument))(*[memory.address for memory in argument])
    if isinstance(argument, C.Structure):
        return C.byref(argument)
    return C.c_int(argument) if isinstance(argument, bool) else argument
