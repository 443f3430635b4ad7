"""Builds ebp_cuda/_C.so: one library on torch's stable ABI that serves many torch versions, with or without CUDA.

g++ compiles the bindings and the CPU kernels, nvcc (where there is one) the CUDA kernels, which see nothing of torch.
A GPU is never asked for: it is the compiler that decides what goes in.

Environment: CXX, CXXFLAGS as usual; CUDA_HOME, or else PATH, leads to nvcc; EBP_CUDA_ARCHS, for example
"80 90", replaces the list of GPU architectures, and an empty one leaves the CUDA kernels out; EBP_TORCH_DIR is the
folder of the torch package to build against where the running interpreter's is not the one.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SOURCES = Path("csrc")
ARCHS = "75 80 86 89 90 100 120"
OLDEST_CUDA, BEYOND_CUDA = (12, 8), (14, 0)  # 12.8 is the first to know sm_100 and sm_120
STABLE_ABI_SINCE = "0x020a000000000000"  # torch 2.10: nothing newer may be called
INSTRUCTION_SETS = {
    "default": [],
    "avx2": ["-mavx2"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}
AMX = [*INSTRUCTION_SETS["avx512"], "-mamx-tile", "-mamx-bf16"]
TILE_FLAGS = ["-Wno-psabi"]  # vectors wider than the model's registers go to inlined functions only
# The instruction sets must agree to the last bit, hence no contraction into fused multiply-adds. The other two only
# say that nobody reads errno or the exception flags; without them no loop with a division or root is vectorized.
CPU_FLAGS = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
CXX_FLAGS = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]


def torch_folder() -> Path:
    """The torch package to build against. pip's build isolation hides it from `import` but not from sysconfig."""
    given = os.environ.get("EBP_TORCH_DIR")
    candidates = [Path(given)] if given else [Path(sysconfig.get_path(key)) / "torch" for key in ("platlib", "purelib")]
    spec = None if given else importlib.util.find_spec("torch")
    if spec is not None and spec.origin:
        candidates.insert(0, Path(spec.origin).parent)
    for folder in candidates:
        if (folder / "include/torch/csrc/stable/library.h").is_file():
            return folder
    sys.exit(
        "ebp_cuda is built against an installed torch 2.10 or newer and found none in "
        + ", ".join(str(folder) for folder in candidates)
        + "\n  pip install torch, then: pip install --no-build-isolation ."
    )


def torch_version(folder: Path) -> str:
    """Such as 2.13.0+cpu; read and not imported."""
    found = re.search(r"__version__ = '([^']+)'", (folder / "version.py").read_text())
    version = found.group(1) if found else "unknown"
    if found and tuple(int(part) for part in version.split(".")[:2]) < (2, 10):
        sys.exit(f"ebp_cuda needs torch 2.10 or newer; {folder} holds {version}")
    return version


@dataclass(frozen=True)
class Nvcc:
    """A CUDA compiler and the architectures to compile for."""

    path: Path
    version: str
    archs: tuple[str, ...]

    @staticmethod
    def find() -> Nvcc | None:
        """The nvcc of CUDA_HOME if that is set, else of PATH or /usr/local/cuda; or None, and a line that says why."""
        wanted = os.environ.get("EBP_CUDA_ARCHS", ARCHS).replace(",", " ").split()
        if not wanted:
            print("ebp_cuda: EBP_CUDA_ARCHS is empty: building for the CPU only", flush=True)
            return None
        home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
        places = [f"{home}/bin/nvcc"] if home else [shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"]
        path = next((Path(place) for place in places if place and os.access(place, os.X_OK)), None)
        if path is None:
            where = f"CUDA_HOME={home}" if home else "PATH or /usr/local/cuda"
            print(f"ebp_cuda: no nvcc in {where}: building for the CPU only", flush=True)
            return None
        known = {arch.removeprefix("compute_") for arch in _output(path, "--list-gpu-arch").split()}
        archs = tuple(arch for arch in wanted if arch in known)
        if not archs:
            sys.exit(f"{path} knows none of the architectures {wanted}; it knows {sorted(known, key=int)}")
        release = re.search(r"release ([\d.]+)", _output(path, "--version"))
        version = release.group(1) if release else "unknown"
        if release and not OLDEST_CUDA <= tuple(map(int, version.split("."))) < BEYOND_CUDA:
            sys.exit(f"{path} is of CUDA {version}; ebp_cuda is built with CUDA 12.8 or newer, up to 13.x")
        print(f"ebp_cuda: CUDA {version} kernels by {path} for sm_{', sm_'.join(archs)}", flush=True)
        return Nvcc(path, version, archs)

    def flags(self) -> list[str]:
        """Machine code for every architecture, and PTX for devices of none: of the last for what comes after it, of 9.0
        for what lies between (11.0)."""
        codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in self.archs]
        texts = sorted({self.archs[-1], *({"90"} & set(self.archs))}, key=int)
        return [*codes, *(f"-gencode=arch=compute_{arch},code=compute_{arch}" for arch in texts)]

    def library_folder(self) -> Path:
        """Where libcudart_static.a lies."""
        plan = subprocess.run([self.path, "--dryrun", "x.cu"], check=True, capture_output=True, text=True).stderr
        top = re.search(r"^#\$ TOP=(.+)$", plan, re.MULTILINE)  # not the path's parent: nvcc may be a wrapper script
        home = Path(top.group(1)) if top else self.path.resolve().parent.parent
        places = [home / "lib64", home / "lib", *home.glob("targets/*/lib"), Path("/usr/lib/x86_64-linux-gnu")]
        for place in places:
            if (place / "libcudart_static.a").is_file():
                return place
        sys.exit(f"{self.path}: no libcudart_static.a in {', '.join(map(str, places))}")


def _output(program: Path, *arguments: str) -> str:
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Step:
    """One compiler call, and the file that it writes."""

    target: Path
    command: list[str]


def compile_steps(torch: Path, nvcc: Nvcc | None, folder: Path) -> Iterator[Step]:
    """Every source to compile into `folder`."""
    cxx = [*os.environ.get("CXX", "g++").split(), *CXX_FLAGS, *os.environ.get("CXXFLAGS", "").split()]
    defines = [f"-DTORCH_TARGET_VERSION={STABLE_ABI_SINCE}", f'-DEBP_TORCH="{torch_version(torch)}"']
    if nvcc is not None:
        defines += [f'-DEBP_ARCHS="{" ".join(nvcc.archs)}"', f'-DEBP_NVCC="{nvcc.version}"']
    x86 = platform.machine() in ("x86_64", "AMD64")
    tiles: dict[str, list[str]] = {"model": []}
    if x86 and sys.platform == "linux" and accepts(cxx, AMX):
        tiles["amx"] = AMX
        defines += ["-DEBP_AMX"]
    elif x86 and sys.platform == "linux":
        print(f"ebp_cuda: {cxx[0]} knows no AMX (GCC 11 and Clang 12 do): building without its kernels", flush=True)
    binding = ["-O2", *defines, "-isystem", f"{torch}/include"]
    for source in sorted([*SOURCES.glob("bindings/*.cpp"), SOURCES / "cpu/dispatch.cpp"]):
        if not source.name.startswith("cuda_") or nvcc is not None:
            target = folder / f"{source.stem}.o"
            yield Step(target, [*cxx, *binding, "-MMD", "-c", str(source), "-o", str(target)])
    for name, flags in INSTRUCTION_SETS.items():
        if name == "default" or x86:
            target = folder / f"kernels_{name}.o"
            kernel = [*CPU_FLAGS, *flags, f"-DEBP_ISA=isa_{name}", "-MMD", "-c", str(SOURCES / "cpu/kernels.cpp")]
            yield Step(target, [*cxx, *kernel, "-o", str(target)])
    for name, flags in tiles.items():
        target, source = folder / f"tiles_{name}.o", str(SOURCES / "cpu/tile_convolution.cpp")
        kernel = [*CPU_FLAGS, *TILE_FLAGS, *flags, f"-DEBP_ISA=tiles_{name}", "-MMD", "-c", source]
        yield Step(target, [*cxx, *kernel, "-o", str(target)])
    for source in sorted(SOURCES.glob("cuda/*.cu")) if nvcc is not None else ():
        target = folder / f"cuda_{source.stem}.o"
        options = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden", *nvcc.flags()]
        noting = ["-MMD", "-MF", str(target.with_suffix(".d"))]
        yield Step(target, [str(nvcc.path), *options, *noting, "-c", str(source), "-o", str(target)])


def accepts(cxx: list[str], flags: list[str]) -> bool:
    """Whether the compiler knows these options (those of AMX came with GCC 11 and Clang 12)."""
    command = [*cxx, *flags, "-x", "c++", "-fsyntax-only", os.devnull]
    return subprocess.run(command, capture_output=True).returncode == 0


def link_step(torch: Path, nvcc: Nvcc | None, objects: list[Path], target: Path) -> Step:
    """The library. torch's own are found when it loads: `import torch` has brought them in before."""
    cuda = [f"-L{nvcc.library_folder()}", "-lcudart_static", "-lrt", "-lpthread"] if nvcc is not None else []
    libraries = [f"-L{torch}/lib", "-ltorch_cpu", *cuda, "-ldl"]
    cxx = os.environ.get("CXX", "g++").split()
    return Step(target, [*cxx, "-shared", "-Wl,--as-needed", *map(str, objects), *libraries, "-o", str(target)])


class BuildLibrary(build_ext):
    """`build_ext` for a library that torch loads and Python does not import."""

    def get_ext_filename(self, fullname: str) -> str:
        """ebp_cuda/_C.so for every Python: nothing in it depends on the interpreter."""
        return fullname.replace(".", os.sep) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Compiles what is older than any source, header or option it could depend on, then links."""
        folder = Path("build/objects")  # setuptools' own would be a new one for every pip install
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:  # one build at a time uses the folder
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.compile_and_link(folder, Path(self.get_ext_fullpath(ext.name)))

    def copy_extensions_to_source(self) -> None:
        """The end of a build in place: the headers go along with the library."""
        super().copy_extensions_to_source()
        copy_files(HEADERS, ROOT / "ebp_cuda/include")

    def compile_and_link(self, folder: Path, target: Path) -> None:
        """Object files into `folder`, the library to `target`."""
        torch, nvcc = torch_folder(), Nvcc.find()
        steps = list(compile_steps(torch, nvcc, folder))
        with ThreadPoolExecutor(self.parallel or os.cpu_count()) as pool:
            list(pool.map(run, steps))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}")  # a running process may hold the old library
        run(link_step(torch, nvcc, [step.target for step in steps], partial))
        os.replace(partial, target)
        copy_files(HEADERS, target.parent / "include")  # what ebp_cuda.jit offers to kernels of the user's own
        print(f"ebp_cuda: built {target} against torch {torch_version(torch)}", flush=True)


def run(step: Step) -> None:
    """Runs one step, unless its target was made by the same command and is newer than all that went into it."""
    if is_current(step):
        return
    done = subprocess.run(step.command, capture_output=True, text=True)
    print(done.stdout + done.stderr, end="", flush=True)
    if done.returncode != 0:
        sys.exit(f"ebp_cuda: this failed:\n  {' '.join(step.command)}")
    if step.target.suffix == ".o":
        step.target.with_suffix(".command").write_text("\n".join(step.command))


def is_current(step: Step) -> bool:
    """Whether an object file can stay: the compiler noted in NAME.d what it read."""
    record, read = step.target.with_suffix(".command"), step.target.with_suffix(".d")
    if not (step.target.is_file() and record.is_file() and read.is_file()):
        return False
    if record.read_text() != "\n".join(step.command):
        return False
    files = [Path(name) for name in read.read_text().replace("\\\n", " ").split(":", 1)[1].split()]
    return all(file.is_file() and file.stat().st_mtime < step.target.stat().st_mtime for file in files)


class CopyModels(build_py):
    """`build_py` that also takes along the labels and the trained network of models/, which lies beside the package.

    In a checkout ebp_cuda.models reads them where they are; an installed package holds its own copy.
    """

    def run(self) -> None:
        """Copies them to where ebp_cuda.models._data looks first."""
        super().run()
        if not self.editable_mode:
            copy_files(MODEL_FILES, Path(self.build_lib) / "ebp_cuda/models/data", Path("models"))


def copy_files(files: list[Path], folder: Path, start: Path | None = None) -> None:
    """Copies files into a folder, each under its path from `start` (or its bare name)."""
    for file in files:
        target = folder / (file.relative_to(start) if start else file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)


class BinaryWheel(bdist_wheel):
    """A wheel for one platform and every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """py3-none-<platform>."""
        return "py3", "none", super().get_tag()[2]


os.chdir(ROOT)
HEADERS = [SOURCES / "core/rules.h", SOURCES / "core/geometry.h"]
MODEL_FILES = sorted([*Path("models").glob("labels/*.txt"), *Path("models/digits").glob("d*.*")])
setup(
    ext_modules=[Extension("ebp_cuda._C", sources=[])],
    cmdclass={"build_ext": BuildLibrary, "build_py": CopyModels, "bdist_wheel": BinaryWheel},
)
