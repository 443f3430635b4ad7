"""PASCAL VOC: ImageSets/Main/SPLIT.txt, Annotations/NAME.xml, JPEGImages/NAME.jpg.

Boxes in the files are 1-based and include their last pixel. A class all of whose boxes are marked difficult is not
asked for (TorchRay's reading of the protocol); where it is asked for, its difficult boxes count like the others.
"""

from __future__ import annotations

from pathlib import Path

from .base import (
    Instance,
    Picture,
    corners_of,
    first_existing,
    label_index,
    need_folder,
    need_images,
    read_names,
    read_xml,
    size_of,
    text_of,
)

WHAT = "VOC"
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_voc(root: Path, split: str = "test") -> tuple[list[Picture], list[str]]:
    """(the pictures of a split, in the order of its list; class names).

    root: the folder VOC2007 or one above it (VOCdevkit). A set of other classes names them in classes.txt, one a line.
    Raises InputError for what is missing or broken.
    """
    if not (root / "ImageSets").is_dir():
        root = first_existing(root, ("VOC2007", "VOCdevkit/VOC2007", "VOC2012", "VOCdevkit/VOC2012"), WHAT)
    classes = read_names(root / "classes.txt", WHAT) if (root / "classes.txt").is_file() else list(CLASSES)
    names = read_names(root / "ImageSets" / "Main" / f"{split}.txt", WHAT)
    need_folder(root / "Annotations", WHAT)
    need_folder(root / "JPEGImages", WHAT)
    known = {name: index for index, name in enumerate(classes)}
    return need_images((_read(root, name, known) for name in names), WHAT), classes


def _read(root: Path, name: str, known: dict[str, int]) -> Picture:
    path = root / "Annotations" / f"{name}.xml"
    annotation = read_xml(path, WHAT)
    instances = []
    for element in annotation.iter("object"):
        xmin, ymin, xmax, ymax = corners_of(element, path)
        label = label_index(text_of(element, "name", path), known, path)
        difficult = element.findtext("difficult", "0").strip() == "1"
        instances.append(Instance(label, (xmin - 1, ymin - 1, xmax, ymax), difficult))
    return Picture(name, root / "JPEGImages" / f"{name}.jpg", size_of(annotation, path), tuple(instances))


def asked(picture: Picture) -> list[int]:
    """The classes that the pointing game asks for: those with an instance that is not marked difficult."""
    return [label for label in picture.labels if not all(instance.difficult for instance in picture.of(label))]
