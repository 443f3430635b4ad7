"""The command eval grid: the grid pointing game, on photos that installed packages ship."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .evaluate import Out, evaluate, progress
from .options import Model, Weights, option

DIGIT_TILE = 56


@evaluate.command("grid")
def grid(
    model: Model,
    weights: Weights = None,
    method: Annotated[str, option("--method", "NAMES", "c-mwp,mwp,gradient,input-x-gradient,...|all")] = "c-mwp",
    layers: Annotated[str | None, option("--layers", "NAMES", "where (c-)MWP maps are read, with commas")] = None,
    contrast_layer: Annotated[str | None, option("--contrast-layer", "NAME", "c-MWP: subtract here")] = None,
    rules: Annotated[str | None, option("--rules", "NAMES", "caffe | conserving | caffe,conserving")] = None,
    cells: Annotated[int, typer.Option("--cells", min=2, max=6, help="tiles on a side of a mosaic")] = 2,
    tile: Annotated[int | None, typer.Option("--tile", min=16, help="pixels of a tile; default: 224 / cells")] = None,
    photos: Annotated[Path | None, option("--photos", "DIR", "class folders, or a .csv with image,label")] = None,
    mosaics: Annotated[int, typer.Option("--mosaics", min=1, help="how many")] = 96,
    confidence: Annotated[float, option("--confidence", "PART", "least probability of a tile's class, alone")] = 0.3,
    seed: Annotated[int, option("--seed", "NUMBER", "other crops and mosaics")] = 0,
    examples: Annotated[int, typer.Option("--examples", min=0, help="pairs to draw")] = 4,
    out: Out = Path("grid"),
) -> None:
    """The grid pointing game: which share of a map lies in the cell that shows the class?

    Mosaics are made of photos that scikit-image, scikit-learn and matplotlib install, or of yours. Writes
    DIR/part-*.parquet (every pair), summary.csv (mean and standard errors) and examples.png.
    """
    from ..eval.grid_command import Drawing, grid_mosaics, open_network, run_grid
    from ..eval.grid_run import METHODS, grid_methods
    from ..eval.methods import method_names
    from ..models.opening import DIGITS

    names = method_names(method, METHODS)
    side = tile if tile is not None else DIGIT_TILE if model == DIGITS else 224 // cells
    drawing = Drawing(model, cells, side, mosaics, confidence, seed, photos)
    network = open_network(drawing, weights)
    where = [name.strip() for name in layers.split(",")] if layers else list(network.layers)
    contrast, rule_sets = contrast_layer or network.contrast, (rules or network.rules).split(",")
    if not where or not contrast or not all(rule_sets):
        raise InputError(f"--model {model}: nothing to choose the contrast from; give --contrast-layer")
    methods, refused = grid_methods(network.mosaic, names, where, contrast, rule_sets)
    for name, reason in refused.items():
        if method != "all":
            raise InputError(f"--method {name}: {reason}")
        typer.echo(f"left out: {name} ({reason})", err=True)
    drawn = grid_mosaics(network, drawing)
    settings = {"task": "grid", "contrast": contrast, "rules": rule_sets}
    with progress("grid", len(drawn), out) as done:
        run_grid(network, drawn, methods, out, drawing, settings, examples=examples, done=done)
