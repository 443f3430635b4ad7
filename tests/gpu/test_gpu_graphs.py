"""Recorded runs on a GPU: the bits of eager runs, whatever changes in between, on any stream, thread and device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from test_gpu import DEVICE, attribution, images, net_of

import ebp_cuda
from ebp_cuda import ExcitationBackprop, UnsupportedError
from ebp_cuda.engine.capture import Run

pytestmark = pytest.mark.gpu


def warm(eb: ExcitationBackprop, x: torch.Tensor, target) -> Run:
    """Two calls, and the run that they recorded."""
    for _ in range(2):
        eb.run(x, target)
    assert eb.why_not_captured == ""
    entry = list(eb.calls.recordings._entries.values())[-1]
    assert entry.run is not None
    return entry.run


def assert_same(eb: ExcitationBackprop, eager: ExcitationBackprop, x: torch.Tensor, target) -> None:
    got, wanted = eb.run(x, target), eager.run(x, target)
    assert torch.equal(got.maps, wanted.maps) and torch.equal(got.targets, wanted.targets)
    assert torch.equal(got.scores, wanted.scores)


@pytest.mark.parametrize("dtype", ["fp32", "tf32", "bf16", "fp64"])
@pytest.mark.parametrize("contrastive", [True, False], ids=["c-MWP", "MWP"])
@pytest.mark.parametrize("name", ["small", "digits"])
def test_a_replay_has_the_bits_of_an_eager_run(name, contrastive, dtype) -> None:
    eb = attribution(name, contrastive=contrastive, dtype=dtype)
    eager = attribution(name, contrastive=contrastive, dtype=dtype, graphs=False)
    warm(eb, images(name), "all")
    for seed in range(3):
        assert_same(eb, eager, images(name, seed=seed), "all")


@pytest.mark.parametrize("where", ["cpu", DEVICE])
@pytest.mark.parametrize("target", ["top3", "all", "given"])
def test_inputs_and_targets_change_between_replays(target, where) -> None:
    eb, eager = attribution("digits"), attribution("digits", graphs=False)
    for seed in range(5):
        chosen = torch.tensor([[seed, 3], [4, seed + 1]], device=where) if target == "given" else target
        assert_same(eb, eager, images("digits", 2, seed).to(where), chosen)
    assert len(eb.calls.recordings) == 1


def test_a_replay_reads_what_its_own_stream_wrote() -> None:
    """The input is written late, behind a long wait on the caller's stream, which only that stream knows of."""
    eb, x = attribution("digits"), images("digits", 2).to(DEVICE)
    run = warm(eb, x, [1, 2])
    targets = torch.tensor([[1], [2]], device=DEVICE)
    wanted = [tensor.clone() for tensor in run([x, targets])]
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(50_000_000)
        late.copy_(x)
        got = run([late, targets])
    other = run([x, targets])  # the default stream's turn comes after: one pool, one at a time
    stream.synchronize()
    torch.cuda.synchronize()
    for a, b, c in zip(got, other, wanted, strict=True):
        assert torch.equal(a, c) and torch.equal(b, c)


def test_recordings_that_share_the_pool_do_not_disturb_each_other() -> None:
    methods = [attribution("digits"), attribution("small"), attribution("digits", contrastive=False)]
    batches = [images("digits", 2), images("small", 3), images("digits", 5)]
    wanted = [eb.run(x, "top2").maps for eb, x in zip(methods, batches, strict=True)]
    for eb, x in zip(methods, batches, strict=True):
        warm(eb, x, "top2")
    torch.cuda.synchronize()
    wrong: list[int] = []

    def work(index: int) -> None:
        stream = torch.cuda.Stream()
        for _ in range(30):
            with torch.cuda.stream(stream):
                found = methods[index].attribute(batches[index].to(DEVICE), "top2")
            stream.synchronize()
            if not torch.equal(found, wanted[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_recording_in_one_thread_does_not_break_runs_in_another() -> None:
    eager, x = attribution("digits", graphs=False), images("digits", 2).to(DEVICE)
    wanted, wrong, stop = eager.attribute(x, "all"), [], threading.Event()

    def run_eagerly() -> None:
        while not stop.is_set():
            if not torch.equal(eager.attribute(x, "all"), wanted):
                wrong.append(1)

    thread = threading.Thread(target=run_eagerly)
    thread.start()
    try:
        for count in range(1, 5):
            warm(attribution("digits"), images("digits", count), "all")
    finally:
        stop.set()
        thread.join()
    assert not wrong


def test_replays_wait_for_nothing_and_take_no_more_memory() -> None:
    eb, x = attribution("digits"), images("digits", 4).to(DEVICE)
    run = warm(eb, x, [1, 2, 3, 4])
    targets = torch.tensor([[1], [2], [3], [4]], device=DEVICE)
    run([x, targets])
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            found = run([x, targets])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    size = sum(tensor.nbytes for tensor in found)
    assert torch.cuda.memory_allocated() - before <= size + 8 * 512


def test_a_second_recording_takes_its_room_from_the_first_ones() -> None:
    x = images("digits", 16)
    wanted = attribution("digits", graphs=False).attribute(x, "all")
    warm(first := attribution("digits"), x, "all")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    warm(second := attribution("digits"), images("digits", 12), "all")
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() - before <= 0.25 * before
    assert torch.equal(first.attribute(x, "all"), wanted)
    assert torch.equal(second.attribute(x[:12], "all"), attribution("digits", graphs=False).attribute(x[:12], "all"))


def test_written_weights_end_a_recording() -> None:
    from support.small_net import Small

    torch.manual_seed(4)
    module, x = Small().eval().to(DEVICE), images("small")
    net = ebp_cuda.from_torch(module, x.to(DEVICE))
    eb = ExcitationBackprop(net, "features.2", "features.4", "caffe", device=DEVICE)
    warm(eb, x, "all")
    before = eb.attribute(x, "all")
    with torch.no_grad():
        module.features[0].weight.mul_(-1)
    after = eb.attribute(x, "all")
    fresh = ExcitationBackprop(net, "features.2", "features.4", "caffe", device=DEVICE, graphs=False)
    assert not torch.equal(before, after)
    for _ in range(3):
        assert torch.equal(eb.attribute(x, "all"), fresh.attribute(x, "all"))


def test_what_cannot_be_recorded_runs_eagerly_and_says_why() -> None:
    eb, x = attribution("small", rules="conserving"), images("small")
    first = eb.attribute(x, "all")
    assert all(torch.equal(eb.attribute(x, "all"), first) for _ in range(3))
    assert eb.why_not_captured == "" or "cannot be recorded" in eb.why_not_captured


def test_the_caller_may_record_a_run_into_a_graph_of_his_own() -> None:
    eb, x = attribution("digits"), images("digits", 2).to(DEVICE)
    targets = torch.tensor([[1], [2]], device=DEVICE)
    wanted = eb.attribute(x, targets)
    graph, own = torch.cuda.CUDAGraph(), torch.zeros_like(x)
    with torch.cuda.graph(graph):
        maps = eb.attribute(own, targets)
    own.copy_(x)
    graph.replay()
    assert torch.equal(maps, wanted)


@contextmanager
def little_memory() -> Iterator[None]:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 64 * 2**20) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.mark.parametrize("graphs", [False, "auto"])
def test_a_full_memory_names_the_layer_and_what_to_do(graphs) -> None:
    eb = attribution("digits", graphs=graphs)
    wanted = eb.attribute(images("digits", 1), [3])
    with little_memory(), pytest.raises(UnsupportedError, match=r"out of memory, try fewer images.*Tried to allocate"):
        eb.attribute(images("digits", 2000), "all")
    assert torch.equal(eb.attribute(images("digits", 1), [3]), wanted)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second GPU")
def test_two_gpus_have_their_own_recordings() -> None:
    x = images("digits", 2)
    methods = [attribution("digits", f"cuda:{index}") for index in (0, 1)]
    wanted = [attribution("digits", f"cuda:{index}", graphs=False).attribute(x, "all") for index in (0, 1)]
    for eb in methods:
        warm(eb, x, "all")
    for _ in range(3):
        for eb, right in zip(methods, wanted, strict=True):
            found = eb.attribute(x, "all")
            assert found.device == right.device and torch.equal(found, right)
    assert torch.cuda.current_device() == 0


def test_a_device_without_an_index_is_the_current_one() -> None:
    eb = attribution("small", "cuda")
    assert eb.plan.device.index == torch.cuda.current_device()
    assert eb.plan is net_of("small").plan("caffe", eb.plan.device, "fp32")
