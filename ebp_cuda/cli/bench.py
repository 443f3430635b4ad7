"""The command bench: how fast maps are on this machine, and which layers take the time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .app import app, progress_bar
from .options import Model, Weights, option, read_size

if TYPE_CHECKING:
    import torch

    from ..api import ExcitationBackprop
    from ..net import Net
    from .profile import Profile


@app.command()
def bench(
    model: Model = "googlenet",
    weights: Weights = None,
    layer: Annotated[str | None, option("--layer", "NAME", "where the map is read")] = None,
    contrast_layer: Annotated[str | None, option("--contrast-layer", "NAME", "c-MWP: subtract here")] = None,
    classes: Annotated[int, typer.Option("--classes", min=1, help="maps of each image, one a class")] = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, help="images at a time")] = 1,
    size: Annotated[
        str | None, option("--size", "HEIGHTxWIDTH", "of the input, where the model leaves it open")
    ] = None,
    rules: Annotated[str, option("--rules", "NAME", "auto | caffe | conserving")] = "auto",
    device: Annotated[str, option("--device", "NAME", "cpu | cuda")] = "cpu",
    dtype: Annotated[str, option("--dtype", "NAME", "fp32 | tf32 | bf16 | fp64")] = "fp32",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="runs that are timed")] = 10,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="of the CPU; torch's own choice")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="the share of every layer")] = False,
) -> None:
    """Milliseconds of a map and its price in forward passes; with --profile the share of every layer.

    EBP_PRINT_KERNELS=1 prints which kernel computes every convolution, and why none of the faster ones.

    A network of the catalogue or of a library has random weights unless --weights are given; layers are chosen unless
    they are named.
    """
    import torch

    import ebp_cuda

    from ..places import UNSET
    from .profile import profile as profile_of

    if threads is not None:
        torch.set_num_threads(threads)
    net = _network(model, weights)
    graphs = False if profile else "auto"
    contrast = UNSET if contrast_layer is None else contrast_layer
    method = ebp_cuda.ExcitationBackprop(net, layer, contrast, rules, dtype, device, graphs=graphs)
    x = _input(net, batch, size)
    typer.echo(f"chosen: {method.setting}", err=True)
    with progress_bar() as progress:
        runs = progress.track(range(rounds), description="measuring")
        target = torch.arange(classes).expand(batch, classes)
        if profile:
            _print_profile(profile_of(method, x, target, runs), batch * classes)
        else:
            _print_times(method, x, target, runs)


def _print_times(method: ExcitationBackprop, x: torch.Tensor, target: torch.Tensor, rounds: Iterable[int]) -> None:
    from .profile import measure

    net, plan = method.net, method.plan
    top, dtype = net.default_top(), str(plan.dtype).removeprefix("torch.")
    cases = {
        "map": lambda: method.run(x, target),
        "forward": lambda: net.forward(x, [top], device=plan.device, dtype=plan.dtype),
    }
    times = {name: median(found) for name, found in measure(cases, rounds, plan.device).items()}
    maps = target.numel()
    typer.echo(
        f"{maps} maps of {len(x)} images {'x'.join(map(str, x.shape[1:]))} at {method.layer}: {times['map']:.1f} ms, "
        f"{times['map'] / maps:.2f} ms a map, {1e3 * maps / times['map']:.1f} maps/s, "
        f"{times['map'] / times['forward']:.2f} forward passes of {times['forward']:.1f} ms"
    )
    peak = method.chunks(x.shape, target.shape[1]).peak
    typer.echo(f"about {peak / 1e6:.0f} MB beside the weights, on {plan.device} in {dtype}")


def _network(model: str, weights: Path | None) -> Net:
    from ..models import open_model
    from ..models.catalogue import MODELS
    from .profile import known_network

    if model in MODELS and weights is None and not Path(model).is_file():
        return known_network(model)
    return open_model(model, weights, random=True)


def _input(net: Net, batch: int, size: str | None) -> Any:
    import torch

    name, declared = next(iter(net.graph.inputs.items()))
    if len(net.graph.inputs) != 1 or len(declared) != 4:
        raise InputError(f"bench: {net.graph.origin} wants inputs {net.graph.inputs}; one of [N, C, H, W] can be timed")
    height, width = read_size(size) or (declared[2] or 224, declared[3] or 224)
    if any(own not in (None, given) for own, given in zip(declared[2:], (height, width), strict=True)):
        raise InputError(f"--size {size}: input '{name}' has the size {declared[2]}x{declared[3]}")
    return torch.rand(batch, declared[1] or 3, height, width, generator=torch.Generator().manual_seed(0))


def _print_profile(found: Profile, maps: int) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{maps} maps: {found.total:.1f} ms"
    table = Table("layer", "operation", "forward ms", "sweep ms", "share", "kernels up and down", title=title)
    for column in table.columns[2:5]:
        column.justify = "right"
    for one in found.layers:
        share = (one.forward + one.sweep) / found.total
        kernels = "; ".join(dict.fromkeys(choice.kernel for choice in one.kernels.values()))
        table.add_row(one.name, one.op, f"{one.forward:.2f}", f"{one.sweep:.2f}", f"{share:.1%}", kernels)
    table.add_row("between the layers", "", "", f"{found.rest:.2f}", f"{found.rest / found.total:.1%}")
    up, down = (sum(getattr(one, side) for one in found.layers) for side in ("forward", "sweep"))
    table.add_section()
    table.add_row("sum", "", f"{up:.2f}", f"{down + found.rest:.2f}", "100.0%")
    Console().print(table)
