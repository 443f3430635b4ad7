"""Right, or refused by name: modules that torch.export reads otherwise than the user means."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from support.torch_modules import Fn
from torch import nn

from ebp_cuda.api import ExcitationBackprop
from ebp_cuda.errors import EBPError, InputError, ModelError, ShapeError, UnsupportedError
from ebp_cuda.importers.torch import from_module
from ebp_cuda.net import Net

Forward = Callable[..., torch.Tensor]
X = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(0))


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


def output(graph_or_net: Any, x: torch.Tensor) -> torch.Tensor:
    net = graph_or_net if isinstance(graph_or_net, Net) else Net(graph_or_net)
    return next(iter(net.forward(x).values()))


# Sizes computed from the input


ANY_SIZE: dict[str, Forward] = {
    "resized_to_the_input": lambda m, x: F.interpolate(F.max_pool2d(m.conv(x), 2), size=x.shape[2:], mode="bilinear"),
    "resized_nearest": lambda m, x: F.interpolate(F.max_pool2d(m.conv(x), 2), size=x.shape[-2:]),
    "pooled_to_half": lambda m, x: F.adaptive_avg_pool2d(m.conv(x), (x.shape[2] // 2, x.shape[3] // 2)),
    "pooled_to_half_and_all": lambda m, x: F.adaptive_avg_pool2d(m.conv(x), (x.shape[2] // 2, x.shape[3])),
    "pooled_to_half_by_maximum": lambda m, x: F.adaptive_max_pool2d(m.conv(x), (x.shape[2] // 2, x.shape[3] // 2)),
    "padded_to_even": lambda m, x: F.pad(m.conv(x), (0, x.shape[3] % 2, 0, x.shape[2] % 2)),
    "cut_to_half": lambda m, x: m.conv(x)[:, :, : x.shape[2] // 2],
    "divided_by_its_size": lambda m, x: m.conv(x) / (x.shape[2] * x.shape[3]),
}


@pytest.mark.parametrize("name", ANY_SIZE)
def test_sizes_computed_from_the_input(name: str) -> None:
    """The module's own output at whatever sizes the network takes, or the size fixed, with a warning."""
    module = Fn(ANY_SIZE[name], conv=nn.Conv2d(3, 4, 3, padding=1)).eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        graph = from_module(module, X, any_size=True)
    free = all(n is None for n in next(iter(graph.inputs.values()))[2:])
    assert free or any("the image size is fixed" in str(warning.message) for warning in caught)
    for x in (X, torch.rand(1, 3, 7, 12)) if free else (X,):
        torch.testing.assert_close(output(graph, x), module(x))


def test_a_branch_by_the_size_is_the_branch_of_the_example() -> None:
    module = Fn(lambda m, x: m.conv(x) * 2 if x.shape[2] > 5 else m.conv(x), conv=nn.Conv2d(3, 4, 3)).eval()
    net = Net(from_module(module, X, any_size=True))
    x = torch.rand(1, 3, 6, 4)
    torch.testing.assert_close(output(net, x), module(x))
    with pytest.raises(ShapeError, match=r"\[1, 3, 5, 9\].* > 5 .*shape\[2\].*import it with an example of this size"):
        net.forward(torch.rand(1, 3, 5, 9))
    batches = Fn(lambda m, x: m.conv(x) * 2 if x.shape[0] > 4 else m.conv(x), conv=nn.Conv2d(3, 4, 3)).eval()
    net = Net(from_module(batches, X))
    torch.testing.assert_close(output(net, X), batches(X))
    with pytest.raises(ShapeError, match="the module does something else"):
        net.forward(torch.rand(5, 3, 8, 10))


# Hooks


def test_hooks_that_observe_do_not_run() -> None:
    kept: list[Any] = []
    module = small()
    module[0].register_forward_hook(lambda m, i, o: kept.append(o.detach().cpu().numpy()))
    module[1].register_forward_pre_hook(lambda m, i: print(i[0].shape))
    module[4].register_forward_hook(partial(lambda name, m, i, o: kept.append((name, o)), "fc"))
    graph = from_module(module, X)
    assert kept == []
    module(X)
    assert len(kept) == 2
    torch.testing.assert_close(output(graph, X), module(X))


@pytest.mark.parametrize(
    "hook", [lambda m, i, o: o * 2, lambda m, i, o: torch.relu(o), lambda m, i, o: o.mul_(2) and None, [].append]
)
def test_hooks_that_may_change_a_value_are_named(hook: Any) -> None:
    module = small()
    module[0].register_forward_hook(hook)
    with pytest.raises(UnsupportedError, match=r"module '0' has a forward hook .* may change what the module gives"):
        from_module(module, X)


def test_hooks_that_make_weights_take_part() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = nn.Sequential(torch.nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.ReLU()).eval()
    torch.nn.utils.prune.random_unstructured(module[0], "bias", amount=2)
    with torch.no_grad():
        module[0].weight_g.mul_(2)
    torch.testing.assert_close(output(from_module(module, X), X), module(X))


# Inference mode, devices, layouts


@pytest.mark.parametrize("kind", ["example", "module"])
def test_what_was_made_under_inference_mode(kind: str) -> None:
    with torch.inference_mode():
        x, module = (X.clone(), small()) if kind == "example" else (X, small())
    module = small() if kind == "example" else module
    graph = from_module(module, x)
    assert graph.nodes[0].params["weight"].data_ptr() == module[0].weight.data_ptr()
    with torch.no_grad():
        torch.testing.assert_close(output(graph, X), module(X))


@pytest.mark.parametrize(("layout", "words"), [(X.to("meta"), "meta device"), (X.to_sparse(), r"sparse \(torch")])
def test_inputs_without_dense_numbers(layout: torch.Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        from_module(small(), layout)
    eb = ExcitationBackprop(Net(from_module(small(), X)), "0")
    with pytest.raises(InputError, match=f"input 'input' is .*{words}"):
        eb.run(layout, 0)


def test_modules_without_dense_numbers() -> None:
    with pytest.raises(ModelError, match=r"'0.weight' is on the meta device"):
        from_module(small().to("meta"), X)
    with pytest.raises(ModelError, match=r"'0.weight' is lazy .* run the module on an input once first"):
        from_module(nn.Sequential(nn.LazyConv2d(3, 3), nn.ReLU()), X)
    module = small()
    module[4].weight = nn.Parameter(module[4].weight.detach().to_sparse())
    with pytest.raises(UnsupportedError, match=r"'4.weight' is sparse"):
        from_module(module, X)


def test_quantized_modules_are_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(small(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(UnsupportedError, match=r"module '4' .* is quantized.*the float module"):
        from_module(quantized, X)


def test_weights_that_are_not_finite_are_reported() -> None:
    module = small()
    with torch.no_grad():
        module[0].weight[1, 2, 0, 0] = float("nan")
        module[4].bias[0] = -float("inf")
    with pytest.warns(UserWarning, match=r"NaN or infinite numbers in '0.weight', '4.bias'"):
        graph = from_module(module, X)
    assert graph.meta["not_finite"] == ["0.weight", "4.bias"]


# Values that only the image knows


def test_numbers_taken_from_values_name_their_line() -> None:
    def divided(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.conv(x) / x.amax().item()

    def decided(m: Any, x: torch.Tensor) -> torch.Tensor:
        if x.max().item() > 0.5:  # this very line
            x = x + 1
        return m.conv(x)

    def cut(m: Any, x: torch.Tensor) -> torch.Tensor:
        return m.conv(x)[:, : int(x.sum())]

    for function, line in [(decided, "this very line"), (divided, "self.function"), (cut, r"int\(x.sum")]:
        with pytest.raises(UnsupportedError, match=f"py, line [0-9]+: `.*{line}.*values of the image"):
            from_module(Fn(function, conv=nn.Conv2d(3, 4, 3)), X)


# A forward that writes


def _by_add(m: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        m.conv.weight.add_(1)
    return m.conv(x)


def _by_data(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.conv.weight.data.mul_(0.5)
    return m.conv(x)


def _by_buffer(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.norm.running_mean += 1
    return m.norm(m.conv(x))


def _by_view(m: Any, x: torch.Tensor) -> torch.Tensor:
    m.norm.running_var.view(2, 2)[0].fill_(2)
    return m.norm(m.conv(x))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_by_add, "writes to its own 'conv.weight' by aten.add_"),
        (_by_buffer, "writes to its own 'norm.running_mean' by aten.add_"),
        (_by_view, "writes to its own 'norm.running_var' by aten.fill_"),
        (_by_data, "the forward writes a tensor by .data"),
    ],
)
def test_a_forward_that_writes_its_weights_is_refused(function: Forward, words: str) -> None:
    module = Fn(function, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)).eval()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(UnsupportedError, match=words):
        from_module(module, X)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_counter_that_no_output_reads_is_no_hindrance() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.conv(x)

    module = Counts()
    torch.testing.assert_close(output(from_module(module, X), X), module(X))
    assert float(module.calls) == 1


def test_statistics_that_a_forward_updates_are_refused() -> None:
    statistics = torch.zeros(3), torch.ones(3)
    with pytest.raises(UnsupportedError, match="normalizes by the statistics of its input"):
        from_module(Fn(lambda m, x: F.batch_norm(x, None, None, training=True)), X)
    with pytest.raises(EBPError):
        from_module(Fn(lambda m, x: F.batch_norm(x, *statistics, training=True)), X)


# The batch axis


def test_layers_without_a_batch_axis() -> None:
    for function in (F.adaptive_avg_pool2d, F.adaptive_max_pool2d):
        with pytest.raises(UnsupportedError, match="wanted a batch"):
            from_module(Fn(lambda m, x, function=function: function(x, (5, 5))), torch.rand(8, 8, 8))


def test_a_squeeze_of_the_batch_of_one() -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    module = Fn(lambda m, x: m.pooled(x).squeeze(), pooled=pooled).eval()
    with pytest.raises(UnsupportedError, match="drops the batch axis too"):
        from_module(module, X[:1])
    torch.testing.assert_close(output(from_module(module, X), X), module(X))
    with pytest.raises(EBPError):
        from_module(Fn(lambda m, x: x.squeeze()), torch.rand(1, 1, 1, 1))


# Ordinary, and once refused


ORDINARY: dict[str, Forward] = {
    "maximum_with_a_number": lambda m, x: torch.maximum(m.conv(x), torch.tensor(0.1)),
    "maximum_with_a_tensor": lambda m, x: torch.maximum(m.conv(x), torch.linspace(-1, 1, 4).reshape(1, 4, 1, 1)),
    "minimum_with_a_tensor": lambda m, x: torch.minimum(m.conv(x), torch.linspace(-1, 1, 4).reshape(1, 4, 1, 1)),
    "clamp_by_tensors": lambda m, x: m.conv(x).clamp(torch.linspace(-1, 0, 8), torch.linspace(0, 1, 8)),
    "rrelu": lambda m, x: F.rrelu(m.conv(x)),
    "largest_of_an_axis": lambda m, x: m.conv(x).max(-1)[0],
    "smallest_of_an_axis": lambda m, x: m.conv(x).min(dim=1).values,
    "selu": lambda m, x: F.selu(m.conv(x)),
    "masked": lambda m, x: m.conv(x).masked_fill(torch.eye(6, 8).bool(), -1.5),
    "chosen": lambda m, x: torch.where(m.conv(x) > 0.1, m.conv(x) * 2, -x[:, :1, 1:-1, 1:-1].repeat(1, 4, 1, 1)),
    "cubic": lambda m, x: F.interpolate(m.conv(x), size=(9, 5), mode="bicubic"),
    "windows": lambda m, x: F.unfold(m.conv(x), 3, padding=1, stride=2),
    "deviation": lambda m, x: m.conv(x).std((2, 3)),
    "steep_log_softmax": lambda m, x: (400 * m.conv(x)).log_softmax(1),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_calls_are_taken(name: str) -> None:
    module = Fn(ORDINARY[name], conv=nn.Conv2d(3, 4, 3)).eval()
    net = Net(from_module(module, X))
    for x in (X, torch.rand(1, 3, 8, 10)):
        torch.testing.assert_close(output(net, x), module(x), rtol=1e-4, atol=1e-5)


def test_selu_passes_its_own_gradient_on_in_caffe() -> None:
    """What has no rule in the original takes the ordinary gradient: of SELU that is its scale above 0."""
    from ebp_cuda.rules import OPERATIONS

    graph = from_module(nn.Sequential(nn.SELU(), nn.Flatten(), nn.Linear(240, 3)), X)
    assert OPERATIONS[graph.nodes[0].op].rules["caffe"].kind == "gradient"
    x = X.clone().requires_grad_()
    module = nn.Sequential(nn.SELU(), nn.Flatten(), nn.Linear(240, 3, bias=False))
    with torch.no_grad():
        module[2].weight.abs_()
    y = module(x)
    net = Net(from_module(module, X))
    p = ExcitationBackprop(net, next(iter(net.graph.inputs)), rules="caffe").relevance(X, 1)[:, 0]
    below = ExcitationBackprop(net, "0", rules="caffe").relevance(X, 1)[:, 0]
    slope = torch.autograd.grad(nn.SELU()(x).sum(), x)[0]
    torch.testing.assert_close(p, below * slope, rtol=1e-5, atol=1e-7)
    assert y.shape == (2, 3)


def test_one_score_for_each_image() -> None:
    """A top of shape [N], as binary classifiers have it: one class, whose map is that of the same top as [N, 1]."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    flat = Fn(lambda m, x: m.body(x).squeeze(1), body=body).eval()
    net = Net(from_module(flat, X))
    result = ExcitationBackprop(net, "body.0").run(X, 0)
    right = ExcitationBackprop(Net(from_module(body.eval(), X)), "0").run(X, 0)
    torch.testing.assert_close(result.maps, right.maps)
    torch.testing.assert_close(result.scores, flat(X)[:, None])
    with pytest.raises(InputError, match="classes 0 to 0"):
        ExcitationBackprop(net, "body.0").run(X, 1)
