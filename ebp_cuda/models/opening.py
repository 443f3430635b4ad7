"""A network by what people call it: a file, `torchvision:NAME`, `timm:NAME`, or one that this package knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ebp_cuda.errors import InputError, nearest_names

from .catalogue import MODELS

if TYPE_CHECKING:
    from ebp_cuda.net import Net

LIBRARIES = ("torchvision", "timm")
FILES = (".onnx", ".prototxt", ".pt2")
DIGITS, EFFICIENTNET = "digits", "efficientnet_lite0"
KINDS = (
    f"NET.onnx, DEPLOY.prototxt, PROGRAM.pt2, torchvision:NAME, timm:NAME, {DIGITS}, {EFFICIENTNET}, or one of the "
    f"catalogue ({', '.join(MODELS)})"
)


def open_model(model: str | Path, weights: str | Path | None = None, *, random: bool = False) -> Net:
    """The network that `model` names, with its labels and its preprocessing.

    Args:
        model: NET.onnx, DEPLOY.prototxt (with `weights`), an archive of torch.export (.pt2); "torchvision:NAME" or
            "timm:NAME"; "digits" or "efficientnet_lite0"; or a name of the catalogue, whose weights `ebp-cuda fetch`
            has put into the current folder. A file of that name goes first.
        weights: WEIGHTS.caffemodel of a prototxt or of a network of the catalogue; a state dict (.pth, .safetensors)
            of a torch network, read with weights_only. None: those that come along, or that a cache holds.
        random: where weights are neither given nor needed to come along, random ones, for what does not depend on
            them. Without this, a network without weights is refused.

    Raises:
        InputError: an unknown name, weights that are missing or do not belong to it.
        ModelError: a file that is missing, malformed, or does not fit.
        UnsupportedError: the library is missing, or the network has a layer without an importer.
    """
    name, own = str(model), None if weights is None else Path(weights)
    library, _, rest = name.partition(":")
    if Path(name).is_file() or Path(name).suffix in FILES or "/" in name:
        return _from_files(Path(name), own, random)
    if library in LIBRARIES and rest:
        return _from_library(library, rest, own, random)
    if name == DIGITS:
        from . import digits

        _refuse_weights(name, own)
        return digits.load()
    if name == EFFICIENTNET:
        return _efficientnet(own)
    if name in MODELS:
        return _from_catalogue(name, own, random)
    near = nearest_names(name, [*MODELS, DIGITS, EFFICIENTNET])
    raise InputError(f"--model {name}: no such file or network{near}; wanted {KINDS}")


def _from_files(model: Path, weights: Path | None, random: bool) -> Net:
    from ebp_cuda.net import load

    if weights is None and model.suffix == ".prototxt" and not random:
        raise InputError(f"--model {model} holds no weights; give --weights WEIGHTS.caffemodel")
    if model.suffix in (".onnx", ".pt2"):
        _refuse_weights(str(model), weights)
    return load(model, weights)


def _refuse_weights(model: str, weights: Path | None) -> None:
    if weights is not None:
        raise InputError(f"--weights {weights}: {model} carries its own; they belong to a prototxt or a torch network")


def _from_library(library: str, name: str, weights: Path | None, random: bool) -> Net:
    import torch

    from ebp_cuda.net import from_torch

    from .libraries import library_model

    made = library_model(library, name, weights, random)
    net = from_torch(made.module, torch.zeros(made.shape), labels=made.labels, preprocess=made.preprocess.to_dict())
    net.graph.meta["origin"] = f"{library}:{name}"
    return net


def _efficientnet(weights: Path | None) -> Net:
    import torch

    from ebp_cuda.net import from_torch

    from . import efficientnet_lite0, labels

    module = efficientnet_lite0.load(weights)
    how = {**efficientnet_lite0.PREPROCESS, "size": [224, 224], "shortest_side": None}
    net = from_torch(module, torch.zeros(1, 3, 224, 224), labels=labels("imagenet"), preprocess=how)
    net.graph.meta["origin"] = EFFICIENTNET
    return net


def _from_catalogue(name: str, weights: Path | None, random: bool) -> Net:
    import tempfile

    from ebp_cuda.net import load

    from . import labels, model, preprocess, prototxt

    entry = model(name)
    fetched = Path(entry.weights.file)
    path = weights if weights is not None else fetched if fetched.is_file() else None
    if path is None and not random:
        raise InputError(
            f"--model {name}: {fetched} is not in this folder; give --weights FILE, or get it: ebp-cuda fetch {name}"
        )
    with tempfile.TemporaryDirectory() as folder:
        deploy = Path(folder) / f"{name}.prototxt"
        deploy.write_text(prototxt(name), encoding="utf-8")
        net = load(deploy, path, labels=labels(name), preprocess=preprocess(name))
    net.graph.meta["origin"] = name
    return net
