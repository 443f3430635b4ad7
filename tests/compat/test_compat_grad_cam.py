"""ebp_cuda.compat.grad_cam among the tools of pytorch-grad-cam: its targets, its ROAD metrics, its overlay."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support.compat_nets import FullyConvolutional, TwoHeads, assert_keeps_nothing, images, plain_net, state_of
from torch import nn

import ebp_cuda
from ebp_cuda import InputError, UnsupportedError
from ebp_cuda.compat.grad_cam import ExcitationBackpropCAM
from ebp_cuda.images.maps import resize_maps

pytest.importorskip("pytorch_grad_cam", reason="pytorch-grad-cam is not installed")

from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.metrics.cam_mult_image import CamMultImageConfidenceChange
from pytorch_grad_cam.metrics.road import (
    ROADCombined,
    ROADLeastRelevantFirstAverage,
    ROADMostRelevantFirst,
)
from pytorch_grad_cam.utils.image import scale_cam_image, show_cam_on_image
from pytorch_grad_cam.utils.model_targets import (
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    SemanticSegmentationTarget,
)


def raw(net: nn.Module, x: torch.Tensor, layer: str, target, contrast=None, rules="caffe") -> torch.Tensor:
    eb = ebp_cuda.ExcitationBackprop(ebp_cuda.from_torch(net, x), layer, contrast, rules)
    return eb.attribute(x, target).squeeze(1).clamp(min=0)


HEADS = [(0, "kind", 4), ("kind", "kind", 3), (1, "size", 2), (-1, "size", 0)]


@pytest.mark.parametrize(("top", "head", "category"), HEADS)
def test_one_of_several_outputs_is_explained(top, head, category) -> None:
    net, x = TwoHeads().eval(), images(2)
    with ExcitationBackpropCAM(net, ["features.1"], top=top) as cam:
        picture = cam(x, [ClassifierOutputTarget(category)] * 2)
        assert cam.outputs.shape == (2, {"kind": 5, "size": 3}[head])
    eb = ebp_cuda.ExcitationBackprop(ebp_cuda.from_torch(net, x), "features.1", top=head)
    maps = scale_cam_image(eb.attribute(x, category).squeeze(1).clamp(min=0).numpy(), None)
    wanted = scale_cam_image(resize_maps(torch.from_numpy(maps), (16, 16)).numpy())
    np.testing.assert_allclose(picture, wanted, atol=1e-5)
    with pytest.raises(InputError, match=r"2 outputs.*top="):
        ExcitationBackpropCAM(net, ["features.1"])(x)
    with pytest.raises(InputError, match="top=5"):
        ExcitationBackpropCAM(net, ["features.1"], top=5)(x)


@pytest.mark.parametrize("rules", ["caffe", "conserving"])
@pytest.mark.parametrize("contrast", [None, "9"])
def test_the_picture_is_the_map_scaled_as_a_cam_is(rules, contrast) -> None:
    net, x = plain_net().eval(), images(2)
    kept = state_of(net)
    with ExcitationBackpropCAM(net, [net[4]], contrast_layer=contrast, rules=rules) as cam:
        got = cam(input_tensor=x, targets=[ClassifierOutputTarget(5), ClassifierOutputTarget(2)])
        assert torch.allclose(cam.outputs, net(x).detach(), atol=1e-6)
    assert got.shape == (2, 16, 16) and got.dtype == np.float32 and got.min() == 0 and got.max() == 1
    found = raw(net, x, "4", torch.tensor([5, 2]), contrast, rules)
    wanted = scale_cam_image(resize_maps(found / found.amax((1, 2), keepdim=True), (16, 16)).numpy())
    assert np.abs(got - wanted).max() < 1e-4
    assert state_of(net) == kept


def test_several_layers_are_averaged_and_none_given_means_the_highest_score() -> None:
    net, x = plain_net().eval(), images(2)
    parts = []
    for layer in ("4", "1"):
        found = raw(net, x, layer, "top1")
        found = found - found.amin((1, 2), keepdim=True)
        parts.append(resize_maps(found / found.amax((1, 2), keepdim=True), (16, 16)).numpy())
    both = ExcitationBackpropCAM(net, [net[4], "1"])(x)
    assert np.abs(both - scale_cam_image(np.mean(parts, 0))).max() < 1e-4
    one = ExcitationBackpropCAM(net, ["4"])(x)
    highest = [ClassifierOutputTarget(int(i)) for i in net(x).argmax(1)]
    assert np.array_equal(ExcitationBackpropCAM(net, ["4"])(x, highest), one)


def test_targets_besides_a_class() -> None:
    net, x = plain_net().eval(), images(1)
    cam = ExcitationBackpropCAM(net, ["4"])
    wanted = cam(x, [ClassifierOutputTarget(3)])
    assert np.allclose(cam(x, [ClassifierOutputSoftmaxTarget(3)]), wanted, atol=1e-5)
    assert np.allclose(cam(x, [lambda scores: scores[3] ** 2 + 2 * scores[3].abs().exp() * scores[3].sign()]), wanted)
    mixed = cam(x, [lambda scores: scores[3] + scores[4]])
    assert not np.allclose(mixed, wanted, atol=1e-2)
    planes, x = FullyConvolutional().eval(), images(1, 32)
    mask = np.zeros((4, 4), np.float32)
    mask[:2, :2] = 1
    seen = ExcitationBackpropCAM(planes, ["features.2"])(x, [SemanticSegmentationTarget(3, mask)])[0]
    assert seen[:16, :16].mean() > 10 * seen[26:, 26:].mean()


def test_augmentation_smoothing() -> None:
    net, x = plain_net().eval(), images(2)
    target = [ClassifierOutputTarget(1)] * 2
    cam = ExcitationBackpropCAM(net, ["4"])
    turned = cam(x.flip(3), target)[:, :, ::-1]
    got = cam(input_tensor=x, targets=target, aug_smooth=True)
    mean = np.mean(
        [cam(x * b, target) for b in (0.9, 1, 1.1)] + [cam(x.flip(3) * b, target)[:, :, ::-1] for b in (0.9, 1, 1.1)], 0
    )
    assert np.allclose(got, mean, atol=1e-5) and not np.allclose(got, turned)
    assert cam(x, None, aug_smooth=True).shape == (2, 16, 16)


def test_show_cam_on_image() -> None:
    net, x = plain_net().eval(), images(1)
    picture = ExcitationBackpropCAM(net, [net[4]])(x, [ClassifierOutputTarget(1)])[0]
    shown = show_cam_on_image(x[0].permute(1, 2, 0).numpy(), picture, use_rgb=True)
    assert shown.shape == (16, 16, 3) and shown.dtype == np.uint8 and shown.std() > 10


@pytest.mark.parametrize(
    "metric",
    [
        CamMultImageConfidenceChange(),
        ROADMostRelevantFirst(percentile=75),
        ROADLeastRelevantFirstAverage(percentiles=[20, 60]),
        ROADCombined(percentiles=[20, 60]),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_metrics_take_it_as_they_take_grad_cam(metric) -> None:
    net, x = plain_net().eval(), images(2)
    targets = [ClassifierOutputTarget(1), ClassifierOutputTarget(4)]
    with torch.no_grad():
        scores = [
            metric(x, make(model=net, target_layers=[net[4]])(input_tensor=x, targets=targets), targets, net)
            for make in (ExcitationBackpropCAM, with_gradients)
        ]
    assert scores[0].shape == scores[1].shape == (2,) and np.isfinite(scores[0]).all()


def with_gradients(model, target_layers):
    cam = GradCAM(model=model, target_layers=target_layers)

    def call(**arguments):
        with torch.enable_grad():
            return cam(**arguments)

    return call


def test_a_layer_without_a_plane_takes_a_transform() -> None:
    net, x = plain_net().eval(), images(1)
    with pytest.raises(UnsupportedError, match="reshape_transform"):
        ExcitationBackpropCAM(net, ["9"])(x)
    cam = ExcitationBackpropCAM(net, ["9"], lambda p: p.reshape(-1, 1, 2, 5))
    assert cam(x).shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda net, x: ExcitationBackpropCAM(net, net[4]), InputError, "target_layers: wanted a list"),
        (lambda net, x: ExcitationBackpropCAM(net, []), InputError, "at least one"),
        (lambda net, x: ExcitationBackpropCAM(net, [nn.ReLU()])(x), InputError, "target_layers: this ReLU"),
        (lambda net, x: ExcitationBackpropCAM(net, ["4"])(x, [ClassifierOutputTarget(1)]), InputError, "got 1"),
        (lambda net, x: ExcitationBackpropCAM(net, ["4"])(x, [ClassifierOutputTarget(9)] * 2), InputError, "index 9"),
        (lambda net, x: ExcitationBackpropCAM(net, ["4"])(x, [lambda y: y] * 2), InputError, "wanted one number"),
        (lambda net, x: ExcitationBackpropCAM(net, ["4"])(x, [lambda y: -y[1]] * 2), InputError, "nothing to start"),
        (
            lambda net, x: ExcitationBackpropCAM(net, ["4"])(x, None, eigen_smooth=True),
            UnsupportedError,
            "eigen_smooth",
        ),
        (lambda net, x: ExcitationBackpropCAM(net, ["4"])(x[0]), InputError, "input_tensor"),
        (lambda net, x: ExcitationBackpropCAM(net, ["4"], rules="lrp"), InputError, "rules='lrp'"),
    ],
)
def test_refusals(call, kind, match) -> None:
    with pytest.raises(kind, match=match):
        call(plain_net().eval(), images(2))


@pytest.mark.slow  # about 5 s: 1,000 images
def test_training_mode_stays_and_nothing_is_left_behind() -> None:
    net = plain_net().train()
    kept = state_of(net)
    with ExcitationBackpropCAM(net, [net[4]], contrast_layer=net[9]) as cam:
        assert_keeps_nothing(lambda x: cam(x, [ClassifierOutputTarget(2)]))
    assert state_of(net) == kept


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    net, x = plain_net().eval(), images(2)
    wanted = ExcitationBackpropCAM(net, [net[4]])(x)
    net.cuda()
    assert np.abs(ExcitationBackpropCAM(net, [net[4]])(x.cuda()) - wanted).max() < 1e-3


def test_threads_share_a_cam() -> None:
    net, x = plain_net().eval(), images(4)
    cam = ExcitationBackpropCAM(net, [net[4]], contrast_layer=net[9])
    wanted = [cam(x[i : i + 1], aug_smooth=True) for i in range(4)]
    twin = plain_net().eval()  # nobody has imported this one yet
    cam = ExcitationBackpropCAM(twin, [twin[4]], contrast_layer=twin[9])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: cam(x[i % 4 : i % 4 + 1], aug_smooth=True), range(16)))
    assert all(np.array_equal(found[i], wanted[i % 4]) for i in range(16))
