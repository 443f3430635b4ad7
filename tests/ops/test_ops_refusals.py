"""Every tensor of every op, given as what it must not be: refused before anything runs, with op and argument named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracle.ops import DEVICES, declared

from ebp_cuda import EBPError, ops
from ebp_cuda.errors import ShapeError

Tensor = torch.Tensor
POOL = ((3, 3), (2, 2), (1, 1))
CONV = ((1, 1), (1, 1, 1, 1), (1, 1), 1)
FEW, MANY = (2, 4, 7, 6), (6, 4, 7, 6)
FILTER = (4, 4, 3, 3)

FACES = {"share": "divide_or_zero"}
"""Ops whose face in ebp_cuda.ops has another name."""

CALLS: dict[str, tuple[Callable[..., object], dict[str, tuple[int, ...]]]] = {
    "share": (lambda p, z: ops.divide_or_zero(p, z), {"p": MANY, "z": FEW}),
    "gate": (lambda s, x: ops.gate(s, x), {"s": MANY, "x": FEW}),
    "max_winner": (lambda a, b: ops.max_winner([a, b]), {"xs[0]": FEW, "xs[1]": FEW}),
    "max_pool2d": (lambda x: ops.max_pool2d(x, *POOL, (1, 1), (4, 4)), {"x": FEW}),
    "max_pool2d_route": (
        lambda p, winner: ops.max_pool2d_route(p, winner, (13, 11), *POOL, (1, 1)),
        {"p": MANY, "winner": FEW},
    ),
    "window_sum": (lambda x: ops.window_sum(x, *POOL, (4, 4)), {"x": FEW}),
    "window_spread": (lambda r: ops.window_spread(r, (13, 11), *POOL), {"r": MANY}),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, *POOL, (4, 4), True), {"x": FEW}),
    "rounded": (lambda x: ops.rounded(x, "tf32"), {"x": FEW}),
    "lrn": (lambda x: ops.lrn(x, 5, 1e-2, 0.75, 1.0), {"x": FEW}),
    "conv2d_normalizer": (lambda x, w: ops.conv2d_normalizer(x, w, *CONV), {"x": FEW, "w_plus": FILTER}),
    "conv2d_sweep": (
        lambda r, w, gate: ops.conv2d_sweep(r, w, (7, 6), *CONV, gate=gate),
        {"r": MANY, "w_plus": FILTER, "gate": FEW},
    ),
    "conv2d_excitation": (
        lambda x, w, plus, bias: ops.conv2d_excitation(x, w, plus, bias, *CONV, relu=True, as_gate=False),
        {"x": FEW, "w": FILTER, "w_plus": FILTER, "bias": (4,)},
    ),
    "conv2d_forward": (
        lambda x, w, bias: ops.conv2d_forward(x, w, bias, *CONV),
        {"x": FEW, "w": FILTER, "bias": (4,)},
    ),
}
WRONG: dict[str, Callable[[Tensor], object]] = {
    "half": lambda t: t.half(),
    "integers": lambda t: t.to(torch.int16),
    "another dtype": lambda t: t.to(torch.float64),
    "complex": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse(),
    "a list": lambda t: t.tolist(),
    "elsewhere": lambda t: t.to("meta"),
    "without a batch": lambda t: t[0],
    "with an axis more": lambda t: t[None],
    "2**31 elements": lambda t: t[:1].expand(2**31 // t[0].numel() * 2 + 2, *t.shape[1:]),
}
ALONE = ("max_pool2d", "window_sum", "window_spread", "avg_pool2d", "lrn", "rounded")
RIGHT = {(how, op) for op in ALONE for how in ("another dtype", "elsewhere")} - {("another dtype", "rounded")}
RIGHT |= {(how, op) for op in ("lrn", "rounded") for how in ("without a batch", "with an axis more")}
RIGHT |= {("another dtype", "p")}
"""What an op takes after all: tensors that stand alone in any dtype and anywhere, LRN of any rank, p beside codes."""


def wrongs() -> list[tuple[str, str, str]]:
    """(op, argument, how it is wrong)."""
    every = [(op, name, how) for op, (_, shapes) in CALLS.items() for name in shapes for how in WRONG]
    return [(op, name, how) for op, name, how in every if (how, op) not in RIGHT and not _is_p(op, name, how)]


def _is_p(op: str, name: str, how: str) -> bool:
    return op == "max_pool2d_route" and (how, name) in RIGHT


def given(op: str, device: str) -> dict[str, Tensor]:
    tensors = {name: torch.rand(shape).to(device) for name, shape in CALLS[op][1].items()}
    if op == "max_pool2d_route":
        tensors["winner"] = tensors["winner"].to(torch.uint8)
    return tensors


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("op", "name", "how"), wrongs())
def test_what_an_op_cannot_take_is_refused(op, name, how, device) -> None:
    call, tensors = CALLS[op][0], given(op, device)
    call(*tensors.values())
    bad = {**tensors, name: WRONG[how](tensors[name])}
    with pytest.raises(EBPError) as refusal:
        call(*bad.values())
    message = str(refusal.value)
    named = [name.split("[")[0] for name in tensors] + ["the result"]
    assert message.startswith(f"{FACES.get(op, op)}: ") and any(f" {name}" in message for name in named), message


def test_every_op_is_here() -> None:
    assert set(CALLS) == declared()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("op", CALLS)
def test_no_images_give_no_results(op, dtype, device) -> None:
    if dtype == torch.float64 and (
        op == "rounded" or (op in ("conv2d_excitation", "conv2d_forward") and device == "cuda")
    ):
        pytest.skip("float32 only")
    tensors = {name: t if t.dtype == torch.uint8 else t.to(dtype) for name, t in given(op, device).items()}
    empty = [
        t[:0] if shape in (FEW, MANY) else t for t, shape in zip(tensors.values(), CALLS[op][1].values(), strict=True)
    ]
    found = CALLS[op][0](*empty)
    for result in found if isinstance(found, tuple) else (found,):
        assert result.shape[0] == 0 and result.shape[1] == 4 and result.device.type == device


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x, w: ops.conv2d_normalizer(x, w.expand(2**22, 4, 3, 3), *CONV), "conv2d_normalizer: the result has"),
        (
            lambda x, w: ops.conv2d_excitation(
                x, w.expand(2**22, 4, 3, 3), w.expand(2**22, 4, 3, 3), None, *CONV, relu=True, as_gate=False
            ),
            "conv2d_excitation: the result has",
        ),
        (
            lambda x, w: ops.conv2d_sweep(
                x[:, :1], w[:, :1, :1, :1].expand(1, 2**22, 1, 1), (19, 16), (3, 3), (0, 0, 0, 0), (1, 1), 1
            ),
            "conv2d_sweep: the result has",
        ),
    ],
)
def test_results_beyond_32_bits_are_refused_before_they_are_made(call, words) -> None:
    with pytest.raises(ShapeError, match=words):
        call(torch.rand(100, 4, 7, 6), torch.rand(1, 4, 3, 3)[:, :, :1, :1].expand(1, 4, 3, 3))
