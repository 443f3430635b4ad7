"""Rules of your own as CUDA kernels, compiled at run time by CuPy from this package's one-element formulas.

    damped = ebp_cuda.jit.elementwise("T p, T z", "T r", "r = T(0.9) * ebp::share(p, z)", name="damped_share")
    r = damped(p, z)            # CuPy arrays, or torch tensors on a GPU, of float32 or float64

The header "rules.h" (namespace ebp: share, wins, routed, lrn ...) is the one that the package's own kernels and its CPU
side are compiled from; "geometry.h" adds the index maps of windows. Needs CuPy (the extra "cupy", or "cupy13" for
CUDA 13) and a GPU; compilation happens at the first call with arrays of a new type, and is cached by CuPy on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch

from .errors import InputError, ShapeError, UnsupportedError
from .interop import Array, one_kind

__all__ = ["HEADERS", "ElementwiseRule", "elementwise", "include_options", "raw_module"]

HEADERS = ("rules.h", "geometry.h")
"""What a source may include."""

_FOLDER = Path(__file__).resolve().with_name("include")


def include_options() -> tuple[str, ...]:
    """Compiler options by which NVRTC and nvcc find the headers: `#include "rules.h"`."""
    return (f"-I{_FOLDER}", "--std=c++17")


def elementwise(inputs: str, outputs: str, operation: str, *, name: str, preamble: str = "") -> ElementwiseRule:
    """A kernel that runs `operation` for every element of arrays that broadcast against one another.

    inputs, outputs: parameters as CuPy's ElementwiseKernel takes them, "T p, T z"; T is whatever type the arrays have.
    operation: statements in C++ that set the outputs; `ebp::` is at hand. name: a C identifier. preamble: declarations
    before the kernel. Raises InputError for a bad name, UnsupportedError where CuPy is missing.
    """
    return ElementwiseRule(inputs, outputs, operation, name, preamble)


class ElementwiseRule:
    """A compiled element-wise formula; see `elementwise`."""

    def __init__(self, inputs: str, outputs: str, operation: str, name: str, preamble: str) -> None:
        if not name.isidentifier():
            raise InputError(f"elementwise: name={name!r}; wanted a C identifier")
        self.name = name
        self.inputs = [part.split()[-1] for part in inputs.split(",") if part.split()]
        if not self.inputs or not outputs.strip():
            raise InputError(f"elementwise '{name}': got inputs={inputs!r}, outputs={outputs!r}; wanted one of each")
        self._cupy = _cupy()
        text = "\n".join([*(f'#include "{header}"' for header in HEADERS), preamble])
        self._kernel = self._cupy.ElementwiseKernel(
            inputs, outputs, operation, name, preamble=text, options=include_options()
        )

    def __call__(self, *arrays: Array) -> Any:
        """The outputs, of the kind of the inputs: CuPy arrays, or tensors on torch's current stream.

        Raises ShapeError for a wrong number of arrays or tensors on the CPU, InputError where the formula does not
        compile (with the compiler's own words) and for arrays of several libraries.
        """
        if len(arrays) != len(self.inputs):
            raise ShapeError(f"{self.name}: got {len(arrays)} arrays, wanted {len(self.inputs)}: {self.inputs}")
        one_kind(self.name, arrays)
        tensors = [array for array in arrays if isinstance(array, torch.Tensor)]
        if any(not tensor.is_cuda for tensor in tensors):
            raise ShapeError(f"{self.name}: got tensors on the CPU; wanted them on one GPU")
        with self._stream(tensors):
            inputs = [self._cupy.from_dlpack(t.detach()) for t in tensors] if tensors else arrays
            try:
                outputs = self._kernel(*inputs)
            except self._cupy.cuda.compiler.CompileException as error:
                raise InputError(f"{self.name} does not compile: {error}") from error
            if not tensors:
                return outputs
            several = isinstance(outputs, tuple)
            results = tuple(torch.from_dlpack(part) for part in (outputs if several else (outputs,)))
            return results if several else results[0]

    def _stream(self, tensors: Sequence[torch.Tensor]) -> AbstractContextManager[Any]:
        """torch's current stream and the tensors' device as CuPy's, where torch is the caller."""
        if not tensors:
            return nullcontext()
        device = tensors[0].device
        both = ExitStack()
        both.enter_context(torch.cuda.device(device))
        both.enter_context(self._cupy.cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream))
        return both


def raw_module(source: str, names: Sequence[str] = ()) -> Any:
    """A cupy.RawModule of kernels in CUDA C++ that may include the headers, compiled now.

    names: the kernels (templates with their arguments, "mine<float>") to be had by `get_function`. Raises InputError
    with the compiler's log where `source` does not compile, UnsupportedError where CuPy is missing.
    """
    cupy = _cupy()
    options = include_options()
    try:
        module = cupy.RawModule(code=source, options=options, name_expressions=tuple(names) or None)
        module.compile()
    except cupy.cuda.compiler.CompileException as error:
        raise InputError(f"raw_module: the source does not compile: {error}") from error
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise UnsupportedError(f"raw_module: CuPy finds no GPU to compile for: {error}") from error
    return module


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise UnsupportedError(
            f"ebp_cuda.jit needs CuPy ({error}): pip install ebp_cuda[cupy], or ebp_cuda[cupy13] for CUDA 13"
        ) from error
    return cupy
