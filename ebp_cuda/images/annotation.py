"""Pictures that explain themselves: class, score, layer and a color bar about a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from ..errors import InputError
from .maps import AGAINST, Panel, draw, figure

COLORS = ("inferno", "cividis", "viridis", "magma")
"""Color maps whose lightness rises all the way: in gray, and to the color-blind, they say the same. cividis was made to
look alike with and without red-green blindness (Nunez, Anderton and Renslow, 2018)."""

_BAR = 0.32
"""Inches below the panels for the color bar."""


@dataclass(frozen=True)
class Look:
    """How maps are drawn. Raises InputError for a color map that is not in `COLORS`."""

    smooth: float = 0.0
    """As of `overlay`."""
    colors: str = "inferno"
    negative: bool = False
    """Whether the negative part of a plane's map is shown, in blue."""
    annotate: bool = False
    """Whether class, score, layer and a color bar stand about every map."""
    sheet: bool = False
    """Whether all classes of an image stand side by side in one more picture."""

    def __post_init__(self) -> None:
        if self.colors not in COLORS:
            raise InputError(f"colors={self.colors!r}: wanted one of {', '.join(COLORS)}")

    def of(self, picture: npt.NDArray[np.generic], attribution: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
        """The picture of one map, uint8 [H, W, 3]."""
        return draw(picture, attribution, smooth=self.smooth, colormap=self.colors, negative=self.negative)

    def panels(self, panels: Sequence[Panel], peak: float, title: str = "") -> Figure:
        """Maps side by side, over a color bar from 0, or from -peak, to `peak`: the largest number of the maps.

        Of several maps, each of which is scaled by its own maximum, the bar has no numbers.
        """
        drawn = figure([panels], title=title)
        width, height = drawn.get_size_inches()
        share = _BAR / (height + _BAR)
        for axes in drawn.axes:
            box = axes.get_position()
            axes.set_position((box.x0, share + box.y0 * (1 - share), box.width, box.height * (1 - share)))
        for text in drawn.texts:
            text.set_y(share + text.get_position()[1] * (1 - share))
        drawn.set_size_inches(width, height + _BAR)
        bar = drawn.add_axes((0.3, 0.6 * share, 0.4, 0.25 * share))
        low = -peak if self.negative else 0.0
        shown = ScalarMappable(Normalize(low, peak), self._colormap())
        legend = drawn.colorbar(shown, cax=bar, orientation="horizontal", ticks=[low, peak] if low else [0, peak])
        ends = [f"{low:.2g}", f"{peak:.2g}"] if peak > 0 else ["0", "0"]
        legend.ax.set_xticklabels(ends if len(panels) == 1 else ["least" if low else "0", "largest"], fontsize=6)
        return drawn

    def _colormap(self) -> ListedColormap:
        """The colors as they come out where a map covers a photo fully; blue below 0 where that is shown."""
        own = matplotlib.colormaps[self.colors](np.linspace(0, 1, 128))
        if not self.negative:
            return ListedColormap(own)
        blue = np.array([*AGAINST, 1.0])
        below = np.linspace(1, 0, 128)[:, None] * blue + np.linspace(0, 1, 128)[:, None] * own[:1]
        return ListedColormap(np.concatenate([below, own]))
