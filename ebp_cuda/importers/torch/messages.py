"""What torch's errors and exported calls say to people: kind, first line, and the line of the user's code."""

from __future__ import annotations

import linecache
import re
import traceback
from pathlib import Path

import torch
from torch import fx
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

_INSIDE = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
"""Folders whose lines are of no use to the user: torch's and this one."""

_OF_VALUES = (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException)

FROM_VALUES = "takes a number, a size or a decision from the values of the image (.item(), or an if on a tensor)"


def first_line(error: BaseException) -> str:
    """Kind and first line of an error of torch's, whose messages run over many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def why_not_traced(error: BaseException) -> str:
    """What torch.export could not take, with the line of the module's code where that is known."""
    reason = first_line(error)
    if isinstance(error, _OF_VALUES):
        reason = FROM_VALUES
    elif "constant's list" in reason:
        reason = "the forward writes a tensor by .data, or keeps one that is no parameter or buffer"
    line = _line_of(error)
    return f"{line}: {reason}" if line else reason


def _line_of(error: BaseException) -> str:
    """The last line outside of torch that the error came through."""
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    return _described(frames)


def line_of_call(node: fx.Node) -> str:
    """The line of the module's code that made a call of an exported program; "" where torch does not say."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    return _described([(file, int(number)) for file, number in frames])


def _described(frames: list[tuple[str, int]]) -> str:
    own = [(file, number) for file, number in frames if not file.startswith((*_INSIDE, "<"))]
    if not own:
        return ""
    file, number = own[-1]
    return f"{file}, line {number}: `{linecache.getline(file, number).strip()}`"
