"""What computes the parts of a linear map on one kind of device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from .choice import Choice
from .part import Part
from .pending import Ratio, Term


class Backend(Protocol):
    """One kind of device. `cpu.py` and `cuda.py` are the two there are; a new one is a third module like them."""

    gates: bool
    """Whether its kernels multiply what they computed by a gate as well."""

    def forward(self, part: Part, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """L x + bias, unrounded."""

    def gives_normalizer(self, part: Part) -> str:
        """Why `forward_with_normalizer` would gain nothing over two products; "" where it gains."""

    def forward_with_normalizer(
        self, part: Part, plus: Part, x: torch.Tensor, bias: torch.Tensor | None, *, relu: bool, as_gate: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """y = L x + bias, through a ReLU where `relu`, and z = L+ x, or y / z where `as_gate`, reading x once."""

    def apply(self, part: Part, x: torch.Tensor) -> torch.Tensor:
        """L x in the part's precision."""

    def term(self, part: Part, ratio: Ratio, shape: torch.Size) -> tuple[Term, bool]:
        """L^T r for a layer whose input has that shape, and whether waiting for what joins its sum gains anything."""

    def evaluate(
        self, terms: Sequence[Term], addend: torch.Tensor | None, gate: torch.Tensor | None, owned: bool
    ) -> torch.Tensor:
        """See `pending.Evaluator`."""

    def choice(self, part: Part, direction: str, operand: torch.Tensor, shape: Sequence[int]) -> Choice:
        """The kernel for "forward", "up" (`apply`) or "down", of an operand x or r, where the input has that shape."""
