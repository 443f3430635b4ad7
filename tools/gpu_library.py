"""Times the library's forward of every convolution of the two networks: which layout, and does its search for a faster
algorithm pay?

    python tools/gpu_library.py [--out FILE] [--seconds S] [--rehearse]

For every distinct convolution: cuDNN on contiguous and on channels_last tensors, with and without its benchmark of
algorithms, without tf32, as the forward asks it; beside them our own kernel of two sums, which gives the normalizer as
well, and the one of the normalizer alone. FILE gets a JSON line per convolution when it is measured. Where the library
and our normalizer together take less than our kernel of two sums, `ebp_cuda/linear/forward_choices.py` should say so.
--rehearse: tiny networks on the CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import random_net  # noqa: E402
from gpu_bench import REAL, REHEARSAL  # noqa: E402
from gpu_floor import tf32, timings  # noqa: E402
from gpu_trace import watch  # noqa: E402

from ebp_cuda import ops  # noqa: E402

LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


@dataclass(frozen=True)
class Convolution:
    """The sizes of one."""

    x: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    """Before rows and columns; as much behind them."""
    dilation: tuple[int, ...]
    groups: int

    @property
    def products(self) -> float:
        planes = [
            (self.x[2 + i] + 2 * self.padding[i] - self.dilation[i] * (self.weight[2 + i] - 1) - 1) // self.stride[i]
            + 1
            for i in (0, 1)
        ]
        return float(self.x[0] * planes[0] * planes[1] * torch.Size(self.weight).numel())


class Forwards(TorchDispatchMode):
    """Keeps note of the convolutions of a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[Convolution] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name == "cudnn_convolution":
            padding, stride, dilation, groups = args[2:6]
            self.note(args, stride, padding, dilation, groups)
        elif name == "conv2d_excitation" and list(args[5][:2]) == list(args[5][2:]):
            stride, padding, dilation, groups = args[4:8]
            self.note(args, stride, padding[:2], dilation, groups)
        return func(*args, **(kwargs or {}))

    def note(self, args: tuple[Any, ...], stride: Any, padding: Any, dilation: Any, groups: int) -> None:
        sizes = tuple(args[0].shape), tuple(args[1].shape)
        self.met.append(Convolution(*sizes, tuple(stride), tuple(padding), tuple(dilation), groups))


def convolutions(rehearse: bool) -> list[Convolution]:
    """The distinct ones of the networks, of 64 images and of one, the largest first."""
    met: dict[Convolution, None] = {}
    for setup in REHEARSAL if rehearse else REAL:
        net = random_net(0, setup.prototxt())
        for images in (2,) if rehearse else (64, 1):
            mode = Forwards()
            watch(mode, net, setup.layer, setup.contrast, setup.size, images, 1, "fp32")
            met |= dict.fromkeys(mode.met)
    return sorted(met, key=lambda one: -one.products)


def ways(c: Convolution, device: torch.device) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What computes it, by name."""
    geometry = c.stride, (*c.padding, *c.padding), c.dilation, c.groups
    for name, layout in LAYOUTS.items():
        x, weight = (torch.rand(s, device=device).contiguous(memory_format=layout) for s in (c.x, c.weight))
        if device.type != "cpu":
            ask = partial(
                torch.ops.aten.cudnn_convolution.default, x, weight, c.padding, c.stride, c.dilation, c.groups
            )
            yield name, partial(ask, False, True, False)
            yield f"{name}, benchmark", partial(ask, True, True, False)
        else:
            ask = partial(torch.nn.functional.conv2d, x, weight, None, c.stride, c.padding, c.dilation, c.groups)
            yield name, ask
            yield f"{name}, benchmark", ask
    if c.groups == 1 and device.type != "cpu":
        pair = partial(ops.conv2d_excitation, x, weight, weight, None, *geometry, relu=True, as_gate=False)
        yield "ours with normalizer", pair
    yield "our normalizer", partial(ops.conv2d_normalizer, x, weight, *geometry)


def measure(c: Convolution, device: torch.device, budget: float) -> dict[str, float | str]:
    """Microseconds by way, or what went wrong."""
    times: dict[str, float | str] = {}
    exact: AbstractContextManager[object] = tf32(False)
    with torch.no_grad(), exact:
        for name, case in ways(c, device):
            try:
                each = sorted(timings(case, device, budget))
                times[name] = each[len(each) // 2] * 1e6
            except RuntimeError as error:
                times[name] = str(error).splitlines()[0][:80]
    return times


def line(c: Convolution, times: dict[str, float | str]) -> str:
    sizes = f"{'x'.join(map(str, c.x))} {'x'.join(map(str, c.weight))}/{c.stride[0]}"
    cells = [f"{name} {value:.1f}" if isinstance(value, float) else f"{name}: {value}" for name, value in times.items()]
    return f"{sizes:36} us: {', '.join(cells)}"


def wins(measured: list[tuple[Convolution, dict[str, float | str]]]) -> Iterator[str]:
    """How often each variant of the library is the fastest, and what it loses in all where it is taken everywhere."""
    names = [f"{layout}{benchmark}" for layout in LAYOUTS for benchmark in ("", ", benchmark")]
    rows = [{n: t for n in names if isinstance(t := times.get(n), float)} for _, times in measured]
    rows = [row for row in rows if len(row) == len(names)]
    least = sum(min(row.values()) for row in rows)
    for name in names:
        first = sum(min(row, key=lambda n: row[n]) == name for row in rows)
        yield f"{name:18} fastest {first:3} of {len(rows)}, all by it {sum(row[name] for row in rows):10.1f} us"
    yield f"{'the fastest each':18} {'':19} {least:10.1f} us"


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the library's convolutions.")
    parser.add_argument("--out", type=Path, help="file for a JSON line per convolution")
    parser.add_argument("--seconds", type=float, default=60, help="none is begun after that (default 60)")
    parser.add_argument("--rehearse", action="store_true", help="tiny networks on the CPU")
    args = parser.parse_args()
    device, stop = torch.device("cpu" if args.rehearse else "cuda"), time.monotonic() + args.seconds
    asked, measured = convolutions(args.rehearse), []
    if args.out:
        args.out.write_text("")
    for c in asked:
        if time.monotonic() > stop:
            break
        measured.append((c, measure(c, device, 0.005 if args.rehearse else 0.02)))
        print(line(*measured[-1]), flush=True)
        if args.out:
            with args.out.open("a") as stream:
                stream.write(json.dumps(asdict(c) | {"us": measured[-1][1]}) + "\n")
    print(*wins(measured), sep="\n")
    print(f"{len(measured)} of {len(asked)} convolutions timed")
    return 0 if measured else 1


if __name__ == "__main__":
    sys.exit(main())
