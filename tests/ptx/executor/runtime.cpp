// What nvcc's host code calls of the CUDA runtime, as far as the project needs it: launches go to the executor.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "launch.h"

namespace {
std::map<const void*, std::string>& names() {
  static std::map<const void*, std::string> all;
  return all;
}
std::map<const void*, int>& allowed() {
  static std::map<const void*, int> all;
  return all;
}
const char* refused = nullptr;
cudaError_t last = cudaSuccess;

cudaError_t go(const void* function, dim3 grid, dim3 block, size_t shared, void** arguments) {
  const auto found = names().find(function);
  if (found == names().end()) return last = cudaErrorInvalidDeviceFunction;
  const bool more = allowed().count(function) != 0 && size_t(allowed()[function]) >= shared;
  refused = px::launch(found->second, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared, more, arguments);
  return refused == nullptr ? cudaSuccess : last = cudaErrorInvalidConfiguration;
}
}  // namespace

extern "C" {
void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* device, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  names()[host] = device;
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { std::abort(); }
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, void*) { std::abort(); }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { std::abort(); }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { std::abort(); }
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* function, void** arguments) {
  if (c->numAttrs != 0) return last = cudaErrorNotSupported;
  return go(function, c->gridDim, c->blockDim, c->dynamicSmemBytes, arguments);
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t) {
  return go(function, grid, block, shared, arguments);
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute what, int value) {
  if (what == cudaFuncAttributeMaxDynamicSharedMemorySize) allowed()[function] = value;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  const cudaError_t e = last;
  last = cudaSuccess;
  return e;
}
const char* cudaGetErrorString(cudaError_t) { return refused != nullptr ? refused : "error of the runtime"; }
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr what, int) {
  if (what == cudaDevAttrComputeCapabilityMajor)
    *value = px::arch() / 10;
  else if (what == cudaDevAttrComputeCapabilityMinor)
    *value = px::arch() % 10;
  else
    return cudaErrorInvalidValue;
  return cudaSuccess;
}
int px_kernel_names(char* out, int size) {
  std::string text;
  for (const auto& [host, name] : names()) text += name + "\n";
  std::snprintf(out, size_t(size), "%s", text.c_str());
  return int(names().size());
}
}
