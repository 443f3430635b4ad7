"""`import ebp_cuda.models` works in a wheel, an editable install, a checkout on PYTHONPATH, mypy and documentation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import griffe
import pytest
from support.paths import ROOT

import ebp_cuda
from ebp_cuda.ops.library import LIBRARY

USE = """
import sys
import ebp_cuda.models
from ebp_cuda.models import digits
assert ebp_cuda.models.labels("imagenet")[285] == "Egyptian cat"
assert digits.DEPLOY.is_file() and digits.WEIGHTS.is_file()
assert "loss3/classifier" in ebp_cuda.models.prototxt("googlenet")
print(ebp_cuda.models.__file__, digits.WEIGHTS)
"""
IN_CHECKOUT = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs the repository")
pytestmark = IN_CHECKOUT


def use_from(folder: Path, cwd: Path) -> list[Path]:
    """Where the package and the trained weights were found by a process that has `folder` on its path."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", USE]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [Path(path) for path in done.stdout.split()]


@pytest.mark.slow  # 4 s each: a process that imports torch
def test_a_wheel_holds_labels_and_weights(tmp_path: Path) -> None:
    """What `pip wheel` packs, without a second build of the library."""
    source, built = tmp_path / "source", tmp_path / "built"
    patterns = shutil.ignore_patterns("*.so", "__pycache__", "include")
    for name in ("csrc", "ebp_cuda", "models"):
        shutil.copytree(ROOT / name, source / name, ignore=patterns)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(built)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    shutil.copy(LIBRARY, built / "ebp_cuda")
    shutil.rmtree(source)
    module, weights = use_from(built, tmp_path)
    assert module.is_relative_to(built) and weights.is_relative_to(built / "ebp_cuda" / "models" / "data")
    assert sorted(path.name for path in (built / "ebp_cuda/models/data").rglob("*.*")) == [
        "coco80.txt", "deploy.prototxt", "digits.caffemodel", "imagenet.txt"
    ]  # fmt: skip


@pytest.mark.slow
def test_a_checkout_built_in_place_needs_no_install(tmp_path: Path) -> None:
    """An editable install puts the same folder on the path."""
    checkout = LIBRARY.parents[1]
    module, weights = use_from(checkout, tmp_path)
    assert module.is_relative_to(checkout) and weights == checkout / "models" / "digits" / "digits.caffemodel"


@pytest.mark.slow
def test_mypy_sees_the_package_and_its_modules(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import ebp_cuda.models.digits\nfrom ebp_cuda import caffe, models\n"
        "text: str = models.prototxt('vgg16')\nreveal_type(ebp_cuda.models.digits.LAYER)\n"
        "reveal_type(caffe.Net)\nwrong: int = models.prototxt('vgg16')\n"
    )
    options = ["--follow-imports=silent", "--cache-dir", str(ROOT / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", *options, "user.py"]
    environment = {**os.environ, "MYPYPATH": str(LIBRARY.parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert 'Revealed type is "str"' in done.stdout, done.stdout + done.stderr
    assert "ebp_cuda.compat.pycaffe.net.PycaffeNet" in done.stdout
    assert done.stdout.count("error:") == 1 and "user.py:6: error: Incompatible types" in done.stdout


def test_a_documentation_generator_sees_it() -> None:
    package = griffe.load("ebp_cuda.models", search_paths=[str(Path(ebp_cuda.__file__).parents[1])])
    assert package["prototxt"].docstring is not None
    assert package["digits.LAYER"].docstring is not None
