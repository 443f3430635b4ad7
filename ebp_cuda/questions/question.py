"""What a call asks of every image: K columns of seeds at the top, and what is subtracted from them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from .. import ops
from ..errors import InputError
from ..targets import Choice, class_seed, class_share

CONTRASTS = ("everything else", "versus", "mean", "truncated")
NO_CLASS = -1
"""The target of a column whose seed is no class."""


@dataclass(frozen=True)
class Question:
    """Columns of seeds, and a contrast. Tensors are wherever the caller has them."""

    choice: Choice
    """The classes; of an embedding or a seed only how many columns there are."""
    positions: torch.Tensor | None = None
    """[N, 1 or K, *plane]: how probability 1 lies over the positions of the top; None: by a softmax of the scores."""
    one_place: bool = False
    """Whether `positions` are one place for all columns, by which classes are scored then."""
    embedding: torch.Tensor | None = None
    """[N, K, features]: similarity to it in place of classes."""
    seed: torch.Tensor | None = None
    """[N, K, *top]: the seeds themselves in place of classes."""
    contrast: str = ""
    """One of `CONTRASTS`, or "" for none."""
    other: Question | None = None
    """What "versus" and "truncated" subtract, of 1 or K columns."""
    percentile: float = 0.0
    """Of "truncated": how much of the mass is cut off, in percent."""

    @property
    def columns_each(self) -> int:
        """How many columns of a sweep one of the K takes."""
        return 2 if self.contrast == "truncated" else 1

    @property
    def key(self) -> Hashable:
        """What two questions share that one recorded run can answer."""
        shapes = tuple(tensor.shape for tensor in self.tensors)
        has = tuple(getattr(self, name) is not None for name in _TENSORS)
        other = None if self.other is None else self.other.key
        return self.choice.kind, self.choice.count, has, shapes, self.one_place, self.contrast, self.percentile, other

    # --- its tensors ------------------------------------------------------------------------------------------------

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All tensors in a row; `with_tensors` is the way back."""
        own = [self.choice.given, *(getattr(self, name) for name in _TENSORS)]
        return (*(tensor for tensor in own if tensor is not None), *(() if self.other is None else self.other.tensors))

    def with_tensors(self, tensors: tuple[torch.Tensor, ...]) -> Question:
        """The same question with other tensors in the places of its own."""
        rest = iter(tensors)
        return self._mapped(lambda _: next(rest))

    def _mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Question:
        def of(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else change(tensor)

        choice = replace(self.choice, given=of(self.choice.given))
        changed: dict[str, Any] = {name: of(getattr(self, name)) for name in _TENSORS}
        other = None if self.other is None else self.other._mapped(change)
        return replace(self, choice=choice, other=other, **changed)

    def of_images(self, some: slice) -> Question:
        """The part about some of the images."""
        return self._mapped(lambda tensor: tensor[some])

    def of_columns(self, some: slice) -> Question:
        """The part about some of the columns, whose classes are known."""
        part = self._mapped(lambda tensor: tensor if tensor.shape[1] == 1 else tensor[:, some])
        return part._counted(some.stop - some.start)

    def _counted(self, count: int) -> Question:
        other = self.other if self.other is None or self.other.choice.count == 1 else self.other._counted(count)
        return replace(self, choice=replace(self.choice, count=count), other=other)

    # --- what it means at a top -------------------------------------------------------------------------------------

    def check(self, classes: int) -> None:
        """Raises InputError where the host knows that the model has too few classes."""
        self.choice.check(classes)
        if self.contrast == "mean" and classes < 2:
            raise InputError("contrast='mean': the model has one class; wanted others to be set against")
        if self.other is not None:
            self.other.check(classes)

    def scores(self, top: torch.Tensor) -> torch.Tensor:
        """Scores [N, classes] of a top [N, classes, ...]: the mean over the question's one place, otherwise the maximum
        over positions; of one number for each image, that of class 0."""
        if top.dim() == 1:
            return top.unsqueeze(1)
        if top.dim() == 2:
            return top
        if self.positions is not None and self.one_place:
            return (top * self.positions.to(top.device, top.dtype)).flatten(2).sum(2)
        return top.flatten(2).amax(2)

    def answered(self, scores: torch.Tensor) -> tuple[Question, torch.Tensor]:
        """The question with its classes known, and these: int64 [N, K], `NO_CLASS` where columns are no classes."""
        if self.embedding is not None or self.seed is not None:
            return self, scores.new_full((len(scores), self.choice.count), NO_CLASS, dtype=torch.int64)
        targets = self.choice.of(scores)
        return replace(self, choice=Choice("given", targets.shape[1], targets)), targets

    def asked_classes(self) -> torch.Tensor | None:
        """The classes that the caller gave, those of `other` included: what the status of a call looks at."""
        given = [self.choice.given, None if self.other is None else self.other.choice.given]
        known = [tensor.flatten() for tensor in given if tensor is not None]
        return torch.cat([tensor.to(known[0].device) for tensor in known]) if known else None

    def start(self, top: torch.Tensor) -> torch.Tensor:
        """The seeds [N*K, ...] that the sweep starts from, of a question whose classes are known; two for each of the K
        columns where the contrast is "truncated", [N*2K, ...] with the K others behind the K of an image."""
        own = self._seeds(top)
        if self.other is not None:
            other = self.other._seeds(top).expand_as(own)
            own = torch.cat([own, other], 1) if self.contrast == "truncated" else own - other
        elif self.contrast == "mean":
            own = _less_the_others(own, self._all_classes(top))
        return own.flatten(0, 1)

    def own_seeds(self, top: torch.Tensor) -> torch.Tensor:
        """The seeds [N*K, ...] without what is subtracted from them."""
        return self._seeds(top).flatten(0, 1)

    def _seeds(self, top: torch.Tensor) -> torch.Tensor:
        """[N, K, ...]."""
        if self.seed is not None:
            return self.seed.to(top.device, top.dtype)
        positions = None if self.positions is None else self.positions.to(top.device, top.dtype)
        if self.embedding is not None:
            return similarity_seed(top, self.embedding.to(top.device, top.dtype), positions)
        given = self.choice.given
        assert given is not None  # `answered` comes first
        classes = top.shape[1] if top.dim() > 1 else 1
        known = given.to(top.device).clamp(0, classes - 1)  # a class that the model lacks is in the status, not here
        seeds = class_seed(top, known, positions)
        return seeds.reshape(len(top), -1, *seeds.shape[1:])

    def _all_classes(self, top: torch.Tensor) -> torch.Tensor:
        """The sum of the seeds of all classes, [N, 1 or K, ...]."""
        if self.positions is None:
            return class_share(top).unsqueeze(1)
        positions = self.positions.to(top.device, top.dtype).unsqueeze(2)
        return positions.expand(*positions.shape[:2], *top.shape[1:])


_TENSORS = tuple(field.name for field in fields(Question) if field.name in ("positions", "embedding", "seed"))


def _less_the_others(own: torch.Tensor, every: torch.Tensor) -> torch.Tensor:
    """Seeds [N, K, classes, ...] less the mean of those of the other classes, where `every` is the sum of all."""
    others = own.shape[2] - 1
    return own - (every - own) / others


def similarity_seed(top: torch.Tensor, embedding: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    """Where the similarity <x, e> of a top to an embedding comes from: p = x+ e+ / the sum of x+ e+.

    It is what a fully connected layer with the embedding for its weights hands down to excited features. One that is
    below 0 in both adds to the similarity too, but no excitation made it so, and it gets nothing. The length of e, and
    so cosine or dot product, makes no difference.

    Args:
        top: x [N, features, ...].
        embedding: e [N, K, features].
        positions: [N, 1 or K, *plane], weights of the positions of a spatial top, or None for equal ones.

    Returns:
        [N, K, features, ...], which sums to 1, or is 0 where nothing agrees.
    """
    axes = top.dim() - 2
    agrees = top.clamp(min=0).unsqueeze(1) * embedding.clamp(min=0).reshape(*embedding.shape, *[1] * axes)
    if positions is not None:
        agrees = agrees * positions.unsqueeze(2)
    total = agrees.flatten(2).sum(2).flatten()
    rows = agrees.flatten(0, 1)
    return ops.divide_or_zero(rows, total.reshape(-1, *[1] * (axes + 1)).expand_as(rows).contiguous()).reshape(
        agrees.shape
    )
