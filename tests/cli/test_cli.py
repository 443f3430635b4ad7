"""The command line, in this process: what it writes, what it refuses, and what it leaves behind when it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import pytest
import torch
from PIL import Image
from support import paths

import ebp_cuda
from ebp_cuda import cli
from ebp_cuda.batch import photos as job
from ebp_cuda.cli import doctor, grouping
from ebp_cuda.errors import InputError
from ebp_cuda.images.preprocess import Preprocess, load_image, prepare
from ebp_cuda.targets import class_name, parse_targets

GOLDEN = paths.GOLDEN / "caffemodel"
PROTOTXT, CAFFEMODEL = GOLDEN / "inception_block.prototxt", GOLDEN / "inception_block.caffemodel"
LABELS = ["cat", "dog, hound", "tree", "drum, membranophone", "house", "tree"]
MAP = ["--layer", "n0", "--contrast-layer", "pp"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `ebp-cuda ARGUMENTS` and returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ebp-cuda", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        code = stop.value.code
        return (0 if code is None else int(code)), printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NET.onnx of the inception block with labels and Caffe's preprocessing, written by `import`."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    path = folder / "net.onnx"
    flags = ["--labels", folder / "labels.txt", "--mean", "104,117,123", "--raw-scale", 255, "--channel-order", "bgr"]
    command = ["import", PROTOTXT, CAFFEMODEL, "-o", path, *flags, "--size", "31x39"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["ebp-cuda", *map(str, command)])
        cli.main()
    assert not stop.value.code
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "inputs"
    folder.mkdir()
    random = np.random.RandomState(0)
    np.save(folder / "x.npy", random.rand(2, 3, 31, 39).astype(np.float32))
    Image.fromarray((random.rand(62, 78, 3) * 255).astype(np.uint8)).save(folder / "photo.png")
    return folder


def test_import_keeps_names_and_preprocessing(model: Path) -> None:
    net = ebp_cuda.load(model)
    assert net.labels == LABELS
    assert net.preprocess == {
        "size": [31, 39],
        "shortest_side": None,
        "channel_order": "BGR",
        "raw_scale": 255.0,
        "mean": [104.0, 117.0, 123.0],
        "std": [1.0, 1.0, 1.0],
        "interpolation": "bilinear",
    }


def test_layers_lists_every_layer(run: Run, model: Path) -> None:
    code, out, _ = run("layers", model)
    assert code == 0
    for name in ("c0", "p0", "n0", "b2r", "cc", "pp", "fc"):
        assert name in out.split()


def test_attribute_writes_what_python_computes(run: Run, model: Path, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "maps.npz"
    files = ["--model", model, "--input", inputs / "x.npy", "--out", out]
    code, printed, _ = run("attribute", *files, "--target", "3,0", *MAP)
    assert code == 0 and "[2, 2, 15, 19]" in printed and "drum" in printed
    with np.load(out) as written:
        assert sorted(written) == [*("contrast_layer", "layer", "maps", "mass_left", "rules", "scores", "targets")]
        assert [str(written[key]) for key in ("layer", "contrast_layer", "rules")] == ["n0", "pp", "caffe"]
        maps, targets, scores = written["maps"], written["targets"], written["scores"]
    assert (maps.dtype, targets.dtype, scores.dtype) == (np.float32, np.int64, np.float32)
    assert targets.tolist() == [[3, 0], [3, 0]] and scores.shape == (2, 6)
    method = ebp_cuda.ExcitationBackprop(ebp_cuda.load(model), layer="n0", contrast_layer="pp")
    x = torch.from_numpy(np.load(inputs / "x.npy"))
    np.testing.assert_array_equal(maps, method.attribute(x, torch.tensor([[3, 0], [3, 0]])).numpy())
    assert maps.min() < 0 < maps.max()


def test_batches_do_not_change_the_maps(run: Run, model: Path, inputs: Path, tmp_path: Path) -> None:
    for name, batch in (("one.npz", 1), ("two.npz", 2)):
        files = ["--model", model, "--input", inputs / "x.npy", inputs / "photo.png", "--out", tmp_path / name]
        code, *_ = run("attribute", *files, "--target", "top2", *MAP, "--batch", batch)
        assert code == 0
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert one["maps"].shape == (3, 2, 15, 19)
        np.testing.assert_array_equal(one["targets"], two["targets"])
        np.testing.assert_array_equal(one["targets"], np.argsort(-one["scores"], axis=1, kind="stable")[:, :2])
        np.testing.assert_allclose(one["maps"], two["maps"], atol=1e-5 * np.abs(one["maps"]).max())


def test_photo_goes_through_the_models_preprocessing(run: Run, model: Path, inputs: Path, tmp_path: Path) -> None:
    photo, array = inputs / "photo.png", inputs / "prepared.npy"
    how = Preprocess(size=(31, 39), channel_order="BGR", raw_scale=255, mean=(104, 117, 123))
    np.save(array, prepare(load_image(photo), how).numpy())
    common = ["attribute", "--model", model, "--target", "all", *MAP]
    assert run(*common, "--input", photo, "--out", tmp_path / "photo.npz")[0] == 0
    assert run(*common, "--input", array, "--out", tmp_path / "array.npz")[0] == 0
    assert run(*common, "--input", photo, "--mean", "0", "--out", tmp_path / "other.npz")[0] == 0
    written = {name: np.load(tmp_path / f"{name}.npz") for name in ("photo", "array", "other")}
    assert written["photo"]["maps"].shape == (1, 6, 15, 19)
    np.testing.assert_array_equal(written["photo"]["scores"], written["array"]["scores"])
    assert np.abs(written["photo"]["scores"] - written["other"]["scores"]).max() > 1e-3


def test_prototxt_with_weights_equals_its_onnx(run: Run, model: Path, inputs: Path, tmp_path: Path) -> None:
    common = ["--input", inputs / "x.npy", "--target", "5", *MAP]
    assert run("attribute", "--model", model, *common, "--out", tmp_path / "a.npz")[0] == 0
    caffe = ["--model", PROTOTXT, "--weights", CAFFEMODEL]
    assert run("attribute", *caffe, *common, "--out", tmp_path / "b.npz")[0] == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        np.testing.assert_array_equal(a["maps"], b["maps"])


def test_overlays_are_pictures_of_the_photo(run: Run, model: Path, inputs: Path, tmp_path: Path) -> None:
    command = ["attribute", "--model", model, "--input", inputs / "photo.png", "--target", "hound,membranophone", *MAP]
    assert run(*command, "--overlay", tmp_path / "shown")[0] == 0
    assert sorted(p.name for p in (tmp_path / "shown").iterdir()) == ["photo_1_dog.png", "photo_3_drum.png"]
    with Image.open(tmp_path / "shown" / "photo_1_dog.png") as picture:
        assert picture.size == (78, 62)


def test_arrays_are_shown_as_what_they_show(tmp_path: Path) -> None:
    photo = np.random.RandomState(0).rand(5, 7, 3).astype(np.float32)
    how = Preprocess(channel_order="BGR", raw_scale=255, mean=(104, 117, 123))
    np.save(tmp_path / "prepared.npy", how.normalize(photo))
    read = job.read_inputs([tmp_path / "prepared.npy"], how)
    np.testing.assert_allclose(read.pictures[0], photo, atol=1e-6)
    np.save(tmp_path / "five.npy", np.arange(5 * 4 * 4, dtype=np.float32).reshape(1, 5, 4, 4) - 40)
    shown = job.read_inputs([tmp_path / "five.npy"], how).pictures[0]
    assert shown.shape == (4, 4, 3) and shown.min() == 0 and shown.max() == 1


def test_inputs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "x.npy", np.zeros((3, 4, 4), np.float32))
    read = job.read_inputs([tmp_path / "a" / "x.npy", tmp_path / "b" / "x.npy"], Preprocess())
    assert read.names == ["000_x", "001_x"] and read.x.shape == (2, 3, 4, 4)


def test_warns_of_photos_without_preprocessing(run: Run, inputs: Path, tmp_path: Path) -> None:
    command = ["attribute", "--model", PROTOTXT, "--weights", CAFFEMODEL, "--target", "0", "--layer", "n0"]
    code, _, err = run(*command, "--input", inputs / "photo.png", "--size", "31x39", "--out", tmp_path / "a.npz")
    assert code == 0 and "warning" not in err
    code, _, err = run(*command, "--input", inputs / "photo.png", "--out", tmp_path / "a.npz")
    assert code == 0 and "warning" in err and "--mean" in err


BAD_ATTRIBUTE = {
    "unknown layer": (["--layer", "n1"], ["'n1'", "n0"]),
    "unknown contrast layer": (["--contrast-layer", "ppp"], ["'ppp'", "pp"]),
    "unknown class name": (["--target", "drumm"], ["'drumm'", "drum"]),
    "ambiguous class name": (["--target", "tree"], ["2, 5"]),
    "class out of range": (["--target", "6"], ["6", "0 to 5"]),
    "empty class": (["--target", "1,,2"], ["1,,2"]),
    "top of nothing": (["--target", "top9"], ["top9", "6 classes"]),
    "missing input": (["--input", "{inputs}/absent.npy"], ["absent.npy", "no such file"]),
    "truncated input": (["--input", "{inputs}/cut.npy"], ["cut.npy"]),
    "NaN input": (["--input", "{inputs}/nan.npy"], ["nan.npy", "[1, 0, 2, 3]"]),
    "wrong input channels": (["--input", "{inputs}/four.npy"], ["[1, 4, 31, 39]", "3"]),
    "wrong input dims": (["--input", "{inputs}/flat.npy"], ["[7, 7]"]),
    "text for an image": (["--input", "{inputs}/text.jpg"], ["text.jpg"]),
    "two sizes": (["{inputs}/small.npy"], ["small.npy", "[3, 20, 20]"]),
    "missing model": (["--model", "{inputs}/absent.onnx"], ["absent.onnx"]),
    "truncated model": (["--model", "{inputs}/cut.onnx"], ["cut.onnx"]),
    "model of another kind": (["--model", "{inputs}/text.jpg"], ["text.jpg"]),
    "weights with an ONNX file": (["--weights", str(CAFFEMODEL)], ["--weights"]),
    "caffe model without weights": (["--model", str(PROTOTXT)], ["inception_block.prototxt", "--weights"]),
    "unknown rules": (["--rules", "cafe"], ["cafe", "caffe"]),
    "unknown device": (["--device", "gpu0"], ["gpu0"]),
    "unknown dtype": (["--dtype", "fp33"], ["fp33", "fp32"]),
    "bad mean": (["--mean", "1,b"], ["--mean", "1,b"]),
    "bad size": (["--size", "big"], ["--size", "big"]),
    "bad channel order": (["--channel-order", "XYZ"], ["XYZ", "BGR"]),
    "no folder": (["--out", "{inputs}/absent/maps.npz"], ["absent"]),
}


@pytest.fixture
def broken(inputs: Path, model: Path) -> Path:
    x = np.load(inputs / "x.npy")
    np.save(inputs / "four.npy", np.zeros((1, 4, 31, 39), np.float32))
    np.save(inputs / "flat.npy", np.zeros((7, 7), np.float32))
    np.save(inputs / "small.npy", np.zeros((3, 20, 20), np.float32))
    (inputs / "cut.npy").write_bytes((inputs / "x.npy").read_bytes()[:500])
    (inputs / "cut.onnx").write_bytes(model.read_bytes()[:-5000])
    (inputs / "text.jpg").write_text("words")
    x[1, 0, 2, 3] = np.nan
    np.save(inputs / "nan.npy", x)
    return inputs


@pytest.mark.parametrize("case", BAD_ATTRIBUTE)
def test_refusals_leave_one_line_and_no_file(run: Run, model: Path, broken: Path, tmp_path: Path, case: str) -> None:
    changes, named = BAD_ATTRIBUTE[case]
    options = {"--model": str(model), "--input": str(broken / "x.npy"), "--target": "1", "--layer": "n0"}
    options |= {"--contrast-layer": "pp", "--out": str(tmp_path / "maps.npz")}
    changes = [text.replace("{inputs}", str(broken)) for text in changes]
    extra = changes if len(changes) == 1 else []
    if not extra:
        options[changes[0]] = changes[1]
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run("attribute", *[part for pair in options.items() for part in pair], *extra)
    assert code == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    for text in named:
        assert text in err, err
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_word_where_to_pictures_go_into_this_folder(
    run: Run, model: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, printed, err = run("attribute", inputs / "x.npy", "--model", model, "--target", "1")
    assert code == 0 and "chosen: layer " in err and "2 pictures" in printed
    pictures = sorted(Path().iterdir())
    assert [path.name for path in pictures] == ["x_0_1_dog.png", "x_1_1_dog.png"]
    said = Image.open(pictures[0]).text
    assert f"chosen: layer {said['layer']}, contrast {said['contrast_layer']}, rules {said['rules']}" in err
    assert said["class"] == "1 dog"
    code, _, err = run("attribute", "--model", model)
    assert code == 2 and "no input; wanted a photo" in err


def test_several_layers_are_written_beside_one_another(run: Run, model: Path, inputs: Path, tmp_path: Path) -> None:
    out, pictures = tmp_path / "maps.npz", tmp_path / "pictures"
    files = ["attribute", inputs / "x.npy", "--model", model, "--target", "3,0"]
    assert run(*files, "--layer", "n0", "--layer", "pp", "--out", out, "--overlay", pictures)[0] == 0
    assert run(*files, "--layer", "n0", "--out", tmp_path / "one.npz")[0] == 0
    with np.load(out) as several, np.load(tmp_path / "one.npz") as one:
        assert several["layers"].tolist() == ["n0", "pp"] and "maps" not in several and "layer" not in several
        np.testing.assert_allclose(several["maps/n0"], one["maps"], rtol=1e-4, atol=1e-8)
        assert several["maps/pp"].shape[:2] == several["mass_left/pp"].shape == (2, 2)
    assert len(list(pictures.glob("x_0_*_n0.png"))) == len(list(pictures.glob("x_0_*_pp.png"))) == 2
    code, _, err = run("batch", inputs, "--model", model, "--layer", "n0", "--layer", "pp", "--out", tmp_path / "b")
    assert code == 2 and "maps of one layer" in err


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_import_refuses_bad_weights(run: Run, tmp_path: Path, content: bytes | None) -> None:
    weights, out = tmp_path / "bad.caffemodel", tmp_path / "net.onnx"
    weights.write_bytes(CAFFEMODEL.read_bytes()[:-3000] if content is None else content)
    code, _, err = run("import", PROTOTXT, weights, "-o", out)
    assert code == 2 and err.startswith("error: ") and "bad.caffemodel" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [weights]


def test_import_names_the_first_layer_that_does_not_fit(run: Run, tmp_path: Path) -> None:
    text = PROTOTXT.read_text().replace("num_output: 48 kernel_size: 3", "num_output: 40 kernel_size: 3")
    (tmp_path / "other.prototxt").write_text(text)
    code, _, err = run("import", tmp_path / "other.prototxt", CAFFEMODEL, "-o", tmp_path / "net.onnx")
    assert code == 2 and "'b2'" in err and "48" in err and "40" in err
    assert not (tmp_path / "net.onnx").exists()


def test_missing_files_are_named(run: Run, tmp_path: Path) -> None:
    out = ["-o", tmp_path / "net.onnx"]
    assert "absent.prototxt" in run("import", tmp_path / "absent.prototxt", CAFFEMODEL, *out)[2]
    assert "absent.caffemodel" in run("import", PROTOTXT, tmp_path / "absent.caffemodel", *out)[2]
    code, _, err = run("layers", tmp_path / "absent.onnx")
    assert code == 2 and "absent.onnx" in err and err.count("\n") == 1


def test_debug_shows_the_traceback(run: Run, tmp_path: Path) -> None:
    for line in (["--debug", "layers", tmp_path / "absent.onnx"], ["layers", tmp_path / "absent.onnx", "--debug"]):
        code, _, err = run(*line)
        assert code == 2 and "Traceback" in err and "ModelError" in err


def test_fetch_of_an_unknown_network_suggests(run: Run, tmp_path: Path) -> None:
    code, _, err = run("fetch", "googlenett", "--out", tmp_path)
    assert code == 2 and "googlenet" in err.split("googlenett", 1)[1]


def test_doctor_is_content(run: Run) -> None:
    code, out, _ = run("doctor")
    assert code == 0, out
    for text in ("python", "torch", "extension", "self check on cpu", "all is well"):
        assert text in out


def test_doctor_fails_when_the_numbers_are_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_formula", lambda x, *rest: torch.ones(len(x), 12, 12, dtype=torch.float64))
    code, out, _ = run("doctor")
    assert code == 1 and "something is wrong" in out and "differs from the formula" in out


def test_all_classes_in_several_runs(run: Run, model: Path, inputs: Path, tmp_path: Path) -> None:
    command = ["attribute", "--model", model, "--input", inputs / "x.npy", *MAP]
    assert run(*command, "--target", "all", "--out", tmp_path / "whole.npz")[0] == 0
    method = ebp_cuda.ExcitationBackprop(ebp_cuda.load(model), *MAP[1::2])
    little = ["--max-memory", method.chunks(np.load(inputs / "x.npy").shape[-4:], 4).peak // 2]
    assert run(*command, *little, "--target", "all", "--out", tmp_path / "parts.npz")[0] == 0
    assert run(*command, *little, "--target", "top5", "--out", tmp_path / "top.npz")[0] == 0
    whole, parts, top = (np.load(tmp_path / f"{name}.npz") for name in ("whole", "parts", "top"))
    assert parts["targets"].tolist() == [list(range(6))] * 2
    scale = np.abs(whole["maps"]).max()
    np.testing.assert_allclose(parts["maps"], whole["maps"], atol=1e-5 * scale)
    for image, classes in enumerate(top["targets"]):
        np.testing.assert_allclose(top["maps"][image], whole["maps"][image, classes], atol=1e-5 * scale)
    assert top["targets"].shape == (2, 5)


def test_module_and_help_run() -> None:
    environment = {**os.environ, "COLUMNS": "100"}
    command = [sys.executable, "-m", "ebp_cuda", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    for word in ("import", "layers", "attribute", "doctor", "demo", "fetch"):
        assert word in shown.stdout


def test_targets_by_hand() -> None:
    assert parse_targets("281", None, 1000) == [281]
    assert parse_targets(" 2, 0 ", None, 3) == [2, 0]
    assert parse_targets("top5", LABELS, 6) == "top5"
    assert parse_targets("all", None, 3) == [0, 1, 2]
    assert parse_targets("Dog, hound", LABELS, 6) == [1]
    assert parse_targets("CAT,house,2", LABELS, 6) == [0, 4, 2]
    with pytest.raises(InputError, match="no class names"):
        parse_targets("cat", None, 3)
    with pytest.raises(InputError, match="target -1"):
        parse_targets("-1", LABELS, 6)
    assert class_name(3, LABELS) == "drum" and class_name(3, None) == "class 3"


def test_preprocess_metadata_is_json(model: Path) -> None:
    import onnx

    stored = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    assert json.loads(stored["ebp_cuda.preprocess"])["size"] == [31, 39]
    assert json.loads(stored["ebp_cuda.labels"]) == LABELS


def test_an_option_is_found_inside_what_python_3_10_puts_around_it() -> None:
    option = Annotated[int | None, "read by typer"]
    assert grouping._annotated(Optional[option]) == option == grouping._annotated(option)  # noqa: UP045
    assert grouping._annotated(Path | None) == Path | None
