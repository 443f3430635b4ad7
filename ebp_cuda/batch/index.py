"""The index of a run: its columns, and what pandas is told of them."""

from __future__ import annotations

import json
from typing import Any

from ..extras import require


def index_schema() -> Any:
    """The index's columns, an Arrow schema: a row per map, and one for every image without.

    Whole numbers may be missing, where an image failed; pandas is told to keep them whole (Int32) all the same.
    """
    arrow = require("pyarrow", "batch", "the index of a run")
    word = arrow.dictionary(arrow.int32(), arrow.string())
    columns = [
        ("image", arrow.string()),
        ("target", arrow.int32()),
        ("label", word),
        ("score", arrow.float32()),
        ("mass_left", arrow.float32()),
        ("peak_x", arrow.float32()),
        ("peak_y", arrow.float32()),
        ("width", arrow.int32()),
        ("height", arrow.int32()),
        ("layer", word),
        ("contrast_layer", word),
        ("rules", word),
        ("shape", arrow.list_(arrow.int32())),
        ("digest", arrow.string()),
        ("content", arrow.string()),
        ("shard", word),
        ("row", arrow.int32()),
        ("k", arrow.int32()),
        ("error", arrow.string()),
    ]
    return arrow.schema(columns, metadata={"pandas": json.dumps(_pandas_metadata(columns))})


def _pandas_metadata(columns: list[tuple[str, Any]]) -> dict[str, Any]:
    """By pandas' own convention (https://pandas.pydata.org/docs/development/developer.html), for the whole numbers."""
    numbers = [name for name, kind in columns if str(kind) == "int32"]
    described = [
        {"name": name, "field_name": name, "pandas_type": "int32", "numpy_type": "Int32", "metadata": None}
        for name in numbers
    ]
    return {"index_columns": [], "column_indexes": [], "columns": described, "creator": {}, "pandas_version": "1.0.0"}
