// Which of the compiled instruction sets this machine runs. All give the same bits, but for the products of tiles.
#include <cstdlib>
#include <cstring>

#if defined(EBP_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels.h"
#include "tile_convolution.h"

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

namespace tiles_model {
extern const TileKernel tile_kernel;
}
#if defined(EBP_AMX)
namespace tiles_amx {
extern const TileKernel tile_kernel;
}
#endif

namespace {

#if defined(EBP_AMX)
// Whether this processor multiplies tiles of bfloat16 and the system lets this process do so.
bool amx() {
  constexpr unsigned bfloat16 = 1u << 22, tile = 1u << 24;
  constexpr long request_permission = 0x1023, tile_data = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & bfloat16) == 0 || (d & tile) == 0) return false;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

struct Choice {
  const char* name;
  const CpuKernels<float>& floats;
  const CpuKernels<double>& doubles;
  TileKernel tiles = tiles_model::tile_kernel;
};

Choice choose() {
#if defined(__x86_64__)
  const char* wish = std::getenv("EBP_CPU_ISA");
  const auto allowed = [&](const char* isa) { return wish == nullptr || std::strcmp(wish, isa) == 0; };
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#if defined(EBP_AMX)
  if (avx512 && allowed("amx") && amx()) {
    return {"amx", isa_avx512::float_kernels, isa_avx512::double_kernels, tiles_amx::tile_kernel};
  }
#endif
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

TileKernel tile_kernel() { return choice().tiles; }

const char* cpu_isa() { return choice().name; }

}  // namespace ebp
