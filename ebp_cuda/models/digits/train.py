"""Trains the digits network and writes deploy.prototxt and digits.caffemodel: python -m ebp_cuda.models.digits.train

Same versions of torch, numpy, Pillow, scikit-image and the same processor give the same weights; other ones give
weights that are equally good. About ten minutes on one core.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.progress import track

from ebp_cuda.files import atomic_path
from ebp_cuda.importers.caffe import write_caffemodel

from . import DEPLOY, PREPROCESS, WEIGHTS, network, scenes

BATCH = 32
STAGES = ((56, 12000, 5), (scenes.SIZE, 8000, 3))
"""(side of the scenes, how many, epochs). Scenes of one digit come first: they cost a quarter and teach the shapes."""
PEAK_RATE = 4e-3


def as_input(images: np.ndarray) -> torch.Tensor:
    """uint8 [N, H, W, 3], RGB -> float32 [N, 3, H, W] as the network wants it."""
    mean = torch.tensor(PREPROCESS["mean"])
    x = torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).float() - mean
    return x.permute(0, 3, 1, 2)


def as_targets(batch: list[scenes.Scene]) -> torch.Tensor:
    """float32 [N, 10]: 1 where the class is present."""
    present = torch.zeros(len(batch), scenes.CLASSES)
    for row, scene in zip(present, batch, strict=True):
        row[scene.labels] = 1
    return present


def make_set(split: str, seed: int, count: int, side: int, label: str) -> tuple[np.ndarray, torch.Tensor]:
    """Images uint8 [count, side, side, 3] and targets float32 [count, 10]."""
    digits = None if side == scenes.SIZE else 1
    made = [scenes.make_scene(split, seed, index, digits, side) for index in track(range(count), description=label)]
    return np.stack([scene.image for scene in made]), as_targets(made)


def fit(twin: network.Twin, images: np.ndarray, targets: torch.Tensor, epochs: int, console: Console) -> None:
    """Multi-label training: binary cross entropy, AdamW, one cycle of the learning rate."""
    optimizer = torch.optim.AdamW(twin.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.2)
    twin.train()
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        order = torch.randperm(len(images))
        for step in range(len(images) // BATCH):
            rows = order[step * BATCH : (step + 1) * BATCH]
            scores = twin(as_input(images[rows.numpy()])).amax((2, 3))
            loss = F.binary_cross_entropy_with_logits(scores, targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * BATCH
        seconds = time.perf_counter() - start
        console.print(f"  epoch {epoch + 1}/{epochs}: loss {total / len(images):.4f} in {seconds:.0f} s")


@torch.no_grad()
def precision(twin: network.Twin, images: np.ndarray, targets: torch.Tensor) -> float:
    """Mean average precision over the classes, 0..1."""
    from sklearn.metrics import average_precision_score

    scores = torch.cat([twin(as_input(part)).amax((2, 3)) for part in np.array_split(images, 8)])
    return float(average_precision_score(targets.numpy(), scores.numpy()))


def main(
    folder: Annotated[Path, typer.Option(help="where the two files are written")] = DEPLOY.parent,
    seed: int = 0,
    threads: int = 1,
    scale: Annotated[float, typer.Option(help="shrinks the number of scenes, to try things out")] = 1.0,
) -> None:
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    console = Console()
    twin = network.Twin(batch_norm=True)
    twin.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    for stage, (side, count, epochs) in enumerate(STAGES):
        console.print(f"scenes of {side} x {side}")
        images, targets = make_set("train", seed + stage, int(count * scale), side, "  drawing")
        fit(twin, images, targets, epochs, console)
    plain = network.Twin().eval()
    plain.load_weights(twin.weights())
    held_out = max(int(400 * scale), 60)
    images, targets = make_set("test", seed + 100, held_out, scenes.SIZE, "held-out scenes")
    console.print(f"mean average precision on {held_out} held-out scenes: {precision(plain, images, targets):.4f}")
    text = network.prototxt()
    with atomic_path(folder / DEPLOY.name) as temporary:
        temporary.write_text(text)
    write_caffemodel(folder / WEIGHTS.name, text, plain.weights())


if __name__ == "__main__":
    typer.run(main)
