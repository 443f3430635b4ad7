"""What pycaffe keeps for the whole process: device, kind of backward pass, strictness."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...engine.plan import device_of
from ...errors import InputError

TRAIN, TEST = 0, 1


@dataclass
class Settings:
    """The process-wide settings; `settings` is the only one."""

    gpu: bool = False
    device_id: int = 0
    backward: str = "gradient"
    """"gradient", "eb" (excitation backprop) or "dc" (deconvolution)."""
    strict: bool = True
    seed: int = 0


settings = Settings()


def device() -> torch.device:
    """Where the next forward or backward runs. Raises UnsupportedError where there is no such device."""
    return device_of(f"cuda:{settings.device_id}" if settings.gpu else "cpu")


def _mode(backward: str, gpu: bool) -> None:
    if gpu:
        device_of(f"cuda:{settings.device_id}")
    settings.backward, settings.gpu = backward, gpu


def set_mode_cpu() -> None:
    """Forward on the CPU; backward is the ordinary gradient."""
    _mode("gradient", False)


def set_mode_gpu() -> None:
    """Forward on the GPU of `set_device`; backward is the ordinary gradient. Raises UnsupportedError without one."""
    _mode("gradient", True)


def set_mode_eb_cpu() -> None:
    """Backward is Excitation Backprop, on the CPU."""
    _mode("eb", False)


def set_mode_eb_gpu() -> None:
    """Backward is Excitation Backprop, on the GPU. Raises UnsupportedError without one."""
    _mode("eb", True)


def set_mode_dc_cpu() -> None:
    """Backward is deconvolution (a ReLU rectifies the signal that comes down), on the CPU."""
    _mode("dc", False)


def set_mode_dc_gpu() -> None:
    """Backward is deconvolution, on the GPU. Raises UnsupportedError without one."""
    _mode("dc", True)


def set_device(device_id: int) -> None:
    """The GPU that `set_mode_gpu` and its like use; as in pycaffe, it turns none on."""
    if int(device_id) < 0:
        raise InputError(f"set_device({device_id}): wanted 0 or more")
    settings.device_id = int(device_id)


def set_random_seed(seed: int) -> None:
    """Seed of the fillers of networks made without weights. No layer draws at random, dropout included."""
    settings.seed = int(seed)


def set_strict(strict: bool) -> None:
    """False: where the original leaves stale diffs or skips silently, do so too, instead of an error."""
    settings.strict = bool(strict)
