"""Excitation Backprop in the place of a CAM of pytorch-grad-cam: its targets, its overlay, its ROAD metric."""

from __future__ import annotations

import numpy as np
from photo import CONTRAST, LABELS, LAYER, SIZE, folder, network, photo
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from ebp_cuda.compat.grad_cam import ExcitationBackpropCAM

image, x = photo("rocket")
model = network()
targets = [ClassifierOutputTarget(LABELS.index("missile"))]

with ExcitationBackpropCAM(model, [model.blocks[5]], contrast_layer=CONTRAST, rules="conserving") as cam:
    ours = cam(input_tensor=x, targets=targets)
theirs = GradCAM(model, [model.blocks[5]])(input_tensor=x, targets=targets)

small = np.asarray(Image.fromarray((image * 255).astype(np.uint8)).resize(SIZE[::-1])) / 255
pictures = [show_cam_on_image(small.astype(np.float32), cam[0], use_rgb=True) for cam in (ours, theirs)]
path = folder() / "grad_cam_road.png"
Image.fromarray(np.hstack(pictures)).save(path)
print(f"{path}: Excitation Backprop and Grad-CAM at {LAYER}")

road = ROADCombined(percentiles=[50, 90])
for name, cam in (("Excitation Backprop", ours), ("Grad-CAM", theirs)):
    print(f"ROAD of {name}: {road(x, cam, targets, model)[0]:.3f} (higher is better)")
