// Where the CUDA side of an op runs: on the tensor's device and torch's current stream there. In the emulator's build
// the same ops run on CPU tensors, under the key that EBP_CUDA_KEY names.
#pragma once

#include "operands.h"

#if defined(EBP_EMULATOR)

#define EBP_CUDA_KEY CPU

namespace ebp::cuda {

struct DeviceGuard {
  explicit DeviceGuard(int) {}
};

inline void* current_stream(const Tensor&) { return nullptr; }

}  // namespace ebp::cuda

#else

#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#define EBP_CUDA_KEY CUDA

namespace ebp::cuda {

using torch::stable::accelerator::DeviceGuard;

// The shim lives in libtorch_cuda, which a CPU torch lacks: looked up when the first CUDA tensor arrives, so that this
// library loads under both.
inline void* current_stream(const Tensor& t) {
  using Getter = AOTITorchError (*)(int32_t, void**);
  static const Getter getter = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return library == nullptr ? nullptr
                              : reinterpret_cast<Getter>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
  }();
  EBP_REQUIRE(getter != nullptr,
              "ebp_cuda: this torch has no aoti_torch_get_current_cuda_stream; torch 2.10 or later "
              "with CUDA is needed");
  void* stream = nullptr;
  EBP_REQUIRE(getter(t.get_device_index(), &stream) == 0, "ebp_cuda: torch names no current CUDA stream");
  return stream;
}

}  // namespace ebp::cuda

#endif

namespace ebp::cuda {

// Calls launch(T{}, stream) on x's device, unless there is nothing to compute.
template <class Launch>
void on_device(const Operand& x, const Tensor& result, const Launch& launch) {
  if (result.numel() == 0) return;
  const DeviceGuard guard(x.tensor.get_device_index());
  for_dtype(x, [&](auto zero) {
    const char* error = launch(zero, current_stream(x.tensor));
    EBP_REQUIRE(error == nullptr, "ebp_cuda::", x.op, ": CUDA refused the launch: ", error == nullptr ? "" : error);
  });
}

}  // namespace ebp::cuda
