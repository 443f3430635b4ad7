"""The order in which a GPU is asked to record and to replay, with torch.cuda as a list of what was asked of it."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import torch

from ebp_cuda.engine import capture


def fake_cuda(monkeypatch, log: list[str]) -> None:
    """torch.cuda's graphs and streams as a list of what was asked of them."""

    @contextmanager
    def noted(name: str):
        log.append(f"{name}[")
        yield
        log.append(f"{name}]")

    class Stream:
        def wait_event(self, event: object) -> None:
            log.append("wait")

    class Event:
        def record(self, stream: object) -> None:
            log.append("done")

    graph = SimpleNamespace(replay=lambda: log.append("replay"))
    parts = {
        "device": lambda device: nullcontext(),
        "stream": lambda stream: noted("stream"),
        "graph": lambda graph, **settings: noted(f"graph {settings['pool']} {settings['capture_error_mode']}"),
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": lambda: graph,
        "graph_pool_handle": lambda: "pool",
        "current_stream": Stream,
        "is_current_stream_capturing": lambda: False,
    }
    for name, part in parts.items():
        monkeypatch.setattr(torch.cuda, name, part)


def test_the_gpus_recorder_orders_its_work(monkeypatch):
    log: list[str] = []
    fake_cuda(monkeypatch, log)
    recorder = capture.CudaRecorder(torch.device("cpu"))
    run = capture.Run(recorder, [torch.ones(2)], lambda x: (log.append("work") or x * 2,))
    begin, end = "graph pool thread_local[", "graph pool thread_local]"
    assert log == ["wait", "stream[", "stream]", "work", begin, "work", end, "done"] and recorder.idle()
    log.clear()
    run([torch.zeros(2)])
    assert log == ["wait", "replay", "done"]


def test_one_recorder_serves_a_device(monkeypatch):
    fake_cuda(monkeypatch, [])
    capture._cuda_recorder.cache_clear()
    try:
        first, again, other = (capture.recorder_of(torch.device(name)) for name in ("cuda:0", "cuda:0", "cuda:1"))
        assert first is again is not other and capture.recorder_of(torch.device("cpu")) is None
    finally:
        capture._cuda_recorder.cache_clear()
