"""The command eval faithfulness: what maps are worth where nothing is annotated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .evaluate import Evaluated, Limit, Out, evaluate, progress
from .grouping import grouped
from .options import Photos, option


@evaluate.command("faithfulness")
@grouped
def faithfulness(
    images: Annotated[Path, option("--images", "DIR", "a folder of photos")],
    network: Evaluated,
    photos: Photos,
    out: Out = Path("faithfulness"),
    target: Annotated[str, option("--target", "CLASS", "top1, an index or a name")] = "top1",
    steps: Annotated[int, typer.Option("--steps", min=2, help="of deletion and insertion")] = 32,
    stages: Annotated[int, typer.Option("--stages", min=0, help="of the randomisation; 0: none")] = 6,
    layers: Annotated[str | None, option("--layers", "NAMES", "to compare; default: one of every size")] = None,
    seed: Annotated[int, option("--seed", "NUMBER", "other random weights")] = 0,
    limit: Limit = None,
) -> None:
    """Deletion and insertion, randomised weights, and agreement of layers; needs photos, no annotations.

    Writes DIR/part-*.parquet (every number), faithfulness.csv, randomised.csv and layers.csv.
    """
    from ..eval.faithfulness_run import FaithfulnessSettings, pictures_in, run_faithfulness
    from ..eval.subject import output_count
    from ..targets import parse_targets

    subject, methods = network.open(photos)
    chosen = parse_targets(target, photos.names() or subject.net.labels, output_count(subject))
    if chosen != "top1" and (isinstance(chosen, str) or len(chosen) != 1):
        raise InputError(f"--target {target}: top1 or one class was wanted")
    pictures = pictures_in(images)[:limit]
    names = tuple(name for name in (layers or "").split(",") if name)
    asked = {"task": "faithfulness", "images": str(images.resolve()), "limit": limit, "rules": subject.rules}
    with progress("faithfulness", len(pictures), out) as done:
        run_faithfulness(
            subject, methods, pictures, out, asked, FaithfulnessSettings(steps, stages, names, seed),
            target=None if isinstance(chosen, str) else chosen[0],
            rules=subject.rules, device=network.device, done=done,
        )  # fmt: skip
