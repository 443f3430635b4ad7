"""Whole data sets: maps of every image of a folder, a list, archives or Parquet files, in shards with an index.

from ebp_cuda import batch
batch.run("photos", method, "maps", target="top5")
for entry in batch.open("maps"):
    entry.image, entry.targets, entry.maps
"""

from __future__ import annotations

from .reading import Entry, Reader
from .reading import Reader as open
from .running import Summary, run

__all__ = ["Entry", "Reader", "Summary", "open", "run"]
