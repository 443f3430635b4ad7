"""caffe.draw: a network as a picture of its layers and blobs, in Graphviz's language.

The text needs nothing; a picture of it needs the program `dot`, and `get_pydot_graph` the package pydot.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import InputError, UnsupportedError
from ...files import atomic_path
from ...importers.caffe.schema import enum_name
from .modes import TEST, TRAIN

__all__ = ["dot_text", "draw_net", "draw_net_to_file", "get_pydot_graph"]

_TEXT = ("dot", "gv")
_DIRECTIONS = ("LR", "TB", "BT", "RL")
_COLORS = {"Convolution": "#FF5050", "Pooling": "#FF9900", "InnerProduct": "#CC33FF"}
_OTHER_COLOR = "#6495ED"
_BLOB_COLOR = "#E0E0E0"


def draw_net_to_file(caffe_net: Any, filename: str | Path, rankdir: str = "LR", phase: int | None = None) -> None:
    """Draws a NetParameter into a file, whose ending says how: .png, .svg, .pdf, or .dot for the text itself.

    Args:
        caffe_net: a caffe_pb2.NetParameter.
        filename: where the picture goes.
        rankdir: "LR" from left to right, "TB", "BT", "RL".
        phase: caffe.TRAIN or caffe.TEST leaves out the layers of the other one.

    Raises:
        InputError: an ending, direction or phase that there is not; a file that cannot be written.
        UnsupportedError: anything but text without the program `dot` (Graphviz).
    """
    picture = draw_net(caffe_net, rankdir, Path(filename).suffix.removeprefix("."), phase)
    with atomic_path(Path(filename)) as temporary:
        temporary.write_bytes(picture)


def draw_net(caffe_net: Any, rankdir: str = "LR", ext: str = "png", phase: int | None = None) -> bytes:
    """The picture of a NetParameter in the format `ext`, as bytes; raises as `draw_net_to_file`."""
    text = dot_text(caffe_net, rankdir, phase=phase).encode()
    if ext in _TEXT:
        return text
    if not ext:
        raise InputError("caffe.draw: a file name without an ending; wanted .png, .svg, .pdf, .dot or another of dot's")
    program = shutil.which("dot")
    if program is None:
        raise UnsupportedError(f"caffe.draw: .{ext} needs Graphviz' program dot (apt install graphviz); .dot does not")
    done = subprocess.run([program, f"-T{ext}"], input=text, capture_output=True, check=False)
    if done.returncode:
        raise InputError(f"caffe.draw: dot makes no '{ext}': {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def get_pydot_graph(caffe_net: Any, rankdir: str = "LR", label_edges: bool = True, phase: int | None = None) -> Any:
    """The same as a pydot graph. Raises UnsupportedError without the package pydot."""
    try:
        import pydot
    except ImportError:
        raise UnsupportedError("caffe.draw.get_pydot_graph needs the package pydot (pip install pydot)") from None
    return pydot.graph_from_dot_data(dot_text(caffe_net, rankdir, label_edges, phase))[0]


def dot_text(caffe_net: Any, rankdir: str = "LR", label_edges: bool = True, phase: int | None = None) -> str:
    """A NetParameter in Graphviz's language.

    Args:
        caffe_net: what `caffe.to_proto` gives, or a prototxt read into caffe_pb2.NetParameter.
        rankdir: "LR" from left to right, "TB", "BT", "RL".
        label_edges: number of outputs beside the edges that leave Convolution, Deconvolution and InnerProduct.
        phase: caffe.TRAIN or caffe.TEST leaves out the layers of the other one.
    """
    if rankdir not in _DIRECTIONS or phase not in (None, TRAIN, TEST):
        raise InputError(f"caffe.draw: rankdir {rankdir!r}, phase {phase!r}; wanted {', '.join(_DIRECTIONS)}, a phase")
    lines = [f"digraph {_quoted(caffe_net.name or 'Net')} {{", f"rankdir={rankdir};"]
    blobs: dict[str, None] = dict.fromkeys(caffe_net.input)
    for index, layer in enumerate(caffe_net.layer):
        if phase is not None and not _in_phase(layer, phase):
            continue
        node = f"layer{index}"
        color = _COLORS.get(layer.type, _OTHER_COLOR)
        label = _quoted("\n".join(_layer_label(layer)))
        lines.append(f'{node} [label={label}, shape=box, style=filled, fillcolor="{color}"];')
        edge = f" [label={_quoted(_edge_label(layer))}]" if label_edges and _edge_label(layer) else ""
        for blob in layer.bottom:
            lines.append(f"{_quoted(f'blob {blob}')} -> {node};")
        for blob in layer.top:
            lines.append(f"{node} -> {_quoted(f'blob {blob}')}{edge};")
        blobs.update(dict.fromkeys((*layer.bottom, *layer.top)))
    shape = f'shape=octagon, style=filled, fillcolor="{_BLOB_COLOR}"'
    lines += [f"{_quoted(f'blob {blob}')} [label={_quoted(blob)}, {shape}];" for blob in blobs]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    """A string of the language; a line break in it is one of the label."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _layer_label(layer: Any) -> Iterator[str]:
    yield layer.name
    yield f"({layer.type})"
    if layer.type in ("Convolution", "Deconvolution", "Pooling"):
        pooling = layer.type == "Pooling"
        param = layer.pooling_param if pooling else layer.convolution_param
        if pooling:
            yield enum_name(param, "pool")
        for name, default in (("kernel_size", 0), ("stride", 1), ("pad", 0)):
            for_all = getattr(param, name)
            short = name.removesuffix("_size")
            sides = [getattr(param, f"{short}_h"), getattr(param, f"{short}_w")]
            numbers = sides if any(sides) else [for_all] if pooling else list(for_all) or [default]
            yield f"{name.replace('_', ' ')}: {' x '.join(map(str, numbers))}"


def _edge_label(layer: Any) -> str:
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    return str(layer.inner_product_param.num_output) if layer.type == "InnerProduct" else ""


def _in_phase(layer: Any, phase: int) -> bool:
    def names(rules: Any) -> bool:
        return any(not rule.HasField("phase") or rule.phase == phase for rule in rules)

    if layer.include:
        return names(layer.include)
    return not any(rule.HasField("phase") and rule.phase == phase for rule in layer.exclude)
