"""Where the labels and the trained network lie: in the package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

_INSTALLED = Path(__file__).resolve().with_name("data")
"""Made by the build of a wheel (setup.py, CopyModels)."""

FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).resolve().parents[2] / "models"
"""models/ at the top of the repository, or the wheel's copy of it."""
