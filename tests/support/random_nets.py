"""Random small networks for the property tests: what hypothesis draws, and shrinks to the layers that matter."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st
from oracle.nets import batch_norm, conv, linear, simple, weights, window

from ebp_cuda.graph import Graph, Node

BLOCKS = ("conv", "pool", "lrn", "inception", "residual", "gate", "pointwise", "affine")
BLOCKS += ("shuffle", "winner", "grow", "same")
FUNCTIONS = {"leaky_relu": {"slope": 0.1}, "silu": {}, "clip": {"min": 0.0, "max": 6.0}, "elu": {"alpha": 1.0}}
HEADS = ("linear", "mean", "spatial")
CLASSES = 4


@dataclass
class Builder:
    """Adds layers to the value `at`, of shape [N, channels, *plane]."""

    draw: st.DrawFn
    rng: np.random.Generator
    channels: int
    plane: tuple[int, int]
    at: str = "image"
    nodes: list[Node] = field(default_factory=list)

    def value(self) -> str:
        return f"v{len(self.nodes)}"

    def add(self, node: Node) -> str:
        self.nodes.append(node)
        self.at = node.outputs[0]
        return self.at

    def conv(self, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        geometry = {"stride": stride, "padding": kernel // 2, "groups": groups}
        bias = self.draw(st.booleans())
        self.add(conv(self.rng, self.at, self.value(), self.channels, out, kernel, bias=bias, **geometry))
        self.channels, self.plane = out, tuple(-(-n // stride) for n in self.plane)
        if self.draw(st.booleans()):
            self.add(batch_norm(self.rng, self.at, self.value(), out))
        if self.draw(st.booleans()):
            self.add(simple("relu", self.at, self.value()))

    def block_conv(self) -> None:
        depthwise = self.draw(st.booleans())
        out = self.channels if depthwise else self.draw(st.integers(2, 4))
        stride = self.draw(st.sampled_from([1, 2])) if min(self.plane) > 2 else 1
        self.conv(out, self.draw(st.sampled_from([1, 3])), stride, self.channels if depthwise else 1)

    def block_pool(self) -> None:
        op = self.draw(st.sampled_from(["max_pool", "avg_pool"]))
        attrs = window(3, self.draw(st.sampled_from([1, 2])), 1)
        attrs["ceil_mode"] = self.draw(st.booleans())
        if op == "avg_pool":
            attrs["count_include_pad"] = self.draw(st.booleans())
        self.add(simple(op, self.at, self.value(), **attrs))
        ceil = attrs["ceil_mode"] and attrs["stride"][0] == 2
        self.plane = tuple(n // 2 + 1 if ceil and n > 1 else (n - 1) // attrs["stride"][0] + 1 for n in self.plane)

    def block_lrn(self) -> None:
        attrs = {"size": 3, "alpha": 0.5, "beta": 0.75, "k": 1.0, "region": "across"}
        self.add(simple("lrn", self.at, self.value(), **attrs))

    def block_inception(self) -> None:
        start, channels, plane = self.at, self.channels, self.plane
        ends, total = [], 0
        for kernel in (1, 3, 0):
            self.at, self.channels, self.plane = start, channels, plane
            if kernel == 0:
                self.add(simple("max_pool", self.at, self.value(), **window(3, 1, 1)))
            self.conv(self.draw(st.integers(1, 3)), kernel or 1)
            ends.append(self.at)
            total += self.channels
        self.add(simple("concat", ends, self.value(), axis=1))
        self.channels = total

    def block_residual(self) -> None:
        start = self.at
        self.conv(self.channels, 3)
        coefficients = self.draw(st.sampled_from([None, (1.0, 0.5)]))
        self.add(simple("sum", [self.at, start], self.value(), coefficients=coefficients))

    def block_gate(self) -> None:
        """Squeeze and excite: one factor per channel, from the channel's mean."""
        start = self.at
        self.add(simple("mean", self.at, self.value(), axes=(2, 3), keepdims=True))
        self.add(conv(self.rng, self.at, self.value(), self.channels, self.channels, 1))
        self.add(simple("sigmoid", self.at, self.value()))
        self.add(simple("mul", [start, self.at], self.value()))

    def block_pointwise(self) -> None:
        op = self.draw(st.sampled_from(sorted(FUNCTIONS)))
        self.add(simple(op, self.at, self.value(), **FUNCTIONS[op]))

    def block_affine(self) -> None:
        params = {"scale": weights(self.rng, self.channels, 1, 1), "shift": weights(self.rng, self.channels, 1, 1)}
        self.add(Node(f"scale_{self.value()}", "affine", (self.at,), (self.value(),), {}, params))

    def block_shuffle(self) -> None:
        """Channels in two groups, dealt like cards; an odd number is reversed."""
        groups = 2 if self.channels % 2 == 0 else self.channels
        split = (0, groups, self.channels // groups, *self.plane)
        self.add(simple("reshape", self.at, self.value(), shape=split))
        self.add(simple("transpose", self.at, self.value(), perm=(0, 2, 1, 3, 4)))
        self.add(simple("reshape", self.at, self.value(), shape=(0, self.channels, *self.plane)))
        parts = (self.value(), f"{self.value()}b")
        sizes = (1, self.channels - 1)
        if self.channels > 1:
            self.nodes.append(Node(f"split_{parts[0]}", "split", (self.at,), parts, {"axis": 1, "sizes": sizes}))
            self.add(simple("concat", parts[::-1], self.value(), axis=1))

    def block_same(self) -> None:
        """TensorFlow's SAME padding of a strided convolution: one more behind than before."""
        more = [n % 2 == 0 for n in self.plane]
        pads = ((0, 0), (0, 0), *((int(not even), 1) for even in more))
        self.add(simple("pad", self.at, self.value(), pads=pads, value=0.0))
        self.add(conv(self.rng, self.at, self.value(), self.channels, self.channels, 3, stride=2))
        self.plane = tuple((n + 1) // 2 for n in self.plane)

    def block_winner(self) -> None:
        start = self.at
        self.conv(self.channels, 1)
        self.add(simple("max", [start, self.at], self.value()))

    def block_grow(self) -> None:
        if max(self.plane) > 5:
            return
        if self.draw(st.booleans()):
            self.add(simple("resize", self.at, self.value(), mode="linear", scale=(2.0, 2.0), align_corners=False))
        else:
            attrs = window(3, 2, 1) | {"groups": 1, "output_padding": (1, 1)}
            attrs.pop("kernel")
            params = {"weight": weights(self.rng, self.channels, 2, 3, 3)}
            node = Node(f"up_{self.value()}", "conv_transpose", (self.at,), (self.value(),), attrs, params)
            self.add(node)
            self.channels = 2
        self.plane = tuple(2 * n for n in self.plane)

    def head(self, kind: str) -> None:
        if kind == "spatial":
            self.add(conv(self.rng, self.at, self.value(), self.channels, CLASSES, 1))
            return
        features = self.channels * self.plane[0] * self.plane[1]
        if kind == "mean":
            self.add(simple("mean", self.at, self.value(), axes=(2, 3), keepdims=False))
            features = self.channels
        else:
            self.add(simple("flatten", self.at, self.value(), axis=1))
        self.add(linear(self.rng, self.at, self.value(), features, CLASSES))


@dataclass
class RandomNet:
    graph: Graph
    image: np.ndarray
    """float64 [2, 3, H, W]."""

    @property
    def top(self) -> str:
        return self.graph.outputs[0]

    @property
    def second(self) -> str:
        """What the classifier reads: the value at which a contrast is taken."""
        return self.graph.nodes[-1].inputs[0]

    def __repr__(self) -> str:
        layers = "\n".join(f"  {n.op} {n.inputs} -> {n.outputs} {dict(n.attrs)}" for n in self.graph.nodes)
        return f"image {self.image.shape}\n{layers}"


@st.composite
def random_nets(draw: st.DrawFn, rules: str = "conserving") -> RandomNet:
    """One to four blocks and a classifier; signed or non-negative images, half of them mostly exact zeros.

    For "caffe" nothing that has no rule there, and no signed image, whose normalisers come too near 0 to compare.
    Small integers would cancel to 0 or to 1e-17 by the order of summation, and rules that look at signs jump there.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    plane = (draw(st.integers(3, 8)), draw(st.integers(3, 8)))
    build = Builder(draw, rng, 3, plane)
    blocks = [name for name in BLOCKS if rules != "caffe" or name not in ("gate", "grow")]
    for name in draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=4)):
        getattr(build, f"block_{name}")()
    build.head(draw(st.sampled_from(HEADS)))
    image = rng.normal(size=(2, 3, *plane))
    image = image * (rng.random(image.shape) < 0.3) if draw(st.booleans()) else image
    image = np.abs(image) if rules == "caffe" or draw(st.booleans()) else image
    graph = Graph(build.nodes, {"image": (None, 3, *plane)}, build.nodes[-1].outputs)
    return RandomNet(graph, image)
