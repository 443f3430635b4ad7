#include <climits>
#include <type_traits>

#include "launchers.h"
#include "lrn.cuh"

namespace ebp {
namespace {

template <LrnPower power, class T>
const char* launch_power(const Lrn& d, const T* x, T* y, void* stream) {
  const int64_t total = d.outer * d.channels * d.inner;
  const Threads threads{total, "lrn: y is empty"};
  if constexpr (std::is_same_v<T, float>) {
    const bool quads =
        d.inner == 1 && d.channels % 4 == 0 && total <= INT_MAX && aligned_to(x, 16) && aligned_to(y, 16);
    if (quads && d.size == lrn_quads_size && total > 0) {
      const LrnQuads four{int(total / 4), divider_of(int(d.channels / 4)), float(d.alpha_over_size), float(d.beta),
                          float(d.k)};
      const auto* from = reinterpret_cast<const Quad*>(x);
      return launch_elements(lrn_quads_kernel<power>, {four.total, ""}, stream, four, from, reinterpret_cast<Quad*>(y));
    }
  }
  return launch_elements(lrn_kernel<power, T>, threads, stream, d, x, y);
}

}  // namespace

template <class T>
const char* launch_lrn(const Lrn& d, const T* x, T* y, void* stream) {
  switch (lrn_power(d.beta)) {
    case LrnPower::three_quarters:
      return launch_power<LrnPower::three_quarters>(d, x, y, stream);
    case LrnPower::half:
      return launch_power<LrnPower::half>(d, x, y, stream);
    case LrnPower::one:
      return launch_power<LrnPower::one>(d, x, y, stream);
    default:
      return launch_power<LrnPower::any>(d, x, y, stream);
  }
}

template const char* launch_lrn<float>(const Lrn&, const float*, float*, void*);
template const char* launch_lrn<double>(const Lrn&, const double*, double*, void*);

}  // namespace ebp
