"""`ebp-cuda attribute` with questions other than a class: what it writes equals the method's own answer."""

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
FILES = GOLDEN / "inception_block.prototxt", GOLDEN / "inception_block.caffemodel"
MAP = ["--layer", "n0", "--contrast-layer", "pp"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        line = ["ebp-cuda", "attribute", "--model", FILES[0], "--weights", FILES[1], *MAP, *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, line)))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def x(tmp_path: Path) -> torch.Tensor:
    array = np.random.default_rng(0).random((2, 3, 31, 39), np.float32)
    np.save(tmp_path / "x.npy", array)
    return torch.from_numpy(array)


def method() -> ebp_cuda.ExcitationBackprop:
    return ebp_cuda.ExcitationBackprop(ebp_cuda.load(*FILES), "n0", "pp")


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["--contrast", "versus", "--other", "2"], {"contrast": "versus", "other": 2}),
        (["--contrast", "mean"], {"contrast": "mean"}),
        (["--pixel", "4,5"], {"pixel": (4, 5)}),
        (["--box", "4,5,7,9", "--contrast", "mean"], {"box": (4, 5, 7, 9), "contrast": "mean"}),
        (
            ["--contrast", "truncated", "--other", "0", "--percentile", "35"],
            {"contrast": "truncated", "other": 0, "percentile": 35},
        ),
    ],
)
def test_a_contrast_by_choice(run, x, tmp_path: Path, arguments: list[str], asked: dict) -> None:
    code, _, said = run(tmp_path / "x.npy", "--target", "1,3", "--out", tmp_path / "maps.npz", *arguments)
    assert code == 0, said
    wanted = method().attribute(x, torch.tensor([[1, 3]] * 2), **asked)
    np.testing.assert_allclose(np.load(tmp_path / "maps.npz")["maps"], wanted.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("flag", ["--seed", "--similarity-to"])
def test_arrays_from_files_in_place_of_classes(run, x, tmp_path: Path, flag: str) -> None:
    eb = method()
    top = eb.net.shapes()[eb.net.default_top()][1:]
    own = top if flag == "--seed" else top[:1]
    np.save(tmp_path / "asked.npy", np.random.default_rng(1).random((2, *own)))
    out, pictures = tmp_path / "maps.npz", tmp_path / "pictures"
    more = ("--out", out, "--overlay", pictures)
    code, printed, said = run(tmp_path / "x.npy", flag, tmp_path / "asked.npy", *more)
    assert code == 0, said
    wanted = eb.attribute(x, **{flag[2:].replace("-", "_"): np.load(tmp_path / "asked.npy")})
    np.testing.assert_allclose(np.load(out)["maps"], wanted.numpy(), rtol=1e-4, atol=1e-7)
    assert np.load(out)["targets"].tolist() == [[-1, -1]] * 2
    assert sorted(path.name for path in pictures.iterdir()) == [f"x_{i}_column{k}.png" for i in (0, 1) for k in (0, 1)]
    assert [line.split()[0] for line in printed.splitlines()[1:5]] == ["x_0", "x_0", "x_1", "x_1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pixel", "9,0"], "pixel=(9, 0): wanted one within the layer's plane [9, 13]"),
        (["--contrast", "versus", "--other", "1,2"], "other '1,2': wanted one class"),
        (["--contrast", "versus"], "wanted other="),
        (["--seed", "none.npy"], "--seed none.npy: not a readable .npy file"),
    ],
)
def test_it_refuses_by_name(run, x, tmp_path: Path, arguments: list[str], message: str) -> None:
    code, _, said = run(tmp_path / "x.npy", "--out", tmp_path / "maps.npz", *arguments)
    assert code == 2 and message in said
    assert not (tmp_path / "maps.npz").exists()
