"""The original's small nets through the pycaffe face: every blob, every diff, what it never writes included."""

from __future__ import annotations

import numpy as np
import pytest
from oracle.ops import DEVICES
from support.golden_data import GOLDEN, difference, floor, load, under

from ebp_cuda import UnsupportedError, caffe
from ebp_cuda.importers.caffe import write_caffemodel

NAMES = sorted(path.stem for path in (GOLDEN / "tiny").glob("*.npz"))
NO_BACKWARD = "eltwise_prod_unstable"
TOLERANCE = 2e-5


@pytest.fixture(autouse=True)
def excitation():
    caffe.set_mode_eb_cpu()
    yield
    caffe.set_mode_cpu()
    caffe.set_strict(True)


def small_net(name, folder):
    """(golden arrays, Net with the golden parameters and inputs)."""
    data, prototxt = load(f"tiny/{name}.npz"), GOLDEN / "tiny" / f"{name}.prototxt"
    layers: dict[str, list[np.ndarray]] = {}
    for key, blob in under(data, "param/").items():
        layers.setdefault(key.rsplit("/", 1)[0], []).append(blob)
    write_caffemodel(folder / "w.caffemodel", prototxt.read_text(), layers)
    net = caffe.Net(str(prototxt), str(folder / "w.caffemodel"), caffe.TEST)
    for blob, array in under(data, "in/").items():
        net.blobs[blob].data[...] = array
    return data, net


def check(name, run, net, data):
    for blob, wanted in under(data, f"{run}/").items():
        side, _, blob = blob.partition("/")
        if side == "diff":
            limit = max(TOLERANCE, 4 * floor(f"tiny/{name}.npz", f"{run}/diff/{blob}"))
            assert net.blobs[blob].diff.shape == wanted.shape
            assert difference(net.blobs[blob].diff, wanted) <= limit, blob


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_every_blob_and_diff(name, device, tmp_path):
    caffe.set_strict(name != NO_BACKWARD)
    (caffe.set_mode_eb_gpu if device == "cuda" else caffe.set_mode_eb_cpu)()
    data, net = small_net(name, tmp_path)
    assert sorted(net.blobs) == sorted(under(data, "B/diff/"))
    net.forward()
    for blob, wanted in under(data, "fwd/").items():
        limit = max(TOLERANCE, 4 * floor(f"tiny/{name}.npz", f"fwd/{blob}"))
        assert difference(net.blobs[blob].data, wanted) <= limit, blob
    for run, start in (("A", 0.0), ("B", 7.0)):
        for blob in net.blobs.values():
            blob.diff[...] = start
        for blob, diff in under(data, f"{run}/top_diff/").items():
            net.blobs[blob].diff[...] = diff
        net.backward()
        check(name, run, net, data)


def test_product_is_refused_unless_asked(tmp_path):
    _, net = small_net(NO_BACKWARD, tmp_path)
    net.forward()
    net.blobs["out"].diff[...] = 1
    with pytest.raises(UnsupportedError, match="stale diffs"):
        net.backward()


@pytest.mark.parametrize("name, top", [("mini_inception", "fc"), ("mini_vgg", "fc8")])
def test_contrastive_sequence(name, top, tmp_path):
    data, net = small_net(name, tmp_path)
    names = list(net._layer_names)
    second = {"mini_inception": "pp", "mini_vgg": "fc7"}[name]
    below = next(n for n in reversed(names) if second in net.top_names[n] and net.bottom_names[n] != [second])
    net.forward()
    ((_, seed),) = under(data, "C/top_diff/").items()
    net.blobs[top].diff[...] = seed
    net.params[top][0].data[...] *= -1
    net.backward(start=top, end=names[names.index(top)])
    negative = net.blobs[second].diff.copy()
    assert difference(negative, data["C/neg_second"]) <= TOLERANCE
    net.params[top][0].data[...] *= -1
    net.backward(start=top, end=top)
    assert difference(net.blobs[second].diff, data["C/pos_second"]) <= TOLERANCE
    net.blobs[second].diff[...] -= negative
    net.backward(start=below)
    check(name, "C", net, data)


@pytest.mark.parametrize("name", [name for name in NAMES if name != NO_BACKWARD])
def test_arrays_held_throughout_and_layers_run_one_by_one(name, tmp_path):
    data, net = small_net(name, tmp_path)
    up = {blob: net.blobs[blob].data for blob in net.blobs}
    down = {blob: net.blobs[blob].diff for blob in net.blobs}
    for layer in net._layer_names:
        net.forward(start=layer, end=layer)
    for array in down.values():
        array[...] = 7
    for blob, diff in under(data, "B/top_diff/").items():
        down[blob][...] = diff
    for layer in reversed(net._layer_names):
        net.backward(start=layer, end=layer)
    check(name, "B", net, data)
    for blob, wanted in under(data, "fwd/").items():
        assert difference(up[blob], wanted) <= max(TOLERANCE, 4 * floor(f"tiny/{name}.npz", f"fwd/{blob}")), blob
    for blob, array in down.items():
        assert net.blobs[blob].diff is array
