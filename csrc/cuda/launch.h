// One thread per output element: how every naive kernel is launched.
#pragma once

#include <cuda_runtime.h>

#include "../params.h"

namespace ebp {

constexpr int threads_per_block = 256;

// This thread's element, or one at or behind `total` for the threads that fill the last block.
__device__ __forceinline__ int64_t thread_element() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

inline unsigned blocks_for(int64_t total) { return unsigned((total + threads_per_block - 1) / threads_per_block); }

inline cudaStream_t as_stream(void* stream) { return static_cast<cudaStream_t>(stream); }

inline const char* launch_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace ebp
