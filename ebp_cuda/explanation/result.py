"""Maps with the photos that they are about, shown in a notebook and saved as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..attribution import Attribution, Setting
from ..images.maps import Panel, draw, figure, save_figure
from ..targets import class_name

Picture = npt.NDArray[np.generic]


class Explanation:
    """What `explain` gives back.

    Args:
        attribution: maps, targets and scores.
        pictures: what every image looks like: [H, W, 3], of sequences [C, L], of volumes [T, H, W, 3].
        labels: names of the classes.
        origin: the network, for messages and files.
    """

    def __init__(
        self, attribution: Attribution, pictures: Sequence[Picture], labels: Sequence[str] | None, origin: str
    ) -> None:
        self.attribution, self.pictures, self.labels, self.origin = attribution, list(pictures), labels, origin

    @property
    def maps(self) -> torch.Tensor:
        """[N, K, h, w], as in `Attribution`; of a list of layers a dict."""
        return self.attribution.maps

    @property
    def targets(self) -> torch.Tensor:
        """int64 [N, K]: the classes."""
        return self.attribution.targets

    @property
    def scores(self) -> torch.Tensor:
        """[N, classes], as in `Attribution`."""
        return self.attribution.scores

    @property
    def setting(self) -> Setting:
        """The layer, contrast layer and rules, whether named or chosen."""
        return self.attribution.setting

    @property
    def names(self) -> list[list[str]]:
        """Names of the classes, [N][K]."""
        return [[class_name(int(index), self.labels) for index in row] for row in self.targets]

    def overlays(self, smooth: float = 0.0) -> list[list[npt.NDArray[np.uint8]]]:
        """The pictures of the maps, [N][K], of several layers [N][layers * K]; uint8 [H, W, 3].

        smooth: as of `images.maps.overlay`.
        """
        groups = [group.cpu() for group in self._by_layer().values()]
        return [
            [draw(picture, attribution.float(), smooth=smooth) for group in groups for attribution in group[n]]
            for n, picture in enumerate(self.pictures)
        ]

    def save(self, path: str | Path, smooth: float = 0.0) -> Path:
        """Writes the picture as PNG: a row per image, the image itself and a map per class.

        Its text fields hold model, layer, contrast_layer and rules. Raises InputError where it cannot be written.
        """
        return save_figure(self._figure(smooth), path, {"model": self.origin, **self.setting.words()})

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self._figure().savefig(data, format="png")
        return data.getvalue()

    def __repr__(self) -> str:
        first = ", ".join(f"{name} {score}" for name, score in zip(self.names[0], self._scores(0), strict=True))
        return f"<Explanation of {self.origin}: {self.setting}; {first}{', ...' if len(self.targets) > 1 else ''}>"

    def _by_layer(self) -> dict[str, torch.Tensor]:
        maps: Any = self.maps
        return maps if isinstance(maps, dict) else {"": maps}

    def _scores(self, image: int) -> list[str]:
        return [f"{float(self.scores[image, int(index)]):.3g}" for index in self.targets[image]]

    def _figure(self, smooth: float = 0.0) -> Any:
        layers = [f"\n{layer}" if layer else "" for layer in self._by_layer()]
        rows = []
        for n, overlays in enumerate(self.overlays(smooth)):
            titles = [f"{name}  {score}" for name, score in zip(self.names[n], self._scores(n), strict=True)]
            panels = [Panel(one, title) for one, title in zip(overlays, _each(titles, layers), strict=True)]
            plain = [Panel(self.pictures[n], "input")] if self.pictures[n].ndim == 3 else []
            rows.append([*plain, *panels])
        wide = 2.6 if self.pictures[0].ndim == 3 else 6.0
        return figure(rows, title=f"{self.origin}: {self.setting}", panel_width=wide)


def _each(titles: Sequence[str], layers: Sequence[str]) -> list[str]:
    return [title + layer for layer in layers for title in titles]
