"""One account of all numbers that an import makes: what a file of a few kilobytes may ask for is bounded."""

from __future__ import annotations

from ...errors import UnsupportedError

MOST_MADE = 160_000_000
"""Numbers of four bytes that an import may make besides those that its file holds, as for a prototxt without weights
(importers/caffe/parameters.py); with what computing them takes they stay under 1 GB."""


class Account:
    """Counts what is made; wider numbers count as often as four bytes go into them.

    Args:
        held: numbers that the file itself holds: copies of those may be made too.
    """

    def __init__(self, held: int = 0) -> None:
        self.limit = MOST_MADE + held
        self.made = 0.0

    def charge(self, count: float, itemsize: int, where: str) -> None:
        """Enters `count` numbers of `itemsize` bytes before they are made.

        Raises:
            UnsupportedError: where that would be too many, with the numbers and `where`.
        """
        total = self.made + count * itemsize / 4
        if not total <= self.limit:  # written so that a NaN is refused too
            raise UnsupportedError(
                f"{where}: with its {count:,.0f} elements of {itemsize} bytes the import would make {total:,.0f} "
                f"numbers that no file holds; the most is {self.limit:,}"
            )
        self.made = total
