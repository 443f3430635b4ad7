"""Recorded runs, with a stand-in for the GPU that does the recorded work again."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from support.small_net import CONTRAST, images, method, small, warm

import ebp_cuda
from ebp_cuda import InputError, UnsupportedError
from ebp_cuda.engine import capture
from ebp_cuda.engine.capture import Recordings
from ebp_cuda.rules import OPERATIONS

pytest_plugins = ["support.recorder_stand_in"]


def test_what_comes_twice_is_recorded_and_replayed_to_the_same_bits(stand_in):
    eb, eager, x = method(), method(graphs=False), images(2)
    for seen, (recorded, replayed) in enumerate([(0, 0), (1, 0), (1, 1), (1, 2)]):
        found, wanted = eb.run(x, [1, 3]), eager.run(x, [1, 3])
        assert (stand_in.recorded, stand_in.replayed) == (recorded, replayed), seen
        for got, right in zip(found.arrays, wanted.arrays, strict=True):
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
    kept = [tensor.clone() for tensor in first.arrays]
    first_maps = first.maps
    eb.run(images(1, 5), "all").maps.zero_()
    assert all(torch.equal(a, b) for a, b in zip(first.arrays, kept, strict=True))
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
    eb.calls.recordings = recordings
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
    eb.calls.recordings = Recordings(stand_in, limit=2)
    for _ in range(20):
        for count in (1, 2, 3, 4):
            warm(eb, images(count), 1)
    assert stand_in.recorded <= 4
    for _ in range(40):
        eb.run(images(1), 1)
    assert stand_in.recorded <= 5 and stand_in.replayed > 4  # what does come often still is


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
    assert stand_in.replayed == 0  # the host knows the targets before anything runs
    bad = x.clone()
    bad[1, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="holds NaN"):
        eb.attribute(bad, [1, 2])
    assert stand_in.replayed == 1  # and of the input what the replay has written into its status


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
