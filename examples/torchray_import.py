"""TorchRay code, one import changed.

    from torchray.attribution.excitation_backprop import contrastive_excitation_backprop, excitation_backprop

becomes the import below. TorchRay need not be installed, and the model comes out as it went in.
"""

from __future__ import annotations

from photo import CONTRAST, LABELS, LAYER, folder, network, photo

from ebp_cuda.compat.torchray import contrastive_excitation_backprop, excitation_backprop
from ebp_cuda.maps import Panel, figure, overlay, save_figure

image, x = photo("chelsea")
model = network()
target = LABELS.index("Egyptian cat")

# Layers by name or as modules, as in TorchRay.
plain = excitation_backprop(model, x, target, LAYER, resize=True)
contrastive = contrastive_excitation_backprop(
    model, x, target, saliency_layer=model.get_submodule(LAYER), contrast_layer=CONTRAST, resize=True
)
print(f"maps {list(plain.shape)}, {list(contrastive.shape)}; parameters still want gradients: ", end="")
print(all(parameter.requires_grad for parameter in model.parameters()))

panels = [Panel(image, "photo")]
for title, found in (("MWP", plain), ("c-MWP", contrastive)):
    panels.append(Panel(overlay(image, found[0, 0]), title))
print(save_figure(figure([panels]), folder() / "torchray_import.png"))
