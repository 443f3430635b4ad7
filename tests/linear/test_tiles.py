"""Convolution by tiles of bfloat16 parts: float32's precision, one result however the work is cut, and refusals.

Everything here runs by AMX where the processor has it, and once more by the plain model of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import ebp_cuda
from ebp_cuda import ops
from ebp_cuda.linear import amx
from ebp_cuda.linear.amx import Source
from ebp_cuda.linear.weights import Form

Tensor = torch.Tensor
LAST = torch.channels_last


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def rand(*shape: int, seed: int = 0, positive: bool = False) -> Tensor:
    """Planes are channels_last."""
    source = torch.Generator().manual_seed(seed)
    t = torch.rand(shape, generator=source) if positive else torch.randn(shape, generator=source)
    return t.contiguous(memory_format=LAST) if len(shape) == 4 else t


def exact(sources: Sequence[Source], padding: Sequence[int], bias: Tensor | None, addend: Tensor | None) -> Tensor:
    """The same in float64."""
    top, left, bottom, right = padding
    total = torch.zeros(1, dtype=torch.float64) if addend is None else addend.double()
    for source in sources:
        x = source.x.double()
        if source.gate is not None:
            x = x * source.gate.double().repeat_interleave(len(x) // len(source.gate), 0)
        total = total + F.conv2d(F.pad(x, (left, right, top, bottom)), source.weight.double())
    return total if bias is None else total + bias.double().view(-1, 1, 1)


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).abs().max() / wanted.abs().max())


# images, channels below, above, height, width, kernel, padding
SHAPES = [
    (1, 32, 32, 4, 8, (1, 1), (0, 0, 0, 0)),
    (3, 40, 24, 7, 5, (1, 1), (0, 0, 0, 0)),
    (2, 64, 96, 14, 14, (3, 3), (1, 1, 1, 1)),
    (5, 33, 49, 7, 7, (3, 3), (1, 1, 1, 1)),
    (1, 17, 16, 9, 4, (5, 5), (2, 2, 2, 2)),
    (2, 48, 70, 6, 11, (1, 7), (0, 3, 0, 3)),
    (2, 32, 31, 11, 6, (7, 1), (3, 0, 3, 0)),
    (1, 32, 32, 8, 8, (3, 3), (2, 0, 0, 1)),
    (1, 31, 33, 40, 1, (3, 1), (1, 0, 1, 0)),
    (40, 64, 32, 1, 1, (1, 1), (0, 0, 0, 0)),
    (1, 96, 64, 3, 5, (2, 2), (0, 0, 0, 0)),
]


@pytest.mark.parametrize("given", ["nothing", "bias", "addend", "both"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_a_convolution_in_the_precision_of_float32(shape: tuple, given: str) -> None:
    images, below, above, height, width, kernel, padding = shape
    sources = [Source(rand(images, below, height, width), rand(above, below, *kernel, seed=1))]
    wanted = exact(sources, padding, None, None)
    bias = rand(above, seed=2) if given in ("bias", "both") else None
    addend = rand(*wanted.shape, seed=3) if given in ("addend", "both") else None
    found = amx.convolve(sources, padding, bias=bias, addend=addend)
    assert found.is_contiguous(memory_format=LAST)
    assert distance(found, exact(sources, padding, bias, addend)) < 5e-6


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1)])
def test_gates_and_several_sources(padding: tuple[int, ...]) -> None:
    size = 3 if any(padding) else 1
    sources = [
        Source(rand(6, n, 5, 9, seed=n), rand(50, n, size, size, seed=n + 1), gate=rand(2, n, 5, 9, seed=n + 2))
        for n in (64, 16, 37)
    ]
    addend = rand(*exact(sources, padding, None, None).shape, seed=9)
    found = amx.convolve(sources, padding, addend=addend)
    assert distance(found, exact(sources, padding, None, addend)) < 5e-6


@pytest.mark.parametrize("as_gate", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_output_and_its_normaliser_of_one_reading(shape: tuple, as_gate: bool) -> None:
    images, below, above, height, width, kernel, padding = shape
    x, weight = rand(images, below, height, width, positive=True), rand(above, below, *kernel, seed=1)
    weight[0] = -weight[0].abs()  # a channel that nothing excites
    bias, plus = rand(above, seed=2), weight.clamp(min=0)
    found, side = amx.excite(x, weight, padding, bias=bias, relu=True, as_gate=as_gate)
    y, z = exact([Source(x, weight)], padding, bias, None).relu(), exact([Source(x, plus)], padding, None, None)
    assert distance(found, y) < 5e-6
    if as_gate:  # a division by little is ill-conditioned: by the z and y that were computed
        z = amx.convolve([Source(x, weight, Form("+"))], padding).double()
        wanted = torch.where(z == 0, 0.0, found.double() / z)
        assert torch.equal(side[:, 0], torch.zeros_like(side[:, 0]))
        torch.testing.assert_close(side, wanted.float())
    else:
        assert distance(side, z) < 5e-6
    assert torch.equal(found, amx.convolve([Source(x, weight)], padding, bias=bias).relu())
    plain, _ = amx.excite(x, weight, padding, bias=None, relu=False, as_gate=False)
    assert torch.equal(plain, amx.convolve([Source(x, weight)], padding))


@pytest.mark.parametrize("form", [Form("+"), Form("-"), Form("+", flipped=True), Form("-", flipped=True)])
def test_forms_of_a_weight(form: Form) -> None:
    weight = rand(48, 37, 3, 2, seed=1)
    x = rand(2, 48 if form.flipped else 37, 9, 8)
    found = amx.convolve([Source(x, weight, form)], (1, 0, 0, 1))
    assert torch.equal(found, amx.convolve([Source(x, form.of(weight).contiguous())], (1, 0, 0, 1)))
    part = (weight if form.sign == "+" else -weight).clamp(min=0).double()
    wanted = F.conv_transpose2d(x.double(), part) if form.flipped else F.conv2d(x.double(), part)
    assert distance(amx.convolve([Source(x, weight, form)], (2, 1, 2, 1) if form.flipped else (0,) * 4), wanted) < 5e-6


def test_slices_of_channels_are_read_as_they_lie() -> None:
    wide, gates, addends = rand(6, 100, 7, 5), rand(3, 90, 7, 5, seed=1), rand(6, 80, 7, 5, seed=2)
    source = Source(wide[:, 20:60], rand(48, 40, 3, 3, seed=3), gate=gates[:, 7:47])
    addend = addends[:, 11:59]
    assert not source.x.is_contiguous(memory_format=LAST)
    found = amx.convolve([source], (1, 1, 1, 1), addend=addend)
    x, gate = (t.contiguous(memory_format=LAST) for t in (source.x, source.gate))  # type: ignore[union-attr]
    copied = Source(x, source.weight, gate=gate)
    assert torch.equal(found, amx.convolve([copied], (1, 1, 1, 1), addend=addend.contiguous(memory_format=LAST)))
    assert distance(found, exact([source], (1, 1, 1, 1), None, addend)) < 5e-6


def test_no_more_error_than_float32_products() -> None:
    x, weight = rand(4, 256, 14, 14, positive=True), rand(64, 256, 3, 3, seed=1)
    wanted = F.conv2d(x.double(), weight.double(), padding=1)
    found = amx.convolve([Source(x, weight)], (1, 1, 1, 1))
    usual = F.conv2d(x, weight, padding=1)
    mean = [float((t.double() - wanted).abs().mean() / wanted.abs().mean()) for t in (found, usual)]
    assert mean[0] < 1.5 * mean[1] and mean[0] < 1e-6


@pytest.mark.parametrize(("images", "below", "above", "size", "kernel"), [(1, 64, 160, 21, 3), (7, 96, 40, 13, 1)])
def test_bits_depend_neither_on_threads_nor_on_the_batch(
    images: int, below: int, above: int, size: int, kernel: int
) -> None:
    x, weight = rand(images, below, size, size), rand(above, below, kernel, kernel, seed=1)
    addend, padding = rand(images, above, size, size, seed=2), (kernel // 2,) * 4
    threads, first = torch.get_num_threads(), amx.convolve([Source(x, weight)], padding, addend=addend)
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            assert torch.equal(amx.convolve([Source(x, weight)], padding, addend=addend), first)
    finally:
        torch.set_num_threads(threads)
    alone = amx.convolve([Source(x[-1:], weight)], padding, addend=addend[-1:])
    assert torch.equal(alone[0], first[-1])


def test_every_float_is_split_without_a_rest() -> None:
    """Times one, what comes out is what went in, whatever its size."""
    source = torch.Generator().manual_seed(0)
    size = torch.randint(-90, 127, (2, 32, 6, 6), generator=source).float()
    x = (torch.randn(2, 32, 6, 6, generator=source) * 2.0**size).contiguous(memory_format=LAST)
    assert torch.isfinite(x).all()
    assert torch.equal(amx.convolve([Source(x, torch.eye(32)[:, :, None, None])], (0,) * 4), x)


def test_a_nan_reaches_what_sees_it_and_nothing_else() -> None:
    x, weight = rand(2, 32, 9, 9), rand(32, 32, 3, 3, seed=1)
    for value in (float("nan"), float("inf")):
        spoilt = x.clone()
        spoilt[1, 5, 4, 4] = value
        found = amx.convolve([Source(spoilt, weight)], (1, 1, 1, 1))
        seen = torch.zeros(2, 9, 9, dtype=torch.bool)
        seen[1, 3:6, 3:6] = True
        assert torch.equal((~torch.isfinite(found)).any(1), seen)
        kept = ~seen[:, None].expand_as(found)
        assert torch.equal(found[kept], amx.convolve([Source(x, weight)], (1, 1, 1, 1))[kept])


def test_a_written_weight_is_laid_out_again() -> None:
    x, weight = rand(1, 32, 8, 8), rand(32, 32, 3, 3, seed=1)
    first = amx.convolve([Source(x, weight)], (1,) * 4)
    weight *= 2
    assert torch.equal(amx.convolve([Source(x, weight)], (1,) * 4), 2 * first)


def test_other_users_of_the_unit_are_not_disturbed() -> None:
    """oneDNN remembers how it left the tile registers."""
    a, b = rand(64, 96).bfloat16(), rand(96, 80, seed=1).bfloat16()
    x, weight = rand(2, 64, 14, 14), rand(64, 64, 3, 3, seed=1)
    before, first = a @ b, amx.convolve([Source(x, weight)], (1,) * 4)
    for _ in range(3):
        assert torch.equal(a @ b, before)
        assert torch.equal(amx.convolve([Source(x, weight)], (1,) * 4), first)


def arguments(**changed: object) -> tuple:
    weight = amx.lay_out(rand(40, 32, 3, 3))
    given = {
        "xs": [rand(4, 32, 6, 7)], "weights": [weight], "bias": rand(40), "out_channels": 40, "kernel": [3, 3],
        "padding": [1, 1], "out_size": [6, 7], "gates": [rand(2, 32, 6, 7)], "addend": rand(4, 40, 6, 7),
    }  # fmt: skip
    return tuple({**given, **changed}.values())


def test_it_keeps_what_torch_asks_of_an_op() -> None:
    torch.library.opcheck(torch.ops.ebp_cuda.tile_convolution.default, arguments())
    x, (weights,), bias, *geometry = arguments()[:7]
    excite = torch.ops.ebp_cuda.tile_excitation.default
    torch.library.opcheck(excite, (x[0], weights, weights, bias, *geometry, True, True))
    with pytest.raises(RuntimeError, match="ebp_cuda::tile_"):
        excite(x[0], weights, amx.lay_out(rand(40, 32, 1, 1)), bias, *geometry, True, True)


@pytest.mark.parametrize(
    "changed",
    [
        {"xs": []},
        {"xs": [rand(4, 32, 6, 7).contiguous()]},
        {"xs": [rand(4, 32, 6, 7).double()]},
        {"xs": [rand(4, 96, 6, 7)]},
        {"xs": [rand(32, 6, 7)]},
        {"weights": [rand(40, 32, 3, 3)]},
        {"weights": [amx.lay_out(rand(40, 32, 1, 1))]},
        {"weights": []},
        {"bias": rand(39)},
        {"bias": rand(40).double()},
        {"out_channels": 96},
        {"out_channels": 0},
        {"kernel": [3, 5]},
        {"kernel": [3]},
        {"padding": [3, 1]},
        {"padding": [-1, 1]},
        {"out_size": [9, 7]},
        {"out_size": [0, 7]},
        {"gates": [rand(3, 32, 6, 7)]},
        {"gates": [rand(2, 32, 7, 6)]},
        {"gates": [rand(2, 32, 6, 7)] * 2},
        {"addend": rand(4, 40, 6, 6)},
        {"addend": rand(4, 40, 6, 7).contiguous()},
    ],
    ids=lambda changed: " ".join(changed),
)
def test_what_it_cannot_take_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(RuntimeError, match="ebp_cuda::tile_"):
        torch.ops.ebp_cuda.tile_convolution.default(*arguments(**changed))


def test_no_images() -> None:
    found = amx.convolve([Source(rand(0, 32, 6, 6), rand(40, 32, 3, 3))], (1,) * 4)
    assert found.shape == (0, 40, 6, 6)


class Inception(torch.nn.Module):
    """Branches over one input, in channels that fill tiles."""

    def __init__(self) -> None:
        super().__init__()
        conv = torch.nn.Conv2d
        self.stem, self.one, self.reduce = conv(3, 32, 3, padding=1), conv(32, 32, 1), conv(32, 16, 1)
        self.three, self.pooled, self.last = conv(16, 48, 3, padding=1), conv(32, 24, 1), torch.nn.Linear(104, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        pooled = F.max_pool2d(x, 3, 1, 1)
        branches = [self.one(x).relu(), self.three(self.reduce(x).relu()).relu(), self.pooled(pooled).relu()]
        return self.last(torch.cat(branches, 1).mean((2, 3)))


@pytest.mark.parametrize(("contrast", "together"), [(None, 2), ("three", 1)])
def test_maps_are_those_of_the_plain_way(contrast: str | None, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    module, x = Inception().eval(), torch.rand(2, 3, 13, 11)
    maps = {}
    called: list[int] = []
    convolve = amx.convolve
    monkeypatch.setattr(amx, "convolve", lambda s, *a, **k: called.append(len(s)) or convolve(s, *a, **k))
    for on in (False, True):
        monkeypatch.setattr(amx, "available", lambda: on)  # noqa: B023
        net = ebp_cuda.from_torch(module, x)
        maps[on] = ebp_cuda.ExcitationBackprop(net, "stem", contrast, "caffe").attribute(x, "all")
        assert max(called, default=0) == (together if on else 0)
    double = ebp_cuda.ExcitationBackprop(net, "stem", contrast, "caffe", "fp64").attribute(x.double(), "all")
    away = {on: float((found - double).abs().sum() / double.abs().sum()) for on, found in maps.items()}
    assert away[True] < 1e-4 and away[True] < 3 * away[False] + 1e-6


MODEL = {**os.environ, "EBP_CPU_ISA": "default"}


@pytest.mark.skipif(ops.build_info()["cpu_isa"] != "amx", reason="the model has just run")
def test_the_model_passes_these_tests_too() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(Path(__file__))]
    done = subprocess.run(command, env=MODEL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
