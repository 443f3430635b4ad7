"""Images of several requests computed together: whoever comes within a few milliseconds shares one forward pass."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from ..api import ExcitationBackprop
from ..attribution import Attribution
from .limits import Limits, Refused


@dataclass(eq=False)
class Job:
    """One image of one request."""

    x: torch.Tensor
    """[1, C, H, W]."""
    targets: torch.Tensor | str
    """int64 [1, K], or "topN"."""
    answer: Future[Attribution] = field(default_factory=Future)
    """Of this image alone, N = 1."""

    @property
    def kind(self) -> object:
        """Jobs of one kind fit into one call."""
        asked = self.targets if isinstance(self.targets, str) else self.targets.shape[1]
        return tuple(self.x.shape), asked


class Batcher:
    """Runs jobs in a thread of its own, so many of one kind at a time, in the order in which they came."""

    def __init__(self, method: ExcitationBackprop, limits: Limits) -> None:
        self._method, self._limits = method, limits
        self._jobs: queue.Queue[Job | None] = queue.Queue(limits.waiting)
        self._ended = False
        """Whether the end was met among the jobs; the worker's own."""
        self._thread = threading.Thread(target=self._work, name="attribute", daemon=True)
        self._thread.start()
        self.calls = 0
        """Calls of the method so far."""

    def submit(self, x: torch.Tensor, targets: torch.Tensor | str) -> Future[Attribution]:
        """Takes an image. Raises Refused (503) where too many wait already."""
        job = Job(x, targets)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise Refused(503, "The server is busy: too many images wait. Try again in a moment.") from None
        return job.answer

    def close(self) -> None:
        """Ends the thread after the jobs that it has."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        held: list[Job] = []  # came in while a batch of another kind was gathered
        while True:
            first = held.pop(0) if held else None if self._ended else self._jobs.get()
            if first is None:
                return
            self._run(self._gather(first, held))

    def _gather(self, first: Job, held: list[Job]) -> list[Job]:
        """The first job and others of its kind; what else comes is held."""
        batch = [first, *_take(held, lambda job: job.kind == first.kind, self._limits.batch - 1)]
        until = time.monotonic() + self._limits.batch_seconds
        while len(batch) < self._limits.batch and not self._ended:
            try:
                job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                self._ended = True
            else:
                (batch if job.kind == first.kind else held).append(job)
        return batch

    def _run(self, jobs: Sequence[Job]) -> None:
        waited = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
        if not waited:
            return
        try:
            answers = self._attribute(waited)
        except Exception as error:
            if len(waited) > 1:  # one image of the batch is at fault: the others get their maps
                for job in waited:
                    self._run_alone(job)
                return
            waited[0].answer.set_exception(error)
            return
        for job, answer in zip(waited, answers, strict=True):
            job.answer.set_result(answer)

    def _run_alone(self, job: Job) -> None:
        try:
            (answer,) = self._attribute([job])
        except Exception as error:
            job.answer.set_exception(error)
        else:
            job.answer.set_result(answer)

    def _attribute(self, jobs: Sequence[Job]) -> list[Attribution]:
        self.calls += 1
        targets = jobs[0].targets
        if not isinstance(targets, str):
            targets = torch.cat([job.targets for job in jobs if not isinstance(job.targets, str)])
        result = self._method.run(torch.cat([job.x for job in jobs]), targets)
        self._method.check()
        return [
            Attribution(
                result.maps[n : n + 1], result.targets[n : n + 1], result.scores[n : n + 1],
                result.mass_left[n : n + 1], result.setting,
            )
            for n in range(len(jobs))
        ]  # fmt: skip


def _take(jobs: list[Job], fits: Callable[[Job], bool], most: int) -> list[Job]:
    """Takes jobs that fit out of a list."""
    taken = [job for job in jobs if fits(job)][:most]
    for job in taken:
        jobs.remove(job)
    return taken
