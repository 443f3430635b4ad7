"""What the caller has switched on in torch does not change a map."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import ebp_cuda
from ebp_cuda import ops
from ebp_cuda.engine import passes
from ebp_cuda.ops import modes


@pytest.fixture(scope="module")
def network() -> ebp_cuda.Net:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)]
    return ebp_cuda.from_torch(nn.Sequential(*layers), torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("rules", ["caffe", "conserving"])
@pytest.mark.parametrize("contrast", [None, "3"])
def test_autocast_changes_nothing(network, rules, contrast) -> None:
    x = torch.rand(2, 3, 8, 8)
    wanted = ebp_cuda.ExcitationBackprop(network, "1", contrast, rules).run(x, "all")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.mm(torch.rand(2, 2), torch.rand(2, 2)).dtype == torch.bfloat16
        got = ebp_cuda.ExcitationBackprop(network, "1", contrast, rules).run(x, "all")
    assert torch.equal(got.maps, wanted.maps) and torch.equal(got.scores, wanted.scores)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_callers_gradient_mode_changes_nothing(network, mode) -> None:
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    wanted = ebp_cuda.ExcitationBackprop(network, "1").attribute(x, 3)
    with mode():
        got = ebp_cuda.ExcitationBackprop(network, "1").attribute(x, 3)
    assert torch.equal(got, wanted) and not got.requires_grad


def test_the_convolution_ops_know_no_autocast() -> None:
    x, w = torch.rand(1, 3, 6, 6), torch.rand(4, 3, 3, 3)
    window = (1, 1), (0, 0, 0, 0), (1, 1), 1
    z = ops.conv2d_normalizer(x, w, *window)
    t = ops.conv2d_sweep(z, w, (6, 6), *window)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ops.conv2d_normalizer(x, w, *window), z)
        assert torch.equal(torch.ops.ebp_cuda.conv2d_normalizer(x, w, *window), z)
        assert torch.equal(ops.conv2d_sweep(z, w, (6, 6), *window), t)


@pytest.fixture
def rounding() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.mkldnn.conv.fp32_precision = "none"


def settings() -> tuple[str, ...]:
    parts = torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.cuda.matmul
    return (*(part.fp32_precision for part in parts), torch.get_float32_matmul_precision())


def test_rounded_products_are_not_used_and_the_setting_stays(network, rounding, monkeypatch) -> None:
    during = []
    down = passes.sweep

    def watched(*args, **options):
        found = down(*args, **options)
        with modes.exact(torch.device("cpu")):
            during.append(settings()[:2])
        return found

    monkeypatch.setattr(passes, "sweep", watched)
    before = settings()
    assert before[:2] == ("bf16", "bf16")
    ebp_cuda.ExcitationBackprop(network, "1", "3").attribute(torch.rand(2, 3, 8, 8), 1)
    assert during == [("ieee", "ieee")] * 3 and settings() == before


def test_threads_give_the_setting_back_once(network, rounding) -> None:
    x, before = torch.rand(2, 3, 8, 8), settings()
    method = ebp_cuda.ExcitationBackprop(network, "1", "3")
    wanted = method.attribute(x, 1)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: method.attribute(x, 1), range(40)))
    assert all(torch.equal(maps, wanted) for maps in found) and settings() == before


@pytest.mark.parametrize(
    "turn_on",
    [
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    ],
    ids=["allow_tf32", "high", "medium", "fp32_precision"],
)
def test_other_threads_can_read_how_cuda_rounds(turn_on) -> None:
    """What they could read before a pass they can read during it; it says that nothing rounds, and comes back."""

    def readings() -> list[object]:
        found: list[object] = []
        for read in (lambda: torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision):
            try:
                found.append(read())
            except RuntimeError:
                found.append("refused")
        return [*found, torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision]

    try:
        turn_on()
        before = readings()
        with ThreadPoolExecutor(1) as other, modes._UNROUNDED.hold("cuda"):
            during = other.submit(readings).result()
        assert during[2] == "ieee" and readings() == before
        for earlier, now in zip(before[:2], during[:2], strict=True):
            assert now != "refused" or earlier == "refused"
        if before[0] is True:
            assert during[0] is False
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.fp32_precision = "none"
        torch.backends.mkldnn.matmul.fp32_precision = "none"
