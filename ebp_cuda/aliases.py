"""Where modules stood before, and that the old name gives the same module object as the new one.

`ebp_cuda.caffe` is a name of its own, for scripts that say `import caffe`. The others are kept for code that was
written before their rooms moved, and warn.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

SAME = {"caffe": "compat.pycaffe"}
"""Second names that stay, below ebp_cuda."""

MOVED = {
    "demo": "cli.demo",
    "distributed": "batch.ray",
    "doctor": "cli.doctor",
    "download": "catalogue.download",
    "fetch": "catalogue.fetch",
    "fold": "engine.fold",
    "job": "batch.photos",
    "maps": "images.maps",
    "models.digits.benchmark": "eval.digits_game",
    "preprocess": "images.preprocess",
    "profile": "cli.profile",
    "signs": "engine.signs",
}
"""Old names, below ebp_cuda, and where the modules are now."""

_PACKAGE = __name__.rpartition(".")[0]


def new_name(fullname: str) -> str | None:
    """The module's place now, "ebp_cuda.compat.pycaffe.io" for "ebp_cuda.caffe.io"; None where the name is no alias."""
    for old, new in {**SAME, **MOVED}.items():
        alias = f"{_PACKAGE}.{old}"
        if fullname == alias or fullname.startswith(f"{alias}."):
            return f"{_PACKAGE}.{new}{fullname.removeprefix(alias)}"
    return None


class _SameModule(importlib.abc.InspectLoader):
    """Loads an alias: hands out the module itself."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has written the alias's there

    def get_source(self, fullname: str) -> str:
        """For `python -m` with an old name: run as the module's own name, so that its relative imports hold."""
        return f"import runpy\n\nrunpy.run_module({self._name!r}, run_name='__main__', alter_sys=True)\n"

    def is_package(self, fullname: str) -> bool:
        spec = importlib.util.find_spec(self._name)
        return spec is not None and spec.submodule_search_locations is not None


class _Aliases(importlib.abc.MetaPathFinder):
    """Finds modules by their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name = new_name(fullname)
        if name is None or importlib.util.find_spec(name) is None:
            return None
        if fullname.removeprefix(f"{_PACKAGE}.").split(".")[0] not in SAME:
            moved = f"{fullname} is now {name}"
            warnings.warn(moved, DeprecationWarning, stacklevel=2)  # frames of the import system do not count
        return importlib.util.spec_from_loader(fullname, _SameModule(name))


def install() -> None:
    """Makes the old names importable. It comes first: a package's own path would load its modules a second time."""
    if not any(type(finder).__name__ == _Aliases.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _Aliases())
