"""TorchRay's own pointing game, on a small set in the folders of PASCAL VOC, with TorchRay's method and with ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.compat_nets import FullyConvolutional
from torch import nn

import ebp_cuda.compat.torchray as ours

theirs = pytest.importorskip("torchray.attribution.excitation_backprop", reason="TorchRay is not installed")
common = pytest.importorskip("torchray.attribution.common")

ANNOTATION = """<annotation><filename>{name}.jpg</filename><size><width>{width}</width><height>{height}</height>
<depth>3</depth></size>{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>
<ymax>{}</ymax></bndbox></object>"""


def voc_like(root: Path) -> Path:
    """Six pictures and their boxes in the folders of PASCAL VOC 2007."""
    from torchray.benchmark.datasets import VOC_CLASSES

    draw = np.random.default_rng(0)
    top = root / "VOCdevkit" / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (top / folder).mkdir(parents=True)
    names = [f"{i:06d}" for i in range(6)]
    for i, name in enumerate(names):
        width, height = [(100, 75), (75, 100), (90, 90)][i % 3]
        pixels = draw.integers(0, 256, (height // 5, width // 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(top / "JPEGImages" / f"{name}.jpg")
        boxes = [(5, 5, 40, 40), (30, 35, 70, 70)]
        classes = draw.choice(VOC_CLASSES, 2, replace=False)
        objects = "".join(OBJECT.format(*box, name=label) for box, label in zip(boxes, classes, strict=True))
        text = ANNOTATION.format(name=name, width=width, height=height, objects=objects)
        (top / "Annotations" / f"{name}.xml").write_text(text)
    (top / "ImageSets" / "Main" / "test.txt").write_text("\n".join(names) + "\n")
    return root


def pointing_game(library, root: Path, model: nn.Module) -> tuple[list[int], str]:
    """TorchRay's pointing game on PASCAL VOC, with the excitation backprop of `library`."""
    import torchvision
    from torchray.benchmark.datasets import VOCDetection
    from torchray.benchmark.models import get_transform
    from torchray.benchmark.pointing_game import PointingGameBenchmark

    class Pictures(VOCDetection):
        def _compatible_init(self, *args, **options) -> None:  # TorchRay's fits no torchvision of these years
            torchvision.datasets.VOCDetection.__init__(self, *args, **options)

    data = Pictures(str(root), year="2007", image_set="test", transform=get_transform(dataset="voc", size=64))
    game, hits = PointingGameBenchmark(data), []
    for i in range(len(data)):
        image, label = data[i]
        size = data.as_image_size(label)
        for index in data.as_class_ids(label):
            options = {"resize": size, "get_backward_gradient": common.get_pointing_gradient}
            x = image.unsqueeze(0).double()
            found = library.contrastive_excitation_backprop(model, x, index, "features.4", "classifier.1", **options)
            peak = int(found.flatten().argmax())
            hits.append(game.evaluate(label, index, (peak % found.shape[3], peak // found.shape[3])))
            game.aggregate(hits[-1], index)
    return hits, str(game)


def test_torchrays_pointing_game_runs_on_it(tmp_path) -> None:
    root = voc_like(tmp_path)
    model = FullyConvolutional().double().eval()
    got, wanted = pointing_game(ours, root, model), pointing_game(theirs, root, model)
    assert got == wanted and len(got[0]) == 12 and set(got[0]) == {1, -1}
