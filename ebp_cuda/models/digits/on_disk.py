"""Digit scenes on disk as the evaluations want their data: VOC 2007, COCO 2014, ImageNet boxes, Flickr30k Entities.

    from ebp_cuda.models.digits import on_disk
    on_disk.write("coco14", Path("digits-coco"), n=2000)

The images are PNG data, so that no compression moves a maximum; readers go by content, not by the suffix .jpg.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ebp_cuda.errors import InputError
from ebp_cuda.extras import require
from ebp_cuda.files import atomic_path

from . import scenes

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FORMATS = ("voc07", "coco14", "imagenet", "flickr30k")

_SMALL = 200
"""Digits whose box has fewer pixels are marked difficult in VOC's annotations."""


def write(kind: str, root: Path, n: int = 200, seed: int = 0) -> Path:
    """Writes `n` held-out scenes as a data set of the given format under `root`, which must be new or empty.

    Raises InputError for an unknown format or a folder with content, UnsupportedError where scikit-learn,
    scikit-image or (COCO) pycocotools is missing.
    """
    if kind not in FORMATS:
        raise InputError(f"format '{kind}': wanted one of {', '.join(FORMATS)}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root}: a new or empty folder was wanted")
    writers: dict[str, Callable[[Path, int, int], None]] = {
        "voc07": _voc, "coco14": _coco, "imagenet": _imagenet, "flickr30k": _flickr30k,
    }  # fmt: skip
    writers[kind](root, n, seed)
    return root


def _text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def _scenes(folder: Path, n: int, seed: int, name: str, suffix: str) -> Iterator[tuple[int, str, scenes.Scene]]:
    """(number, name, scene) of every scene, its image saved."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, scene in enumerate(scenes.held_out_scenes(n, seed)):
        with atomic_path(folder / (name.format(index + 1) + suffix)) as temporary:
            Image.fromarray(scene.image).save(temporary, format="PNG")
        yield index + 1, name.format(index + 1), scene


def _xml(name: str, scene: scenes.Scene, objects: str) -> str:
    height, width = scene.image.shape[:2]
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}\n{objects}</annotation>\n"


def _box(digit: scenes.PlacedDigit) -> str:
    """1-based corners, the last pixel included."""
    x0, y0, x1, y1 = digit.box
    return f"<bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"


def _area(digit: scenes.PlacedDigit) -> int:
    x0, y0, x1, y1 = digit.box
    return (x1 - x0) * (y1 - y0)


def _voc(root: Path, n: int, seed: int) -> None:
    root, names = root / "VOC2007", []
    for _, name, scene in _scenes(root / "JPEGImages", n, seed, "{:06d}", ".jpg"):
        objects = "".join(
            f"<object><name>{d.label}</name><difficult>{int(_area(d) < _SMALL)}</difficult>{_box(d)}</object>\n"
            for d in scene.digits
        )
        _text(root / "Annotations" / f"{name}.xml", _xml(f"{name}.jpg", scene, objects))
        names.append(name)
    _text(root / "classes.txt", "\n".join(map(str, range(scenes.CLASSES))) + "\n")
    _text(root / "ImageSets" / "Main" / "test.txt", "\n".join(names) + "\n")


def _coco(root: Path, n: int, seed: int) -> None:
    images, annotations = [], []
    for number, name, scene in _scenes(root / "val2014", n, seed, "COCO_val2014_{:012d}", ".jpg"):
        height, width = scene.image.shape[:2]
        images.append({"id": number, "file_name": f"{name}.jpg", "height": height, "width": width})
        for label in scene.labels:
            annotations += _coco_class(number, label, [digit for digit in scene.digits if digit.label == label])
    for index, annotation in enumerate(annotations):
        annotation["id"] = index + 1
    # ids with gaps, as COCO's have
    categories = [{"id": 2 * digit + 1, "name": str(digit)} for digit in range(scenes.CLASSES)]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    _text(root / "annotations" / "instances_val2014.json", json.dumps(content))


def _coco_class(image: int, label: int, digits: list[scenes.PlacedDigit]) -> list[dict[str, Any]]:
    """Digits of one class: three or more as a crowd in RLE; else 0 to 4 as RLE and 5 to 9 as polygons of their rows."""
    crowd = len(digits) >= 3
    parts = [digits] if crowd else [[digit] for digit in digits]
    return [_coco_annotation(image, label, part, crowd, polygons=label >= 5 and not crowd) for part in parts]


def _coco_annotation(
    image: int, label: int, digits: list[scenes.PlacedDigit], crowd: bool, polygons: bool
) -> dict[str, Any]:
    mask = np.logical_or.reduce([digit.mask for digit in digits])
    x0, y0 = min(d.box[0] for d in digits), min(d.box[1] for d in digits)
    x1, y1 = max(d.box[2] for d in digits), max(d.box[3] for d in digits)
    return {
        "image_id": image,
        "category_id": 2 * label + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(mask.sum()),
        "iscrowd": int(crowd),
        "segmentation": row_polygons(mask) if polygons else _rle(mask),
    }


def row_polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """A mask as COCO polygons: one rectangle for every run of True in a row, [x, y, x, y, ...]."""
    boxes = []
    for y in np.flatnonzero(mask.any(1)):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask[y].astype(np.int8), [0]])))
        for x0, x1 in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            boxes.append([float(v) for v in (x0, y, x1, y, x1, y + 1, x0, y + 1)])
    return boxes


def _rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    tools = require("pycocotools.mask", "eval", "COCO's masks")
    encoded = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def _imagenet(root: Path, n: int, seed: int) -> None:
    """One digit is the class: the largest; its boxes are those of all digits of that label."""
    for _, name, scene in _scenes(root / "ILSVRC2012_img_val", n, seed, "ILSVRC2012_val_{:08d}", ".JPEG"):
        label = max(scene.digits, key=_area).label
        objects = "".join(
            f"<object><name>{_wnid(label)}</name>{_box(d)}</object>\n" for d in scene.digits if d.label == label
        )
        _text(root / "bbox" / "val" / f"{name}.xml", _xml(name, scene, objects))
    lines = [f"{_wnid(label)} {WORDS[label]}" for label in range(scenes.CLASSES)]
    _text(root / "synset_words.txt", "\n".join(lines) + "\n")


def _wnid(label: int) -> str:
    return f"n{label:08d}"


def _flickr30k(root: Path, n: int, seed: int) -> None:
    names = []
    for number, name, scene in _scenes(root / "flickr30k-images", n, seed, "{:010d}", ".jpg"):
        entity = {label: number * 100 + label for label in scene.labels}
        objects = "".join(f"<object><name>{entity[d.label]}</name>{_box(d)}</object>\n" for d in scene.digits)
        objects += f"<object><name>{number * 100 + 99}</name><scene>1</scene><nobndbox>1</nobndbox></object>\n"
        _text(root / "Annotations" / f"{name}.xml", _xml(f"{name}.jpg", scene, objects))
        phrases = [f"[/EN#{entity[label]}/other a handwritten {WORDS[label]}]" for label in scene.labels]
        caption = f"{' and '.join(phrases)} on [/EN#{number * 100 + 99}/scene a photo] ."
        _text(root / "Sentences" / f"{name}.txt", escape(caption) + "\n")
        names.append(name)
    _text(root / "test.txt", "\n".join(names) + "\n")
    _text(root / "words.txt", "".join(f"{word}\t{label}\n" for label, word in enumerate(WORDS)))
