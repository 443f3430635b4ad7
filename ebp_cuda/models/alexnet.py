"""AlexNet (Krizhevsky et al. 2012) and CaffeNet, BVLC's deploy networks.

They differ in one thing: AlexNet normalizes before it pools, CaffeNet pools first.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._prototxt import PrototxtWriter


def _norm_pool(net: PrototxtWriter, stage: int, x: str, *, pool_first: bool) -> str:
    if pool_first:
        return net.lrn(f"norm{stage}", net.max_pool(f"pool{stage}", x, kernel=3, stride=2))
    return net.max_pool(f"pool{stage}", net.lrn(f"norm{stage}", x), kernel=3, stride=2)


def _build(name: str, shape: Sequence[int], classes: int, *, pool_first: bool) -> str:
    net = PrototxtWriter(name)
    x = net.relu("relu1", net.conv("conv1", net.input("data", shape), 96, kernel=11, stride=4))
    x = _norm_pool(net, 1, x, pool_first=pool_first)
    x = net.relu("relu2", net.conv("conv2", x, 256, kernel=5, pad=2, group=2))
    x = _norm_pool(net, 2, x, pool_first=pool_first)
    x = net.relu("relu3", net.conv("conv3", x, 384, kernel=3, pad=1))
    x = net.relu("relu4", net.conv("conv4", x, 384, kernel=3, pad=1, group=2))
    x = net.relu("relu5", net.conv("conv5", x, 256, kernel=3, pad=1, group=2))
    x = net.max_pool("pool5", x, kernel=3, stride=2)
    for index in (6, 7):
        x = net.relu(f"relu{index}", net.inner_product(f"fc{index}", x, 4096))
        x = net.dropout(f"drop{index}", x, 0.5)
    net.softmax("prob", net.inner_product("fc8", x, classes))
    return net.text()


def alexnet(shape: Sequence[int] = (1, 3, 227, 227), classes: int = 1000) -> str:
    """The deploy prototxt of BVLC AlexNet. shape: [N, 3, 227, 227]."""
    return _build("AlexNet", shape, classes, pool_first=False)


def caffenet(shape: Sequence[int] = (1, 3, 227, 227), classes: int = 1000) -> str:
    """The deploy prototxt of BVLC's reference CaffeNet. shape: [N, 3, 227, 227]."""
    return _build("CaffeNet", shape, classes, pool_first=True)
