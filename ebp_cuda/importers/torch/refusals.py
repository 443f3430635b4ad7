"""The calls of one program that have no counterpart, and the one message about all of them."""

from __future__ import annotations

from collections import defaultdict

from torch import fx

from .products import OF_TWO

ATTENTION = (
    "attention multiplies activations with one another, and no rule shares that; in vision transformers c-MWP stays "
    "near chance where AttnLRP and Grad-CAM do not (docs/evaluation.md, Transformers)"
)


class Refusals:
    """Collects refusals while the reader goes on, so that the message names every call that is in the way."""

    def __init__(self) -> None:
        self._paths: dict[tuple[str, str], list[str]] = defaultdict(list)
        """(operator, reason) -> the module path of every such call."""
        self._attends = False

    def __bool__(self) -> bool:
        return bool(self._paths)

    def add(self, node: fx.Node, reason: str) -> None:
        """Notes that a call has no counterpart."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = stack[-1][0] if stack and stack[-1][0] else "the module itself"
        self._paths[str(node.target), reason].append(path)
        self._attends |= "attention" in str(node.target) or (reason is OF_TWO and _weighs_by_softmax(node))

    def message(self, origin: str) -> str:
        """Every reason once, with the modules that it was met in; for a transformer, only why it is refused."""
        count = sum(map(len, self._paths.values()))
        calls = "1 ATen call" if count == 1 else f"{count} ATen calls"
        if self._attends:
            return f"{origin}: {ATTENTION}"
        lines = [f"{origin}: no counterpart for {calls}"]
        for (target, reason), paths in self._paths.items():
            times = f" ({len(paths)} times)" if len(paths) > 1 else ""
            others = len(set(paths)) - 1
            more = f" and {others} more module{'s' if others > 1 else ''}" if others else ""
            lines.append(f"{target} in '{paths[0]}'{more}{times}: {reason}")
        return "\n  ".join(lines)


def _weighs_by_softmax(product: fx.Node) -> bool:
    """Whether a factor of a product is a softmax, moved or reshaped on its way: attention written out by hand."""
    for factor in product.all_input_nodes:
        while "softmax" not in str(factor.target) and len(factor.all_input_nodes) == 1:
            (factor,) = factor.all_input_nodes
        if "softmax" in str(factor.target):
            return True
    return False
