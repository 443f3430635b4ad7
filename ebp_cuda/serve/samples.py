"""Photos that come along, to try a server with: those of scikit-image, and scenes of handwritten digits."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

_PHOTOS = ("chelsea", "coffee", "rocket", "astronaut")
_SCENES = 4


def names() -> list[str]:
    """What there is on this machine: photos need scikit-image, scenes scikit-learn."""
    found: list[str] = []
    try:
        import skimage.data  # noqa: F401

        found += _PHOTOS
    except ImportError:
        pass
    try:
        import sklearn.datasets  # noqa: F401

        found += [f"digits-{number}" for number in range(1, _SCENES + 1)]
    except ImportError:
        pass
    return found


@cache
def encoded(name: str) -> bytes:
    """A sample as a PNG file. Raises KeyError for an unknown one."""
    if name not in names():
        raise KeyError(name)
    if name in _PHOTOS:
        from skimage import data

        pixels = getattr(data, name)()
    else:
        from ..models.digits import scenes

        several = [scene for scene in scenes.held_out_scenes(40) if len(scene.labels) == 3]
        pixels = several[int(name.removeprefix("digits-")) - 1].image
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()
