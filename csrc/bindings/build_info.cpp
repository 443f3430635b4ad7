// What this library was built with, as JSON. The build defines the three macros.
#include <string>

#include "../cpu/kernels.h"

#ifndef EBP_ARCHS
#define EBP_ARCHS ""
#endif
#ifndef EBP_NVCC
#define EBP_NVCC ""
#endif

extern "C" __attribute__((visibility("default"))) const char* ebp_cuda_build_info() {
  static const std::string info = std::string("{\"cuda\": ") + (EBP_ARCHS[0] != '\0' ? "true" : "false") +
                                  ", \"archs\": \"" EBP_ARCHS "\", \"nvcc\": \"" EBP_NVCC "\", \"torch\": \"" EBP_TORCH
                                  "\", \"cpu_isa\": \"" +
                                  ebp::cpu_isa() + "\"}";
  return info.c_str();
}
