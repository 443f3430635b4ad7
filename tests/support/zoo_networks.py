"""Published architectures with random weights, narrow and shallow where their classes allow, from torchvision and timm.

Every kind of block that the full networks have occurs; what is left out is repetition.
"""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from torch import nn
from torchvision import models as tv
from torchvision.models import densenet, efficientnet, mobilenetv3, regnet, video
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.video.resnet import BasicBlock as VideoBlock

CLASSES = 10


def narrow_head(module: nn.Module, features: int) -> nn.Module:
    """AlexNet and VGG with 16 units for the originals' 4096, which hold nearly all the weights and little else."""
    module.classifier = nn.Sequential(
        *(nn.Dropout(), nn.Linear(features, 16), nn.ReLU(inplace=True), nn.Dropout()),
        *(nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Linear(16, CLASSES)),
    )
    return module


def vgg(batch_norm: bool) -> nn.Module:
    plan: list[str | int] = [8, "M", 16, "M", 16, 16, "M", 24, 24, "M", 24, 24, "M"]
    features = tv.vgg.make_layers(plan, batch_norm)  # type: ignore[arg-type]
    return narrow_head(tv.VGG(features, CLASSES, init_weights=False), 24 * 49)


def resnet(block: type, **more: int) -> nn.Module:
    return ResNet(block, [1, 2, 1, 1], CLASSES, **more)


def googlenet() -> nn.Module:
    return tv.GoogLeNet(CLASSES, aux_logits=True, transform_input=True, init_weights=False)


def mobilenet_v3() -> nn.Module:
    settings, last = mobilenetv3._mobilenet_v3_conf("mobilenet_v3_small", width_mult=0.35)
    return tv.MobileNetV3(settings, last // 8, CLASSES)


def efficientnet_b() -> nn.Module:
    block = efficientnet.MBConvConfig
    settings = [block(1, 3, 1, 32, 16, 1, 0.3), block(6, 3, 2, 16, 24, 1, 0.3), block(6, 5, 2, 24, 40, 2, 0.3)]
    return tv.EfficientNet(settings, 0.2, num_classes=CLASSES)


def efficientnet_v2() -> nn.Module:
    block, fused = efficientnet.MBConvConfig, efficientnet.FusedMBConvConfig
    settings = [fused(1, 3, 1, 24, 24, 1), fused(4, 3, 2, 24, 32, 2), block(4, 3, 2, 32, 48, 2)]
    return tv.EfficientNet(settings, 0.2, num_classes=CLASSES, last_channel=64)


def regnet_y(squeeze: float | None) -> nn.Module:
    params = regnet.BlockParams.from_init_params(5, 16, 20.0, 2.0, 8, se_ratio=squeeze)
    return tv.RegNet(params, CLASSES)


def convnext() -> nn.Module:
    return ConvNeXt(
        [CNBlockConfig(16, 32, 1), CNBlockConfig(32, 48, 2), CNBlockConfig(48, None, 1)], 0.1, num_classes=CLASSES
    )


def volumes(conv: type, stem: Callable[..., nn.Module]) -> nn.Module:
    return video.VideoResNet(VideoBlock, [conv] * 4, [1, 1, 1, 1], stem, CLASSES)


TORCHVISION: dict[str, Callable[[], nn.Module]] = {
    "AlexNet": lambda: narrow_head(tv.AlexNet(CLASSES), 256 * 36),
    "VGG": lambda: vgg(False),
    "VGG with batch norm": lambda: vgg(True),
    "ResNet, basic": lambda: resnet(BasicBlock),
    "ResNet, bottleneck": lambda: resnet(Bottleneck, width_per_group=16),
    "ResNeXt": lambda: resnet(Bottleneck, groups=8, width_per_group=4),
    "Wide ResNet": lambda: resnet(Bottleneck, width_per_group=96),
    "DenseNet": lambda: densenet.DenseNet(8, (2, 3, 2, 2), 16, num_classes=CLASSES),
    "SqueezeNet 1.0": lambda: tv.SqueezeNet("1_0", CLASSES),
    "SqueezeNet 1.1": lambda: tv.SqueezeNet("1_1", CLASSES),
    "GoogLeNet": googlenet,
    "Inception v3": lambda: tv.Inception3(CLASSES, init_weights=False),
    "MobileNet v2": lambda: tv.MobileNetV2(CLASSES, 0.25, [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2], [6, 64, 2, 1]]),
    "MobileNet v3": mobilenet_v3,
    "ShuffleNet v2": lambda: tv.ShuffleNetV2([2, 2, 2], [24, 24, 48, 96, 64], CLASSES),
    "MNASNet": lambda: tv.MNASNet(0.25, CLASSES),
    "EfficientNet": efficientnet_b,
    "EfficientNet v2": efficientnet_v2,
    "RegNetX": lambda: regnet_y(None),
    "RegNetY": lambda: regnet_y(0.25),
    "ConvNeXt": convnext,
}
VIDEO: dict[str, Callable[[], nn.Module]] = {
    "ResNet 3D": lambda: volumes(video.resnet.Conv3DSimple, video.resnet.BasicStem),
    "ResNet (2+1)D": lambda: volumes(video.resnet.Conv2Plus1D, video.resnet.R2Plus1dStem),
}


def shallow(name: str, **more: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=CLASSES, **more)


ONES = [1, 1, 1, 1]
TIMM: dict[str, Callable[[], nn.Module]] = {
    "ResNet-D": shallow("resnet26d", layers=ONES),
    "SE-ResNet (legacy)": shallow("legacy_seresnet18", layers=ONES),
    "ECA-ResNet": shallow("ecaresnet26t", layers=ONES),
    "SE-ResNeXt-D": shallow("seresnext26d_32x4d", layers=ONES),
    "Anti-aliased ResNet": shallow("resnetblur18", layers=ONES),
    "ResNet v2": shallow("resnetv2_50", layers=ONES),
    "ResNeSt": shallow("resnest14d"),
    "SKNet": shallow("skresnet18", layers=ONES),
    "Res2Net": shallow("res2net50_26w_4s", layers=ONES),
    "NF-ResNet": shallow("nf_resnet26"),
    "DLA": shallow("dla34"),
    "VoVNet": shallow("ese_vovnet19b_slim"),
    "Darknet": shallow("darknet17"),
    "RepVGG": shallow("repvgg_a0"),
    "GhostNet": shallow("ghostnet_050"),
    "LCNet": shallow("lcnet_035"),
    "MixNet": shallow("mixnet_s"),
    "EfficientNet-Lite, TensorFlow padding": shallow("tf_efficientnet_lite0"),
    "ConvNeXt v2": shallow("convnextv2_atto", depths=ONES),
    "FasterNet": shallow("fasternet_t0", depths=ONES),
    "PoolFormer": shallow("poolformer_s12", layers=ONES),
    "StarNet": shallow("starnet_s1", depths=ONES),
}
REFUSED: dict[str, Callable[[], nn.Module]] = {
    "Vision transformer": shallow("vit_tiny_patch16_224", img_size=64, depth=2),
    "Swin transformer": lambda: tv.SwinTransformer([4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=CLASSES),
    "MobileViT": shallow("mobilevit_xxs"),
}
"""Networks of other kinds, for what is said about them."""


def randomised(module: nn.Module) -> nn.Module:
    """In evaluation mode, with batch statistics and gains as a trained network has them: not 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            part.running_mean.normal_(0, 0.2, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            with torch.no_grad():
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.normal_(0, 0.2, generator=generator)
    return module.eval()


def built(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return randomised(make())
