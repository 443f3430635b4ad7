"""What is known about each published network: description, input, classes, attribution layers, weights.

Sources of the numbers: the networks' own release notes (BVLC's model zoo front matter, the VGG gists, the
deep-residual-networks release, the Excitation Backprop demos) and, for byte sizes and SHA-256, Open Model Zoo's and
MXNet's download lists. A size or hash that no public document states is None or absent, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import alexnet, googlenet, resnet, vgg


@dataclass(frozen=True)
class Weights:
    """A published .caffemodel."""

    file: str
    urls: tuple[str, ...]
    """Where it was published, the authors' address first."""
    license: str
    size: int | None = None
    """Bytes, None where no public document states it."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """hashlib name -> hex digest; empty where no public document states one."""


@dataclass(frozen=True)
class Model:
    """One network of the catalogue."""

    name: str
    title: str
    build: Callable[..., str]
    """build(shape, classes) -> deploy prototxt"""
    input_shape: tuple[int, int, int, int]
    classes: int
    label_set: str
    preprocess: Mapping[str, Any]
    """x = (image in 0..1 * raw_scale - mean) / std in channel_order, after resizing to size [h, w] or shortest_side."""
    layer: str
    """Blob whose attribution map the paper or its demos show (VGG19 like VGG16; AlexNet and CaffeNet: our choice)."""
    contrast_layer: str
    """Blob below the classifier, where the contrastive map subtracts."""
    top: str
    """Layer of the class scores before softmax or sigmoid."""
    weights: Weights


def _bgr(mean: Sequence[float], *, size: int | None = None, shortest_side: int | None = None) -> dict[str, Any]:
    return {
        "size": None if size is None else [size, size],
        "shortest_side": shortest_side,
        "channel_order": "BGR",
        "raw_scale": 255.0,
        "mean": list(mean),
        "std": [1.0, 1.0, 1.0],
    }


_BVLC_MEAN = (104.0, 117.0, 123.0)
_VGG_MEAN = (103.939, 116.779, 123.68)
_RESNET_MEAN = (103.062623801, 115.902882574, 123.151630838)
"""Per-channel average of ResNet_mean.binaryproto, the mean image the authors ship."""

_BVLC = "http://dl.caffe.berkeleyvision.org/"
_OXFORD = "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/"
_MXNET = "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/caffe/models/"
_ONEDRIVE = "https://onedrive.live.com/download?cid=4006CBB8476FF777&resid=4006CBB8476FF777%21"

_MODELS = (
    Model(
        name="googlenet",
        title="BVLC GoogLeNet (ImageNet)",
        build=googlenet.googlenet,
        input_shape=(1, 3, 224, 224),
        classes=1000,
        label_set="imagenet",
        preprocess=_bgr(_BVLC_MEAN, size=224),
        layer="pool2/3x3_s2",
        contrast_layer="pool5/7x7_s1",
        top="loss3/classifier",
        weights=Weights(
            file="bvlc_googlenet.caffemodel",
            urls=(_BVLC + "bvlc_googlenet.caffemodel", _MXNET + "bvlc_googlenet/bvlc_googlenet.caffemodel"),
            license="unrestricted",
            size=53_533_754,
            hashes={
                "sha1": "405fc5acd08a3bb12de8ee5e23a96bec22f08204",
                "sha256": "6f7101e3a2183738a7125a0c5021ba82a1feb4228c5ca0924d991b6daf6f6fad",
            },
        ),
    ),
    Model(
        name="googlenet_coco",
        title="fully convolutional GoogLeNet of the Excitation Backprop paper (COCO)",
        build=googlenet.googlenet_coco,
        input_shape=(1, 3, 224, 224),
        classes=80,
        label_set="coco80",
        preprocess=_bgr(_VGG_MEAN, shortest_side=224),
        layer="pool2/3x3_s2",
        contrast_layer="pool5/7x7_s1",
        top="loss3/classifier",
        weights=Weights(
            file="GoogleNetCOCO.caffemodel",
            urls=("http://www.cs.bu.edu/groups/ivc/data/ExcitationBP/COCO/GoogleNetCOCO.caffemodel",),
            license="academic research and non-commercial purposes only",
        ),
    ),
    Model(
        name="vgg16",
        title="VGG, 16 weight layers (ImageNet)",
        build=vgg.vgg16,
        input_shape=(1, 3, 224, 224),
        classes=1000,
        label_set="imagenet",
        preprocess=_bgr(_VGG_MEAN, size=224),
        layer="pool4",
        contrast_layer="fc7",
        top="fc8",
        weights=Weights(
            file="VGG_ILSVRC_16_layers.caffemodel",
            urls=(_OXFORD + "VGG_ILSVRC_16_layers.caffemodel", _MXNET + "vgg/VGG_ILSVRC_16_layers.caffemodel"),
            license="CC BY 4.0",
            size=553_432_081,
            hashes={
                "sha1": "9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24",
                "sha256": "a6196bc498e45ea4cb2637114ae8db9410cf1556fd60a55ae93272371beba197",
            },
        ),
    ),
    Model(
        name="vgg19",
        title="VGG, 19 weight layers (ImageNet)",
        build=vgg.vgg19,
        input_shape=(1, 3, 224, 224),
        classes=1000,
        label_set="imagenet",
        preprocess=_bgr(_VGG_MEAN, size=224),
        layer="pool4",
        contrast_layer="fc7",
        top="fc8",
        weights=Weights(
            file="VGG_ILSVRC_19_layers.caffemodel",
            urls=(_OXFORD + "VGG_ILSVRC_19_layers.caffemodel", _MXNET + "vgg/VGG_ILSVRC_19_layers.caffemodel"),
            license="CC BY 4.0",
            size=574_671_192,
            hashes={
                "sha1": "239785e7862442717d831f682bb824055e51e9ba",
                "sha384": "86b83739d448a81ddc927922d4d7581e06113478106b59480097b02cc63ff51c"
                "9da7c3cd8a865b08946d07d0281d5b2e",
            },
        ),
    ),
    Model(
        name="alexnet",
        title="BVLC AlexNet (ImageNet)",
        build=alexnet.alexnet,
        input_shape=(1, 3, 227, 227),
        classes=1000,
        label_set="imagenet",
        preprocess=_bgr(_BVLC_MEAN, size=227),
        layer="pool2",
        contrast_layer="fc7",
        top="fc8",
        weights=Weights(
            file="bvlc_alexnet.caffemodel",
            urls=(_BVLC + "bvlc_alexnet.caffemodel", _MXNET + "bvlc_alexnet/bvlc_alexnet.caffemodel"),
            license="unrestricted",
            size=243_862_414,
            hashes={
                "sha1": "9116a64c0fbe4459d18f4bb6b56d647b63920377",
                "sha256": "4bff209a9837298157915ef50a4831a59636a6ca1a6b8ebacd990c3a5f3053e0",
            },
        ),
    ),
    Model(
        name="caffenet",
        title="BVLC reference CaffeNet (ImageNet)",
        build=alexnet.caffenet,
        input_shape=(1, 3, 227, 227),
        classes=1000,
        label_set="imagenet",
        preprocess=_bgr(_BVLC_MEAN, size=227),
        layer="pool2",
        contrast_layer="fc7",
        top="fc8",
        weights=Weights(
            file="bvlc_reference_caffenet.caffemodel",
            urls=(_BVLC + "bvlc_reference_caffenet.caffemodel",),
            license="unrestricted",
            size=243_862_418,
            hashes={
                "sha1": "4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
                "sha384": "6677844301d6c7f68f5b6a299cf41c4f0955bab7d1fb8719375fae6d05b6173d"
                "b9deccf3ac4aaa4225bf6c6e99d81a68",
            },
        ),
    ),
    Model(
        name="resnet50",
        title="ResNet-50 (ImageNet)",
        build=resnet.resnet50,
        input_shape=(1, 3, 224, 224),
        classes=1000,
        label_set="imagenet",
        preprocess=_bgr(_RESNET_MEAN, size=224),
        layer="res4a",
        contrast_layer="pool5",
        top="fc1000",
        weights=Weights(
            file="ResNet-50-model.caffemodel",
            urls=(_ONEDRIVE + "17895&authkey=%21AAFW2-FVoxeVRck", _MXNET + "resnet/ResNet-50-model.caffemodel"),
            license="MIT",
            size=102_462_397,
            hashes={
                "sha1": "b7c79ccc21ad0479cddc0dd78b1d20c4d722908d",
                "sha256": "44ee2b08816cede2b7aaa047888df07dcab52f73399aa1c8bef05a17bfdd4888",
            },
        ),
    ),
)

MODELS: dict[str, Model] = {entry.name: entry for entry in _MODELS}
