"""Where a map may be read and where the contrast may be taken, found in the graph alone.

A good place for a map is a value that every path from the input to the classes crosses, so that all of the probability
passes there, at the end of a block, with a plane fine enough to look at. Of the blocks with the last such plane the
first one is taken, as the papers' own choices are (pool4 of VGG16, res4a of ResNet-50): further up a unit sees more of
the image, and its map points less well (measured on the digits scenes: 94.7 % at the first, 91.2 % at the last). The
contrast belongs to the input of the last layer with weights, the one whose weights it negates.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import EBPError, InputError, UnsupportedError
from ..graph import Graph
from ..vocabulary import operations
from .plan import Plan, operation_of

SHORT_SIDE = 12
"""Pixels that a plane should have at least; networks that halve 224 four times have 14, those for 227 have 13."""

_KEEPS_PLACES = operations(
    "relu", "identity", "batch_norm", "affine", "lrn", "standardize", "normalize", "clip", "silu"
)
"""Operations through which a pattern in the relevance of their output reaches their input as it is."""


_JOINS = operations("sum", "concat", "max")
"""Operations that end a block of several branches."""
_NO_PLANES = operations("pad", "flatten", "reshape")
"""Operations whose output is a plane with a border, or none any more."""
_SAME_NUMBERS = operations("identity", "flatten", "reshape", "squeeze")
"""Operations whose output holds the numbers of their input."""


@dataclass(frozen=True)
class Candidate:
    """A place for a map."""

    layer: str
    """Its name, as `ExcitationBackprop` takes it."""
    plane: tuple[int, ...]
    """Pixels along every spatial axis, for an input of the declared size."""
    channels: int
    depth: float
    """Which part of the layers with weights on the way from the input lie at or below it, 0 to 1."""
    why: str
    """What speaks for it, or against it."""
    good: bool
    """Whether the automatic choice would take it where no later one is good."""

    def __str__(self) -> str:
        plane = "x".join(map(str, self.plane))
        return f"{self.layer}: {plane}, {self.channels} channels, depth {self.depth:.0%}: {self.why}"


def candidates(graph: Graph, shapes: Mapping[str, Sequence[int]], top: str) -> list[Candidate]:
    """The places that all paths to the value `top` cross, from the input on.

    shapes: of every value, for one image.
    """
    needed = sorted(graph.ancestors([top]))
    weighted = [index for index in needed if _has_weights(graph, index)]
    ends = [value for value in _ends(graph, needed, top) if len(shapes[value]) > 2 and max(shapes[value][2:]) > 1]
    joined = {tuple(shapes[value][2:]) for value in ends if _joins(graph, value)}
    places = []
    for value in ends:
        plane = tuple(shapes[value][2:])
        depth = sum(index <= graph.producer[value] for index in weighted) / max(1, len(weighted))
        against = _against(graph, value, plane, joined) or _unlike(plane, shapes[next(iter(graph.inputs))][2:])
        why = against or "every path to the classes crosses it"
        places.append(Candidate(public_name(graph, value), plane, shapes[value][1], depth, why, not against))
    return places


def _against(graph: Graph, value: str, plane: tuple[int, ...], joined: Collection[tuple[int, ...]]) -> str:
    """Why the automatic choice would leave a place out, or ""."""
    if _short_side(plane) < SHORT_SIDE:
        return f"a plane of less than {SHORT_SIDE} pixels"
    if _is_read_without_overlap(graph, value):
        return "the convolution behind it has a stride and no overlap: dots"
    if plane in joined and not _joins(graph, value):
        return "inside a block: branches join further up"
    return ""


def _unlike(plane: Sequence[int], image: Sequence[int]) -> str:
    """Why a plane is none of the image's, or "": channels lie among its axes where a layer has moved them behind."""
    if len(plane) != len(image):
        return "axes of another number than the image's"
    if len(plane) > 1 and not 2 / 3 < (plane[-2] * image[-1]) / (plane[-1] * image[-2]) < 3 / 2:
        return "not of the image's proportions"
    return ""


def _short_side(plane: Sequence[int]) -> int:
    """Pixels along the short side of a frame: the time of a video, in front of it, is short in most."""
    return min(plane[-2:])


def _joins(graph: Graph, value: str) -> bool:
    """Whether branches join at the value, or right below layers that keep places."""
    node = graph.nodes[graph.producer[value]]
    while node.op in _KEEPS_PLACES and node.inputs[0] in graph.producer:
        node = graph.nodes[graph.producer[node.inputs[0]]]
    return node.op in _JOINS


def choose_layer(plan: Plan, places: Sequence[Candidate], top: str, contrast: str | None) -> str:
    """The place of a map that nobody chose: the first good one of the last plane that has any, if all above has a rule.

    Args:
        plan: of the rules that the map is computed by.
        places: of `candidates`.
        top: value that the sweep starts from.
        contrast: value where the contrast is taken, or None.

    Raises:
        InputError: no candidate lies below the top and the contrast.
        UnsupportedError: a layer above each of them has no rule.
    """
    good = [place for place in places if place.good]
    largest = max((_short_side(place.plane) for place in places), default=0)
    # a small input has no such plane behind its first block: then the largest ones count as good
    good = good or [place for place in places if _short_side(place.plane) == largest]
    planes = list(dict.fromkeys(place.plane for place in good))[::-1]
    order = [place for plane in planes for place in good if place.plane == plane]
    refused: EBPError | None = None
    # where a layer without a rule lies above those, a coarser place above it is better than none
    for place in [*order, *(place for place in places[::-1] if place not in order)]:
        value = plan.graph.resolve(place.layer)[0]
        try:
            plan.route([top if contrast is None else contrast], [value])
            plan.route([top], [value])
            return place.layer
        except (InputError, UnsupportedError) as error:
            refused = refused or error
    if refused is not None:
        raise refused
    raise InputError(f"{plan.graph.origin}: no layer has a plane that all paths to '{top}' cross: name one as layer=")


def choose_contrast(plan: Plan, top: str) -> str | None:
    """The input of the last layer with weights under the top; None where there is no single one."""
    inputs = {plan.graph.nodes[index].inputs[0] for index in plan.classifiers(top)}
    if len(inputs) != 1:
        return None
    (value,) = inputs
    nodes = plan.graph.nodes
    while (index := plan.graph.producer.get(value)) is not None and nodes[index].op in _SAME_NUMBERS:
        value = nodes[index].inputs[0]  # the same relevance by a better known name
    return None if value in plan.graph.inputs else public_name(plan.graph, value)


def public_name(graph: Graph, value: str) -> str:
    """The shortest name by which `graph.resolve` finds the value first, or among others, or the value itself.

    Paths of torch modules, where an ONNX file has them, go before the file's own names.
    """
    modules = [name for name in graph.meta.get("modules", ()) if graph.names[name][0] == value]
    exact = modules or [name for name, values in graph.names.items() if values[0] == value]
    among = [name for name, values in graph.names.items() if value in values]
    return min(exact or among or [value], key=lambda name: (len(name), name))


def _has_weights(graph: Graph, index: int) -> bool:
    return operation_of(graph, graph.nodes[index]).is_contraction


def _crossed_by_all(graph: Graph, needed: Sequence[int], top: str) -> Iterator[str]:
    """The values that every path from the inputs to the top goes through, in order.

    Walking up the layers, it is those after which no other value waits for a reader.
    """
    images = graph.descendants(graph.inputs)  # what depends on parameters alone is on no path
    reads = [value for index in needed for value in graph.nodes[index].inputs]
    left = {value: reads.count(value) for value in dict.fromkeys(reads)}
    waiting = {value for value in graph.inputs if value in left}
    for index in needed:
        if index not in images:
            continue
        node = graph.nodes[index]
        for value in node.inputs:
            left[value] -= 1
            if left[value] == 0:
                waiting.discard(value)
        waiting.update(value for value in node.outputs if left.get(value) or value == top)
        if len(waiting) == 1:
            (value,) = waiting
            if value in node.outputs and value != top:
                yield value


def _ends(graph: Graph, needed: Sequence[int], top: str) -> list[str]:
    """Of the values that all paths cross, the last ones before something else than a layer that keeps places."""
    ends: list[str] = []
    for value in _crossed_by_all(graph, needed, top):
        node = graph.nodes[graph.producer[value]]
        if ends and node.op in _KEEPS_PLACES and node.inputs[0] == ends[-1]:
            ends[-1] = value
        elif node.op not in _NO_PLANES:
            ends.append(value)
    return ends


def _is_read_without_overlap(graph: Graph, value: str) -> bool:
    """Whether a convolution whose windows do not overlap reads the value, as itself or through layers that keep places.

    On the way down each of its windows leaves its own pattern in the map.
    """
    for node in graph.nodes:
        if value not in node.inputs:
            continue
        if node.op == "conv":
            kernel, stride = node.params["weight"].shape[2:], node.attrs["stride"]
            if any(step > 1 and size <= step for size, step in zip(kernel, stride, strict=True)):
                return True
        elif node.op in _KEEPS_PLACES and any(_is_read_without_overlap(graph, out) for out in node.outputs):
            return True
    return False
