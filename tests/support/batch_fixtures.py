"""Photos, a method and an undisturbed run over them, made once for all tests of runs over many images.

A test file asks for them by `pytest_plugins = ["support.batch_fixtures"]`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import ebp_cuda
from ebp_cuda import batch
from support.batch_data import SMALL, method, photos, write_folder


@pytest.fixture(scope="session")
def eb() -> ebp_cuda.ExcitationBackprop:
    return method()


@pytest.fixture(scope="session")
def images() -> dict[str, bytes]:
    return photos()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, images: dict[str, bytes]) -> Path:
    return write_folder(tmp_path_factory.mktemp("photos"), images)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, folder: Path, eb: ebp_cuda.ExcitationBackprop) -> Path:
    """An undisturbed run; tests leave it as it is."""
    out = tmp_path_factory.mktemp("whole") / "out"
    batch.run(folder, eb, out, target="top2", **SMALL)
    return out
