"""The one table of operations: how each runs forward, and how each rule set carries probability down.

A rule is one of a few kinds. "share" divides p among the inputs in proportion to what each contributed;
"route" sends it to the winner; "pass" hands it on unchanged; "move" follows a concat, slice or reshape;
"gradient" multiplies by the ordinary derivative, which is what the original Caffe code does for every layer
that has no rule of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from ..errors import InputError, UnsupportedError, nearest_names
from ..graph import Node
from ..linear import KINDS as LINEAR
from ..linear import LinearMap
from ..linear.weights import Form
from ..vocabulary import SIGNATURES, Attribute, Parameter, Signature, signature_of
from .relevance import Relevance
from .saved import Gate, Saved

Tensors: TypeAlias = Sequence[torch.Tensor]
Params: TypeAlias = Mapping[str, torch.Tensor]
Relevances: TypeAlias = Sequence[Relevance | None]

RULE_SETS = ("caffe", "conserving")
KINDS = ("share", "route", "pass", "move", "gradient")


@dataclass
class Step:
    """One layer on the way down, as its rule sees it."""

    node: Node
    inputs: Sequence[torch.Tensor]
    """Activations [N, ...] that the layer read; only where the rule's `needs` has "x"."""
    outputs: Sequence[torch.Tensor]
    """Activations [N, ...] that the layer wrote; only where the rule's `needs` has "y"."""
    saved: Saved
    """What the layer's forward saved, and what several sweeps over it share."""
    params: Mapping[str, torch.Tensor]
    """The layer's parameters on the plan's device, in its dtype."""
    non_negative: Sequence[bool]
    """Per input: whether no element can be below zero, whatever the image."""
    shapes: Sequence[torch.Size] = ()
    """Shapes of the inputs."""
    sign: int = 1
    """-1 where the layer stands for its negated weights (the contrast's second half)."""
    linear_map: LinearMap | None = None
    """The layer's linear map, where it is a convolution, a fully connected layer or a transposed convolution."""

    @property
    def linear(self) -> LinearMap:
        """The layer's linear map L. Raises UnsupportedError for a layer that is none."""
        if self.linear_map is None:
            wanted = f"wanted one of {', '.join(LINEAR)}"
            raise UnsupportedError(f"layer '{self.node.name}' ({self.node.op}) has no linear map: {wanted}")
        return self.linear_map

    def once(self, of: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor | Gate:
        """What was saved under `of` by the forward or an earlier sweep, otherwise the new result of `make()`.

        Args:
            of: what it belongs to: a linear map whose normalizer it is, or a name.
            make: computes a tensor that depends on the forward alone.

        Returns:
            That tensor; or the gate y / z, where the forward computed that in place of a map's normalizer z.
        """
        normalizers = self.saved.normalizers
        if of not in normalizers:
            normalizers[of] = make()
        return normalizers[of]

    def packed(self, name: str) -> torch.Tensor:
        """max(W, 0) for "weight+", max(-W, 0) for "weight-". Deprecated: `linear.positive(1)` and `(-1)` are the maps
        with these weights."""
        warnings.warn("Step.packed: use Step.linear.positive(sign)", DeprecationWarning, stacklevel=2)
        return Form(name[-1]).of(self.params[name[:-1]])


Forward: TypeAlias = Callable[[Node, Params, Tensors, Saved], Tensors]
"""(node, params, inputs, saved) -> outputs."""
Down: TypeAlias = Callable[[Step, Relevances], Relevances]
"""(step, relevance of the outputs) -> relevance of the inputs."""


@dataclass(frozen=True)
class Rule:
    """How one rule set carries the relevance of a layer's outputs to its inputs."""

    kind: str
    down: Down
    needs: str = "xy"
    """Which activations `down` reads: "x" the layer's inputs, "y" its outputs."""


@dataclass
class Operation:
    """How an operation of the vocabulary runs and what its rules are."""

    name: str
    forward: Forward
    rules: dict[str, Rule] = field(default_factory=dict)
    keeps_non_negative: bool = False
    """Whether non-negative inputs give a non-negative output."""
    always_non_negative: bool = False
    overwrites: bool = False
    """Whether the forward can write over its first input, as it does where `saved.overwrite` is true."""
    is_contraction: bool = False
    """Whether the layer has signed weights that the contrast may negate."""


FLAGS = ("keeps_non_negative", "always_non_negative", "overwrites", "is_contraction")
OPERATIONS: dict[str, Operation] = {}


_registered = [0]


def _count_one() -> None:
    _registered[0] += 1


def registrations() -> int:
    """How often something was registered: another number, another table."""
    return _registered[0]


def operation(name: str, **flags: bool) -> Callable[[Forward], Forward]:
    """Decorator that enters a forward function under `name`; `flags` are fields of Operation.

    Raises:
        ModelError: where the vocabulary has no such operation.
    """
    signature_of(name)

    def enter(forward: Forward) -> Forward:
        OPERATIONS[name] = Operation(name, forward, {}, **flags)
        _count_one()
        return forward

    return enter


def register_operation(
    name: str,
    *,
    attributes: Sequence[Attribute] | None = None,
    parameters: Sequence[Parameter] = (),
    **flags: bool,
) -> Callable[[Forward], Forward]:
    """Decorator that enters the forward of a layer of your own, so that both importers take it and rules can be given.

    The importers make a call of the operator a node: what depends on the network's input becomes its inputs in order,
    constant tensors its params (by argument name; in ONNX "input1", "input2" by position), everything else its attrs.
    The function takes (node, params, inputs, saved) and returns the list of outputs. `saved` is a dict for whatever
    the rule needs of it, under keys of your own.

    Args:
        name: "namespace::name" of a torch custom operator (torch.library.custom_op), or "domain::OpType" of an ONNX
            node; entering a name again replaces it, with its rules.
        attributes: the attributes that its nodes may have, with types and defaults (`ebp_cuda.vocabulary`). Nodes are
            then checked as those of the package's own operations are; None: they are not checked.
        parameters: the tensors that its nodes may have; looked at only where `attributes` is given.
        flags: keeps_non_negative, always_non_negative, is_contraction; see `Operation`.

    Raises:
        InputError: for a name without "::" (those are the package's own) and unknown flags.
    """
    namespace, _, rest = name.partition("::")
    if not namespace or not rest:
        raise InputError(f"register_operation('{name}'): wanted 'namespace::name' or 'domain::OpType'")
    for flag in flags:
        if flag not in FLAGS:
            raise InputError(f"register_operation('{name}'): no flag '{flag}'{nearest_names(flag, FLAGS)}")
    SIGNATURES.pop(name, None)
    if attributes is not None:
        any_number = (1, None)
        SIGNATURES[name] = Signature(name, "", tuple(attributes), tuple(parameters), any_number, any_number)
    return operation(name, **flags)


def register_rule(
    op: str, kind: str, *, rule_sets: Sequence[str] = RULE_SETS, needs: str = "xy"
) -> Callable[[Down], Down]:
    """Decorator that enters (or replaces) the rule by which `rule_sets` take relevance down through `op`.

    The function takes (step, relevances of the outputs) and returns the relevances of the inputs, None for an input
    that gets none. It is called where at least one output has one; with a single output that is never None.

    Args:
        op: name of an operation, the package's or your own.
        kind: one of `KINDS`, for `Net.explain_support` and `ebp-cuda layers`.
        rule_sets: those that take it.
        needs: which activations it reads: "x" the layer's inputs, "y" its outputs, "xy" both, "" neither.

    Raises:
        InputError: for an operation, kind or rule set that does not exist.
    """
    if op not in OPERATIONS:
        raise InputError(f"register_rule: no operation '{op}'{nearest_names(op, OPERATIONS)}")
    if kind not in KINDS:
        raise InputError(f"register_rule('{op}'): kind '{kind}' is not one of {', '.join(KINDS)}")
    for name in rule_sets:
        check_rule_set(name)

    def enter(down: Down) -> Down:
        for name in rule_sets:
            OPERATIONS[op].rules[name] = Rule(kind, down, needs)
        _count_one()
        return down

    return enter


def rule_of(node: Node, rules: str) -> Rule | None:
    """The rule by which a rule set carries relevance through `node`, if there is one.

    A layer that mixes the images of a batch has none: relevance belongs to one image.
    """
    entry = OPERATIONS.get(node.op)
    return entry.rules.get(rules) if entry and not mixes_images(node) else None


def mixes_images(node: Node) -> bool:
    """Whether the layer divides, joins, exchanges or adds up along axis 0, the images of a batch."""
    attrs = node.attrs
    if node.op == "slice":  # of all images is what torch.export writes for x[:, a:b]
        edges = zip(attrs["axes"], attrs["starts"], attrs["ends"], strict=True)
        return any(axis == 0 and (start != 0 or end < 1 << 31) for axis, start, end in edges)
    if node.op == "reshape":
        return bool(attrs["shape"][:1] != (0,))
    if node.op == "pad":
        return bool(attrs["pads"] and attrs["pads"][0] != (0, 0))
    return node.op not in ("squeeze", "unsqueeze") and (
        attrs.get("axis") == 0
        or 0 in attrs.get("axes", ())
        or attrs.get("repeats", (1,))[0] != 1
        or attrs.get("perm", (0,))[0] != 0
    )


def check_rule_set(name: str) -> str:
    """`name` itself; raises InputError when there is no such rule set."""
    if name not in RULE_SETS:
        raise InputError(f"rules='{name}': wanted one of {', '.join(RULE_SETS)}")
    return name
