"""The pointing game on held-out digit scenes: MWP and c-MWP against the gradient and the centre of the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..images.maps import resize_maps
from ..images.preprocess import Preprocess, prepare
from ..models.digits import CONTRAST_LAYER, LAYER, PREPROCESS, load, network, scenes
from .methods import centre
from .pointing import PointingGame

if TYPE_CHECKING:
    from ..net import Net

TOLERANCE = 4.0
"""Pixels. The paper's 15 pixels are 3 to 4% of its photos' sides; so are 4 of 112."""
MANY = 3
"""A scene of so many digits is counted once more, among the hard ones."""

BATCH = 20

Method = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x float32 [N, 3, H, W], classes int64 [N, K]) -> maps [N, K, h, w]."""


@dataclass(frozen=True)
class Row:
    """Accuracies of one method, 0..1, over pairs of scene and class."""

    method: str
    overall: float
    class_mean: float
    many: float
    """Overall, over the scenes with at least three digits only."""
    trials: int
    trials_many: int


def as_input(some: Sequence[scenes.Scene]) -> torch.Tensor:
    """The scenes' images as the network wants them, float32 [N, 3, H, W]."""
    return prepare([scene.image / np.float32(255) for scene in some], Preprocess.from_dict(PREPROCESS))


def classes_of(some: Sequence[scenes.Scene]) -> torch.Tensor:
    """The classes present in each scene, int64 [N, K]; a scene of fewer than K repeats its first one."""
    most = max(len(scene.labels) for scene in some)
    return torch.tensor([scene.labels + scene.labels[:1] * (most - len(scene.labels)) for scene in some])


def methods(net: Net) -> dict[str, Method]:
    """The methods by name."""
    from ebp_cuda import ExcitationBackprop

    twin = twin_of(net)
    return {
        "c-MWP": ExcitationBackprop(net, layer=LAYER, contrast_layer=CONTRAST_LAYER).attribute,
        "MWP": ExcitationBackprop(net, layer=LAYER).attribute,
        "gradient": lambda x, classes: gradient(twin, x, classes),
        "centre": centre,
    }


def twin_of(net: Net) -> network.Twin:
    """The network as a torch module with the weights of the imported graph."""
    twin = network.Twin().eval()
    weights = {node.name: node.params for node in net.graph.nodes if node.op == "conv"}
    twin.load_weights({name: [params["weight"].numpy(), params["bias"].numpy()] for name, params in weights.items()})
    return twin


def gradient(twin: network.Twin, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Maximum over the colors of |d score / d input| (Simonyan et al., 2014), [N, K, H, W]; not smoothed."""
    x = x.clone().requires_grad_()
    scores = twin(x).amax((2, 3)).gather(1, classes)
    slopes = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in scores.unbind(1)]
    return torch.stack([slope.abs().amax(1) for slope in slopes], 1)


def run(
    n: int = 200,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    net: Net | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Every method's accuracy over `n` held-out scenes, asked for every class that a scene shows.

    The truth is the strokes, not boxes. progress: called with (scenes done, n) after every batch of 20.
    Raises UnsupportedError where scikit-learn or scikit-image is missing.
    """
    tried = methods(net or load())
    games = {name: (PointingGame(tolerance), PointingGame(tolerance)) for name in tried}
    source = scenes.held_out_scenes(n, seed)
    done = 0
    while some := list(islice(source, BATCH)):
        x, classes = as_input(some), classes_of(some)
        for name, method in tried.items():
            _play(games[name], some, resize_maps(method(x, classes), (scenes.SIZE, scenes.SIZE)))
        done += len(some)
        if progress is not None:
            progress(done, n)
    return _rows(games)


def _play(games: tuple[PointingGame, PointingGame], some: Sequence[scenes.Scene], maps: torch.Tensor) -> None:
    """Adds the trials of some scenes, maps [N, K, H, W], to the game of every scene and to that of the hard ones."""
    for scene, of_scene in zip(some, maps, strict=True):
        for label, attribution in zip(scene.labels, of_scene, strict=False):
            for game in games if len(scene.digits) >= MANY else games[:1]:
                game.add(label, attribution, scene.mask_of(label))


def _rows(games: Mapping[str, tuple[PointingGame, PointingGame]]) -> list[Row]:
    return [
        Row(name, every.overall_accuracy(), every.mean_accuracy(), many.overall_accuracy(), every.trials, many.trials)
        for name, (every, many) in games.items()
    ]
