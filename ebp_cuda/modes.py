"""The modes of torch that a pass runs under, whatever the caller has switched on around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def exact(device: torch.device) -> AbstractContextManager[object]:
    """No autograd, and no autocast: under `torch.autocast` convolutions would silently run in half precision."""
    autocast = device.type != "meta" and torch.is_autocast_enabled(device.type)
    return _without_autocast(device) if autocast else torch.no_grad()


@contextmanager
def _without_autocast(device: torch.device) -> Iterator[None]:
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def in_full_precision(function: Function) -> Function:
    """`function` without the autocast of the CPU: what an op's CPU side asks of ATen would follow it otherwise."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]
