"""One status per call: what is wrong is known without a wait, and the error says which call and which layer it was."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.small_net import Small, images, method, small
from torch import nn

import ebp_cuda
from ebp_cuda import ExcitationBackprop, InputError, NumericError
from ebp_cuda.compat.sweep import propagate
from ebp_cuda.engine import status as status_module
from ebp_cuda.engine.status import KEPT, Status, status_of
from ebp_cuda.ops.host_sync import ForbidHostSync

NAN, INFINITY = float("nan"), float("inf")


class Slow:
    """A status on its way from a device that works when it is told to."""

    at_once = False

    def __init__(self, tensor: torch.Tensor, device: Deferred) -> None:
        self.tensor, self.device = tensor, device

    def arrived(self) -> bool:
        return self.device.idle

    def status(self) -> torch.Tensor:
        self.device.waits += not self.device.idle
        return self.tensor


class Deferred:
    """A stand-in for a GPU as far as a status is concerned: it arrives later."""

    def __init__(self) -> None:
        self.idle, self.waits = False, 0


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Deferred:
    stand_in = Deferred()
    monkeypatch.setattr(status_module, "arrival_of", lambda tensor: Slow(tensor, stand_in))
    return stand_in


def spoiled(value: float, count: int = 2) -> torch.Tensor:
    x = images(count)
    x[count - 1, 1, 2, 3] = value
    return x


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (torch.ones(2, 3), ""),
        (torch.tensor([1.0, -INFINITY]), "infinite values"),
        (torch.tensor([INFINITY, NAN]), "NaN"),
    ],
)
def test_an_input_is_finite_infinite_or_nan(x: torch.Tensor, kind: str) -> None:
    assert Status.of(status_of([torch.zeros(1), x])).inputs == ("", kind)


def test_a_status_holds_targets_masses_and_whether_all_is_finite() -> None:
    targets, masses = torch.tensor([[3, -2], [7, 0]]), [torch.tensor([[0.5, 0.0]]), torch.tensor([[0.25, 4.0]])]
    read = Status.of(status_of([torch.ones(1)], targets, masses))
    assert read == Status(least_mass=0.25, largest_mass=4, lowest=-2, highest=7, inputs=("",)) and read.finite
    for bad in (NAN, INFINITY):
        assert not Status.of(status_of([torch.ones(1)], None, [torch.tensor([bad, 1])])).finite


def test_the_status_of_a_call_in_parts_is_the_worst_of_its_parts() -> None:
    parts = [
        status_of([torch.tensor([value])], torch.tensor([[target]]), [torch.tensor([[mass]])])
        for value, target, mass in [(1.0, 3, 0.5), (INFINITY, 9, 0.25), (1.0, -1, 0.75)]
    ]
    assert Status.of(torch.cat(parts)) == Status(0.25, 0.75, -1, 9, ("infinite values",))
    parts.append(status_of([torch.tensor([NAN])], None, [torch.tensor([NAN])]))
    assert Status.of(torch.cat(parts)).inputs == ("NaN",) and not Status.of(torch.cat(parts)).finite


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_a_status_is_made_without_asking_the_device(where: str) -> None:
    x, targets, masses = (torch.ones(2, 3, device=where) for _ in range(3))
    with ForbidHostSync():
        assert status_of([x], targets.long(), [masses]).shape == (1, 7)


def test_no_call_waits_and_a_later_one_tells(device: Deferred) -> None:
    eb = method()
    eb.run(images(1), 1)
    eb.run(spoiled(NAN), 2)
    eb.run(images(3), 3)
    assert device.waits == 0
    device.idle = True
    with pytest.raises(InputError, match=r"^call 2 of 3 \(.* \[2, 3, 12, 14\], 1 classes of each image\): .*holds NaN"):
        eb.run(images(1), 1)
    assert device.waits == 0 and eb.run(images(1), 1).maps.shape[0] == 1


def test_check_waits_for_all_and_tells_one_after_the_other(device: Deferred) -> None:
    eb = method()
    for value in (1.0, NAN, 1.0, INFINITY):
        eb.run(spoiled(value), 1)
    with pytest.raises(InputError, match=r"^call 2 of 4 .*NaN"):
        eb.check()
    with pytest.raises(InputError, match=r"^call 4 of 4 .*infinite"):
        eb.check()
    eb.check()
    assert device.waits == 4


def test_results_on_the_host_have_been_judged(device: Deferred, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebp_cuda.api.goes_to_the_host", lambda given, tensor: isinstance(given, np.ndarray))
    method().run(images(2).numpy(), 1)
    with pytest.raises(InputError, match=r"^call 1 of 1 .*NaN"):
        method().run(spoiled(NAN).numpy(), 1)


def test_a_class_that_the_host_cannot_know_is_in_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for targets on a GPU: neither an index out of range nor a silent other class."""
    monkeypatch.setattr("ebp_cuda.targets.minmax", lambda tensor: None)
    for targets, wrong in ([[1, 5], [2, 3]], 5), ([[1, 2], [-3, 4]], -3):
        with pytest.raises(InputError, match=f"target {wrong}: the model has classes 0 to 4"):
            method().run(images(2), targets)


def overflowing() -> nn.Module:
    torch.manual_seed(0)
    module = Small().eval()
    with torch.no_grad():
        module.features[3].bias.fill_(INFINITY)
    return module


def test_a_result_that_is_not_finite_names_the_first_layer() -> None:
    net = ebp_cuda.from_torch(overflowing(), images(1))
    layer = net.graph.nodes[net.graph.producer[net.graph.resolve("features.3")[0]]].name
    wanted = f"relevance at layer 'features.2' is not finite: the first is the output of layer '{layer}'"
    with pytest.raises(NumericError, match=wanted):
        method(net).run(images(1), 1)


def test_a_deferred_call_is_run_again_only_to_name_the_layer(device: Deferred) -> None:
    eb = method(ebp_cuda.from_torch(overflowing(), images(1)))
    ran: list[object] = []
    measure = eb.calls._measure
    eb.calls._measure = lambda *asked: ran.append(asked) or measure(*asked)  # type: ignore[method-assign]
    eb.run(images(1), 1)
    assert len(ran) == 1
    with pytest.raises(NumericError, match=r"^call 1 of 1 .*: the first is the output of layer"):
        eb.check()
    assert len(ran) == 2


def test_inputs_are_kept_for_the_last_calls_only(device: Deferred) -> None:
    eb = method()
    kept = []
    for _ in range(KEPT + 2):
        x = images(1)
        kept.append(weakref.ref(x))
        eb.run(x, 1)
    del x
    gc.collect()
    assert [ref() is not None for ref in kept] == [False] * 2 + [True] * KEPT
    eb.check()
    gc.collect()
    assert not any(ref() is not None for ref in kept)


def test_in_parts_every_part_counts() -> None:
    peak = method().chunks((1, 3, 12, 14), 2).peak
    eb = method(max_memory=peak)
    assert eb.chunks((4, 3, 12, 14), 5).images == 1
    with pytest.raises(InputError, match="holds NaN"):
        eb.run(spoiled(NAN, 4), "all")


def test_forward_and_the_adapters_tell_through_the_network(device: Deferred) -> None:
    net = ebp_cuda.from_torch(Small().eval(), images(1))
    net.forward(spoiled(NAN))
    (layer,) = net.graph.resolve("features.2")
    propagate(net, [spoiled(INFINITY)], net.default_top(), torch.ones_like, [layer])
    device.idle = True
    with pytest.raises(InputError, match=r"^call 1 of 2 .*NaN"):
        net.forward(images(1))
    with pytest.raises(InputError, match=r"^call 2 of 2 .*infinite values"):
        net.check()


def test_a_copy_of_a_network_has_calls_of_its_own(device: Deferred) -> None:
    net = ebp_cuda.from_torch(Small().eval(), images(1))
    net.forward(spoiled(NAN))
    copy.deepcopy(net).check()
    with pytest.raises(InputError, match="NaN"):
        net.check()


def test_nothing_is_asked_where_there_are_no_numbers() -> None:
    eb = ExcitationBackprop(small(), "features.2", "features.4", "caffe", device="meta")
    assert eb.run(spoiled(NAN), torch.tensor([1, 2])).maps.is_meta
    eb.check()


@pytest.mark.parametrize("call", [lambda eb, x: eb.run(x, 1), lambda eb, x: eb.relevance(x, "top2")])
def test_on_the_cpu_it_is_read_at_once(call: Callable[[ExcitationBackprop, torch.Tensor], object]) -> None:
    with pytest.raises(InputError, match=r"^.*: input '.*' holds NaN$"):
        call(method(), spoiled(NAN))
    with pytest.raises(InputError, match="holds infinite values"):
        call(method(), images(2).double() * 1e60)  # beyond what float32 holds
