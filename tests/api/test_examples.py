"""Every script of examples/ as a process of its own, as its reader runs it (`original/` has tests of its own)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
from support import paths
from support.paths import EXAMPLES

SCRIPTS = {
    # script: (packages it needs, what it prints, the picture it makes)
    "batch_folder": (("skimage", "pyarrow"), "3 images, 0 failed", None),
    "captum_layer": (("skimage", "captum"), "largest relative change", "captum_layer.png"),
    "cupy_rule": ((), "maps [2, 5, 14, 14] on", None),
    "detector_box": ((), "of the relevance of its score lies on it", None),
    "excitation_dropout": ((), "right after 60 steps", None),
    "functional_numpy": ((), "ndarray float32 (4, 3, 16, 16), sums [1. 1. 1. 1.]", None),
    "grad_cam_road": (("skimage", "pytorch_grad_cam"), "ROAD of Excitation Backprop", "grad_cam_road.png"),
    "own_layer": ((), "from ONNX: largest difference", "own_layer.onnx"),
    "regression": ((), "of the relevance of that number lies on the square", None),
    "retrieval_pair": ((), "rather than like a disc", None),
    "segmentation_pixel": ((), "the disc's centre: 4 of 4 pixels right", None),
    "torchray_import": (("skimage", "sklearn"), "two maps [1, 1, 112, 112]", "torchray_import.png"),
}
RUN = """
from support import importable_torchvision; import runpy, sys
sys.path.insert(0, sys.argv[1])
script, sys.argv = sys.argv[2], sys.argv[2:]
runpy.run_path(script, run_name="__main__")
"""


def test_all_are_run_and_listed() -> None:
    here = {path.stem for path in EXAMPLES.glob("*.py")} - {"photo", "shapes"}
    assert here == set(SCRIPTS)
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"`{name}.py`" in listed for name in here)


@pytest.mark.slow  # together about a minute on one core: each starts torch, most read a network by torch.export
@pytest.mark.parametrize("name", SCRIPTS)
def test_it_runs(name, tmp_path) -> None:
    needs, prints, makes = SCRIPTS[name]
    missing = [package for package in needs if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    search = [str(paths.TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
    command = [sys.executable, "-c", RUN, str(EXAMPLES), str(EXAMPLES / f"{name}.py"), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert prints in done.stdout
    assert makes is None or (tmp_path / makes).stat().st_size > 500
