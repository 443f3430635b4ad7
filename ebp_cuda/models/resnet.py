"""ResNet-50 (He et al. 2015, table 1) with the layer names of its authors' deploy network."""

from __future__ import annotations

from collections.abc import Sequence

from ._prototxt import PrototxtWriter

STAGES = {2: (3, 64), 3: (4, 128), 4: (6, 256), 5: (3, 512)}
"""stage: (blocks, width of the 3x3 convolution); the block's output is four times as wide."""


def _conv_norm(net: PrototxtWriter, unit: str, x: str, outputs: int, *, kernel: int = 1, stride: int = 1) -> str:
    """Convolution without bias, stored statistics, factor and shift; `unit` is what follows "res" in the names."""
    x = net.conv(f"res{unit}", x, outputs, kernel=kernel, stride=stride, pad=kernel // 2, bias=False)
    return net.scale(f"scale{unit}", net.batch_norm(f"bn{unit}", x))


def _bottleneck(net: PrototxtWriter, block: str, x: str, width: int, *, stride: int, project: bool) -> str:
    shortcut = _conv_norm(net, f"{block}_branch1", x, 4 * width, stride=stride) if project else x
    y = _conv_norm(net, f"{block}_branch2a", x, width, stride=stride)  # the stride sits in the 1x1, not in the 3x3
    y = net.relu(f"res{block}_branch2a_relu", y)
    y = _conv_norm(net, f"{block}_branch2b", y, width, kernel=3)
    y = net.relu(f"res{block}_branch2b_relu", y)
    y = _conv_norm(net, f"{block}_branch2c", y, 4 * width)
    return net.relu(f"res{block}_relu", net.eltwise_sum(f"res{block}", [shortcut, y]))


def resnet50(shape: Sequence[int] = (1, 3, 224, 224), classes: int = 1000) -> str:
    """The deploy prototxt of ResNet-50. shape: [N, 3, 224, 224] (the 7x7 pooling and the classifier fix the size)."""
    net = PrototxtWriter("ResNet-50")
    x = net.conv("conv1", net.input("data", shape), 64, kernel=7, stride=2, pad=3)
    x = net.relu("conv1_relu", net.scale("scale_conv1", net.batch_norm("bn_conv1", x)))
    x = net.max_pool("pool1", x, kernel=3, stride=2)
    for stage, (blocks, width) in STAGES.items():
        for index in range(blocks):
            first = index == 0
            stride = 2 if first and stage > 2 else 1
            x = _bottleneck(net, f"{stage}{'abcdef'[index]}", x, width, stride=stride, project=first)
    x = net.ave_pool("pool5", x, kernel=7, stride=1)
    net.softmax("prob", net.inner_product("fc1000", x, classes))
    return net.text()
