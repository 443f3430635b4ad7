"""Two commits side by side: the same rows timed turn about in one run, calls per kernel and bytes allocated compared.

    python tools/compare_commits.py BEFORE AFTER [--rounds 20] [--rows TEXT] [--threads 2] [--clock wall]

BEFORE and AFTER are folders of built checkouts, or commits of this repository, which are checked out and built in a
temporary folder (EBP_CUDA_ARCHS as for setup.py). Each side runs in a process of its own, one at a time; which of them
is first alternates. EBP_CPU_ISA reaches both (`EBP_CPU_ISA=avx512` on a machine with AMX measures the other kernels).

A row passes where the median of the paired ratios after / before is at most 1.03, or where its 95 % interval holds 1.
Calls of every operation of torch and bytes of new memory in one call are compared besides, and what differs is listed.
Exit code 1 where a row does not pass, 2 where the two sides compute different maps.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = 1.03
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SAME_MAP = 1e-3
"""Relative L1 distance of a row's maps. Contrastive maps of random weights amplify the last bits of their sums."""


@dataclass(frozen=True)
class Row:
    """Maps of `classes` classes of each of `images` images; by `pycaffe` a forward and a backward through that face."""

    network: str
    images: int
    classes: int
    pycaffe: bool = False

    @property
    def name(self) -> str:
        return f"{self.network} N{self.images} " + ("pycaffe" if self.pycaffe else f"K{self.classes}")


ROWS = (
    Row("digits", 1, 10),
    Row("googlenet_coco", 1, 1),
    Row("googlenet_coco", 1, 20),
    Row("googlenet_coco", 1, 80),
    Row("googlenet_coco", 8, 1),
    Row("googlenet_coco", 1, 1, pycaffe=True),
    Row("vgg16", 1, 1),
    Row("vgg16", 1, 20),
)
PLACES = {"googlenet_coco": ("pool2/3x3_s2", "pool5/7x7_s1"), "vgg16": ("pool4", "fc7")}


# --- one side: a process that imports the package of one checkout ----------------------------------------------------


def attribution(row: Row) -> Callable[[], Any]:
    """What is timed: maps of seeded random images by a network with seeded random weights, or by the trained digits."""
    import torch

    import ebp_cuda
    from ebp_cuda import models

    source = torch.Generator().manual_seed(0)
    if row.network == "digits":
        from ebp_cuda.models import digits

        net, places = digits.load(), (digits.LAYER, digits.CONTRAST_LAYER)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "net.prototxt")
            path.write_text(models.prototxt(row.network), encoding="utf-8")
            net, places = ebp_cuda.load(path), PLACES[row.network]
        for node in net.graph.nodes:
            for tensor in node.params.values():
                scale = (2 / max(1, tensor[0].numel())) ** 0.5 if tensor.dim() > 1 else 0.05
                tensor.copy_(torch.randn(tensor.shape, generator=source) * scale)
    (shape,) = net.graph.inputs.values()
    x = torch.rand(row.images, *[size or 224 for size in shape[1:]], generator=source)
    method = ebp_cuda.ExcitationBackprop(net, *places)
    return lambda: method.attribute(x, [list(range(row.classes))] * row.images)


def pycaffe(row: Row) -> Callable[[], Any]:
    """The same through pycaffe's face: forward, seed of class 0, backward, the diff at the layer."""
    import numpy as np

    from ebp_cuda import caffe, models

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.prototxt")
        path.write_text(models.prototxt(row.network), encoding="utf-8")
        net = caffe.Net(str(path), caffe.TEST)
    draw = np.random.RandomState(0)
    for blobs in net.params.values():
        for blob in blobs:
            scale = (2 / max(1, blob.data[0].size)) ** 0.5 if blob.data.ndim > 1 else 0.05
            blob.data[...] = draw.normal(size=blob.data.shape) * scale
    data = net.blobs[net.inputs[0]]
    data.reshape(row.images, *data.data.shape[1:])
    data.data[...] = draw.uniform(size=data.data.shape)
    caffe.set_mode_eb_cpu()
    top, layer = list(net.blobs)[-1], PLACES[row.network][0]

    def run() -> Any:
        net.forward()
        net.blobs[top].diff[...] = 0
        net.blobs[top].diff[:, 0] = 1
        net.backward(start=net.outputs[0] if top not in net.layer_dict else top, end=layer)
        return net.blobs[layer].diff.copy()

    return run


def counted(case: Callable[[], Any]) -> dict[str, Any]:
    """Calls of every operation, and bytes of the memory that is new, in one call."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    def storages(values: Any) -> dict[int, int]:
        tensors = [t for t in tree_leaves(values) if isinstance(t, torch.Tensor) and t.layout == torch.strided]
        return {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}

    class Counting(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.calls: Counter[str] = Counter()
            self.bytes = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            before = storages((args, kwargs))
            out = func(*args, **(kwargs or {}))
            self.calls[str(func.overloadpacket)] += 1
            self.bytes += sum(size for place, size in storages(out).items() if place not in before)
            return out

    with Counting() as counting:
        case()
    return {"calls": dict(counting.calls), "bytes": counting.bytes}


def serve(threads: int, clock: Callable[[], float]) -> None:
    """Answers questions on standard input, a JSON object a line: {"do": "make" | "run" | "count", "row": number}."""
    import torch

    import ebp_cuda

    torch.set_num_threads(threads)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what else is printed must not stand between the replies
    built = {"package": str(Path(ebp_cuda.__file__).parent), **ebp_cuda.ops.build_info()}
    print(json.dumps(built), file=replies, flush=True)
    case: Callable[[], Any] = lambda: None  # noqa: E731
    for line in sys.stdin:
        question = json.loads(line)
        reply: Any = None
        with torch.no_grad():
            if question["do"] == "make":
                row = ROWS[question["row"]]
                case = (pycaffe if row.pycaffe else attribution)(row)
                case()  # packs the weights
                reply = torch.as_tensor(case()).double().flatten().tolist()
            elif question["do"] == "run":
                start = clock()
                case()
                reply = (clock() - start) * 1e3
            else:
                reply = counted(case)
        print(json.dumps(reply), file=replies, flush=True)


# --- both sides -------------------------------------------------------------------------------------------------------


class Side:
    """The process of one checkout."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", *options]
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        self._process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.built = self._answer()
        if Path(self.built["package"]) != folder / "ebp_cuda":
            raise SystemExit(f"error: {folder} runs the package in {self.built['package']}")

    def ask(self, do: str, row: int = 0) -> Any:
        questions: IO[str] | None = self._process.stdin
        assert questions is not None
        print(json.dumps({"do": do, "row": row}), file=questions, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        answers = self._process.stdout
        assert answers is not None
        line = answers.readline()
        if not line:
            raise SystemExit(f"error: a side ended with code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def checkout(name: str) -> Iterator[Path]:
    """The folder of a built checkout: `name` itself, or a temporary one of that commit."""
    if Path(name).is_dir():
        yield Path(name).resolve()
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "checkout")
        subprocess.run(["git", "worktree", "add", "--detach", str(folder), name], cwd=ROOT, check=True)
        try:
            build = [sys.executable, "setup.py", "build_ext", "--inplace"]
            subprocess.run(build, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, check=True)


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the median, by order statistics: it supposes nothing about how times are distributed."""
    n, ordered, below, rank = len(ratios), sorted(ratios), 0.0, 0
    while rank < n // 2:
        below += math.comb(n, rank) / 2**n
        if 2 * below > 0.05:
            break
        rank += 1
    return (ordered[rank - 1], ordered[n - rank]) if rank else (0.0, math.inf)


def passes(ratios: Sequence[float]) -> bool:
    """Whether the second side is as fast as the first, as far as the rounds can tell."""
    low, high = interval(ratios)
    return median(ratios) <= ALLOWED or low <= 1 <= high


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs in the calls and bytes of one call, a line each."""
    calls = [Counter(side["calls"]) for side in (before, after)]
    names = sorted(name for name in set(calls[0]) | set(calls[1]) if calls[0][name] != calls[1][name])
    lines = [f"{name}: {calls[0][name]} -> {calls[1][name]} calls" for name in names]
    if before["bytes"] != after["bytes"]:
        lines.append(f"memory: {before['bytes'] / 1e6:.2f} -> {after['bytes'] / 1e6:.2f} MB allocated")
    return lines


def distance(first: Sequence[float], second: Sequence[float]) -> float:
    """Relative L1 distance of two lists of numbers."""
    size = sum(map(abs, first)) or 1.0
    return sum(abs(a - b) for a, b in zip(first, second, strict=True)) / size


def compare(row: int, sides: tuple[Side, Side], rounds: int) -> int:
    """Measures one row and prints it; the exit code."""
    maps = [side.ask("make", row) for side in sides]
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        for place in (0, 1) if turn % 2 == 0 else (1, 0):
            times[place].append(sides[place].ask("run"))
    ratios = [after / before for before, after in zip(*times, strict=True)]
    low, high = interval(ratios)
    verdict = "pass" if passes(ratios) else "SLOWER"
    away = distance(*maps)
    print(
        f"{ROWS[row].name:28} {median(times[0]):9.2f} -> {median(times[1]):9.2f} ms   ratio {median(ratios):.3f} "
        f"[{low:.3f}, {high:.3f}]  {verdict}   maps {'bit-equal' if away == 0 else f'differ by {away:.1e}'}"
    )
    for line in differences(*(side.ask("count") for side in sides)):
        print(f"    {line}")
    sys.stdout.flush()
    return 2 if away > SAME_MAP else 0 if verdict == "pass" else 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time two commits of this repository side by side on a CPU.")
    parser.add_argument("commits", nargs="*", metavar="COMMIT", help="BEFORE and AFTER: folders, or commits")
    parser.add_argument("--rounds", type=int, default=20, help="of every row (default 20)")
    parser.add_argument("--rows", default="", help=f"only those that hold this: {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of all threads, on a machine in use")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.serve:
        serve(args.threads, CLOCKS[args.clock])
        return 0
    if len(args.commits) != 2:
        parser.error("wanted two commits, BEFORE and AFTER")
    with ExitStack() as stack:
        folders = [stack.enter_context(checkout(name)) for name in args.commits]
        options = ["--threads", str(args.threads), "--clock", args.clock]
        sides = Side(folders[0], options), Side(folders[1], options)
        for side in sides:
            stack.callback(side.close)
        kernels = " and ".join(side.built["cpu_isa"] for side in sides)
        print(f"kernels for {kernels}, {args.rounds} rounds, {args.threads} threads, {args.clock} time")
        rows = [place for place, row in enumerate(ROWS) if args.rows in row.name]
        return max([compare(row, sides, args.rounds) for row in rows], default=0)


if __name__ == "__main__":
    sys.exit(main())
