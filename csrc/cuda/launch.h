// How kernels are launched: through the runtime's function and not the <<<>>> syntax, so that a C++ compiler can build
// the launchers against the emulator (csrc/emu) and run there exactly what runs on a GPU.
#pragma once

#include <cuda_runtime.h>

#include "../core/params.h"

namespace ebp {

struct Grid {
  dim3 blocks, threads;
  std::size_t shared_bytes = 0;  // dynamic shared memory of a block, see shared.cuh
};

// Returns at once: nullptr, or what CUDA says went wrong.
template <class... Parameters, class... Arguments>
const char* launch(void (*kernel)(Parameters...), const Grid& grid, void* stream, const Arguments&... arguments) {
  constexpr std::size_t unasked = 48 * 1024;  // what every kernel may use without asking
  if (grid.shared_bytes > unasked) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(grid.shared_bytes));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = grid.threads;
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);  // an earlier call's error is not ours
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();  // clears the error: it is reported here, and must not surface in a later call
  return cudaGetErrorString(error);
}

constexpr int threads_per_block = 256;

// This thread's element where each thread has one; the threads that fill the last block get one at or behind the total.
__device__ __forceinline__ int64_t thread_element() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

// This thread's quad, where each thread has four elements; there are less than 2^29.
__device__ __forceinline__ int thread_quad() { return int(blockIdx.x * blockDim.x + threadIdx.x); }

// The threads that a kernel needs, and what is said where there are none: a grid of no blocks is refused.
struct Threads {
  int64_t total;
  const char* if_empty;
};

// One thread per element.
template <class... Parameters, class... Arguments>
const char* launch_elements(void (*kernel)(Parameters...), const Threads& threads, void* stream,
                            const Arguments&... arguments) {
  if (threads.total <= 0) return threads.if_empty;
  const auto blocks = unsigned((threads.total + threads_per_block - 1) / threads_per_block);
  return launch(kernel, {blocks, threads_per_block}, stream, arguments...);
}

}  // namespace ebp
