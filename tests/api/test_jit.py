"""ebp_cuda.jit: the headers compile on their own, by nvcc and at run time; what CuPy is asked for; what is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from support import nvrtc

from ebp_cuda import InputError, ShapeError, UnsupportedError, jit

OPERATION = "r = T(0.9) * ebp::share(p, z)"

SOURCE = """
#include "rules.h"
#include "geometry.h"

template <class T>
__global__ void damped(const T* p, const T* z, T* r, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  r[i] = T(0.9) * ebp::share(p[i], z[i]);
  r[i] += ebp::lrn<ebp::LrnPower::any>(p[i], z[i], T(1e-4), T(0.75), T(1));
  r[i] += ebp::lrn<ebp::LrnPower::three_quarters>(p[i], z[i], T(1e-4), T(0.75), T(1));
  if (ebp::wins(p[i], ebp::empty_maximum<T>())) r[i] += ebp::routed(p[i], 1, ebp::ceil_div(i, 3));
}
template __global__ void damped<float>(const float*, const float*, float*, int);
template __global__ void damped<double>(const double*, const double*, double*, int);
"""


def test_the_headers_are_part_of_the_package() -> None:
    folder = Path(jit.include_options()[0].removeprefix("-I"))
    assert {path.name for path in folder.iterdir()} == set(jit.HEADERS)
    included = {
        line.split('"')[1]
        for path in folder.iterdir()
        for line in path.read_text().splitlines()
        if '#include "' in line
    }
    assert included <= set(jit.HEADERS)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_nvcc_compiles_a_rule(tmp_path) -> None:
    (tmp_path / "rule.cu").write_text(SOURCE)
    command = [
        "nvcc",
        *jit.include_options(),
        "-arch=sm_90",
        "-ptx",
        "-o",
        str(tmp_path / "rule.ptx"),
        str(tmp_path / "rule.cu"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rule.ptx").read_text().count(".entry") == 2


@pytest.mark.skipif(nvrtc.library() is None, reason="no libnvrtc")
@pytest.mark.parametrize("arch", ["75", "80", "90", "120"])
def test_the_run_time_compiler_compiles_a_rule(arch) -> None:
    """With the options that CuPy adds; it has no standard headers."""
    options = (*jit.include_options(), f"-arch=compute_{arch}", "--device-as-default-execution-space")
    done, text = nvrtc.compile_source(SOURCE, *options)
    assert done, text
    assert text.count(".entry") == 2
    done, text = nvrtc.compile_source(SOURCE.replace("ebp::share", "ebp::shared_by"), *options)
    assert not done and "shared_by" in text


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_a_rule_computes_what_it_says(tmp_path) -> None:
    """The same formula through the same headers, for the host."""
    program = f"""
    #include "rules.h"
    #include <cstdio>
    int main() {{
      using T = double;
      const T ps[] = {{1, 2, -3, 4}}, zs[] = {{2, 0, 4, -5}};
      for (int i = 0; i < 4; ++i) {{ const T p = ps[i], z = zs[i]; T r; {OPERATION}; std::printf("%.17g ", r); }}
    }}"""
    (tmp_path / "rule.cpp").write_text(program)
    binary = tmp_path / "rule"
    subprocess.run(["g++", *jit.include_options(), "-o", str(binary), str(tmp_path / "rule.cpp")], check=True)
    found = [
        float(word) for word in subprocess.run([binary], capture_output=True, text=True, check=True).stdout.split()
    ]
    assert found == pytest.approx([0.45, 0.0, -0.675, -0.72], rel=1e-15)


class CompileException(Exception):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class Recorder(ModuleType):
    """What jit asks of CuPy."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.kernels: list[tuple] = []
        self.cuda = SimpleNamespace(
            compiler=SimpleNamespace(CompileException=CompileException),
            runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError),
        )

    def ElementwiseKernel(self, *args, **options):
        self.kernels.append((args, options))

        def run(*arrays):
            if "wrong" in args[2]:
                raise CompileException('rule.cu(3): error: identifier "wrong" is undefined')
            return arrays[0]

        return run

    def RawModule(self, **options):
        self.kernels.append(((), options))

        def compile_it() -> None:
            if "wrong" in options["code"]:
                raise CompileException('identifier "wrong" is undefined')
            if "nowhere" in options["code"]:
                raise CUDARuntimeError("cudaErrorInsufficientDriver")

        return SimpleNamespace(compile=compile_it)


@pytest.fixture
def cupy(monkeypatch) -> Recorder:
    fake = Recorder()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


class Array:
    pass


Array.__module__ = "cupy"


def test_what_cupy_is_asked_for(cupy) -> None:
    kernel = jit.elementwise("T p, T z", "T r", OPERATION, name="damped_share", preamble="// mine")
    ((args, options),) = cupy.kernels
    assert args == ("T p, T z", "T r", OPERATION, "damped_share")
    assert options["preamble"].splitlines() == ['#include "rules.h"', '#include "geometry.h"', "// mine"]
    assert options["options"] == jit.include_options() and kernel.inputs == ["p", "z"]
    first = Array()
    assert kernel(first, Array()) is first
    jit.raw_module(SOURCE, ["damped<float>"])
    assert cupy.kernels[-1][1]["name_expressions"] == ("damped<float>",) and cupy.kernels[-1][1]["code"] == SOURCE


def test_refusals(cupy) -> None:
    kernel = jit.elementwise("T p, T z", "T r", OPERATION, name="damped")
    with pytest.raises(ShapeError, match=r"damped: got 1 arrays, wanted 2: \['p', 'z'\]"):
        kernel(Array())
    with pytest.raises(ShapeError, match="damped: got tensors on the CPU"):
        kernel(torch.ones(2), torch.ones(2))
    with pytest.raises(InputError, match="wanted arrays of one library"):
        kernel(Array(), torch.ones(2))
    with pytest.raises(InputError, match="name='damped share'"):
        jit.elementwise("T p", "T r", "r = p", name="damped share")
    with pytest.raises(InputError, match="wanted one of each"):
        jit.elementwise(" ", "T r", "r = 1", name="nothing")
    wrong = jit.elementwise("T p", "T r", "r = wrong(p)", name="typo")
    with pytest.raises(InputError, match=r'typo does not compile.*"wrong" is undefined'):
        wrong(Array())
    with pytest.raises(InputError, match=r'does not compile.*"wrong" is undefined'):
        jit.raw_module("wrong")
    with pytest.raises(UnsupportedError, match=r"no GPU.*InsufficientDriver"):
        jit.raw_module("nowhere")


def test_without_cupy(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(UnsupportedError, match=r"pip install ebp_cuda\[cupy\]"):
        jit.elementwise("T p", "T r", "r = p", name="copy")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_a_gpu(dtype) -> None:
    cupy = pytest.importorskip("cupy")
    from ebp_cuda import ops

    kernel = jit.elementwise("T p, T z", "T r", OPERATION, name="damped_share")
    p, z = torch.rand(4, 5, dtype=dtype, device="cuda"), torch.rand(4, 5, dtype=dtype, device="cuda")
    z[0] = 0
    wanted = 0.9 * ops.divide_or_zero(p, z)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.testing.assert_close(kernel(p, z), wanted)
    arrays = [cupy.from_dlpack(tensor) for tensor in (p, z)]
    assert isinstance(kernel(*arrays), cupy.ndarray)
    module = jit.raw_module(SOURCE, ["damped<float>", "damped<double>"])
    assert module.get_function("damped<float>") is not None
