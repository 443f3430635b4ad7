"""What tensor-core precisions do to maps: whole networks whose contractions multiply rounded operands.

The operands are rounded by the emulator's model of the number formats, products and sums are then those of fp32, as on
tensor cores but for the last bits of a sum. `PYTHONPATH=tests python -m support.emu_precision`
prints the table of the documentation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ebp_cuda
from ebp_cuda.rules.contraction import spread_evenly
from ebp_cuda.rules.registry import OPERATIONS, Rule, Step
from ebp_cuda.rules.relevance import Relevance
from support.emu_build import emulator

Tensor = torch.Tensor
LAYERS = ("conv", "linear")


def rounded(t: Tensor, format_: str) -> Tensor:
    """t in "tf32", "tf32 cut" (truncated) or "bf16", as float32; "fp32" is t itself."""
    if format_ == "fp32":
        return t
    emu, bits = emulator(), t.contiguous().numpy().view(np.uint32)
    if format_ == "bf16":
        bits = emu.bf16_nearest(bits) << np.uint32(16)
    else:
        bits = emu.tf32_nearest(bits) if format_ == "tf32" else emu.tf32_truncated(bits)
    return torch.from_numpy(np.asarray(bits, np.uint32).view(np.float32).reshape(t.shape))


def two_summands(t: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the two tf32 numbers as which a forward on tensor cores reads t, and the lower one."""
    high = rounded(t, "tf32")
    low = rounded(t - high, "tf32 cut")
    return high + low, low


@dataclass(frozen=True)
class Precision:
    """How a contraction's operands are rounded."""

    format: str
    split: bool = False
    """The relevance r that goes down is the sum of two rounded numbers, for two products instead of one."""
    consistent: bool = False
    """p = x * t is formed with the same rounded x that the normalizer saw."""
    forward: str = "fp32"
    """Format of the forward's operands; "tf32x3": two tf32 summands each, without the product of the lower ones."""

    def __str__(self) -> str:
        parts = [self.format, "split" * self.split, "same x" * self.consistent, f"forward {self.forward}"]
        return ", ".join(part for part in parts if part and part != "forward fp32")

    def parts(self, r: Tensor) -> list[Tensor]:
        high = rounded(r, self.format)
        return [high, rounded(r - high, self.format)] if self.split else [high]


def _sum(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def share(step: Step, above: Sequence[Relevance | None], how: Precision, by_sign: bool) -> list[Relevance | None]:
    """The share rules of contraction.py with rounded operands; by_sign: those of the rule set "conserving"."""
    rel, x = above[0], step.inputs[0]
    assert rel is not None
    plus, minus = (step.linear.positive(sign).part.tensor() for sign in (step.sign, -step.sign))
    signed = by_sign and not step.non_negative[0]
    exact = [(x.clamp(min=0), plus), ((-x).clamp(min=0), minus)] if signed else [(x, plus)]
    operands = [(rounded(x, how.format), step.linear.with_weight(rounded(w, how.format))) for x, w in exact]
    z = _sum([linear.apply(part) for part, linear in operands])
    r = how.parts(rel.divided_by(z))
    p = torch.zeros(())
    for (part, _), (rounded_part, linear) in zip(exact, operands, strict=True):
        t = _sum([linear.transpose(piece, step.shapes[0]).tensor() for piece in r])
        p = p + Relevance(t, rounded_part if how.consistent else part).p()
    unshared = spread_evenly(step, rel, z) if by_sign else None
    return [Relevance(p if unshared is None else p + unshared)]


@contextlib.contextmanager
def precision(how: Precision) -> Iterator[None]:
    """Within, convolutions and fully connected layers share, and run forward, as `how` says."""
    kept = {name: (dict(OPERATIONS[name].rules), OPERATIONS[name].forward) for name in LAYERS}

    def forward(original: Any) -> Any:
        def run(node: Any, params: Any, xs: Any, saved: Any) -> Any:
            if how.forward == "tf32x3":
                (w, low_w), (x, low_x) = two_summands(params["weight"]), two_summands(xs[0])
                y, left_out = original(node, {**params, "weight": w}, [x], saved), {"weight": low_w}
                return [y[0] - original(node, left_out, [low_x], saved)[0]]
            weight = {"weight": rounded(params["weight"], how.forward)}
            return original(node, {**params, **weight}, [rounded(xs[0], how.forward)], saved)

        return run

    try:
        for name in LAYERS:
            entry = OPERATIONS[name]
            for rules in ("caffe", "conserving"):
                by_sign = rules == "conserving"
                down = lambda step, above, by_sign=by_sign: share(step, above, how, by_sign)  # noqa: E731
                entry.rules[rules] = Rule("share", down, "x")
            entry.forward = forward(entry.forward)
        yield
    finally:
        for name, (rules_before, forward_before) in kept.items():
            OPERATIONS[name].rules, OPERATIONS[name].forward = rules_before, forward_before


@dataclass(frozen=True)
class Study:
    """A network with inputs [1, ...] and, for each, the classes [1, K] to explain."""

    net: ebp_cuda.Net
    layer: str
    contrast: str
    rules: str
    inputs: list[Tensor]
    targets: list[Tensor]

    def maps(self, contrast: bool, dtype: str) -> list[Tensor]:
        layer = self.contrast if contrast else None
        net = ebp_cuda.Net(self.net.graph)  # a new one, since a net remembers how it ran before
        explain = ebp_cuda.ExcitationBackprop(net, self.layer, layer, self.rules, dtype)
        return [explain.attribute(x, t)[0].double() for x, t in zip(self.inputs, self.targets, strict=True)]


@cache
def digits(count: int = 4) -> Study:
    """The digits network; all ten classes of held-out scenes."""
    from ebp_cuda.images.preprocess import prepare
    from ebp_cuda.models import digits as model

    net = model.load()
    scenes = [model.scenes.make_scene("test", 1, index) for index in range(count)]
    inputs = [prepare([scene.image / np.float32(255)], net.preprocess) for scene in scenes]
    return Study(net, model.LAYER, model.CONTRAST_LAYER, "caffe", inputs, [torch.arange(10)[None]] * count)


@cache
def efficientnet(photos_of: tuple[str, ...] = ("astronaut", "coffee")) -> Study:
    """EfficientNet-Lite0 with its ImageNet weights; the first three classes of photos."""
    from skimage import data

    from ebp_cuda.images.preprocess import Preprocess, prepare
    from ebp_cuda.models import efficientnet_lite0

    how = Preprocess.from_dict(efficientnet_lite0.PREPROCESS).override(size=(224, 224))
    photos: list[Any] = [getattr(data, name)().astype(np.float32) / np.float32(255) for name in photos_of]
    inputs = [prepare(photo, how) for photo in photos]
    net = ebp_cuda.from_torch(efficientnet_lite0.load(), inputs[0])
    targets = [net.forward(x, outputs=[net.graph.outputs[0]])[net.graph.outputs[0]].topk(3).indices for x in inputs]
    return Study(net, "blocks.5", "pool", "conserving", inputs, targets)


@cache
def reference(study: Callable[[], Study], contrast: bool, dtype: str) -> list[Tensor]:
    return study().maps(contrast, dtype)


def errors(study: Callable[[], Study], how: Precision, contrast: bool) -> NDArray[np.float64]:
    """Relative L1 error of every map: of fp32 against float64, of the others against fp32, whose forward is the same
    to the bit, so that no near-tie of a max pool falls the other way."""
    with precision(how):
        got = study().maps(contrast, "fp32")
    wanted = reference(study, contrast, "fp64" if how == FP32 else "fp32")
    ratios = [(g - w).abs().sum((1, 2)) / w.abs().sum((1, 2)) for g, w in zip(got, wanted, strict=True)]
    return np.asarray(torch.cat(ratios))


FP32 = Precision("fp32")
ALL = [
    FP32,
    *[Precision(name) for name in ("tf32", "tf32 cut", "bf16")],
    *[Precision(name, consistent=True) for name in ("tf32", "bf16")],
    *[replace(Precision(name), split=True) for name in ("tf32", "bf16")],
    *[Precision(name, split=True, consistent=True) for name in ("tf32", "tf32 cut", "bf16")],
    Precision("tf32", split=True, consistent=True, forward="tf32"),
    Precision("tf32", split=True, consistent=True, forward="tf32x3"),
    Precision("fp32", forward="tf32x3"),
]


def main() -> None:
    print("| network | operands | MWP median | MWP worst | c-MWP median | c-MWP worst |")
    print("|---|---|---|---|---|---|")
    for name, study in (("digits", digits), ("EfficientNet-Lite0", efficientnet)):
        for how in ALL:
            found = [errors(study, how, contrast) for contrast in (False, True)]
            numbers = [f"{value:.1e}" for e in found for value in (np.median(e), e.max())]
            print("|", name, "|", how, "|", " | ".join(numbers), "|", flush=True)


if __name__ == "__main__":
    main()
