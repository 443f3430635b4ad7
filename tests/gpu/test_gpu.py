"""The public API on a GPU: the numbers of the CPU, the same bits every time, on any stream."""

from __future__ import annotations

import threading
from functools import cache

import numpy as np
import pytest
import torch
from support.small_net import Small

import ebp_cuda
from ebp_cuda import ExcitationBackprop, ShapeError, UnsupportedError, ops
from ebp_cuda.models import digits
from ebp_cuda.net import Net

pytestmark = pytest.mark.gpu

DEVICE = "cuda"
SAME = 1e-4
WINDOW = (1, 1), (0, 0, 0, 0), (1, 1), 1
CALLS = [ops.divide_or_zero, ops.gate, lambda x, w: ops.conv2d_normalizer(x, w, *WINDOW)]
NETS = {"small": ("features.2", "features.4"), "digits": (digits.LAYER, digits.CONTRAST_LAYER)}


@cache
def net_of(name: str) -> Net:
    if name == "digits":
        return digits.load()
    torch.manual_seed(3)
    return ebp_cuda.from_torch(Small().eval(), torch.rand(2, 3, 12, 14))


def images(name: str, count: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if name == "digits":
        return torch.rand(count, 3, 112, 112, generator=generator) * 255 - 110
    return torch.rand(count, 3, 12, 14, generator=generator)


def attribution(name: str, device: str = DEVICE, contrastive: bool = True, **options) -> ExcitationBackprop:
    layer, contrast = NETS[name]
    options = {"rules": "caffe", **options}
    return ExcitationBackprop(net_of(name), layer, contrast if contrastive else None, device=device, **options)


def distance(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative L1 of the worst map."""
    got, wanted = got.cpu().double().flatten(2), wanted.cpu().double().flatten(2)
    return float(((got - wanted).abs().sum(2) / wanted.abs().sum(2)).max())


@pytest.mark.parametrize("rules", ["caffe", "conserving"])
@pytest.mark.parametrize("contrastive", [True, False], ids=["c-MWP", "MWP"])
@pytest.mark.parametrize("name", NETS)
def test_maps_are_the_cpus(name, contrastive, rules) -> None:
    x = images(name)
    wanted = attribution(name, "cpu", contrastive, rules=rules).run(x, "all")
    got = attribution(name, DEVICE, contrastive, rules=rules).run(x, "all")
    assert got.maps.device.type == DEVICE and got.maps.shape == wanted.maps.shape
    assert torch.equal(got.targets.cpu(), wanted.targets)
    torch.testing.assert_close(got.scores.cpu(), wanted.scores, rtol=1e-4, atol=1e-4 * float(wanted.scores.abs().max()))
    assert distance(got.maps, wanted.maps) <= SAME


def test_float64_is_the_cpus_to_rounding() -> None:
    x = images("digits", 1)
    wanted = attribution("digits", "cpu", dtype="fp64").attribute(x, "top3")
    assert distance(attribution("digits", dtype="fp64").attribute(x, "top3"), wanted) <= 1e-11


@pytest.mark.parametrize("name", NETS)
def test_activations_are_the_cpus(name) -> None:
    x, layer = images(name), NETS[name][0]
    wanted = net_of(name).forward(x, [layer])[layer]
    got = net_of(name).forward(x, [layer], device=DEVICE)[layer]
    assert got.device.type == DEVICE
    torch.testing.assert_close(got.cpu(), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", NETS)
def test_two_runs_give_the_same_bits(name) -> None:
    eb, x = attribution(name), images(name, 4)
    first = eb.attribute(x, "all")
    torch.empty(1 << 24, device=DEVICE).fill_(float("nan"))  # what the next run gets from the allocator is dirty
    assert torch.equal(first, eb.attribute(x, "all"))
    assert torch.equal(first, attribution(name).attribute(x, "all"))


def test_other_inputs_between_runs_leave_no_trace() -> None:
    eb, x = attribution("digits"), images("digits", 2)
    first = eb.attribute(x, [1, 7])
    eb.attribute(images("digits", 5, seed=9), "all")
    eb.attribute(images("digits", 2, seed=10), [3, 4])
    assert torch.equal(first, eb.attribute(x, [1, 7]))


@pytest.mark.parametrize("kind", ["on the device", "on the cpu", "numpy", "float64", "channels_last", "strided"])
def test_inputs_may_lie_anywhere(kind) -> None:
    eb, x = attribution("small"), images("small")
    wanted = eb.attribute(x.to(DEVICE), "all")
    given = {
        "on the device": lambda: x.to(DEVICE),
        "on the cpu": lambda: x,
        "numpy": lambda: np.asarray(x),
        "float64": lambda: x.to(DEVICE).double(),
        "channels_last": lambda: x.to(DEVICE).contiguous(memory_format=torch.channels_last),
        "strided": lambda: x.to(DEVICE).repeat_interleave(2, 3)[..., ::2],
    }[kind]()
    assert torch.equal(torch.as_tensor(eb.attribute(given, "all")).to(DEVICE), wanted)


@pytest.mark.parametrize("where", ["cpu", DEVICE])
def test_targets_may_lie_anywhere(where) -> None:
    eb, x = attribution("small"), images("small")
    assert torch.equal(eb.attribute(x, torch.tensor([0, 3, 4], device=where)), eb.attribute(x, [0, 3, 4]))


@pytest.mark.parametrize("call", CALLS)
def test_work_is_queued_on_the_current_stream(call) -> None:
    """The input is written late, by a kernel queued before ours on a stream of its own: only that stream waits."""
    x = torch.rand(1, 2, 9, 9, device=DEVICE) + 1
    wanted, stream = call(x, x), torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        late = torch.zeros_like(x)
        torch.cuda._sleep(50_000_000)
        late.copy_(x)
        got = call(late, x)
    stream.synchronize()
    assert torch.equal(got, wanted)


def test_two_streams_in_two_threads_do_not_disturb_each_other() -> None:
    eb = attribution("digits")
    batches = [images("digits", 2, seed) for seed in (0, 1)]
    wanted = [eb.attribute(x, "top2") for x in batches]
    torch.cuda.synchronize()
    wrong: list[int] = []

    def work(index: int) -> None:
        stream = torch.cuda.Stream()
        for _ in range(20):
            with torch.cuda.stream(stream):
                found = eb.attribute(batches[index].to(DEVICE), "top2")
            stream.synchronize()
            if not torch.equal(found, wanted[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_callers_settings_neither_matter_nor_change(monkeypatch) -> None:
    x = images("digits", 2)
    wanted = attribution("digits").attribute(x, "top2")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not torch.backends.cudnn.allow_tf32)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    assert torch.equal(attribution("digits").attribute(x, "top2"), wanted)
    assert before == (
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    beyond = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UnsupportedError, match=beyond):
        attribution("small", beyond)


@pytest.mark.parametrize("call", CALLS)
def test_tensors_on_two_devices_are_refused_with_both_named(call) -> None:
    here, there = torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3, device=DEVICE)
    for first, second in ((here, there), (there, here)):
        with pytest.raises(ShapeError, match=r"cpu.*cuda:0|cuda:0.*cpu"):
            call(first, second)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second GPU")
def test_the_second_gpu_serves_while_the_first_is_current() -> None:
    x = images("small")
    wanted = attribution("small", "cuda:0").attribute(x, "all")
    got = attribution("small", "cuda:1").attribute(x, "all")
    assert got.device.index == 1 and torch.cuda.current_device() == 0
    assert distance(got, wanted) <= 1e-6
