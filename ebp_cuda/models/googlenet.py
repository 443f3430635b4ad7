"""GoogLeNet: the BVLC ImageNet classifier and the fully convolutional COCO network of the Excitation Backprop paper.

Geometry: Szegedy et al. 2015, table 1; names: BVLC's deploy network.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._prototxt import PrototxtWriter

INCEPTION = {
    # block: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, projection behind the pool
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def _conv_relu(
    net: PrototxtWriter, prefix: str, part: str, x: str, outputs: int, *, kernel: int = 1, pad: int = 0, stride: int = 1
) -> str:
    shown = part.split("_s")[0]  # the stem's "7x7_s2" has a ReLU named after "7x7"
    x = net.conv(f"{prefix}/{part}", x, outputs, kernel=kernel, pad=pad, stride=stride)
    return net.relu(f"{prefix}/relu_{shown}", x)


def _inception(net: PrototxtWriter, block: str, x: str) -> str:
    one, three_reduce, three, five_reduce, five, projection = INCEPTION[block]
    prefix = f"inception_{block}"
    branch1 = _conv_relu(net, prefix, "1x1", x, one)
    branch3 = _conv_relu(net, prefix, "3x3_reduce", x, three_reduce)
    branch3 = _conv_relu(net, prefix, "3x3", branch3, three, kernel=3, pad=1)
    branch5 = _conv_relu(net, prefix, "5x5_reduce", x, five_reduce)
    branch5 = _conv_relu(net, prefix, "5x5", branch5, five, kernel=5, pad=2)
    pooled = net.max_pool(f"{prefix}/pool", x, kernel=3, stride=1, pad=1)
    pooled = _conv_relu(net, prefix, "pool_proj", pooled, projection)
    return net.concat(f"{prefix}/output", [branch1, branch3, branch5, pooled])


def _trunk(net: PrototxtWriter, shape: Sequence[int]) -> str:
    """From the input to pool5/7x7_s1."""
    x = _conv_relu(net, "conv1", "7x7_s2", net.input("data", shape), 64, kernel=7, pad=3, stride=2)
    x = net.max_pool("pool1/3x3_s2", x, kernel=3, stride=2)
    x = net.lrn("pool1/norm1", x)
    x = _conv_relu(net, "conv2", "3x3_reduce", x, 64)
    x = _conv_relu(net, "conv2", "3x3", x, 192, kernel=3, pad=1)
    x = net.lrn("conv2/norm2", x)
    x = net.max_pool("pool2/3x3_s2", x, kernel=3, stride=2)
    for block in INCEPTION:
        x = _inception(net, block, x)
        if block in ("3b", "4e"):
            x = net.max_pool(f"pool{block[0]}/3x3_s2", x, kernel=3, stride=2)
    return net.ave_pool("pool5/7x7_s1", x, kernel=7, stride=1)


def googlenet(shape: Sequence[int] = (1, 3, 224, 224), classes: int = 1000) -> str:
    """The deploy prototxt of BVLC GoogLeNet. shape: [N, 3, 224, 224] (the classifier fixes the size)."""
    net = PrototxtWriter("GoogleNet")
    x = net.dropout("pool5/drop_7x7_s1", _trunk(net, shape), 0.4)
    net.softmax("prob", net.inner_product("loss3/classifier", x, classes))
    return net.text()


def googlenet_coco(shape: Sequence[int] = (1, 3, 224, 224), classes: int = 80) -> str:
    """The deploy prototxt of the paper's COCO network, fully convolutional: 223 x 223 and larger.

    Its class scores are independent (sigmoid). The original file ends in a loss that only makes its backward
    pass start; nothing reads it, and it is left out.
    """
    net = PrototxtWriter("GoogleNet")
    net.sigmoid("prob", net.conv("loss3/classifier", _trunk(net, shape), classes, kernel=1))
    return net.text()
