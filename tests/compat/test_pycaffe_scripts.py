"""Scripts written for pycaffe run as they are: threads, labels, small images, machines without a GPU."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from ebp_cuda import InputError, ModelError, UnsupportedError, caffe

NET = """
force_backward: true
input: "data"
input_shape { dim: 1 dim: 3 dim: 28 dim: 28 }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "mixed" type: "Convolution" bottom: "conv1" top: "mixed"
        convolution_param { num_output: 5 kernel_size: 1 } }
layer { name: "pool5" type: "Pooling" bottom: "mixed" top: "pool5" pooling_param { pool: AVE kernel_size: 20 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool5" top: "fc" inner_product_param { num_output: 3 } }
"""

TRAINED = """
layer { name: "data" type: "Input" top: "data" top: "label" input_param { shape { dim: 2 dim: 4 } shape { dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture(autouse=True)
def plain():
    caffe.set_mode_cpu()
    yield
    caffe.set_mode_cpu()
    caffe.set_strict(True)
    caffe.set_gpu_fallback(False)


def make(folder, text=NET):
    (folder / "net.prototxt").write_text(text)
    return caffe.Net(str(folder / "net.prototxt"), caffe.TEST)


def in_a_thread(work):
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def test_the_mode_is_a_threads_own_and_a_new_thread_takes_gradients_on_the_cpu(tmp_path):
    net = make(tmp_path)
    net.blobs["data"].data[...] = np.random.RandomState(0).rand(1, 3, 28, 28)

    def signal():
        net.forward()
        net.blobs["fc"].diff[...] = [[1, 0, 0]]
        net.backward()
        return net.blobs["data"].diff.copy()

    def relevance():
        caffe.set_mode_eb_cpu()
        return signal()

    gradient = signal()
    excitation = in_a_thread(relevance)
    np.testing.assert_array_equal(signal(), gradient)
    assert not np.allclose(excitation, gradient)
    caffe.set_mode_eb_cpu()
    np.testing.assert_array_equal(in_a_thread(signal), gradient)
    np.testing.assert_array_equal(signal(), excitation)


def test_strictness_holds_for_all_threads(tmp_path):
    net = make(tmp_path)
    in_a_thread(lambda: caffe.set_strict(False))
    net.backward()  # through layers that no forward has run
    in_a_thread(lambda: caffe.set_strict(True))
    with pytest.raises(InputError, match="before any forward"):
        make(tmp_path).backward(fc=np.ones((1, 3)))


def test_a_label_is_a_blob_and_an_input_although_nothing_reads_it(tmp_path):
    net = make(tmp_path, TRAINED)
    assert net.inputs == ["data", "label"] and net.outputs == ["ip"]
    assert net.blobs["label"].shape == (2,)
    data = np.random.RandomState(1).rand(2, 4)
    alone = net.forward(data=data)["ip"].copy()
    np.testing.assert_array_equal(net.forward(data=data, label=[1, 2])["ip"], alone)
    np.testing.assert_array_equal(net.blobs["label"].data, [1, 2])
    net.blobs["data"].reshape(5, 4)
    net.blobs["label"].reshape(5)
    assert net.forward(data=np.ones((5, 4)), label=np.zeros(5))["ip"].shape == (5, 3)
    assert net.forward_all(data=np.ones((7, 4)), label=np.zeros(7))["ip"].shape == (7, 3)
    with pytest.raises(InputError, match="got arrays for label; wanted one for each of data, label"):
        net.forward(label=np.zeros(5))
    with pytest.raises(InputError, match="wanted one for each of data, label"):
        net.forward(data=np.ones((5, 4)), labels=np.zeros(5))


def test_the_label_of_a_data_layer_is_a_blob_of_one_number_an_image(tmp_path):
    source = """layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
        transform_param { crop_size: 4 } data_param { batch_size: 3 source: "db" } }"""
    net = make(tmp_path, source + TRAINED.partition("} } }")[2])
    assert net.blobs["data"].shape == (3, 3, 4, 4) and net.blobs["label"].shape == (3,)
    net.blobs["label"].data[...] = [0, 1, 2]


def test_layers_and_blobs_have_their_numbers(tmp_path):
    net = make(tmp_path)
    assert net._blob_names == ["data", "conv1", "mixed", "pool5", "fc"]
    assert [blob.name for blob in net._blobs] == net._blob_names
    assert net._inputs == [0] and net._outputs == [4]
    place = net._layer_names.index("mixed")
    assert net._bottom_ids(place) == [1] and net._top_ids(place) == [2]
    relu = net._layer_names.index("relu1")
    assert net._bottom_ids(relu) == net._top_ids(relu) == [1]


def test_forward_to_a_layer_asks_nothing_of_those_above_it(tmp_path):
    net = make(tmp_path)
    x = np.random.RandomState(0).rand(1, 3, 12, 14)
    net.blobs["data"].reshape(*x.shape)
    net.blobs["data"].data[...] = x
    mixed = net.forward(end="mixed")["mixed"]
    weight, bias = (torch.from_numpy(blob.data.copy()) for blob in net.params["conv1"])
    y = torch.relu(torch.conv2d(torch.from_numpy(x).float(), weight, bias))
    weight, bias = (torch.from_numpy(blob.data.copy()) for blob in net.params["mixed"])
    np.testing.assert_allclose(mixed, torch.conv2d(y, weight, bias), atol=1e-5)
    net.blobs["mixed"].diff[...] = 1
    net.backward(start="mixed")
    assert net.blobs["data"].diff.shape == x.shape and net.blobs["data"].diff.any()
    with pytest.raises(ModelError, match=r"'pool5'.*does not fit"):
        net.forward()
    with pytest.raises(ModelError, match=r"'pool5'.*does not fit"):
        net.reshape()
    net.blobs["data"].reshape(2, 3, 28, 28)
    assert net.forward(end="mixed")["mixed"].shape == (2, 5, 26, 26)
    assert net.forward()["fc"].shape == (2, 3)


def test_missing_parameters_name_what_keeps_the_fillers(tmp_path):
    net = make(tmp_path)
    del net.params["fc"]
    net.save(tmp_path / "part.caffemodel")
    with pytest.raises(ModelError, match=r"'fc'.*caffe\.set_strict\(False\)"):
        caffe.Net(str(tmp_path / "net.prototxt"), str(tmp_path / "part.caffemodel"), caffe.TEST)
    caffe.set_strict(False)
    caffe.Net(str(tmp_path / "net.prototxt"), str(tmp_path / "part.caffemodel"), caffe.TEST)


MODES = ("gpu", "eb_gpu", "dc_gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("mode", MODES)
def test_a_gpu_mode_without_a_gpu_names_the_ways_on(mode, monkeypatch):
    switch = getattr(caffe, f"set_mode_{mode}")
    with pytest.raises(UnsupportedError, match=rf"set_mode_{mode[:-3]}cpu\(\).*EBP_CAFFE_DEVICE=cpu.*set_gpu_fallback"):
        switch()
    caffe.set_gpu_fallback(True)
    switch()
    caffe.set_gpu_fallback(False)
    monkeypatch.setenv("EBP_CAFFE_DEVICE", "cpu")
    switch()
    monkeypatch.setenv("EBP_CAFFE_DEVICE", "cqu")
    with pytest.raises(InputError, match="EBP_CAFFE_DEVICE='cqu'"):
        switch()


@pytest.mark.parametrize("mode", MODES)
def test_a_script_for_the_gpu_computes_on_the_cpu_what_the_cpu_mode_computes(mode, monkeypatch, tmp_path):
    net = make(tmp_path)
    net.blobs["data"].data[...] = np.random.RandomState(0).rand(1, 3, 28, 28)
    monkeypatch.setenv("EBP_CAFFE_DEVICE", "cpu")
    signals = []
    for name in (mode, mode.replace("gpu", "cpu")):
        caffe.set_device(0)
        getattr(caffe, f"set_mode_{name}")()
        net.forward()
        net.backward(fc=np.eye(1, 3))
        signals.append(net.blobs["data"].diff.copy())
    np.testing.assert_array_equal(*signals)
