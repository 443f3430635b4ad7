"""Converters of interpolation: a resize of planes where the graph has its mode, else a weighted sum along each axis."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .aten import Activation, Call, Refusal, Result, converts, rank_in_name, spatial

_MODES = {"nearest_exact": "nearest-exact", "nearest": "nearest", "bicubic": "bicubic"}


@converts(
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"),
    *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d"),
    *("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
)
def resize(c: Call) -> Result:
    x = c.activation("input" if "input" in c.args else "self")
    spatial(x, rank_in_name(c.op))
    if c.op not in ("upsample_nearest2d", "upsample_bilinear2d"):
        return _by_weights(c, x)
    mode = "nearest" if "nearest" in c.op else "linear"
    attrs: dict[str, Any] = {"mode": mode, "align_corners": bool(c.args.get("align_corners"))}
    factors, sizes = c.args.get("scale_factors"), c.out.shape[2:]
    if factors:
        return c.emit("resize", x.value, scale=tuple(map(float, factors)), **attrs)
    if all(isinstance(n, int) for n in sizes):
        return c.emit("resize", x.value, size=sizes, **attrs)
    like = c.of_planes(sizes)
    if like is None:
        raise Refusal(f"resizes to {list(sizes)}, which no other value has")
    return c.emit("resize", x.value, like, **attrs)


def _by_weights(c: Call, x: Activation) -> str:
    """Interpolation is separable: along every axis the weights that torch itself uses, read off unit vectors."""
    sizes, targets = x.shape[2:], c.out.shape[2:]
    if not all(isinstance(n, int) for n in (*sizes, *targets)):
        raise Refusal("resizes planes of any size by this mode")
    factors = c.args.get("scale_factors") or [None] * len(sizes)
    mode = next((name for part, name in _MODES.items() if part in c.op), "linear")
    value = x.value
    for axis, (size, target, factor) in enumerate(zip(sizes, targets, factors, strict=True)):
        weight = _weights(size, target, factor, mode, bool(c.args.get("align_corners")), c.op.endswith("_aa"))
        if size != target or not torch.equal(weight, torch.eye(size)):
            value = c.emit("weighted_sum", value, axis=axis + 2, params={"weight": weight.to(x.dtype)})
    return value if value != x.value else c.emit("identity", x.value)


def _weights(size: int, target: int, factor: float | None, mode: str, corners: bool, antialias: bool) -> torch.Tensor:
    """[target, size]: how much each input element along an axis counts for each output element."""
    # a channel for each input element, 1 at its own place; two columns, because torch's antialiasing takes the memory
    # of planes with a single one for that of channels
    units = torch.eye(size).reshape(1, size, size, 1).repeat(1, 1, 1, 2)
    two = {"linear": "bilinear"}.get(mode, mode)
    options = {"mode": two, "align_corners": corners if two.startswith("bi") else None, "antialias": antialias}
    if factor is None:
        rows = F.interpolate(units, size=(target, 2), **options)  # type: ignore[arg-type]
    else:
        rows = F.interpolate(units, scale_factor=(factor, 1.0), recompute_scale_factor=False, **options)  # type: ignore[arg-type]
    return rows[0, :, :, 0].t().contiguous()
