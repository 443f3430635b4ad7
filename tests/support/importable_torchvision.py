"""Imported by conftest.py, before any test imports torchvision or timm.

The published torchvision wheels are linked against CUDA: next to a CPU build of torch their compiled operators do not
load, and torchvision then stumbles over its own registration of two of them. No classifier needs these; declared here,
everything written in Python works.
"""

from __future__ import annotations

import importlib.util

import torch


def _declare_operators() -> None:
    """The schemas of what torchvision registers without looking, unless its compiled operators load."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return
    try:
        torch.ops.load_library(f"{spec.submodule_search_locations[0]}/_C.so")
    except OSError:
        for name in ("nms", "qnms"):
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
_declare_operators()
