"""Writes a Caffe prototxt layer by layer: `PrototxtWriter` collects layers, `PrototxtWriter.text()` is the file.

Every method that adds a layer returns the name of the blob it writes, so a description reads like the
network: `x = net.relu("relu1", net.conv("conv1", x, 64, kernel=3, pad=1))`. Nothing is computed here; the
shapes are worked out by whoever reads the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ebp_cuda.errors import ModelError


class Word(str):
    """An enum value of the prototxt, written without quotes (`pool: MAX`)."""


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)


def format_fields(fields: Mapping[str, Any]) -> str:
    """One line of protobuf text: `None` is left out, a sequence repeats its field, a mapping is a message."""
    parts: list[str] = []
    for key, value in fields.items():
        repeated = value if isinstance(value, (list, tuple)) else [value]
        for item in repeated:
            if item is None:
                continue
            parts.append(
                f"{key} {{ {format_fields(item)} }}" if isinstance(item, Mapping) else f"{key}: {_scalar(item)}"
            )
    return " ".join(parts)


class PrototxtWriter:
    """A network under construction.

    name: the prototxt's `name`. In-place layers (`relu`, `dropout`, `batch_norm`, `scale`) write the blob
    they read, as the published networks do; `top` gives them a blob of their own.
    Raises ModelError for a bottom that no earlier layer writes and for a layer name used twice.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lines: list[str] = [format_fields({"name": name}), "force_backward: true"]
        self._blobs: set[str] = set()
        self._layers: set[str] = set()

    def input(self, name: str, shape: Sequence[int]) -> str:
        """Declare the input blob `name` of the given shape, [N, C, H, W] for images."""
        self._lines += [format_fields({"input": name}), format_fields({"input_shape": {"dim": list(shape)}})]
        self._blobs.add(name)
        return name

    def layer(self, name: str, kind: str, bottoms: str | Sequence[str], top: str | None = None, **fields: Any) -> str:
        """Add any layer: `kind` is Caffe's type, `fields` its messages (`pooling_param={"pool": Word("AVE")}`)."""
        bottom_list = [bottoms] if isinstance(bottoms, str) else list(bottoms)
        unknown = [blob for blob in bottom_list if blob not in self._blobs]
        if unknown:
            raise ModelError(
                f"{self.name}: layer '{name}' ({kind}) reads '{unknown[0]}', which no earlier layer writes"
            )
        if name in self._layers:
            raise ModelError(f"{self.name}: layer '{name}' ({kind}) is there already")
        top = name if top is None else top
        body = {"name": name, "type": kind, "bottom": bottom_list, "top": top, **fields}
        self._lines.append(format_fields({"layer": body}))
        self._blobs.add(top)
        self._layers.add(name)
        return top

    def conv(
        self,
        name: str,
        bottom: str,
        outputs: int,
        *,
        kernel: int,
        stride: int = 1,
        pad: int = 0,
        group: int = 1,
        bias: bool = True,
    ) -> str:
        """Convolution with a square kernel; blobs: weight [outputs, C/group, kernel, kernel], bias [outputs]."""
        param = {
            "num_output": outputs,
            "bias_term": None if bias else False,
            "pad": pad or None,
            "kernel_size": kernel,
            "stride": stride if stride != 1 else None,
            "group": group if group != 1 else None,
        }
        return self.layer(name, "Convolution", bottom, convolution_param=param)

    def inner_product(self, name: str, bottom: str, outputs: int) -> str:
        """Fully connected; blobs: weight [outputs, C*H*W], bias [outputs]."""
        return self.layer(name, "InnerProduct", bottom, inner_product_param={"num_output": outputs})

    def relu(self, name: str, bottom: str, top: str | None = None) -> str:
        return self.layer(name, "ReLU", bottom, top or bottom)

    def dropout(self, name: str, bottom: str, ratio: float) -> str:
        return self.layer(name, "Dropout", bottom, bottom, dropout_param={"dropout_ratio": ratio})

    def max_pool(self, name: str, bottom: str, *, kernel: int, stride: int = 1, pad: int = 0) -> str:
        return self._pool(name, bottom, "MAX", kernel, stride, pad)

    def ave_pool(self, name: str, bottom: str, *, kernel: int, stride: int = 1, pad: int = 0) -> str:
        return self._pool(name, bottom, "AVE", kernel, stride, pad)

    def _pool(self, name: str, bottom: str, method: str, kernel: int, stride: int, pad: int) -> str:
        param = {"pool": Word(method), "kernel_size": kernel, "stride": stride, "pad": pad or None}
        return self.layer(name, "Pooling", bottom, pooling_param=param)

    def lrn(self, name: str, bottom: str, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> str:
        """Local response normalisation across channels."""
        return self.layer(name, "LRN", bottom, lrn_param={"local_size": size, "alpha": alpha, "beta": beta})

    def batch_norm(self, name: str, bottom: str, top: str | None = None) -> str:
        """Batch normalisation by stored statistics; blobs: mean [C], variance [C], scale factor [1]."""
        return self.layer(name, "BatchNorm", bottom, top or bottom, batch_norm_param={"use_global_stats": True})

    def scale(self, name: str, bottom: str, top: str | None = None) -> str:
        """Per-channel factor and shift; blobs: factor [C], shift [C]."""
        return self.layer(name, "Scale", bottom, top or bottom, scale_param={"bias_term": True})

    def concat(self, name: str, bottoms: Sequence[str]) -> str:
        """Concatenation along the channels."""
        return self.layer(name, "Concat", bottoms)

    def eltwise_sum(self, name: str, bottoms: Sequence[str]) -> str:
        return self.layer(name, "Eltwise", bottoms, eltwise_param={"operation": Word("SUM")})

    def softmax(self, name: str, bottom: str) -> str:
        return self.layer(name, "Softmax", bottom)

    def sigmoid(self, name: str, bottom: str) -> str:
        return self.layer(name, "Sigmoid", bottom)

    def text(self) -> str:
        """The prototxt, one layer a line."""
        return "\n".join(self._lines) + "\n"
