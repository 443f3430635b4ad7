"""`ebp-cuda eval ...` from the command line, on sets of digit scenes."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("pycocotools")
pytest.importorskip("sklearn")

from ebp_cuda import cli
from ebp_cuda.eval.published import pointing as published
from ebp_cuda.models.digits import DEPLOY, WEIGHTS

LAYERS = ["--layer", "pool1", "--contrast-layer", "pool_ave"]


Run = Callable[..., tuple[int, str, str]]


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `ebp-cuda eval ARGUMENTS`."""
    monkeypatch.setattr("sys.argv", ["ebp-cuda", "eval", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


@pytest.fixture
def ebp(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return lambda *arguments: run(capsys, monkeypatch, *arguments)


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_pointing(ebp: Run, tmp_path: Path) -> None:
    code, out, _ = ebp("make-digits", "coco14", tmp_path / "set", "--scenes", 12)
    assert code == 0 and "12 pictures" in out
    play = ("pointing", "--dataset", "coco14", "--root", tmp_path / "set", "--out", tmp_path / "out", "--tolerance", 4)
    chosen = ("--method", "c-mwp,center", "--misses", 3)
    code, out, err = ebp(*play, "--model", "digits", *chosen)
    assert (code, err) == (0, "") and "12 pictures" in out
    found = table(tmp_path / "out" / "summary.csv")
    assert float(found["c-mwp"]["all_trials"]) > 85 > 30 > float(found["center"]["all_trials"])
    assert found["c-mwp"]["published_all"] == ""
    assert (tmp_path / "out" / "misses-center.png").stat().st_size > 10_000
    assert (tmp_path / "out" / "classes.csv").exists()
    # the same network from its files is the same run; another tolerance is not
    model = ("--model", DEPLOY, "--weights", WEIGHTS, *LAYERS)
    how = ("--channel-order", "BGR", "--raw-scale", 255, "--mean", "104,117,123", "--size", 112)
    code, again, err = ebp(*play, *model, *how, *chosen)
    assert (code, err) == (0, "") and again == out
    code, _, err = ebp(*play[:-1], 5, "--model", "digits", *chosen)
    assert code == 2 and "tolerance = 4.0, now it is 5.0" in err


def test_localization_and_phrase(ebp: Run, tmp_path: Path) -> None:
    for kind in ("imagenet", "flickr30k"):
        assert ebp("make-digits", kind, tmp_path / kind, "--scenes", 6)[0] == 0
    code, out, err = ebp(
        "localization", "--root", tmp_path / "imagenet", "--model", "digits", "--held-out", 2, "--out", tmp_path / "l"
    )
    assert (code, err) == (0, "") and "4 pictures" in out and len(table(tmp_path / "l" / "summary.csv")) == 1
    code, out, err = ebp(
        "phrase", "--root", tmp_path / "flickr30k", "--model", "digits", "--out", tmp_path / "p",
        "--words", tmp_path / "flickr30k" / "words.txt", "--tolerance", 4,
    )  # fmt: skip
    assert (code, err) == (0, "") and float(table(tmp_path / "p" / "summary.csv")["c-mwp"]["pointing"]) > 80


def test_faithfulness(ebp: Run, tmp_path: Path) -> None:
    assert ebp("make-digits", "voc07", tmp_path / "set", "--scenes", 2)[0] == 0
    code, out, err = ebp(
        "faithfulness", "--images", tmp_path / "set" / "VOC2007" / "JPEGImages", "--model", "digits",
        "--method", "c-mwp",
        "--target", "7", "--steps", 4, "--stages", 1, "--layers", "pool1,pool3", "--out", tmp_path / "f",
    )  # fmt: skip
    assert (code, err) == (0, "") and "random order" in out and "pool3" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dataset", "voc12", "--root", ".", "--model", "digits"], "--dataset 'voc12': wanted one of voc07, coco14"),
        (["--dataset", "voc07", "--root", "nowhere", "--model", "digits"], "VOC: no folder nowhere"),
        (["--dataset", "voc07", "--root", ".", "--model", "digits", "--method", "grads"], "nearest: gradient"),
        (["--dataset", "voc07", "--root", ".", "--model", "digits", "--layer", "pool9"], "no layer or blob 'pool9'"),
        (["--dataset", "voc07", "--root", ".", "--model", str(DEPLOY)], "holds no weights; give --weights"),
        (["--dataset", "voc07", "--root", ".", "--model", "vgg16"], "is not in this folder; give --weights FILE"),
        (["--dataset", "voc07", "--root", ".", "--model", "digits", "--protocol", "paper"], "--protocol 'paper'"),
    ],
)
def test_refusals_are_one_line(
    ebp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = ebp("pointing", *arguments)
    assert code == 2 and says in err and err.count("\n") == 1


def test_a_network_for_other_classes_is_refused(ebp: Run, tmp_path: Path) -> None:
    root = tmp_path / "set"
    assert ebp("make-digits", "voc07", root, "--scenes", 2)[0] == 0
    path = root / "VOC2007" / "classes.txt"
    path.write_text(path.read_text() + "extra\n")
    code, _, err = ebp("pointing", "--dataset", "voc07", "--root", root, "--model", "digits", "--out", tmp_path / "out")
    assert code == 2 and "10 outputs and the data set 11 classes (0, 1, 2, ...)" in err


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("captum.attr", ["--method", "gradient"]),
        ("pycocotools.coco", []),
        ("pyarrow.parquet", []),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    ebp: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, arguments: list[str]
) -> None:
    root = tmp_path / "set"
    assert ebp("make-digits", "coco14", root, "--scenes", 2)[0] == 0
    monkeypatch.setitem(sys.modules, module, None)
    play = ("pointing", "--dataset", "coco14", "--root", root, "--model", "digits", "--out", tmp_path / "out")
    code, _, err = ebp(*play, *arguments)
    assert code == 2 and f"needs {module.partition('.')[0]}: pip install 'ebp_cuda[eval]'" in err
    assert err.count("\n") == 1


def test_published_numbers_stand_beside_the_methods_they_belong_to() -> None:
    assert published("voc07", "resnet50", "c-mwp") == (90.7, 82.1)
    assert published("coco14", "vgg16", "mwp") == (39.8, 32.8)
    assert published("voc07", "googlenet", "c-mwp") is None and published("voc07", "vgg16", "cam") is None
