"""What a node of an operation may be given: types of attributes, shapes of parameters, and the check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import ModelError, nearest_names


@dataclass(frozen=True)
class AttributeType:
    """A type of attribute: its name for people, and what it accepts."""

    name: str
    accepts: Callable[[Any], bool]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def tuple_of(item: AttributeType) -> AttributeType:
    """Tuples whose entries are all of one type."""
    return AttributeType(
        f"tuple of {item.name}", lambda value: isinstance(value, tuple) and all(map(item.accepts, value))
    )


def optional(kind: AttributeType) -> AttributeType:
    """`kind`, or None."""
    return AttributeType(f"{kind.name} or None", lambda value: value is None or kind.accepts(value))


def one_of(*names: str) -> AttributeType:
    """One of several strings."""
    return AttributeType(" or ".join(f'"{name}"' for name in names), names.__contains__)


INT = AttributeType("int", _is_int)
FLOAT = AttributeType("float", _is_number)
BOOL = AttributeType("bool", lambda value: isinstance(value, bool))
INTS, FLOATS = tuple_of(INT), tuple_of(FLOAT)
PAIRS = tuple_of(AttributeType("(int, int)", lambda v: isinstance(v, tuple) and len(v) == 2 and all(map(_is_int, v))))

REQUIRED = object()
"""In place of a default: the attribute must be given."""


@dataclass(frozen=True)
class Attribute:
    """One attribute of an operation.

    Args:
        name: its key in `Node.attrs`.
        type: what values it takes.
        default: the value where none is given; REQUIRED where one must be.
        needed_with: another attribute; where that is not None this one may not be None either.
    """

    name: str
    type: AttributeType
    default: Any = REQUIRED
    needed_with: str = ""

    def __str__(self) -> str:
        ending = "" if self.default is REQUIRED else f" = {self.default!r}"
        return f"{self.name}: {self.type.name}{ending}"


@dataclass(frozen=True)
class Parameter:
    """One tensor of an operation.

    Args:
        name: its key in `Node.params`.
        shape: a name per axis. Axes of one name are equally long in all parameters of a node; a name that starts with
            "*" stands for any number of axes.
        required: whether it must be given.
    """

    name: str
    shape: tuple[str, ...]
    required: bool = True

    def __str__(self) -> str:
        return f"{self.name} [{', '.join(self.shape)}]{'' if self.required else ', optional'}"


@dataclass(frozen=True)
class Signature:
    """What a node of one operation may be given."""

    op: str
    summary: str
    attributes: tuple[Attribute, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    inputs: tuple[int, int | None] = (1, 1)
    """Fewest and most inputs; None: any number."""
    outputs: tuple[int, int | None] = (1, 1)

    def checked(
        self,
        where: str,
        attrs: Mapping[str, Any],
        params: Mapping[str, torch.Tensor],
        counts: tuple[int, int],
    ) -> dict[str, Any]:
        """`attrs` with the defaults of those that are not given.

        Args:
            where: the layer, for messages.
            attrs: attributes by name.
            params: tensors by name.
            counts: number of inputs and of outputs.

        Raises:
            ModelError: for an attribute or parameter that does not exist, is missing or of another type, and for a
                wrong number of inputs or outputs.
        """
        for what, count, (least, most) in zip(("inputs", "outputs"), counts, (self.inputs, self.outputs), strict=True):
            if count < least or (most is not None and count > most):
                raise ModelError(f"{where}: {count} {what}; '{self.op}' has {_range(least, most)}")
        _check_names(f"{where}: '{self.op}' has no attribute", attrs, [a.name for a in self.attributes])
        _check_names(f"{where}: '{self.op}' has no parameter", params, [p.name for p in self.parameters])
        complete = {a.name: attrs.get(a.name, a.default) for a in self.attributes}
        for attribute in self.attributes:
            self._check_attribute(where, attribute, complete)
        lengths: dict[str, int] = {}
        for parameter in self.parameters:
            if parameter.name in params:
                self._check_parameter(where, parameter, params[parameter.name], lengths)
            elif parameter.required:
                raise ModelError(f"{where}: '{self.op}' needs the parameter {parameter}")
        return complete

    def _check_attribute(self, where: str, attribute: Attribute, attrs: Mapping[str, Any]) -> None:
        value = attrs[attribute.name]
        if value is REQUIRED:
            raise ModelError(f"{where}: '{self.op}' needs the attribute {attribute}")
        if value is None and attribute.default is None:
            if attribute.needed_with and attrs[attribute.needed_with] is not None:
                raise ModelError(f"{where}: '{self.op}' with {attribute.needed_with} needs the attribute {attribute}")
        elif not attribute.type.accepts(value):
            raise ModelError(f"{where}: attribute {attribute.name} is {value!r}; wanted {attribute.type.name}")

    def _check_parameter(self, where: str, parameter: Parameter, tensor: torch.Tensor, lengths: dict[str, int]) -> None:
        shape, names = list(tensor.shape), parameter.shape
        free = any(name.startswith("*") for name in names)
        fits = len(shape) >= len(names) - 1 if free else len(shape) == len(names)
        for name, length in zip(names, shape, strict=False):
            if name.startswith("*"):
                break
            fits = fits and lengths.setdefault(name, length) == length
        if not fits:
            known = ", ".join(f"{name} = {length}" for name, length in lengths.items() if name in names)
            ending = f" with {known}" if known else ""
            raise ModelError(f"{where}: {parameter.name} has shape {shape}; wanted [{', '.join(names)}]{ending}")


def _range(least: int, most: int | None) -> str:
    return f"{least} or more" if most is None else str(least) if least == most else f"{least} to {most}"


def _check_names(message: str, names: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ModelError(f"{message} '{name}'{nearest_names(name, known)}")
