"""ebp_cuda.functional: its formulas, the arrays it takes, and what torch does around it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracle.ops import DEVICES
from support import fake_cupy
from torch import nn

import ebp_cuda
from ebp_cuda import EBPError, InputError, ShapeError, UnsupportedError
from ebp_cuda import functional as G

Tensor = torch.Tensor


def rand(*shape: int, seed: int = 0, signed: bool = False, dtype: torch.dtype = torch.float64) -> Tensor:
    found = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return found - 0.5 if signed else found


def shared(p: Tensor, x: Tensor, forward) -> Tensor:
    """x * L^T (p / L x) by autograd, class by class."""
    images, classes = x.shape[0], p.shape[0] // x.shape[0]
    leaf = x.clone().requires_grad_()
    z = forward(leaf)
    columns = p.reshape(images, classes, *z.shape[1:])
    parts = []
    for k in range(classes):
        r = torch.where(z == 0, torch.zeros_like(z), columns[:, k] / z.detach())
        parts.append(x * torch.autograd.grad(z, leaf, r.detach(), retain_graph=True)[0])
    return torch.stack(parts, 1).reshape(-1, *x.shape[1:])


CONVOLUTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (0, 2), "dilation": (2, 1)},
    {"groups": 2, "padding": 1},
]


@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=str)
def test_conv2d(settings) -> None:
    x, w = rand(2, 4, 9, 8), rand(6, 4 // settings.get("groups", 1), 3, 3, signed=True)
    y = F.conv2d(x, w.clamp(min=0), **settings)
    p = rand(6, *y.shape[1:], seed=1)
    got = G.conv2d(p, x, w, **settings)
    assert torch.allclose(got, shared(p, x, lambda x: F.conv2d(x, w.clamp(min=0), **settings)), atol=1e-12)
    if "padding" not in settings:
        assert torch.allclose(G.conv2d(p, x, w.abs(), **settings).sum((1, 2, 3)), p.sum((1, 2, 3)), rtol=1e-12)


def test_conv2d_with_padding_of_each_side_is_the_rule_of_the_network() -> None:
    class Lopsided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.top = nn.Conv2d(3, 5, 3, stride=2, bias=False), nn.Linear(5 * 4 * 4, 6, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.top(self.conv(F.pad(x, (0, 1, 0, 1))).relu().flatten(1))

    torch.manual_seed(0)
    net, x = Lopsided().double(), rand(2, 3, 8, 8)
    plain = ebp_cuda.from_torch(net, x)
    source = next(iter(plain.graph.inputs))
    wanted = ebp_cuda.ExcitationBackprop(plain, source, None, "caffe", "fp64").relevance(x, "all")
    y = net.conv(F.pad(x, (0, 1, 0, 1))).relu().detach()
    p = G.linear(torch.eye(6, dtype=torch.float64).repeat(2, 1), y.flatten(1), net.top.weight.detach())
    got = G.conv2d(p.reshape(12, 5, 4, 4), x, net.conv.weight.detach(), 2, (0, 0, 1, 1))
    assert torch.allclose(got, wanted.flatten(0, 1), atol=1e-14)


def test_linear() -> None:
    for middle in ((), (5,)):
        x, w = rand(2, *middle, 7), rand(4, 7, signed=True)
        p = rand(6, *middle, 4, seed=1)
        got = G.linear(p, x, w)
        assert torch.allclose(got, shared(p, x, lambda x, w=w: F.linear(x, w.clamp(min=0))), atol=1e-12)


@pytest.mark.parametrize("settings", [(2,), (3, 2, 1), ((3, 2), (2, 1), (1, 0), True)], ids=str)
def test_avg_pool2d(settings) -> None:
    x = rand(2, 3, 9, 8)
    options = dict(zip(("kernel_size", "stride", "padding", "ceil_mode"), settings, strict=False))
    y = F.avg_pool2d(x, **options)
    p = rand(4, *y.shape[1:], seed=1)
    got = G.avg_pool2d(p, x, **options)
    assert torch.allclose(got, shared(p, x, lambda x: F.avg_pool2d(x, **options)), atol=1e-12)
    assert torch.equal(G.avg_pool2d(p, x, *settings), got)


@pytest.mark.parametrize("settings", [(2,), (3, 2, 1, 2), (3, 2, 0, 1, True)], ids=str)
def test_max_pool2d(settings) -> None:
    x = rand(2, 3, 9, 8)
    y = F.max_pool2d(x, *settings)
    p = rand(2, *y.shape[1:], seed=1)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(F.max_pool2d(leaf, *settings), leaf, p)
    assert torch.allclose(G.max_pool2d(p, x, *settings), wanted, atol=1e-15)


def test_add() -> None:
    xs, p = [rand(2, 3, 4, seed=i) for i in range(3)], rand(6, 3, 4, seed=9)
    xs[0][0, 0] = xs[1][0, 0] = xs[2][0, 0] = 0
    parts = G.add(p, *xs)
    total = sum(xs).repeat_interleave(3, 0)
    for x, part in zip(xs, parts, strict=True):
        wanted = torch.where(total == 0, 0, p * x.repeat_interleave(3, 0) / total)
        assert torch.allclose(part, wanted, atol=1e-14)
    assert not sum(parts)[:3, 0].any()


def calls() -> dict[str, tuple]:
    """Every function with positional arrays, on float32."""
    x, w = rand(2, 4, 8, 8, dtype=torch.float32), rand(6, 4, 3, 3, signed=True, dtype=torch.float32)
    p = rand(4, 6, 6, 6, dtype=torch.float32)
    q = rand(4, 4, 4, 4, dtype=torch.float32)
    return {
        "conv2d": (p, x, w),
        "linear": (p[:, :, 0, 0].contiguous(), x.flatten(1)[:, :9].contiguous(), w[:, 0].flatten(1)),
        "avg_pool2d": (q, x, 2),
        "max_pool2d": (q, x, 2),
        "add": (x, x, x * 2),
    }


def tensors(result) -> list[Tensor]:
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", G.__all__)
def test_devices_agree(name, device) -> None:
    args = calls()[name]
    got = getattr(G, name)(*(a.to(device) if isinstance(a, Tensor) else a for a in args))
    for a, b in zip(tensors(got), tensors(getattr(G, name)(*args)), strict=True):
        assert a.device.type == device and torch.allclose(a.cpu(), b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", G.__all__)
def test_numpy_arrays(name) -> None:
    args = calls()[name]
    wanted = tensors(getattr(G, name)(*args))
    got = tensors(getattr(G, name)(*(a.numpy() if isinstance(a, Tensor) else a for a in args)))
    for a, b in zip(got, wanted, strict=True):
        assert type(a) is np.ndarray and a.dtype == np.float32 and np.array_equal(a, b.numpy())


@pytest.mark.parametrize("name", G.__all__)
def test_arrays_by_dlpack_share_their_memory(name) -> None:
    args = calls()[name]
    wanted = tensors(getattr(G, name)(*args))
    with fake_cupy.installed() as cupy:
        given = [cupy.ndarray(a) if isinstance(a, Tensor) else a for a in args]
        cupy.handed_out.clear()
        got = tensors(getattr(G, name)(*given))
        assert cupy.handed_out == [a.data_ptr() for a in args if isinstance(a, Tensor)]
    for a, b in zip(got, wanted, strict=True):
        assert type(a) is cupy.ndarray and torch.equal(a.memory, b) and a.memory.data_ptr() in cupy.taken_in


@pytest.mark.gpu
@pytest.mark.parametrize("name", G.__all__)
def test_cupy_arrays(name) -> None:
    cupy = pytest.importorskip("cupy")
    args = calls()[name]
    wanted = tensors(getattr(G, name)(*(a.cuda() if isinstance(a, Tensor) else a for a in args)))
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        given = [cupy.asarray(a.numpy()) if isinstance(a, Tensor) else a for a in args]
        got = tensors(getattr(G, name)(*given))
        for a, b in zip(got, wanted, strict=True):
            assert isinstance(a, cupy.ndarray) and np.array_equal(cupy.asnumpy(a), b.cpu().numpy())


def test_arrays_that_torch_cannot_share_are_copied() -> None:
    p, x, w = (a.numpy() for a in calls()["conv2d"])
    wanted = G.conv2d(p, x, w)
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(G.conv2d(p, x, w), wanted)
        assert np.array_equal(G.conv2d(p.astype(">f4"), x[:, :, ::-1][:, :, ::-1], w), wanted)
        turned = np.ascontiguousarray(p[:, :, ::-1])
        assert np.array_equal(G.conv2d(turned[:, :, ::-1], x, w), wanted)


def test_two_libraries_in_one_call_are_refused() -> None:
    p, x, w = calls()["conv2d"]
    with pytest.raises(InputError, match=r"conv2d: got torch\.Tensor, numpy\.ndarray, torch\.Tensor"):
        G.conv2d(p, x.numpy(), w)


def chain(p: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """All five, on [*, 3, 9, 9]."""
    down = G.conv2d(p, x, w)
    first, second = G.add(down, x, x * 2)
    pooled = G.max_pool2d(first, x, 3, 1, 1) + G.avg_pool2d(second[:, :, :4, :4].contiguous(), x, 2)
    return G.linear(pooled.flatten(1), torch.cat([x.flatten(1)] * 2, 1), w.new_ones(243, 486))


def chain_arguments() -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((4, 4, 7, 7), (2, 3, 9, 9))
    p, x = (rand(*shape, seed=i, dtype=torch.float32) for i, shape in enumerate(shapes))
    return p, x, rand(4, 3, 3, 3, signed=True, dtype=torch.float32)


@pytest.mark.filterwarnings("ignore")
def test_torch_compile_traces_through() -> None:
    args = chain_arguments()
    compiled = torch.compile(chain, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*args), chain(*args))
    leaf = args[2].clone().requires_grad_()
    result = compiled(*args[:2], leaf)
    assert torch.equal(result, chain(*args))
    with pytest.raises(UnsupportedError, match="no derivative"):
        result.sum().backward()


class Chain(nn.Module):
    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, p: Tensor, x: Tensor) -> Tensor:
        return chain(p, x, self.w)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("strict", [False, True])
def test_torch_export_traces_through(strict) -> None:
    p, x, w = chain_arguments()
    program = torch.export.export(Chain(w), (p, x), strict=strict)
    assert torch.equal(program.module()(p, x), chain(p, x, w))
    parts = [part for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    used = {str(node.target) for part in parts for node in part.graph.nodes}
    assert {"ebp_cuda.share.default", "ebp_cuda.gate.default"} <= used


def test_autocast_changes_nothing_and_half_precision_is_refused() -> None:
    args = chain_arguments()
    wanted = chain(*args)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(chain(*args), wanted)
        half = args[1] @ args[1].transpose(2, 3)
        assert half.dtype == torch.bfloat16
        with pytest.raises(ShapeError, match="bfloat16"):
            G.add(half, half, half)
        with pytest.raises(ShapeError, match="bfloat16"):
            G.linear(args[0][:, :, 0, :4], half[:, :, 0], torch.rand(4, 9))


@pytest.mark.parametrize("name", G.__all__)
@pytest.mark.parametrize("which", [0, 1])
def test_there_is_no_derivative(name, which) -> None:
    args = list(calls()[name])
    args[which] = args[which].clone().requires_grad_()
    result = tensors(getattr(G, name)(*args))[-1]
    assert torch.equal(result.detach(), tensors(getattr(G, name)(*calls()[name]))[-1])
    with pytest.raises(EBPError, match=r"no derivative.*detach\(\)"):
        (result.sum() + args[which].sum()).backward()
    with torch.no_grad():
        assert not tensors(getattr(G, name)(*args))[-1].requires_grad
    with torch.inference_mode():
        assert torch.equal(tensors(getattr(G, name)(*calls()[name]))[-1], result.detach())


x, w, p = torch.ones(2, 4, 8, 8), torch.ones(6, 4, 3, 3), torch.ones(4, 6, 6, 6)
REFUSED = [
    (lambda: G.conv2d(p[:3], x, w), r"conv2d: p is \[3, 6, 6, 6\], wanted \[2 \* K, 6, 6, 6\]"),
    (lambda: G.conv2d(p[:, :5], x, w), r"wanted \[2 \* K, 6, 6, 6\]"),
    (lambda: G.conv2d(p, x[:, :3], w), "x has 3 channels, wanted 4"),
    (lambda: G.conv2d(p, x, w, stride=(1, 1, 1)), r"stride=\(1, 1, 1\)"),
    (lambda: G.conv2d(p, x, w.double()), "w_plus is float64"),
    (lambda: G.conv2d(p.int(), x.int(), w.int()), "int32"),
    (lambda: G.linear(p, x, w), "linear: x is"),
    (lambda: G.linear(p[:, :, 0, 0], x[:, :, 0, 0], torch.ones(6, 4).double()), "w is torch.float64"),
    (lambda: G.avg_pool2d(p, x[0], 2), r"avg_pool2d: x is \[4, 8, 8\]"),
    (lambda: G.max_pool2d(p, x, 9), "window of 9 does not fit 8"),
    (lambda: G.add(x, x), "two or more"),
    (lambda: G.add(x, x, x[:, :2]), "of one shape"),
]


@pytest.mark.parametrize(("call", "match"), REFUSED, ids=[match for _, match in REFUSED])
def test_refusals(call, match) -> None:
    with pytest.raises(ShapeError, match=match):
        call()
