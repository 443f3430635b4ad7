"""One layer of a network, as the prototxt has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .data_layers import is_data
from .text import Unknown


@dataclass
class Layer:
    """One layer of the phase. `bottoms` and `tops` are blob names, `inputs` and `outputs` the values they hold here."""

    index: int
    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    proto: Any
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    stored: tuple[int, ...] = ()
    """Sizes of the parameter blobs that the weights file holds for the layer."""
    dropped: bool = False
    """Only trains, measures or swallows (a loss, Accuracy, Silence), feeds nothing but such layers, or is not needed
    for the outputs that were asked for."""
    line: int = 0
    """Where the layer starts in its file; 0 for the inputs that are fields of the net."""
    unknown: list[Unknown] = field(default_factory=list)
    """Its fields that no schema knows and that may say what it computes."""

    constant: bool = False
    """A DummyData layer beside other sources of data: its tops are the same at every forward."""

    @property
    def brings_data(self) -> bool:
        """Whether its tops are inputs of the network."""
        return not self.constant and (self.type == "Input" or is_data(self.type, self.bottoms))
