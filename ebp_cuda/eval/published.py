"""Published accuracies of the pointing game, percent, to stand beside those measured here.

Source: docs/pointing.csv of TorchRay (github.com/facebookresearch/TorchRay), measured with the original networks
converted to PyTorch. The paper's own table and its GoogLeNet are left out: no public file was found to check them by.
"""

from __future__ import annotations

SOURCE = "TorchRay, docs/pointing.csv"

_METHODS = {
    "center": (69.6, 42.4, 69.6, 42.4, 27.8, 19.5, 27.8, 19.5),
    "gradient": (76.3, 56.9, 72.3, 56.8, 37.7, 31.4, 35.0, 29.4),
    "deconv": (67.5, 44.2, 68.6, 44.7, 30.7, 23.0, 30.0, 21.9),
    "guided": (75.9, 53.0, 77.2, 59.4, 39.1, 31.4, 42.1, 35.3),
    "mwp": (77.1, 56.6, 84.5, 70.8, 39.8, 32.8, 49.6, 43.9),
    "c-mwp": (79.9, 66.5, 90.7, 82.1, 49.7, 44.3, 58.5, 53.6),
    "grad-cam": (86.6, 74.0, 90.4, 82.3, 54.2, 49.0, 57.3, 52.3),
}
_COLUMNS = {("voc07", "vgg16"): 0, ("voc07", "resnet50"): 2, ("coco14", "vgg16"): 4, ("coco14", "resnet50"): 6}


def pointing(dataset: str, network: str | None, method: str) -> tuple[float, float] | None:
    """(all, difficult) in percent, mean over classes; None where nothing is published."""
    column = _COLUMNS.get((dataset, network or ""))
    if column is None or method not in _METHODS:
        return None
    values = _METHODS[method]
    return values[column], values[column + 1]
