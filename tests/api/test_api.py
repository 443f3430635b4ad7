"""The public face: what `ExcitationBackprop`, `Net` and the two functions take, give and refuse."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from support.small_net import Small

import ebp_cuda
from ebp_cuda import EBPError, ExcitationBackprop, InputError, ShapeError, UnsupportedError


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(3)
    return Small().eval()


@pytest.fixture(scope="module")
def net(module):
    return ebp_cuda.from_torch(module, torch.rand(2, 3, 12, 14), labels=["a", "b", "c", "d", "e"])


@pytest.fixture(scope="module")
def x():
    return torch.rand(2, 3, 12, 14, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def eb(net):
    return ExcitationBackprop(net, layer="features.2", contrast_layer="features.4", rules="caffe")


def test_maps_have_a_row_per_image_and_a_column_per_class(eb, x):
    found = eb.run(x, "all")
    assert found.maps.shape == (2, 5, 6, 7) and found.maps.dtype == torch.float32
    assert found.targets.tolist() == [[0, 1, 2, 3, 4]] * 2 and found.targets.dtype == torch.int64
    assert found.scores.shape == (2, 5)


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        (3, [[3], [3]]),
        ([3, 1], [[3], [1]]),
        (np.array([3, 1]), [[3], [1]]),
        (torch.tensor([[0, 4], [2, 2]]), [[0, 4], [2, 2]]),
    ],
)
def test_targets_mean_what_the_docstring_says(eb, x, target, meant):
    found, every = eb.run(x, target), eb.run(x, "all").maps
    assert found.targets.tolist() == meant
    for image, row in enumerate(meant):
        for column, index in enumerate(row):
            torch.testing.assert_close(found.maps[image, column], every[image, index], rtol=1e-4, atol=1e-8)


def test_top_targets_are_those_of_each_image(eb, net, x):
    found = eb.run(x, "top2")
    assert found.targets.tolist() == net.forward(x)[net.graph.outputs[0]].topk(2).indices.tolist()


def test_an_image_does_not_depend_on_its_neighbours(eb, x):
    alone = torch.cat([eb.attribute(x[i : i + 1], 2) for i in range(2)])
    torch.testing.assert_close(eb.attribute(x, 2), alone, rtol=1e-4, atol=1e-8)


def test_two_runs_give_the_same_bits(eb, x):
    assert torch.equal(eb.attribute(x, "all"), eb.attribute(x, "all"))


def test_threads_share_a_net(eb, x):
    wanted, got = eb.attribute(x, "all"), [None] * 4

    def work(index: int) -> None:
        got[index] = eb.attribute(x, "all")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found is not None and torch.allclose(found, wanted, rtol=1e-4, atol=1e-8) for found in got)


def test_relevance_sums_to_the_map_and_to_one(net, x):
    plain = ExcitationBackprop(net, layer="features.2", rules="caffe")
    p = plain.relevance(x, [1, 2])
    assert p.shape == (2, 1, 6, 6, 7)
    torch.testing.assert_close(p.sum(2), plain.attribute(x, [1, 2]))
    torch.testing.assert_close(p.sum((1, 2, 3, 4)), torch.ones(2))


def test_contrast_is_the_difference_of_two_sweeps(net, module, x):
    contrastive = ExcitationBackprop(net, "features.2", "features.4", "caffe").attribute(x, 1)
    negated = Small()
    negated.load_state_dict(module.state_dict())
    with torch.no_grad():
        negated.head.weight.neg_()
    halves = [ebp_cuda.excitation_backprop(m, x, 1, "features.2") for m in (module, negated.eval())]
    torch.testing.assert_close(contrastive, halves[0] - halves[1], rtol=1e-4, atol=1e-7)


def test_functions_equal_the_class(module, eb, x):
    got = ebp_cuda.contrastive_excitation_backprop(module, x, 2, "features.2", "features.4")
    torch.testing.assert_close(got, eb.attribute(x, 2))


def test_the_module_stays_as_it_is(module, x):
    module.train()
    before = {name: (t.data_ptr(), t.clone(), t.requires_grad) for name, t in module.named_parameters()}
    ebp_cuda.excitation_backprop(module, x, 1, "features.2", rules="conserving")
    assert module.training
    assert not module._forward_hooks and not module._backward_hooks
    for name, tensor in module.named_parameters():
        pointer, value, grad = before[name]
        assert tensor.data_ptr() == pointer and torch.equal(tensor, value) and tensor.requires_grad == grad
    module.eval()


def test_written_weights_are_packed_again(module, x):
    copy = Small().eval()
    copy.load_state_dict(module.state_dict())
    net = ebp_cuda.from_torch(copy, x)
    before = ExcitationBackprop(net, "features.2").attribute(x, 1)
    with torch.no_grad():
        copy.features[3].weight.mul_(-1)
    after = ExcitationBackprop(net, "features.2").attribute(x, 1)
    fresh = ExcitationBackprop(ebp_cuda.from_torch(copy, x), "features.2").attribute(x, 1)
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, fresh)


def test_numpy_and_double_inputs(eb, x):
    wanted = eb.attribute(x, 1)
    torch.testing.assert_close(torch.from_numpy(eb.attribute(x.numpy(), 1)), wanted)
    torch.testing.assert_close(eb.attribute(x.double(), 1), wanted)
    torch.testing.assert_close(eb.attribute({next(iter(eb.net.graph.inputs)): x}, 1), wanted)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_grad_modes_do_not_matter(eb, x, mode):
    with mode():
        maps = eb.attribute(x, 1)
    assert not maps.requires_grad
    assert torch.equal(maps, eb.attribute(x, 1))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (5, "target 5: the model has classes 0 to 4"),
        (-1, "target -1: the model has classes 0 to 4"),
        ([1, 2, 3], r"target has shape \[3\], wanted a class, \[2\] or \[2, K\]"),
        ("top9", "target='top9'"),
        ("best", "target='best': wanted an index"),
        (1.5, "wanted integers"),
        ([], "target has"),
        (object(), "wanted class indices"),
    ],
)
def test_bad_targets(eb, x, target, message):
    with pytest.raises(InputError, match=message):
        eb.attribute(x, target)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 12, 14), r"has shape \[3, 12, 14\], wanted \[N, 3"),
        ((1, 4, 12, 14), r"has shape \[1, 4, 12, 14\], wanted \[N, 3"),
        ((0, 3, 12, 14), "there is nothing in it"),
    ],
)
def test_bad_shapes(eb, shape, message):
    with pytest.raises(ShapeError, match=message):
        eb.attribute(torch.zeros(shape), 1)


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "holds NaN"), (float("inf"), "holds infinite values")])
def test_bad_values(eb, x, value, message):
    bad = x.clone()
    bad[1, 2, 3, 4] = value
    with pytest.raises(InputError, match=message):
        eb.attribute(bad, 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": "feature.2"}, InputError, "no layer or blob 'feature.2'; nearest: .*features.2"),
        ({"layer": "features.2", "contrast_layer": "nowhere"}, InputError, "no layer or blob 'nowhere'"),
        ({"layer": "features.4", "contrast_layer": "features.2"}, InputError, "does not lie below"),
        ({"layer": "features.2", "contrast_layer": "head"}, InputError, "no layer with weights lies between"),
        ({"layer": "features.2", "rules": "caffee"}, InputError, "wanted one of caffe, conserving"),
        ({"layer": "features.2", "dtype": "fp16"}, UnsupportedError, "dtype='fp16'"),
        ({"layer": "features.2", "device": "gpu"}, InputError, "device='gpu'"),
        ({"layer": "head", "top": "features.2"}, InputError, "does not lie below"),
    ],
)
def test_bad_set_ups(net, options, error, message):
    with pytest.raises(error, match=message):
        ExcitationBackprop(net, **options)


def test_a_layer_without_a_plane_has_no_map(net, x):
    flat = ExcitationBackprop(net, layer="head.input" if "head.input" in net.graph.names else _below_head(net))
    with pytest.raises(ShapeError, match="has no plane to map"):
        flat.attribute(x, 1)
    assert flat.relevance(x, 1).shape == (2, 1, 8)


def _below_head(net):
    return net.graph.nodes[net.graph.producer[net.graph.resolve("head")[-1]]].inputs[0]


def test_a_model_of_the_wrong_kind(x):
    with pytest.raises(InputError, match="model is a str"):
        ebp_cuda.excitation_backprop("resnet", x, 1, "layer")


def test_every_refusal_is_an_ebp_error():
    assert all(issubclass(error, EBPError) for error in (InputError, ShapeError, UnsupportedError, ebp_cuda.ModelError))


def test_forward_gives_named_activations(net, module, x):
    found = net.forward(x, outputs=["features.2", "head"])
    torch.testing.assert_close(found["head"], module(x).detach())
    torch.testing.assert_close(found["features.2"], module.features[:3](x).detach())
    with pytest.raises(InputError, match="no layer or blob 'tail'"):
        net.forward(x, outputs=["tail"])


def test_support_is_explained_layer_by_layer(net):
    rows = net.explain_support()
    kinds = {row["op"]: (row["caffe"], row["conserving"], row["missing"]) for row in rows}
    assert kinds["conv"] == ("share", "share", "") and kinds["max_pool"] == ("route", "route", "")
    assert kinds["relu"] == ("gradient", "pass", "")
    summary = net.summary().splitlines()
    assert len(summary) == len(rows) + 1 and summary[0].split()[:3] == ["layer", "type", "output"]


def test_a_registered_rule_is_used(net, x, tables_as_before):
    eb = ExcitationBackprop(net, layer="features.1", rules="caffe")
    assert eb.attribute(x, 1).any()

    @ebp_cuda.register_rule("max_pool", "route", rule_sets=["caffe"])
    def nothing(step, above):
        return [ebp_cuda.Relevance(torch.zeros(above[0].s.shape[0], *step.shapes[0][1:]))]

    assert not eb.attribute(x, 1).any()
    with pytest.raises(InputError, match="no operation 'maxpool'; nearest: max_pool"):
        ebp_cuda.register_rule("maxpool", "route")


def test_a_rule_registered_after_the_first_use_may_read_more(net, x, eb, tables_as_before):
    by_relu = eb.attribute(x, 1)

    @ebp_cuda.register_rule("relu", "gradient", rule_sets=["caffe"], needs="xy")
    def doubled(step, above):
        return [above[0].times(2 * (step.inputs[0] > 0).to(step.inputs[0].dtype))]

    torch.testing.assert_close(eb.attribute(x, 1), 2 * by_relu)  # one ReLU lies between the two layers


def test_a_full_memory_is_no_wrong_shape(net, x, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("ebp_cuda.linear.cpu.convolution", full)
    with pytest.raises(UnsupportedError, match=r"layer .features\.0.*out of memory, try fewer images"):
        net.forward(x)
