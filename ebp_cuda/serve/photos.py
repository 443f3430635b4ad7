"""The photos that a server keeps, each under a name that nobody can guess."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

from .limits import Refused
from .model import Forwarded


class Photos:
    """So many photos as there is room for; the one that was not used for longest goes first."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[str, Forwarded] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, photo: Forwarded) -> str:
        """Keeps a photo and gives its name."""
        key = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[key] = photo
            while len(self._kept) > self._room:
                self._kept.popitem(last=False)
        return key

    def get(self, key: str) -> Forwarded:
        """The photo of that name. Raises Refused (404)."""
        with self._lock:
            if key not in self._kept:
                raise Refused(404, "This photo is no longer kept here. Load it again.")
            self._kept.move_to_end(key)
            return self._kept[key]
