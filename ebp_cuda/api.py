"""Attribution maps: the class `ExcitationBackprop`, and one function each for MWP and c-MWP."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from . import engine
from .engine import Trace
from .errors import InputError, ShapeError
from .net import ArrayLike, Net, as_net
from .relevance import Relevance

Target = int | str | Sequence[int] | torch.Tensor | Any


@dataclass(frozen=True)
class Attribution:
    """What one call measured."""

    maps: torch.Tensor
    """[N, K, h, w]: relevance at the layer, summed over its channels; raw, unclipped, not normalised."""
    targets: torch.Tensor
    """int64 [N, K]: the classes."""
    scores: torch.Tensor
    """float32 [N, classes]: the top's activation; the maximum over positions where the top is spatial."""


class ExcitationBackprop:
    """Excitation Backprop (Zhang et al., ECCV 2016) of one network at one layer, set up once for many images.

    net: from `load` or `from_torch`.
    layer: where the map is read: a blob, layer or module name.
    contrast_layer: None for MWP; for c-MWP the layer at which what excites everything else is subtracted, usually the
        one below the classifier (pool5/7x7_s1 in GoogLeNet, fc7 in VGG16).
    rules: "caffe" equals the original; "conserving" loses no probability (README, table of rules).
    dtype: "fp32" or "fp64" (or the torch dtype). device: "cpu", "cuda", "cuda:1" ...
    top: the layer that holds the class scores; by default the network's only output, above its softmax or sigmoid.

    Raises InputError (unknown name, a layer that does not lie below the top) and UnsupportedError that lists every
    layer on the way without a rule.
    """

    def __init__(
        self,
        net: Net,
        layer: str,
        contrast_layer: str | None = None,
        rules: str = "caffe",
        dtype: str | torch.dtype = "fp32",
        device: str | torch.device = "cpu",
        top: str | None = None,
    ) -> None:
        self.net, self.layer, self.contrast_layer, self.top = net, layer, contrast_layer, top
        self.plan = net.plan(rules, device, dtype)
        graph = self.plan.graph
        self._top = graph.resolve(top)[-1] if top is not None else net.default_top()
        self._value = graph.resolve(layer)[0]
        self._contrast = graph.resolve(contrast_layer)[0] if contrast_layer is not None else None
        self._route = self.plan.route([self._top], [self._value])
        if self._contrast is not None:
            self._check_contrast(self._contrast)

    def _check_contrast(self, contrast: str) -> None:
        self.plan.route([contrast], [self._value])
        between = self.plan.route([self._top], [contrast]).nodes
        if not self.plan.classifiers(self._top).intersection(between):
            raise InputError(
                f"contrast_layer='{self.contrast_layer}': no layer with weights lies between it and the top "
                f"'{self._top}'; wanted one below the classifier"
            )

    def attribute(self, x: ArrayLike | Mapping[str, ArrayLike], target: Target) -> torch.Tensor:
        """Attribution maps [N, K, h, w], float32 (or the chosen dtype): raw sums over channels, unclipped.

        x: [N, C, H, W], tensor or array, or a dict by input name.
        target: a class for all images; a list or tensor [N], one per image; a tensor [N, K]; "top5" for the five
        highest scores of each image; "all". Raises InputError and ShapeError.
        """
        return self.run(x, target).maps

    def run(self, x: ArrayLike | Mapping[str, ArrayLike], target: Target) -> Attribution:
        """Maps with the targets and the scores of the same forward pass."""
        trace, scores = self._forward(x)
        targets = class_targets(target, scores)
        relevance = self._sweep(trace, targets)
        if relevance.s.dim() != 4:
            shape = list(relevance.s.shape[1:])
            raise ShapeError(f"layer '{self.layer}' has no plane to map (its shape is [N] + {shape}): use relevance()")
        maps = relevance.p().sum(1).reshape(*targets.shape, *relevance.s.shape[2:])
        return Attribution(maps, targets, scores.float())

    def relevance(self, x: ArrayLike | Mapping[str, ArrayLike], target: Target) -> torch.Tensor:
        """Relevance p of every unit of the layer, [N, K, C, h, w] (or [N, K, features])."""
        trace, scores = self._forward(x)
        targets = class_targets(target, scores)
        p = self._sweep(trace, targets).p()
        return p.reshape(*targets.shape, *p.shape[1:])

    def _forward(self, x: ArrayLike | Mapping[str, ArrayLike]) -> tuple[Trace, torch.Tensor]:
        keep = self._route.keep | {self._top}
        trace = engine.forward(self.plan, self.net.check_inputs(x), keep, self._route.nodes)
        top = trace.values[self._top]
        if top.dim() < 2:
            wanted = "[N, classes] or [N, classes, h, w]"
            raise ShapeError(f"top '{self._top}' has shape {list(top.shape)}, wanted {wanted}")
        return trace, top if top.dim() == 2 else top.flatten(2).amax(2)

    def _sweep(self, trace: Trace, targets: torch.Tensor) -> Relevance:
        seed = Relevance(class_seed(trace.values[self._top], targets))
        if self._contrast is None:
            return engine.sweep(self.plan, trace, self._route, {self._top: seed}, [self._value])[self._value]
        found = engine.contrastive_sweep(self.plan, trace, self._top, seed, self._contrast, [self._value])
        return found[self._value]


def class_targets(target: Target, scores: torch.Tensor) -> torch.Tensor:
    """Targets as int64 [N, K] on the scores' device; see ExcitationBackprop.attribute. Raises InputError."""
    images, classes = scores.shape
    if isinstance(target, str):
        match = re.fullmatch(r"top(\d+)", target)
        if target != "all" and not (match and 1 <= int(match[1]) <= classes):
            raise InputError(f"target='{target}': wanted an index, 'all' or 'top1' to 'top{classes}'")
        if match is None:
            return torch.arange(classes, device=scores.device).expand(images, classes)
        return scores.topk(int(match[1]), dim=1).indices
    try:
        found = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"target={target!r}: wanted class indices") from None
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise InputError(f"target has dtype {found.dtype}, wanted integers")
    found = found.to(scores.device, torch.int64)
    if found.dim() == 0:
        found = found.expand(images)
    if found.dim() > 2 or found.shape[0] != images or found.numel() == 0:
        raise InputError(f"target has shape {list(found.shape)}, wanted a class, [{images}] or [{images}, K]")
    found = found.reshape(images, -1)
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= classes:
        raise InputError(f"target {low if low < 0 else high}: the model has classes 0 to {classes - 1}")
    return found


def class_seed(top: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The distribution a sweep starts from, [N*K, classes, ...]: probability 1 on each target.

    A spatial top (fully convolutional network) shares it over positions by a softmax of the class's scores, as the
    original's demo does.
    """
    images, count = targets.shape
    seed = top.new_zeros(images, count, *top.shape[1:])
    rows = torch.arange(images, device=top.device).unsqueeze(1)
    chosen = top[rows, targets]
    share = chosen.flatten(2).softmax(2).reshape(chosen.shape) if chosen.dim() > 2 else torch.ones_like(chosen)
    columns = torch.arange(count, device=top.device).unsqueeze(0)
    seed[rows, columns, targets] = share
    return seed.flatten(0, 1)


def excitation_backprop(
    model: Net | torch.nn.Module, x: ArrayLike, target: Target, layer: str, **options: Any
) -> torch.Tensor:
    """MWP maps [N, K, h, w] of a Net or torch module at `layer`; options as for ExcitationBackprop."""
    return ExcitationBackprop(as_net(model, x), layer, **options).attribute(x, target)


def contrastive_excitation_backprop(
    model: Net | torch.nn.Module, x: ArrayLike, target: Target, layer: str, contrast_layer: str, **options: Any
) -> torch.Tensor:
    """c-MWP maps [N, K, h, w] of a Net or torch module at `layer`; options as for ExcitationBackprop."""
    return ExcitationBackprop(as_net(model, x), layer, contrast_layer, **options).attribute(x, target)
