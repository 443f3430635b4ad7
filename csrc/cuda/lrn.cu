#include "launchers.h"
#include "lrn.cuh"

namespace ebp {

template <LrnPower power, class T>
const char* launch_power(const Lrn& d, const T* x, T* y, void* stream) {
  return launch_elements(lrn_kernel<power, T>, {d.outer * d.channels * d.inner, "lrn: y is empty"}, stream, d, x, y);
}

template <class T>
const char* launch_lrn(const Lrn& d, const T* x, T* y, void* stream) {
  switch (lrn_power(d.beta)) {
    case LrnPower::three_quarters: return launch_power<LrnPower::three_quarters>(d, x, y, stream);
    case LrnPower::half: return launch_power<LrnPower::half>(d, x, y, stream);
    case LrnPower::one: return launch_power<LrnPower::one>(d, x, y, stream);
    default: return launch_power<LrnPower::any>(d, x, y, stream);
  }
}

template const char* launch_lrn<float>(const Lrn&, const float*, float*, void*);
template const char* launch_lrn<double>(const Lrn&, const double*, double*, void*);

}  // namespace ebp
