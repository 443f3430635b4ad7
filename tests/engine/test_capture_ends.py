"""What a recorded run rests on: what ends it, and whose memory it reads."""

from __future__ import annotations

import gc
import weakref

import torch
from support.small_net import Small, images, method, warm

import ebp_cuda
from ebp_cuda.engine.plan import Plan
from ebp_cuda.rules import OPERATIONS
from ebp_cuda.rules.relevance import Relevance

pytest_plugins = ["support.recorder_stand_in"]


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


def parts(plan: Plan) -> list[torch.Tensor]:
    """The positive parts of a plan's weights."""
    maps = [plan.linear(index) for index in range(len(plan.graph.nodes))]
    return [linear.positive().part.tensor() for linear in maps if linear is not None]


def test_replays_touch_the_same_memory(stand_in):
    eb, x = method(), images(2)
    warm(eb, x, "all")
    (entry,) = eb.calls.recordings._entries.values()

    def places() -> list[int]:
        placed = [held[1] for held in eb.plan._placed.values()]
        return [t.data_ptr() for t in (*entry.run._given, *entry.run.results, *placed, *parts(eb.plan))]

    before = places()
    for seed in range(3):
        eb.attribute(images(2, seed), "all")
    assert places() == before and len(before) > 10


def test_a_recording_keeps_what_it_reads(stand_in, monkeypatch):
    """Weights that are packed anew, or a table that a cache forgets, must not leave a replay with others' memory."""
    tables = {"one": torch.ones(1)}
    forgotten = weakref.ref(tables["one"])

    def scaled(step, above):
        return [above[0].times(step.outputs[0] * 0 + tables["one"])]

    monkeypatch.setitem(OPERATIONS["relu"].rules, "caffe", ebp_cuda.rules.Rule("pass", scaled, "y"))
    eb = method()
    warm(eb, images(1), 1)
    (entry,) = eb.calls.recordings._entries.values()
    packed = {id(part) for part in parts(eb.plan)}
    assert {id(tensor) for tensor in entry.run._keep} & packed
    tables["one"] = torch.ones(1)
    gc.collect()
    assert forgotten() is not None
    del entry
    eb.calls.recordings.clear()
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
