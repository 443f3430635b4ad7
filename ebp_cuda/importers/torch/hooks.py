"""Hooks on a module's calls: those that make weights run in the traced copy, observers are left out, others refused.

A hook of the user must not meet the fake tensors of a trace, and an import must not fill the user's lists. Whether a
hook can change a value is read off its bytecode: it cannot where it returns None at every end, or what a container's
`append` (and the like) returned.
"""

from __future__ import annotations

import dis
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn

from ...errors import UnsupportedError

_MAKES_WEIGHTS = "torch.nn.utils."
"""Modules whose hooks compute a weight before each call: weight_norm, spectral_norm, prune."""

_RETURNS_NOTHING = frozenset(
    (
        *("append", "add", "update", "extend", "insert", "appendleft", "clear", "put", "put_nowait", "__setitem__"),
        *("print", "write", "writelines", "log", "debug", "info", "warning", "setattr"),
    )
)
"""Calls by which observers keep or report what they saw; all return None, or a count of characters."""

_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def kept_hooks(part: nn.Module, path: str, origin: str) -> Iterator[tuple[Any, OrderedDict[int, Any]]]:
    """The tables of hooks of one module, each with what the traced copy keeps of it.

    Args:
        part: the module that has the hooks.
        path: its path, for messages.
        origin: the whole module, for messages.

    Raises:
        UnsupportedError: for a forward hook that may change a value.
    """
    for name in _TABLES:
        table = getattr(part, name)
        makers = OrderedDict((key, hook) for key, hook in table.items() if _makes_weights(hook))
        for key, hook in table.items():
            if "forward" in name and key not in makers and may_change_values(hook):
                kind = "forward pre-hook" if "pre" in name else "forward hook"
                raise UnsupportedError(
                    f"{origin}: module '{path}' has a {kind} ({_name_of(hook)}) that may change what the module gives, "
                    "and hooks take no part in the network: remove it (handle.remove()), or compute that in a forward"
                )
        yield table, makers


def may_change_values(hook: Callable[..., Any]) -> bool:
    """Whether a hook may return another value, or write into the one that it sees; True where that is unknown."""
    function = _function_of(hook)
    if function is None:
        return True
    code = function.__code__
    writes = any(name.endswith("_") and not name.endswith("__") for name in code.co_names)  # relu_, copy_, mul_
    return writes or any(not _returns_nothing(code, end) for end in _ends(code))


def _makes_weights(hook: Callable[..., Any]) -> bool:
    function = _function_of(hook)
    return (getattr(function, "__module__", None) or type(hook).__module__).startswith(_MAKES_WEIGHTS)


def _function_of(hook: Any) -> FunctionType | None:
    """The Python function that a hook ends in, if it does."""
    while not isinstance(hook, FunctionType):
        if isinstance(hook, functools.partial):
            hook = hook.func
        elif isinstance(hook, MethodType):
            hook = hook.__func__
        else:
            call = getattr(type(hook), "__call__", None)  # noqa: B004 (the function itself is wanted)
            return call if isinstance(call, FunctionType) else None
    return hook


def _name_of(hook: Any) -> str:
    function = _function_of(hook)
    if function is None:
        return repr(hook)
    code = function.__code__
    return f"{function.__qualname__}, {code.co_filename}:{code.co_firstlineno}"


def _ends(code: CodeType) -> list[int]:
    """Positions of the instructions that return, among dis.get_instructions."""
    return [i for i, step in enumerate(dis.get_instructions(code)) if step.opname.startswith("RETURN_")]


def _returns_nothing(code: CodeType, end: int) -> bool:
    steps = list(dis.get_instructions(code))
    if steps[end].opname == "RETURN_GENERATOR":
        return True
    before = steps[end] if steps[end].opname == "RETURN_CONST" else steps[end - 1]
    if before.opname in ("RETURN_CONST", "LOAD_CONST"):
        return before.argval is None
    return before.opname.startswith("CALL") and _called(steps[:end]) in _RETURNS_NOTHING


def _called(steps: list[dis.Instruction]) -> str:
    """The name of the function that the last of `steps`, a call, calls: what was loaded onto an empty stack, or the
    attribute of that which was taken last before anything else came onto the stack."""
    name, depth = "", 0
    for step in steps:
        is_attribute = step.opname in ("LOAD_ATTR", "LOAD_METHOD")
        if step.opname.startswith("LOAD_") and depth == int(is_attribute):
            name = str(step.argval)
        try:
            depth += dis.stack_effect(step.opcode, step.arg, jump=False)
        except ValueError:  # an instruction that only the interpreter writes
            continue
    return name
