// Stands in for CUDA's header of this name when a C++ compiler builds the kernels for the emulator. It holds what our
// kernels use; atomics are left out because no kernel may have any, and the keyword for shared memory because it comes
// from shared.cuh, where its size is known and its accesses are checked.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "simt.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __CUDA_ARCH__ 900

constexpr int warpSize = emu::warp_lanes;

inline void __syncthreads(EMU_SITE()) { emu::block_barrier({"__syncthreads", file, line}); }
inline void __syncwarp(unsigned mask = emu::full_mask, EMU_SITE()) {
  emu::warp_barrier(mask, {"__syncwarp", file, line});
}

#include "shuffle.h"

template <class T>
inline T __ldg(const T* from) {
  return *from;
}

template <class To, class From>
inline To emu_bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline unsigned __float_as_uint(float v) { return emu_bit_cast<unsigned>(v); }
inline int __float_as_int(float v) { return emu_bit_cast<int>(v); }
inline float __uint_as_float(unsigned v) { return emu_bit_cast<float>(v); }
inline float __int_as_float(int v) { return emu_bit_cast<float>(v); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(std::uint64_t(a) * b >> 32); }

template <class T>
inline T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
inline T max(T a, T b) {
  return a < b ? b : a;
}

// The runtime's functions that launchers use. A launch runs to its end before it returns; a fault is thrown.
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
using cudaStream_t = struct CUstream_st*;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  void* attrs;
  unsigned numAttrs;
};

namespace emu {
std::size_t& shared_limit_of(const void* kernel);
}

template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int bytes) {
  emu::shared_limit_of(reinterpret_cast<const void*>(kernel)) = std::size_t(bytes);
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  const void* address = reinterpret_cast<const void*>(kernel);
  emu::run({emu::kernel_name(address), config->gridDim, config->blockDim, config->dynamicSmemBytes,
            emu::shared_limit_of(address)},
           [&] { kernel(static_cast<Parameters>(arguments)...); });
  return cudaSuccess;
}

enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76 };
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? __CUDA_ARCH__ / 100 : __CUDA_ARCH__ / 10 % 10;
  return cudaSuccess;
}

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
