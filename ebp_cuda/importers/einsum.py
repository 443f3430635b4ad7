"""Einsum of an activation and a constant, as a product with a matrix between two moves of axes.

Every letter of the equation is of one kind, by where it stands:

    kept        in the activation and the result                    carried along
    contracted  in the activation and the constant                  summed over by the product
    made        in the constant and the result                      the product's outputs
    shared      in all three                                        one product for each: the groups of a convolution
    summed      in the activation only                              added up before

Both importers read it here; what is theirs is how a step becomes a node (`Steps`).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol


class EinsumRefusal(Exception):
    """Why an equation has no counterpart."""


Groups = Sequence[str]
"""An axis for each entry: the letters whose lengths are multiplied, "" for an axis of length 1."""


class Steps(Protocol):
    """How an importer writes the steps; each takes the name of a value and gives that of another."""

    def add_up(self, x: str, axes: tuple[int, ...]) -> str:
        """The sum over axes, which go."""
        ...

    def move(self, x: str, perm: tuple[int, ...]) -> str:
        """The axes in another order."""
        ...

    def reshape(self, x: str, before: Groups, after: Groups) -> str:
        """Axes joined or taken apart."""
        ...

    def scale(self, x: str, constant: Any) -> str:
        """x * constant, which broadcasts."""
        ...

    def linear(self, x: str, weight: Any) -> str:
        """W x along the last axis, with a weight [out, in]."""
        ...

    def grouped(self, x: str, weight: Any, groups: int) -> str:
        """W x along axis 1 of [N, groups * in, L], with a weight [groups * out, in, 1]."""
        ...


@dataclass(frozen=True)
class Equation:
    """An equation of an activation and at most one constant, without "..." and without axes that broadcast."""

    x: str
    """The letter of each axis of the activation; the first is the images."""
    constant: str | None
    result: str
    squeezed: tuple[int, ...] = ()
    """Axes of length 1 of the constant that broadcast, and are no longer among its letters."""


def parse(equation: str, x_shape: Sequence[Any], constant_shape: Sequence[int] | None, x_first: bool) -> Equation:
    """Reads an equation.

    Args:
        equation: as numpy.einsum takes it.
        x_shape: lengths of the activation's axes; one that follows from the network's input is anything but 1.
        constant_shape: those of the constant; None where there is none.
        x_first: whether the activation is the first of the two.

    Raises:
        EinsumRefusal: where it is none for these operands, or has no counterpart.
    """
    shapes = [x_shape] if constant_shape is None else [x_shape, constant_shape]
    shapes = shapes if x_first else shapes[::-1]
    letters, result = _letters(equation, shapes)
    x, constant = (letters if x_first else letters[::-1]) if len(letters) == 2 else (letters[0], None)
    if len(set(x)) < len(x):
        raise EinsumRefusal(f"equation '{equation}' takes the diagonal of an activation")
    if constant is None or constant_shape is None:
        return Equation(x, None, result)
    return _without_broadcast(Equation(x, constant, result), x_shape, constant_shape)


def _letters(equation: str, shapes: Sequence[Sequence[Any]]) -> tuple[list[str], str]:
    """A letter for every axis of the operands and of the result, also where the equation says "..."."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    inputs = terms.split(",")
    if len(inputs) != len(shapes):
        raise EinsumRefusal(f"equation '{equation}' has {len(inputs)} operands, wanted {len(shapes)}")
    widths = [len(shape) - len(term.replace("...", "")) for term, shape in zip(inputs, shapes, strict=True)]
    if any(width < 0 or (width > 0 and "..." not in term) for term, width in zip(inputs, widths, strict=True)):
        raise EinsumRefusal(f"equation '{equation}' for operands of {[len(shape) for shape in shapes]} axes")
    unused = "".join(letter for letter in string.ascii_letters if letter not in equation)
    rest = unused[: max(widths)]
    letters = [term.replace("...", rest[len(rest) - width :]) for term, width in zip(inputs, widths, strict=True)]
    if arrow:
        result = result.replace("...", rest)
    else:
        named = "".join(inputs).replace(".", "")
        result = rest + "".join(sorted(letter for letter in named if named.count(letter) == 1))
    if set(result) - set("".join(letters)) or len(set(result)) < len(result):
        raise EinsumRefusal(f"equation '{equation}' gives axes that no operand has, or one twice")
    return letters, result


def _without_broadcast(equation: Equation, x_shape: Sequence[Any], constant_shape: Sequence[int]) -> Equation:
    """The equation without the constant's axes of length 1 that meet longer ones of the activation."""
    lengths = dict(zip(equation.x, x_shape, strict=True))
    kept, squeezed = "", []
    for axis, (letter, n) in enumerate(zip(equation.constant or "", constant_shape, strict=True)):
        if n == 1 and lengths.get(letter, 1) != 1:
            squeezed.append(axis)
            continue
        if letter in lengths and lengths[letter] != n:
            has = f"length {lengths[letter]}" if isinstance(lengths[letter], int) else "any length"
            raise EinsumRefusal(f"axis '{letter}' has {has} in the activation and {n} in the constant")
        kept += letter
    return Equation(equation.x, kept, equation.result, tuple(squeezed))


class Factor:
    """The constant of an equation.

    Args:
        letters: of its axes.
        array: an array or tensor without the axes `Equation.squeezed`.
        einsum: numpy's or torch's, whichever the array belongs to.
    """

    def __init__(self, letters: str, array: Any, einsum: Callable[[str, Any], Any]) -> None:
        self.letters, self._array, self._einsum = letters, array, einsum
        self.lengths = dict(zip(letters, array.shape, strict=True))

    def joined(self, *groups: str) -> Any:
        """The numbers with an axis for each group of letters; letters of no group are added up."""
        moved = self._einsum(f"{self.letters}->{''.join(groups)}", self._array)
        return moved.reshape([self.size(group) for group in groups])

    def size(self, group: str) -> int:
        """How long the axis of a group is."""
        return prod(int(self.lengths[letter]) for letter in group)


def lower(equation: Equation, value: str, factor: Factor | None, steps: Steps) -> str:
    """The value that the equation gives.

    Args:
        equation: what `parse` gave.
        value: the activation.
        factor: the constant, if the equation has one.
        steps: writes the nodes.

    Raises:
        EinsumRefusal: where images are multiplied with numbers of their own each, or with one another.
    """
    x, result = equation.x, equation.result
    if factor is not None and (x[0] in factor.letters or x[0] not in result):
        raise EinsumRefusal("its first axis, the images, is multiplied with a constant or added up")
    known = result if factor is None else result + factor.letters
    summed = [letter for letter in x if letter not in known]
    if summed:
        value = steps.add_up(value, tuple(x.index(letter) for letter in summed))
        x = "".join(letter for letter in x if letter not in summed)
    return _moved(steps, value, x, result) if factor is None else _product(steps, value, x, factor, result)


def _product(steps: Steps, value: str, x: str, factor: Factor, result: str) -> str:
    """The activation, with letters `x`, times the constant."""
    contracted = "".join(letter for letter in x if letter not in result)
    shared = "".join(letter for letter in x if letter in factor.letters and letter in result)
    made = "".join(letter for letter in result if letter not in x)
    images, *rest = (letter for letter in x if letter not in factor.letters)
    if not contracted and not made:
        value = _moved(steps, value, x, result)
        return steps.scale(value, factor.joined(*(letter if letter in shared else "" for letter in result)))
    if not shared:
        before = [images, *rest]
        value = _moved(steps, value, x, "".join(before) + contracted)
        value = steps.reshape(value, [*before, *contracted], [*before, contracted])
        value = steps.linear(value, factor.joined(made, contracted))
        value = steps.reshape(value, [*before, made], [*before, *made])
        return _moved(steps, value, "".join(before) + made, result)
    behind = "".join(rest)
    inner, outer = [images, *shared, *contracted, *rest], [images, *shared, *made, *rest]
    value = _moved(steps, value, x, "".join(inner))
    value = steps.reshape(value, inner, [images, shared + contracted, behind])
    value = steps.grouped(value, factor.joined(shared + made, contracted, ""), factor.size(shared))
    value = steps.reshape(value, [images, shared + made, behind], outer)
    return _moved(steps, value, "".join(outer), result)


def _moved(steps: Steps, value: str, have: str, order: str) -> str:
    return value if have == order else steps.move(value, tuple(map(have.index, order)))


def of_matmul(x_rank: int, constant_rank: int, x_first: bool) -> str:
    """The equation of numpy.matmul for operands with these numbers of axes."""
    first, second = (x_rank, constant_rank) if x_first else (constant_rank, x_rank)
    left = "j" if first == 1 else "...ij"
    right = "j" if second == 1 else "...jk"
    rows, columns = "i" if first > 1 else "", "k" if second > 1 else ""
    return f"{left},{right}->{'...' if max(first, second) > 2 else ''}{rows}{columns}"
