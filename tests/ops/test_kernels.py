"""Which CUDA kernel a convolution would run on, and why no other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ebp_cuda import ShapeError
from ebp_cuda.ops.kernels import contraction_kernel

LAST = torch.channels_last
SAME = ((1, 1), (1, 1, 1, 1), (1, 1))


def tensors(shape: tuple[int, ...], weight: tuple[int, ...], layout: torch.memory_format = LAST) -> list[torch.Tensor]:
    return [torch.empty(s, device="meta").contiguous(memory_format=layout) for s in (shape, weight)]


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "tensor cores": ({"precision": "tf32"}, "mma", ""),
    "bf16 going down": ({"precision": "bf16", "in_size": (14, 14)}, "mma", ""),
    "fp32": ({}, "simt, small tiles", "mma: fp32 was asked for"),
    "many pixels": ({"batch": 128}, "simt, large tiles", "mma: fp32 was asked for"),
    "an old device": ({"precision": "tf32", "arch": 75}, "simt, small tiles", "mma: tensor cores for tf32 and bf16"),
    "three channels": ({"precision": "tf32", "channels": 3}, "simt, element by element", "no multiple of 4"),
    "planes": ({"layout": torch.contiguous_format}, "simt, element by element", "not channels_last"),
    "two sums": ({"precision": "tf32", "two_sums": True}, "simt, small tiles", "mma: two sums"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_told(case: str) -> None:
    options, name, reason = CASES[case]
    options = dict(options)
    batch, channels = options.pop("batch", 1), options.pop("channels", 8)
    source, weight = tensors((batch, channels, 14, 14), (8, channels, 3, 3), options.pop("layout", LAST))
    found = contraction_kernel(source, weight, *SAME, 1, **options)
    assert found.name == name
    assert (reason in "\n".join(found.reasons)) if reason else not found.reasons


def test_depthwise_and_float64() -> None:
    source, weight = tensors((2, 8, 5, 5), (8, 1, 3, 3))
    assert contraction_kernel(source, weight, *SAME, 8, precision="tf32") == ("depthwise", (), None)
    assert contraction_kernel(source.double(), weight.double(), *SAME, 8).name == "naive"


def test_what_a_launch_is_made_of() -> None:
    """8 images of 14 x 14 pixels by tiles of 64, going up from 32 channels to 80, and down a strided one by phases."""
    source, weight = tensors((8, 32, 14, 14), (80, 32, 3, 3))
    rows, columns, chunks = -(-8 * 14 * 14 // 64), 2, 9 * 32 // 16
    tiles = rows * columns
    splits = min(264 // tiles, chunks // 4)
    asked = contraction_kernel(source, weight, *SAME, 1)
    assert asked.launch == ((64, 64), splits, tiles * splits, tiles * chunks)
    above, weight = tensors((1, 64, 7, 7), (64, 64, 3, 3))
    asked = contraction_kernel(above, weight, (2, 2), (1, 1, 1, 1), (1, 1), 1, in_size=(14, 14))
    assert asked.launch is not None and asked.launch.steps == 9 * 64 // 16  # each tap of nine in one of four phases


def test_slices_that_begin_between_quads() -> None:
    source, weight = tensors((1, 12, 5, 5), (8, 8, 3, 3))
    part = source[:, :8].contiguous(memory_format=LAST)
    assert contraction_kernel(part, weight, *SAME, 1, precision="tf32").name == "mma"
    moved = torch.empty(301, device="meta")[1:].as_strided((1, 8, 5, 5), (200, 1, 40, 8), 1)
    found = contraction_kernel(moved, weight, *SAME, 1, precision="tf32")
    assert found.name == "simt, element by element" and "does not begin at 16 bytes" in " ".join(found.reasons)


@pytest.mark.emu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_what_the_bindings_choose(precision: str) -> None:
    """For ragged geometries, up and down: the schedule that the emulator's build of the kernels makes."""
    from emulator.test_emu_contraction import cases, whole
    from support.emu_build import emulator
    from support.emu_contraction import downward, upward

    emu, seen = emulator(), set()
    for shape, weights, geometry, layout in (case.values for case in cases(40)):
        x, w = whole(shape, layout), whole(weights, layout)
        problem, above = upward(x, w, geometry)
        asked = {"up": (problem, x, None), "down": (downward(above, w, shape[2:], geometry)[0], above, shape[2:])}
        for way, (problem, source, in_size) in asked.items():
            chosen = emu.schedule_of(problem, 1, getattr(emu.Precision, precision), way == "down", 90)
            told = contraction_kernel(source, w, *geometry, in_size=in_size, precision=precision)
            assert told.name.split(",")[0] == chosen.method.name
            assert ("element by element" in told.name) == (told.name[:4] == "simt" and chosen.loads == emu.Loads.single)
            seen.add(told.name)
    assert len(seen) >= 3


def test_it_traces_and_needs_no_values() -> None:
    """The op itself: under fake tensors, on the CPU and without memory it says the same."""
    arguments = ([1, 1], [1, 1, 1, 1], [1, 1], 1, None, False, "tf32", 90)
    op = torch.ops.ebp_cuda.contraction_kernel.default
    meta = tensors((1, 8, 14, 14), (8, 8, 3, 3))
    real = [torch.zeros_like(t, device="cpu") for t in meta]
    assert op(*meta, *arguments) == op(*real, *arguments) == ("mma", [128, 64, 1, 2, 10])
    with FakeTensorMode() as mode:
        assert op(*map(mode.from_tensor, real), *arguments)[0] == "mma"


def test_refusals() -> None:
    source, weight = tensors((1, 8, 5, 5), (8, 8, 3, 3))
    with pytest.raises(ShapeError, match=r"contraction_kernel: source is \[1, 8, 5, 5\], wanted \[N, 8, 3, 3\]"):
        contraction_kernel(source, weight, (1, 1), (0, 0, 0, 0), (1, 1), 1, in_size=(5, 5))
    with pytest.raises(ShapeError, match="precision='int8'"):
        contraction_kernel(source, weight, *SAME, 1, precision="int8")
    bare = torch.ops.ebp_cuda.contraction_kernel
    with pytest.raises(RuntimeError, match="contraction_kernel: precision must be fp32, tf32 or bf16, got 'int8'"):
        bare(source, weight, [1, 1], [1, 1, 1, 1], [1, 1], 1, None, False, "int8", 90)
