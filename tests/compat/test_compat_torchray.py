"""ebp_cuda.compat.torchray beside TorchRay itself, on networks that TorchRay handles rightly."""

from __future__ import annotations

import inspect
import threading
import weakref

import numpy as np
import pytest
import torch
from support.compat_nets import FullyConvolutional, assert_keeps_nothing, images, plain_net, state_of
from torch import nn

import ebp_cuda.compat.torchray as ours
from ebp_cuda import EBPError, InputError, UnsupportedError

theirs = pytest.importorskip("torchray.attribution.excitation_backprop", reason="TorchRay is not installed")
common = pytest.importorskip("torchray.attribution.common")
resnet = pytest.importorskip("torchvision.models.resnet")


def shallow_resnet(add: bool) -> nn.Module:
    torch.manual_seed(0)
    net = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=7)
    return (theirs.update_resnet(net) if add else net).eval()


NETWORKS = {
    "plain": (plain_net, "4", "9"),
    "residual": (lambda: shallow_resnet(add=True), "layer2", "avgpool"),
    "planes": (FullyConvolutional, "features.2", "classifier.1"),
}


def assert_close(got: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_torchray(name, dtype, tolerance) -> None:
    make, layer, contrast = NETWORKS[name]
    net, x = make().to(dtype), images(2, 16 if name == "plain" else 32, dtype)
    kept = state_of(net.eval())
    for target in (3, [5, 2]):
        got = [
            ours.excitation_backprop(net, x, target, layer),
            ours.excitation_backprop(net, x, target),
            ours.contrastive_excitation_backprop(net, x, target, layer, contrast),
        ]
        assert state_of(net) == kept and x.grad is None and not x.requires_grad
        wanted = [
            theirs.excitation_backprop(net, x.clone(), target, layer),
            theirs.excitation_backprop(net, x.clone(), target),
            theirs.contrastive_excitation_backprop(net, x.clone(), target, layer, contrast),
        ]
        for a, b in zip(got, wanted, strict=True):
            assert_close(a, b, tolerance)
        net.requires_grad_(True)  # which TorchRay switched off


def test_a_residual_sum_without_torchrays_help_still_shares() -> None:
    net, x = shallow_resnet(add=False), images(1, 32)
    assert ours.excitation_backprop(net, x, 0, "layer2").sum() == pytest.approx(1, abs=1e-4)
    assert theirs.excitation_backprop(net, x, 0, "layer2").sum() > 1.5  # p goes down both branches undivided
    assert ours.update_resnet(net) is net


def signature(function) -> dict:
    return {name: (p.kind, p.default) for name, p in inspect.signature(function).parameters.items()}


def test_signatures_and_defaults() -> None:
    named = {"context_builder", "gradient_to_saliency", "get_backward_gradient"}
    got, wanted = signature(ours.contrastive_excitation_backprop), signature(theirs.contrastive_excitation_backprop)
    assert list(got) == list(wanted) and all(got[name] == wanted[name] for name in set(got) - named)
    got, wanted = signature(ours.excitation_backprop), signature(common.saliency)  # which theirs hands everything to
    assert list(got) == list(wanted) and all(got[name] == wanted[name] for name in set(got) - named)
    for function in (ours.excitation_backprop, ours.contrastive_excitation_backprop):
        for name in named & set(signature(function)):
            default = inspect.signature(function).parameters[name].default.__name__
            assert hasattr(theirs, default) or hasattr(common, default)


@pytest.mark.parametrize(
    "options",
    [
        {"resize": True},
        {"resize": (24, 10), "resize_mode": "bicubic"},
        {"resize": [9, 31], "resize_mode": "nearest"},
        {"resize": True, "smooth": 0.05},
        {"gradient_to_saliency": common.gradient_to_saliency},
        {"get_backward_gradient": common.get_pointing_gradient},
        {"get_backward_gradient": common.get_backward_gradient},
        {"context_builder": theirs.ExcitationBackpropContext},
    ],
    ids=lambda options: "-".join(options),
)
def test_options(options) -> None:
    net, x = FullyConvolutional().eval(), images(1, 24)
    if options.get("resize_mode") == "nearest":  # TorchRay passes align_corners on, which torch refuses there
        with pytest.raises(InputError, match="nearest"):
            ours.excitation_backprop(net, x, 3, "features.2", **options)
        return
    wanted = theirs.excitation_backprop(net, x.clone(), 3, "features.2", **options)
    assert_close(ours.excitation_backprop(net, x, 3, "features.2", **options), wanted, 1e-5)
    if set(options) <= {"resize", "resize_mode", "get_backward_gradient"}:
        place = ("features.2", "classifier.1")
        wanted = theirs.contrastive_excitation_backprop(net, x.clone(), 3, *place, **options)
        assert_close(ours.contrastive_excitation_backprop(net, x, 3, *place, **options), wanted, 1e-5)


def test_layers_as_modules_and_a_target_of_the_outputs_shape() -> None:
    net, x = plain_net().double().eval(), images(2, dtype=torch.float64)
    seed = torch.rand(2, 7, dtype=torch.float64)
    wanted = theirs.contrastive_excitation_backprop(net, x.clone(), seed, net[4], net[9], net[11])
    assert_close(ours.contrastive_excitation_backprop(net, x, seed, net[4], net[9], net[11]), wanted, 1e-10)
    assert_close(ours.contrastive_excitation_backprop(net, x, seed, "4", net[9]), wanted, 1e-10)


def test_a_compiled_module_is_what_it_was_made_from() -> None:
    net, x = plain_net().eval(), images(2)
    compiled = torch.compile(net, backend="eager")
    wanted = ours.contrastive_excitation_backprop(net, x, 1, "4", "9")
    assert torch.equal(ours.contrastive_excitation_backprop(compiled, x, 1, net[4], "9"), wanted)


def test_debug_gives_the_relevance_of_every_module() -> None:
    net, x = plain_net().double().eval(), images(2, dtype=torch.float64)
    got_saliency, got = ours.excitation_backprop(net, x, [1, 2], "4", debug=True)
    saliency, wanted = theirs.excitation_backprop(net, x.clone(), [1, 2], "4", debug=True)  # its hooks stay
    assert list(got) == list(wanted)
    assert_close(got_saliency, saliency, 1e-10)
    for name, probe in wanted.items():
        assert got[name].module is dict(net.named_modules())[name] and got[name].target == probe.target
        if name in ("", "1", "4", "5", "8", "11"):  # what an in-place ReLU overwrote is TorchRay's to sort out
            assert_close(got[name].data[0].detach(), probe.data[0].detach(), 1e-10)
            assert_close(got[name].data[0].grad, probe.data[0].grad, 1e-10)


def test_edited_weights_and_layers_are_seen() -> None:
    net, x = plain_net().eval(), images(1)
    first = ours.excitation_backprop(net, x, 0, "4")
    with torch.no_grad():
        net[6].weight.neg_()
    second = ours.excitation_backprop(net, x, 0, "4")
    assert not torch.equal(first, second)
    net[6].weight = nn.Parameter(-net[6].weight.detach())
    assert torch.equal(ours.excitation_backprop(net, x, 0, "4"), first)
    net[6].weight.data = -net[6].weight.data
    assert torch.equal(ours.excitation_backprop(net, x, 0, "4"), second)
    net[5] = nn.MaxPool2d(2)
    assert_close(ours.excitation_backprop(net, x, 0, "4"), theirs.excitation_backprop(net, x.clone(), 0, "4"), 1e-5)
    net[3].padding = (0, 0)
    assert_close(ours.excitation_backprop(net, x, 0, "4"), theirs.excitation_backprop(net, x.clone(), 0, "4"), 1e-5)


def test_one_network_serves_all_image_sizes_and_goes_with_its_module() -> None:
    from ebp_cuda.compat.modules import network

    net = FullyConvolutional()
    sizes = [images(1, size) for size in (24, 31, 40)]
    found = {id(network(net, [x])) for x in sizes}
    assert len(found) == 1
    for x in sizes:
        assert_close(
            ours.excitation_backprop(net, x, 1, "features.2"), theirs.excitation_backprop(net, x, 1, "features.2"), 1e-5
        )
    gone = weakref.ref(net), weakref.ref(network(net, sizes[:1]))
    del net
    assert gone[0]() is None and gone[1]() is None


def test_training_mode_stays_and_is_not_used() -> None:
    net, x = plain_net(), images(2)
    evaluated = ours.contrastive_excitation_backprop(net.eval(), x, 0, "4", "9")
    kept = state_of(net.train())
    assert torch.equal(ours.contrastive_excitation_backprop(net, x, 0, "4", "9"), evaluated)
    assert state_of(net) == kept


def test_threads() -> None:
    net, x = plain_net().eval(), images(4)
    wanted = [ours.contrastive_excitation_backprop(net, x, target, "4", "9") for target in range(4)]
    twin = plain_net().eval()  # nobody has imported this one yet
    found: dict[int, torch.Tensor] = {}

    def work(target: int) -> None:
        for _ in range(5):
            found[target] = ours.contrastive_excitation_backprop(twin, x, target, "4", "9")
            loss = torch.nn.functional.conv2d(x, twin[0].weight.detach().clone().requires_grad_()).sum()
            loss.backward()  # an ordinary backward beside it

    threads = [threading.Thread(target=work, args=(target,)) for target in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[target], wanted[target]) for target in range(4))


@pytest.mark.slow  # about 5 s: 1,000 images
def test_nothing_is_left_behind() -> None:
    net = plain_net().eval()
    assert_keeps_nothing(lambda x: ours.contrastive_excitation_backprop(net, x, 2, "4", "9", resize=True))


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ({"saliency_layer": "44"}, InputError, "saliency_layer='44'"),
        ({"saliency_layer": nn.ReLU()}, InputError, "saliency_layer.*no part of"),
        ({"saliency_layer": 4}, InputError, "saliency_layer is a int"),
        ({"contrast_layer": "11"}, InputError, "no classifier lies above"),
        ({"classifier_layer": "4"}, InputError, "classifier_layer='4'"),
        ({"target": 7}, InputError, "classes 0 to 6"),
        ({"target": [1, 2, 3]}, InputError, "one for each image"),
        ({"target": 0.5}, InputError, "float32"),
        ({"resize": 24}, InputError, "resize=24"),
        ({"model": lambda x: x}, InputError, "function"),
        ({"input": np.zeros((1, 3, 16, 16), np.float32)}, UnsupportedError, "ndarray"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_refusals(arguments, kind, match) -> None:
    wanted = {"model": plain_net(), "input": images(2), "target": 1, "saliency_layer": "4", "contrast_layer": "9"}
    with pytest.raises(kind, match=match):
        ours.contrastive_excitation_backprop(**{**wanted, **arguments})


def test_the_context_cannot_be_entered() -> None:
    with pytest.raises(EBPError, match="nothing is patched"):
        ours.ExcitationBackpropContext()
    with pytest.raises(UnsupportedError, match="context_builder"):
        ours.excitation_backprop(plain_net(), images(), 0, "4", context_builder=common.NullContext)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    net, x = plain_net().eval(), images(2)
    wanted = [ours.excitation_backprop(net, x, [1, 2], "4"), ours.contrastive_excitation_backprop(net, x, 3, "4", "9")]
    net, x = net.cuda(), x.cuda()
    got = [ours.excitation_backprop(net, x, [1, 2], "4"), ours.contrastive_excitation_backprop(net, x, 3, "4", "9")]
    for a, b in zip(got, wanted, strict=True):
        assert a.is_cuda
        assert_close(a.cpu(), b, 1e-3)


class MeanByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features, self.norm = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU()), nn.Identity()
        self.more, self.top = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU()), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.top(self.more(self.norm(self.features(x))).mean((2, 3)))


class Silent(nn.Module):
    """A residual sum of 0 and 0 in places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.act, self.b, self.top = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.act(self.a(x))
        both = theirs.eltwise_sum(h, self.b(h).relu())
        return self.top(torch.nn.functional.adaptive_avg_pool2d(both, 1).flatten(1))


def test_where_torchray_is_not_followed() -> None:
    """The table in docs/backend.md."""
    net, x = MeanByHand().eval(), images(2)
    pooled = MeanByHand().eval()
    pooled.forward = lambda x: pooled.top(
        torch.nn.functional.adaptive_avg_pool2d(pooled.more(pooled.features(x)), 1).flatten(1)
    )
    right = theirs.excitation_backprop(pooled, x, 1, "features")
    assert_close(ours.excitation_backprop(net, x, 1, "features"), right, 1e-5)
    assert (theirs.excitation_backprop(net, x, 1, "features") - right).abs().sum() > 0.05 * right.sum()
    net.norm = nn.LocalResponseNorm(3)
    assert ours.excitation_backprop(net, x, 1, "features").sum((1, 2, 3)) == pytest.approx(torch.ones(2), abs=1e-4)
    with pytest.raises(TypeError):
        theirs.excitation_backprop(net, x, 1, "features")
    silent = Silent().eval()
    assert ours.excitation_backprop(silent, x, 1, "act").isfinite().all()
    assert theirs.excitation_backprop(silent, x, 1, "act").isnan().any()
    half = plain_net().half().eval()
    assert ours.excitation_backprop(half, x.half(), 1, "4").sum((1, 2, 3)) == pytest.approx(torch.ones(2), abs=1e-2)
    assert theirs.excitation_backprop(half, x.half(), 1, "4").isnan().any()
