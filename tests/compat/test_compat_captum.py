"""ebp_cuda.compat.captum as a user of Captum meets it: attributions, visualization, metrics."""

from __future__ import annotations

import matplotlib
import pytest
import torch
from support.compat_nets import FullyConvolutional, TwoHeads, assert_keeps_nothing, images, plain_net, state_of
from torch import nn

import ebp_cuda
from ebp_cuda import InputError, UnsupportedError

pytest.importorskip("captum", reason="Captum is not installed")
matplotlib.use("Agg")

from captum.attr import Attribution, LayerAttribution, LayerGradCam, NoiseTunnel, visualization
from captum.metrics import infidelity, sensitivity_max

from ebp_cuda.compat.captum import ExcitationBackprop, LayerExcitationBackprop

RULES = ["caffe", "conserving"]


def own(net: nn.Module, x: torch.Tensor, layer: str, target, contrast=None, rules="caffe") -> torch.Tensor:
    """The same by this package's own interface; without its axis of classes."""
    plain = ebp_cuda.from_torch(net, x)
    return ebp_cuda.ExcitationBackprop(plain, layer, contrast, rules).relevance(x, target).squeeze(1)


@pytest.mark.parametrize("rules", RULES)
def test_attributions_are_those_of_the_package(rules) -> None:
    net, x = plain_net().eval(), images(2)
    kept = state_of(net)
    source = next(iter(ebp_cuda.from_torch(net, x).graph.inputs))
    got = ExcitationBackprop(net, rules=rules).attribute(x, target=[5, 2])
    assert got.shape == x.shape and torch.equal(got, own(net, x, source, torch.tensor([5, 2]), rules=rules))
    for layer, contrast in ((net[4], None), ("4", "9"), (net[4], net[9])):
        got = LayerExcitationBackprop(net, layer, contrast, rules).attribute(x, target=3)
        assert torch.equal(got, own(net, x, "4", 3, None if contrast is None else "9", rules))
    assert state_of(net) == kept and not got.requires_grad


@pytest.mark.parametrize("target", [3, [3, 3], (3,), [(3,), (3,)], torch.tensor(3), torch.tensor([3, 3])], ids=str)
def test_targets_as_captum_writes_them(target) -> None:
    net, x = plain_net().eval(), images(2)
    layer = LayerExcitationBackprop(net, net[4])
    assert torch.equal(layer.attribute(x, target=target), layer.attribute(x, target=3))


def test_a_target_inside_a_plane_of_scores() -> None:
    net, x = FullyConvolutional().eval(), images(2, 32)
    got = LayerExcitationBackprop(net, "classifier.1").attribute(x, target=(4, 1, 2))
    assert got.sum((1, 2, 3)) == pytest.approx(torch.ones(2)) and set(got.nonzero()[:, 2].tolist()) == {1}


def test_a_noise_tunnel_averages_over_noisy_images() -> None:
    net, x = plain_net().eval(), images(2)
    for method in (ExcitationBackprop(net, rules="conserving"), LayerExcitationBackprop(net, "4", "9")):
        plain = method.attribute(x, target=[5, 2])
        tunnel = NoiseTunnel(method)
        still = tunnel.attribute(x, target=[5, 2], nt_samples=3, stdevs=0.0)
        torch.testing.assert_close(still, plain, rtol=1e-5, atol=1e-8)
        torch.manual_seed(0)
        noisy = tunnel.attribute(x, target=[5, 2], nt_samples=4, nt_samples_batch_size=2, stdevs=0.05)
        assert noisy.shape == plain.shape and 0 < (noisy - plain).abs().sum() < plain.abs().sum()
        squared = tunnel.attribute(x, target=[5, 2], nt_samples=2, stdevs=0.0, nt_type="smoothgrad_sq")
        torch.testing.assert_close(squared, plain**2, rtol=1e-4, atol=1e-10)


def test_one_of_several_outputs_is_explained() -> None:
    net, x = TwoHeads().eval(), images(2)
    source = next(iter(ebp_cuda.from_torch(net, x).graph.inputs))
    with pytest.raises(InputError, match=r"2 outputs.*top="):
        ExcitationBackprop(net).attribute(x, target=0)
    for tops, target in (((0, "kind", net.kind), 4), ((1, -1, "size", net.size), 2)):
        head = "kind" if target == 4 else "size"
        plain = ebp_cuda.ExcitationBackprop(ebp_cuda.from_torch(net, x), source, top=head).relevance(x, target)[:, 0]
        for top in tops:
            assert torch.equal(ExcitationBackprop(net, top=top).attribute(x, target=target), plain)
            layer = LayerExcitationBackprop(net, "features.1", top=top).attribute(x, target=target)
            assert layer.sum((1, 2, 3)) == pytest.approx(torch.ones(2), abs=1e-4)
    for top in (2, -3, True, 1.0, "heads"):
        with pytest.raises(InputError, match="top"):
            ExcitationBackprop(net, top=top).attribute(x, target=0)


def test_a_layers_input() -> None:
    net, x = plain_net().eval(), images(2)
    below = LayerExcitationBackprop(net, net[5]).attribute(x, target=1, attribute_to_layer_input=True)
    assert torch.equal(below, LayerExcitationBackprop(net, net[4]).attribute(x, target=1))
    with pytest.raises(UnsupportedError, match="several layers"):
        whole = FullyConvolutional()
        layer = LayerExcitationBackprop(whole, whole.classifier)
        layer.attribute(images(1, 32), target=(1, 0, 0), attribute_to_layer_input=True)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.top = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.left(x).relu(), self.right(y).relu()], 1)
        return self.top((both + z).mean((2, 3)))


def test_several_inputs_and_additional_arguments() -> None:
    net, (x, y) = TwoInputs().eval(), (images(2), images(2) / 2)
    more = torch.rand(2, 8, 14, 14)
    got = ExcitationBackprop(net).attribute((x, y), target=1, additional_forward_args=more)
    assert isinstance(got, tuple) and [part.shape for part in got] == [x.shape, y.shape]
    third = ExcitationBackprop(net).attribute((x, y, more), target=1)
    assert torch.equal(third[0], got[0]) and sum(part.sum() for part in third) == pytest.approx(2, abs=1e-4)


def test_they_are_captums_classes() -> None:
    net = plain_net()
    whole, layer = ExcitationBackprop(net), LayerExcitationBackprop(net, net[4])
    assert isinstance(whole, Attribution) and isinstance(layer, LayerAttribution)
    assert whole.get_name() == "Excitation Backprop" and not whole.has_convergence_delta()
    assert whole.multiplies_by_inputs and layer.multiplies_by_inputs


def test_captums_visualisation_and_interpolation() -> None:
    net, x = plain_net().eval(), images(1)
    found = LayerExcitationBackprop(net, net[4], net[9]).attribute(x, target=3).sum(1, keepdim=True)
    large = LayerAttribution.interpolate(found, x.shape[2:])
    assert large.shape == (1, 1, 16, 16)
    for attribution in (large, ExcitationBackprop(net).attribute(x, target=3)):
        pictures = [tensor[0].permute(1, 2, 0).numpy() for tensor in (attribution, x)]
        figure, axes = visualization.visualize_image_attr(
            *pictures, method="blended_heat_map", sign="all", use_pyplot=False
        )
        assert len(axes.images) >= 2 and figure.axes


def test_captums_metrics() -> None:
    net, x, target = plain_net().eval(), images(2), torch.tensor([5, 2])
    whole = ExcitationBackprop(net)

    def perturb(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        noise = 0.1 * torch.randn_like(inputs)
        return noise, inputs - noise

    found = whole.attribute(x, target=target)
    unfaithful = infidelity(net, perturb, x, found, target=target, n_perturb_samples=4)
    assert unfaithful.shape == (2,) and bool((unfaithful >= 0).all())
    for rules in RULES:
        moved = sensitivity_max(ExcitationBackprop(net, rules=rules).attribute, x, target=target, n_perturb_samples=3)
        assert moved.shape == (2,) and bool((moved > 0).all()) and bool((moved < 1).all())


def test_sensitivity_of_a_layers_relevance_wants_a_tuple() -> None:
    net, x = plain_net().eval(), images(2)
    layer = LayerExcitationBackprop(net, net[4])
    moved = sensitivity_max(lambda *args, **more: (layer.attribute(*args, **more),), x, target=1)
    assert moved.shape == (2,) and bool((moved > 0).all())
    with pytest.raises(RuntimeError, match="size of tensor"):  # Captum's own layer methods need it as well
        sensitivity_max(LayerGradCam(net, net[4]).attribute, x, target=1)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_gradient_modes(mode) -> None:
    net, x = plain_net(), images(2)
    wanted = ExcitationBackprop(net).attribute(x, target=1)
    with mode():
        assert torch.equal(ExcitationBackprop(net).attribute(x, target=1), wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ExcitationBackprop(net).attribute(x, target=1), wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("rules", RULES)
def test_on_a_gpu(rules) -> None:
    net, x = plain_net().eval(), images(2)
    wanted = ExcitationBackprop(net, rules=rules).attribute(x, target=[1, 2])
    net.cuda()
    got = ExcitationBackprop(net, rules=rules).attribute(x.cuda(), target=[1, 2])
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rules", RULES)
def test_edited_weights_are_seen(rules) -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3)), images(1)
    whole = ExcitationBackprop(net.eval(), rules=rules)
    first = whole.attribute(x, target=1)
    with torch.no_grad():
        net[0].weight.neg_()
    assert torch.equal(
        whole.attribute(x, target=1), ExcitationBackprop(copy_of(net), rules=rules).attribute(x, target=1)
    )
    assert not torch.equal(whole.attribute(x, target=1), first)


def copy_of(net: nn.Sequential) -> nn.Sequential:
    import copy

    return copy.deepcopy(net)


@pytest.mark.parametrize("target", [None, 7, (1, 2), "cat", [1], [1, 2, 3]], ids=str)
def test_targets_that_captum_cannot_select(target) -> None:
    with pytest.raises(InputError, match="target="):
        ExcitationBackprop(plain_net()).attribute(images(2), target=target)


def test_refusals() -> None:
    net = plain_net()
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        ExcitationBackprop(lambda x: x)
    with pytest.raises(InputError, match="rules='exact'"):
        ExcitationBackprop(net, rules="exact")
    with pytest.raises(InputError, match="layer='44'"):
        LayerExcitationBackprop(net, "44").attribute(images(1), target=0)
    with pytest.raises(InputError, match="contrast_layer"):
        ExcitationBackprop(net, contrast_layer=nn.ReLU()).attribute(images(1), target=0)
    with pytest.raises(UnsupportedError, match="input 1 is a float"):
        ExcitationBackprop(net).attribute(images(1), target=0, additional_forward_args=0.5)
    with pytest.raises(UnsupportedError, match="input 1 is a NoneType"):
        ExcitationBackprop(TwoInputs()).attribute(images(1), target=0, additional_forward_args=(None, images(1)))


@pytest.mark.slow  # about 5 s: 1,000 images
def test_nothing_is_left_behind() -> None:
    net = plain_net().eval()
    layer = LayerExcitationBackprop(net, net[4], net[9])
    assert_keeps_nothing(lambda x: layer.attribute(x, target=2))
