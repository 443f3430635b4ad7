"""Bytes that a call takes beside the weights, measured in a process of its own (run as a script by test_budget.py).

    python peak_memory.py NETWORK LAYER CONTRAST IMAGES CLASSES MAX_MEMORY

prints a JSON object: what was measured, and what `ExcitationBackprop.chunks` said.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "tools"))


def main() -> None:
    import bench
    from memory import growth

    import ebp_cuda
    from ebp_cuda import models

    name, layer, contrast, images, classes, limit = sys.argv[1:]
    torch.set_num_threads(1)
    net = bench.random_net(0, models.prototxt(name))
    method = ebp_cuda.ExcitationBackprop(net, layer, contrast, max_memory=limit or None)
    x = torch.rand(int(images), 3, 224, 224)
    ids = torch.arange(int(classes)).expand(int(images), -1)
    maps = method.run(x[:1], ids[:1, :1]).maps  # packs the weights
    chunks = method.chunks(x.shape, ids.shape[1])
    measured = growth(partial(method.run, x, ids)) - maps.nbytes * ids.numel()
    print(json.dumps({"measured": measured, "estimated": chunks.peak, **dataclasses.asdict(chunks)}))


if __name__ == "__main__":
    main()
