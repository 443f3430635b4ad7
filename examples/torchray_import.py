"""TorchRay code, one import changed.

    from torchray.attribution.excitation_backprop import contrastive_excitation_backprop, excitation_backprop

becomes the import below, and TorchRay need not be installed. The model is a torch module, which comes out as it went
in, or, as here, a network that ebp_cuda loaded: digits in photographic scenes, trained in Caffe's format.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ebp_cuda.compat.torchray import contrastive_excitation_backprop, excitation_backprop
from ebp_cuda.images.maps import Panel, figure, overlay, save_figure
from ebp_cuda.images.preprocess import prepare
from ebp_cuda.models import digits

model = digits.load()
scene = next(scene for scene in digits.scenes.held_out_scenes(40) if len(scene.labels) == 3)
image = scene.image.astype(np.float32) / np.float32(255)
x = prepare(image, model.preprocess)

panels = [Panel(image, "scene")]
for digit in scene.labels:
    plain = excitation_backprop(model, x, digit, digits.LAYER, resize=True)
    contrastive = contrastive_excitation_backprop(
        model, x, digit, saliency_layer=digits.LAYER, contrast_layer=digits.CONTRAST_LAYER, resize=True
    )
    panels += [Panel(overlay(image, plain[0, 0]), f"{digit}: MWP"), Panel(overlay(image, contrastive[0, 0]), "c-MWP")]
print(f"two maps {list(plain.shape)} for each of the digits {scene.labels}")

out = Path(sys.argv[1] if len(sys.argv) > 1 else "examples-out")
out.mkdir(parents=True, exist_ok=True)
print(save_figure(figure([panels]), out / "torchray_import.png"))
