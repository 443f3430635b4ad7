"""Arrays of other libraries through the whole way: attribute(), run() and relevance() answer in the caller's kind."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from support import fake_cupy
from support.compat_nets import images, plain_net

import ebp_cuda
from ebp_cuda import ShapeError
from ebp_cuda.interop import like, to_tensor


@pytest.fixture(scope="module")
def method() -> ebp_cuda.ExcitationBackprop:
    return ebp_cuda.ExcitationBackprop(ebp_cuda.from_torch(plain_net(), images(1)), "4", "9", "caffe")


def test_numpy_in_numpy_out(method) -> None:
    x, target = images(2), torch.tensor([[1, 2, 3], [4, 5, 6]])
    wanted = method.run(x, target)
    for given in (x.numpy(), {next(iter(method.net.graph.inputs)): x.numpy()}):
        got = method.run(given, target.numpy())
        for name in ("maps", "targets", "scores"):
            assert type(getattr(got, name)) is np.ndarray
            assert np.array_equal(getattr(got, name), getattr(wanted, name).numpy())
    assert type(method.attribute(x.numpy(), "all")) is type(method.relevance(x.numpy(), 3)) is np.ndarray
    assert np.array_equal(method.relevance(x.numpy(), 3), method.relevance(x, 3).numpy())
    whole = ebp_cuda.excitation_backprop(method.net, x.numpy(), 3, "4")
    assert type(whole) is np.ndarray and whole.shape == (2, 1, 8, 8)


def test_lists_give_tensors(method) -> None:
    assert isinstance(method.attribute(images(1).tolist(), 1), torch.Tensor)


def test_dlpack_in_dlpack_out(method) -> None:
    x, target = images(2), torch.tensor([3, 1])
    wanted = method.run(x, target)
    with fake_cupy.installed() as cupy:
        cupy.handed_out.clear()
        got = method.run(cupy.ndarray(x), cupy.ndarray(target))
        assert cupy.handed_out == [x.data_ptr(), target.data_ptr()]
        for name in ("maps", "targets", "scores"):
            array = getattr(got, name)
            assert type(array) is cupy.ndarray and torch.equal(array.memory, getattr(wanted, name))
            assert array.memory.data_ptr() in cupy.taken_in


@pytest.mark.gpu
def test_cupy_in_cupy_out() -> None:
    cupy = pytest.importorskip("cupy")
    network, x = ebp_cuda.from_torch(plain_net(), images(1)), images(2)
    for device in ("cuda", "cpu"):
        method = ebp_cuda.ExcitationBackprop(network, "4", "9", "caffe", device=device)
        wanted = method.run(x, [3, 1])
        with cupy.cuda.Stream(non_blocking=True):
            got = method.run(cupy.asarray(x.numpy()), cupy.asarray([3, 1]))
            assert all(isinstance(part, cupy.ndarray) for part in (got.maps, got.targets, got.scores))
            assert np.array_equal(cupy.asnumpy(got.maps), wanted.maps.cpu().numpy())


@pytest.mark.parametrize(
    "given",
    [
        np.arange(6.0).reshape(2, 3)[::-1],
        np.arange(6.0, dtype=">f8").reshape(2, 3),
        np.arange(12.0).reshape(2, 6)[:, ::2],
        np.broadcast_to(np.arange(3.0), (2, 3)),
        np.arange(6, dtype=np.uint16).reshape(2, 3),
    ],
    ids=["backwards", "big endian", "strided", "read-only", "uint16"],
)
@pytest.mark.filterwarnings("error")
def test_arrays_of_every_layout(given) -> None:
    assert np.array_equal(to_tensor(given).numpy(), given)


def test_memory_is_shared_both_ways() -> None:
    array = np.zeros((2, 3), np.float32)
    tensor = to_tensor(array)
    tensor += 1
    assert array.all() and like(array, tensor).ctypes.data == array.ctypes.data
    assert like(tensor, tensor) is tensor and to_tensor(tensor) is tensor


def test_what_no_array_can_be_made_of_is_refused(method) -> None:
    with pytest.raises(ShapeError, match="cannot be read as an array"):
        method.attribute(np.array([object()]), 1)
    with pytest.raises(ShapeError, match="cannot be read as an array"):
        method.attribute([[1, 2], [3]], 1)


ALONE = """
import sys, ebp_cuda, ebp_cuda.compat.grad_cam, ebp_cuda.compat.torchray
assert ebp_cuda.functional.conv2d and ebp_cuda.jit.elementwise
others = {"torchray", "captum", "pytorch_grad_cam", "zennit", "torchvision", "cupy", "ray", "pyarrow", "pycocotools"}
print(sorted(others & set(sys.modules)))
"""


def test_the_package_imports_none_of_the_libraries_it_adapts_to() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
