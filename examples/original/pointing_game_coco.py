"""The pointing game on COCO, by the calls of the original's evaluation: every class of a photo from one forward.

    python pointing_game_coco.py deploy.prototxt weights.caffemodel instances_val2014.json val2014/

The annotations are COCO's; class 0 is its first category by id. Boxes stand for the masks that the paper used.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from demo import COCO, contrastive, read_photo

from ebp_cuda import caffe
from ebp_cuda.eval.pointing import PointingGame, boxes_mask


def class_maps(net, tags, top, second, out):
    """c-MWP maps {tag: [h, w]} of the photo in the network."""
    net.forward(end=top)
    return {tag: contrastive(net, tag, top, second, out) for tag in tags}


def play(net, photos, layers=None, tolerance=15):
    """photos: (path, (height, width), {tag: [boxes]}) each. Returns the PointingGame."""
    game = PointingGame(tolerance)
    caffe.set_mode_eb_cpu()
    for path, size, truth in photos:
        read_photo(net, path)
        for tag, found in class_maps(net, truth, **(layers or COCO)).items():
            shown = caffe.io.resize_image(found[:, :, None], size)[:, :, 0]
            game.add(tag, shown, boxes_mask(truth[tag], size))
    return game


def annotated(path, folder):
    """The photos of a COCO annotation file, as `play` wants them."""
    content = json.loads(Path(path).read_text())
    tags = {entry["id"]: tag for tag, entry in enumerate(sorted(content["categories"], key=lambda c: c["id"]))}
    truth: dict[int, dict[int, list]] = {}
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        if width > 0 and height > 0:
            boxes = truth.setdefault(entry["image_id"], {}).setdefault(tags[entry["category_id"]], [])
            boxes.append((x, y, x + width, y + height))
    for image in content["images"]:
        if image["id"] in truth:
            yield Path(folder) / image["file_name"], (image["height"], image["width"]), truth[image["id"]]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("prototxt", "weights", "annotations", "folder"):
        parser.add_argument(name)
    args = parser.parse_args(argv)
    net = caffe.Net(args.prototxt, args.weights, caffe.TRAIN)
    game = play(net, annotated(args.annotations, args.folder))
    print(f"{game.trials} trials, mean accuracy {np.round(game.mean_accuracy(), 4)}")


if __name__ == "__main__":
    main()
