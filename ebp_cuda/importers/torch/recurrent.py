"""LSTM, GRU and RNN layers, unrolled: one set of nodes for every step of time (see aten.py).

As in Excitation Backprop for RNNs (Bargal et al., CVPR 2018), relevance takes the way of the values and none of the
gates: a product hands all of it to the value that is gated, a sum (of the cell, of GRU's old and new state) shares it,
and input and hidden state are the inputs of one fully connected layer, which shares among all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from .aten import Activation, Call, Refusal, Result, converts

MAX_STEPS = 256
"""Longest sequence; every step costs about ten nodes a layer."""

Cell = Callable[["_Layer", str, "_State"], "_State"]


@dataclass(frozen=True)
class _State:
    """Values of one moment, [N, hidden] each; None stands for zeros, as before the first step."""

    hidden: str | None = None
    cell: str | None = None


@dataclass(frozen=True)
class _Layer:
    """One direction of one layer: torch's weights, the gates stacked in rows."""

    c: Call
    of_input: torch.Tensor
    """[gates * hidden, inputs]."""
    of_hidden: torch.Tensor
    """[gates * hidden, hidden]."""
    biases: tuple[torch.Tensor, torch.Tensor] | None
    """Of the input and of the hidden state, [gates * hidden] each."""
    _params: dict[tuple[tuple[int, ...], bool], dict[str, torch.Tensor | None]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return int(self.of_hidden.shape[1])

    def rows(self, tensor: torch.Tensor, *gates: int) -> torch.Tensor:
        return torch.cat([tensor[gate * self.size : (gate + 1) * self.size] for gate in gates])

    def params(self, gates: tuple[int, ...], with_hidden: bool) -> Mapping[str, torch.Tensor | None]:
        """Weight and bias that give `gates` of [x, hidden], or of x alone; made once for all steps."""
        if (gates, with_hidden) not in self._params:
            weight = self.rows(self.of_input, *gates)
            if with_hidden:
                weight = torch.cat([weight, self.rows(self.of_hidden, *gates)], 1)
            bias = None if self.biases is None else self.rows(self.biases[0] + self.biases[1], *gates)
            self._params[gates, with_hidden] = {"weight": weight, "bias": bias}
        return self._params[gates, with_hidden]

    def joined(self, x: str, hidden: str | None, *gates: int) -> str:
        """The fully connected layer of [x, hidden] that computes `gates`."""
        joined = x if hidden is None else self.c.emit("concat", x, hidden, axis=1)
        return self.c.emit("linear", joined, params=self.params(gates, hidden is not None))

    def gates(self, x: str, hidden: str | None, *gates: int) -> tuple[str, ...]:
        """Sigmoid gates, [N, hidden] each, of one fully connected layer."""
        opened = self.c.emit("sigmoid", self.joined(x, hidden, *gates))
        return self.c.emit_many("split", len(gates), opened, axis=1, sizes=(self.size,) * len(gates))


def _lstm(layer: _Layer, x: str, before: _State) -> _State:
    """c = f * c_before + i * g, h = o * tanh(c); torch stacks i, f, g, o."""
    c = layer.c
    let_in, forget, let_out = layer.gates(x, before.hidden, 0, 1, 3)
    cell = c.emit("mul", c.emit("tanh", layer.joined(x, before.hidden, 2)), let_in)
    if before.cell is not None:
        cell = c.emit("sum", c.emit("mul", before.cell, forget), cell)
    return _State(c.emit("mul", c.emit("tanh", cell), let_out), cell)


def _gru(layer: _Layer, x: str, before: _State) -> _State:
    """h = (1 - z) * n + z * h_before, n = tanh(W x + r * (U h_before)); torch stacks r, z, n."""
    c = layer.c
    reset, keep = layer.gates(x, before.hidden, 0, 1)
    one = torch.ones(1, dtype=layer.of_input.dtype)
    renew = c.emit("affine", keep, params={"scale": -one, "shift": one})
    biases = (None, None) if layer.biases is None else tuple(bias[2 * layer.size :] for bias in layer.biases)
    new = c.emit("linear", x, params={"weight": layer.of_input[2 * layer.size :], "bias": biases[0]})
    if before.hidden is not None:
        old = c.emit("linear", before.hidden, params={"weight": layer.of_hidden[2 * layer.size :], "bias": biases[1]})
        new = c.emit("sum", new, c.emit("mul", old, reset))
    elif biases[1] is not None:  # U 0 leaves the bias, gated; relevance that falls to it stays with `new`
        bias = biases[1]
        old = c.emit("affine", new, params={"scale": torch.zeros_like(bias), "shift": bias})
        new = c.emit("sum", new, c.emit("mul", old, reset))
    hidden = c.emit("mul", c.emit("tanh", new), renew)
    if before.hidden is not None:
        hidden = c.emit("sum", hidden, c.emit("mul", before.hidden, keep))
    return _State(hidden)


def _rnn(function: str) -> Cell:
    def step(layer: _Layer, x: str, before: _State) -> _State:
        """h = f(W x + U h_before)."""
        return _State(layer.c.emit(function, layer.joined(x, before.hidden, 0)))

    return step


CELLS: dict[str, Cell] = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn("tanh"), "rnn_relu": _rnn("relu")}


@converts(*CELLS)
def recurrent(c: Call) -> Result:
    """The sequence of the last layer's hidden states; the states after the last step have no counterpart."""
    x = c.activation("input")
    _check(c, x)
    length = x.shape[1]
    frames = c.emit_many("split", length, x.value, axis=1, sizes=(1,) * length)
    sequence = [c.emit("squeeze", frame, axes=(1,)) for frame in frames]
    directions = 2 if c["bidirectional"] else 1
    layers = _layers(c)
    for index in range(int(c["num_layers"])):
        both = [_run(CELLS[c.op], layers[index * directions + way], sequence, way == 1) for way in range(directions)]
        sequence = [step[0] if len(step) == 1 else c.emit("concat", *step, axis=1) for step in zip(*both, strict=True)]
    steps = [c.emit("unsqueeze", step, axes=(1,)) for step in sequence]
    output = steps[0] if length == 1 else c.emit("concat", *steps, axis=1)
    return (output, *[None] * (len(c.outs) - 1))


def _check(c: Call, x: Activation) -> None:
    if len(x.shape) != 3 or not c["batch_first"]:
        raise Refusal("is recurrent over the first axis; wanted batch_first=True and an input [N, T, features]")
    if not isinstance(x.shape[1], int):
        raise Refusal("is recurrent, and the length of its sequence varies; wanted one length, which is unrolled")
    if x.shape[1] > MAX_STEPS:
        raise Refusal(f"is recurrent over {x.shape[1]} steps; at most {MAX_STEPS} are unrolled")
    starts = c["hx"] if isinstance(c["hx"], (list, tuple)) else [c["hx"]]
    if not all(isinstance(start, torch.Tensor) and not start.any() for start in starts):
        raise Refusal("is recurrent and does not start from zeros")
    if c["train"] and c["dropout"]:
        raise Refusal("drops activations at random")


def _layers(c: Call) -> list[_Layer]:
    params = list(c["params"])
    each = 4 if c["has_biases"] else 2
    hidden = params[1].shape[1]
    if len(params) % each or any(group.shape[1] != hidden for group in params[1::each]):
        raise Refusal("is recurrent with a projection (proj_size), which has no counterpart")
    layers = []
    for start in range(0, len(params), each):
        into, across, *biases = params[start : start + each]
        layers.append(_Layer(c, into, across, (biases[0], biases[1]) if biases else None))
    return layers


def _run(cell: Cell, layer: _Layer, sequence: Sequence[str], backwards: bool) -> list[str]:
    """The hidden states in the order of the sequence."""
    state, hidden = _State(), []
    for x in reversed(sequence) if backwards else sequence:
        state = cell(layer, x, state)
        assert state.hidden is not None
        hidden.append(state.hidden)
    return hidden[::-1] if backwards else hidden
