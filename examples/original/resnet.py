"""c-MWP of a ResNet, by the calls of the original's ResNet demo: first make every Scale factor positive.

    python resnet.py deploy.prototxt weights.caffemodel photo.jpg 285

The demo turns the factors and the convolutions' weights, and leaves out the BatchNorm's mean and the Scale's place
behind it, so its scores move. `--as-the-demo` does the same; without it `fold_negative_scales` keeps the scores.
"""

from __future__ import annotations

import argparse

import numpy as np
from demo import contrastive, read_photo

from ebp_cuda import caffe

LAYERS = {"top": "fc1000", "second": "pool5", "out": "res3a"}


def fold_as_the_demo(net):
    """Turn negative Scale factors and the filters in front of them, and nothing else."""
    for name in net.params:
        if not name.startswith("scale"):
            continue
        filters = "res" + name[len("scale") :] if name != "scale_conv1" else "conv1"
        negative = np.flatnonzero(net.params[name][0].data < 0)
        net.params[name][0].data[negative] *= -1
        net.params[filters][0].data[negative] *= -1


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("prototxt", "weights", "photo"):
        parser.add_argument(name)
    parser.add_argument("tag", type=int)
    parser.add_argument("--as-the-demo", action="store_true")
    for name, value in LAYERS.items():
        parser.add_argument(f"--{name}-layer", default=value)
    args = parser.parse_args(argv)
    net = caffe.Net(args.prototxt, args.weights, caffe.TEST)
    if args.as_the_demo:
        fold_as_the_demo(net)
    else:
        caffe.fold_negative_scales(net)
    read_photo(net, args.photo)
    caffe.set_mode_eb_cpu()
    net.forward(end=args.top_layer)
    found = contrastive(net, args.tag, args.top_layer, args.second_layer, args.out_layer)
    row, column = np.unravel_index(found.argmax(), found.shape)
    print(f"class {args.tag}: score {net.blobs[args.top_layer].data[0].ravel()[args.tag]:.3f}, "
          f"maximum of {found.shape[0]} x {found.shape[1]} at row {row}, column {column}")  # fmt: skip
    return found


if __name__ == "__main__":
    main()
