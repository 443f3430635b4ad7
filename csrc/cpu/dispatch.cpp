// Which of the compiled instruction sets this machine runs. All give the same bits.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

#define EBP_DECLARE(isa)                          \
  namespace isa {                                 \
  extern const CpuKernels<float> float_kernels;   \
  extern const CpuKernels<double> double_kernels; \
  }

namespace ebp {

EBP_DECLARE(isa_default)
#if defined(__x86_64__)
EBP_DECLARE(isa_avx2)
EBP_DECLARE(isa_avx512)
#endif

namespace {

struct Choice {
  const char* name;
  const CpuKernels<float>& floats;
  const CpuKernels<double>& doubles;
};

Choice choose() {
#if defined(__x86_64__)
  const char* wish = std::getenv("EBP_CPU_ISA");
  const auto allowed = [&](const char* isa) { return wish == nullptr || std::strcmp(wish, isa) == 0; };
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && allowed("avx512")) return {"avx512", isa_avx512::float_kernels, isa_avx512::double_kernels};
  if (avx2 && allowed("avx2")) return {"avx2", isa_avx2::float_kernels, isa_avx2::double_kernels};
#endif
  return {"default", isa_default::float_kernels, isa_default::double_kernels};
}

const Choice& choice() {
  static const Choice chosen = choose();
  return chosen;
}

}  // namespace

template <>
const CpuKernels<float>& cpu_kernels<float>() {
  return choice().floats;
}
template <>
const CpuKernels<double>& cpu_kernels<double>() {
  return choice().doubles;
}

const char* cpu_isa() { return choice().name; }

}  // namespace ebp
