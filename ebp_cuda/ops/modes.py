"""The modes of torch that a pass runs under, whatever the caller has switched on around it.

A contrast is a small difference of two large masses: half precision that somebody chose for the rest of the program
would make noise of it. So neither autocast nor torch's settings for float32 products reach a pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., Any])

_EXACT = ("none", "ieee")


def _settings(device: str) -> tuple[Any, ...]:
    """What may round the operands of float32 products on this type of device (torch.set_float32_matmul_precision)."""
    if device == "cuda":
        return (torch.backends.cuda.matmul,)
    mkldnn: Any = torch.backends.mkldnn
    return mkldnn.matmul, mkldnn.conv


def _turned_off(setting: Any) -> Callable[[], None]:
    """Turns rounding off for a setting that rounds; what comes back turns it on again.

    By the interface that turned it on: torch refuses to read `allow_tf32` and `get_float32_matmul_precision` where the
    older interface says one thing and the newer another, and another thread may read them meanwhile.
    """
    before, matmul = setting.fp32_precision, torch.backends.cuda.matmul
    if setting is matmul:
        try:
            older = matmul.allow_tf32
        except RuntimeError:  # the caller's two interfaces disagree as it is
            older = False
        if older:
            level = torch.get_float32_matmul_precision() if _one_level() else None
            if level is not None:
                torch.set_float32_matmul_precision("highest")
                return lambda: torch.set_float32_matmul_precision(level)
            matmul.allow_tf32 = False
            return lambda: setattr(matmul, "allow_tf32", True)
    setting.fp32_precision = "ieee"
    return lambda: setattr(setting, "fp32_precision", before)


def _one_level() -> bool:
    """Whether torch.set_float32_matmul_precision set what holds: on every backend, not on CUDA alone."""
    mkldnn: Any = torch.backends.mkldnn
    try:
        level = torch.get_float32_matmul_precision()
    except RuntimeError:
        return False
    return bool(mkldnn.matmul.fp32_precision == {"high": "tf32", "medium": "bf16"}.get(level))


class _Unrounded:
    """Float32 products as they are, for as long as any pass runs: the settings are the process's, the passes many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._before: list[Callable[[], None]] = []

    @contextmanager
    def hold(self, device: str) -> Iterator[None]:
        with self._lock:
            self._running += 1
            for setting in _settings(device):
                if setting.fp32_precision not in _EXACT:
                    self._before.append(_turned_off(setting))
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                while self._before and not self._running:
                    self._before.pop()()

    def is_needed(self, device: str) -> bool:
        """Also while another pass has changed the settings, so that they do not come back in the middle of this one."""
        return self._running > 0 or any(setting.fp32_precision not in _EXACT for setting in _settings(device))


_UNROUNDED = _Unrounded()


def exact(device: torch.device, *, followed: bool = False) -> AbstractContextManager[object]:
    """No autograd, no autocast, and no rounding of float32 operands that the pass did not ask for.

    followed: autograd it is nevertheless, for a transposed sweep (`ops.adjoint`).
    """
    autograd = torch.enable_grad() if followed else torch.no_grad()
    if device.type not in ("cpu", "cuda"):  # a meta tensor holds no numbers
        return autograd
    rounds = not torch.compiler.is_compiling() and _UNROUNDED.is_needed(device.type)
    if not rounds and not torch.is_autocast_enabled(device.type):
        return autograd
    return _as_asked(device, rounds, autograd)


@contextmanager
def _as_asked(device: torch.device, rounds: bool, autograd: AbstractContextManager[object]) -> Iterator[None]:
    with (
        autograd,
        torch.autocast(device.type, enabled=False),
        _UNROUNDED.hold(device.type) if rounds else nullcontext(),
    ):
        yield


def in_full_precision(function: Function) -> Function:
    """`function` without the autocast of the CPU, which ATen's functions would follow otherwise."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]
