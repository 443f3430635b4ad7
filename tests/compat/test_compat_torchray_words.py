"""ebp_cuda.compat.torchray without TorchRay: its probe, and what is said where a call cannot be."""

from __future__ import annotations

import pytest
from support.compat_nets import TwoHeads, images, plain_net

import ebp_cuda.compat.torchray as ours
from ebp_cuda import InputError, UnsupportedError


def test_a_probe_is_what_debug_gives_and_attaches_to_nothing() -> None:
    net, x = plain_net().eval(), images(1)
    for arguments in ((net[0],), (net[0], "input"), (net[0], "output")):
        with pytest.raises(UnsupportedError, match=r"Probe\(Conv2d.*debug=True"):
            ours.Probe(*arguments)
    with pytest.raises(UnsupportedError, match="target='output'"):
        ours.Probe(module=net[0], target="output")
    with pytest.raises(InputError, match="target='gradient'"):
        ours.Probe(net[0], "gradient")
    probe = ours.excitation_backprop(net, x, 1, saliency_layer="4", debug=True)[1]["4"]
    assert isinstance(probe, ours.Probe) and probe.module is net[4] and probe.target == "output"
    assert (probe.hook, probe.contrast, probe.non_negative_contrast) == (None, [], False)
    probe.remove()
    assert probe.data[0].grad.shape == probe.data[0].shape


@pytest.mark.parametrize(
    "target",
    ["cat", None, 1.5, [0.5], {"class": 1}, [[1], [1, 2]], True, object()],
    ids=lambda target: type(target).__name__,
)
def test_a_target_of_another_type_is_refused_in_words(target) -> None:
    with pytest.raises(InputError, match=r"target.*wanted one class, or one for each image"):
        ours.excitation_backprop(plain_net(), images(1), target, saliency_layer="1")


def test_a_gradient_function_that_gives_no_tensor_is_named() -> None:
    with pytest.raises(InputError, match=r"get_backward_gradient gives a NoneType; wanted a tensor \[1, 7\]"):
        ours.excitation_backprop(plain_net(), images(1), 1, get_backward_gradient=lambda output, target: None)


def test_a_model_of_two_outputs_is_refused() -> None:
    with pytest.raises(InputError, match="2 outputs; wanted one"):
        ours.excitation_backprop(TwoHeads(), images(1), 1)
