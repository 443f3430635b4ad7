"""Libraries that only some uses need: imported at that use, and named with their extra where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import UnsupportedError


def require(module: str, extra: str, what: str) -> Any:
    """The module of that name. Raises UnsupportedError "WHAT needs MODULE: pip install ebp_cuda[EXTRA]"."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise UnsupportedError(f"{what} needs {library}: pip install 'ebp_cuda[{extra}]' ({error})") from error
