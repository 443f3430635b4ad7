"""An ExcitationBackprop goes to other processes by pickle, cloudpickle (Ray) and spawn, with the same bits there."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from support.compat_nets import images, plain_net

import ebp_cuda

OPTIONS = {"contrast_layer": "9", "rules": "conserving", "dtype": "fp64", "graphs": False, "max_memory": "1GB"}


def made(**options) -> ebp_cuda.ExcitationBackprop:
    net = ebp_cuda.from_torch(plain_net().eval(), images(1))
    return ebp_cuda.ExcitationBackprop(net, "4", **options)


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["defaults", "all"])
@pytest.mark.parametrize("used", [False, True])
def test_a_copy_computes_the_same(options, used) -> None:
    eb, x = made(**options), images(2)
    if used:
        eb.attribute(x, 1)
    copies = [pickle.loads(pickle.dumps(eb)), copy.deepcopy(eb)]
    cloudpickle = pytest.importorskip("cloudpickle")
    copies.append(pickle.loads(cloudpickle.dumps(eb)))
    for other in copies:
        assert type(other) is ebp_cuda.ExcitationBackprop and other is not eb
        assert (other.layer, other.contrast_layer, other.max_memory) == (eb.layer, eb.contrast_layer, eb.max_memory)
        assert torch.equal(other.attribute(x, [5, 2]), eb.attribute(x, [5, 2]))


@pytest.mark.slow  # a new process imports torch
def test_a_spawned_process_computes_the_same() -> None:
    eb, x = made(), images(2)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert torch.equal(pool.submit(eb.attribute, x, 3).result(), eb.attribute(x, 3))
