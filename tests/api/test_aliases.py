"""Old module paths give the same module object as the new ones, by import and by `python -m`."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings

import pytest

import ebp_cuda
from ebp_cuda import aliases

OF_PYCAFFE = ("blob", "classifier", "io", "modes", "net", "net_spec", "proto", "proto.caffe_pb2", "storage", "surgery")
OLD_PATHS = [*aliases.SAME, *aliases.MOVED, *(f"caffe.{module}" for module in OF_PYCAFFE)]


@pytest.mark.parametrize("old", OLD_PATHS)
def test_an_old_path_is_the_module_itself(old: str) -> None:
    new = aliases.new_name(f"ebp_cuda.{old}")
    assert new is not None and new != f"ebp_cuda.{old}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        by_old_path = importlib.import_module(f"ebp_cuda.{old}")
    module = importlib.import_module(new)
    assert by_old_path is module
    assert module.__name__ == new
    assert module.__spec__ is not None and module.__spec__.name == new


def test_an_attribute_of_the_package_is_the_module_too() -> None:
    with pytest.warns(DeprecationWarning, match="ebp_cuda.maps is now ebp_cuda.images.maps"):
        sys.modules.pop("ebp_cuda.maps", None)
        vars(ebp_cuda).pop("maps", None)
        assert ebp_cuda.maps is importlib.import_module("ebp_cuda.images.maps")


def test_a_name_that_never_was_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'mapz'"):
        _ = ebp_cuda.mapz  # type: ignore[attr-defined]
    with pytest.raises(ModuleNotFoundError, match=r"ebp_cuda\.caffe\.solver"):
        importlib.import_module("ebp_cuda.caffe.solver")


def test_pycaffe_does_not_warn_and_has_one_mode() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sys.modules.pop("ebp_cuda.caffe", None)
        from ebp_cuda import caffe
    from ebp_cuda.compat import pycaffe

    assert caffe is pycaffe
    assert importlib.import_module("ebp_cuda.caffe.modes") is importlib.import_module("ebp_cuda.compat.pycaffe.modes")


WARNS_AT_ITS_LINE = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import ebp_cuda.preprocess
print([warning.filename for warning in caught if issubclass(warning.category, DeprecationWarning)])
"""


def test_the_warning_points_at_the_import(tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(WARNS_AT_ITS_LINE)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert str(script) in done.stdout


def test_python_m_runs_an_old_path_as_the_new_one(tmp_path, monkeypatch) -> None:
    command = [sys.executable, "-m", "ebp_cuda.signs"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
