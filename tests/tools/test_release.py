"""What is written for others to install by says the same everywhere: the platform table, the workflow, the images."""

from __future__ import annotations

import re

import pytest
import yaml
from support.paths import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs the repository")
IMAGES = ("cpu", "cuda")


def text(name: str) -> str:
    return (ROOT / name).read_text()


def supported_pythons() -> list[str]:
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text("pyproject.toml"))


def oldest_torch() -> str:
    return re.search(r'"torch>=([\d.]+)"', text("pyproject.toml"))[1]


def pinned_torch() -> str:
    return re.search(r"^TORCH \?= torch==([\d.]+)$", text("Makefile"), re.MULTILINE)[1]


def platforms() -> str:
    return text("docs/install.md").split("## Platforms\n")[1].split("\n## ")[0]


def test_the_platform_table_names_the_versions_of_pyproject() -> None:
    table = platforms()
    assert set(re.findall(r"\b3\.\d+\b", table)) == set(supported_pythons())
    assert f'requires-python = ">={supported_pythons()[0]}"' in text("pyproject.toml")
    torches = set(re.findall(r"torch (\d+\.\d+)", table))
    assert {oldest_torch(), ".".join(pinned_torch().split(".")[:2])} <= torches
    oldest_cuda = re.search(r"OLDEST_CUDA, BEYOND_CUDA = \((\d+), (\d+)\)", text("setup.py")).groups()
    assert f"CUDA {'.'.join(oldest_cuda)}" in table
    assert all(name in table for name in ("aarch64", "macOS", "Windows", "driver"))


def test_the_workflow_only_calls_what_anybody_can() -> None:
    (job,) = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    matrix = job["strategy"]["matrix"]
    assert matrix["python"] == [supported_pythons()[0], supported_pythons()[-1]]
    assert matrix["torch"] == [f"torch=={oldest_torch()}.*", "torch"]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_of_pinned_parts_and_runs_as_nobody_special(image: str) -> None:
    lines = text(f"docker/{image}.Dockerfile").replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    words = [step[0] for step in steps]
    assert words.count("FROM") == 2 and words[0] == "FROM", "what compiles stays behind"
    assert set(words) <= {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD"}
    for base in (step[1].split()[0] for step in steps if step[0] == "FROM"):
        assert re.search(r":\d", base), f"{base} names no version"
    assert any(f"torch=={pinned_torch()}" in rest for word, rest in steps if word == "RUN")
    assert [rest for word, rest in steps if word == "USER"] == ["1001"]
    copied = [rest.split()[-2:] for word, rest in steps if word == "COPY" and "--from" in rest]
    assert copied == [["/opt/venv", "/opt/venv"]]
    assert "no image has been built from it yet" in " ".join(lines)
