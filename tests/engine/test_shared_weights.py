"""Weights that change are seen, by whatever road: maps are never those of the old weights.

Every edit is compared with a fresh import of a copy of the module, through ExcitationBackprop in both rule sets,
Net.forward and the TorchRay adapter.
"""

from __future__ import annotations

import copy
import gc
import pickle
import statistics
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from ebp_cuda import ExcitationBackprop, from_torch
from ebp_cuda.compat.torchray import excitation_backprop
from ebp_cuda.errors import InputError, ModelError
from ebp_cuda.net import Net

X = torch.rand(2, 3, 10, 12, generator=torch.Generator().manual_seed(0))
SIZE = 8 * 4 * 5


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.bn = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.c2, self.fc = nn.Conv2d(6, 8, 3, stride=2), nn.Linear(SIZE, 5)
        self.gain = nn.Parameter(torch.rand(8, 1, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.c2(F.relu(self.bn(self.c1(x)))))
        return self.fc((x * (1 + self.gain)).flatten(1))


def small() -> Small:
    torch.manual_seed(1)
    return Small().eval()


def step(module: nn.Module, **options: Any) -> None:
    module(X).square().sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.05, **options).step()
    module.zero_grad()


def replace(module: Small) -> None:
    module.c2.weight = nn.Parameter(torch.randn_like(module.c2.weight))


def another_state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value + 0.3 if value.is_floating_point() else value for name, value in module.state_dict().items()}


@torch.no_grad()
def scale(module: Small) -> None:
    module.fc.weight.mul_(-2)


@torch.no_grad()
def one_element(module: Small) -> None:
    module.c2.weight[0, 0, 0, 0] += 3


def other_memory(module: Small) -> None:
    module.fc.weight.data = torch.randn(SIZE, 5).t()


@torch.no_grad()
def set_(module: Small) -> None:
    module.c1.weight.set_(torch.randn(6, 3, 3, 3))


ALWAYS: dict[str, Callable[[Any], Any]] = {
    "no_grad_in_place": scale,
    "one_element_counted": one_element,
    "load_state_dict": lambda m: m.load_state_dict(another_state(m)),
    "load_state_dict_assign": lambda m: m.load_state_dict(another_state(m), assign=True),
    "optimizer": step,
    "optimizer_foreach": lambda m: step(m, foreach=True),
    "optimizer_fused": lambda m: step(m, fused=True),
    "set_": set_,
    "data_assigned": other_memory,
    "new_parameter": replace,
    "statistics": lambda m: m.bn.running_var.mul_(3),
    "another_dtype_and_back": lambda m: (scale(m), m.double(), m.float()),
    "half_precision_weights": lambda m: (m.c2.to(torch.bfloat16), m.c2.float()),
}
UNCOUNTED: dict[str, Callable[[Any], Any]] = {
    "data_neg_": lambda m: (m.fc.weight.data.neg_(), m.fc.bias.data.add_(1)),
    "data_copy_": lambda m: m.c2.weight.data.copy_(torch.randn_like(m.c2.weight)),
    "data_mul_": lambda m: m.c1.weight.data.mul_(torch.rand(6, 1, 1, 1)),
    "data_clamp_": lambda m: m.c2.weight.data.clamp_(min=0),
    "data_of_a_gain": lambda m: m.gain.data.mul_(2),
    "data_of_statistics": lambda m: m.bn.running_mean.data.add_(1),
    "numpy": lambda m: m.c2.weight.detach().numpy().__imul__(-1),
    "fused_without_gradient_elsewhere": lambda m: m.bn.weight.data.neg_(),
}


def results(methods: list[ExcitationBackprop], net: Net) -> list[torch.Tensor]:
    return [*[method.relevance(X, 1) for method in methods], *net.forward(X).values()]


def methods_of(module: nn.Module, **options: Any) -> tuple[list[ExcitationBackprop], Net]:
    net = from_torch(module, X, **options)
    return [ExcitationBackprop(net, "c1", rules=rules) for rules in ("caffe", "conserving")], net


def assert_follows(
    module: nn.Module, methods: list[ExcitationBackprop], net: Net, twin: nn.Module | None = None
) -> None:
    """twin: a module with the same weights; a copy where that can be made."""
    twin = copy.deepcopy(module) if twin is None else twin
    for got, right in zip(results(methods, net), results(*methods_of(twin)), strict=True):
        torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [*ALWAYS, *UNCOUNTED])
def test_a_change_is_seen_at_the_next_call(name: str) -> None:
    module = small()
    methods, net = methods_of(module)
    before = results(methods, net)
    edit = {**ALWAYS, **UNCOUNTED}[name]
    edit(module)
    assert any(not torch.equal(new, old) for new, old in zip(results(methods, net), before, strict=True))
    edit(module)
    assert_follows(module, methods, net)


def test_the_adapters_follow() -> None:
    module = small()
    before = excitation_backprop(module, X, 1, saliency_layer="c1")
    module.fc.weight.data.neg_()
    after = excitation_backprop(module, X, 1, saliency_layer="c1")
    assert not torch.equal(after, before)
    torch.testing.assert_close(after, excitation_backprop(copy.deepcopy(module), X, 1, saliency_layer="c1"))


@pytest.mark.parametrize("kind", ["hook", "parametrization"])
@pytest.mark.parametrize("edit", ["in_place", "data"])
def test_weights_that_are_computed_from_others_follow_them(kind: str, edit: str) -> None:
    module, twin = small(), small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        norm = torch.nn.utils.weight_norm if kind == "hook" else torch.nn.utils.parametrizations.weight_norm
        norm(module.c2), norm(twin.c2)
    methods, net = methods_of(module)
    results(methods, net)
    params = dict(module.c2.named_parameters())
    for name in ("weight_v", "weight_g") if kind == "hook" else [name for name in params if "original" in name]:
        if edit == "data":
            params[name].data.mul_(torch.rand_like(params[name]) + 0.5)
        else:
            with torch.no_grad():
                params[name].mul_(torch.rand_like(params[name]) + 0.5)
        twin.load_state_dict(module.state_dict())
        assert_follows(module, methods, net, twin)


def test_weights_of_inference_mode_are_followed() -> None:
    with torch.inference_mode():
        module = small()
    methods, _ = methods_of(module)
    methods[0].relevance(X, 1), methods[1].relevance(X, 1)
    with torch.inference_mode():
        module.c2.weight.mul_(-0.5)
    plain = small()
    plain.load_state_dict({name: value.clone() for name, value in module.state_dict().items()})
    for method, other in zip(methods, methods_of(plain)[0], strict=True):
        torch.testing.assert_close(method.relevance(X, 1), other.relevance(X, 1), rtol=1e-4, atol=1e-6)


def test_a_mostly_empty_weight_is_followed() -> None:
    """A pruned weight of which few elements are left: one of those is among the samples."""
    module = small()
    with torch.no_grad():
        kept = torch.zeros_like(module.fc.weight)
        kept[3, 77] = -1.5
        module.fc.weight.copy_(kept)
    methods, net = methods_of(module)
    results(methods, net)
    module.fc.weight.data.mul_(2)
    assert_follows(module, methods, net)


def _one_element_uncounted(module: Small) -> None:
    module.c2.weight.data[2, 3, 1, 1] += 3


def test_single_elements_are_seen_after_refresh() -> None:
    module = small()
    methods, net = methods_of(module)
    before = results(methods, net)
    _one_element_uncounted(module)
    net.refresh()
    assert_follows(module, methods, net)
    assert not torch.equal(methods[0].relevance(X, 1), before[0])


def test_single_elements_are_seen_by_checking_all() -> None:
    module = small()
    methods, _ = methods_of(module, check_weights="all")
    methods[0].relevance(X, 1), methods[1].relevance(X, 1)
    _one_element_uncounted(module)
    twin = copy.deepcopy(module)
    for method, other in zip(methods, methods_of(twin)[0], strict=True):
        torch.testing.assert_close(method.relevance(X, 1), other.relevance(X, 1), rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="check_weights='some'"):
        from_torch(module, X, check_weights="some")


def test_single_elements_are_seen_by_checking_all_after_other_changes() -> None:
    module = small()
    (sampled, _), net = methods_of(module)
    sampled.relevance(X, 1)
    _one_element_uncounted(module)  # before anybody asked for all
    checking = ExcitationBackprop(net, "c1", rules="conserving", check_weights="all")
    for edit in (lambda: None, lambda: module.bn.bias.data.add_(1.5), lambda: _one_element_uncounted(module)):
        edit()
        other = ExcitationBackprop(from_torch(copy.deepcopy(module), X), "c1", rules="conserving")
        torch.testing.assert_close(checking.relevance(X, 1), other.relevance(X, 1), rtol=1e-4, atol=1e-6)


def _take_out(module: nn.Module) -> None:
    del module[3]


REBUILT: dict[str, tuple[Callable[[Any], object], str]] = {
    "another layer": (lambda m: m.__setitem__(2, nn.Conv2d(6, 6, 1)), "'2'"),
    "another layer inside": (lambda m: m[4].__setitem__(0, nn.Linear(6, 5)), "'4.0'"),
    "one without weights": (lambda m: m.__setitem__(1, nn.Sigmoid()), "'1'"),
    "one taken out": (_take_out, "'3'"),
    "None": (lambda m: m.__setitem__(1, None), "'1'"),
    "one more": (lambda m: m.append(nn.Softmax(1)), "'the module itself'"),
    "a pruned weight": (lambda m: prune.l1_unstructured(m[2], "weight", 0.5), r"'2\.weight'"),
    "a parametrized one": (lambda m: nn.utils.parametrizations.weight_norm(m[2]), r"'2\.weight'"),
    "no bias any more": (lambda m: setattr(m[0], "bias", None), r"'0\.bias'"),
}


@pytest.mark.parametrize("name", REBUILT)
def test_a_module_that_was_rebuilt_is_an_error_and_no_old_map(name: str) -> None:
    edit, path = REBUILT[name]
    pool = nn.AdaptiveAvgPool2d(1)
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 1), pool, nn.Sequential(nn.Flatten())).eval()
    module[4].insert(0, nn.Identity())
    method = ExcitationBackprop(from_torch(module, X), "1")
    method.relevance(X, 1)
    del pool
    edit(module)
    for again in (lambda: method.relevance(X, 1), method.net.refresh):
        with pytest.raises(ModelError, match=path):
            again()


def test_what_no_forward_runs_through_may_come_and_go() -> None:
    module = small()
    net = from_torch(module, X)
    module.note, module.head = "an attribute", nn.Linear(2, 2)
    module.c1.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(next(iter(net.forward(X).values())), module(X))


def test_a_setting_that_follows_from_weights_is_refused_once_they_change() -> None:
    class Clipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.limit = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.elu(x).clamp(max=self.limit)

    module = Clipped()
    net = from_torch(module, X)
    torch.testing.assert_close(next(iter(net.forward(X).values())), module(X))
    module.limit.data.mul_(0.5)
    try:
        follows = next(iter(net.forward(X).values()))
    except ModelError as error:
        assert "import the module again" in str(error)
    else:
        torch.testing.assert_close(follows, module(X))


def test_the_module_is_neither_kept_alive_nor_written_to() -> None:
    module = small()
    _, net = methods_of(module)
    net.forward(X)
    before = [(tensor.data_ptr(), tensor._version) for tensor in module.state_dict().values()]
    module.fc.weight.data.neg_()
    net.forward(X)
    net.refresh()
    assert [(tensor.data_ptr(), tensor._version) for tensor in module.state_dict().values()] == before
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
    net.forward(X)


def test_a_copy_of_a_network_has_weights_of_its_own() -> None:
    module = small()
    net = from_torch(module, X)
    right = net.forward(X)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        module.fc.weight.data.neg_()
        for name, value in other.forward(X).items():
            torch.testing.assert_close(value, right[name])
        module.fc.weight.data.neg_()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "resnet50", "vgg16"])
def test_the_check_takes_at_most_two_percent_of_a_call(name: str) -> None:
    """One image, the cheapest call there is: MWP at the last but one stage."""
    torchvision = pytest.importorskip("torchvision")
    layer = {"googlenet": "inception5a", "resnet50": "layer4.0", "vgg16": "features.28"}[name]
    options = {"googlenet": {"aux_logits": False, "init_weights": False}, "vgg16": {"init_weights": False}}
    module = getattr(torchvision.models, name)(**options.get(name, {})).eval()
    x = torch.rand(1, 3, 224, 224)
    method = ExcitationBackprop(from_torch(module, x), layer)
    weights = method.net.graph.weights
    assert weights is not None and not weights.update()

    def seconds(call: Callable[[], Any], count: int) -> float:
        times = []
        for _ in range(count):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    method.attribute(x, 1)
    share = seconds(weights.update, 21) / seconds(lambda: method.attribute(x, 1), 3)
    print(f"{name}: the check takes {100 * share:.3f} % of a call")
    assert share < 0.02
