"""ImageNet (ILSVRC 2012) validation images with boxes, as the challenge's archives or as Kaggle's copy lay them out.

root/                                       or  root/
    ILSVRC2012_img_val/NAME.JPEG   (or val/)        Data/CLS-LOC/val/NAME.JPEG
    bbox/val/NAME.xml              (or val_bbox/)   Annotations/CLS-LOC/val/NAME.xml
    synset_words.txt               (or synsets.txt) LOC_synset_mapping.txt

The synset list gives the order of classes: one a line, the WordNet id first.
"""

from __future__ import annotations

from pathlib import Path

from .base import (
    Instance,
    Picture,
    corners_of,
    first_existing,
    label_index,
    need_images,
    read_names,
    read_xml,
    size_of,
    text_of,
)

WHAT = "ImageNet"
IMAGES = ("ILSVRC2012_img_val", "val", "Data/CLS-LOC/val", "ILSVRC/Data/CLS-LOC/val")
BOXES = (
    "bbox/val",
    "val_bbox",
    "ILSVRC2012_bbox_val_v3/val",
    "Annotations/CLS-LOC/val",
    "ILSVRC/Annotations/CLS-LOC/val",
)
SYNSETS = ("synset_words.txt", "synsets.txt", "LOC_synset_mapping.txt")


def read_imagenet(root: Path, synsets: Path | None = None) -> tuple[list[Picture], list[str]]:
    """(pictures by name, WordNet ids in the order of the classes). Raises InputError for what is missing or broken."""
    images, boxes = first_existing(root, IMAGES, WHAT), first_existing(root, BOXES, WHAT)
    wnids = read_names(synsets or first_existing(root, SYNSETS, WHAT), WHAT)
    known = {wnid: index for index, wnid in enumerate(wnids)}
    files = sorted(boxes.glob("*.xml"))
    return need_images((_read(images, path, known) for path in files), f"{WHAT} ({boxes})"), wnids


def _read(images: Path, path: Path, known: dict[str, int]) -> Picture:
    annotation = read_xml(path, WHAT)
    instances = []
    for element in annotation.iter("object"):
        xmin, ymin, xmax, ymax = corners_of(element, path)
        instances.append(Instance(label_index(text_of(element, "name", path), known, path), (xmin, ymin, xmax, ymax)))
    return Picture(path.stem, images / f"{path.stem}.JPEG", size_of(annotation, path), tuple(instances))
