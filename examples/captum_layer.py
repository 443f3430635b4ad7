"""Excitation Backprop as a layer attribution of Captum, with Captum's own picture and metric."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

from captum.attr import LayerAttribution, visualization
from captum.metrics import sensitivity_max
from photo import CONTRAST, LABELS, LAYER, folder, network, photo

from ebp_cuda.compat.captum import LayerExcitationBackprop

image, x = photo("coffee")
model = network()
target = LABELS.index("espresso")

method = LayerExcitationBackprop(model, model.get_submodule(LAYER), contrast_layer=CONTRAST, rules="conserving")
found = method.attribute(x, target=target)
print(f"relevance of every unit of {LAYER}: {list(found.shape)}")

# A map of the size of the photo, by Captum's interpolation, in Captum's picture.
large = LayerAttribution.interpolate(found.sum(1, keepdim=True), image.shape[:2], "bilinear")
drawn, _ = visualization.visualize_image_attr(
    large[0].permute(1, 2, 0).numpy(), image, method="blended_heat_map", sign="positive", use_pyplot=False
)
path = folder() / "captum_layer.png"
drawn.savefig(path)
print(path)

# Captum's metrics want a tuple for a layer's attributions, of its own methods too.
moved = sensitivity_max(
    lambda *args, **more: (method.attribute(*args, **more),), x, perturb_radius=0.02, n_perturb_samples=2, target=target
)
print(f"largest relative change of the relevance under noise of 0.02: {moved.item():.3f}")
