"""What `set_mode_*` and its like decide: a thread's device and backward pass, and what holds for all threads."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import torch

from ...engine.plan import device_of
from ...errors import InputError, UnsupportedError

TRAIN, TEST = 0, 1

DEVICE_VARIABLE = "EBP_CAFFE_DEVICE"
"""Environment variable: "cpu" makes every `set_mode_*_gpu()` choose the CPU."""


@dataclass
class _ProcessSwitches:
    """What holds for every thread."""

    strict: bool = True
    gpu_fallback: bool = False


_switches = _ProcessSwitches()


class ThreadSettings(threading.local):
    """One thread's settings, as in Caffe since 2015: a new thread starts on the CPU with the ordinary gradient."""

    gpu: bool = False
    device_id: int = 0
    backward: str = "gradient"
    """"gradient", "eb" (excitation backprop) or "dc" (deconvolution)."""
    seed: int = 0

    @property
    def strict(self) -> bool:
        return _switches.strict


settings = ThreadSettings()


def device() -> torch.device:
    """Where the next forward or backward of this thread runs. Raises UnsupportedError where there is no such device."""
    return device_of(f"cuda:{settings.device_id}" if settings.gpu else "cpu")


def _set_mode(function: str, backward: str) -> None:
    gpu = function.endswith("_gpu") and not _forced_to_cpu()
    if gpu:
        gpu = _has_gpu(function)
    settings.backward, settings.gpu = backward, gpu


def _forced_to_cpu() -> bool:
    chosen = os.environ.get(DEVICE_VARIABLE, "")
    if chosen not in ("", "cpu", "gpu"):
        raise InputError(f"{DEVICE_VARIABLE}={chosen!r}; wanted 'cpu', 'gpu' or nothing")
    return chosen == "cpu"


def _has_gpu(function: str) -> bool:
    """Whether the thread's GPU can be used; False only where the script allowed the CPU in its place."""
    try:
        device_of(f"cuda:{settings.device_id}")
    except UnsupportedError as error:
        if _switches.gpu_fallback:
            return False
        raise UnsupportedError(
            f"{function}(): {error}. {function.replace('gpu', 'cpu')}() runs on the CPU; the environment variable "
            f"{DEVICE_VARIABLE}=cpu, or caffe.set_gpu_fallback(True), makes this script run there as it is"
        ) from None
    return True


def set_mode_cpu() -> None:
    """Forward on the CPU; backward is the ordinary gradient. Like all modes, of the calling thread."""
    _set_mode("set_mode_cpu", "gradient")


def set_mode_gpu() -> None:
    """Forward on the GPU of `set_device`; backward is the ordinary gradient. Raises UnsupportedError without one."""
    _set_mode("set_mode_gpu", "gradient")


def set_mode_eb_cpu() -> None:
    """Backward is Excitation Backprop, on the CPU."""
    _set_mode("set_mode_eb_cpu", "eb")


def set_mode_eb_gpu() -> None:
    """Backward is Excitation Backprop, on the GPU. Raises UnsupportedError without one."""
    _set_mode("set_mode_eb_gpu", "eb")


def set_mode_dc_cpu() -> None:
    """Backward is deconvolution (a ReLU rectifies the signal that comes down), on the CPU."""
    _set_mode("set_mode_dc_cpu", "dc")


def set_mode_dc_gpu() -> None:
    """Backward is deconvolution, on the GPU. Raises UnsupportedError without one."""
    _set_mode("set_mode_dc_gpu", "dc")


def set_device(device_id: int) -> None:
    """The GPU that `set_mode_gpu` and its like use in this thread; as in pycaffe, it turns none on."""
    if int(device_id) < 0:
        raise InputError(f"set_device({device_id}): wanted 0 or more")
    settings.device_id = int(device_id)


def set_random_seed(seed: int) -> None:
    """Seed of the fillers of networks that this thread makes without weights. No layer draws at random."""
    settings.seed = int(seed)


def set_strict(strict: bool) -> None:
    """False, for all threads: where the original leaves stale diffs or skips silently, do so too, without an error."""
    _switches.strict = bool(strict)


def set_gpu_fallback(fallback: bool) -> None:
    """True, for all threads: `set_mode_*_gpu()` chooses the CPU on a machine without a GPU, instead of an error."""
    _switches.gpu_fallback = bool(fallback)
