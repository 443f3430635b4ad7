// Shared memory: one struct per kernel, whose size the launcher passes as Grid::shared_bytes.
#pragma once

#include <cuda_runtime.h>

namespace ebp {

// The block's dynamic shared memory as a T. Nothing has initialized it.
template <class T>
__device__ __forceinline__ T& shared_memory() {
#if defined(EBP_EMULATOR)
  return *static_cast<T*>(emu::dynamic_shared(sizeof(T), alignof(T)));
#else
  extern __shared__ __align__(128) unsigned char ebp_dynamic_shared[];
  return *reinterpret_cast<T*>(ebp_dynamic_shared);
#endif
}

}  // namespace ebp
