"""`ebp-cuda demo`: attention maps of an ImageNet network on photos, and of a Caffe model on scenes of digits."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ..api import ExcitationBackprop
from ..errors import InputError, UnsupportedError
from ..images.maps import Panel, figure, overlay, save_figure
from ..images.preprocess import Preprocess, prepare
from ..net import Net, from_torch, load


@dataclass(frozen=True)
class Photo:
    """A photo that scikit-image ships, and the classes whose maps are drawn."""

    name: str
    size: tuple[int, int]
    """Height and width for the network; multiples of 32, about 224 on the shorter side."""
    classes: tuple[str, ...]


PHOTOS = (
    Photo("rocket", (224, 320), ("missile", "drilling platform", "beacon")),
    Photo("astronaut", (224, 224), ("drum", "space shuttle", "jersey")),
    Photo("coffee", (224, 320), ("espresso", "plate", "dining table")),
    Photo("chelsea", (224, 320), ("Egyptian cat", "tiger cat", "lynx")),
)
LAYER, CONTRAST = "blocks.5", "pool"
"""The map is read at the input of the seventh block, 14 x 20 places; the contrast is taken below the classifier."""
SCENES = 200
"""Held-out scenes of the pointing game."""


def run(out: Path) -> list[Path]:
    """Draws both parts into the folder `out`, made if missing, and returns the pictures.

    Raises UnsupportedError where a package of the extra "demo" is missing, InputError where `out` cannot be made.
    """
    console = Console()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: the folder cannot be made: {error.strerror}") from error
    start = time.perf_counter()
    pictures = photos(out, console)
    pictures += digits(out, console)
    console.print(f"\n[bold]{len(pictures)} pictures[/] in {time.perf_counter() - start:.0f} s:")
    for path in pictures:
        console.print(f"  {path}", highlight=False)
    return pictures


def photos(out: Path, console: Console) -> list[Path]:
    """Contrastive maps of several classes of each photo, side by side; one figure per photo and one of all."""
    try:
        from skimage import data
    except ImportError as error:
        raise UnsupportedError("the demo needs scikit-image: pip install 'ebp_cuda[demo]'") from error
    console.rule("EfficientNet-Lite0, trained on ImageNet, on photos")
    nets: dict[tuple[int, int], Net] = {}
    rows, pictures = [], []
    for photo in PHOTOS:
        image = getattr(data, photo.name)().astype(np.float32) / np.float32(255)
        start = time.perf_counter()
        if photo.size not in nets:
            nets[photo.size] = _efficientnet(photo.size)
            console.print(f"imported the network at {photo.size} in {time.perf_counter() - start:.1f} s", style="dim")
        rows.append(_photo_row(photo, image, nets[photo.size], console))
        pictures.append(save_figure(figure([rows[-1]]), out / f"{photo.name}.png"))
    return [*pictures, save_figure(figure(rows), out / "photos.png")]


def _efficientnet(size: tuple[int, int]) -> Net:
    from ..models import efficientnet_lite0, labels

    how = Preprocess.from_dict(efficientnet_lite0.PREPROCESS).override(size=size, interpolation="bicubic").to_dict()
    example = torch.zeros(1, 3, *size)
    return from_torch(efficientnet_lite0.load(), example, labels=labels("imagenet"), preprocess=how)


def _photo_row(photo: Photo, image: np.ndarray, net: Net, console: Console) -> list[Panel]:
    labels = net.labels or []
    x = prepare(image, Preprocess.from_dict(net.preprocess))
    method = ExcitationBackprop(net, layer=LAYER, contrast_layer=CONTRAST, rules="conserving")
    start = time.perf_counter()
    result = method.run(x, torch.tensor([[labels.index(name) for name in photo.classes]]))
    seconds = time.perf_counter() - start
    probability = result.scores[0].softmax(0)
    order = probability.argsort(descending=True)
    rank = {labels[int(index)]: place for place, index in enumerate(order, 1)}
    console.print(_top_classes(photo, labels, probability, order, seconds))
    panels = [Panel(image, photo.name)]
    for name, attribution in zip(photo.classes, result.maps[0], strict=True):
        share = _percent(float(probability[labels.index(name)]))
        panels.append(Panel(overlay(image, attribution), f"{name}  {share} (rank {rank[name]})"))
    return panels


def _top_classes(
    photo: Photo, labels: list[str], probability: torch.Tensor, order: torch.Tensor, seconds: float
) -> Table:
    table = Table("", "class", "probability", box=None, pad_edge=False, title_justify="left")
    table.title = f"{photo.name}: {len(photo.classes)} maps in {seconds:.2f} s"
    for place, index in enumerate(order.tolist(), 1):
        drawn = labels[index] in photo.classes
        if place <= 5 or drawn:
            table.add_row(str(place), labels[index], _percent(float(probability[index])), style="bold" if drawn else "")
    return table


def _percent(share: float) -> str:
    return "under 0.1%" if share < 0.001 else f"{share:.1%}"


def digits(out: Path, console: Console) -> list[Path]:
    """A Caffe model by the Caffe road: imported to ONNX, maps of every digit in a few scenes, the pointing game.

    Returns the picture; digits.onnx lies beside it. Raises UnsupportedError where scikit-learn is missing.
    """
    from ..importers.caffe import import_file
    from ..models import digits as model

    console.rule("A Caffe model, trained on scenes of handwritten digits, imported through ONNX")
    start = time.perf_counter()
    path = out / "digits.onnx"
    import_file(model.DEPLOY, model.WEIGHTS, path, labels=model.LABELS, preprocess=model.PREPROCESS)
    net = load(path)
    console.print(f"{model.DEPLOY.name} + {model.WEIGHTS.name} -> {path} in {time.perf_counter() - start:.1f} s")
    method = ExcitationBackprop(net, layer=model.LAYER, contrast_layer=model.CONTRAST_LAYER)
    chosen = [scene for scene in model.scenes.held_out_scenes(40) if len(scene.labels) == 3][:4]
    rows = [_scene_row(scene.image, scene.labels, method) for scene in chosen]
    pairs = [[*rows[i], *rows[i + 1]] for i in (0, 2)]
    picture = save_figure(figure(pairs, panel_width=1.3), out / "digits.png")
    console.print(_pointing_game(net, console))
    return [picture]


def _scene_row(scene: np.ndarray, present: list[int], method: ExcitationBackprop) -> list[Panel]:
    image = scene.astype(np.float32) / np.float32(255)
    maps = method.attribute(prepare(image, method.net.preprocess), torch.tensor([present]))[0]
    height, width = image.shape[:2]
    shown = Preprocess(size=(3 * height, 3 * width), interpolation="bicubic").resize(image)
    return [Panel(shown, "scene"), *(Panel(overlay(shown, one), f"{n}") for n, one in zip(present, maps, strict=True))]


def _pointing_game(net: Net, console: Console) -> Table:
    """Plays the game over the held-out scenes, with a progress bar where somebody watches; the table of accuracies."""
    from ..eval import digits_game

    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("pointing game", total=SCENES)
        found = digits_game.run(SCENES, net=net, progress=lambda done, _: progress.update(task, completed=done))
    first = found[0]
    many = f"with {digits_game.MANY} digits or more ({first.trials_many})"
    table = Table("method", f"all digits ({first.trials})", "mean of classes", many, box=None, pad_edge=False)
    table.title = f"Pointing game, {SCENES} held-out scenes, {digits_game.TOLERANCE:g} px tolerance"
    for row in found:
        table.add_row(row.method, *(f"{share:.1%}" for share in (row.overall, row.class_mean, row.many)))
    return table
