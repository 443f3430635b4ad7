"""Networks of torchvision and timm by name, with weights that are on this machine: from a file, or the library's cache.

Labels and preprocessing come from what the library says of the weights. Nothing is downloaded here
(`ebp-cuda fetch torchvision:resnet50` does that), and files are read with weights_only.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ebp_cuda.errors import InputError, ModelError, UnsupportedError, nearest_names
from ebp_cuda.images.preprocess import Preprocess


@dataclass(frozen=True)
class LibraryModel:
    """A network of a library, in evaluation mode."""

    module: nn.Module
    preprocess: Preprocess
    shape: tuple[int, ...]
    """[1, C, ...] of the input."""
    labels: list[str] | None


def library_model(library: str, name: str, weights: Path | None, random: bool = False) -> LibraryModel:
    """The network `name` of a library.

    Args:
        library: "torchvision" or "timm".
        name: as the library knows it.
        weights: a state dict, .pth (.pt, .bin) or .safetensors; None: the library's default weights in its cache.
        random: without `weights`, random ones.

    Raises:
        InputError: no such network, or no weights.
        ModelError: weights that cannot be read, or do not fit.
        UnsupportedError: the library is not there.
    """
    return (_torchvision_model if library == "torchvision" else _timm_model)(name, weights, random)


def fetch_library_model(library: str, name: str) -> Path:
    """Has the library download its default weights for the network into its cache; the file.

    Raises:
        InputError: no such network, or it has no weights.
        ModelError: whatever hinders the download.
    """
    title = f"{library}:{name}"
    try:
        if library == "torchvision":
            _torchvision_weights(_library("torchvision").models, name).get_state_dict(check_hash=True)
        else:
            _library("timm").create_model(_timm_name(name), pretrained=True)
    except (InputError, UnsupportedError):
        raise
    except Exception as error:  # the libraries raise whatever their downloaders do
        raise ModelError(f"{title}: the weights cannot be downloaded: {error}") from error
    cached = _torchvision_cached(name) if library == "torchvision" else _timm_cached(name)
    if cached is None:
        raise ModelError(f"{title}: the library keeps no file of these weights")
    return cached


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a state dict by name, out of .safetensors, or of what torch.save wrote (weights_only).

    Raises ModelError where the file is missing, cannot be read, or holds something else.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            state: Any = _library("safetensors.torch").load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UnsupportedError:
        raise
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path}: not a readable state dict: {str(error).splitlines()[0]}") from error
    except Exception as error:  # safetensors has an error of its own
        raise ModelError(f"{path}: not a readable state dict: {error}") from error
    for key in ("state_dict", "model", "model_state_dict"):  # checkpoints of training scripts
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ModelError(f"{path}: holds no state dict; wanted tensors by parameter name")
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}  # of DataParallel


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except Exception as error:  # torchvision next to a torch of another build raises RuntimeError
        library = name.partition(".")[0]
        raise UnsupportedError(f"{library} cannot be imported (pip install {library}): {error}") from error


def _known(title: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise InputError(f"{title}: no such network{nearest_names(name, names)}")


def _loaded(make: Callable[..., nn.Module], path: Path, title: str) -> tuple[nn.Module, int | None]:
    """The network with the weights of a file, and the number of classes where it is not the usual one."""
    state, module = read_state(path), make()
    wrong = _mismatch(module, state)
    if not wrong:
        module.load_state_dict(state)
        return module, None
    classes = len(list(state.values())[-1]) if state and list(state.values())[-1].dim() else 0
    if classes:  # trained anew for other classes: the last parameter has one number for each
        module = make(num_classes=classes)
        if not _mismatch(module, state):
            module.load_state_dict(state)
            return module, classes
    raise ModelError(f"{path}: not weights of {title}: {wrong}")


def _mismatch(module: nn.Module, state: Mapping[str, torch.Tensor]) -> str:
    """The first difference between a network's parameters and a state dict, "" where there is none."""
    own = module.state_dict()
    for name, tensor in own.items():
        shape = list(state[name].shape) if name in state else "nothing"
        if shape != list(tensor.shape):
            return f"'{name}' is {list(tensor.shape)}, got {shape}"
    return next((f"no parameter '{name}'" for name in state if name not in own), "")


def _no_weights(title: str) -> InputError:
    return InputError(f"{title}: no weights are here; give --weights FILE, or get them: ebp-cuda fetch {title}")


def _torchvision_model(name: str, weights: Path | None, random: bool) -> LibraryModel:
    models, title = _library("torchvision").models, f"torchvision:{name}"
    _known(title, name, models.list_models())
    path = weights or (None if random else _torchvision_cached(name))
    if path is None and not random:
        raise _no_weights(title)
    entry = _torchvision_weights(models, name)
    of_file = [one for one in type(entry) if path is not None and Path(one.url).name == path.name]
    entry = of_file[0] if of_file else entry
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # which take a minute else

    def make(**more: Any) -> nn.Module:
        return models.get_model(name, weights=None, **_without_backbone(models, name), **options, **more)

    module, classes = (make(), None) if path is None else _loaded(make, path, title)
    how = Preprocess.from_torchvision(entry)
    labels = None if classes or path is None else list(entry.meta["categories"])
    return LibraryModel(module.eval(), how, (1, 3, *(how.size or (224, 224))), labels)


def _without_backbone(models: Any, name: str) -> dict[str, None]:
    """Segmentation and detection networks would download the weights of their backbones, if nobody forbids it."""
    import inspect

    takes = inspect.signature(models.get_model_builder(name)).parameters
    return {"weights_backbone": None} if "weights_backbone" in takes else {}


def _torchvision_weights(models: Any, name: str) -> Any:
    _known(f"torchvision:{name}", name, models.list_models())
    return models.get_model_weights(name).DEFAULT


def _torchvision_cached(name: str) -> Path | None:
    url = _torchvision_weights(_library("torchvision").models, name).url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    return path if path.is_file() else None


def _timm_name(name: str) -> str:
    _known(
        f"timm:{name}", name.partition(".")[0], _library("timm").list_models()
    )  # weights may follow: resnet50.a1_in1k
    return name


def _timm_model(name: str, weights: Path | None, random: bool) -> LibraryModel:
    timm, title = _library("timm"), f"timm:{name}"
    _timm_name(name)
    path = weights or (None if random else _timm_cached(name))
    if path is None and not random:
        raise _no_weights(title)

    def make(**more: Any) -> nn.Module:
        return timm.create_model(name, pretrained=False, **more)

    module, classes = (make(), None) if path is None else _loaded(make, path, title)
    how = Preprocess.from_timm(module)
    labels = None if classes or path is None else _timm_labels(module)
    return LibraryModel(module.eval(), how, (1, how.channels, *(how.size or (224, 224))), labels)


def _timm_labels(module: nn.Module) -> list[str] | None:
    """The names that the weights' config has, or those of the ImageNet subset that they were trained for."""
    config: Any = module.pretrained_cfg
    if config.get("label_names"):
        return list(config["label_names"])
    data = _library("timm.data")
    subset = data.infer_imagenet_subset(module)
    if not subset:
        return None
    info = data.ImageNetInfo(subset)
    return [info.index_to_description(index) for index in range(info.num_classes())]


def _timm_cached(name: str) -> Path | None:
    """The weights' file in the cache of the hub that the config names."""
    config = _library("timm").get_pretrained_cfg(name)
    if config is None:
        return None
    if config.url:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name
        if path.is_file():
            return path
    if config.hf_hub_id:
        hub = _library("huggingface_hub")
        for file in ("model.safetensors", "pytorch_model.bin"):
            cached = hub.try_to_load_from_cache(config.hf_hub_id, file)
            if isinstance(cached, str):
                return Path(cached)
    return None
