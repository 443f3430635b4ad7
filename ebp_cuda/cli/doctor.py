"""`ebp-cuda doctor`: what is installed, what the extension was built with, and whether the numbers come out right."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from ..api import ExcitationBackprop
from ..graph import Graph, Node
from ..net import Net
from ..ops import build_info
from ..ops.driver import driver_refuses


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    value: str
    ok: bool = True
    """False fails the whole report."""


def run() -> bool:
    """Prints the report as a table; True where nothing is wrong."""
    table = Table("", "check", "found", box=None, pad_edge=False)
    fine = True
    for finding in findings():
        fine = fine and finding.ok
        table.add_row("[green]ok[/]" if finding.ok else "[red]no[/]", finding.what, finding.value)
    console = Console()
    console.print(table)
    console.print("all is well" if fine else "something is wrong: see the lines marked 'no'")
    return fine


def findings() -> Iterator[Finding]:
    """The lines of the report, in order."""
    yield Finding("python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    for package, needed in (("ebp-cuda", True), ("torch", True), ("onnx", True), ("numpy", True), ("cupy", False)):
        yield _version(package, needed)
    yield Finding("torch threads", str(torch.get_num_threads()))
    nvcc = _first_line(["nvcc", "--version"], "release")
    yield Finding("nvcc", nvcc or "not found (needed only to build the kernels)")
    yield from _gpu()
    yield Finding("extension", describe_build())
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() and build_info()["cuda"] else [])]:
        yield _attempt(f"self check on {device}", partial(_self_check, device))


def describe_build() -> str:
    """What the extension holds: kernels, the compiler and torch that it was built with, CPU instructions."""
    info = build_info()
    if info["cuda"]:
        kernels = f"CUDA kernels for sm_{', sm_'.join(info['archs'])} by nvcc {info['nvcc']}"
    else:
        kernels = "CPU only: no nvcc was found when it was built"
    return f"{kernels}; against torch {info['torch']}; CPU kernels use {info['cpu_isa']}"


def _version(package: str, needed: bool) -> Finding:
    for name in (package, *(f"{package}-cuda{n}x" for n in (12, 13) if package == "cupy")):
        try:
            return Finding(package, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return Finding(package, "not installed" + ("" if needed else " (optional)"), ok=not needed)


def _gpu() -> Iterator[Finding]:
    driver = _first_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], "")
    refusal = driver_refuses()
    yield Finding("NVIDIA driver", f"{driver}: {refusal}" if refusal else driver or "not found", ok=refusal is None)
    if not torch.cuda.is_available():
        why = "this torch was built without CUDA" if torch.version.cuda is None else "torch finds none"
        yield Finding("GPU", f"none: {why}; everything runs on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        yield Finding(f"GPU {index}", f"{card.name}, sm_{card.major}{card.minor}, {card.total_memory / 2**30:.0f} GiB")


def _first_line(command: list[str], containing: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        printed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return next((line.strip() for line in printed.splitlines() if containing in line), "")


def _attempt(what: str, check: Callable[[], float]) -> Finding:
    try:
        error = check()
    except Exception as failure:  # a broken build may raise anything, and the report must still be printed
        return Finding(what, f"{type(failure).__name__}: {' '.join(str(failure).split())}", ok=False)
    return Finding(what, f"contrastive map differs from the formula by {error:.1e}", ok=error < 1e-4)


def _self_check(device: str) -> float:
    """Largest relative difference between a small network's contrastive map and the formula written out in float64."""
    random = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 12, 12, generator=random)
    w1, w2, w3 = (torch.randn(*shape, generator=random) for shape in ((8, 3, 3, 3), (6, 8, 1, 1), (4, 6 * 6 * 6)))
    plain = {"padding_end": (0, 0), "dilation": (1, 1)}
    conv = {**plain, "stride": (1, 1), "groups": 1}
    pool = {**plain, "kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False}
    nodes = [
        Node("conv1", "conv", ("x",), ("a",), {**conv, "padding": (1, 1), "padding_end": (1, 1)}, {"weight": w1}),
        Node("relu1", "relu", ("a",), ("b",)),
        Node("pool1", "max_pool", ("b",), ("c",), pool),
        Node("conv2", "conv", ("c",), ("d",), {**conv, "padding": (0, 0)}, {"weight": w2}),
        Node("relu2", "relu", ("d",), ("e",)),
        Node("flatten", "flatten", ("e",), ("f",), {"axis": 1}),
        Node("classes", "linear", ("f",), ("scores",), {}, {"weight": w3}),
    ]
    net = Net(Graph(nodes, {"x": (None, 3, 12, 12)}, ("scores",)))
    maps = ExcitationBackprop(net, "b", "e", "caffe", device=device).attribute(x, 1).cpu().double()
    expected = _formula(x.double(), w1.double(), w2.double(), w3.double(), 1)
    return float((maps[:, 0] - expected).abs().max() / expected.abs().max())


def _formula(x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, w3: torch.Tensor, target: int) -> torch.Tensor:
    """The same map by vector-Jacobian products of plain torch operations, [N, h, w]."""

    def share(forward: Callable[[torch.Tensor], torch.Tensor], below: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        z, back = torch.func.vjp(forward, below)[:2]
        return below * back(torch.where(z == 0, 0, p / z))[0]

    b = F.conv2d(x, w1, padding=1).relu()
    c, pool_back = torch.func.vjp(lambda t: F.max_pool2d(t, 2), b)[:2]
    e = F.conv2d(c, w2).relu()
    seed = F.one_hot(torch.full((len(x),), target), len(w3)).to(x.dtype)
    for_class = share(lambda t: F.linear(t.flatten(1), w3.relu()), e, seed)
    for_others = share(lambda t: F.linear(t.flatten(1), (-w3).relu()), e, seed)
    p = share(lambda t: F.conv2d(t, w2.relu()), c, for_class - for_others)
    return pool_back(p)[0].sum(1)
