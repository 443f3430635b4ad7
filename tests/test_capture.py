"""Recorded runs, with a stand-in for the GPU that does the recorded work again."""

from __future__ import annotations

import gc
import threading
import weakref
from contextlib import AbstractContextManager
from functools import cache

import numpy as np
import pytest
import torch
from test_api import Small

import ebp_cuda
from ebp_cuda import ExcitationBackprop, InputError, UnsupportedError
from ebp_cuda.engine import capture
from ebp_cuda.engine.capture import Recordings
from ebp_cuda.engine.plan import Plan
from ebp_cuda.net import Net
from ebp_cuda.rules import OPERATIONS
from ebp_cuda.rules.relevance import Relevance

LAYER, CONTRAST = "features.2", "features.4"


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
    monkeypatch.setattr("ebp_cuda.api.recorder_of", lambda device: recorder)
    return recorder


@cache
def small() -> Net:
    torch.manual_seed(3)
    return ebp_cuda.from_torch(Small().eval(), images(2))


def images(count: int, seed: int = 0, size: tuple[int, int] = (12, 14)) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def method(net: Net | None = None, **options) -> ExcitationBackprop:
    return ExcitationBackprop(net or small(), LAYER, CONTRAST, **options)


def warm(eb: ExcitationBackprop, x: torch.Tensor, target) -> None:
    for _ in range(2):
        eb.run(x, target)


def test_what_comes_twice_is_recorded_and_replayed_to_the_same_bits(stand_in):
    eb, eager, x = method(), method(graphs=False), images(2)
    for seen, (recorded, replayed) in enumerate([(0, 0), (1, 0), (1, 1), (1, 2)]):
        found, wanted = eb.run(x, [1, 3]), eager.run(x, [1, 3])
        assert (stand_in.recorded, stand_in.replayed) == (recorded, replayed), seen
        for got, right in zip(vars(found).values(), vars(wanted).values(), strict=True):
            assert torch.equal(got, right) and got.dtype == right.dtype and got.shape == right.shape
    assert eb.why_not_captured == "" and "graphs=False" in eager.why_not_captured


def test_always_records_at_the_first_call(stand_in):
    method(graphs=True).run(images(1), 0)
    assert stand_in.recorded == 1


@pytest.mark.parametrize("kind", ["given", "top2", "all"])
def test_inputs_and_targets_change_between_replays(stand_in, kind):
    eb, eager = method(), method(graphs=False)
    for seed in range(6):
        x = images(3, seed)
        target = [seed % 5, (seed + 2) % 5, 4] if kind == "given" else kind
        got, wanted = eb.run(x, target), eager.run(x, target)
        assert torch.equal(got.maps, wanted.maps) and torch.equal(got.targets, wanted.targets)
        assert torch.equal(got.scores, wanted.scores)
    assert stand_in.recorded == 1 and stand_in.replayed == 4


def test_inputs_of_any_kind_reach_one_recording(stand_in):
    eb, x = method(), images(2)
    wanted = method(graphs=False).attribute(x, [1, 2])
    warm(eb, x, [1, 2])
    strided = x.repeat_interleave(2, 3)[..., ::2]
    given = (x.numpy(), x.double(), x.contiguous(memory_format=torch.channels_last), strided, {"x": x})
    for other in given[:4]:
        assert torch.equal(torch.as_tensor(eb.attribute(other, torch.tensor([[1], [2]]))), wanted)
        assert torch.equal(torch.as_tensor(eb.attribute(other, np.array([1, 2], np.int32))), wanted)
    assert stand_in.recorded == 1 and stand_in.replayed == 8


def test_results_are_the_callers_own(stand_in):
    eb = method()
    warm(eb, images(1), "all")
    first = eb.run(images(1), "all")
    kept = [tensor.clone() for tensor in vars(first).values()]
    first_maps = first.maps
    eb.run(images(1, 5), "all").maps.zero_()
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), kept, strict=True))
    first_maps.fill_(9)
    assert torch.equal(eb.attribute(images(1), "all"), kept[0])


def test_maps_and_relevance_are_recorded_apart(stand_in):
    eb, eager, x = method(), method(graphs=False), images(2)
    for _ in range(3):
        assert torch.equal(eb.attribute(x, 1), eager.attribute(x, 1))
        assert torch.equal(eb.relevance(x, 1), eager.relevance(x, 1))
    assert stand_in.recorded == 2 and stand_in.replayed == 2


def test_every_shape_and_count_has_its_own_and_the_oldest_goes(stand_in):
    recordings = Recordings(stand_in, limit=2)
    eb = method()
    eb._recordings = recordings
    for target in (1, [[1, 2]], "top2", 1):
        for _ in range(2 + capture.WORTH):
            eb.run(images(1), target)
    assert stand_in.recorded == 4 and len(recordings) == 2  # the first was forgotten, and recorded anew
    eb.run(images(1), "top2")
    assert stand_in.replayed == 4 * capture.WORTH + 1
    recordings.clear()
    assert len(recordings) == 0


def test_settings_that_come_and_go_are_recorded_no_more(stand_in):
    """Batches of many sizes: a recording that is forgotten before it was replayed costs more than it saves."""
    eb = method()
    eb._recordings = Recordings(stand_in, limit=2)
    for _ in range(20):
        for count in (1, 2, 3, 4):
            warm(eb, images(count), 1)
    assert stand_in.recorded <= 4
    for _ in range(40):
        eb.run(images(1), 1)
    assert stand_in.recorded <= 5 and stand_in.replayed > 4  # what does come often still is


def test_written_weights_end_a_recording(stand_in):
    torch.manual_seed(4)
    module = Small().eval()
    net, x = ebp_cuda.from_torch(module, images(2)), images(2)
    eb = method(net)
    warm(eb, x, 1)
    before = eb.attribute(x, 1)
    with torch.no_grad():
        module.features[0].weight.mul_(-1)
    after = eb.attribute(x, 1)
    assert stand_in.replayed == 1 and not torch.allclose(before, after)
    assert torch.equal(after, method(ebp_cuda.from_torch(module, x), graphs=False).attribute(x, 1))
    assert torch.equal(eb.attribute(x, 1), after) and stand_in.recorded == 2
    assert torch.equal(eb.attribute(x, 1), after) and stand_in.replayed == 2


def test_a_replaced_rule_ends_a_recording(stand_in, monkeypatch):
    eb, x = method(), images(1)
    warm(eb, x, 1)
    nothing = ebp_cuda.rules.Rule("route", lambda step, above: [Relevance(torch.zeros(1, *step.shapes[0][1:]))], "")
    monkeypatch.setitem(OPERATIONS["relu"].rules, "caffe", nothing)
    assert not eb.attribute(x, 1).any() and stand_in.replayed == 0


def test_settings_that_choose_other_kernels_are_another_recording(stand_in, monkeypatch):
    eb, x = method(), images(1)
    warm(eb, x, 1)
    monkeypatch.setattr(torch.backends.cudnn, "enabled", not torch.backends.cudnn.enabled)
    warm(eb, x, 1)
    assert stand_in.recorded == 2 and stand_in.replayed == 0


def test_threads_share_a_recording(stand_in):
    eb, eager = method(), method(graphs=False)
    batches = [images(2, seed) for seed in range(4)]
    wanted = [eager.attribute(x, [1, 4]) for x in batches]
    warm(eb, batches[0], [1, 4])
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(20):
            if not torch.equal(eb.attribute(batches[index], [1, 4]), wanted[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and stand_in.recorded == 1 and stand_in.replayed == 80


def test_replays_refuse_what_eager_runs_refuse(stand_in):
    eb, x = method(), images(2)
    warm(eb, x, [1, 2])
    for target in ([1, 5], [-1, 2]):
        with pytest.raises(InputError, match="the model has classes 0 to 4"):
            eb.attribute(x, target)
    bad = x.clone()
    bad[1, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="holds NaN"):
        eb.attribute(bad, [1, 2])
    assert stand_in.replayed == 0


@pytest.mark.parametrize("first", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("then", [torch.inference_mode, torch.enable_grad])
def test_a_recording_may_be_made_and_used_in_any_grad_mode(stand_in, first, then):
    eb, x = method(), images(1)
    with first():
        warm(eb, x, 1)
    with then():
        found = eb.attribute(x, 1)
    assert stand_in.replayed == 1 and not found.requires_grad
    assert torch.equal(found, method(graphs=False).attribute(x, 1))


def test_nothing_is_recorded_while_the_caller_records(stand_in):
    eb, x = method(), images(1)
    warm(eb, x, 1)
    stand_in.busy = True
    for _ in range(3):
        eb.attribute(x, 1)
        eb.attribute(x, 2)
    assert (stand_in.recorded, stand_in.replayed) == (1, 0)


def test_what_reads_numbers_back_stays_eager_and_says_where(stand_in, monkeypatch):
    def nosy(step, above):
        assert bool(above[0].s.isfinite().all())
        return above

    monkeypatch.setitem(OPERATIONS["relu"].rules, "caffe", ebp_cuda.rules.Rule("pass", nosy, ""))
    eb, x = method(), images(1)
    eager = method(graphs=False).attribute(x, 1)
    for _ in range(3):
        assert torch.equal(eb.attribute(x, 1), eager)
    layer = small().graph.nodes[small().graph.producer[small().graph.resolve(CONTRAST)[0]]].name
    assert f"layer '{layer}'" in eb.why_not_captured and "_local_scalar_dense" in eb.why_not_captured
    assert stand_in.recorded == 0
    with pytest.raises(UnsupportedError, match=r"graphs=True: layer .* between host and device cannot be recorded"):
        method(graphs=True).attribute(x, 1)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, UnsupportedError])
def test_a_full_memory_at_recording_leaves_eager_runs(stand_in, error):
    eb, x = method(), images(1)
    stand_in.full = error("tried to allocate 9 GiB")
    for _ in range(3):
        assert torch.equal(eb.attribute(x, 1), method(graphs=False).attribute(x, 1))
    assert eb.why_not_captured == f"{error.__name__}: tried to allocate 9 GiB"


def test_a_full_memory_in_a_replay_is_refused_like_any_other(stand_in, monkeypatch):
    eb, x = method(), images(2)
    warm(eb, x, 1)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(capture.Run, "__call__", full)
    with pytest.raises(UnsupportedError, match=r"2 images, 1 classes of each: out of memory, .*max_memory=: .*9 GiB"):
        eb.attribute(x, 1)


def test_graphs_are_of_cuda():
    assert "device='cpu' has no CUDA graphs" in method().why_not_captured
    with pytest.raises(UnsupportedError, match="graphs=True: device='cpu' has no CUDA graphs"):
        method(graphs=True)
    with pytest.raises(InputError, match="graphs='sometimes': wanted 'auto', True or False"):
        method(graphs="sometimes")


def test_replays_touch_the_same_memory(stand_in):
    eb, x = method(), images(2)
    warm(eb, x, "all")
    (entry,) = eb._recordings._entries.values()

    def places() -> list[int]:
        kept = [held[1] for table in (eb.plan._placed, eb.plan._packed) for held in table.values()]
        return [tensor.data_ptr() for tensor in (*entry.run._given, *entry.run.results, *kept)]

    before = places()
    for seed in range(3):
        eb.attribute(images(2, seed), "all")
    assert places() == before and len(before) > 10


def test_a_recording_keeps_what_it_reads(stand_in, monkeypatch):
    """Weights that are packed anew, or a table that a cache forgets, must not leave a replay with others' memory."""
    tables = {"one": torch.ones(1)}
    forgotten = weakref.ref(tables["one"])

    def scaled(step, above):
        return [above[0].gated(step.outputs[0] * 0 + tables["one"])]

    monkeypatch.setitem(OPERATIONS["relu"].rules, "caffe", ebp_cuda.rules.Rule("pass", scaled, "y"))
    eb = method()
    warm(eb, images(1), 1)
    (entry,) = eb._recordings._entries.values()
    packed = {id(held[1]) for held in eb.plan._packed.values()}
    assert {id(tensor) for tensor in entry.run._keep} & packed
    tables["one"] = torch.ones(1)
    gc.collect()
    assert forgotten() is not None
    del entry
    eb._recordings.clear()
    gc.collect()
    assert forgotten() is None


def test_a_plan_watches_weights_and_rules(monkeypatch):
    net = ebp_cuda.from_torch(Small().eval(), images(1))
    plan: Plan = net.plan()
    state = plan.watch(range(len(plan.graph.nodes)))
    before = state()
    assert state() == before
    weight = next(node.params["weight"] for node in plan.graph.nodes if node.params)
    with torch.no_grad():
        weight.add_(1)
    assert state() != before
    before = state()
    with torch.inference_mode():
        net.plan("caffe", "cpu", "fp64").params(0)
    assert state() == before
