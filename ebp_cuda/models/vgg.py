"""VGG with 16 and 19 weight layers (Simonyan and Zisserman 2014, configurations D and E), as published for Caffe."""

from __future__ import annotations

from collections.abc import Sequence

from ._prototxt import PrototxtWriter

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(layers: int, shape: Sequence[int] = (1, 3, 224, 224), classes: int = 1000) -> str:
    """The deploy prototxt of VGG_ILSVRC_16_layers or VGG_ILSVRC_19_layers. shape: [N, 3, 224, 224]."""
    net = PrototxtWriter(f"VGG_ILSVRC_{layers}_layers")
    x = net.input("data", shape)
    for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS[layers], strict=True), start=1):
        for index in range(1, depth + 1):
            x = net.conv(f"conv{stage}_{index}", x, width, kernel=3, pad=1)
            x = net.relu(f"relu{stage}_{index}", x)
        x = net.max_pool(f"pool{stage}", x, kernel=2, stride=2)
    for index in (6, 7):
        x = net.relu(f"relu{index}", net.inner_product(f"fc{index}", x, 4096))
        x = net.dropout(f"drop{index}", x, 0.5)
    net.softmax("prob", net.inner_product("fc8", x, classes))
    return net.text()


def vgg16(shape: Sequence[int] = (1, 3, 224, 224), classes: int = 1000) -> str:
    """`vgg` with 16 weight layers."""
    return vgg(16, shape, classes)


def vgg19(shape: Sequence[int] = (1, 3, 224, 224), classes: int = 1000) -> str:
    """`vgg` with 19 weight layers."""
    return vgg(19, shape, classes)
