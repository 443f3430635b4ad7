"""Excitation Backprop in the shape of a CAM of pytorch-grad-cam.

    from ebp_cuda.compat.grad_cam import ExcitationBackpropCAM

    with ExcitationBackpropCAM(model, [model.layer3], contrast_layer=model.avgpool) as cam:
        picture = cam(input_tensor=x, targets=[ClassifierOutputTarget(281)])[0]     # float32 [H, W], 0..1

What takes a CAM's result (show_cam_on_image, the ROAD metrics) takes this one's. pytorch-grad-cam itself is not needed;
the module is neither hooked nor switched to evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..errors import InputError, UnsupportedError
from ..images.maps import resize_maps
from ..questions.regions import Numbers, region_of
from ..rules import check_rule_set
from .modules import network, value_of
from .sweep import Seed, propagate
from .tops import Top, top_of

__all__ = ["ExcitationBackpropCAM", "PlaceTarget", "SimilarityTarget"]

Tensor = torch.Tensor
Picture = npt.NDArray[np.float32]
Target = Callable[[Tensor], Tensor]
"""From one image's output to the number that is to be explained: ClassifierOutputTarget(281) and its like."""


class ExcitationBackpropCAM:
    """MWP or c-MWP maps, scaled for looking at, behind the calls of a CAM.

    Args:
        model: a torch module (or an ebp_cuda Net).
        target_layers: modules or names; the maps of several are averaged.
        reshape_transform: from a layer's relevance to [N, C, h, w], for layers without a plane.
        contrast_layer: module or name, for the contrastive form.
        rules: "caffe" or "conserving" (docs/rules.md).
        top: of a model with several outputs the place of the one to explain, or the layer that holds its scores;
            targets get that output.

    Raises:
        InputError: no layers, or layers that are no part of the model.
        UnsupportedError: a layer without rule.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[str | nn.Module],
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
        *,
        contrast_layer: str | nn.Module | None = None,
        rules: str = "caffe",
        top: Top = None,
    ) -> None:
        if isinstance(target_layers, (str, nn.Module)) or not target_layers:
            raise InputError("target_layers: wanted a list of at least one layer")
        self.model, self.target_layers = model, list(target_layers)
        self.reshape_transform, self.contrast_layer = reshape_transform, contrast_layer
        self.rules, self.top = check_rule_set(rules), top
        self.outputs: Tensor | None = None
        """What the model gave for the images of the last call."""

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[Target] | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> Picture:
        """Pictures, float32 [N, H, W], each from 0 to 1, of images [N, C, H, W].

        targets: one for each image; the classes with the highest scores where None. The sweep starts from the positive
        part of a target's derivative by the output, scaled to sum to 1: all of it on the class of a
        ClassifierOutputTarget, all over the mask of a SemanticSegmentationTarget. aug_smooth averages over the image,
        its mirror image, and both 0.9 and 1.1 times as bright; eigen_smooth is refused: it needs channel weights.
        """
        if eigen_smooth:
            raise UnsupportedError("eigen_smooth: Excitation Backprop has no channel weights to project")
        if not isinstance(input_tensor, Tensor) or input_tensor.dim() != 4:
            raise InputError(f"input_tensor: wanted a tensor [N, C, H, W], got {_described(input_tensor)}")
        if not aug_smooth:
            return self.forward(input_tensor, targets)
        if targets is None:
            targets = _highest(self._look(input_tensor, None)[1])
        pictures = []
        for mirrored in (False, True):
            for brightness in (0.9, 1.0, 1.1):
                image = (input_tensor.flip(3) if mirrored else input_tensor) * brightness
                picture = self.forward(image, targets)
                pictures.append(picture[:, :, ::-1] if mirrored else picture)
        return np.mean(pictures, axis=0, dtype=np.float32)

    def forward(self, input_tensor: Tensor, targets: Sequence[Target] | None, eigen_smooth: bool = False) -> Picture:
        """As a call without its options."""
        picture, self.outputs = self._look(input_tensor, targets)
        return picture

    def _look(self, input_tensor: Tensor, targets: Sequence[Target] | None) -> tuple[Picture, Tensor]:
        """The pictures, and what the model gave."""
        net = network(self.model, [input_tensor])
        values = [value_of(net, self.model, layer, "target_layers") for layer in self.target_layers]
        contrast = self.contrast_layer
        at = None if contrast is None else value_of(net, self.model, contrast, "contrast_layer")
        seed, top = _seed_of(targets), top_of(net, self.model, self.top)
        found = propagate(net, [input_tensor], top, seed, values, rules=self.rules, contrast=at)
        size = (input_tensor.shape[2], input_tensor.shape[3])
        layers = [self._picture(found.relevance[value], size) for value in values]
        return _scaled(torch.stack(layers).mean(0)).cpu().numpy().astype(np.float32), found.output

    def _picture(self, relevance: Tensor, size: tuple[int, int]) -> Tensor:
        """[N, H, W], 0..1, of a layer's relevance; what is negative counts as 0."""
        if self.reshape_transform is not None:
            relevance = self.reshape_transform(relevance)
        if relevance.dim() != 4:
            shape = list(relevance.shape)
            raise UnsupportedError(f"target_layers: relevance of shape {shape} has no plane; give a reshape_transform")
        return resize_maps(_scaled(relevance.sum(1).clamp(min=0)), size)

    def __enter__(self) -> ExcitationBackpropCAM:
        return self

    def __exit__(self, *_: object) -> None:
        self.outputs = None


def _described(given: Any) -> str:
    return str(list(given.shape)) if isinstance(given, Tensor) else f"a {type(given).__name__}"


def _scaled(maps: Tensor) -> Tensor:
    """Maps [N, h, w], each from its lowest value at 0 to its highest at 1; a constant one is 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), torch.zeros_like(maps))


class PlaceTarget:
    """A class at a place of an output with positions: a pixel of a segmentation, a cell of a detector.

    Args:
        category: the class.
        pixel, box, mask: one of them, as `ExcitationBackprop.attribute` takes it.
    """

    def __init__(
        self, category: int, *, pixel: Numbers | None = None, box: Numbers | None = None, mask: Any = None
    ) -> None:
        region = region_of(pixel, box, mask)
        if region is None:
            raise InputError("PlaceTarget: wanted one of pixel=, box= and mask=")
        self.category, self.region = category, region

    def __call__(self, output: Tensor) -> Tensor:
        """The class's scores [classes, ...], weighed by the place."""
        return (output[self.category] * self.region.weights(output.shape[1:]).to(output)).sum()


class SimilarityTarget:
    """The similarity of an output [features] to an embedding: relevance starts from the products that add to it."""

    def __init__(self, embedding: Tensor) -> None:
        self.embedding = embedding

    def __call__(self, output: Tensor) -> Tensor:
        if self.embedding.shape != output.shape[:1]:
            wanted = f"[{output.shape[0]}], the output's features"
            raise InputError(f"SimilarityTarget: the embedding has shape {list(self.embedding.shape)}, wanted {wanted}")
        weight = self.embedding.to(output).reshape(-1, *[1] * (output.dim() - 1))
        return (output.detach().clamp(min=0) * weight.clamp(min=0) * output).sum()  # its derivative is the seed


class _Class:
    """The score of one class: what pytorch-grad-cam calls ClassifierOutputTarget."""

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, output: Tensor) -> Tensor:
        return output[self.category]


def _highest(output: Tensor) -> list[Target]:
    if output.dim() != 2:
        raise InputError(f"targets=None: wanted one for each image where the output is {list(output.shape)}")
    return [_Class(int(index)) for index in output.argmax(1)]


def _seed_of(targets: Sequence[Target] | None) -> Seed:
    def seed(output: Tensor) -> Tensor:
        chosen = _highest(output) if targets is None else list(targets)
        if len(chosen) != len(output):
            raise InputError(f"targets: got {len(chosen)}, wanted one for each of {len(output)} images")
        with torch.inference_mode(False), torch.enable_grad():
            leaf = output.detach().clone().requires_grad_()
            parts = [_number(target, row, i) for i, (target, row) in enumerate(zip(chosen, leaf, strict=True))]
            wanted = torch.autograd.grad(torch.stack(parts).sum(), leaf)[0].clamp(min=0)
        total = wanted.flatten(1).sum(1)
        if not bool((total > 0).all()):
            raise InputError(f"targets[{int((total <= 0).nonzero()[0])}] grows with no output; nothing to start from")
        return wanted / total.reshape(-1, *[1] * (wanted.dim() - 1))

    return seed


def _number(target: Target, row: Tensor, index: int) -> Tensor:
    try:
        found = target(row)
    except (IndexError, RuntimeError, TypeError) as error:
        raise InputError(f"targets[{index}] on an output {list(row.shape)}: {error}") from None
    if not isinstance(found, Tensor) or found.numel() != 1 or not found.requires_grad:
        raise InputError(f"targets[{index}] gives {_described(found)}, wanted one number computed from the output")
    return found.reshape(())
