"""The parameter blobs of a weights file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WeightBlob:
    """One parameter blob of a weights file: float32 `data` in `shape`.

    `legacy` marks the old num/channels/height/width header, which pads every shape to four axes with ones in front.
    """

    data: np.ndarray
    shape: tuple[int, ...]
    legacy: bool

    def fits(self, wanted: Sequence[int]) -> bool:
        """Whether Caffe would load this blob into a parameter of shape `wanted`."""
        if self.legacy and len(wanted) <= 4:
            wanted = (*(1,) * (4 - len(wanted)), *wanted)
        return self.shape == tuple(wanted)


Weights = dict[str, list[WeightBlob]]
"""Layer name -> its parameter blobs. Layers without parameters are present with an empty list."""
