"""What can be recorded: a guard that refuses whatever a stream cannot record (the host waits for the device, or sends
it something) shows on a CPU, and on meta tensors, that a GPU could record every network here."""

from __future__ import annotations

import gc
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from support.backends import Unfused
from support.golden_data import GOLDEN, load, under
from support.small_net import images, method
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ebp_cuda
from ebp_cuda import ExcitationBackprop, engine, models
from ebp_cuda.engine.run import measure
from ebp_cuda.linear import CPU, CUDA
from ebp_cuda.net import Net
from ebp_cuda.ops.host_sync import ForbidHostSync, HostRead, minmax
from ebp_cuda.questions.question import Question
from ebp_cuda.rules.relevance import Relevance


class Births(TorchDispatchMode):
    """Keeps note of every storage that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[StorageWeakRef] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {storage._cdata for storage in self.storages(args)}
        out = func(*args, **(kwargs or {}))
        self.made += [StorageWeakRef(storage) for storage in self.storages(out) if storage._cdata not in before]
        return out

    @staticmethod
    def storages(values) -> list[torch.UntypedStorage]:
        tensors = [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
        return [tensor.untyped_storage() for tensor in tensors if tensor.layout == torch.strided]

    def living(self) -> set[int]:
        return {ref.cdata for ref in self.made if not ref.expired()}


def test_nothing_of_a_run_stays_alive_but_its_results():
    """What a recording frees while it is taken down goes back to the pool; what it keeps is lost to the pool."""
    eb, x = method(), images(2)
    eb.run(x, "all")  # packs the weights, which stay
    gc.disable()  # a reference cycle would hold memory until some later collection: it must not count as freed
    try:
        with Births() as births:
            found = eb.run(x, "all")
        results = {tensor.untyped_storage()._cdata for tensor in found.arrays}
        assert len(births.made) > 30 and births.living() == results
    finally:
        gc.enable()


def everything_down(net: Net, inputs: dict[str, torch.Tensor], device: str, columns: int) -> None:
    """A pass up, and one down to every value that a sweep reaches, under the guard."""
    plan, graph = net.plan("caffe", device), net.graph
    inputs, tops = {name: plan.place(x) for name, x in inputs.items()}, list(graph.outputs)
    reached = [value for node in graph.nodes for value in (*node.inputs, *node.outputs)]
    wanted = [v for v in dict.fromkeys(reached) if v not in tops and graph.descendants([v]) & graph.ancestors(tops)]
    route = plan.route(tops, wanted)

    def run() -> None:
        trace = engine.forward(plan, inputs, route.keep | set(tops), route.nodes)
        seeds = {top: Relevance(trace.values[top].repeat_interleave(columns, 0)) for top in tops}
        for rel in engine.sweep(plan, trace, route, seeds, wanted).values():
            rel.p()

    run()  # packs the weights
    with ForbidHostSync():
        run()


TINY = sorted(path.stem for path in (GOLDEN / "tiny").glob("*.prototxt") if "eltwise_prod" not in path.stem)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", TINY)
def test_every_golden_layer_can_be_recorded(name, device, fused):
    inputs = {key: torch.from_numpy(x) for key, x in under(load(f"tiny/{name}.npz"), "in/").items()}
    net = ebp_cuda.load(GOLDEN / "tiny" / f"{name}.prototxt")
    net.plan("caffe", device).backend = CUDA if fused else CPU if device == "cpu" else Unfused()
    everything_down(net, inputs, device, columns=3)


@cache
def described(name: str) -> Net:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "deploy.prototxt")
        path.write_text(models.prototxt(name))
        return ebp_cuda.load(path)


@pytest.mark.parametrize(("images_", "columns", "fused"), [(1, 1, False), (2, 20, False), (2, 20, True)])
@pytest.mark.parametrize(
    ("name", "layer", "contrast"),
    [
        ("googlenet_coco", "pool2/3x3_s2", "pool5/7x7_s1"),
        ("googlenet_coco", "data", None),
        ("vgg16", "pool4", "fc7"),
        ("vgg16", "data", None),
    ],
)
def test_the_big_networks_can_be_recorded(name, layer, contrast, images_, columns, fused):
    """On meta tensors, which take the device's way through the ops and hold no numbers."""
    eb = ExcitationBackprop(described(name), layer, contrast, device="meta")
    eb.plan.backend = CUDA if fused else Unfused()
    x, targets = torch.rand(images_, 3, 224, 224), torch.zeros(images_, columns, dtype=torch.int64)
    eb.run(x, targets)
    inputs = {next(iter(eb.net.graph.inputs)): eb.plan.place(x)}
    question = Question(ebp_cuda.targets.choice_of(targets.to("meta"), images_))
    with ForbidHostSync():
        (maps,) = measure(eb.calls.walk, inputs, question, "maps", [layer]).readouts
    assert maps.shape[:2] == (images_, columns) and maps.is_meta


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_fill_(x > 0, 1)[x > 9].sum(),
        lambda x: torch.equal(x, x),
        lambda x: torch.tensor([1, 2]),
        lambda x: x.repeat_interleave(torch.tensor([1, 2]), 0),
        lambda x: x.to("meta"),
        lambda x: torch.empty(2, 3, device="meta").copy_(x),
        lambda x: x.unique(),
        lambda x: x.index_put_((x > 0,), x.sum()),
    ],
)
def test_the_guard_refuses_what_a_stream_cannot_record(call):
    x = torch.ones(2, 3)
    with pytest.raises(HostRead, match="between host and device cannot be recorded"), ForbidHostSync():
        call(x)


def test_the_guard_lets_all_else_through():
    x = torch.rand(2, 3)
    with ForbidHostSync():
        x.repeat_interleave(2, 0)[torch.arange(3)].topk(2)
        torch.where(x > 0, x, 0.5).to(torch.float64).to("cpu")
        x[:, 1:] = x[:, :2].clone()


def test_minmax_wait_once_and_see_nan():
    assert minmax(torch.tensor([[3, -1], [2, 7]])) == (-1, 7)
    assert all(np.isnan(minmax(torch.tensor([1.0, float("nan"), float("inf")]))))
    assert minmax(torch.tensor([1.0, float("-inf")]).half())[0] == float("-inf")
    assert minmax(torch.empty(2, device="meta")) is None
