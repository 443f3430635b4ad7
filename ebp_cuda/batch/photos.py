"""The work behind `ebp-cuda attribute`: files in, maps.npz and overlays out, batch by batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..api import ExcitationBackprop
from ..errors import InputError, ShapeError
from ..files import atomic_path, cut_name
from ..images.maps import overlay, save_image
from ..images.photo import EXACT, Decoding, open_photo
from ..images.preprocess import Preprocess, load_array, prepare
from ..net import Net
from ..targets import class_name, parse_targets

Array = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8] | Array

_SHOWN = 1024
"""Pixels of the longer side of an overlay."""
_NAME_BYTES = 80
"""What the image's name, and the class's, take of an overlay's file name."""


@dataclass(frozen=True)
class Inputs:
    """A batch read from files."""

    x: torch.Tensor
    """float32 [N, C, H, W]."""
    pictures: list[Picture]
    """N images for overlays, [H, W, 3], uint8 or float in 0..1: photos as they are, at most 1024 pixels wide or high,
    and what arrays look like."""
    names: list[str]
    """N names, unique, fit for file names."""


@dataclass(frozen=True)
class Result:
    """The arrays of maps.npz."""

    maps: npt.NDArray[np.float32]
    """[N, K, h, w], channel sums, unclipped."""
    targets: npt.NDArray[np.int64]
    """[N, K]"""
    scores: npt.NDArray[np.float32]
    """[N, classes]"""
    mass_left: npt.NDArray[np.float32] | None = None
    """[N, K], as in Attribution; not written."""


def preprocess_of(net: Net, changes: Mapping[str, Any]) -> Preprocess:
    """The model's own preprocessing with changes on top; a model of one fixed input size resizes to it."""
    how = Preprocess.from_dict(net.preprocess).override(**changes)
    height, width = (*next(iter(net.graph.inputs.values())), None, None, None, None)[2:4]
    if how.size is None and how.shortest_side is None and height and width:
        how = how.override(size=(height, width))
    return how


def read_inputs(paths: Sequence[Path], how: Preprocess, decoding: Decoding = EXACT) -> Inputs:
    """Reads photos (through `how`) and .npy arrays (as they are: preprocessed already) into one batch.

    Raises:
        InputError: a file cannot be read.
        ShapeError: the inputs differ in shape.
    """
    batches: list[torch.Tensor] = []
    names: list[str] = []
    pictures: list[Picture] = []
    for path in paths:
        one = read_input(path, how, decoding=decoding)
        x = one.x
        if batches and x.shape[1:] != batches[0].shape[1:]:
            raise ShapeError(
                f"{path}: comes out at {list(x.shape[1:])} and {paths[0]} at {list(batches[0].shape[1:])}; "
                "the inputs of one call have one size (--size HEIGHTxWIDTH)"
            )
        batches.append(x)
        pictures += one.pictures
        name = cut_name(path.stem, _NAME_BYTES)
        names += [name] if len(x) == 1 else [f"{name}_{i}" for i in range(len(x))]
    x = torch.cat(batches)
    if len(set(names)) < len(names):
        names = [f"{i:03d}_{name}" for i, name in enumerate(names)]
    return Inputs(x, pictures, names)


def attribute(
    method: ExcitationBackprop,
    inputs: Inputs,
    target: str,
    labels: Sequence[str] | None,
    *,
    batch: int = 8,
    done: Callable[[float], None] = lambda part: None,
) -> Result:
    """Runs `method` over the inputs, `batch` images at a time; `done` is told which part of the whole was finished.

    `target` is what `targets.parse_targets` takes. Raises InputError for it, and whatever the engine refuses.
    """
    classes = method.run(inputs.x[:1], 0).scores.shape[1]
    if labels and len(labels) != classes:
        raise InputError(f"labels: {len(labels)} names for a model of {classes} classes")
    chosen = parse_targets(target, labels, classes)
    total = len(inputs.x) * (len(chosen) if isinstance(chosen, list) else int(chosen.removeprefix("top")))
    parts = []
    for start in range(0, len(inputs.x), batch):
        x = inputs.x[start : start + batch]
        parts.append(attribute_batch(method, x, chosen, lambda maps: done(maps / total)))
    maps, targets, scores, left = (torch.cat(group).cpu() for group in zip(*parts, strict=True))
    arrays = maps.float().numpy(), targets.numpy().astype(np.int64), scores.float().numpy(), left.float().numpy()
    return Result(*arrays)


def attribute_batch(
    method: ExcitationBackprop, x: torch.Tensor, chosen: list[int] | torch.Tensor | str, done: Callable[[int], None]
) -> tuple[torch.Tensor, ...]:
    """Maps, targets, scores and mass left of one batch, as in Attribution.

    chosen: "topN", or class indices: for all images, or int64 [N, K]; many classes go in the parts that the method's
    max_memory asks for, so that `done` hears of each.
    """
    if isinstance(chosen, str):
        runs = [method.run(x, chosen)]
        done(runs[0].targets.numel())
    else:
        ids, runs = torch.as_tensor(chosen).expand(len(x), -1), []
        whole = [slice(0, ids.shape[1])]
        chunks = None if method.max_memory is None else method.chunks(x.shape, ids.shape[1])
        for part in whole if chunks is None else chunks.of_classes(ids.shape[1]):
            runs.append(method.run(x, ids[:, part]))
            done(runs[-1].targets.numel())
    method.check()  # what is wrong with these images is not to be told of later ones
    maps, targets, left = (
        torch.cat(parts, 1) for parts in zip(*[(r.maps, r.targets, r.mass_left) for r in runs], strict=True)
    )
    return maps, targets, runs[0].scores, left


def write_npz(result: Result, path: Path) -> None:
    """maps.npz, whole or not at all: maps float32 [N, K, h, w], targets int64 [N, K], scores float32 [N, classes]."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, maps=result.maps, targets=result.targets, scores=result.scores)


def write_overlays(result: Result, inputs: Inputs, labels: Sequence[str] | None, folder: Path) -> list[Path]:
    """One PNG per image and class, FOLDER/NAME_INDEX_CLASS.png; makes the folder. Raises InputError where it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--overlay {folder}: the folder cannot be made: {error.strerror}") from error
    written = []
    for picture, name, maps, targets in zip(inputs.pictures, inputs.names, result.maps, result.targets, strict=True):
        for attribution, index in zip(maps, targets, strict=True):
            title = class_name(int(index), labels) if labels else ""
            title = cut_name(re.sub(r"[^\w.-]+", "-", title), _NAME_BYTES)
            parts = [name, str(index), title]
            path = folder / ("_".join(part for part in parts if part) + ".png")
            written.append(save_image(overlay(picture, attribution), path))
    return written


@dataclass(frozen=True)
class FileInput:
    """What one file gives."""

    x: torch.Tensor
    """float32 [N, C, H, W]; N is 1 for a photo."""
    pictures: list[Picture]
    """N images for overlays, [H, W, 3], uint8 or float in 0..1; none where they are not wanted."""
    size: tuple[int, int]
    """(height, width) in pixels, as the file has them."""


def read_input(
    path: str | Path,
    how: Preprocess,
    *,
    data: bytes | None = None,
    pictures: bool = True,
    decoding: Decoding = EXACT,
) -> FileInput:
    """The network inputs of one file: a photo, or a .npy array that is one already.

    Args:
        path: the file; where `data` is given, its name in errors.
        how: how a photo becomes an input.
        data: the file's content, where it has been read already.
        pictures: whether pictures for overlays are wanted.
        decoding: how photos are decoded.

    Raises:
        InputError: the file cannot be read.
        ShapeError: an array of another shape.
    """
    if Path(path).suffix == ".npy":
        array = load_array(path, data)
        shown = [_picture(one, how) for one in array] if pictures else []
        return FileInput(torch.from_numpy(array), shown, (array.shape[2], array.shape[3]))
    photo = open_photo(path, data, decoding=decoding, size_wanted=how.size_of)
    return FileInput(prepare(photo, how), [photo.pixels(_shown_size(photo.size))] if pictures else [], photo.size)


def picture_of_pixels(pixels: npt.NDArray[Any], how: Preprocess, *, pictures: bool = True) -> FileInput:
    """The same for an image that was decoded elsewhere: uint8 or float [H, W, 3]. Raises ShapeError."""
    x = prepare(pixels, how)
    shown = [Preprocess(size=_shown_size(pixels.shape[:2])).resize(pixels)] if pictures else []
    return FileInput(x, shown, (pixels.shape[0], pixels.shape[1]))


def _shown_size(size: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of the picture that an overlay shows."""
    factor = min(1.0, _SHOWN / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _picture(x: Array, how: Preprocess) -> Picture:
    """What a network input looks like; inputs of another channel count than a photo's show their mean, min to max."""
    if x.shape[0] == how.channels:
        return how.picture(x)
    grey = x.mean(axis=0)
    span = float(np.ptp(grey)) or 1.0
    return np.repeat(((grey - grey.min()) / span)[..., None], 3, axis=2)
