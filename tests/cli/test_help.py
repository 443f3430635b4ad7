"""The first thing that anybody types: help and version, soon and without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.batch_data import photos, write_folder

import ebp_cuda
from ebp_cuda import cli, models
from ebp_cuda.models import digits


def test_help_and_version_import_no_torch() -> None:
    """torch takes seconds to import; everything else is there in half of one."""
    code = "import sys; from ebp_cuda.cli import app; assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    done = subprocess.run([sys.executable, "-m", "ebp_cuda", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"ebp-cuda {ebp_cuda.__version__}\n"


def test_every_public_name_is_found_where_it_is_made() -> None:
    code = "import ebp_cuda\nfor name in ebp_cuda.__all__: getattr(ebp_cuda, name)\nfrom ebp_cuda import *"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(ebp_cuda.__all__) <= set(dir(ebp_cuda))
    with pytest.raises(AttributeError, match="module 'ebp_cuda' has no attribute 'absent'"):
        ebp_cuda.absent  # noqa: B018


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["ebp-cuda", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_help_stands_in_panels(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert call(monkeypatch, "batch", "--help") == 0
    printed = capsys.readouterr().out
    for panel in ("Model", "Map", "Photos and classes", "Cluster"):
        assert f"─ {panel} ─" in printed


def test_a_dry_run_writes_nothing_and_a_limit_takes_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    source, out = write_folder(tmp_path / "photos", photos(9)), tmp_path / "out"
    flags = ["--model", digits.DEPLOY, "--weights", digits.WEIGHTS, "--layer", "pool1", "--workers", 0, "--out", out]
    assert call(monkeypatch, "batch", source, *flags, "--size", 112, "--dry-run", "--limit", 5) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "5 images of kind folder, 1 shards" in printed and "the first 5 took" in printed and not out.exists()
    assert call(monkeypatch, "batch", source, *flags, "--size", 112, "--limit", 3) == 0
    assert len(list(ebp_cuda.batch.open(out))) == 3
    assert call(monkeypatch, "batch", source, *flags, "--size", 112, "--dry-run") == 2
    assert "not empty" in capsys.readouterr().err


def test_a_model_and_a_photo_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Layer, contrast, rules and target are chosen, and what was chosen is said."""
    photo = write_folder(tmp_path, {"a.png": photos(1)["a/000.png"]}) / "a.png"
    flags = ["--model", digits.DEPLOY, "--weights", digits.WEIGHTS, "--size", 112, "--out", tmp_path / "maps.npz"]
    assert call(monkeypatch, "attribute", "--input", photo, *flags) == 0
    printed = capsys.readouterr()
    assert "chosen: layer " in printed.err and (tmp_path / "maps.npz").exists()


def test_layers_lists_the_good_places(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert call(monkeypatch, "layers", "digits", "--candidates") == 0
    lines = capsys.readouterr().out.splitlines()
    chosen = [line for line in lines if line.startswith("chosen ")]
    assert len(chosen) == 1 and "inception_a/output" in chosen[0] and "every path to the classes" in chosen[0]
    assert any("less than 12 pixels" in line for line in lines)
    assert lines[-1] == "chosen: layer inception_a/output, contrast pool_ave, rules caffe"


def test_fetch_names_every_network_that_it_knows(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert call(monkeypatch, "fetch", "--help") == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert all(name in printed for name in (*models.names(), "torchvision:NAME", "timm:NAME"))
