"""What `from_torch` promises besides numbers: names, a module left alone, and refusals that say what and why."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.torch_modules import Fn, Residual
from torch import nn

from ebp_cuda.api import ExcitationBackprop
from ebp_cuda.errors import InputError, ShapeError, UnsupportedError
from ebp_cuda.importers.torch import from_module
from ebp_cuda.net import Net

torch.set_num_threads(1)


def test_modules_are_named_by_their_paths() -> None:
    module = Fn(lambda m, x: m.tail(m.block(m.block(x))), block=Residual(4, 4, 1), tail=nn.Sequential(nn.ReLU()))
    graph = from_module(module, torch.rand(2, 4, 6, 6))
    names = [node.name for node in graph.nodes]
    assert names[:7] == [f"block.{name}" for name in ("conv1", "bn1", "relu", "conv2", "bn2", "sum", "relu#2")]
    assert names[7:11] == ["block.conv1#2", "block.bn1#2", "block.relu#3", "block.conv2#2"]
    assert names[11:14] == ["block.bn2#2", "block#2.sum", "block.relu#4"]
    assert graph.resolve("block") == ("block.relu#2",)
    assert graph.resolve("block#2") == ("block.relu#4",)
    assert graph.resolve("tail") == graph.resolve("tail.0") == ("tail.0",)
    assert list(graph.inputs.values()) == [(None, 4, 6, 6)]
    assert graph.nodes[0].source == "aten.conv2d"


def test_a_module_may_be_named_as_the_input_is() -> None:
    module = nn.Sequential()
    module.add_module("input", nn.Conv2d(2, 3, 1))
    graph = from_module(module, torch.rand(1, 2, 4, 4))
    assert list(graph.inputs) == ["input"]
    assert graph.resolve("input") == graph.outputs == ("input.conv",)


def test_the_module_is_left_alone_and_its_memory_is_used() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True), nn.Identity())
    module[0].bias.requires_grad_(False)  # type: ignore[union-attr]
    module[1].eval()
    module[3].register_forward_hook(lambda m, i, o: None)
    x = torch.rand(1, 3, 8, 8, requires_grad=True)

    def state() -> list[Any]:
        tensors = [*module.parameters(), *module.buffers(), x]
        flags = [(type(m), m.training, len(m._forward_hooks), set(m.__dict__)) for m in module.modules()]
        return [flags, [(id(t), t.data_ptr(), t._version, t.requires_grad, t.grad is None, t.sum()) for t in tensors]]

    before, grad = state(), torch.is_grad_enabled()
    graph = from_module(module, x)
    assert state() == before
    assert torch.is_grad_enabled() == grad
    weight = graph.nodes[0].params["weight"]
    assert weight.data_ptr() == module[0].weight.data_ptr()  # type: ignore[union-attr]
    assert not weight.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("inside", [True, False])
def test_gradient_modes_outside_and_inside_the_module_do_not_matter(mode: Any, inside: bool) -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(inside):
            return m.conv(x).relu()

    with mode():
        graph = from_module(Fn(forward, conv=nn.Conv2d(2, 3, 1)), torch.rand(1, 2, 4, 4))
    assert [node.op for node in graph.nodes] == ["conv", "relu"]


def test_several_threads_may_import() -> None:
    with ThreadPoolExecutor(4) as pool:
        graphs = list(pool.map(lambda seed: from_module(nn.Linear(3, seed), torch.rand(1, 3)), range(1, 5)))
    assert [graph.nodes[0].params["weight"].shape[0] for graph in graphs] == [1, 2, 3, 4]


def test_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def forward(self, image: torch.Tensor, depth: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"b": image + 1, "a": image + depth}

    x = {"depth": torch.rand(2, 3, 4, 4), "image": torch.rand(2, 3, 4, 4)}
    for example in (x, (x["image"], x["depth"])):
        graph = from_module(Two(), example)
        got = Net(graph).forward(x)
        assert set(graph.inputs) == {"image", "depth"}
        assert torch.equal(got[graph.outputs[0]], x["image"] + 1)
        assert torch.equal(got[graph.outputs[1]], x["image"] + x["depth"])


def test_labels_and_preprocess_are_kept() -> None:
    graph = from_module(nn.Linear(2, 2), torch.rand(1, 2), labels=["cat", "dog"], preprocess={"raw_scale": 1})
    assert graph.meta["labels"] == ["cat", "dog"]
    assert graph.meta["preprocess"] == {"raw_scale": 1}
    assert "Linear" in graph.origin


def test_all_unsupported_calls_are_listed_with_their_modules() -> None:
    shared = Fn(lambda m, x: x.lgamma())
    norms = nn.Sequential(Fn(lambda m, x: x.erfinv()), nn.Softsign())
    module = Fn(
        lambda m, x: m.norms(m.relu(m.shared(m.shared(m.conv(x))))),
        conv=nn.Conv2d(3, 4, 1),
        shared=shared,
        relu=nn.ReLU(),
        norms=norms,
    )
    with pytest.raises(UnsupportedError) as caught:
        from_module(module, torch.rand(1, 3, 6, 6))
    text = str(caught.value)
    assert "aten.lgamma.default in 'shared' (2 times): no counterpart" in text
    assert "aten.erfinv.default in 'norms.0': no counterpart" in text


@pytest.mark.parametrize(
    "attention",
    [
        lambda x: F.scaled_dot_product_attention(x, x, x),
        lambda x: (x @ x.transpose(2, 3)).softmax(-1) @ x,
        lambda x: F.dropout((x @ x.transpose(2, 3)).softmax(-1), 0.1, False).flatten(0, 1) @ x.flatten(0, 1),
    ],
)
def test_attention_is_refused_by_its_name(attention: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(UnsupportedError, match="attention multiplies activations with one another"):
        from_module(Fn(lambda m, x: attention(x)), torch.rand(2, 3, 6, 6))


def test_refusals_say_why() -> None:
    refused: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "two matrices that are both": lambda x: x @ x.transpose(2, 3),
        "statistics of its input": lambda x: F.batch_norm(x, None, None, training=True),
        "takes a part of the batch": lambda x: x[:1] * 1.0,
        "moves or mixes the batch axis": lambda x: x.transpose(0, 1),
        "mixes the images of a batch": lambda x: x.flatten(),
        "the maximum of everything": lambda x: x.max(),
        "besides the first": lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
        "float32 to torch.float16": lambda x: x.half(),
    }
    with pytest.raises(UnsupportedError) as caught:
        from_module(Fn(lambda m, x: [f(x) for f in refused.values()]), torch.rand(2, 3, 6, 6))
    lines = str(caught.value).splitlines()[1:]
    for reason in refused:
        assert sum(reason in line for line in lines) == 1, reason
    assert len(lines) == len(refused)


def test_any_size_takes_other_images() -> None:
    module = nn.Sequential(
        *(
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            Residual(4, 4, 1),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        ),
        *(nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten(), nn.Linear(24, 5)),
    ).eval()
    graph = from_module(module, torch.rand(1, 3, 20, 24), any_size=True)
    assert list(graph.inputs.values()) == [(None, 3, None, None)]
    net = Net(graph)
    assert net.shapes()[graph.outputs[0]] == (1, 5)
    for shape in [(2, 3, 20, 24), (1, 3, 33, 17), (3, 3, 13, 40)]:
        x = torch.rand(shape)
        with torch.no_grad():
            torch.testing.assert_close(net.forward(x)[graph.outputs[0]], module(x), rtol=1e-4, atol=1e-5)
        p = ExcitationBackprop(net, next(iter(graph.inputs)), rules="conserving").relevance(x, [1] * len(x))
        torch.testing.assert_close(p.flatten(1).sum(1), torch.ones(len(x)))


def test_any_size_where_there_is_one_only() -> None:
    module = Fn(lambda m, x: F.pad(x, (1, 1, 1, 1), mode="reflect"))
    with pytest.warns(UserWarning, match="image size is fixed to the example's: UnsupportedError"):
        graph = from_module(module, torch.rand(1, 3, 6, 6), any_size=True)
    assert list(graph.inputs.values()) == [(None, 3, 6, 6)]
    flat = from_module(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), torch.rand(1, 3, 4, 4), any_size=True)
    with pytest.raises(ShapeError, match="wanted 48 features"):
        Net(flat).forward(torch.rand(1, 3, 5, 4))


def test_nothing_is_left_behind_by_many_images() -> None:
    """Peak of Python's and torch's objects alike: what 20 images leave, 1,000 leave too."""
    module = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )
    net = Net(from_module(module, torch.rand(1, 3, 6, 6)))
    eb = ExcitationBackprop(net, net.graph.nodes[0].inputs[0], rules="conserving")

    def objects_after(count: int) -> int:
        for _ in range(count):
            eb.attribute(torch.rand(1, 3, 6, 6), 1)
        gc.collect()
        return sum(1 for thing in gc.get_objects() if type(thing) is torch.Tensor)

    settled = objects_after(20)
    assert objects_after(980) <= settled


def test_a_module_that_needs_its_batch_keeps_it() -> None:
    module = Fn(lambda m, x: m.fc(x.view(2, -1)), fc=nn.Linear(12, 3))
    with pytest.warns(UserWarning, match=r"batch size is fixed \(x.*: \[2, 3, 2, 2\]\)"):
        graph = from_module(module, torch.rand(2, 3, 2, 2))
    assert next(iter(graph.inputs.values())) == (2, 3, 2, 2)


@pytest.mark.parametrize(
    ("module", "example", "error", "words"),
    [
        (nn.Linear(3, 2), torch.rand(1, 4), InputError, r"does not run on the example input \[1, 4\]"),
        (nn.Linear(3, 2), "photo.jpg", InputError, "is str, wanted a tensor"),
        (nn.Linear(3, 2), [], InputError, "no tensor"),
        (torch.relu, torch.rand(1, 4), InputError, "wanted a torch.nn.Module"),
        (Fn(lambda m, x: x if x.sum() > 0 else -x), torch.rand(1, 4), UnsupportedError, "cannot trace"),
    ],
)
def test_what_cannot_be_imported(module: Any, example: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        from_module(module, example)
