"""Python 2 -> Python 3, by the package fissix (the successor of lib2to3)."""

from __future__ import annotations

import logging
from typing import Any

from ...errors import InputError, UnsupportedError

_BOTH = (
    "basestring", "buffer", "dict", "except", "execfile", "funcattrs", "future", "getcwdu", "has_key", "import",
    "imports", "intern", "itertools", "itertools_imports", "long", "metaclass", "methodattrs", "ne", "next",
    "numliterals", "operator", "raise", "raw_input", "reduce", "renames", "repr", "standarderror", "throw",
    "tuple_params", "types", "unicode", "urllib", "xrange", "xreadlines",
)  # fmt: skip
"""Fixers for a text that may be either."""

_STATEMENTS = ("print", "exec", "filter", "map", "zip", "input")
"""Fixers that would spoil what is Python 3 already."""


def is_python3(text: str) -> bool:
    """Whether Python 3 can read the text."""
    try:
        compile(text, "script", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def to_python3(text: str, origin: str, *, python2: bool) -> str:
    """The text as Python 3. `python2`: its print is a statement, its map gives a list.

    Raises InputError where it is neither Python 2 nor 3, UnsupportedError without fissix.
    """
    try:
        from fissix.pgen2.parse import ParseError
        from fissix.pgen2.tokenize import TokenError
        from fissix.refactor import RefactoringTool
    except ImportError:
        raise UnsupportedError("ebp-cuda port needs the package fissix: pip install ebp_cuda[port]") from None

    class Quiet(RefactoringTool):
        def log_error(self, msg: str, *args: Any, **kwargs: Any) -> None:
            raise

        def log_message(self, msg: str, *args: Any) -> None:
            pass

    logging.getLogger("fissix").setLevel(logging.ERROR)
    names = [*_BOTH, *(_STATEMENTS if python2 else ())]
    tool = Quiet([f"fissix.fixes.fix_{name}" for name in names], {"print_function": not python2})
    try:
        return str(tool.refactor_string(text if text.endswith("\n") else f"{text}\n", origin))
    except (ParseError, TokenError, SyntaxError, IndentationError) as error:
        raise InputError(f"{origin}: neither Python 2 nor Python 3: {error}") from None
