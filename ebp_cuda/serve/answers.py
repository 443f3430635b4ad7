"""Maps as bytes: arrays for programs, pictures for people."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..images.maps import overlay
from .model import Forwarded, Map, Model, Question


def jpeg(picture: npt.NDArray[np.uint8]) -> bytes:
    """A photo as it is shown."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "JPEG", quality=90)
    return file.getvalue()


def array(values: npt.NDArray[np.float32]) -> dict[str, Any]:
    """An array in JSON: its shape, and its numbers as base64 of little-endian float32, row by row."""
    data = np.ascontiguousarray(values, dtype="<f4").tobytes()
    return {"shape": list(values.shape), "float32": base64.b64encode(data).decode()}


def npy(answer: Map) -> bytes:
    """MAP.npy: float32 [h, w]."""
    file = io.BytesIO()
    np.save(file, answer.values, allow_pickle=False)
    return file.getvalue()


def npz(model: Model, photo: Forwarded, asked: Question, answer: Map) -> bytes:
    """MAP.npz: what `ebp-cuda attribute` writes, maps [1, 1, h, w], targets [1, 1] and scores [1, classes], and by
    what it was made."""
    file = io.BytesIO()
    arrays: dict[str, Any] = {
        "maps": answer.values[None, None],
        "targets": np.array([[asked.class_index]]),
        "scores": photo.scores.cpu().numpy()[None],
    }
    np.savez(file, **arrays, **words(model, asked))
    return file.getvalue()


def png(photo: Forwarded, answer: Map) -> bytes:
    """The overlay that `ebp-cuda attribute --overlay` draws."""
    file = io.BytesIO()
    Image.fromarray(overlay(photo.picture, answer.values)).save(file, "PNG")
    return file.getvalue()


def words(model: Model, asked: Question) -> dict[str, Any]:
    """By what a map was made."""
    layer = model.cam_layer if asked.method == "grad-cam" else model.layers[asked.layer].layer
    made = {"model": model.title, "layer": layer, "method": asked.method}
    made |= {"rules": model.plan.rules, "class_name": model.name_of(asked.class_index)}
    if asked.method == "c-mwp":
        made["contrast_layer"] = str(model.method.contrast_layer)
    if asked.method == "versus" and asked.against is not None:
        made["against"] = model.name_of(asked.against)
    return made
