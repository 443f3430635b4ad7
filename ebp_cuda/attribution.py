"""What a call gives back: maps with the targets, the scores, and by what they were computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """What a method computes by and where, whether it was named or chosen."""

    layer: str | tuple[str, ...]
    contrast_layer: str | None
    rules: str

    def __str__(self) -> str:
        layer = self.layer if isinstance(self.layer, str) else ", ".join(self.layer)
        return f"layer {layer}, contrast {self.contrast_layer or 'none'}, rules {self.rules}"

    def words(self) -> dict[str, str]:
        """What files that hold results say of it: by "layer", "contrast_layer" and "rules"."""
        layer = self.layer if isinstance(self.layer, str) else ",".join(self.layer)
        return {"layer": layer, "contrast_layer": self.contrast_layer or "", "rules": self.rules}


@dataclass(frozen=True, repr=False)
class Attribution:
    """What one call measured: tensors, or arrays of the kind that the input was.

    Of several layers, `maps` and `mass_left` are dicts by layer name.
    """

    maps: torch.Tensor
    """[N, K, h, w] ([N, K, L] of sequences, [N, K, t, h, w] of volumes): relevance at the layer, summed over its
    channels; raw, unclipped, not normalized."""
    targets: torch.Tensor
    """int64 [N, K]: the classes; -1 for a column whose seed is no class."""
    scores: torch.Tensor
    """float32 [N, classes]: the top's activation; where the top is spatial its mean over the one place that was asked
    for, otherwise the maximum over positions."""
    mass_left: torch.Tensor
    """[N, K]: sum |p| at the layer over that at the contrast layer (the top, without one): what `dtype` must carry."""
    setting: Setting
    """The layer, contrast layer and rules by which it was computed."""

    @property
    def arrays(self) -> tuple[torch.Tensor, ...]:
        """Maps, targets, scores and mass left; maps and mass left of several layers one after the other."""
        several = isinstance(self.maps, dict)
        maps, left = (tuple(group.values()) if several else (group,) for group in (self.maps, self.mass_left))
        return (*maps, self.targets, self.scores, *left)

    def __repr__(self) -> str:
        images, columns = self.targets.shape
        first, at = self.arrays[0], self.setting
        contrast = f", contrast at '{at.contrast_layer}'" if at.contrast_layer else ""
        maps = f"maps {list(first.shape)} {str(first.dtype).removeprefix('torch.')}"
        where = f"at {at.layer!r}{contrast}, rules '{at.rules}'"
        left = self.arrays[-1]
        return (
            f"<Attribution of {images} x {columns} (images x classes) {where}: {maps},\n"
            f" targets {self.targets.tolist()[:2]}{'...' if images > 2 else ''}, mass left {left.min():.2g} to "
            f"{left.max():.2g}>"
        )


@dataclass(frozen=True, repr=False)
class ClassesAt:
    """Which classes have their attention at one place, the most of it first: tensors, or arrays of the input's kind."""

    classes: torch.Tensor
    """int64 [N, classes]: all classes of the model, ranked by their share."""
    share: torch.Tensor
    """[N, classes], of each of those: the relevance that probability 1 on the class leaves at the place, the weighted
    sum of its map there. Of a contrast it is signed."""
    lift: torch.Tensor
    """[N, classes]: how far the share lies above the mean of all classes, in units of the mean of their absolute
    values. Without a contrast 0 is the mean, 1 twice as much, and -1 nothing."""
    scores: torch.Tensor
    """float32 [N, classes], by class and not ranked: the top's activation, as of `Attribution`."""
    setting: Setting

    @classmethod
    def ranked(
        cls, shares: torch.Tensor, scores: torch.Tensor, setting: Setting, kind: Callable[[torch.Tensor], Any]
    ) -> ClassesAt:
        """From shares and scores [N, classes] by class. kind: makes arrays of the caller's kind."""
        share, classes = shares.sort(dim=1, descending=True, stable=True)
        size = share.abs().mean(1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        lift = (share - share.mean(1, keepdim=True)) / size
        return cls(kind(classes), kind(share), kind(lift), kind(scores), setting)

    def __repr__(self) -> str:
        images, count = self.classes.shape
        lines = [f"<ClassesAt of {images} images, {count} classes at {self.setting.layer!r}: the first of each"]
        for classes, share, lift in zip(self.classes[:3], self.share, self.lift, strict=False):
            firsts = zip(classes[:5].tolist(), share.tolist(), lift.tolist(), strict=False)
            lines.append(", ".join(f"{index} ({part:.2g}, lift {more:+.2g})" for index, part, more in firsts))
        return "\n ".join(lines) + ">"
