"""The model of a server: photos in, maps out, one forward pass per photo and one sweep per question."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from ..api import ExcitationBackprop
from ..attribution import ClassesAt
from ..batch.photos import preprocess_of
from ..engine.candidates import Candidate
from ..engine.condition import mass_left
from ..engine.passes import Trace
from ..engine.run import Walk
from ..errors import InputError, UnsupportedError
from ..eval.baselines import Maps, grad_cam
from ..eval.graph_module import GraphModule
from ..eval.methods import Layers, last_plane
from ..images.photo import Decoding, open_photo
from ..images.preprocess import prepare
from ..net import Net
from ..targets import class_name, class_seed

Method = Literal["c-mwp", "mwp", "versus", "grad-cam"]
METHODS: tuple[Method, ...] = get_args(Method)

SHOWN = 640
"""Pixels of the longer side of a photo in the browser."""


@dataclass
class Forwarded:
    """A photo after its forward pass."""

    name: str
    picture: npt.NDArray[np.uint8]
    """[H, W, 3], as it is shown."""
    size: tuple[int, int]
    """(height, width) of the file."""
    x: torch.Tensor
    trace: Trace
    scores: torch.Tensor
    """[classes]."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a sweep runs over the trace, which keeps what sweeps share."""


@dataclass(frozen=True)
class Question:
    """What is asked of a photo."""

    class_index: int
    layer: int
    """Which of `Model.layers`."""
    method: Method = "c-mwp"
    against: int | None = None
    """The other class, for "versus"."""


@dataclass(frozen=True)
class Map:
    """The answer."""

    values: npt.NDArray[np.float32]
    """[h, w], raw."""
    mass_left: float | None
    """As in `Attribution`; None for Grad-CAM."""


class Model:
    """A network, set up for questions.

    Args:
        net: the network, which takes one image [N, C, H, W].
        method: what answers where nobody chose: its layer, contrast, rules and precision are the server's.
        changes: of the preprocessing.
        labels: names of the classes; None: the network's own.

    Raises:
        InputError: the network has no layer whose map has a plane.
    """

    def __init__(
        self,
        net: Net,
        method: ExcitationBackprop,
        changes: Mapping[str, Any] | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        if len(method.places.layers) > 1:
            raise InputError(f"--layer {method.layer}: the server starts with one layer, and offers the others")
        self.net, self.method = net, method
        self.how = preprocess_of(net, changes or {})
        self.labels = list(labels or net.labels or [])
        self.layers, self.layer = self._layers()
        self._walk = Walk(self.plan, method.calls.walk.top, tuple(self._value(one.layer) for one in self.layers))
        self._grad_cam_lock = threading.Lock()
        self._cam: Maps | None = None
        self._ways: dict[int, ExcitationBackprop] = {}

    @property
    def plan(self) -> Any:
        """The parameters by the chosen rules; each access looks for weights that have changed."""
        return self.method.plan

    @property
    def title(self) -> str:
        """What the network is called, without the folder of its file."""
        return Path(self.net.graph.origin).name

    @property
    def classes(self) -> int:
        """How many classes the model has."""
        return int(self.net.shapes()[self._walk.top][1])

    def name_of(self, index: int) -> str:
        """The short name of a class."""
        return class_name(index, self.labels or None)

    def _layers(self) -> tuple[list[Candidate], int]:
        """The places for a map from the input on, and the number of the method's own among them."""
        places = [place for place in self.net.candidates() if len(place.plane) == 2 and self._leads_to(place.layer)]
        own = self._value(self.method.layer)
        for number, place in enumerate(places):
            if self._value(place.layer) == own:
                return places, number
        shape = self.net.shapes()[own]
        if len(shape) != 4:
            raise InputError(f"--layer {self.method.layer}: the explorer shows planes, and its shape is {list(shape)}")
        chosen = Candidate(self.method.layer, tuple(shape[2:]), shape[1], 0.0, "chosen", True)
        return [chosen, *places], 0

    def _leads_to(self, layer: str) -> bool:
        """Whether a sweep reaches the layer, by way of the contrast where there is one."""
        walk, value = self.method.calls.walk, self._value(layer)
        try:
            Walk(self.method.plan, walk.top, (value,), walk.contrast).check()
        except (InputError, UnsupportedError):
            return False
        return True

    def _value(self, layer: str) -> str:
        return self.method.plan.graph.resolve(layer)[0]

    # --- the work ---------------------------------------------------------------------------------------------------

    def forward(self, name: str, data: bytes, max_pixels: int) -> Forwarded:
        """Decodes a photo and runs the network over it. Raises InputError for what is no photo, or too large a one."""
        photo = open_photo(name, data, decoding=Decoding(max_pixels), size_wanted=self.how.size_of)
        x = prepare(photo, self.how)
        with torch.inference_mode():
            inputs = {key: self.plan.place(value) for key, value in self.net.check_inputs(x).items()}
            trace = self._walk.forward(inputs, keep=self._walk.values)
        scores = trace.values[self._walk.top][0].float()
        scores = scores.flatten(1).amax(1) if scores.dim() > 1 else scores
        if not bool(scores.isfinite().all()):
            raise InputError(f"{name}: the class scores are not finite")
        picture = photo.pixels(_shown(photo.size))
        shown = picture if picture.dtype == np.uint8 else np.rint(picture * 255)
        return Forwarded(name, shown.astype(np.uint8, copy=False), photo.size, x, trace, scores)

    def answer(self, photo: Forwarded, asked: Question) -> Map:
        """The map of a question. Raises InputError for a class or layer that there is not."""
        self._check(asked.class_index, asked.layer)
        if asked.method == "grad-cam":
            return self._grad_cam(photo, asked)
        value = self._value(self.layers[asked.layer].layer)
        contrast = self._contrast if asked.method == "c-mwp" else None
        walk = Walk(self.plan, self._walk.top, (value,), contrast)
        with photo.lock, torch.inference_mode():
            swept = walk.sweep(photo.trace, self._seed(photo, asked))
            p = swept.relevance[value].p()
            left = float(mass_left(p, swept.start))
        values = p.sum(1)[0].float()
        if not bool(values.isfinite().all()):
            raise InputError(f"the relevance at layer '{self.layers[asked.layer].layer}' is not finite")
        return Map(values.cpu().numpy(), left)

    def classes_at(self, photo: Forwarded, layer: int, row: int, column: int) -> ClassesAt:
        """Which classes have their attention at a position of a layer's map. Raises InputError."""
        self._check(0, layer)
        if layer not in self._ways:
            name = self.layers[layer].layer
            self._ways[layer] = ExcitationBackprop(
                self.net, name, self.method.contrast_layer, self.plan.rules, self.plan.dtype, self.plan.device,
                top=self.method.top,
            )  # fmt: skip
        return self._ways[layer].classes_at(photo.x, (row, column))

    @property
    def _contrast(self) -> str:
        contrast = self.method.calls.walk.contrast
        if contrast is None:
            raise InputError("this model has no layer below its classifier for a contrast; ask for mwp")
        return contrast

    @property
    def methods(self) -> list[Method]:
        """What may be asked for."""
        return [name for name in METHODS if name != "c-mwp" or self.method.calls.walk.contrast is not None]

    def _check(self, index: int, layer: int) -> None:
        if not 0 <= index < self.classes:
            raise InputError(f"class {index}: the model has classes 0 to {self.classes - 1}")
        if not 0 <= layer < len(self.layers):
            raise InputError(f"layer {layer}: the model has layers 0 to {len(self.layers) - 1}")

    def _seed(self, photo: Forwarded, asked: Question) -> torch.Tensor:
        """Probability 1 on the class; of "versus" less that of the other class."""
        top = photo.trace.values[self._walk.top]
        seed = class_seed(top, torch.tensor([[asked.class_index]], device=top.device))
        if asked.method != "versus":
            return seed
        if asked.against is None or asked.against == asked.class_index:
            raise InputError("class against class: choose two different classes")
        self._check(asked.against, asked.layer)
        return seed - class_seed(top, torch.tensor([[asked.against]], device=top.device))

    def _grad_cam(self, photo: Forwarded, asked: Question) -> Map:
        with self._grad_cam_lock:  # captum's hooks belong to one call at a time
            if self._cam is None:
                module = GraphModule(self.net.graph, self._walk.top).to(self.plan.device)
                self._cam = grad_cam(module, self.cam_layer)
            x = photo.x.to(self.plan.device)
            maps = self._cam(x, torch.tensor([[asked.class_index]], device=x.device))
        return Map(maps[0, 0].float().cpu().numpy(), None)

    @cached_property
    def cam_layer(self) -> str:
        """Where Grad-CAM is taken, whichever layer the other maps are read at: at the last plane, as is its custom.

        Raises UnsupportedError where there is none.
        """
        return last_plane(self.net, Layers(self.method.layer, self.method.contrast_layer, top=self.method.top))


def _shown(size: tuple[int, int]) -> tuple[int, int]:
    factor = min(1.0, SHOWN / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
