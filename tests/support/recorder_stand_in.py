"""A stand-in for the GPU that does recorded work again, in place of every recorder while the fixture is asked for.

A test file asks for it by `pytest_plugins = ["support.recorder_stand_in"]`.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager

import pytest
import torch


class StandIn:
    """Records a run by keeping the work, and does it again into the same results."""

    def __init__(self) -> None:
        self.lock, self.recorded, self.replayed, self.busy, self.full = threading.RLock(), 0, 0, False, None

    def idle(self) -> bool:
        return not self.busy

    def turn(self) -> AbstractContextManager[object]:
        return self.lock

    def room(self, like: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(like)

    def record(self, work):
        if self.full is not None:
            raise self.full
        self.recorded += 1
        with torch.inference_mode(False):
            results = tuple(result.clone() for result in work())

        def replay() -> None:
            self.replayed += 1
            with torch.no_grad():
                for result, new in zip(results, work(), strict=True):
                    result.copy_(new)

        return results, replay


@pytest.fixture
def stand_in(monkeypatch):
    recorder = StandIn()
    monkeypatch.setattr("ebp_cuda.engine.capture.recorder_of", lambda device: recorder)
    return recorder
