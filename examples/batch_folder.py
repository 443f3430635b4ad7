"""A folder of photos to maps: sharded files with an index, which can be opened while the run goes on or later."""

from __future__ import annotations

from photo import CONTRAST, LABELS, LAYER, SIZE, folder, network
from PIL import Image
from skimage import data

import ebp_cuda
from ebp_cuda import batch
from ebp_cuda.models import efficientnet_lite0

out = folder()
photos = out / "photos"
photos.mkdir(exist_ok=True)
for name in ("chelsea", "coffee", "rocket"):
    Image.fromarray(getattr(data, name)()).save(photos / f"{name}.png")

how = {**efficientnet_lite0.PREPROCESS, "size": SIZE, "shortest_side": None}
example = network().classifier.weight.new_zeros(1, 3, *SIZE)
net = ebp_cuda.from_torch(network(), example, labels=LABELS, preprocess=how)
method = ebp_cuda.ExcitationBackprop(net, layer=LAYER, contrast_layer=CONTRAST, rules="conserving")
summary = batch.run(photos, method, out / "maps", target="top2", workers=0)
print(f"{summary.images} images, {summary.failed} failed")
for entry in batch.open(out / "maps"):
    print(entry.image, [LABELS[index] for index in entry.targets], entry.maps.shape)
