"""`ebp-cuda classes-at`: the table it prints and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import paths

import ebp_cuda
from ebp_cuda import cli

GOLDEN = paths.GOLDEN / "caffemodel"
MODEL = ["--model", GOLDEN / "inception_block.prototxt", "--weights", GOLDEN / "inception_block.caffemodel"]
MAP = ["--layer", "n0", "--contrast-layer", "pp"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ebp-cuda", "classes-at", *map(str, (*MODEL, *MAP, *arguments))])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def x(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((2, 3, 31, 39), np.float32))
    return tmp_path / "x.npy"


def test_the_table_is_what_the_method_says(run, x: Path) -> None:
    code, printed, _ = run(x, "--box", "1,2,3,5", "--first", 2)
    net = ebp_cuda.load(*MODEL[1::2])
    found = ebp_cuda.ExcitationBackprop(net, "n0", "pp").classes_at(torch.from_numpy(np.load(x)), (1, 2, 3, 5))
    rows = [line.split() for line in printed.splitlines()[1:]]
    assert code == 0 and [row[0] for row in rows] == ["x_0", "x_0", "x_1", "x_1"]
    assert [int(row[1]) for row in rows] == found.classes[:, :2].flatten().tolist()
    assert [float(row[-3]) for row in rows] == pytest.approx(found.share[:, :2].flatten().tolist(), rel=1e-2)


def test_a_mask_in_a_file_is_the_box(run, x: Path, tmp_path: Path) -> None:
    net = ebp_cuda.load(*MODEL[1::2])
    plane = ebp_cuda.ExcitationBackprop(net, "n0", "pp").attribute(torch.from_numpy(np.load(x)), 0).shape[2:]
    mask = np.zeros(plane)
    mask[1:3, 2:5] = 1
    np.save(tmp_path / "mask.npy", mask)
    assert run("--input", x, "--mask", tmp_path / "mask.npy") == run("--input", x, "--box", "1,2,3,5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "at which place of the map? Give --pixel, --box or --mask"),
        (["--pixel", "1,x"], "--pixel '1,x': wanted whole numbers"),
        (["--pixel", "1,2", "--box", "1,2,3,4"], "got --pixel and --box; wanted one of"),
        (["--pixel", "500,2"], "pixel=(500, 2): wanted one within the layer's plane"),
        (["--mask", "none.npy"], "--mask none.npy: not a readable .npy file"),
    ],
)
def test_it_refuses_by_name(run, x: Path, arguments: list[str], message: str) -> None:
    code, _, said = run("--input", x, *arguments)
    assert code == 2 and message in said
