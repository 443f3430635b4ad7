"""caffe.io, Classifier, NetSpec and caffe_pb2."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

from ebp_cuda import EBPError, InputError, ShapeError, caffe
from ebp_cuda.compat.pycaffe import layers as L
from ebp_cuda.compat.pycaffe import params as P
from ebp_cuda.compat.pycaffe.proto import caffe_pb2


def noise(*shape):
    return np.random.RandomState(0).uniform(size=shape).astype(np.float32)


def test_load_image(tmp_path):
    pixels = np.random.RandomState(1).randint(0, 256, (5, 7, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    np.testing.assert_allclose(caffe.io.load_image(str(tmp_path / "rgba.png")), pixels[:, :, :3] / 255, atol=1e-6)
    grey = caffe.io.load_image(str(tmp_path / "grey.png"))
    assert grey.shape == (5, 7, 3) and grey.dtype == np.float32
    np.testing.assert_allclose(grey[:, :, 2], pixels[:, :, 0] / 255, atol=1e-6)
    single = caffe.io.load_image(str(tmp_path / "rgba.png"), color=False)
    np.testing.assert_allclose(single[:, :, 0], pixels[:, :, :3] @ [0.2125, 0.7154, 0.0721] / 255, atol=1e-6)
    with pytest.raises(InputError, match=r"none\.png"):
        caffe.io.load_image(tmp_path / "none.png")


def test_load_image_scales_whole_numbers_by_their_type_and_leaves_floats(tmp_path):
    draw = np.random.RandomState(2)
    wide = draw.randint(0, 65536, (5, 7)).astype(np.uint16)
    real = (draw.rand(5, 7) * 3 - 1).astype(np.float32)
    long = draw.randint(0, 2**31 - 1, (5, 7)).astype(np.int32)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide).save(tmp_path / "wide.tif")
    Image.fromarray(real).save(tmp_path / "real.tif")
    Image.fromarray(long).save(tmp_path / "long.tif")
    wanted = {"wide.png": wide / 65535, "wide.tif": wide / 65535, "real.tif": real, "long.tif": long / (2**31 - 1)}
    for name, plane in wanted.items():
        photo, grey = caffe.io.load_image(tmp_path / name), caffe.io.load_image(tmp_path / name, color=False)
        assert photo.dtype == grey.dtype == np.float32
        assert photo.shape == (5, 7, 3) and grey.shape == (5, 7, 1)
        np.testing.assert_allclose(photo, np.repeat(plane[:, :, None], 3, 2), atol=1e-6)
        np.testing.assert_array_equal(grey[:, :, 0], photo[:, :, 1])


def test_load_image_leaves_a_photo_as_it_is_stored_whatever_its_exif_says(tmp_path):
    pixels = np.random.RandomState(3).randint(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(caffe.io.load_image(tmp_path / "turned.png"), pixels / 255, atol=1e-6)


def test_the_messages_are_there_under_caffe_io_as_well():
    assert caffe.io.caffe_pb2 is caffe.proto.caffe_pb2 is caffe.caffe_pb2
    assert caffe.io.caffe_pb2.BlobProto is caffe_pb2.BlobProto


def test_resize_image_is_bilinear_between_pixel_centres():
    im = noise(8, 6, 3) * 5 - 2
    halved = caffe.io.resize_image(im, (4, 3))
    np.testing.assert_allclose(halved, im.reshape(4, 2, 3, 2, 3).mean((1, 3)), atol=1e-6)
    thirds = caffe.io.resize_image(im, (3, 2))  # 8 rows to 3: centres at 0.83, 3.5, 6.17
    rows = np.stack([im[0] / 6 + im[1] * 5 / 6, (im[3] + im[4]) / 2, im[6] * 5 / 6 + im[7] / 6])
    np.testing.assert_allclose(thirds, rows[:, [1, 4]], atol=1e-5)
    assert caffe.io.resize_image(im, (16, 12), interp_order=3).max() <= im.max()
    np.testing.assert_array_equal(caffe.io.resize_image(im, (4, 3), interp_order=0).shape, (4, 3, 3))
    with pytest.raises(ShapeError, match=r"\[H, W, C\]"):
        caffe.io.resize_image(im[0], (4, 4))


def test_transformer_there_and_back():
    transformer = caffe.io.Transformer({"data": (1, 3, 6, 8)})
    mean = np.array([104.0, 117.0, 123.0])
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", mean)
    transformer.set_input_scale("data", 0.5)
    photo = noise(6, 8, 3)
    x = transformer.preprocess("data", photo)
    wanted = (photo[:, :, ::-1].transpose(2, 0, 1) * 255 - mean.reshape(3, 1, 1)) * 0.5
    np.testing.assert_allclose(x, wanted, atol=1e-4)
    np.testing.assert_allclose(transformer.deprocess("data", x[None]), photo, atol=1e-5)
    assert transformer.preprocess("data", noise(12, 16, 3)).shape == (3, 6, 8)


@pytest.mark.parametrize(
    "call",
    [
        lambda t: t.set_transpose("image", (2, 0, 1)),
        lambda t: t.set_transpose("data", (1, 0)),
        lambda t: t.set_channel_swap("data", (1, 0)),
        lambda t: t.set_channel_swap("data", (3, 2, 1)),
        lambda t: t.set_channel_swap("data", 2),
        lambda t: t.set_transpose("data", (2, 2, 1)),
        lambda t: t.set_raw_scale("data", (255, 255, 255)),
        lambda t: t.set_input_scale("data", 0),
        lambda t: t.set_mean("data", "mean.npy"),
        lambda t: t.set_mean("data", np.zeros(4)),
        lambda t: t.set_mean("data", np.zeros((3, 5, 8))),
    ],
)
def test_transformer_refuses(call):
    with pytest.raises(EBPError, match=r"wanted|no input"):
        call(caffe.io.Transformer({"data": (1, 3, 6, 8)}))


def test_oversample_takes_corners_centre_and_mirrors():
    im = noise(7, 9, 3)
    crops = caffe.io.oversample([im, im + 1], (3, 5))
    assert crops.shape == (20, 3, 5, 3)
    np.testing.assert_array_equal(crops[1], im[:3, 4:])
    np.testing.assert_array_equal(crops[4], im[2:5, 2:7])
    np.testing.assert_array_equal(crops[7], im[4:, :5][:, ::-1])
    np.testing.assert_array_equal(crops[10:], crops[:10] + 1)


def test_blobprotos_there_and_back():
    array = noise(2, 3, 4)
    blob = caffe_pb2.BlobProto()
    blob.ParseFromString(caffe.io.array_to_blobproto(array, diff=2 * array).SerializeToString())
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), array)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob, return_diff=True), 2 * array)
    old = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=2, data=[1, 2, 3, 4])
    assert caffe.io.blobproto_to_array(old).shape == (1, 2, 1, 2)


def spec():
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [10, 3, 6, 6]})
    n.conv1 = L.Convolution(n.data, num_output=4, kernel_size=3, weight_filler={"type": "xavier"})
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.half, n.rest = L.Slice(n.relu1, ntop=2, slice_point=[1])
    n.pool = L.Pooling(L.Concat(n.half, n.rest), pool=P.Pooling.AVE, global_pooling=True)
    n.prob = L.Softmax(L.InnerProduct(n.pool, num_output=5, param=[{"lr_mult": 1}, {"lr_mult": 2}]))
    return n


def test_net_spec_writes_what_a_net_reads(tmp_path):
    message = spec().to_proto()
    types = [layer.type for layer in message.layer]
    assert types == ["Input", "Convolution", "ReLU", "Slice", "Concat", "Pooling", "InnerProduct", "Softmax"]
    assert [layer.name for layer in message.layer][:5] == ["data", "conv1", "relu1", "half", "Concat1"]
    assert list(message.layer[2].top) == list(message.layer[2].bottom) == ["conv1"]
    assert message.layer[5].pooling_param.pool == caffe_pb2.PoolingParameter.AVE == 1
    assert [param.lr_mult for param in message.layer[6].param] == [1, 2]
    (tmp_path / "net.prototxt").write_text(str(message))
    parsed = caffe_pb2.NetParameter()
    text_format.Merge((tmp_path / "net.prototxt").read_text(), parsed)
    assert parsed == message
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    np.testing.assert_allclose(net.forward(data=noise(10, 3, 6, 6))["prob"].sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: L.ReLU("data"), lambda: L.Pooling(spec().data, kernel=2).to_proto()])
def test_net_spec_refuses(make):
    with pytest.raises(InputError, match=r"wanted|nearest: kernel"):
        make()


def test_classifier_averages_over_crops(tmp_path):
    (tmp_path / "net.prototxt").write_text(str(spec().to_proto()))
    caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST).save(tmp_path / "w.caffemodel")
    files = str(tmp_path / "net.prototxt"), str(tmp_path / "w.caffemodel")
    classifier = caffe.Classifier(*files, image_dims=(8, 9), raw_scale=255, channel_swap=(2, 1, 0), mean=np.ones(3))
    classifier.transformer.set_input_scale("data", 0.01)
    photos = [noise(12, 10, 3), noise(8, 9, 3)]
    found = classifier.predict(photos)
    assert found.shape == (2, 5)
    crops = caffe.io.oversample([photos[1]], (6, 6))
    classifier.image_dims = np.array([6, 6])
    one = [classifier.predict([crop], oversample=False)[0] for crop in crops]
    assert not np.allclose(one[0], one[1])
    np.testing.assert_allclose(found[1], np.mean(one, 0), atol=1e-6)
    assert classifier.predict(photos, oversample=False).shape == (2, 5)
    with pytest.raises(ShapeError, match=r"photo 1 has shape \[8, 9\]; wanted \[H, W, 3\]"):
        classifier.predict([photos[0], photos[1][:, :, 0]])
    with pytest.raises(InputError, match="no photos"):
        classifier.predict([])
    for dims in (caffe.TEST, "256", (8,), (8, 9, 3), (5, 9), (8.0, 9.0)):
        with pytest.raises(InputError, match=r"image_dims=.*\(height, width\).*phase"):
            caffe.Classifier(*files, dims)


@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_datums_there_and_back(kind):
    array = (200 * np.random.default_rng(0).random((3, 4, 5))).astype(kind)
    datum = caffe_pb2.Datum()
    datum.ParseFromString(caffe.io.array_to_datum(array, 7).SerializeToString())
    back = caffe.io.datum_to_array(datum)
    assert datum.label == 7 and back.dtype == kind and back.flags.writeable
    np.testing.assert_allclose(back, array, rtol=1e-6)
    datum.channels = 4
    with pytest.raises(ShapeError, match=r"60 numbers for the shape \[4, 4, 5\]"):
        caffe.io.datum_to_array(datum)
    with pytest.raises(InputError, match="encoded picture"):
        caffe.io.datum_to_array(caffe_pb2.Datum(encoded=True))
    with pytest.raises(ShapeError, match="three axes"):
        caffe.io.array_to_datum(array[0])


def test_what_there_is_not_says_so():
    assert caffe.__version__ == "1.0.0" and not hasattr(caffe, "SGDSolver")
    with pytest.raises(AttributeError, match="no 'Layer': networks run here; solvers"):
        _ = caffe.Layer
