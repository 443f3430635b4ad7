"""Where the time of a call goes: torch's profiler over one call of each network and precision.

python tools/gpu_profile.py [--rehearse]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import random_net  # noqa: E402
from gpu_bench import REAL, REHEARSAL  # noqa: E402

from ebp_cuda import ExcitationBackprop  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description="Profile one call of each network.")
    parser.add_argument("--rehearse", action="store_true", help="tiny networks on the CPU")
    args = parser.parse_args()
    device = "cpu" if args.rehearse else "cuda"
    activities = [ProfilerActivity.CPU] if args.rehearse else [ProfilerActivity.CUDA]
    order = "self_cpu_time_total" if args.rehearse else "self_cuda_time_total"
    for setup in REHEARSAL if args.rehearse else REAL:
        net, images = random_net(0, setup.prototxt()), 2 if args.rehearse else 64
        x = torch.rand(images, 3, *setup.size, device=device).contiguous(memory_format=torch.channels_last)
        for dtype in ("fp32", "tf32"):
            eb = ExcitationBackprop(net, setup.layer, setup.contrast, dtype=dtype, device=device, graphs=False)
            eb.attribute(x, 1)
            with profile(activities=activities) as watched:
                eb.attribute(x, 1)
            print(f"{setup.name} N={images} {dtype}")
            print(watched.key_averages().table(sort_by=order, row_limit=14, max_name_column_width=60), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
