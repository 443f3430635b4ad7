"""What the keywords of a call ask, read into a `Question`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import torch

from ..errors import InputError, ShapeError
from ..interop import Array, to_tensor
from ..targets import Choice, Target, choice_of
from .question import CONTRASTS, Question
from .regions import Numbers, region_of


class Asked(TypedDict, total=False):
    """What a call may ask besides its target. K places, embeddings or seeds are K columns, carried by one sweep."""

    pixel: Numbers | None
    """Of a top with positions, where the class's probability starts: (row, column), (position,) of a sequence,
    (depth, row, column) of a volume. [K, 2] for a column each, [N, K, 2] for each image."""
    box: Numbers | None
    """The same of a box, evenly over it: (top, left, bottom, right), bottom and right behind the last position."""
    mask: Array | None
    """The same by weights: [h, w], [K, h, w] or [N, K, h, w], none below 0."""
    similarity_to: Array | None
    """In place of classes: an embedding [features], [K, features] or [N, K, features] to compare the top's with."""
    seed: Array | None
    """In place of classes: the relevance of the top itself, [*top], [K, *top] or [N, K, *top], of either sign."""
    contrast: str | None
    """"everything else" (the default where there is a contrast layer), "versus", "mean" or "truncated"."""
    other: Any
    """What "versus" and "truncated" subtract: classes as `target`, or embeddings or seeds where those are asked for."""
    percentile: float
    """Of "truncated": how much of the mass of the class is cut off, from the smallest on, in percent; 20 by default."""


@dataclass(frozen=True)
class Context:
    """What reading a call's keywords looks at."""

    images: int
    labels: Sequence[str] | None
    contrasted: bool
    """Whether the method has a contrast layer."""
    top: Callable[[], Sequence[int]]
    """The top's shape for one image, without the axis of images; asked for where it matters."""


def question_of(target: Target, asked: Asked, context: Context) -> Question:
    """The question of a call with this target and these keywords.

    Raises:
        InputError: what is no place, class, embedding, seed or contrast, or does not go together.
        ShapeError: an array of another shape than the top's.
    """
    unknown = set(asked) - set(Asked.__annotations__)
    if unknown:
        raise InputError(f"got {', '.join(sorted(unknown))}=; wanted one of {', '.join(Asked.__annotations__)}")
    contrast = _contrast(asked, context)
    positions = _positions(asked, context)
    question = _starts(target, asked.get("similarity_to"), asked.get("seed"), "target", context)
    if question.seed is not None and positions is not None:
        raise InputError("seed= says where relevance starts already; wanted no pixel=, box= or mask= beside it")
    if positions is not None:
        question = _placed(question, positions)
    question = replace(question, contrast=contrast)
    if contrast in ("versus", "truncated"):
        question = _versus(question, asked.get("other"), context)
    if contrast == "truncated":
        percentile = asked.get("percentile", 20.0)
        if not isinstance(percentile, (int, float)) or not 0 <= percentile < 100:
            raise InputError(f"percentile={percentile!r}: wanted a number from 0 up to, not including, 100")
        question = replace(question, percentile=float(percentile))
    return question


def _contrast(asked: Asked, context: Context) -> str:
    contrast = asked.get("contrast")
    if contrast is None:
        contrast = "everything else" if context.contrasted else ""
    elif contrast not in CONTRASTS:
        raise InputError(f"contrast={contrast!r}: wanted one of {', '.join(map(repr, CONTRASTS))}")
    if contrast == "everything else" and not context.contrasted:
        raise InputError("contrast='everything else': the method has no contrast_layer; wanted one, such as 'auto'")
    needs_other = contrast in ("versus", "truncated")
    if needs_other != (asked.get("other") is not None):
        more = "wanted other=, what it is set against" if needs_other else "other= belongs to 'versus' and 'truncated'"
        raise InputError(f"contrast={contrast or None!r}: {more}")
    if "percentile" in asked and contrast != "truncated":
        raise InputError(f"contrast={contrast or None!r}: percentile= belongs to 'truncated'")
    if contrast == "mean" and (asked.get("similarity_to") is not None or asked.get("seed") is not None):
        raise InputError("contrast='mean' is that of the other classes; an embedding or a seed has none")
    return contrast


def _starts(target: Any, embedding: Any, seed: Any, name: str, context: Context) -> Question:
    """The columns, without places. name: the argument that errors about classes name."""
    if embedding is not None and seed is not None:
        raise InputError("got similarity_to= and seed=; wanted one of them")
    if seed is not None:
        columns = _columns(_numbers(name if name != "target" else "seed", seed), tuple(context.top()), context.images)
        return Question(Choice("columns", columns.shape[1]), seed=columns)
    if embedding is not None:
        features = tuple(context.top())[:1]
        if not features:
            raise ShapeError("similarity_to: the top has one number for each image; wanted one with features")
        argument = name if name != "target" else "similarity_to"
        columns = _columns(_numbers(argument, embedding), features, context.images, argument)
        return Question(Choice("columns", columns.shape[1]), embedding=columns)
    try:
        return Question(choice_of(target, context.images, context.labels))
    except InputError as error:
        raise error if name == "target" else InputError(f"{name}: {error}") from None


def _versus(question: Question, other: Any, context: Context) -> Question:
    """The question with what it is set against, both of the same number of columns, or of one for all."""
    embedding, seed = (other if part is not None else None for part in (question.embedding, question.seed))
    against = _starts(other, embedding, seed, "other", context)
    if question.positions is not None:
        against = replace(against, positions=question.positions)
    count, others = question.choice.count, against.choice.count
    if against.choice.kind not in ("given", "columns"):
        raise InputError(f"other={other!r}: wanted classes, one for all columns or one for each")
    if others not in (1, count):
        if count != 1 or question.choice.kind == "top":
            raise InputError(f"other has {others} columns, wanted 1 or {count or 'one class for all'}")
        question = _repeated(question, others)
    return replace(question, other=against)


def _placed(question: Question, positions: torch.Tensor) -> Question:
    """The question with places: one for all columns, or one for each."""
    places, count = positions.shape[1], question.choice.count
    if places not in (1, count):
        if count != 1 or question.choice.kind == "top":
            asked = {"top": f"top{count}", "all": "all"}.get(question.choice.kind, f"{count} columns")
            raise InputError(f"got {places} places for {asked}; wanted one place, or one for each class that is named")
        question = _repeated(question, places)
    return replace(question, positions=positions, one_place=places == 1)


def _repeated(question: Question, count: int) -> Question:
    """The question of one column as that of `count` equal ones."""

    def wide(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.expand(tensor.shape[0], count, *tensor.shape[2:])

    choice = replace(question.choice, count=count, given=wide(question.choice.given))
    return replace(question, choice=choice, embedding=wide(question.embedding), seed=wide(question.seed))


def _positions(asked: Asked, context: Context) -> torch.Tensor | None:
    """How probability 1 lies over the top's positions, [N, places, *plane]."""
    region = region_of(asked.get("pixel"), asked.get("box"), asked.get("mask"))
    if region is None:
        return None
    plane = tuple(context.top())[1:]
    if not plane:
        raise ShapeError(f"{region.kind}: the top has no positions (its shape is [N] + {list(context.top())})")
    weights = _columns(region.weights(plane), plane, context.images, region.kind)
    total = weights.flatten(2).sum(2)
    if bool((weights < 0).any()) or not bool((total > 0).all()):
        raise InputError(f"{region.kind}: wanted weights that are not below 0, and one above it")
    return weights / total.reshape(*total.shape, *[1] * len(plane))


def _numbers(name: str, value: Any) -> torch.Tensor:
    try:
        numbers = to_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError, BufferError):
        raise InputError(f"{name} is a {type(value).__name__}; wanted an array of numbers") from None
    if numbers.is_complex() or numbers.dtype == torch.bool:
        raise InputError(f"{name} has dtype {numbers.dtype}, wanted numbers")
    if numbers.is_cpu and not bool(numbers.isfinite().all()):
        raise InputError(f"{name} holds NaN or infinite values")
    return numbers


def _columns(array: torch.Tensor, own: Sequence[int], images: int, name: str = "seed") -> torch.Tensor:
    """[*own], [K, *own] or [N or 1, K, *own] as [N, K, *own]."""
    lead = array.dim() - len(own)
    if not 0 <= lead <= 2 or tuple(array.shape[lead:]) != tuple(own):
        shapes = ", ".join(f"{[*more, *own]}" for more in ([], ["K"], [images, "K"])).replace("'", "")
        raise ShapeError(f"{name} has shape {list(array.shape)}, wanted one of {shapes}")
    array = array.reshape(*[1] * (2 - lead), *array.shape)
    if array.shape[0] not in (1, images) or array.shape[1] == 0:
        raise ShapeError(f"{name} is for {array.shape[0]} images and {array.shape[1]} columns, wanted {images} images")
    return array.expand(images, *array.shape[1:])
