"""Four top-down maps of one photo and class, by the calls that the original's Demo makes to pycaffe.

    python demo.py deploy.prototxt weights.caffemodel photo.jpg 20 --out maps.png

Only the import differs from a script for the original: there it is `import caffe`.
"""

from __future__ import annotations

import argparse

import numpy as np

from ebp_cuda import caffe

MEAN = np.array([103.939, 116.779, 123.68])
COCO = {"top": "loss3/classifier", "second": "pool5/7x7_s1", "out": "pool2/3x3_s2"}


def read_photo(net, path, short_side=224):
    """The photo [H, W, 3] with the given shorter side, fed to the network."""
    photo = caffe.io.load_image(path)
    scale = short_side / min(photo.shape[:2])
    photo = caffe.io.resize_image(photo, [round(n * scale) for n in photo.shape[:2]])
    net.blobs["data"].reshape(1, 3, *photo.shape[:2])
    net.reshape()
    transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
    transformer.set_mean("data", MEAN)
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255.0)
    net.blobs["data"].data[...] = transformer.preprocess("data", photo)
    return photo


def seed(net, top, tag):
    """One class at the top; where the top has positions, they share by their scores."""
    scores = net.blobs[top].data[0][tag]
    share = np.exp(scores - scores.max())
    net.blobs[top].diff[...] = 0
    net.blobs[top].diff[0][tag] = share / share.sum()


def excitation(net, tag, top, out):
    """MWP: what excites the class, at the blob `out`."""
    seed(net, top, tag)
    net.backward(start=top, end=out)
    return net.blobs[out].diff[0].sum(0)


def contrastive(net, tag, top, second, out):
    """c-MWP: what excites the class less what excites all others."""
    seed(net, top, tag)
    net.params[top][0].data[...] *= -1
    net.backward(start=top, end=second)
    others = net.blobs[second].diff.copy()
    net.params[top][0].data[...] *= -1
    net.backward(start=top, end=second)
    net.blobs[second].diff[...] -= others
    net.backward(start=second, end=out)
    return net.blobs[out].diff[0].sum(0)


def strength(net, tag, top, out):
    """The largest signal of any channel, in the present mode: gradient or deconvolution."""
    seed(net, top, tag)
    net.backward(start=top, end=out)
    return np.abs(net.blobs[out].diff[0]).max(0)


def all_maps(net, tag, top, second, out):
    """The four maps [h, w], raw."""
    caffe.set_mode_cpu()
    net.forward(end=top)
    maps = {"gradient": strength(net, tag, top, out)}
    caffe.set_mode_dc_cpu()
    maps["deconvolution"] = strength(net, tag, top, out)
    caffe.set_mode_eb_cpu()
    maps["MWP"] = excitation(net, tag, top, out)
    maps["c-MWP"] = contrastive(net, tag, top, second, out)
    return maps


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("prototxt", "weights", "photo"):
        parser.add_argument(name)
    parser.add_argument("tag", type=int)
    parser.add_argument("--out", default="maps.png")
    for name, value in COCO.items():
        parser.add_argument(f"--{name}-layer", default=value)
    args = parser.parse_args(argv)
    net = caffe.Net(args.prototxt, args.weights, caffe.TRAIN)
    photo = read_photo(net, args.photo)
    maps = all_maps(net, args.tag, args.top_layer, args.second_layer, args.out_layer)

    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 5, figsize=(20, 4))
    axes[0].imshow(photo)
    for axis, (name, found) in zip(axes[1:], maps.items(), strict=True):
        axis.imshow(caffe.io.resize_image(np.maximum(found, 0)[:, :, None], photo.shape[:2]))
        axis.set_title(name)
    for axis in axes:
        axis.axis("off")
    figure.savefig(args.out)


if __name__ == "__main__":
    main()
