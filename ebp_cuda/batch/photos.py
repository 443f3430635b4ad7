"""The work behind `ebp-cuda attribute`: files in, maps.npz and pictures out, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..api import ExcitationBackprop
from ..attribution import Setting
from ..errors import InputError, ShapeError
from ..files import atomic_path, cut_name
from ..images.photo import EXACT, Decoding, open_photo
from ..images.preprocess import Preprocess, load_array, prepare
from ..net import Net
from ..targets import parse_targets

Array = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8] | Array

_SHOWN = 1024
"""Pixels of the longer side of an overlay."""
NAME_BYTES = 80
"""What the image's name, and the class's, take of an overlay's file name."""


@dataclass(frozen=True)
class Inputs:
    """A batch read from files."""

    x: torch.Tensor
    """float32 [N, C, H, W]; [N, C, L] for a network of sequences, [N, C, T, H, W] for one of volumes."""
    pictures: list[Picture]
    """N images for overlays, [H, W, 3], uint8 or float in 0..1: photos as they are, at most 1024 pixels wide or high,
    and what arrays look like. Of sequences the signals [C, L], of volumes the frames [T, H, W, 3]."""
    names: list[str]
    """N names, unique, fit for file names."""


@dataclass(frozen=True)
class Result:
    """The arrays of maps.npz."""

    maps: npt.NDArray[np.float32] | dict[str, npt.NDArray[np.float32]]
    """[N, K, h, w], channel sums, unclipped; of several layers by their names."""
    targets: npt.NDArray[np.int64]
    """[N, K]"""
    scores: npt.NDArray[np.float32]
    """[N, classes]"""
    mass_left: npt.NDArray[np.float32] | dict[str, npt.NDArray[np.float32]]
    """[N, K], as in Attribution."""
    setting: Setting

    @property
    def by_layer(self) -> dict[str, npt.NDArray[np.float32]]:
        """The maps by their layer, also where there is one."""
        return self.maps if isinstance(self.maps, dict) else {str(self.setting.layer): self.maps}


def preprocess_of(net: Net, changes: Mapping[str, Any]) -> Preprocess:
    """The model's own preprocessing with changes on top; a model of one fixed input size resizes to it."""
    how = Preprocess.from_dict(net.preprocess).override(**changes)
    height, width = (*next(iter(net.graph.inputs.values())), None, None, None, None)[2:4]
    if how.size is None and how.shortest_side is None and height and width:
        how = how.override(size=(height, width))
    return how


def spatial_axes(net: Net) -> int:
    """Axes behind the channels of the network's first input: 1 for sequences, 2 for photos, 3 for volumes."""
    return max(1, len(next(iter(net.graph.inputs.values()))) - 2)


def read_inputs(paths: Sequence[Path], how: Preprocess, decoding: Decoding = EXACT, axes: int = 2) -> Inputs:
    """Reads photos (through `how`) and .npy arrays (as they are: preprocessed already) into one batch.

    axes: of `spatial_axes`.

    Raises:
        InputError: a file cannot be read.
        ShapeError: the inputs differ in shape.
    """
    batches: list[torch.Tensor] = []
    names: list[str] = []
    pictures: list[Picture] = []
    for path in paths:
        one = read_input(path, how, decoding=decoding, axes=axes)
        x = one.x
        if batches and x.shape[1:] != batches[0].shape[1:]:
            raise ShapeError(
                f"{path}: comes out at {list(x.shape[1:])} and {paths[0]} at {list(batches[0].shape[1:])}; "
                "the inputs of one call have one size (--size HEIGHTxWIDTH)"
            )
        batches.append(x)
        pictures += one.pictures
        name = cut_name(path.stem, NAME_BYTES)
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
    asked: Mapping[str, Any] | None = None,
) -> Result:
    """Runs `method` over the inputs, `batch` images at a time; `done` is told which part of the whole was finished.

    `target` is what `targets.parse_targets` takes; asked: further keywords of `ExcitationBackprop.run`.

    Raises InputError for it, and whatever the engine refuses.
    """
    fixed = next(iter(method.net.graph.inputs.values()))[0]
    batch = fixed or batch
    classes = method.run(inputs.x[:batch], 0).scores.shape[1]
    if labels and len(labels) != classes:
        raise InputError(f"labels: {len(labels)} names for a model of {classes} classes")
    chosen = parse_targets(target, labels, classes)
    total = len(inputs.x) * (len(chosen) if isinstance(chosen, list) else int(chosen.removeprefix("top")))
    parts = []
    for start in range(0, len(inputs.x), batch):
        x = inputs.x[start : start + batch]
        if asked:
            parts.append(_answer(method, x, chosen, _with_other(asked, labels, classes)))
            done(len(x) / len(inputs.x))
            continue
        parts.append(attribute_batch(method, x, chosen, lambda maps: done(maps / total)))
    maps, targets, scores, left = (_joined(group, 0) for group in zip(*parts, strict=True))
    return Result(_floats(maps), targets.cpu().numpy().astype(np.int64), _floats(scores), _floats(left), method.setting)


def attribute_batch(
    method: ExcitationBackprop, x: torch.Tensor, chosen: list[int] | torch.Tensor | str, done: Callable[[int], None]
) -> tuple[Any, ...]:
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
        _joined(parts, 1) for parts in zip(*[(r.maps, r.targets, r.mass_left) for r in runs], strict=True)
    )
    return maps, targets, runs[0].scores, left


def _with_other(asked: Mapping[str, Any], labels: Sequence[str] | None, classes: int) -> dict[str, Any]:
    """The keywords with a class that `other` names as its index."""
    other = asked.get("other")
    if not isinstance(other, str):
        return dict(asked)
    indices = parse_targets(other, labels, classes)
    if isinstance(indices, str) or len(indices) != 1:
        raise InputError(f"other {other!r}: wanted one class")
    return {**asked, "other": indices[0]}


def _answer(
    method: ExcitationBackprop, x: torch.Tensor, chosen: list[int] | str, asked: dict[str, Any]
) -> tuple[Any, ...]:
    """As `attribute_batch`, of a call with further keywords."""
    result = method.run(x, chosen if isinstance(chosen, str) else torch.tensor([chosen] * len(x)), **asked)
    method.check()
    return result.maps, result.targets, result.scores, result.mass_left


def _joined(parts: Sequence[Any], axis: int) -> Any:
    """Tensors one behind the other; of several layers, each layer's."""
    if isinstance(parts[0], dict):
        return {layer: torch.cat([part[layer] for part in parts], axis) for layer in parts[0]}
    return torch.cat(list(parts), axis)


def _floats(tensors: Any) -> Any:
    if isinstance(tensors, dict):
        return {layer: _floats(tensor) for layer, tensor in tensors.items()}
    return tensors.float().cpu().numpy()


def write_npz(result: Result, path: Path) -> None:
    """maps.npz, whole or not at all.

    maps float32 [N, K, h, w], targets int64 [N, K], scores float32 [N, classes], mass_left float32 [N, K], and the
    texts layer, contrast_layer and rules. Of several layers maps/LAYER and mass_left/LAYER for each, and their names
    as `layers` in place of `layer`.
    """
    arrays: dict[str, Any] = {"targets": result.targets, "scores": result.scores}
    for name, group in (("maps", result.maps), ("mass_left", result.mass_left)):
        arrays |= {f"{name}/{layer}": one for layer, one in group.items()} if isinstance(group, dict) else {name: group}
    words: dict[str, Any] = result.setting.words()
    if isinstance(result.maps, dict):
        del words["layer"]
        words["layers"] = list(result.maps)
    arrays |= {key: np.array(text) for key, text in words.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


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
    axes: int = 2,
) -> FileInput:
    """The network inputs of one file: a photo, or a .npy array that is one already.

    Args:
        path: the file; where `data` is given, its name in errors.
        how: how a photo becomes an input.
        data: the file's content, where it has been read already.
        pictures: whether pictures for overlays are wanted.
        decoding: how photos are decoded.
        axes: of `spatial_axes`.

    Raises:
        InputError: the file cannot be read, or is a photo for a network that takes none.
        ShapeError: an array of another shape.
    """
    if Path(path).suffix == ".npy":
        array = load_array(path, data, axes)
        shown = [picture_of_input(one, how) for one in array] if pictures else []
        return FileInput(torch.from_numpy(array), shown, (array.shape[-2], array.shape[-1]))
    if axes != 2:
        kind = "sequences [C, L]" if axes == 1 else "volumes [C, T, H, W]"
        raise InputError(f"{path}: the network takes {kind}; wanted a .npy array of such")
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


def picture_of_input(x: Array, how: Preprocess) -> Picture:
    """What a network input [C, H, W] looks like; signals [C, L] are themselves, volumes [C, T, H, W] become frames.

    Inputs of another channel count than a photo's show their mean, min to max.
    """
    if x.ndim == 2:
        return x
    if x.ndim == 4:
        frames: Array = np.stack([picture_of_input(x[:, frame], how) for frame in range(x.shape[1])])
        return frames
    if x.shape[0] == how.channels:
        return how.picture(x)
    grey = x.mean(axis=0)
    span = float(np.ptp(grey)) or 1.0
    return np.repeat(((grey - grey.min()) / span)[..., None], 3, axis=2)
