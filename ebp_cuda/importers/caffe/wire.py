"""The protobuf wire format, as far as it takes to find the weights of a caffemodel without copying them.

protobuf's own parser needs the whole file in memory twice and a Python object per number; a caffemodel is hundreds
of megabytes of packed floats, so the file is mapped and the arrays are views of it.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """The bytes are no protobuf message, or end in the middle of one."""


def varint(buffer: memoryview, at: int, end: int) -> tuple[int, int]:
    """The variable-length integer at `at`, and the offset behind it."""
    value = shift = 0
    while at < end and shift < 70:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError(f"no whole number at byte {at}")


def fields(buffer: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of the message in buffer[start:end]: (field number, wire type, first byte, end) of each value.

    For a VARINT the third entry is the number itself. Raises WireError on anything that is no such message.
    """
    at = start
    while at < end:
        key, at = varint(buffer, at, end)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise WireError(f"field number 0 at byte {at}")
        if kind == VARINT:
            value, at = varint(buffer, at, end)
            yield number, kind, value, at
            continue
        if kind == BYTES:
            size, at = varint(buffer, at, end)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise WireError(f"wire type {kind} at byte {at}")
        if at + size > end:
            raise WireError(f"field {number} wants {size} bytes at byte {at}, {end - at} are left")
        yield number, kind, at, at + size
        at += size


def bytes_field(number: int, payload: bytes) -> bytes:
    """A BYTES field as it stands in a message: key, length, payload. Packed numbers are such a field."""
    return bytes_header(number, len(payload)) + payload


def bytes_header(number: int, size: int) -> bytes:
    """What stands before the `size` bytes of a BYTES field."""
    return _encoded(number << 3 | BYTES) + _encoded(size)


def _encoded(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
