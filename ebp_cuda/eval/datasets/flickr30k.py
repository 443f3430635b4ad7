"""Flickr30k Entities: Annotations/ID.xml (boxes of entities), Sentences/ID.txt (phrases that name them), SPLIT.txt,
and the images in flickr30k-images/ (or images/) as ID.jpg.

A phrase reads [/EN#12/people/clothing a red coat] inside its sentence: entity 12, two types, and the words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from .base import (
    Box,
    Picture,
    corners_of,
    first_existing,
    need_file,
    need_folder,
    need_images,
    read_names,
    read_xml,
    size_of,
)

WHAT = "Flickr30k Entities"
_PHRASE = re.compile(r"\[/EN#(\d+)/([^\s\]]+)\s+([^\]]+)\]")


@dataclass(frozen=True)
class Phrase:
    """Words of a caption and where in the picture what they name is."""

    text: str
    types: tuple[str, ...]
    """The entity's types: "people", "clothing", "vehicles", ..."""
    boxes: tuple[Box, ...]
    """At least one."""

    @property
    def box(self) -> Box:
        """The smallest box about all of its boxes, which the published recalls are measured with."""
        x0, y0, x1, y1 = zip(*self.boxes, strict=True)
        return min(x0), min(y0), max(x1), max(y1)


@dataclass(frozen=True)
class Captioned:
    """A picture and the phrases of its captions that have a box."""

    picture: Picture
    phrases: tuple[Phrase, ...]


def read_flickr30k(root: Path, split: str = "test") -> list[Captioned]:
    """The pictures of a split with their phrases. Raises InputError for what is missing or broken."""
    annotations, sentences = (need_folder(root / name, WHAT) for name in ("Annotations", "Sentences"))
    images = first_existing(root, ("flickr30k-images", "flickr30k_images", "images"), WHAT)
    entries = []
    for name in read_names(root / f"{split}.txt", WHAT):
        size, boxes = _boxes(annotations / f"{name}.xml")
        entries.append(Captioned(Picture(name, images / f"{name}.jpg", size, ()), _phrases(sentences, name, boxes)))
    need_images((entry.picture for entry in entries), WHAT)
    return entries


def _boxes(path: Path) -> tuple[tuple[int, int], dict[str, list[Box]]]:
    root = read_xml(path, WHAT)
    boxes: dict[str, list[Box]] = {}
    for element in root.iter("object"):
        if element.find("bndbox") is None:
            continue  # an entity that is not shown, or the whole scene
        xmin, ymin, xmax, ymax = corners_of(element, path)
        for entity in element.findall("name"):
            boxes.setdefault((entity.text or "").strip(), []).append((xmin - 1, ymin - 1, xmax, ymax))
    return size_of(root, path), boxes


def _phrases(folder: Path, name: str, boxes: dict[str, list[Box]]) -> tuple[Phrase, ...]:
    path = need_file(folder / f"{name}.txt", WHAT)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{WHAT}: {path} is not text: {error}") from error
    return tuple(
        Phrase(words.strip(), tuple(types.split("/")), tuple(boxes[entity]))
        for entity, types, words in _PHRASE.findall(text)
        if entity in boxes
    )
