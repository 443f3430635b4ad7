"""Messages between a run and its decoding processes, over a socket.

The run's end never blocks: a process that is stopped in the middle of a message, in either direction, must not stop the
run with it. The other end blocks: a decoding process has nothing else to do.
"""

from __future__ import annotations

import socket
import struct
from collections import deque

_HEAD = struct.Struct("!Q")  # bytes of the message that follows
_STEP = 1 << 20


def pair() -> tuple[Channel, socket.socket]:
    """The run's end, and that of the process."""
    ours, theirs = socket.socketpair()
    return Channel(ours), theirs


class Channel:
    """The run's end of a socket. Raises EOFError or OSError where the other end is gone."""

    def __init__(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        self._socket = ours
        self._outgoing: deque[memoryview] = deque()
        self._incoming = bytearray(_HEAD.size)
        self._filled = 0
        self._in_head = True

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether something waits until the other end takes it."""
        return bool(self._outgoing)

    def send(self, message: bytes) -> None:
        """Queues a message; `flush` hands it over."""
        self._outgoing += (memoryview(_HEAD.pack(len(message))), memoryview(message))

    def flush(self) -> bool:
        """Hands over what the other end takes now; whether it took anything."""
        sent = 0
        while self._outgoing:
            try:
                count = self._socket.send(self._outgoing[0])
            except BlockingIOError:
                break
            sent += count
            rest = self._outgoing.popleft()[count:]
            if rest:
                self._outgoing.appendleft(rest)
        return sent > 0

    def receive(self) -> tuple[bool, bytearray | None]:
        """Takes what is there of one message: whether anything was, and the message, once it is whole."""
        progress = False
        while True:
            if self._filled == len(self._incoming):
                whole = self._incoming
                length = _HEAD.unpack(whole)[0] if self._in_head else _HEAD.size
                self._incoming, self._filled, self._in_head = bytearray(length), 0, not self._in_head
                if self._in_head:
                    return True, whole
                continue
            try:
                count = self._socket.recv_into(memoryview(self._incoming)[self._filled :])
            except BlockingIOError:
                return progress, None
            if not count:
                raise EOFError
            progress, self._filled = True, self._filled + count

    def close(self) -> None:
        """Lets go of the socket."""
        self._socket.close()


def send_message(theirs: socket.socket, message: bytes) -> None:
    """Sends from a process; waits until the run has taken it, or raises OSError where it has ended."""
    theirs.sendall(_HEAD.pack(len(message)))
    theirs.sendall(message)


def receive_message(theirs: socket.socket) -> bytes:
    """Waits in a process for the run's next message. Raises EOFError or OSError where the run has ended."""
    return _receive(theirs, _HEAD.unpack(_receive(theirs, _HEAD.size))[0])


def _receive(theirs: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = theirs.recv(min(size - len(parts), _STEP))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)
