"""Which images are attributed together, and what becomes of those that cannot be.

The last bits of a map depend on the batch it was computed in: a matrix product of eight images is summed in another
order than one of seven. So batches are formed from the order of the source alone, and begin anew with every shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import EBPError, InputError, NumericError
from ..targets import parse_targets
from .decoding import Decoded
from .photos import attribute_batch
from .places import index_name
from .writing import Mapped

if TYPE_CHECKING:
    from ..api import ExcitationBackprop

_HELD = 4  # batches' worth of images of different shapes that wait for their like


@dataclass(frozen=True)
class _Request:
    image: Decoded
    classes: list[int] | str


class Attributor:
    """Takes decoded images in order and gives groups with maps. Raises InputError for a target that is no class."""

    def __init__(self, method: ExcitationBackprop, target: str, labels: Sequence[str] | None, batch: int) -> None:
        self._method, self._labels, self._batch = method, labels, batch
        self._count = class_count(method)
        if labels and len(labels) != self._count:
            raise InputError(f"labels: {len(labels)} names for a model of {self._count} classes")
        self._classes = None if target.startswith("@") else parse_targets(target, labels, self._count)
        self._waiting: dict[tuple[object, ...], list[_Request]] = {}

    def add(self, images: Sequence[Decoded], *, flush: bool) -> Iterator[Mapped]:
        """Groups that these images complete; with `flush` all that wait."""
        failed = []
        for image in images:
            request = self._request(image)
            if isinstance(request, Decoded):
                failed.append(request)
                continue
            assert image.x is not None
            count = request.classes if isinstance(request.classes, str) else len(request.classes)
            alike = self._waiting.setdefault((image.x.shape, count), [])
            alike.append(request)
            if len(alike) == self._batch:
                yield from self._take((image.x.shape, count))
            while sum(map(len, self._waiting.values())) >= _HELD * self._batch:
                yield from self._take(max(self._waiting, key=lambda key: len(self._waiting[key])))
        if failed:
            yield Mapped(failed)
        while flush and self._waiting:
            yield from self._take(next(iter(self._waiting)))

    def _request(self, image: Decoded) -> _Request | Decoded:
        """The image with its classes, or with the reason why it has none."""
        if image.error is not None:
            return image
        if self._classes is not None:
            return _Request(image, self._classes)
        try:
            return _Request(image, parse_targets(image.target or "", self._labels, self._count))
        except InputError as error:
            return _failed(image, error)

    def _take(self, key: tuple[object, ...]) -> Iterator[Mapped]:
        """The maps of images of one shape; where they fail together, each is tried alone, so that one costs one row."""
        group = self._waiting.pop(key)
        try:
            yield self._attribute(group)
        except EBPError as error:
            if len(group) == 1:
                yield Mapped([_failed(group[0].image, error)])
                return
            for one in group:
                self._waiting[key] = [one]
                yield from self._take(key)

    def _attribute(self, group: Sequence[_Request]) -> Mapped:
        x = torch.from_numpy(np.stack([one.image.x for one in group if one.image.x is not None]))
        first = group[0].classes
        classes = first if isinstance(first, str) else torch.tensor([one.classes for one in group])
        maps, targets, scores, left = attribute_batch(self._method, x, classes, lambda _: None)
        scores = scores.gather(1, targets.to(scores.device))
        images = [replace(one.image, x=None) for one in group]  # the network's inputs need not wait for the disk
        arrays = [values.float().cpu().numpy() for values in (maps, scores, left)]
        if not np.isfinite(arrays[0]).all():
            raise NumericError(f"layer '{self._method.layer}': the map holds NaN or infinity")
        return Mapped(images, targets.cpu().numpy(), *arrays)


def class_count(method: ExcitationBackprop) -> int:
    """How many classes a method's top has."""
    net = method.net
    top = net.default_top() if method.top is None else net.graph.resolve(method.top)[-1]
    return net.shapes()[top][1]


def _failed(image: Decoded, error: EBPError) -> Decoded:
    return replace(image, x=None, picture=None, error=index_name(str(error)))
