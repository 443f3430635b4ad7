"""Bytes that a call adds to a process at its worst moment, measured in a process of its own (run as a script).

    python peak_memory.py NETWORK LAYER CONTRAST IMAGES CLASSES MAX_MEMORY

prints a JSON object: `measured` is the peak of the resident memory above what lay there before, `estimated` what
`chunks` said. Linux only: the peak is the kernel's, and it can be set back.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import torch

import ebp_cuda

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))


def resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def main() -> None:
    import bench

    from ebp_cuda import models

    name, layer, contrast, images, classes, limit = sys.argv[1:]
    torch.set_num_threads(1)
    net = bench.random_net(0, models.prototxt(name))
    method = ebp_cuda.ExcitationBackprop(net, layer, contrast or None, max_memory=limit or None)
    x = torch.rand(int(images), 3, 224, 224)
    ids = torch.arange(int(classes)).expand(int(images), -1)
    method.run(x[:1], ids[:1, :1])  # packs the weights
    chunks = method.chunks(x.shape, ids.shape[1])
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    found = method.run(x, ids)
    peak = resident("VmHWM") - before - found.maps.nbytes
    print(json.dumps({"measured": peak, "estimated": chunks.peak, "images": chunks.images, "classes": chunks.classes}))


if __name__ == "__main__":
    main()
