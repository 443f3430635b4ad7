"""Names of layers, as importers make them."""

from __future__ import annotations


def free_name(name: str, taken: set[str]) -> str:
    """`name`, or with "#2", "#3" and so on where it is taken; it is taken from now on."""
    count, free = 1, name
    while free in taken:
        count += 1
        free = f"{name}#{count}"
    taken.add(free)
    return free
