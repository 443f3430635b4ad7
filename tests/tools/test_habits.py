"""The versions that stand in more than one file are the same in all of them."""

from __future__ import annotations

import re

import pytest
import yaml
from support.paths import ROOT

import ebp_cuda

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs the repository")


def test_pre_commit_and_ci_use_the_same_formatters() -> None:
    pinned = dict(re.findall(r'"([a-z-]+)==([\d.]+)"', re.search(r"^lint = .*$", text("pyproject.toml"), re.M)[0]))
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    for hook in hooks:
        (name,) = (name for name in pinned if name in hook["repo"].rsplit("/", 1)[-1])
        assert hook["rev"] == f"v{pinned[name]}", name


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == ebp_cuda.__version__
    assert f"## {ebp_cuda.__version__}" in text("CHANGELOG.md")


def test_what_is_written_in_yaml_can_be_read() -> None:
    for path in [*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml"]:
        assert yaml.safe_load(path.read_text()), path


def text(name: str) -> str:
    return (ROOT / name).read_text()
