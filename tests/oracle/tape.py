"""The "conserving" rules restated on what a torch module really ran, in float64: the oracle of published networks.

The module runs as it is, under a dispatch mode that writes every ATen call on a tape; then p goes back along the tape.
Where a call is linear with non-negative weights its transpose comes from torch's own derivative of that very call. So
nothing is shared with the package: no export, no graph, no importer, no kernel, no rule.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Tensor = torch.Tensor

PASSED = {
    *("relu", "relu_", "hardtanh", "hardtanh_", "silu", "silu_", "hardswish", "hardswish_", "hardsigmoid", "sigmoid"),
    *("hardsigmoid_", "sigmoid_", "tanh", "gelu", "leaky_relu", "leaky_relu_", "elu", "_softmax", "clamp", "clamp_min"),
    *("native_batch_norm", "native_layer_norm", "native_group_norm", "mish", "softplus", "clone", "alias", "detach"),
    *(
        "pow",
        "sqrt",
        "rsqrt",
        "neg",
        "exp",
        "div",
        "_to_copy",
        "clamp_",
        "lift_fresh",
        "prelu",
        "as_strided_",
        "addcmul",
    ),
}
"""p goes on as it is, to the first operand."""
AVERAGED = {
    *("mean", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "upsample_nearest2d"),
    *("upsample_bilinear2d", "sum"),
}
MOVED = {
    *("view", "_unsafe_view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "transpose", "t", "slice"),
    *("select", "split", "split_with_sizes", "unbind", "cat", "stack", "expand", "constant_pad_nd", "repeat", "flip"),
    *("pixel_shuffle", "channel_shuffle", "native_channel_shuffle", "index_select", "index", "roll", "max_pool2d"),
    *("max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "amax", "reflection_pad2d"),
}


@dataclass
class Record:
    """One call: `inputs` are the values (numbers) of the tracked tensors among its arguments, in order."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[int]
    outputs: list[int]

    @property
    def name(self) -> str:
        return self.func._schema.name.split("::")[1]

    def run(self, xs: Sequence[Tensor]) -> Any:
        """The call with other tensors in the places of the tracked ones; never in place."""
        given = iter(xs)
        args, kwargs = tree_map(lambda a: next(given) if isinstance(a, _Slot) else a, (self.args, self.kwargs))
        if self.func._schema.is_mutable:
            args = (args[0].clone(), *args[1:])
        return self.func(*args, **kwargs)


class _Slot:
    """Stands for a tracked tensor."""


class Tape(TorchDispatchMode):
    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.records: list[Record] = []
        self.values: list[Tensor] = [x.clone()]
        """Copies: what a later call overwrites stays as it was read."""
        self.number = {id(x): 0}
        self.alive: list[Tensor] = [x]
        self.readers: dict[int, list[Record]] = {}
        self.writer: dict[int, Record] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [self.number[id(a)] for a in tree_leaves((args, kwargs)) if id(a) in self.number]
        if not inputs:
            return func(*args, **kwargs)
        slotted = tree_map(lambda a: _Slot() if id(a) in self.number else a, (args, kwargs))
        out = func(*args, **kwargs)
        tensors = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        record = Record(func, *slotted, inputs, list(range(len(self.values), len(self.values) + len(tensors))))
        for tensor, value in zip(tensors, record.outputs, strict=True):
            self.alive.append(tensor)  # so that its id stays its own
            self.number[id(tensor)] = value
            self.values.append(tensor.clone())
            self.writer[value] = record
        for value in inputs:
            self.readers.setdefault(value, []).append(record)
        self.records.append(record)
        return out

    def relevance(self, seed: Tensor, top: int) -> Tensor:
        """p of the input, from `seed` at the value `top`."""
        ps: dict[int, Tensor] = {top: seed}
        for record in reversed(self.records):
            if any(value in ps for value in record.outputs):
                tops = [ps.get(value, torch.zeros_like(self.values[value])) for value in record.outputs]
                for value, p in zip(record.inputs, rule_of(record)(self, record, tops), strict=True):
                    if p is not None:
                        ps[value] = ps[value] + p if value in ps else p
        return ps[0]


def transposed(call: Callable[..., Any], xs: Sequence[Tensor], ps: Sequence[Tensor]) -> list[Tensor]:
    """What the derivative of `call` at xs makes of ps."""
    with torch.enable_grad():
        leaves = [x.detach().clone().requires_grad_() for x in xs]
        outs = [t for t in tree_leaves(call(leaves)) if isinstance(t, Tensor)]
        pairs = [(t, p) for t, p in zip(outs, ps, strict=False) if t.requires_grad]
        return list(torch.autograd.grad([t for t, _ in pairs], leaves, [p for _, p in pairs]))


def divided(p: Tensor, z: Tensor) -> Tensor:
    silent = without_excitation(z)
    return torch.where(silent, torch.zeros_like(p), p / torch.where(silent, torch.ones_like(z), z))


def without_excitation(z: Tensor) -> Tensor:
    """Whether a normalizer counts as 0: below the smallest normal number of its dtype."""
    return z.abs() < torch.finfo(z.dtype).tiny


def passed(tape: Tape, record: Record, ps: list[Tensor]) -> list[Any]:
    return [ps[0], *[None] * (len(record.inputs) - 1)]


def moved(tape: Tape, record: Record, ps: list[Tensor]) -> list[Any]:
    """The ordinary derivative; where a zero padding lies below a pool, nothing wins against the image."""
    xs = [tape.values[value] for value in record.inputs]
    return transposed(record.run, xs, ps)


def averaged(tape: Tape, record: Record, ps: list[Tensor]) -> list[Any]:
    (x,), (p,) = [tape.values[value] for value in record.inputs], ps
    plus = x.clamp(min=0)
    z = record.run([plus])
    (below,) = transposed(record.run, [x], [divided(p, z)])
    (evenly,) = transposed(record.run, [x], [divided(p * without_excitation(z), record.run([torch.ones_like(x)]))])
    return [plus * below + evenly]


def added(tape: Tape, record: Record, ps: list[Tensor]) -> list[Any]:
    if len(record.inputs) == 1:
        return passed(tape, record, ps)  # a constant
    factors = [1.0, float(record.kwargs.get("alpha", 1)) * (-1 if record.name.startswith("sub") else 1)]
    xs = [tape.values[value].expand_as(ps[0]) for value in record.inputs]
    parts = [(c * x).clamp(min=0) for c, x in zip(factors, xs, strict=True)]
    z = parts[0] + parts[1]
    shares = [divided(ps[0], z) * part + ps[0] * without_excitation(z) / 2 for part in parts]
    return [share.sum_to_size(tape.values[v].shape) for share, v in zip(shares, record.inputs, strict=True)]


def multiplied(tape: Tape, record: Record, ps: list[Tensor]) -> list[Any]:
    """To the factor of the full size; of two such to the one that no sigmoid or softmax made."""
    if len(record.inputs) == 1:
        return passed(tape, record, ps)
    full = [place for place, value in enumerate(record.inputs) if tape.values[value].shape == ps[0].shape]
    plain = [place for place in full if not _gate(tape, record.inputs[place])]
    winner = (plain or full)[0]
    return [ps[0] if place == winner else None for place in range(2)]


def _gate(tape: Tape, value: int) -> bool:
    while value in tape.writer:
        record = tape.writer[value]
        if record.name.rstrip("_") in ("sigmoid", "hardsigmoid", "_softmax", "tanh"):
            return True
        if record.name not in MOVED or len(record.inputs) != 1:
            return False
        value = record.inputs[0]
    return False


def contracted(tape: Tape, record: Record, ps: list[Tensor]) -> list[Any]:
    """Convolutions and fully connected layers with what follows them directly: batch norms and constant factors."""
    (x,), (p,) = [tape.values[value] for value in record.inputs], ps
    gain = _gain(tape, record)
    weight, call = _linear_map(record)
    folded = weight if gain is None else weight * _per_output(record, weight, gain)
    positive, negative = folded.clamp(min=0), (-folded).clamp(min=0)
    x_plus, x_minus = x.clamp(min=0), (-x).clamp(min=0)
    z = call(x_plus, positive) + call(x_minus, negative)
    r = divided(p, z)
    up = transposed(lambda xs: call(xs[0], positive), [x], [r])[0]
    down = transposed(lambda xs: call(xs[0], negative), [x], [r])[0]
    below = x_plus * up + x_minus * down
    silent = p * without_excitation(z)
    if bool(silent.any()):
        ones, inside = torch.ones_like(weight), _inside(tape, record, x)
        share = divided(silent, call(inside, ones))
        below = below + inside * transposed(lambda xs: call(xs[0], ones), [x], [share])[0]
    return [below]


def _per_output(record: Record, weight: Tensor, gain: Tensor) -> Tensor:
    transposing = record.name == "convolution" and record.args[6]
    groups = record.args[8] if record.name == "convolution" else 1
    if transposing:
        per_input = gain.reshape(groups, -1).repeat_interleave(weight.shape[0] // groups, 0)
        return per_input.reshape(*per_input.shape, *[1] * (weight.dim() - 2))
    return gain.reshape(-1, *[1] * (weight.dim() - 1))


def _linear_map(record: Record) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """The weight [O, I, ...] and x, weight -> y, without bias."""
    if record.name == "convolution":
        _, weight, _, *geometry = record.args
        return weight, lambda x, w: record.func(x, w, None, *geometry)
    if record.name == "addmm":
        return record.args[2].t(), lambda x, w: x @ w.t()
    if record.name == "linear":
        return record.args[1], lambda x, w: x @ w.t()
    return record.args[1].t(), lambda x, w: x @ w.t()


def _gain(tape: Tape, record: Record) -> Tensor | None:
    """What the batch norms and constant factors that alone read the layer multiply its channels with."""
    gain, value = None, record.outputs[0]
    channels = tape.values[value].shape[1]
    while len(readers := tape.readers.get(value, [])) == 1:
        after = readers[0]
        if after.name == "native_batch_norm":
            _, weight, _, _, var, _, _, eps = after.args
            factor = torch.rsqrt(var + eps) * (1 if weight is None else weight)
        elif after.name in ("mul", "mul_", "div", "add", "add_", "sub") and len(after.inputs) == 1:
            factor = _constant_factor(after, channels, tape.values[value].dim())
        else:
            break
        if factor is None:
            break
        gain = factor if gain is None else gain * factor
        value = after.outputs[0]
    return gain


def _constant_factor(after: Record, channels: int, rank: int) -> Tensor | None:
    """Per channel, or None where the constant differs within a channel."""
    operand = next(a for a in after.args if not isinstance(a, _Slot))
    constant = torch.as_tensor(operand, dtype=torch.float64)
    whole = constant.reshape([1] * (rank - constant.dim()) + list(constant.shape))
    if any(n != 1 for axis, n in enumerate(whole.shape) if axis != 1):
        return None
    if after.name.startswith(("add", "sub")):
        return torch.ones(channels, dtype=torch.float64)
    factor = whole.reshape(-1).expand(channels)
    return 1 / factor if after.name == "div" else factor


def _inside(tape: Tape, record: Record, x: Tensor) -> Tensor:
    """1, and 0 where the input of a convolution is a zero padding that nothing else reads."""
    before = tape.writer.get(record.inputs[0])
    if before is None or before.name != "constant_pad_nd" or len(tape.readers[record.inputs[0]]) > 1:
        return torch.ones_like(x)
    return before.run([torch.ones_like(tape.values[before.inputs[0]])])


def rule_of(record: Record) -> Callable[[Tape, Record, list[Tensor]], list[Any]]:
    name = record.name
    if name in ("convolution", "addmm", "mm", "linear"):
        return contracted
    for names, rule in ((AVERAGED, averaged), (MOVED, moved)):
        if name in names:
            return rule
    if name in ("add", "add_", "sub", "sub_", "rsub"):
        return added
    if name in ("mul", "mul_"):
        return multiplied
    if name in PASSED:
        return passed
    raise NotImplementedError(f"the oracle has no rule for {record.func}")


def attribute(module: torch.nn.Module, x: Tensor, targets: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(outputs of the module, p of the input [N, K, C, ...]) in float64, for every target at every image."""
    twin, x = copy.deepcopy(module).double().eval(), x.double()
    with torch.no_grad():
        tape = Tape(x)
        with tape:
            out = twin(x)
        out = next(t for t in tree_leaves(out) if isinstance(t, Tensor))
        maps = []
        for target in targets:
            seed = torch.zeros_like(out)
            seed[:, target] = 1
            maps.append(tape.relevance(seed, tape.number[id(out)]))
    return out, torch.stack(maps, 1)
