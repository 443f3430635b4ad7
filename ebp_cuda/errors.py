"""The refusals of ebp_cuda: every one is an `EBPError` that names what was got and what was wanted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice


class EBPError(Exception):
    """Base of every error that ebp_cuda raises on purpose."""


class ModelError(EBPError):
    """A model file is missing, truncated, malformed, or does not fit its weights."""


class ShapeError(EBPError):
    """A tensor, blob or input has a shape or dtype that the layer or argument cannot take."""


class UnsupportedError(EBPError):
    """A valid request that this build, device or rule set has no implementation for."""


class InputError(EBPError):
    """An argument or input file holds a value that cannot be used (unknown name, NaN, bad range)."""


class NumericError(EBPError):
    """A result that is no finite number: an overflow, or weights that hold NaN."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch raised `error` because a device, or the host, has no memory left."""
    import torch  # not above: errors are known before torch is needed

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> str:
    """The part of an error message that suggests names: "; nearest: a, b" or an empty string."""
    # the search is quadratic in the length of the names and linear in their number: hostile files have long ones
    likely = [text for text in islice(known, 5000) if len(text) <= 100]
    nearest = difflib.get_close_matches(name[:100], likely, n=count, cutoff=0.4)
    return f"; nearest: {', '.join(nearest)}" if nearest else ""
