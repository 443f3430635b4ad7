"""What the ops promise beyond their values: schemas, tracing, determinism, empty batches, formats, refusals."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from oracle.ops import DEVICES, FORMATS, declared, numbers, place

from ebp_cuda import ops
from ebp_cuda.errors import ShapeError, UnsupportedError

Tensor = torch.Tensor


def sample_calls(device: str = "cpu", memory_format: torch.memory_format = torch.channels_last) -> dict[str, tuple]:
    """Arguments for every op there is."""
    x, p = (place(numbers(n, 20, 7, 6), torch.float32, memory_format, device) for n in (2, 6))
    pool = ([3, 3], [2, 2], [1, 1], [1, 1], [4, 4])
    up, winner = torch.ops.ebp_cuda.max_pool2d(x, *pool)
    w = numbers(8, 20, 3, 3, dtype=torch.float32).to(device)
    r = torch.ops.ebp_cuda.conv2d_normalizer(p, w, [2, 2], [1, 1, 0, 1], [1, 1], 1)
    return {
        "share": (p, x),
        "gate": (p, x),
        "rounded": (x, "tf32"),
        "max_winner": ([x, x + 1, x - 1],),
        "max_pool2d": (x, *pool),
        "max_pool2d_route": (up.repeat(3, 1, 1, 1).contiguous(memory_format=memory_format), winner, [7, 6], *pool[:4]),
        "window_sum": (x, *pool[:3], [4, 4]),
        "window_spread": (up, [7, 6], *pool[:3]),
        "avg_pool2d": (x, *pool[:3], [4, 4], True),
        "lrn": (x, 5, 1e-4, 0.75, 1.0),
        "conv2d_normalizer": (x, w, [2, 2], [1, 1, 0, 1], [1, 1], 1),
        "conv2d_sweep": (r, w, [7, 6], [2, 2], [1, 1, 0, 1], [1, 1], 1, p),
        "conv2d_forward": (x, w, w[:, 0, 0, 0].clone(), [2, 2], [1, 1, 0, 1], [1, 1], 1),
        "conv2d_excitation": (x, w, w.clamp(min=0), w[:, 0, 0, 0].clone(), [2, 2], [1, 1, 0, 1], [1, 1], 1, True, True),
    }


def test_the_samples_cover_every_op() -> None:
    assert set(sample_calls()) == declared()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", sorted(declared()))
def test_opcheck(name, memory_format, device) -> None:
    torch.library.opcheck(getattr(torch.ops.ebp_cuda, name).default, sample_calls(device, memory_format)[name])


def bits(calls: dict[str, tuple]) -> list[bytes]:
    found = []
    for name, arguments in calls.items():
        result = getattr(torch.ops.ebp_cuda, name)(*arguments)
        found += [t.cpu().contiguous().numpy().tobytes() for t in (result if isinstance(result, tuple) else [result])]
    return found


@pytest.mark.parametrize("device", DEVICES)
def test_two_runs_give_the_same_bits(device) -> None:
    calls = sample_calls(device)
    first, threads = bits(calls), torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert bits(calls) == first
    finally:
        torch.set_num_threads(threads)


WITH_ISA = """
import hashlib, torch
from ebp_cuda import ops
torch.manual_seed(0)
digest = hashlib.sha256()
for dtype in (torch.float32, torch.float64):
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 43, 15, 13, dtype=dtype).contiguous(memory_format=memory_format)
        y, winner = ops.max_pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1), (8, 7))
        back = (15, 13), (3, 3), (2, 2), (1, 1)
        results = [y, winner, ops.max_pool2d_route(y, winner, *back, (1, 1)), ops.window_spread(y, *back)]
        results += [ops.avg_pool2d(x, *back[1:], (8, 7), True), ops.divide_or_zero(x, x * x), ops.gate(x, x)]
        results += [ops.lrn(x, 5, 1e-2, beta, 1.0) for beta in (0.75, 0.6)] + [ops.max_winner([x, -x, x * x])]
        for t in results:
            digest.update(t.contiguous().numpy().tobytes())
print(ops.build_info()["cpu_isa"], digest.hexdigest())
"""


def test_instruction_sets_agree_to_the_bit() -> None:
    found = {}
    for isa in ("default", "avx2", "avx512"):
        done = subprocess.run(
            [sys.executable, "-c", WITH_ISA], env={**os.environ, "EBP_CPU_ISA": isa}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        used, digest = done.stdout.split()
        found[used] = digest
    assert "default" in found and len(set(found.values())) == 1


@pytest.mark.parametrize("device", DEVICES)
def test_empty_batches_give_empty_results(device) -> None:
    x = torch.zeros(0, 4, 7, 6, device=device)
    y, winner = ops.max_pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1), (4, 4))
    assert y.shape == winner.shape == (0, 4, 4, 4)
    assert ops.max_pool2d_route(y, winner, (7, 6), (3, 3), (2, 2), (1, 1), (1, 1)).shape == x.shape
    assert ops.divide_or_zero(x, x).shape == ops.gate(x, x).shape == ops.lrn(x, 5, 1.0, 0.75, 1.0).shape == x.shape
    assert ops.max_winner([x, x]).shape == x.shape
    assert ops.window_sum(x, (3, 3), (2, 2), (1, 1), (4, 4)).shape == y.shape
    assert ops.window_spread(y, (7, 6), (3, 3), (2, 2), (1, 1)).shape == x.shape
    w = torch.zeros(3, 4, 1, 1, device=device)
    assert ops.conv2d_normalizer(x, w, (1, 1), (0, 0, 0, 0), (1, 1), 1).shape == (0, 3, 7, 6)


def wild(t: Tensor, how: str) -> Tensor:
    """The numbers of a 4-D tensor behind other strides."""
    if how == "channel slice":
        return torch.cat([t + 1, t, t - 1], 1).contiguous(memory_format=torch.channels_last)[
            :, t.shape[1] : -t.shape[1]
        ]
    if how == "channel slice of contiguous":
        return torch.cat([t + 1, t], 1)[:, t.shape[1] :]
    if how == "crop":
        return torch.nn.functional.pad(t, (1, 2, 1, 1)).contiguous(memory_format=torch.channels_last)[:, :, 1:-1, 1:-2]
    if how == "step":
        return t.repeat_interleave(2, 3)[..., ::2]
    if how == "transposed":
        return t.transpose(2, 3).contiguous().transpose(2, 3)
    return t[:1].expand(t.shape)


WILD = ["channel slice", "channel slice of contiguous", "crop", "step", "transposed", "expanded"]
POOL = ((3, 3), (2, 2), (1, 1))
CALLS = {
    "share": (lambda p, x: ops.divide_or_zero(p, x), 6, 2),
    "gate": (lambda p, x: ops.gate(p, x), 6, 2),
    "rounded": (lambda x, _: ops.rounded(x.float(), "bf16"), 2, 2),
    "max_winner": (lambda a, b: ops.max_winner([a, b]), 2, 2),
    "max_pool2d": (lambda x, _: ops.max_pool2d(x, *POOL, (1, 1), (4, 3))[0], 2, 2),
    "max_pool2d_route": (
        lambda p, x: ops.max_pool2d_route(p, x.abs().mul(4).to(torch.uint8), (13, 11), *POOL, (1, 1)), 6, 2
    ),
    "window_sum": (lambda x, _: ops.window_sum(x, *POOL, (4, 3)), 2, 2),
    "window_spread": (lambda r, _: ops.window_spread(r, (13, 11), *POOL), 6, 2),
    "avg_pool2d": (lambda x, _: ops.avg_pool2d(x, *POOL, (4, 3), True), 2, 2),
    "lrn": (lambda x, _: ops.lrn(x, 5, 1e-2, 0.75, 1.0), 2, 2),
    "conv2d_normalizer": (lambda x, _: ops.conv2d_normalizer(x, W, (2, 2), (1, 1, 0, 0), (1, 1), 1), 2, 2),
    "conv2d_sweep": (lambda r, x: ops.conv2d_sweep(r, W, (7, 6), (1, 1), (1, 1, 1, 1), (1, 1), 1, gate=x), 6, 2),
    "conv2d_forward": (lambda x, _: forward(x if x.is_cpu else x.float()), 2, 2),
    "conv2d_excitation": (lambda x, _: excitation(x if x.is_cpu else x.float()), 2, 2),
}  # fmt: skip
W = numbers(5, 5, 3, 3)


def forward(x: Tensor) -> Tensor:
    w = W.to(x.dtype)
    return ops.conv2d_forward(x, w, w[0, :, 0, 0], (2, 2), (1, 1, 0, 0), (1, 1), 1)


def excitation(x: Tensor) -> Tensor:
    w = W.to(x.dtype)
    geometry = ((2, 2), (1, 1, 0, 0), (1, 1), 1)
    return torch.cat(ops.conv2d_excitation(x, w, w.clamp(min=0), w[0, :, 0, 0], *geometry, relu=True, as_gate=True))


def test_the_calls_cover_every_op() -> None:
    assert set(CALLS) == declared()


def mixtures() -> list[tuple[str, str, str]]:
    """Every op with every kind of strides, ops of two tensors with every pair of them."""
    kinds = ["plain", "plain channels_last", *WILD]
    pairs = {"share", "gate", "max_winner", "max_pool2d_route", "conv2d_sweep"}
    return [(name, a, b) for name in sorted(CALLS) for a in kinds for b in (kinds if name in pairs else kinds[:1])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name,first,second", mixtures())
def test_any_strides_give_the_same_numbers(name, first, second, device, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "W", W.to(device))
    call, *rows = CALLS[name]
    plain = [numbers(n, 5, 7, 6, seed=n).to(device) for n in rows]
    tensors = []
    for t, how in zip(plain, (first, second), strict=True):
        if how.startswith("plain"):
            tensors.append(t.contiguous(memory_format=torch.channels_last) if "last" in how else t)
        else:
            tensors.append(wild(t, how))
    same = [t.contiguous() for t in tensors]
    torch.testing.assert_close(call(*tensors), call(*same), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("device", DEVICES)
def test_single_pixels_go_on_in_channels_last(device) -> None:
    r = numbers(2, 6, 1, 1).to(device)
    assert ops.window_spread(r, (3, 3), (3, 3), (1, 1), (0, 0)).is_contiguous(memory_format=torch.channels_last)


X = torch.zeros(2, 4, 7, 6)
PAIRS = ((3, 3), (2, 2), (1, 1), (1, 1))
REFUSALS = [
    (
        lambda: ops.divide_or_zero(torch.zeros(3, 4), torch.zeros(2, 4)),
        ["divide_or_zero", "p", "3 rows", "multiple of the 2", "z"],
    ),
    (
        lambda: ops.divide_or_zero(torch.zeros(4, 4), torch.zeros(2, 5)),
        ["divide_or_zero", "[4, 4]", "[2, 5]", "first axis"],
    ),
    (lambda: ops.divide_or_zero(torch.zeros(()), torch.zeros(())), ["divide_or_zero"]),
    (lambda: ops.gate(X, X.double()), ["gate", "x", "torch.float64", "one dtype"]),
    (lambda: ops.gate(X.half(), X.half()), ["gate", "s", "torch.float16", "torch.float32"]),
    (lambda: ops.max_pool2d(X[0], *PAIRS, (4, 4)), ["max_pool2d", "x", "[4, 7, 6]", "[N, C, H, W]"]),
    (lambda: ops.max_pool2d(X, (3, 0), *PAIRS[1:], (4, 4)), ["max_pool2d", "kernel=[3, 0]"]),
    (lambda: ops.max_pool2d(X, (3, 3), (2,), *PAIRS[2:], (4, 4)), ["max_pool2d", "stride=[2]"]),
    (lambda: ops.max_pool2d_route(X, X, (7, 6), *PAIRS), ["max_pool2d_route", "winner", "torch.uint8"]),
    (lambda: ops.window_sum(X.int(), *PAIRS[:3], (4, 4)), ["window_sum", "x", "torch.int32"]),
    (lambda: ops.lrn(X, 0, 1.0, 0.75, 1.0), ["lrn", "size=0"]),
    (lambda: ops.max_winner([]), ["max_winner", "0 tensors"]),
    (lambda: ops.max_winner([X, X[:1]]), ["max_winner", "xs[1]", "[1, 4, 7, 6]"]),
    (
        lambda: ops.conv2d_normalizer(X, torch.zeros(3, 5, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        ["conv2d_normalizer", "4 channels", "5"],
    ),
    (
        lambda: ops.conv2d_normalizer(X, torch.zeros(3, 4, 9, 9), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        ["conv2d_normalizer", "[9, 9]", "[7, 6]"],
    ),
    (
        lambda: ops.conv2d_sweep(X, torch.zeros(3, 4, 1, 1), (7, 6), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        ["conv2d_sweep", "[2, 4, 7, 6]", "3, 7, 6"],
    ),
    (
        lambda: ops.conv2d_sweep(X, torch.zeros(4, 4, 1, 1), (7, 6), (1, 1), (0, 0), (1, 1), 1),
        ["conv2d_sweep", "padding=[0, 0]", "bottom"],
    ),
    (lambda: ops.gate(torch.zeros(1).expand(2**31), torch.zeros(1)), ["gate", "2147483648", "2**31"]),
]


@pytest.mark.parametrize("call,words", REFUSALS)
def test_bad_input_is_refused_with_names(call, words) -> None:
    with pytest.raises(ShapeError) as refusal:
        call()
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_callers_of_the_bare_ops_are_refused_too() -> None:
    bare = torch.ops.ebp_cuda
    with pytest.raises(RuntimeError, match="share: p has 3 rows"):
        bare.share(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(RuntimeError, match="gate: s must be contiguous, channels_last, or a slice"):
        bare.gate(torch.zeros(4, 4).T[::2], torch.zeros(2, 4))
    with pytest.raises(RuntimeError, match=r"gate: s must be contiguous, .* like its partner"):
        bare.gate(X, X.contiguous(memory_format=torch.channels_last))
    with pytest.raises(RuntimeError, match="winner must be Byte"):
        bare.max_pool2d_route(X, X, [7, 6], [3, 3], [1, 1], [1, 1], [1, 1])
    with pytest.raises(RuntimeError, match="out of range"):
        bare.max_pool2d(X, [3, 3], [2**28, 1], [1, 1], [1, 1], [40, 1])
    with pytest.raises(RuntimeError, match="float32 or float64"):
        bare.lrn(X.half(), 5, 1.0, 0.75, 1.0)


def test_devices_without_kernels_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="device='xpu'"):
        ops.require_device(torch.device("xpu"))
    if not torch.cuda.is_available():
        with pytest.raises(UnsupportedError, match="device='cuda'"):
            ops.require_device(torch.device("cuda"))


def test_a_build_without_kernels_says_how_to_get_them(monkeypatch) -> None:
    monkeypatch.setattr("ebp_cuda.ops.operands._HAS_CUDA", False)
    with pytest.raises(UnsupportedError, match=r"no CUDA kernels.*nvcc.*pip install"):
        ops.require_device(torch.device("cuda"))


def test_the_ops_trace_under_export() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y, winner = ops.max_pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1), (4, 4))
            return ops.max_pool2d_route(y, winner, (7, 6), (3, 3), (2, 2), (1, 1), (1, 1))

    x = numbers(2, 4, 7, 6, dtype=torch.float32)
    assert torch.equal(torch.export.export(Net(), (x,)).module()(x), Net()(x))
