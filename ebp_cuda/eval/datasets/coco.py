"""COCO: annotations/instances_SPLIT.json, and the images in SPLIT/, images/SPLIT/ or images/.

Polygons, RLE and crowd regions become masks by pycocotools. Crowds count as instances, as in the original evaluation.
The label of a class is the place of its category id in ascending order.
"""

from __future__ import annotations

import contextlib
import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...extras import require
from .base import Instance, Picture, first_existing, need_images

if TYPE_CHECKING:
    from pycocotools.coco import COCO

WHAT = "COCO"


def read_coco(root: Path, split: str = "val2014") -> tuple[list[Picture], list[str]]:
    """(pictures that show an object, ascending by id; class names). Raises InputError, and UnsupportedError without
    pycocotools."""
    coco = _open(first_existing(root, (f"annotations/instances_{split}.json", f"instances_{split}.json"), WHAT))
    folder = first_existing(root, (split, f"images/{split}", "images"), WHAT)
    categories = sorted(coco.getCatIds())
    labels = {category: index for index, category in enumerate(categories)}
    pictures = []
    for image in coco.loadImgs(sorted(coco.getImgIds())):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        instances = tuple(_instance(coco, annotation, labels) for annotation in annotations)
        if instances:
            path = folder / image["file_name"]
            pictures.append(Picture(path.stem, path, (image["height"], image["width"]), instances))
    return need_images(pictures, WHAT), [category["name"] for category in coco.loadCats(categories)]


def _open(path: Path) -> COCO:
    api = require("pycocotools.coco", "eval", "COCO's annotations")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco: COCO = api.COCO(str(path))
    except (ValueError, OSError, AssertionError, TypeError, KeyError) as error:
        raise InputError(f"{WHAT}: {path} is not a whole annotation file: {error}") from error
    missing = [key for key in ("images", "annotations", "categories") if key not in coco.dataset]
    if missing:
        raise InputError(f"{WHAT}: {path} has no {', '.join(missing)}; an instances file was wanted")
    return coco


def _instance(coco: COCO, annotation: dict[str, Any], labels: dict[int, int]) -> Instance:
    try:
        x, y, width, height = annotation["bbox"]
        label, shape = labels[annotation["category_id"]], annotation["segmentation"]
    except (KeyError, ValueError) as error:
        raise InputError(f"{WHAT}: annotation {annotation.get('id')}: no usable {error}") from error
    box = (x, y, x + width, y + height)
    if isinstance(shape, list):
        polygons = [polygon for polygon in shape if len(polygon) >= 6]  # pycocotools stumbles over points and lines
        if not polygons:
            return Instance(label, box)
        annotation = {**annotation, "segmentation": polygons}
    return Instance(label, box, draw=partial(_mask, coco, annotation))


def _mask(coco: COCO, annotation: dict[str, Any]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = coco.annToMask(annotation).astype(bool)
    return mask
