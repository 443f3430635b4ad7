"""examples/original on seeded weights: the COCO network against the original's numbers, the other two end to end."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest
from PIL import Image
from support import paths
from support.golden_data import difference, floor, load, seeded_weights

import ebp_cuda
from ebp_cuda import caffe, models
from ebp_cuda.importers.caffe import write_caffemodel

EXAMPLES = paths.EXAMPLES / "original"
CASE, IMAGE = "googlenet_coco.npz", "chelsea_224x300"


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    caffe.set_mode_cpu()
    for name in ("demo", "resnet", "pointing_game_coco"):
        sys.modules.pop(name, None)


def script(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coco")
    (folder / "deploy.prototxt").write_text(models.prototxt("googlenet_coco"))
    write_caffemodel(folder / "w.caffemodel", models.prototxt("googlenet_coco"), seeded_weights("googlenet_coco"))
    return str(folder / "deploy.prototxt"), str(folder / "w.caffemodel")


def close(got, key):
    wanted = load(CASE)[key]
    assert difference(got.reshape(wanted.shape), wanted) <= max(1e-4, 4 * floor(CASE, key)), key


def test_demo_maps_are_the_originals(coco):
    demo = script("demo")
    net = caffe.Net(*coco, caffe.TRAIN)
    x = load("inputs.npz")[IMAGE]
    net.blobs["data"].reshape(*x.shape)
    net.blobs["data"].data[...] = x
    layers = ("inception_4a/output", "pool3/3x3_s2", "pool2/3x3_s2")
    for tag in map(int, load(CASE)[f"{IMAGE}/tags"]):
        maps = demo.all_maps(net, tag, **demo.COCO)
        close(net.blobs["loss3/classifier"].data[0], f"{IMAGE}/scores")
        for layer in layers:
            diff = net.blobs[layer].diff[0]
            close(diff.sum(0), f"{IMAGE}/tag{tag}/cmwp/{layer}/map_raw")
            index = load(CASE)[f"{IMAGE}/tag{tag}/cmwp/{layer}/sub_idx"]
            close(diff.ravel()[index], f"{IMAGE}/tag{tag}/cmwp/{layer}/sub_val")
        close(maps["MWP"], f"{IMAGE}/tag{tag}/mwp/pool2/3x3_s2/map_raw")
        close(maps["c-MWP"], f"{IMAGE}/tag{tag}/cmwp/pool2/3x3_s2/map_raw")
        assert maps["gradient"].shape == maps["deconvolution"].shape == maps["MWP"].shape
        assert difference(maps["gradient"], maps["deconvolution"]) > 0.1


def test_the_native_api_agrees(coco):
    demo = script("demo")
    net = caffe.Net(*coco, caffe.TRAIN)
    x = load("inputs.npz")["astronaut_224"]
    caffe.set_mode_eb_cpu()
    net.forward(data=x, end="loss3/classifier")
    eb = ebp_cuda.ExcitationBackprop(ebp_cuda.load(*coco), "pool2/3x3_s2", "pool5/7x7_s1", top="loss3/classifier")
    for tag in (3, 41):
        assert difference(demo.contrastive(net, tag, **demo.COCO), eb.attribute(x, tag)[0, 0]) < 1e-5


def small_resnet(folder):
    text = (paths.TESTS / "support" / "pycaffe_resnet.prototxt").read_text()
    (folder / "net.prototxt").write_text(text)
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
    draw = np.random.RandomState(5)
    for name, blobs in net.params.items():
        for index, blob in enumerate(blobs):
            if name.startswith("bn"):
                blob.data[...] = 1 if index == 2 else draw.uniform(0.5, 1.5, blob.shape)
            else:
                blob.data[...] = draw.normal(size=blob.shape) * 0.5
    net.save(folder / "w.caffemodel")
    return str(folder / "net.prototxt"), str(folder / "w.caffemodel")


def photo(folder):
    noise = np.random.RandomState(0).randint(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(noise).resize((320, 240)).save(folder / "photo.png")
    return str(folder / "photo.png")


def test_resnet_keeps_the_scores_unless_folded_as_the_demo(tmp_path, capsys):
    files, path, resnet = small_resnet(tmp_path), photo(tmp_path), script("resnet")
    plain = caffe.Net(*files, caffe.TEST)
    script("demo").read_photo(plain, path)
    score = plain.forward()["fc1000"].ravel()[2]
    found = resnet.main([*files, path, "2"])
    assert f"score {score:.3f}" in capsys.readouterr().out
    assert np.isfinite(found).all() and np.abs(found).max() > 0
    other = resnet.main([*files, path, "2", "--as-the-demo"])
    assert f"score {score:.3f}" not in capsys.readouterr().out
    assert difference(other, found) > 1e-3


def test_pointing_game_counts_every_class(coco, tmp_path):
    photo(tmp_path)
    truth = {
        "categories": [{"id": n} for n in range(1, 81)],
        "images": [{"id": 7, "file_name": "photo.png", "height": 240, "width": 320}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 320, 240]},
            {"image_id": 7, "category_id": 5, "bbox": [0, 0, 320, 240]},
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    module = script("pointing_game_coco")
    net = caffe.Net(*coco, caffe.TRAIN)
    game = module.play(net, module.annotated(tmp_path / "truth.json", tmp_path))
    assert game.trials == 2 and game.mean_accuracy() == 1
