"""What the data layers of a training prototxt say about the input that takes their place."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

DATA_TYPES = frozenset({"Data", "ImageData", "HDF5Data", "WindowData", "MemoryData", "DummyData"})


def is_data(kind: str, bottoms: Collection[str]) -> bool:
    """Whether a layer type brings data in: Caffe's own, or what forks call SomethingData or write in Python."""
    return kind in DATA_TYPES or (not bottoms and (kind.endswith("Data") or kind == "Python"))


def input_shape(proto: Any, top: int, count: int) -> tuple[int, ...] | None:
    """Shape that the file gives for one of the `count` tops of an Input or data layer, None where it gives none."""
    if proto.type != "Input":
        return data_shape(proto, top)
    shapes = proto.input_param.shape
    place = 0 if len(shapes) == 1 and count > 1 else top  # one shape may serve all tops
    return tuple(int(n) for n in shapes[place].dim) if place < len(shapes) else None


def data_shape(proto: Any, top: int = 0) -> tuple[int, ...] | None:
    """Shape of a top of a data layer (LayerParameter) where crop_size or explicit sizes tell, else None."""
    if proto.type == "MemoryData":
        memory = proto.memory_data_param
        return (memory.batch_size, memory.channels, memory.height, memory.width)
    if proto.type == "DummyData":
        dummy = proto.dummy_data_param
        if dummy.shape:  # one shape may serve all tops
            return tuple(int(n) for n in dummy.shape[min(top, len(dummy.shape) - 1)].dim)
        sizes = (dummy.num, dummy.channels, dummy.height, dummy.width)
        return tuple(size[min(top, len(size) - 1)] for size in sizes) if all(sizes) else None
    if top:
        return None  # a label
    options = proto.image_data_param if proto.type == "ImageData" else proto.data_param
    crop = proto.transform_param.crop_size or options.crop_size
    channels = 1 if proto.transform_param.force_gray or not getattr(options, "is_color", True) else 3
    return (max(options.batch_size, 1), channels, crop, crop) if crop else None


def stated_preprocess(layers: Iterable[Any]) -> dict[str, Any] | None:
    """What a data layer among `layers` (LayerParameter) says about turning a BGR photo into the input.

    As metadata "ebp_cuda.preprocess";
    None where there is no such layer, or it takes its mean from a file of its own.
    """
    for layer in layers:
        transform = layer.transform_param
        if layer.type not in ("Data", "ImageData") or not layer.HasField("transform_param"):
            continue
        mean = list(transform.mean_value) or [0.0]
        if transform.mean_file or transform.force_gray or len(mean) not in (1, 3) or not transform.scale:
            return None
        return {
            "size": [transform.crop_size] * 2 if transform.crop_size else None,
            "shortest_side": None,
            "channel_order": "BGR",
            "raw_scale": 255,
            "mean": mean * 3 if len(mean) == 1 else mean,
            "std": [1 / transform.scale] * 3,
        }
    return None
